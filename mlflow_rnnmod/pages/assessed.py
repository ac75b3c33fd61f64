"""What was measured of a composite on given rows, as its page and its report show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from mlflow_rnnmod.answers.targets import Reliability


@dataclass(frozen=True)
class OfLabel:
    """A label's figures.

    Args:
        label: which.
        module: by name, of the label in the composite: precision, recall, F1; BLEU and chrF.
        parent: the same of the parent that the module comes from; empty where it is not known.
        support: rows (steps, sentences) of the label.
    """

    label: str
    module: Mapping[str, float]
    parent: Mapping[str, float]
    support: int

    @property
    def main(self) -> str:
        """The figure that labels are sorted by."""
        return "bleu" if "bleu" in self.module else "f1"

    @property
    def difference(self) -> float:
        """The module's main figure less its parent's; NaN where that is not known."""
        return self.module[self.main] - self.parent.get(self.main, float("nan"))


@dataclass(frozen=True)
class OfParent:
    """A parent's own figure, on rows of its labels.

    Args:
        digest: of the parent.
        value: of the assessment's metric.
        rows: that it was asked about.
    """

    digest: str
    value: float
    rows: int


@dataclass(frozen=True)
class Assessment:
    """A composite's figures on given rows.

    Args:
        data: what the rows are, in words.
        rows: how many.
        metric: ``accuracy``, ``f1`` or ``bleu``.
        composed: the composite's.
        parents: each parent's.
        labels: worst first.
        overall: further figures of the composite, by name.
        names: of rows and columns of the confusion matrix; the last column is "none of these".
        confusion: rows by what is right and what was answered, int64; ``None`` where an answer is
            more than one label.
        reliability: confidence against what was right; ``None`` where answers have none.
        agreement: share of rows that the composite answers as the parent does, whose label it is.
        signatures: how figures of translations were computed, by name.
    """

    data: str
    rows: int
    metric: str
    composed: float
    parents: tuple[OfParent, ...]
    labels: tuple[OfLabel, ...]
    overall: Mapping[str, float] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    confusion: Tensor | None = None
    reliability: Reliability | None = None
    agreement: float | None = None
    signatures: Mapping[str, str] = field(default_factory=dict)

    def metrics(self) -> dict[str, float]:
        """The few that MLflow is told: every search for models returns all of them."""
        found = {self.metric: self.composed}
        for name in ("f1_macro", "exact", "chrf"):
            if name in self.overall:
                found[name] = self.overall[name]
        if self.reliability is not None:
            found["expected_calibration_error"] = self.reliability.error
        if self.agreement is not None:
            found["agreement"] = self.agreement
        return {k: v for k, v in list(found.items())[:4] if v == v}
