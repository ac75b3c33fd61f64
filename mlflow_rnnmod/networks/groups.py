"""Groups of units that can be masked, and all that follows from where their weights are.

A group says which rows of which tensors its units own, and which columns of which weights read
them. Masking, cutting out, folding guesses and counting weights are done here, once, for every
architecture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mlflow_rnnmod.networks.trunk import Trunk

# How close to its bounds a gate may be held.
NEARLY = 1e-3

# From what comes out of a function to what goes in.
INVERSES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": lambda mean: torch.logit(mean, eps=NEARLY),
    "tanh": lambda mean: torch.atanh(mean.clamp(-1 + NEARLY, 1 - NEARLY)),
    "relu": lambda mean: mean,
}


@dataclass(frozen=True)
class Gate:
    """One gate of a group's units.

    Args:
        letter: what it is called.
        function: that its values pass: ``"sigmoid"``, ``"tanh"`` or ``"relu"``.
    """

    letter: str
    function: str

    def reaching(self, mean: Tensor) -> Tensor:
        """What has to go in, so that ``mean`` comes out."""
        return INVERSES[self.function](mean)


@dataclass(frozen=True)
class Owner:
    """Rows of a tensor that are a group's units'.

    Args:
        tensor: its name in the network's state.
        blocks: how often the units come, one after the other: once for each gate.
        offset: the first unit's first row.
        width: rows of each unit, side by side.
        stride: rows from one block to the next; ``None`` where there is nothing in between.
    """

    tensor: str
    blocks: int = 1
    offset: int = 0
    width: int = 1
    stride: int | None = None

    def rows(self, mask: Tensor) -> Tensor:
        """Numbers of the rows of units, bool ``(units,)``, in all blocks."""
        own = mask.repeat_interleave(self.width).nonzero()[:, 0] + self.offset
        stride = len(mask) * self.width if self.stride is None else self.stride
        return torch.cat([own + block * stride for block in range(self.blocks)])


@dataclass(frozen=True)
class Reader:
    """Columns of a weight that read a group's units.

    Args:
        tensor: the weight's name in the network's state.
        bias: name of the bias that constants go into.
        offset: the first unit's first column.
        width: columns of each unit, side by side.
        border: name of what constants go into in the place of the bias, by position in the kernel,
            where zeros are read around what is there; no constant is there.
    """

    tensor: str
    bias: str
    offset: int = 0
    width: int = 1
    border: str | None = None


@dataclass(frozen=True)
class Group:
    """Units that are masked by themselves: one direction of a recurrent layer, or a dense layer.

    What the output layer reads is no reader: heads read the parent's width, with guesses in.

    Args:
        name: as trunks and files call it.
        units: how many.
        owners: rows that are theirs.
        readers: columns that read them, of their own layer's and of later ones.
        gates: where each gate may have a mask of its own.
        steps: whether each step may have a mask of its own.
        bounded: whether outputs lie between -1 and 1.
        idles: whether units can be off (ReLU), so that the published rules ask how often they are
            on, and not how large they are.

    Example:
        >>> Group("hidden.0", 3, (Owner("hidden.0.weight"), Owner("hidden.0.bias"))).units
        3
    """

    name: str
    units: int
    owners: tuple[Owner, ...]
    readers: tuple[Reader, ...] = ()
    gates: tuple[Gate, ...] = ()
    steps: bool = False
    bounded: bool = False
    idles: bool = False

    def gate(self, letter: str) -> int:
        """The number of the gate that is called ``letter``."""
        return [gate.letter for gate in self.gates].index(letter)


Groups = Mapping[str, Group]
"""Groups by name, from the input to the readout."""


def check_fits(groups: Groups, trunk: Trunk) -> None:
    """Whether a trunk is one over these groups."""
    units = {name: group.units for name, group in groups.items()}
    if trunk.units != units:
        raise ValueError(
            f"The trunk's layers and the network's differ:\ntrunk: {trunk.units}\nnetwork: {units}."
        )
    unknown = trunk.windows.keys() - {r.tensor for g in groups.values() for r in g.readers}
    if unknown:
        raise ValueError(f"The trunk's windows are of {sorted(unknown)}, which read no units.")
    for name, mask in trunk.keep.items():
        group = groups[name]
        told = mask.ndim - 1
        if told > bool(group.gates) + group.steps:
            raise ValueError(
                f"The trunk's mask of {name} has shape {tuple(mask.shape)}; expected "
                f"{(group.units,)}: its units have neither steps nor gates."
            )
        if trunk.gates == "separate" and told and mask.shape[-2] != len(group.gates):
            raise ValueError(
                f"The trunk's mask of {name} has {mask.shape[-2]} gates; expected "
                f"{len(group.gates)}."
            )


def guess(trunk: Trunk, names: Sequence[str]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Masks, constants and (where there is any) weights of the guesses, of groups side by side.

    With separate gates no output is guessed.
    """
    outputs = {name: (trunk.keep[name], trunk.fold[name]) for name in names}
    for name in names:
        if trunk.keep[name].ndim > 1:
            size = trunk.units[name]
            outputs[name] = (torch.ones(size, dtype=torch.bool), torch.zeros(size))
    keep, fold = (torch.cat(found) for found in zip(*outputs.values(), strict=True))
    if not any(name in trunk.mix for name in names):
        return keep, fold, None
    none = {name: torch.zeros(len(trunk.keep[name]), len(trunk.keep[name])) for name in names}
    return keep, fold, torch.block_diag(*[trunk.mix.get(name, none[name]) for name in names])


