"""What networks are decomposed with: rows, or sentences with their translations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from mlflow_rnnmod.decomposition.pairs import Pairs
from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.parent import Parent


class RowExamples:
    """Rows with their targets."""

    noun: ClassVar[str] = "rows"
    each: ClassVar[str] = "label"

    def checked(self, parent: Parent, name: str, given: Any) -> Rows:
        """The rows as the network reads them, and as composites do with their inputs.

        Raises:
            TypeError: if they are none.
            ValueError: if their targets are no targets of this network's answer.
        """
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
        """The sentences.

        Raises:
            TypeError: if they are none.
            ValueError: if none is translated, or into a language that the parent does not know.
        """
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
