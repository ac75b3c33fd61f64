"""Texts with their labels, in each of the shapes that networks answer in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.networks import Rows, TextEncoder

IGNORE = -1


@dataclass(frozen=True)
class TextData:
    """Splits of a text data set: for each split its texts and what each text is labelled with.

    Args:
        name: of the data set, and of the way it is labelled.
        texts: of each split.
        labels: of each split, one item a text. ``output="label"``: a label. ``"multilabel"`` and
            ``"list"``: the labels that it has, a list's in the order of ``names`` and without
            the label that ends it. ``"tags"``: a label a word, ``None`` where it does not count.
        names: all labels.
        output: kind of answer.
        output_steps: number of steps of a list's targets; it is what every list fits in,
            its end included.
        end_label: the label that ends a list.
    """

    name: str
    texts: dict[str, list[str]]
    labels: dict[str, list[Any]]
    names: tuple[str, ...]
    output: str = "label"
    output_steps: int | None = None
    end_label: str | None = None

    def only(self, names: Sequence[str]) -> TextData:
        """The same task for these labels alone, in this order.

        One label a text: texts of other labels are left out. Tags: tokens of other labels don't
        count, and sentences without one of these are left out. Multilabel and lists: every text
        stays, with those of its labels that are wanted; a list keeps its end.
        """
        wanted = set(names)
        if self.output in ("multilabel", "list"):
            labels = {s: [[y for y in v if y in wanted] for v in f] for s, f in self.labels.items()}
            if self.end_label is None:
                return replace(self, labels=labels, names=tuple(names))
            kept = tuple(dict.fromkeys((self.end_label, *names)))
            return replace(self, labels=labels, names=kept, output_steps=len(kept))
        labels = self.labels
        if self.output == "tags":
            labels = {
                s: [[y if y in wanted else None for y in v] for v in f] for s, f in labels.items()
            }
        keep = {
            s: [y in wanted if self.output == "label" else any(y) for y in found]
            for s, found in labels.items()
        }
        return replace(
            self,
            texts={s: _where(v, keep[s]) for s, v in self.texts.items()},
            labels={s: _where(v, keep[s]) for s, v in labels.items()},
            names=tuple(names),
        )

    def first(self, rows: int) -> TextData:
        """At most ``rows`` evenly spaced rows of each split: the data of a quick run."""
        picked = {s: range(0, len(v), max(1, -(-len(v) // rows))) for s, v in self.texts.items()}
        return replace(
            self,
            name=f"{self.name}/{rows}",
            texts={s: [v[i] for i in picked[s]] for s, v in self.texts.items()},
            labels={s: [v[i] for i in picked[s]] for s, v in self.labels.items()},
        )

    def few(self, name: str, share: float) -> TextData:
        """The same data with a ``share`` of the rows of one label, but for the test split's."""
        kept = {}
        for split, found in self.labels.items():
            mine = [i for i, label in enumerate(found) if label == name]
            left = len(mine) if split == "test" else max(1, int(share * len(mine)))
            gone = set(mine[left:])
            kept[split] = [i not in gone for i in range(len(found))]
        return replace(
            self,
            name=f"{self.name}, few {name}",
            texts={s: _where(v, kept[s]) for s, v in self.texts.items()},
            labels={s: _where(v, kept[s]) for s, v in self.labels.items()},
        )

    def rows(self, split: str, encoder: TextEncoder | None = None) -> Rows:
        """One split as rows with targets: see :meth:`targets`."""
        assert encoder is not None, "texts need one"
        encoded = encoder(self.texts[split])
        return Rows(encoded.values, encoded.lengths, self.targets(split, encoded.values.shape[1]))

    def targets(self, split: str, steps: int) -> Tensor:
        """Targets of one split, as indices into ``names``.

        Args:
            split: its name.
            steps: number of steps of the inputs; only tags have as many.

        Returns:
            ``label``: int64 ``(rows,)``. ``multilabel``: bool ``(rows, labels)``. ``tags``: int64
            ``(rows, steps)``, the first label at the first step. ``list``: int64
            ``(rows, output_steps)``, the labels, then the end label once. ``IGNORE`` (-1) where a
            step has no label.
        """
        index: dict[str | None, int] = {name: i for i, name in enumerate(self.names)}
        index[None] = IGNORE
        found = self.labels[split]
        if self.output == "label":
            return torch.tensor([index[name] for name in found])
        if self.output == "multilabel":
            return torch.tensor([[name in labels for name in self.names] for labels in found])
        if self.output == "list":
            steps = self.output_steps or len(self.names)
            found = [[*labels, self.end_label] for labels in found]
        targets = torch.full((len(found), steps), IGNORE)
        for row, labels in enumerate(found):
            indices = [index[name] for name in labels[:steps]]
            targets[row, : len(indices)] = torch.tensor(indices, dtype=torch.int64)
        return targets


def _where(items: list[Any], keep: list[bool]) -> list[Any]:
    return [item for item, kept in zip(items, keep, strict=True) if kept]