class Completion(nn.Module):
    """From the outputs of kept units to those of all: removed ones get their guess.

    Args:
        trunk: rolled; which units are kept, and what is guessed of the others.
        names: the groups whose units, in this order, make up the outputs.
        cut: whether the outputs given hold only kept units, or anything in the place of the others.
        like: a tensor of the outputs' dtype and on their device.
    """

    def __init__(self, trunk: Trunk, names: Sequence[str], cut: bool, like: Tensor) -> None:
        super().__init__()
        keep, fold, mix = guess(trunk, names)
        # Kept units pass as they are, so one product does it all.
        matrix = torch.diag(keep.to(fold.dtype))
        if mix is not None:
            matrix = matrix + mix
        if cut:
            matrix = matrix[:, keep]
        self.fold: Tensor
        self.matrix: Tensor
        self.register_buffer("fold", fold.to(like), persistent=False)
        self.register_buffer("matrix", matrix.T.contiguous().to(like), persistent=False)

    def forward(self, outputs: Tensor) -> Tensor:
        """Float ``(..., all units)`` from ``(..., kept units)``, or from all when not cut."""
        flat = torch.addmm(self.fold, outputs.reshape(-1, outputs.shape[-1]), self.matrix)
        return flat.view(*outputs.shape[:-1], -1)


def trimmed_tensors(
    tensors: Mapping[str, Tensor], groups: Groups, trunk: Trunk, cut: bool
) -> dict[str, Tensor]:
    """Weights through a rolled trunk: guesses folded in, removed units zeroed or cut out.

    Guesses go into the columns that read them, constants into the bias beside; weights with a
    window take that in the place of both. Then the removed units' own rows go: a unit that is gone
    is neither fed nor biased. With separate gates only rows go, and constants stand in the place of
    pre-activations (in the first bias of a group).

    ``cut``: whether removed rows and columns are cut out; joint gates only; gives the same names,
    and those of borders where there are constants; what no group owns or reads is as it was.

    Example:
        >>> own, read = (Owner("a"),), (Reader("b", "c"),)
        >>> groups = {"h": Group("h", 2, own, read)}
        >>> trunk = Trunk({"h": torch.tensor([True, False])}, {"h": torch.tensor([0.0, 3.0])})
        >>> weights = {"a": torch.ones(2, 4), "b": torch.ones(1, 2), "c": torch.zeros(1)}
        >>> cut = trimmed_tensors(weights, groups, trunk, cut=True)
        >>> tuple(cut["a"].shape), tuple(cut["b"].shape), cut["c"].tolist()
        ((1, 4), (1, 1), [3.0])
    """
    found = {name: tensor.detach() for name, tensor in tensors.items()}
    rows, columns = _masks(found, groups, trunk)
    biases = {reader.tensor: reader.bias for g in groups.values() for reader in g.readers}
    for name, kernel in trunk.windows.items():
        weight, beside = found[name], found[biases[name]]
        kept = columns[name].to(weight).view(1, -1, *[1] * (weight.ndim - 2))
        found[name] = (weight + kernel.to(weight)) * kept
        found[biases[name]] = beside + trunk.shifts[name].to(beside)
    borders: dict[str, set[str]] = {}
    for name, group in groups.items():
        for reader in group.readers:
            if reader.tensor not in trunk.windows:
                _fold(found, reader, *guess(trunk, [name]))
                if reader.border in found:
                    borders.setdefault(reader.tensor, set()).add(str(reader.border))
    separate = trunk.gates == "separate"
    for name, mask in rows.items():
        for tensor in (name, *borders.get(name, ())):
            weight, own = found[tensor], mask.to(found[tensor].device)
            zeroed = own.view(-1, *[1] * (weight.ndim - 1))
            found[tensor] = weight[own] if cut else weight * zeroed
    if cut:
        for name, mask in columns.items():
            found[name] = found[name][:, mask.to(found[name].device)]
    for name, group in groups.items():
        if separate and trunk.keep[name].ndim > 1:  # constants of kept ones are 0
            bias = next(owner.tensor for owner in group.owners if found[owner.tensor].ndim == 1)
            found[bias] = found[bias] + trunk.fold[name].flatten().to(found[bias])
    return found


