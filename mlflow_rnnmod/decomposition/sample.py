"""Which rows a decomposition looks at, and which it keeps for later."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from mlflow_rnnmod.networks.recurrent.config import STEPWISE
from mlflow_rnnmod.networks.rows import IGNORE, Rows


@dataclass(frozen=True, eq=False)
class Sample:
    """Training rows, balanced over labels.

    Args:
        rows: at most so many of each label.
        rivals: for each observation one *other* label, for which it stands as a negative. Every
            label gets about as many negatives as positives, drawn evenly from every other label
            (RNN-D, section III; its code takes the first rows of the data instead). Shaped as the
            targets, ``IGNORE`` where an observation stands for none; for several labels a row, or
            where a row stands for several, bool ``(rows, labels)``: which labels it is a negative
            of.
        weights: how many training observations each stands for, so that fits see the labels as
            often as they really occur; mean 1. Float32 ``(rows,)``, or ``(rows, steps)`` where
            every step has a label.
        chosen: the label that each observation stands for as a positive, shaped as ``rivals``;
            ``None`` for the targets themselves.
    """

    rows: Rows
    rivals: Tensor
    weights: Tensor
    chosen: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice | Tensor) -> Sample:
        """Some of the rows."""
        chosen = None if self.chosen is None else self.chosen[part]
        return Sample(self.rows[part], self.rivals[part], self.weights[part], chosen)

    @property
    def sides(self) -> tuple[Tensor, Tensor]:
        """What observations are positives of, and what negatives of."""
        assert self.rows.targets is not None
        return (self.rows.targets if self.chosen is None else self.chosen), self.rivals


def draw_sample(
    rows: Rows,
    labels: int,
    per_label: int,
    seed: int,
    output: str = "label",
    in_order: bool = False,
) -> Sample:
    """Draw a :class:`Sample` of ``per_label`` observations of each label, or all there are.

    An observation is what carries a label: a row, or a step where every step has one.

    Args:
        rows: with targets.
        labels: how many there are.
        per_label: observations of each.
        seed: of the draw.
        output: kind of answer.
        in_order: take the first rows, as the papers' code does, where a row has one label:
            positives are the first ``per_label`` of the label, negatives the first ``per_label /
            (labels - 1)`` of any other.

    Raises:
        ValueError: if rows have no targets, targets outside the labels, or fewer than two labels.
    """
    if labels < 2:
        raise ValueError(f"labels={labels}; expected at least two: a label needs a rival.")
    targets = checked_targets(rows, labels, output)
    generator = torch.Generator().manual_seed(seed)
    if output == "multilabel":
        return _draw_of_several(rows, targets, per_label, generator)
    if output in STEPWISE:
        return _draw_of_steps(rows, targets, labels, per_label, generator)
    if in_order:
        return _draw_in_order(rows, targets, labels, per_label)
    picked, rivals = [], []
    counts = torch.bincount(targets, minlength=labels)
    for label in range(labels):
        found = (targets == label).nonzero()[:, 0]
        chosen = found[torch.randperm(len(found), generator=generator)[:per_label]]
        picked.append(chosen)
        rivals.append(_rivals(label, labels, len(chosen), generator))
    index = torch.cat(picked)
    taken = torch.bincount(targets[index], minlength=labels).clamp(min=1)
    weights = (counts / taken)[targets[index]]
    # In the order of the data, so that rows of one length stay together where the data keeps them.
    order = index.argsort()
    weights = weights[order].to(torch.float32)
    return Sample(rows[index[order]], torch.cat(rivals)[order], weights / weights.mean())


def _draw_in_order(rows: Rows, targets: Tensor, labels: int, per_label: int) -> Sample:
    """The first rows of each label; the very first of them are negatives of what they are not."""
    own = torch.nn.functional.one_hot(targets, labels).bool()
    chosen = own & (own.long().cumsum(dim=0) <= per_label)
    negatives = max(per_label // (labels - 1), 1)
    rivals = ~own & ((~own).long().cumsum(dim=0) <= negatives)
    index = (chosen | rivals).any(dim=1).nonzero()[:, 0]
    taken = torch.bincount(targets[index], minlength=labels)
    weights = (own.sum(dim=0) / taken.clamp(min=1))[targets[index]].to(torch.float32)
    return Sample(rows[index], rivals[index], weights / weights.mean(), chosen[index])


def _rivals(label: int, labels: int, count: int, generator: torch.Generator) -> Tensor:
    """So many labels other than ``label``, evenly."""
    others = torch.cat([torch.arange(label), torch.arange(label + 1, labels)])
    others = others[torch.randperm(len(others), generator=generator)]
    return others[torch.arange(count) % len(others)]


def _draw_of_steps(
    rows: Rows, targets: Tensor, labels: int, per_label: int, generator: torch.Generator
) -> Sample:
    """Whole rows, until each label has its steps; of these, ``per_label`` stand for a label."""
    hits = torch.stack([(targets == label).sum(dim=1) for label in range(labels)], dim=1)
    order = torch.randperm(len(rows), generator=generator)
    taken = torch.zeros(len(rows), dtype=torch.bool)
    for label in hits.sum(dim=0).argsort().tolist():  # rare labels first
        have = int(hits[taken, label].sum())
        free = order[(hits[order, label] > 0) & ~taken[order]]
        before = hits[free, label].cumsum(0) - hits[free, label]
        taken[free[have + before < per_label]] = True
    index = taken.nonzero()[:, 0]
    found = targets[index]
    chosen, rivals = torch.full_like(found, IGNORE), torch.full_like(found, IGNORE)
    weights = torch.zeros(found.shape)
    for label in range(labels):
        everywhere = (found == label).nonzero()
        if len(everywhere) == 0:
            continue
        weights[found == label] = float(hits[:, label].sum()) / len(everywhere)
        mine = everywhere[torch.randperm(len(everywhere), generator=generator)[:per_label]]
        chosen[mine[:, 0], mine[:, 1]] = label
        rivals[mine[:, 0], mine[:, 1]] = _rivals(label, labels, len(mine), generator)
    weights = weights / weights[found != IGNORE].mean()
    return Sample(rows[index], rivals, weights, chosen)


def _draw_of_several(
    rows: Rows, targets: Tensor, per_label: int, generator: torch.Generator
) -> Sample:
    """Rows of each label and as many that have none; each is a negative of what it lacks."""
    none = ~targets.any(dim=1, keepdim=True)
    order = torch.randperm(len(rows), generator=generator)
    taken = torch.zeros(len(rows), dtype=torch.bool)
    groups = torch.cat([targets, none], dim=1)
    for group in groups.sum(dim=0).argsort().tolist():  # rare labels first
        have = int(groups[taken, group].sum())
        free = order[groups[order, group] & ~taken[order]]
        taken[free[: max(per_label - have, 0)]] = True
    index = taken.nonzero()[:, 0]
    # Rows stand for those with the same labels.
    _, kinds = groups.unique(dim=0, return_inverse=True)
    of, here = kinds.bincount(), kinds[index].bincount(minlength=int(kinds.max()) + 1)
    weights = (of / here.clamp(min=1))[kinds[index]].to(torch.float32)
    found = targets[index]
    return Sample(rows[index], ~found, weights / weights.mean(), found)


def checked_targets(rows: Rows, labels: int, output: str = "label") -> Tensor:
    """The rows' targets, on the CPU: int64, or bool for several labels a row.

    Raises:
        ValueError: if there are none, or they are no targets of this kind of output.
    """
    targets = rows.targets
    if targets is None or len(targets) == 0:
        raise ValueError("rows has no targets; expected the index of a label for every row.")
    if output == "multilabel":
        if targets.dtype != torch.bool or targets.shape != (len(rows), labels):
            raise ValueError(
                f"targets is {targets.dtype} of shape {tuple(targets.shape)}; expected bool of "
                f"shape (rows, labels) = {(len(rows), labels)}."
            )
        return targets.cpu()
    steps = output in STEPWISE
    if targets.ndim != 1 + steps or targets.is_floating_point() or targets.dtype == torch.bool:
        wanted = "(rows, steps)" if steps else "(rows,)"
        raise ValueError(
            f"targets is {targets.dtype} of shape {tuple(targets.shape)}; expected whole numbers "
            f"of shape {wanted}."
        )
    low, high = int(targets.min()), int(targets.max())
    if low < (IGNORE if steps else 0) or high >= labels:
        extra = f", or {IGNORE} where a step has none" if steps else ""
        raise ValueError(
            f"targets go from {low} to {high}; expected the index of one of {labels} labels, "
            f"0 to {labels - 1}{extra}."
        )
    if high < 0:
        raise ValueError(f"targets are all {IGNORE}; expected some steps with a label.")
    return targets.to("cpu", torch.int64)


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
