"""What cards, reports and records put in words: figures, structures, answers, emissions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlflow_rnnmod.answers import Answer
from mlflow_rnnmod.inputs import input_of
from mlflow_rnnmod.pages.markdown import escape, plain

if TYPE_CHECKING:
    from mlflow_rnnmod.decomposition.module import Module

# Labels, modules or steps that are listed one by one.
SHOWN = 40


def percent(share: float) -> str:
    """A share as people read it.

    Example:
        >>> percent(0.9312), percent(float("nan"))
        ('93.1 %', 'none')
    """
    return "none" if share != share else f"{100 * share:.1f} %"


def bleu(share: float) -> str:
    """BLEU as people read it: in points.

    Example:
        >>> bleu(0.3149), bleu(float("nan"))
        ('31.5', 'none')
    """
    return "none" if share != share else f"{100 * share:.1f}"


def points(difference: float) -> str:
    """A difference between shares, in points.

    Example:
        >>> points(0.0123), points(-0.005), points(0.0)
        ('+1.2', '-0.5', '0.0')
    """
    rounded = round(100 * difference, 1)
    return f"{rounded:+.1f}" if rounded else "0.0"


def figure(metric: str, share: float) -> str:
    """A figure as people read it: BLEU in points, all others as shares."""
    return bleu(share) if metric.endswith("bleu") else percent(share)


def some(items: Sequence[str], most: int) -> str:
    """The first of some items, and how many more there are.

    Example:
        >>> some(["a", "b", "c"], 2)
        'a, b and 1 more'
    """
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def figures_of(module: Module) -> dict[str, float]:
    """A module's figures, with the main one less its parent's where both are known: points."""
    figures = dict(module.figures)
    for name in ("f1", "bleu"):
        if name in figures and f"parent_{name}" in figures:
            return {**figures, "points": figures[name] - figures[f"parent_{name}"]}
    return figures


def worst(figures: Mapping[str, float]) -> tuple[float, ...]:
    """What to sort by: points lost, then the main figure; what is not known comes last."""
    found = figures.get("points"), figures.get("f1", figures.get("bleu"))
    return tuple(math.inf if value is None or value != value else value for value in found)


def removal_words(made: Mapping[str, Any]) -> str:
    """What was removed and by which rule, in words, from a module's ``made``."""
    rule, removal = plain(made.get("rule", "unknown"), 40), made.get("removal")
    share = percent(removal) if isinstance(removal, int | float) else plain(removal, 40)
    return "nothing removed" if rule == "none" or removal == 0 else f"{share} by `{rule}`"


def figure_rows(made: Mapping[str, Any]) -> str | None:
    """Which rows a module's figures come from, in words, from its ``made``.

    Example:
        >>> figure_rows({"rows": {"figures": "50 rows", "fitted": "20 rows"}})
        '50 rows'
    """
    rows = made.get("rows")
    if isinstance(rows, Mapping):
        rows = rows.get("figures")
    return plain(rows, 500) if rows else None


def answer_words(answer: Answer, mask_steps: int | None = None) -> list[tuple[str, str]]:
    """What is answered, where that is not one label, and masks for single steps."""
    found = [("answer", answer.words)] if answer.words else []
    if mask_steps is not None:
        found.append(("masks", f"{mask_steps}, one a step; later steps have the last one"))
    return found


def input_words(kind: str, size: Any, steps: int | None) -> str:
    """What goes in, in words."""
    return input_of(kind).words(size, steps)


def label_words(labels: Sequence[str]) -> str:
    """How many labels there are, and the first of them."""
    shown = ", ".join(escape(label, 40) for label in labels[:SHOWN])
    more = f", and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
    return f"{len(labels)}: {shown}{more}"


def plural(word: str, count: int) -> str:
    """A word, with an s where there are several."""
    return word if count == 1 else word + "s"


@dataclass(frozen=True)
class Emissions:
    """What something took, as it was measured.

    Args:
        grams: of CO2e.
        kilowatt_hours: of energy.
        seconds: of time.
        country: whose mix of power counts, as a code of three letters.
    """

    grams: float
    kilowatt_hours: float
    seconds: float
    country: str


@dataclass(frozen=True)
class Saved:
    """What making a composite took, beside what was not done for it.

    Args:
        making: taking apart, composing: what was done.
        training: of networks, which is what reuse does without; ``None`` where it was not measured.
    """

    making: Emissions
    training: Emissions | None = None

    def params(self) -> dict[str, str]:
        """What lists of models show."""
        found = {"co2e_grams": f"{self.making.grams:.4g}"}
        if self.training is not None:
            found["co2e_grams_saved"] = f"{self.training.grams - self.making.grams:.4g}"
        return found

    def words(self) -> str:
        """In a sentence or two, Markdown.

        Example:
            >>> made, trained = Emissions(0.5, 0.001, 2.0, "DEU"), Emissions(50, 0.1, 300.0, "DEU")
            >>> print(Saved(made, trained).words())
            Making it emitted **0.5 g CO2e** (0.001 kWh, 2 s); training instead, 50 g (0.1 kWh, \
300 s): reuse saved **49.5 g**. Measured by codecarbon, offline, with the power of DEU.
        """
        told = f"Making it emitted **{self.making.grams:.3g} g CO2e** ({_energy(self.making)})"
        if self.training is not None:
            saved = self.training.grams - self.making.grams
            told += f"; training instead, {self.training.grams:.3g} g ({_energy(self.training)}): "
            told += f"reuse saved **{saved:.3g} g**" if saved > 0 else "reuse saved nothing"
        return f"{told}. Measured by codecarbon, offline, with the power of {self.making.country}."


def _energy(found: Emissions) -> str:
    return f"{found.kilowatt_hours:.3g} kWh, {found.seconds:.0f} s"
