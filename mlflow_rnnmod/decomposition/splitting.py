"""What networks are decomposed with, and which of it is fitted, calibrated and reported on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from mlflow_rnnmod.decomposition.config import DecompositionConfig
from mlflow_rnnmod.decomposition.pairs import Pairs
from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.parent import Parent


class RowExamples:
    """Rows with their targets."""

    noun: ClassVar[str] = "rows"
    each: ClassVar[str] = "label"

    def checked(self, parent: Parent, name: str, given: Any) -> Rows:
        """The rows as the network reads them, and as composites do with their inputs."""
        if not isinstance(given, Rows):
            other = "are for translators" if isinstance(given, Pairs) else "are no rows"
            raise TypeError(f"{name} is {type(given).__name__}, which {other}; expected Rows.")
        try:
            _check_targets(parent, given)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        return parent.network.prepare(given)

    def content(self, parent: Parent, rows: Rows) -> Rows:
        """What tells rows apart: with the lengths that the network finds where none are given."""
        return parent.network.content(rows)


class PairExamples:
    """Sentences with their translations."""

    noun: ClassVar[str] = "sentences"
    each: ClassVar[str] = "language"

    def checked(self, parent: Parent, name: str, given: Any) -> Pairs:
        """The sentences."""
        labels = list(parent.labels)
        if not isinstance(given, Pairs):
            raise TypeError(
                f"{name} is a {type(given).__name__}; expected Pairs: a translator's data are "
                "sentences with their translations."
            )
        unknown = [code for code in given.targets if code not in labels]
        if unknown:
            raise ValueError(f"{name} has translations into {unknown}; expected some of {labels}.")
        if not any(given.known(code).any() for code in given.targets):
            raise ValueError(f"{name} has no translations; expected some into {labels}.")
        return given

    def content(self, parent: Parent, pairs: Pairs) -> Rows:
        """What tells sentences apart: their sources."""
        return replace(pairs.sources, lengths=parent.network.lengths(pairs.sources).cpu())


def _check_targets(parent: Parent, rows: Rows) -> None:
    network = parent.network
    targets = network.config.answer.checked(rows, len(parent.labels))
    answered = network.answered(rows)
    if answered is not None and targets.shape[1] != answered.shape[1]:
        raise ValueError(
            f"targets has {targets.shape[1]} steps; expected {answered.shape[1]}, as many as the "
            "network answers."
        )


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

    ``validation``: rows it was not trained on, or ``None``: a fifth of the training rows then;
    ``report``: rows for the figures alone, or ``None``: half of the validation rows then.
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

    ``rows``: with lengths, where how far they are padded must not decide; gives two bool masks
    ``(rows,)``; the first half (calibration) and the second (figures).
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
