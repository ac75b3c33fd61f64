"""Which rows a decomposition fits on, calibrates on and reports on."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import torch
from torch import Tensor

from mlflow_rnnmod.decomposition.config import DecompositionConfig
from mlflow_rnnmod.decomposition.pairs import Pairs
from mlflow_rnnmod.networks.parent import Parent
from mlflow_rnnmod.networks.rows import Rows

HELD_OUT = 0.2


def share_out(
    parent: Parent,
    train: Rows | Pairs,
    validation: Rows | Pairs | None,
    report: Rows | Pairs | None,
    config: DecompositionConfig,
) -> tuple[Rows, Rows, Rows, dict[str, str], list[str]]:
    """Training, calibration and report rows, in words who is who, and warnings."""
    for name, given in (("train", train), ("validation", validation), ("report", report)):
        if isinstance(given, Pairs):
            raise TypeError(f"{name} is Pairs, which are for translators; expected Rows.")
    assert not (isinstance(train, Pairs) or isinstance(validation, Pairs))
    assert not isinstance(report, Pairs)
    for name, rows in (("train", train), ("validation", validation), ("report", report)):
        if rows is not None:
            try:
                _check_targets(parent, rows)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
    # As composites do with their inputs, where the network has a fixed number of steps.
    prepare = parent.network.prepare
    train = prepare(train)
    validation = None if validation is None else prepare(validation)
    report = None if report is None else prepare(report)
    warnings = []
    if validation is None:
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(config.seed))
        held = max(int(HELD_OUT * len(train)), 1)
        validation, train = train[order[:held]], train[order[held:]]
        source = f"{held} training rows held out (the parent was trained on them)"
        use = "calibrate and report on" if report is None else "calibrate on"
        too_good = "figures are" if report is None else "the calibration is"
        warnings.append(
            f"there are no validation rows: {held} training rows are held out to {use}. The parent "
            f"was trained on them, so {too_good} too good"
        )
        if len(train) == 0:
            raise ValueError("train has 1 row; expected at least two, or validation rows as well.")
    else:
        source = f"{len(validation)} validation rows"
    words = {}
    if report is None:
        side = parent.network.side
        first, second = split_by_hash(replace_lengths(parent, validation), config.seed, side)
        if not first.any() or not second.any():
            first = torch.arange(len(validation)) % 2 == 0
            second = ~first if len(validation) > 1 else first
        calibration, report = validation[first], validation[second]
        words["calibrated"] = f"{len(calibration)} of {source}"
        words["figures"] = f"the other {len(report)} of {source}, split off by a seeded hash"
    else:
        calibration = validation
        words["calibrated"] = source
        words["figures"] = f"{len(report)} rows given for the report alone"
    words["fitted"] = f"up to {config.rows_per_label} of {len(train)} training rows for each label"
    return train, calibration, report, words, warnings


def _check_targets(parent: Parent, rows: Rows) -> None:
    network = parent.network
    targets = network.config.answer.checked(rows, len(parent.labels))
    answered = network.answered(rows)
    if answered is not None:
        steps = answered.shape[1]
        if targets.shape[1] != steps:
            raise ValueError(
                f"targets has {targets.shape[1]} steps; expected {steps}, as many as the network "
                "answers."
            )


def replace_lengths(parent: Parent, rows: Rows) -> Rows:
    """The same rows, with the lengths that the network finds where none are given."""
    return replace(rows, lengths=parent.network.lengths(rows).cpu())


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
