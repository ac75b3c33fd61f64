"""Settings of a decomposition, and how much of the data it uses."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mlflow_rnnmod.networks.trunk import GATE_MODES, VARIANTS

REPAIRS = ("fold", "refit", "calibrate")
RULES = ("sensitivity", "paper", "reference", "random", "none")
SHARES_OF = ("units", "multiply_adds")
SHARES = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5)


@dataclass(frozen=True)
class DecompositionConfig:
    """How a parent is taken apart. The defaults are meant to be used.

    Args:
        rule: which units a label can do without: ``"sensitivity"``; ``"paper"``, as the papers'
            text says; ``"reference"``, as their code does; or the controls ``"random"`` and
            ``"none"``.
        removal: share of each layer's units that a module leaves out, from 0 to below 1, or
            ``"auto"``: one share for all labels, the largest of 0, 5, 10, 20, 35 and 50 % that
            costs at most ``tolerance`` points on validation rows, with the standard error of that
            added: few rows remove less. Of convolutions it is a share of
            all channels that are ranked together.
        repairs: ``"all"``, ``"none"`` or some of ``"fold"``, ``"refit"``, ``"calibrate"``.
        tolerance: points of accuracy that ``"auto"`` may lose against nothing removed.
        trunks: how many trunks the modules have: ``"label"``, one each (isolated, the papers' way);
            a number, so that labels whose concerns overlap share one; or ``"auto"``: one each
            where that is estimated to take at most eight passes of the parent (about a dozen
            labels), else as many as a composite of all modules can have in 1.5 passes without
            falling behind the parent on validation rows. Shared trunks are run once for all their
            modules.
        max_cost: passes of the parent that a composite may take, for ``trunks="auto"``; ``None``
            for what is said there.
        variant: ``"rolled"``, one mask for all steps, or ``"unrolled"``, one for each.
        gates: ``"joint"``, a unit leaves all gates together, judged by its output, or
            ``"separate"``, each gate is judged by its own activation.
        unrolled_steps: steps that get masks of their own; later ones have the last one's.
        rows_per_label: training rows (steps, where each has a label) of each label that statistics
            and repairs are taken from.
        max_seconds: after so long no more shares are tried, and the random control is left out;
            what was left out is told. ``None`` for as long as it takes.
        seed: for the sample, the random rule, and made-up rows.
        batch_size: rows run at once.
        likelihood: whether modules get a small density of their label's inputs, p(x | label), by
            which modules of different parents are compared.
        share_of: what ``removal`` is a share of: ``"units"``, or ``"multiply_adds"`` of a pass:
            then as many units leave as it takes.
        from_layer: number of the first layer that may lose units; those before it stay whole, so
            that modules with trunks of their own run them together, once. 0 for all.

    Raises:
        ValueError: naming every setting that does not fit.

    Example:
        >>> DecompositionConfig(removal=0.2, repairs="none").repairs
        ()
    """

    rule: str = "sensitivity"
    removal: float | str = "auto"
    repairs: str | tuple[str, ...] = "all"
    tolerance: float = 0.5
    trunks: int | str = "auto"
    max_cost: float | None = None
    variant: str = "rolled"
    gates: str = "joint"
    unrolled_steps: int = 32
    rows_per_label: int = 500
    max_seconds: float | None = None
    seed: int = 0
    batch_size: int = 512
    likelihood: bool = True
    share_of: str = "units"
    from_layer: int = 0

    def __post_init__(self) -> None:
        problems = []
        if self.rule not in RULES:
            problems.append(f"rule={self.rule!r}, expected one of {RULES}")
        if not (self.removal == "auto" or _is_number(self.removal, 0, 1)):
            problems.append(f'removal={self.removal!r}, expected "auto" or a share in [0, 1)')
        repairs = _repairs(self.repairs)
        if repairs is None or any(repair not in REPAIRS for repair in repairs):
            problems.append(
                f'repairs={self.repairs!r}, expected "all", "none" or some of {REPAIRS}'
            )
        if not _is_number(self.tolerance, 0, 100):
            problems.append(f"tolerance={self.tolerance!r}, expected points from 0 to below 100")
        if not (self.trunks in ("label", "auto") or _is_count(self.trunks)):
            problems.append(
                f'trunks={self.trunks!r}, expected "label", "auto" or a positive whole number'
            )
        if not (self.max_cost is None or _is_number(self.max_cost, 0.5, 1e6)):
            problems.append(f"max_cost={self.max_cost!r}, expected passes, at least 0.5, or None")
        if not (self.max_seconds is None or _is_number(self.max_seconds, 0, 1e9)):
            problems.append(f"max_seconds={self.max_seconds!r}, expected seconds, or None")
        from_layer = self.from_layer
        if not isinstance(from_layer, int) or isinstance(from_layer, bool) or from_layer < 0:
            problems.append(f"from_layer={from_layer!r}, expected a whole number from 0 up")
        choices = (("variant", VARIANTS), ("gates", GATE_MODES), ("share_of", SHARES_OF))
        for name, accepted in choices:
            if getattr(self, name) not in accepted:
                problems.append(f"{name}={getattr(self, name)!r}, expected one of {accepted}")
        for name in ("unrolled_steps", "rows_per_label", "batch_size"):
            value = getattr(self, name)
            if not _is_count(value):
                problems.append(f"{name}={value!r}, expected a positive whole number")
        if not isinstance(self.likelihood, bool):
            problems.append(f"likelihood={self.likelihood!r}, expected True or False")
        if not isinstance(self.seed, int):
            problems.append(f"seed={self.seed!r}, expected a whole number")
        if problems:
            raise ValueError(
                "The decomposition's settings do not fit: " + "; ".join(problems) + "."
            )
        chosen = tuple(r for r in REPAIRS if r in (repairs or ()))
        object.__setattr__(self, "repairs", chosen)

    def to_dict(self) -> dict[str, Any]:
        """These settings as JSON types."""
        return {**asdict(self), "repairs": list(self.repairs)}


def _repairs(value: Any) -> tuple[Any, ...] | None:
    """What the setting names, one by one; None where it is no such thing."""
    if isinstance(value, str):
        return {"all": REPAIRS, "none": ()}.get(value, (value,))
    return tuple(value) if isinstance(value, tuple | list) else None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: Any, low: float, below: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value < below
