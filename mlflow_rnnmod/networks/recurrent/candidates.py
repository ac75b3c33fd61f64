"""Habits that a user's network may have, and which of them are the same function."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.answers import answer_of
from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.forms import Form
from mlflow_rnnmod.networks.recurrent.config import READOUTS, NetworkConfig, Readout
from mlflow_rnnmod.networks.spec import ACTIVATIONS, DIRECTIONS_JOINED, SIDES, NetworkSpec

_READOUTS = tuple(readout for readout in READOUTS if readout != "all_steps")


@dataclass(frozen=True)
class Setting:
    """One choice of all habits: those that the structure holds, and three more."""

    config: NetworkConfig
    directions: str = "concatenate"
    output: str = "logits"
    axes: str = "rows_labels"

    def habits(self) -> dict[str, object]:
        """The habits by their name in :class:`~.spec.NetworkSpec`."""
        return {
            "readout": self.config.readout,
            "directions": self.directions,
            "packed": self.config.packed,
            "padding": self.config.side,
            "activations": tuple(layer.activation for layer in self.config.hidden),
            "output": self.output,
            "axes": self.axes,
            "kind": self.config.output,
            "feed": self.config.feed,
            "output_steps": self.config.output_steps,
        }


@dataclass(frozen=True)
class Padding:
    """What a batch shows about padding.

    Args:
        pad_index: token id of padding; ``None`` for features.
        sides: where padding may stand.
        content_only: features without lengths, of which every step counts.
        silent: whether padding leaves a layer that starts in it at zero: it is a zero vector, and
            the first layer has no biases.
    """

    pad_index: int | None
    sides: tuple[str, ...]
    content_only: bool = False
    silent: bool = False


def look_at_padding(rows: Rows, embedding_pad: int | None, spec: NetworkSpec) -> Padding:
    """Which token pads, and on which side, by the spec, else the batch, else the embedding.

    Steps outside of known lengths that all hold one same value show both. Without lengths, padding
    that only starts, or only ends, rows shows the side. Token 0 pads where nothing else is known.
    """
    sides = (spec.padding,) if spec.padding else SIDES
    values = rows.values
    if values.is_floating_point() and rows.lengths is None:
        return Padding(None, ("right",), content_only=True)
    if rows.lengths is not None:
        shown = [(side, filler) for side in sides if (filler := _filler(rows, side)) is not None]
        if len(shown) == 1:
            sides, filler = (shown[0][0],), shown[0][1]
            embedding_pad = int(filler) if filler.ndim == 0 else None
    pad_index = spec.pad_index if spec.pad_index is not None else embedding_pad or 0
    if values.is_floating_point():
        return Padding(None, sides)
    if rows.lengths is None:
        is_pad = values == pad_index
        is_pad = is_pad[~is_pad.all(dim=1)]
        starts, ends = bool(is_pad[:, 0].any()), bool(is_pad[:, -1].any())
        if starts != ends and len(sides) > 1:
            sides = ("left",) if starts else ("right",)
    return Padding(pad_index, sides)


def _filler(rows: Rows, side: str) -> Tensor | None:
    """The one value that all steps outside of the lengths hold, if they do."""
    steps = rows.values.shape[1]
    position = torch.arange(steps, device=rows.values.device)
    if side == "left":
        position = steps - 1 - position
    assert rows.lengths is not None
    outside = rows.values[position >= rows.lengths.to(position.device)[:, None]]
    if len(outside) == 0 or not bool((outside == outside[0]).all()):
        return None
    return outside[0]


def canonical(config: NetworkConfig, padding: Padding) -> NetworkConfig:
    """One spelling for structures that are the same function on any input with such padding.

    Where there is a choice, it is the spelling whose answer for a row never depends on the rows
    that it is batched with.
    """
    content_only = padding.content_only
    readout, packed, side = config.readout, config.packed, config.side
    if config.feed != "steps":
        return replace(config, readout=_at_once(config), packed=False)
    one_way = all(len(layer) == 1 for layer in config.recurrent)
    first_at_most = all(len(layer) == 1 for layer in config.recurrent[1:])
    if content_only:
        readout = readout.replace("_steps", "_valid").replace("last_step", "last_valid")  # type: ignore[assignment]
        packed = not one_way
    if packed and config.cell == "rnn_relu" and readout == "max_steps":
        readout = "max_valid"  # its outputs are never below the zeros that padding leaves
    if readout == "final_state" and len(config.recurrent[-1]) == 1:
        readout = "last_valid" if packed or content_only else "last_step"
    if readout == "last_valid" and side == "left":
        readout = "last_step"  # the last valid step is the last one
    valid_only = readout.endswith("_valid") or readout == "all_steps"
    if one_way and valid_only:
        packed = False  # what comes after a valid step does not reach it
    elif padding.silent and first_at_most and side == "right" and valid_only:
        packed = True  # the backward direction starts in padding, and stays at zero there
    return replace(config, readout=readout, packed=packed, side=side)


def _at_once(config: NetworkConfig) -> Readout:
    """The readout's one spelling where every step of the recurrent layers is valid."""
    readout = config.readout
    if readout == "all_steps":
        return readout
    two_ways = len(config.recurrent[-1]) == 2
    if config.output_steps in (None, 1) or (readout == "final_state" and not two_ways):
        return "last_step"
    return readout.replace("last_valid", "last_step").replace("_valid", "_steps")  # type: ignore[return-value]


