"""Which rows a decomposition fits on, calibrates on and reports on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.decomposition.config import DecompositionConfig
from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.parent import Parent

HELD_OUT = 0.2


@dataclass(frozen=True, eq=False)
class Shares:
    """Rows - or sentences - by what they are for.

    Args:
        train: to watch and to fit on.
        calibration: to size and calibrate on.
        report: to report on.
        words: which rows were used for what, in words.
        warnings: what the user should be told.
    """

    train: Any
    calibration: Any
    report: Any
    words: dict[str, str]
    warnings: list[str]


def share_out(
    parent: Parent,
    examples: Any,
    train: Any,
    validation: Any,
    report: Any,
    config: DecompositionConfig,
) -> Shares:
    """Training, calibration and report rows.

    Args:
        parent: whose.
        examples: what it is decomposed with (see :mod:`~mlflow_rnnmod.decomposition.examples`).
        train: rows it was trained on.
        validation: rows it was not trained on, or ``None``: a fifth of the training rows then.
        report: rows for the figures alone, or ``None``: half of the validation rows then.
        config: the settings.

    Raises:
        TypeError: if they are no examples of this kind.
        ValueError: if they do not fit, or there are too few.
    """
    train, validation, report = (
        None if given is None and name != "train" else examples.checked(parent, name, given)
        for name, given in (("train", train), ("validation", validation), ("report", report))
    )
    noun, warnings = examples.noun, []
    if validation is None:
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(config.seed))
        held = max(int(HELD_OUT * len(train)), 1)
        if held == len(train):
            raise ValueError("train has 1 row; expected at least two, or validation rows as well.")
        validation, train = train[order[:held]], train[order[held:]]
        source = f"{held} training {noun} held out (the parent was trained on them)"
        use = "calibrate and report on" if report is None else "calibrate on"
        too_good = "figures are" if report is None else "the calibration is"
        warnings.append(
            f"there are no validation {noun}: {held} training {noun} are held out to {use}. The "
            f"parent was trained on them, so {too_good} too good"
        )
    else:
        source = f"{len(validation)} validation {noun}"
    words = {}
    if report is None:
        content = examples.content(parent, validation)
        first, second = split_by_hash(content, config.seed, parent.network.side)
        if not first.any() or not second.any():
            first = torch.arange(len(validation)) % 2 == 0
            second = ~first if len(validation) > 1 else first
        calibration, report = validation[first], validation[second]
        words["calibrated"] = f"{len(calibration)} of {source}"
        words["figures"] = f"the other {len(report)} of {source}, split off by a seeded hash"
    else:
        calibration = validation
        words["calibrated"] = source
        words["figures"] = f"{len(report)} {noun} given for the report alone"
    words["fitted"] = (
        f"up to {config.rows_per_label} of {len(train)} training {noun} for each {examples.each}"
    )
    return Shares(train, calibration, report, words, warnings)


def split_by_hash(rows: Rows, seed: int, side: str = "right") -> tuple[Tensor, Tensor]:
    """Split rows in two halves by a seeded hash of what is in them.

    The same row always falls on the same side, whatever its place, so rows that size and calibrate
    never give figures, even across runs.

    Args:
        rows: with lengths, where how far they are padded must not decide.
        seed: another one splits otherwise.
        side: where padding stands.

    Returns:
        two bool masks ``(rows,)``; the first half (calibration) and the second (figures).
    """
    key = seed.to_bytes(8, "little", signed=True)
    values = rows.values.to("cpu").contiguous()
    lengths = rows.lengths
    sides = []
    for i, row in enumerate(values):
        # Padding is not part of a row: how far a batch was padded must not decide.
        content = row
        if lengths is not None:
            length = int(lengths[i])
            content = row[:length] if side == "right" else row[len(row) - length :]
        data = content.contiguous().view(torch.uint8).numpy().tobytes()
        sides.append(hashlib.blake2b(data, key=key, digest_size=1).digest()[0] & 1)
    first = torch.tensor(sides, dtype=torch.bool)
    return first, ~first
