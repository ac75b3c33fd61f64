"""Tiny random parents, modules, rows and decompositions for tests; nothing here is trained.

Everything is drawn from a seed of its own: the process's random state is neither read nor moved.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from mlflow_rnnmod.decomposition.module import (
    Calibration,
    Energy,
    Head,
    Module,
    make_contract,
)
from mlflow_rnnmod.networks import (
    NetworkConfig,
    Parent,
    RecurrentNetwork,
    Rows,
    TextEncoder,
    Trunk,
    jaccard,
)
from mlflow_rnnmod.networks.groups import Group

if TYPE_CHECKING:
    from mlflow_rnnmod.decomposition import Decomposition

LABELS = ("german", "irish", "zulu")
# Each breaks something: paths, quotes, emoji, Markdown tables, HTML, case, whitespace, nothing.
ODD_LABELS = (
    "a/b:c.d%e",
    'it\'s "quoted"',
    "😀 emoji",
    "pipe | and `code` [link](x)",
    "<script>alert(1)</script> & more",
    "Case",
    "case",
    "tab\tand\nnewline",
    "",
    "日本語",
)


def character_encoder(extra: str = "äöüßéó' ", side: str = "right") -> TextEncoder:
    """A tokenizer of single characters: id 0 is padding, 1 is unknown; lower-cases."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    letters = string.ascii_lowercase + extra
    vocabulary = {"[PAD]": 0, "[UNK]": 1, **{c: i + 2 for i, c in enumerate(letters)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return TextEncoder(tokenizer, pad_index=0, side=side)


def tiny_parent(
    kind: str = "tokens",
    labels: Sequence[str] = LABELS,
    cell: str = "lstm",
    recurrent: tuple[tuple[int, ...], ...] = ((8,),),
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    scale: float = 2.0,
    **config: Any,
) -> Parent:
    """A parent of ``kind`` ``"text"``, ``"tokens"`` or ``"features"`` with random weights.

    ``scale`` stretches PyTorch's initial weights, so that answers differ between rows. ``config``
    goes to :class:`NetworkConfig` (``hidden``, ``readout``, ``packed``, ``side``, ``steps`` ...).
    """
    tokenizer = character_encoder(side=config.get("side", "right")) if kind == "text" else None
    if kind == "features":
        config = {"input_size": 5, "embedding_size": None, **config}
    else:
        size = tokenizer.tokenizer.get_vocab_size() if tokenizer else 20
        config = {"input_size": size, "embedding_size": 6, "pad_index": 0, **config}
    structure = NetworkConfig(
        input="features" if kind == "features" else "tokens",
        cell=cell,  # type: ignore[arg-type]
        recurrent=recurrent,
        labels=tuple(labels),
        **config,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = RecurrentNetwork(structure).to(dtype)
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(scale)
        network.output.weight.mul_(4.0)  # or the biases would decide every answer
    return Parent(network, tokenizer)


def tiny_rows(parent: Parent, count: int = 12, steps: int = 7, seed: int = 0) -> Rows:
    """Random rows of different lengths that ``parent`` can read, with random targets."""
    draw = torch.Generator().manual_seed(seed)
    config = parent.network.config
    targets = torch.randint(len(parent.labels), (count,), generator=draw)
    lengths = torch.randint(1, steps + 1, (count,), generator=draw)
    if config.input == "features":
        values = torch.randn(count, steps, config.input_size, generator=draw)
        return Rows(values.to(parent.network.dtype), lengths, targets)
    values = torch.randint(1, config.input_size, (count, steps), generator=draw)
    valid = parent.network.valid(lengths, steps)
    return Rows(torch.where(valid, values, config.pad_index or 0), lengths, targets)


def tiny_texts(count: int = 12, seed: int = 0) -> list[str]:
    """Random lower-case words of 1 to 9 letters."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 10, (count,), generator=draw).tolist()
    return [
        "".join(string.ascii_lowercase[i] for i in torch.randint(26, (n,), generator=draw))
        for n in lengths
    ]


def tiny_inputs(parent: Parent, count: int = 12, seed: int = 0) -> list[Any]:
    """Inputs as a user of ``parent`` gives them: texts, lists of ids, or arrays of features."""
    if parent.input_kind == "text":
        return tiny_texts(count, seed)
    rows = tiny_rows(parent, count, seed=seed)
    assert rows.lengths is not None
    left = parent.network.config.side == "left"
    cut = [v[-n:] if left else v[:n] for v, n in zip(rows.values, rows.lengths, strict=True)]
    return [v.numpy() if parent.input_kind == "features" else v.tolist() for v in cut]


def tiny_trunk(parent: Parent, removal: float = 0.25, seed: int = 0, fold: bool = True) -> Trunk:
    """A trunk without a random ``removal`` of each layer's units, and random constants for them."""
    draw = torch.Generator().manual_seed(seed)
    keep, constants = {}, {}
    for name, units in parent.network.units.items():
        removed = torch.randperm(units, generator=draw)[: min(int(removal * units), units - 1)]
        keep[name] = torch.ones(units, dtype=torch.bool)
        keep[name][removed] = False
        constants[name] = torch.randn(units, generator=draw) * 0.3
    return Trunk(keep, constants if fold else {})


def tiny_module(
    parent: Parent,
    label: str | None = None,
    removal: float = 0.25,
    seed: int = 0,
    repaired: bool = True,
    trunk: Trunk | None = None,
    figures: Mapping[str, float] | None = None,
) -> Module:
    """The module of ``label`` (default: the parent's first) with random trunk, heads and figures.

    ``repaired=False`` leaves the parent's own output layer and no calibration; with ``removal=0``
    as well, the module answers exactly what the parent does.
    """
    label = parent.labels[0] if label is None else label
    index = parent.labels.index(label)
    draw = torch.Generator().manual_seed(1000 * seed + index)
    size = parent.network.config.readout_size

    def head() -> Head:
        if not repaired:
            return Head()
        weight, (bias, scale, offset) = (
            torch.randn(size, generator=draw),
            torch.rand(3, generator=draw).tolist(),
        )
        return Head(weight * 0.1, bias, Calibration(0.5 + scale, offset - 0.5))

    trunk = trunk or tiny_trunk(parent, removal, seed=1000 * seed + index, fold=repaired)
    precision, recall, agreement = (0.5 + 0.5 * torch.rand(3, generator=draw)).tolist()
    share = trunk.kept / trunk.total
    return Module(
        parent=parent,
        trunk=trunk,
        head=head(),
        open_head=head(),
        energy=Energy(1.5, 0.75) if repaired else Energy(),
        contract=make_contract(parent, label),
        figures={
            "precision": precision,
            "recall": recall,
            "f1": 2 * precision * recall / (precision + recall),
            "agreement": agreement,
            "support": 25.0,
            "units_kept": share,
            "weights_kept": share,
            "recurrent_weights_kept": share**2,
            "jaccard": share,
            **(figures or {}),
        },
        made={
            "rule": "random" if removal else "none",
            "removal": removal,
            "repairs": ["fold", "refit", "calibrate"] if repaired else [],
            "rows": {
                "fitted": "up to 500 of 120 training rows for each label",
                "calibrated": "25 of 50 validation rows",
                "figures": "the other 25 of 50 validation rows, split off by a seeded hash",
            },
        },
    )


def tiny_modules(
    parent: Parent, removal: float = 0.25, seed: int = 0, repaired: bool = True
) -> tuple[Module, ...]:
    """A module for every label of ``parent``, in the order of its labels."""
    return tuple(tiny_module(parent, label, removal, seed, repaired) for label in parent.labels)


def tiny_decomposition(parent: Parent, **changes: Any) -> Decomposition:
    """A whole decomposition of ``parent`` with made-up figures; ``changes`` replace its fields."""
    from mlflow_rnnmod.decomposition import Decomposition, DecompositionConfig

    modules = changes.pop("modules", None) or tiny_modules(parent)
    overlap = torch.tensor(
        [[jaccard(first.trunk, second.trunk) for second in modules] for first in modules]
    )
    fields: dict[str, Any] = {
        "parent": parent,
        "modules": tuple(modules),
        "config": DecompositionConfig(),
        "figures": {
            "parent_accuracy": 0.92,
            "composed_accuracy": 0.93,
            "delta_accuracy": 0.01,
            "control_accuracy": 0.935,
            "net": -0.005,
            "random_accuracy": 0.88,
            "mean_jaccard": 0.6,
            "units_kept": 0.8,
            "recurrent_weights_kept": 0.64,
            "modules": float(len(modules)),
            "rows": 50.0,
        },
        "sizing": (
            {"removal": 0.0, "accuracy": 0.935, "control_accuracy": 0.935},
            {"removal": 0.2, "accuracy": 0.932, "control_accuracy": 0.935},
            {"removal": 0.35, "accuracy": 0.91, "control_accuracy": 0.935},
        ),
        "rows": {
            "fitted": "120 training rows, at most 500 a label",
            "calibrated": "50 of 100 validation rows, by a seeded hash",
            "figures": "the other 50 of 100 validation rows, held out by a seeded hash",
        },
        "overlap": overlap,
        "warnings": (),
        "seconds": 1.25,
    }
    return Decomposition(**{**fields, **changes})


def groups_named(sizes: dict[str, int], bounded: bool = True) -> dict[str, Group]:
    """Groups of a recurrent network that does not exist; ``bounded`` as no ReLU is."""
    found = {}
    for name, units in sizes.items():
        recurrent = not name.startswith("hidden")
        kind = {"bounded": bounded and recurrent, "idles": not bounded and recurrent}
        found[name] = Group(name, units, (), **kind)
    return found
