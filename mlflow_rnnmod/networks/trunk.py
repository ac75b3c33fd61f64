"""Masks over a parent: which units a module keeps, and what stands in for the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mlflow_rnnmod._digest import digest_tensors
from mlflow_rnnmod._locks import cached_property

VARIANTS = ("rolled", "unrolled")
GATE_MODES = ("joint", "separate")


@dataclass(frozen=True, eq=False)
class Trunk:
    """Everything of a parent from its input to its readout, with some units removed.

    What removal means depends on what is told apart:

    *Rolled, joint*: a removed unit has its incoming, recurrent and outgoing weights and its bias
    zeroed, and then a guess stands in for what it sent on: ``fold[u] + mix[u] @ h``, a constant and
    a weighted sum of the *kept* units' outputs ``h`` of the same layer, at every step and before
    the first. That folds into the weights and biases behind it, so nothing has to be computed for
    it. With neither (zeros), the unit is simply gone; with the constants alone, its mean is folded
    into the biases.

    *Unrolled, joint*: at a step where a unit is removed, its rows of both weights and its biases
    are zero, so that what it carries halves (LSTM: ``c``; GRU: ``h``), and whoever reads its output
    of that step reads the step's constant instead. Before the first step all read zeros.

    *Separate gates*: a unit's row in one gate is zero in both weights and biases, and nothing else;
    the constant is put in place of its pre-activation (in a GRU's ``n`` outside of the reset gate's
    product).

    Steps are positions in a row, counted from its first valid step, for both directions alike;
    padding before it has the first mask, steps behind the last mask have the last one.

    Stored like this it needs no number for the gates of the units behind it, and a trunk stays what
    it is: a mask over its parent.

    Two trunks are equal when their digests are.

    Args:
        keep: for each maskable layer of the parent, a bool tensor. Its shape is ``(units,)``; for
            recurrent layers also ``(steps, units)`` when unrolled, ``(gates, units)`` with separate
            gates, ``(steps, gates, units)`` with both (see :func:`shapes`).
        fold: for each maskable layer, a float32 tensor of the shape of ``keep``: the constants of
            what is removed, 0 elsewhere. Layers that are left out have zeros.
        mix: for each maskable layer, a float32 tensor of shape ``(units, units)``: row ``u`` holds
            the weights of a removed unit's guess, 0 where the row's unit is kept or the column's
            removed. Kept as half-precision numbers, which is how it is stored. Layers that are
            left out have zeros. Only of rolled trunks with joint gates.
        variant: ``"rolled"``, one mask for all steps, or ``"unrolled"``, one for each.
        gates: ``"joint"``, a unit leaves all gates together, or ``"separate"``.
        windows: for weights that read several places at once (kernels of convolutions), by the
            weight's name: what guesses from the kept units *at all of these places*, and what makes
            up for changes before it, add to it; of its shape, 0 in removed columns, half-precision
            numbers. Such a weight takes this and its shift, and neither ``fold`` nor ``mix``. Only
            of rolled trunks with joint gates.
        shifts: for each of :attr:`windows`, what is added to the bias beside the weight, float32
            ``(out,)``.

    Raises:
        ValueError: naming everything that does not fit; a layer that keeps nothing at all, too.

    Example:
        >>> trunk = Trunk({"recurrent.0.fwd": torch.tensor([True, False, True])})
        >>> trunk.kept, trunk.total, trunk.full
        (2, 3, False)
        >>> Trunk({"recurrent.0.fwd": torch.eye(3).bool()}, variant="unrolled").steps
        3
    """

    keep: Mapping[str, Tensor]
    fold: Mapping[str, Tensor] = field(default_factory=dict)
    mix: Mapping[str, Tensor] = field(default_factory=dict)
    variant: str = "rolled"
    gates: str = "joint"
    windows: Mapping[str, Tensor] = field(default_factory=dict)
    shifts: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = self._problems()
        if problems:
            raise ValueError("The trunk does not fit: " + "; ".join(problems) + ".")
        fold, mix = {}, {}
        for name, mask in self.keep.items():
            constants = self.fold.get(name, torch.zeros(mask.shape)).to(torch.float32)
            fold[name] = torch.where(mask, 0.0, constants)
            if name in self.mix and not mask.all():
                inside = ~mask[:, None] & mask[None, :]
                weights = self.mix[name]
                weights = torch.where(inside, weights, 0.0).to(torch.float16).to(torch.float32)
                if weights.any():
                    mix[name] = weights
        object.__setattr__(self, "fold", fold)
        object.__setattr__(self, "mix", mix)
        windows = {name: kernel.to(torch.float16).float() for name, kernel in self.windows.items()}
        object.__setattr__(self, "windows", windows)
        shifts = {name: shift.to(torch.float32) for name, shift in self.shifts.items()}
        object.__setattr__(self, "shifts", shifts)

    def _problems(self) -> list[str]:
        if self.variant not in VARIANTS or self.gates not in GATE_MODES:
            return [
                f"variant={self.variant!r}, gates={self.gates!r}, expected one of {VARIANTS} and "
                f"one of {GATE_MODES}"
            ]
        problems, outer = [], set()
        for name, mask in self.keep.items():
            axes = _axes(name, self.variant, self.gates)
            if mask.dtype != torch.bool or mask.ndim != len(axes):
                words = "one dimension" if axes == ("units",) else f"({', '.join(axes)})"
                problems.append(
                    f"keep[{name!r}] is {mask.dtype} of shape {tuple(mask.shape)}, expected a "
                    f"bool tensor of {words}"
                )
                continue
            if len(axes) > 1:
                outer.add(tuple(mask.shape[:-1]))
            if not mask.any():
                what = "units" if axes == ("units",) else f"units in {mask[..., 0].numel()} masks"
                problems.append(f"keep[{name!r}] keeps none of its {mask.shape[-1]} {what}")
        if len(outer) > 1:
            problems.append(f"layers differ in steps or gates: {sorted(outer)}")
        for name, constants in self.fold.items():
            if name not in self.keep or constants.shape != self.keep[name].shape:
                problems.append(
                    f"fold[{name!r}] has shape {tuple(constants.shape)}, expected a layer of keep "
                    "and its shape"
                )
        for name, weights in self.mix.items():
            if not self.sliceable:
                problems.append(f"mix[{name!r}] is for rolled trunks with joint gates only")
                continue
            units = len(self.keep[name]) if name in self.keep else None
            if weights.shape != (units, units):
                problems.append(
                    f"mix[{name!r}] has shape {tuple(weights.shape)}, expected a layer of keep and "
                    "its units, twice"
                )
        if (self.windows or self.shifts) and not self.sliceable:
            problems.append("windows and shifts are for rolled trunks with joint gates only")
        if self.windows and all(bool(mask.all()) for mask in self.keep.values()):
            problems.append(f"windows are of {sorted(self.windows)}, and nothing is removed")
        if set(self.windows) != set(self.shifts):
            problems.append(
                f"windows are of {sorted(self.windows)} and shifts of {sorted(self.shifts)}, "
                "expected the same weights"
            )
        return problems

    @classmethod
    def whole(cls, units: Mapping[str, int]) -> Trunk:
        """The full trunk, which removes nothing, of a network with these units in its layers."""
        return cls({name: torch.ones(size, dtype=torch.bool) for name, size in units.items()})

    @property
    def sliceable(self) -> bool:
        """Whether removed units can be cut out: they are removed at every step, in every gate."""
        return self.variant == "rolled" and self.gates == "joint"

    @property
    def units(self) -> dict[str, int]:
        """Units of each layer of the parent, by name."""
        return {name: mask.shape[-1] for name, mask in self.keep.items()}

    @property
    def sizes(self) -> dict[str, int]:
        """Units of each layer that are computed: those kept, or all where none can be cut."""
        return {
            name: int(mask.sum()) if mask.ndim == 1 else mask.shape[-1]
            for name, mask in self.keep.items()
        }

    @property
    def steps(self) -> int | None:
        """Steps with a mask of their own; the last stands for all behind it. None when rolled."""
        if self.variant == "rolled":
            return None
        return next((len(mask) for mask in self.keep.values() if mask.ndim > 1), None)

    @property
    def kept(self) -> int:
        """Number of units kept, over all layers, and over all steps and gates told apart."""
        return sum(int(mask.sum()) for mask in self.keep.values())

    @property
    def total(self) -> int:
        """What :attr:`kept` is of a trunk that removes nothing."""
        return sum(mask.numel() for mask in self.keep.values())

    @property
    def full(self) -> bool:
        """Whether nothing is removed."""
        return self.kept == self.total

    @cached_property
    def digest(self) -> str:
        """SHA-256 over masks and guesses, hexadecimal: what tells trunks of one parent apart."""
        tensors = {f"keep.{name}": mask for name, mask in self.keep.items()}
        if not self.full:
            tensors.update({f"fold.{name}": constants for name, constants in self.fold.items()})
            tensors.update({f"mix.{name}": weights for name, weights in self.mix.items()})
            tensors.update({f"windows.{name}": kernel for name, kernel in self.windows.items()})
            tensors.update({f"shifts.{name}": shift for name, shift in self.shifts.items()})
        return digest_tensors(tensors, {"variant": self.variant, "gates": self.gates})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trunk) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


def shapes(
    units: Mapping[str, int],
    variant: str = "rolled",
    gates: str = "joint",
    steps: int = 1,
    gate_count: int = 1,
) -> dict[str, tuple[int, ...]]:
    """The shapes of a trunk's masks, by layer.

    Example:
        >>> shapes({"recurrent.0.fwd": 5, "hidden.0": 3}, "unrolled", "separate", 8, 4)
        {'recurrent.0.fwd': (8, 4, 5), 'hidden.0': (3,)}
    """
    sizes = {"steps": steps, "gates": gate_count}
    return {
        name: (*(sizes[axis] for axis in _axes(name, variant, gates)[:-1]), size)
        for name, size in units.items()
    }


def _axes(name: str, variant: str, gates: str) -> tuple[str, ...]:
    """What the dimensions of a layer's mask are; dense layers have neither steps nor gates."""
    if name.startswith("hidden."):
        return ("units",)
    steps = ("steps",) if variant == "unrolled" else ()
    return (*steps, *(("gates",) if gates == "separate" else ()), "units")


