"""A recurrent network through one trunk, masked or cut, and the ways of running many trunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
from torch import nn

from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.groups import Completion, Groups, check_fits, trimmed_tensors
from mlflow_rnnmod.networks.many import ManyTrunks, Run, on_threads, threads
from mlflow_rnnmod.networks.protocol import Finish, TrunkNetwork, View
from mlflow_rnnmod.networks.recurrent.config import DIRECTIONS, NetworkConfig
from mlflow_rnnmod.networks.recurrent.cost import Work, seconds
from mlflow_rnnmod.networks.recurrent.layers import RecurrentLayers
from mlflow_rnnmod.networks.recurrent.packed import PackedNetwork, can_pack, feed
from mlflow_rnnmod.networks.recurrent.stepwise import Stepwise
from mlflow_rnnmod.networks.recurrent.unrolled import Unrolled, UnrolledNetwork
from mlflow_rnnmod.networks.trunk import Trunk


def masked(network: RecurrentLayers, trunk: Trunk) -> View:
    """``network`` with what the trunk removes zeroed and folded: the plain meaning of a trunk.

    Raises:
        ValueError: if the trunk's layers are not the network's; both are shown.
    """
    check_fits(network.groups, trunk)
    if trunk.variant == "unrolled":
        return UnrolledNetwork(network, trunk)
    return _trimmed(network, trunk, cut=False)


def sliced(network: RecurrentLayers, trunk: Trunk) -> View:
    """``network`` with the removed rows and columns cut out: as :func:`masked`, but smaller.

    Exact because a unit that is removed at every step stays at zero in every cell (RNN-D's own
    networks are never cut; see docs/method.md, "Removal semantics"). From a trunk that is unrolled
    or has separate gates nothing can be cut: it is masked.

    Raises:
        ValueError: if the trunk's layers are not the network's; both are shown.

    Example:
        >>> from mlflow_rnnmod.inputs.rows import Rows
        >>> config = NetworkConfig("features", 3, None, "lstm", ((4,),), ("a", "b"))
        >>> network = RecurrentLayers(config)
        >>> trunk = Trunk({"recurrent.0.fwd": torch.tensor([True, False, True, True])})
        >>> rows = Rows(torch.randn(2, 5, 3))
        >>> with torch.no_grad():
        ...     a, b = sliced(network, trunk).readout(rows), masked(network, trunk).readout(rows)
        >>> torch.allclose(a, b, atol=1e-6)
        True
    """
    if not trunk.sliceable:
        return masked(network, trunk)
    check_fits(network.groups, trunk)
    return _trimmed(network, trunk, cut=True)


def _trimmed(network: RecurrentLayers, trunk: Trunk, cut: bool) -> TrunkNetwork:
    """``network`` through a rolled trunk; the output layer is left out."""
    config, groups = network.config, network.groups
    separate = trunk.gates == "separate"
    # A largest value over steps is taken of the guesses, too: they must be there before.
    early = config.readout.startswith("max") and not separate
    if early:
        groups = _unread(groups, "hidden.0.weight")
    state = {name: t for name, t in network.state_dict().items() if not name.startswith("output.")}
    tensors = trimmed_tensors(state, groups, trunk, cut)
    with torch.device("meta"):
        inner = RecurrentLayers(_cut_config(config, trunk) if cut else config)
    del inner.output
    for name, tensor in tensors.items():  # a dense layer behind guesses keeps its width
        place, _, kind = name.rpartition(".")
        setattr(inner.get_submodule(place), kind, nn.Parameter(tensor, requires_grad=False))
    for part in inner.modules():
        if isinstance(part, nn.RNNBase):
            part.flatten_parameters()
    last = config.inputs_of(len(config.recurrent))
    if early:
        inner.completion = Completion(trunk, last, cut, network.like)
    inner.requires_grad_(False).eval()
    done = (early or separate) and not config.hidden
    whole = None if done else Completion(trunk, config.readout_layers, cut, network.like)
    return TrunkNetwork(inner, whole)


def _unread(groups: Groups, tensor: str) -> Groups:
    """The groups without those readers that are columns of ``tensor``."""
    return {
        name: replace(group, readers=tuple(r for r in group.readers if r.tensor != tensor))
        for name, group in groups.items()
    }


def _cut_config(config: NetworkConfig, trunk: Trunk) -> NetworkConfig:
    """The structure of what is left of a network."""
    sizes = trunk.sizes
    recurrent = tuple(
        tuple(sizes[f"recurrent.{i}.{d}"] for d in DIRECTIONS[: len(layer)])
        for i, layer in enumerate(config.recurrent)
    )
    hidden = tuple(
        replace(layer, units=sizes[f"hidden.{i}"]) for i, layer in enumerate(config.hidden)
    )
    return replace(config, recurrent=recurrent, hidden=hidden)


# States (trunks x rows) that are stepped at once, at the most, and so many that a second thread
# gets some, too.
MAX_STATES, MIN_STATES = 1024, 64
# ... and states times steps, where all steps are kept.
MAX_KEPT = 65_536

# Neighbours that can be run together, each with the number of its first.
_Stacks = list[tuple[int, Stepwise | Unrolled]]


class RecurrentTrunks(ManyTrunks):
    """Some trunks of one recurrent network: on packed weights, or stepped over the parent's own.

    Args:
        network: the parent's.
        trunks: at least one, all different.
    """

    network: RecurrentLayers

    def __init__(self, network: RecurrentLayers, trunks: Sequence[Trunk]) -> None:
        super().__init__(network, trunks)
        self._packs = can_pack(network)

    def steps(self, rows: Rows) -> int:
        """Steps of the recurrent layers for a batch."""
        config = self.network.config
        return rows.values.shape[1] if config.feed == "steps" else config.output_steps or 1

    def expected(self, rows: int, steps: int) -> Mapping[str, float]:
        """What the cost model says of each way."""
        if any(trunk.variant == "unrolled" for trunk in self.trunks):
            return {"stacked": 0.0}  # no kernel has masks for single steps
        found = seconds(Work.of(self.network.config, self.trunks, rows, steps), threads())
        return {way: time for way, time in found.items() if way != "parent"}

    def feed(self, rows: Rows) -> Any:
        """What all views of a batch read."""
        return (rows, feed(self.network, rows) if self._packs else None)

    def cut(self, trunk: Trunk, cut: bool) -> Run:
        """How one trunk is run: packed where it can be, cut down, or masked."""
        if not cut:
            plain = masked(self.network, trunk)
            return lambda fed: plain.readout(fed[0])
        found = sliced(self.network, trunk)
        if self._packs and trunk.sliceable and isinstance(found, TrunkNetwork):
            packed = PackedNetwork(found.inner, found.completion)  # type: ignore[arg-type]
            return lambda fed: packed.readout(fed[1])
        return lambda fed: found.readout(fed[0])

    def make_stack(self) -> _Stacks:
        """Trunks that can be cut out, and such that can't, each side by side."""
        found: _Stacks = []
        start = 0
        for sliceable, group in groupby(self.trunks, key=lambda trunk: trunk.sliceable):
            trunks = list(group)
            make = Stepwise if sliceable else Unrolled
            found.append((start, make(self.network, trunks)))
            start += len(trunks)
        return found

    def run_stack(self, stack: _Stacks, rows: Rows, finish: Finish) -> None:
        """Step all trunks at once over the parent's own weights."""
        lengths = rows.lengths if rows.lengths is not None else self.network.lengths(rows)
        rows = Rows(rows.values, lengths)
        for start, one in stack:
            self._run_one(start, one, rows, finish)

    def _run_one(self, start: int, stack: Stepwise | Unrolled, rows: Rows, finish: Finish) -> None:
        """Trunks of a stack, the first of which is number ``start``."""
        projected = stack.project(rows)

        def task(part: slice) -> Callable[[], None]:
            here = slice(start + part.start, start + part.stop)
            return lambda: finish(here, stack.readout(rows, part, projected))

        parts = _parts(stack.count, len(rows), self.steps(rows), self.workers())
        on_threads(task(part) for part in parts)


def _parts(trunks: int, rows: int, steps: int, workers: int) -> Iterator[slice]:
    """Trunks in parts that keep memory bounded and every worker busy."""
    most = min(MAX_STATES, max(MAX_KEPT // steps, 1))
    size = max(most // rows, 1)
    if workers > 1 and trunks * rows >= 2 * MIN_STATES:
        shares = max(min(workers, trunks * rows // MIN_STATES), 1)
        rounds = -(-trunks // (size * shares))
        size = min(size, -(-trunks // (shares * rounds)))
    for start in range(0, trunks, size):
        yield slice(start, min(start + size, trunks))