def sees_lengths(config: NetworkConfig) -> bool:
    """Whether the network needs to know which steps are padding."""
    return config.packed or config.readout.endswith("_valid")


def reads_padding(config: NetworkConfig) -> bool:
    """Whether a row's answer depends on how far it is padded."""
    valid_only = config.readout.endswith("_valid") or config.readout == "all_steps"
    if config.packed:
        return config.readout != "final_state" and not valid_only
    one_way = all(len(layer) == 1 for layer in config.recurrent)
    return not (one_way and config.side == "right" and valid_only)


def settings(
    base: NetworkConfig,
    spec: NetworkSpec,
    padding: Padding,
    narrow: bool,
    forms: Sequence[Form],
    steps: int,
) -> list[Setting]:
    """All settings that the spec leaves open, each function once.

    ``narrow``: whether the first dense layer reads one direction's width of a bidirectional
    network's two.
    """
    found: dict[Setting, None] = {}
    for form in forms:
        for setting in _spelled(base, spec, padding, narrow, form, steps):
            config = canonical(setting.config, padding)
            if not sees_lengths(config) and spec.padding is None:
                config = replace(config, side=padding.sides[0])  # type: ignore[arg-type]
            found[replace(setting, config=config)] = None
    return list(found)


def _spelled(
    base: NetworkConfig,
    spec: NetworkSpec,
    padding: Padding,
    narrow: bool,
    form: Form,
    steps: int,
) -> Iterator[Setting]:
    kinds: dict[str, Any] = {
        "output": form.kind,
        "end_label": spec.end_label,
        "feed": form.feed,
        "output_steps": form.output_steps,
        "steps": None if form.feed == "steps" else steps,
    }
    readouts = ("all_steps",) if answer_of(form.kind).stepwise else _READOUTS
    joined = [d for d in DIRECTIONS_JOINED if (d != "concatenate") == narrow]
    if spec.directions is not None:
        joined = [d for d in joined if d == spec.directions]
    for readout, packed, side, directions in product(
        readouts if spec.readout is None else (spec.readout,),
        (False, True) if spec.packed is None else (spec.packed,),
        padding.sides,
        joined,
    ):
        if packed and (side == "left" or form.feed != "steps"):
            continue
        if directions in ("sum", "mean") and readout.startswith("max_"):
            continue  # the largest of sums is not the sum of the largest
        for chosen in product(ACTIVATIONS, repeat=len(base.hidden)):
            if spec.activations is not None and chosen != spec.activations:
                continue
            hidden = tuple(
                replace(layer, activation=name)  # type: ignore[arg-type]
                for layer, name in zip(base.hidden, chosen, strict=True)
            )
            habits = {"hidden": hidden, "readout": readout, "packed": packed, "side": side}
            config = replace(base, **habits, **kinds)  # type: ignore[arg-type]
            yield Setting(config, directions, form.output, form.axes)