def _fold(
    found: dict[str, Tensor], reader: Reader, keep: Tensor, fold: Tensor, mix: Tensor | None
) -> None:
    """Fold one group's guesses into one weight that reads it; removed units' columns become 0."""
    weight = found[reader.tensor]
    part = slice(reader.offset, reader.offset + len(keep) * reader.width)
    # What lies behind a unit: its columns, and the places of a kernel.
    read = weight[:, part].unflatten(1, (len(keep), reader.width))
    flat = read.flatten(2)
    if reader.border is None:
        found[reader.bias] = found[reader.bias] + flat.sum(2) @ fold.to(weight)
    elif fold.any():
        kernel = torch.einsum("ouw,u->ow", flat, fold.to(weight))
        kernel = kernel.view(len(weight), 1, *weight.shape[2:])
        found[reader.border] = found.get(reader.border, 0.0) + kernel
    folded = flat * keep.to(weight)[:, None]
    if mix is not None:
        folded = folded + torch.einsum("ouw,uk->okw", flat, mix.to(weight))
    weight = weight.clone()
    weight[:, part] = folded.view_as(read).flatten(1, 2)
    found[reader.tensor] = weight


def columns_read(
    groups: Groups, keep: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Which columns of some weights read kept units, or none of a group's, bool, by name."""
    columns: dict[str, Tensor] = {}
    for name, group in groups.items():
        for reader in group.readers:
            if reader.tensor in weights and keep[name].ndim == 1:
                size = weights[reader.tensor].shape[1]
                mask = columns.setdefault(reader.tensor, torch.ones(size, dtype=torch.bool))
                own = keep[name].cpu().repeat_interleave(reader.width)
                mask[reader.offset : reader.offset + len(own)] = own
    return columns


def _masks(
    tensors: Mapping[str, Tensor], groups: Groups, trunk: Trunk
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Rows and columns that are kept, bool, of the tensors that have some to lose."""
    rows: dict[str, Tensor] = {}
    for name, group in groups.items():
        keep = trunk.keep[name]
        for owner in group.owners:
            if keep.ndim > 1:
                rows[owner.tensor] = keep.flatten()
                continue
            size = tensors[owner.tensor].shape[0]
            own = rows.setdefault(owner.tensor, torch.ones(size, dtype=torch.bool))
            own[owner.rows(~keep)] = False
    return rows, columns_read(groups, trunk.keep, tensors)


def weight_counts(
    shapes: Mapping[str, Sequence[int]], groups: Groups, trunk: Trunk
) -> tuple[float, float]:
    """Weights and biases that a trunk keeps, and those alone by which units read themselves.

    What no group owns is left out: every module of a parent shares it. Where steps are told apart
    weights count once for each of them, with the units kept at that step, and the mean over steps
    is given. With separate gates rows are counted gate by gate; all columns stay.
    """
    total = recurrent = torch.zeros(1, dtype=torch.float64)
    readers: dict[str, list[tuple[Group, Reader]]] = {}
    for group in groups.values():
        for reader in group.readers:
            readers.setdefault(reader.tensor, []).append((group, reader))
    for group in groups.values():
        for owner in group.owners:
            count = _rows(trunk, group, owner)
            if len(shapes[owner.tensor]) > 1:
                kernel = math.prod(shapes[owner.tensor][2:])
                size = torch.tensor(float(shapes[owner.tensor][1] * kernel), dtype=torch.float64)
                for other, reader in readers.get(owner.tensor, ()):
                    kept, each = _units(trunk, other.name), reader.width * kernel
                    size = size - (other.units - kept) * each
                    if other is group:
                        recurrent = recurrent + count * kept * each
                count = count * size
            total = total + count
    return float(total.mean()), float(recurrent.mean())


def _rows(trunk: Trunk, group: Group, owner: Owner) -> Tensor:
    """Rows of a tensor that are kept at each step, float64 ``(steps,)``."""
    mask = trunk.keep[group.name]
    if trunk.gates == "separate" and mask.ndim > 1:
        return torch.atleast_1d(mask.double().sum((-2, -1)))
    return owner.blocks * owner.width * _units(trunk, group.name)


def _units(trunk: Trunk, name: str) -> Tensor:
    """Units of a group that others read at each step, float64 ``(steps,)``."""
    mask = trunk.keep[name]
    if trunk.gates == "separate" and mask.ndim > 1:
        steps = len(mask) if trunk.variant == "unrolled" else 1
        return torch.full((steps,), mask.shape[-1], dtype=torch.float64)
    return torch.atleast_1d(mask.double().sum(-1))


def shares_kept(
    shapes: Mapping[str, Sequence[int]], groups: Groups, trunk: Trunk
) -> dict[str, float]:
    """True shares of units, weights and recurrent weights kept, from 0 to 1.

    Of units the mean over steps and gates, where these are told apart. Networks whose units do not
    read themselves have no recurrent weights.
    """
    whole = Trunk.whole({name: group.units for name, group in groups.items()})
    of, of_recurrent = weight_counts(shapes, groups, whole)
    weights, recurrent = weight_counts(shapes, groups, trunk)
    kept = sum(float(mask.double().mean()) * mask.shape[-1] for mask in trunk.keep.values())
    found = {
        "units_kept": kept / sum(group.units for group in groups.values()),
        "weights_kept": weights / of,
    }
    if of_recurrent:
        found["recurrent_weights_kept"] = recurrent / of_recurrent
    return found


def by_name(groups: Iterable[Group]) -> dict[str, Group]:
    """Groups by their names, in order."""
    return {group.name: group for group in groups}
