"""Sentences with their translations: what a translator is decomposed with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.answers import Sample
from mlflow_rnnmod.inputs.rows import ForcedRows, Rows, fitted
from mlflow_rnnmod.networks.parent import Parent


@dataclass(frozen=True, eq=False)
class Pairs:
    """Sources with their translations into some languages.

    Args:
        sources: what is translated.
        targets: for each language the right translations as tokens, without start and end: values
            int64 ``(rows, steps)`` and lengths; a length of 0 says that there is none.
        references: for each language the right translations as texts, which BLEU compares with.
            Languages that are left out are compared token by token.

    Raises:
        ValueError: if a language has another number of rows than the sources, or no lengths.

    Example:
        >>> ids = Rows(torch.tensor([[7, 8], [9, 0]]), torch.tensor([2, 1]))
        >>> texts = {"de": ["zwei drei", "eins"]}
        >>> pairs = Pairs(Rows(torch.tensor([[5], [6]])), {"de": ids}, texts)
        >>> len(pairs), pairs[torch.tensor([1])].references
        (2, {'de': ['eins']})
    """

    sources: Rows
    targets: Mapping[str, Rows]
    references: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = []
        for code, rows in self.targets.items():
            if len(rows) != len(self.sources):
                problems.append(f"targets[{code!r}] has {len(rows)} rows")
            if rows.lengths is None or rows.values.ndim != 2 or rows.values.is_floating_point():
                problems.append(
                    f"targets[{code!r}] has {rows.values.dtype} of shape "
                    f"{tuple(rows.values.shape)} and "
                    f"{'no ' if rows.lengths is None else ''}lengths; expected whole numbers of "
                    "shape (rows, steps) with lengths"
                )
        for code, texts in self.references.items():
            if len(texts) != len(self.sources):
                problems.append(f"references[{code!r}] has {len(texts)} rows")
        if problems:
            raise ValueError(
                f"The translations do not fit {len(self.sources)} sources: {'; '.join(problems)}."
            )

    @classmethod
    def from_texts(
        cls, parent: Parent, sources: Sequence[str], references: Mapping[str, Sequence[Any]]
    ) -> Pairs:
        """Sentences as text, read with a translator's own tokenizers.

        Args:
            parent: the translator.
            sources: what is translated.
            references: for each language the right translations; ``None`` where there is none.

        Raises:
            ValueError: if the parent has no tokenizer, or some language is none of its own.
        """
        if parent.tokenizer is None or parent.writer is None:
            raise ValueError("The parent has no tokenizer; expected one, or token ids for Pairs().")
        unknown = [code for code in references if code not in parent.labels]
        if unknown:
            raise ValueError(
                f"references has the languages {unknown}; expected some of {list(parent.labels)}."
            )
        pad = parent.network.config.pad_index
        found = {c: padded(parent.writer.ids(texts), pad) for c, texts in references.items()}
        texts = {code: ["" if t is None else t for t in ts] for code, ts in references.items()}
        rows = parent.tokenizer(sources)
        return cls(parent.network.prepare(rows), found, texts)

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: Tensor | slice) -> Pairs:
        picked = torch.arange(len(self))[index].tolist()
        return Pairs(
            self.sources[index],
            {code: rows[index] for code, rows in self.targets.items()},
            {code: [texts[i] for i in picked] for code, texts in self.references.items()},
        )

    def known(self, code: str) -> Tensor:
        """Which rows have a translation into a language, bool ``(rows,)``."""
        lengths = self.targets[code].lengths
        assert lengths is not None
        return lengths.cpu() > 0


def padded(ids: Sequence[Sequence[int]], pad_index: int) -> Rows:
    """Token ids of different lengths as rows, padded on the right.

    Example:
        >>> padded([[3, 4], []], 0).values.tolist()
        [[3, 4], [0, 0]]
    """
    lengths = torch.tensor([len(row) for row in ids], dtype=torch.int64)
    values = torch.full((len(ids), max([1, *map(len, ids)])), pad_index, dtype=torch.int64)
    for row, found in enumerate(ids):
        values[row, : len(found)] = torch.tensor(found, dtype=torch.int64)
    return Rows(values, lengths)


def draw_pairs(pairs: Pairs, per_label: int, seed: int) -> Pairs:
    """A sample with at most ``per_label`` translations into each language, in the data's order.

    Whole sentences are drawn, in the same order for all languages, so that where all languages
    translate the same sentences, their statistics are of the same sentences.
    """
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))
    taken = torch.zeros(len(pairs), dtype=torch.bool)
    for code in pairs.targets:
        known = pairs.known(code)
        taken[order[known[order]][:per_label]] = True
    found = pairs[taken.nonzero()[:, 0]]
    targets = {}
    for code, rows in found.targets.items():
        assert rows.lengths is not None
        known = found.known(code)
        beyond = known & (known.cumsum(0) > per_label)
        targets[code] = Rows(rows.values, rows.lengths.masked_fill(beyond, 0))
    return Pairs(found.sources, targets, found.references)


def forced_sample(pairs: Pairs, labels: Sequence[str]) -> Sample:
    """Every translation by itself, as a positive of its language and a negative of all others."""
    parts = []
    steps = max((rows.values.shape[1] for rows in pairs.targets.values()), default=1)
    for number, code in enumerate(labels):
        if code not in pairs.targets:
            continue
        known = pairs.known(code).nonzero()[:, 0]
        rows, sources = pairs.targets[code][known], pairs.sources[known]
        targets = torch.full((len(known),), number)
        tokens = fitted(rows.values, steps, 0)
        parts.append(ForcedRows(sources.values, sources.lengths, targets, tokens, rows.lengths))
    if not any(len(part) for part in parts):
        raise ValueError("pairs has no translations; expected some, with at least one token.")
    columns: dict[str, Any] = {
        each.name: [getattr(part, each.name) for part in parts] for each in fields(ForcedRows)
    }
    for name, column in columns.items():
        columns[name] = None if column[0] is None else torch.cat(column)
    rows = ForcedRows(**columns)
    assert rows.targets is not None
    own = torch.nn.functional.one_hot(rows.targets, len(labels)).bool()
    return Sample(rows, ~own, torch.ones(len(rows)), own)
