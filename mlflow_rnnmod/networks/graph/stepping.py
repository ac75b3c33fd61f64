"""How a user's network reads padding, found out on a real batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mlflow_rnnmod.inputs.rows import Rows, fitted
from mlflow_rnnmod.networks.forms import answer_tensor
from mlflow_rnnmod.networks.graph.calling import Call, Input
from mlflow_rnnmod.networks.graph.feeding import INPUT, LENGTHS, MASK
from mlflow_rnnmod.networks.guard import tolerance
from mlflow_rnnmod.networks.recurrent.candidates import look_at_padding
from mlflow_rnnmod.networks.spec import NetworkSpec

_MORE = 3


def padding_of(module: nn.Module, rows: Rows, spec: NetworkSpec) -> dict[str, Any]:
    """Which token pads, and on which side: by the spec, the batch or an embedding."""
    pads = [p.padding_idx for p in module.modules() if isinstance(p, nn.Embedding)]
    known = next((pad for pad in pads if pad is not None), None)
    found = look_at_padding(rows, known, spec)
    return {"pad_index": found.pad_index, "side": found.sides[0]}


def reads_padding(module: nn.Module, network: Any, call: Call, rows: Rows) -> str | None:
    """Why an answer depends on how far rows are padded; ``None`` where it does not.

    Args:
        module: the user's network.
        network: ours, with the weights of ``module`` and any number of steps.
        call: how the user calls theirs.
        rows: a batch.
    """
    config = network.config
    rows = network.content(rows.to(network.device)).to(network.device)
    steps = rows.values.shape[1]
    filler = config.pad_index or 0
    more = replace(rows, values=fitted(rows.values, steps + _MORE, filler, config.side))
    plain, padded = network(rows), network(more)
    if padded.ndim == 3:
        padded = padded[:, :steps] if config.side == "right" else padded[:, _MORE:]
        valid = network.answered(rows)
        plain, padded = plain[valid], padded[valid]
    if bool((plain - padded).abs().gt(tolerance(plain.dtype, plain, 100, steps)).any()):
        return "The network reads its padding: an answer depends on how far a row is padded."
    if not _follows(module, network, call, steps):
        return "The network does other things with more steps than it has in this batch."
    return None


def _follows(module: nn.Module, network: Any, call: Call, steps: int) -> bool:
    """Whether the user's network does with more steps what ours does."""
    config, like = network.config, network.like
    filler = config.pad_index or 0
    examples: dict[str, Tensor] = {}
    for name, example in call.examples.items():
        found = example.transpose(0, 1) if name in call.turned else example
        if name != LENGTHS:
            fill = filler if name == INPUT else 0
            found = fitted(found, steps + _MORE, fill, config.side)
        examples[name] = found
    values = examples[INPUT].to(like.device)
    lengths = examples.get(LENGTHS)
    if lengths is None and MASK in examples:
        lengths = examples[MASK].bool().sum(1)
    if lengths is None:
        lengths = network.lengths(
            Rows(
                call.example.to(like.device)
                if INPUT not in call.turned
                else call.example.T.to(like.device)
            )
        )
    rows = Rows(values, lengths.to(like.device))

    def own(value: Any) -> Any:
        if isinstance(value, Input):
            given = examples[value.name]
            given = given.transpose(0, 1) if value.turned else given
            return given if given.ndim == 1 else given.to(like.device)
        return value

    args, kwargs = torch.fx.node.map_aggregate((call.args, call.kwargs), own)  # type: ignore[misc]
    try:
        wanted = answer_tensor(module(*args, **kwargs))
    except Exception:  # noqa: BLE001  a user's code may take so many steps and no others
        return False
    found = network(rows)
    if found.ndim == 3:
        return True  # answers were compared step by step before
    if found.shape[1] == 2 and wanted.numel() == len(found):
        found = found[:, 1:] - found[:, :1]
    wanted = wanted.reshape(len(found), -1).to(found)
    for end in (lambda x: x, lambda x: x.log_softmax(-1), lambda x: x.softmax(-1), torch.sigmoid):
        gap = (end(found) - wanted).abs()
        if bool((gap <= tolerance(found.dtype, wanted, 100, steps) * 3).all()):
            return True
    return False
