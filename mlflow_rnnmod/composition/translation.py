"""Composites of modules that translate: routed by the language that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from mlflow_rnnmod._locks import cached_property
from mlflow_rnnmod.composition.composite import Composite
from mlflow_rnnmod.composition.engine import in_parts
from mlflow_rnnmod.decomposition.module import Module
from mlflow_rnnmod.networks.parent import Parent

ROUTED = "routed"
"""What a composite of translating modules has in the place of a score: nothing is compared."""


@dataclass(frozen=True, eq=False, repr=False)
class TranslatingComposite(Composite):
    """A composite whose modules translate into one language each.

    It answers in the language that is asked for, or in all of them. Modules of one parent share its
    encoder; parents may differ, and each reads with its own tokenizer.

    Args:
        modules: one for each language.
        score: ``"routed"``: nothing is compared.
        parameters: none.
        recipe: what was done to get here, as JSON types.
    """

    score: str = ROUTED

    def check_settings(self) -> None:
        """Nothing is compared, so there is nothing to set."""
        if self.score != ROUTED or self.parameters:
            raise ValueError(
                f"score={self.score!r}, parameters={dict(self.parameters)!r}; translations are "
                "routed by language: expected neither a score nor thresholds."
            )

    @cached_property
    def translators(self) -> list[_Group]:
        """What runs the modules, by parent; made when first needed."""
        parents = dict.fromkeys(module.parent.digest for module in self.modules)
        return [
            _Group([m for m in self.modules if m.parent.digest == digest]) for digest in parents
        ]

    def __getstate__(self) -> dict[str, Any]:
        # Copies make their own: packed weights can't be copied.
        return {name: value for name, value in vars(self).items() if name != "translators"}

    def predict(  # type: ignore[override]
        self, inputs: Any, target: str | None = None, beams: int = 1, batch_size: int = 256
    ) -> list[Any]:
        """Translations.

        Args:
            inputs: a list of texts, or of token ids, a list of whole numbers each. ``None`` and NaN
                count as empty text.
            target: the label of the module to ask; ``None`` for all. A single module needs none.
            beams: how many beginnings of a translation are followed; 1 takes the likeliest token
                each time.
            batch_size: sources read at once, at the most.

        Returns:
            for each input its translation: a text, or a list of token ids where the parents have no
            tokenizer. Where several modules are asked, a dict of them by label.
        """
        if target is not None and target not in self.labels:
            raise ValueError(
                f"target={target!r}, expected one of {list(self.labels)}, or None for all."
            )
        inputs = self.checked(inputs)
        wanted = self.labels if target is None else (target,)
        if len(inputs) == 0:
            return []
        some, order = in_parts(inputs)
        if len(some) > 1:
            answers = [
                answer
                for part in some
                for answer in self.predict(part, target=target, beams=beams, batch_size=batch_size)
            ]
            return [answers[place] for place in order.tolist()]
        found: dict[str, list[Any]] = {}
        for group in self.translators:
            found.update(group.translated(inputs, wanted, beams, batch_size))
        if len(wanted) == 1:
            return found[wanted[0]]
        return [
            dict(zip(wanted, row, strict=True))
            for row in zip(*(found[label] for label in wanted), strict=True)
        ]

    def explain(self, inp: Any) -> Any:
        """The translation of one input into each language."""
        found = self.predict([inp])[0]
        return found if isinstance(found, dict) else {self.labels[0]: found}

    def scores(self, inputs: Any, engine: str = "auto") -> NoReturn:
        """Translations have none."""
        raise ValueError(
            "Modules that translate have no scores to compare; expected predict(inputs, target=)."
        )

    def answers(
        self,
        scores: Any,
        reject_below: Any = None,
        reject_label: Any = None,
        familiarity: Any = None,
    ) -> NoReturn:
        """As :meth:`scores`."""
        self.scores(None)


class _Group:
    """The modules of one parent; each source is encoded once for all of them."""

    def __init__(self, modules: Sequence[Module]) -> None:
        self.parent = modules[0].parent
        network = self.parent.network
        decoders: dict[str, Any] = {}
        self.jobs: dict[str, tuple[Any, int]] = {}
        for module in modules:
            if module.trunk.digest not in decoders:
                decoders[module.trunk.digest] = network.writer(module.trunk)
            assert module.contract.target is not None
            start = int(module.contract.target["start"])
            self.jobs[module.label] = (decoders[module.trunk.digest], start)

    def translated(
        self, inputs: Any, labels: Sequence[str], beams: int, batch_size: int
    ) -> dict[str, list[Any]]:
        """Translations of checked inputs by those of the modules that ``labels`` names."""
        mine = [label for label in labels if label in self.jobs]
        if not mine:
            return {}
        rows = self.parent.rows(inputs)
        jobs = [self.jobs[label] for label in mine]
        found = self.parent.network.write(rows, jobs, beams, batch_size)
        return {label: finished(self.parent, ids) for label, ids in zip(mine, found, strict=True)}


def finished(parent: Parent, ids: list[list[int]]) -> list[Any]:
    """Translations as text, or as they are where the parent has no tokenizer."""
    return ids if parent.writer is None else parent.writer.decode(ids)


def composite_class(modules: Sequence[Module]) -> type[Composite]:
    """The class of a composite of some modules: where none has a score, they translate."""
    scored = not modules or any(module.contract.answer.scored for module in modules)
    return Composite if scored else TranslatingComposite
