"""Submodules of a user's network: walked, described, and what of them is not covered."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from torch import nn

# Their dense layers are part of an attention, not of a chain from readout to answer.
_CLOSED = (nn.MultiheadAttention, nn.Transformer, nn.TransformerEncoder, nn.TransformerDecoder)
_NOT_COVERED: tuple[tuple[Any, str], ...] = (
    (_CLOSED, "attention is not covered."),
    (
        (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.modules.pooling._MaxPoolNd),
        "convolutions before or behind the recurrent layers are not covered.",
    ),
    (
        (nn.LayerNorm, nn.modules.batchnorm._BatchNorm, nn.GroupNorm),
        "normalisation between layers is not covered.",
    ),
)


def walk(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Submodules with their dotted names, each once; attentions and transformers stay closed."""
    seen: set[nn.Module] = set()

    def visit(name: str, part: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        if part in seen:
            return
        seen.add(part)
        yield name, part
        if not isinstance(part, _CLOSED):
            for child, below in part.named_children():
                yield from visit(f"{name}.{child}" if name else child, below)

    yield from visit("", module)


def uncovered(module: nn.Module, names: Collection[str | None]) -> list[str]:
    """Submodules and parameters that hold weights and are none of ``names``, in words."""
    found = []
    for name, part in walk(module):
        if any(name == known or (known and name.startswith(f"{known}.")) for known in names):
            continue
        own = [key for key, _ in part.named_parameters(recurse=False)]
        if own and name:
            found.append(f"{name} ({type(part).__name__})")
        elif own:
            found += [f"{key} (a parameter of the network itself)" for key in own]
        elif isinstance(part, _CLOSED):
            found.append(f"{name} ({type(part).__name__})")
    return found


def refused_kinds(module: nn.Module) -> list[str]:
    """What a network has that no reading covers, in words: one sentence for each kind of it."""
    parts = [part for _, part in walk(module)]
    found = []
    for kinds, text in _NOT_COVERED:
        names = sorted({type(part).__name__ for part in parts if isinstance(part, kinds)})
        if names:
            found.append(f"{', '.join(names)}: {text}")
    return found


def describe(name: str, part: nn.Module) -> str:
    """A submodule in words: its name, type and sizes."""
    sizes = ""
    if isinstance(part, nn.Linear):
        sizes = f"{part.in_features} to {part.out_features}"
    elif isinstance(part, nn.Embedding):
        sizes = f"{part.num_embeddings} x {part.embedding_dim}"
    elif isinstance(part, nn.RNNBase):
        both = ", bidirectional" if part.bidirectional else ""
        sizes = f"{part.input_size} to {part.hidden_size}, {part.num_layers} layers{both}"
    return f"{name or 'the network itself'} ({type(part).__name__} {sizes})".replace(" )", ")")


def listing(found: list[tuple[str, nn.Module]]) -> str:
    """Submodules in words."""
    return ", ".join(describe(name, part) for name, part in found) or "none"


def of_type(found: list[tuple[str, nn.Module]], kind: type) -> list[tuple[str, nn.Module]]:
    """Those of one kind."""
    return [(name, part) for name, part in found if isinstance(part, kind)]