def jaccard(first: Trunk, second: Trunk) -> float:
    """Share of units kept by both among those kept by either (1.0 for equal masks).

    Units count at each step and in each gate that are told apart. The papers compare sets of weight
    values instead, which flatters (docs/method.md).

    Raises:
        ValueError: if the trunks are of different variants or parents.
    """
    found = [{name: tuple(mask.shape) for name, mask in t.keep.items()} for t in (first, second)]
    if found[0] != found[1]:
        raise ValueError(
            f"The trunks' masks differ in shape:\nfirst: {found[0]}\nsecond: {found[1]}"
        )
    both = sum(int((mask & second.keep[name]).sum()) for name, mask in first.keep.items())
    either = sum(int((mask | second.keep[name]).sum()) for name, mask in first.keep.items())
    return both / either


def overlap_matrix(trunks: Sequence[Trunk]) -> Tensor:
    """Jaccard index of the units kept by every two trunks, float ``(trunks, trunks)``.

    Units count at each step and in each gate that are told apart.
    """
    flat = [torch.cat([mask.flatten() for mask in trunk.keep.values()]) for trunk in trunks]
    masks = torch.stack(flat).double()
    both = masks @ masks.T
    sizes = masks.sum(1)
    return (both / (sizes[:, None] + sizes[None, :] - both)).float()
