"""What the suite asks of an architecture: small networks of it, and a slow way of running one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import torch
from hypothesis import strategies as st
from torch import Tensor

from mlflow_rnnmod.answers import Sample
from mlflow_rnnmod.composition import Composite
from mlflow_rnnmod.decomposition import DecompositionConfig
from mlflow_rnnmod.decomposition.head_job import HeadJob
from mlflow_rnnmod.decomposition.routed_job import RoutedJob
from mlflow_rnnmod.inputs.pixels import png_of
from mlflow_rnnmod.networks import Parent, Trunk
from mlflow_rnnmod.networks.many import WAYS
from mlflow_rnnmod.networks.protocol import Network
from tests.builders import tiny_texts

Kind = tuple[str, str]
JOINT: Kind = ("rolled", "joint")
STEPS = 6


@dataclass(frozen=True, eq=False)
class Seen:
    """What one group's units did in one row, run slowly.

    Args:
        values: ``(places, units)``: where their outputs are read.
        steps: of each place; ``None`` where the row has no steps.
        watched: which places are observations.
        more: ``(more places, units)`` that guesses are made from, too.
    """

    values: Tensor
    steps: Sequence[int | None]
    watched: Sequence[bool]
    more: Tensor


@dataclass(frozen=True, eq=False)
class Slowly:
    """One row, run slowly.

    Args:
        groups: what each group's units did.
        margins: what the sides of a sample are told by: ``(labels,)`` or ``(steps, labels)``.
    """

    groups: Mapping[str, Seen]
    margins: Tensor


# Inputs as users give them, from the size of the vocabulary, vector or image, how many, and a seed.
Inputs = Callable[[Any, int, torch.Generator], list[Any]]


def _lengths(count: int, draw: torch.Generator) -> list[int]:
    return torch.randint(1, STEPS + 1, (count,), generator=draw).tolist()


def _tokens(size: int, count: int, draw: torch.Generator) -> list[Any]:
    return [torch.randint(1, size, (n,), generator=draw).tolist() for n in _lengths(count, draw)]


def _features(size: int, count: int, draw: torch.Generator) -> list[Any]:
    return [torch.randn(n, size, generator=draw).tolist() for n in _lengths(count, draw)]


def _images(size: Any, count: int, draw: torch.Generator) -> list[Any]:
    """Files of PNG."""
    pixels = torch.randint(256, (count, *size), generator=draw, dtype=torch.uint8)
    return [png_of(each) for each in pixels]


INPUTS_MADE: dict[str, Inputs] = {
    "text": lambda size, count, draw: tiny_texts(count, draw.initial_seed()),
    "tokens": _tokens,
    "features": _features,
    "vectors": lambda size, count, draw: torch.randn(count, size, generator=draw).tolist(),
    "pixels": lambda size, count, draw: torch.randn(count, *size, generator=draw).tolist(),
    "images": _images,
}
"""A new kind of input is a row here."""


class Suite:
    """One architecture. A new one is a subclass in a file of its own, and a row of ``SUITES``."""

    name: ClassVar[str]
    strategy: ClassVar[st.SearchStrategy[Any] | None] = None
    """Networks of any structure, where there are too many kinds to name."""

    def parents(self) -> Mapping[str, Callable[[], Parent]]:
        """Small float64 parents, by names."""
        raise NotImplementedError

    def slow(self, network: Any, row: Any, added: Mapping[str, Tensor] | None = None) -> Slowly:
        """One row, run as plainly as possible.

        Args:
            network: unmasked.
            row: of the sample.
            added: to the values of :class:`Seen`, by group; to differentiate by.
        """
        raise NotImplementedError

    def smooth(self, network: Any) -> bool:
        """Whether it can be differentiated, whatever it reads."""
        return True

    def square(self, network: Any, values: Tensor, slopes: Tensor, layer: Any) -> Tensor:
        """What derivatives ``(places, units)`` by a group's outputs count, ``(units,)``.

        Args:
            network: unmasked.
            values: outputs ``(places, units)``.
            slopes: derivatives by them.
            layer: the group's statistics over the sample.
        """
        return (slopes**2).sum(0)

    def readout_blocks(self, network: Any) -> list[int]:
        """How many columns each unit of a readout's groups has."""
        return [1] * len(network.readout_groups)

    def ties(self, network: Any) -> bool:
        """Whether the largest of several may be several, as of windows over padding."""
        return False

    # What suits all whose modules have scores

    def inputs(self, parent: Parent, count: int, seed: int) -> list[Any]:
        """Inputs as users give them."""
        draw = torch.Generator().manual_seed(seed)
        return INPUTS_MADE[parent.input_kind](parent.input_size, count, draw)

    def data(self, parent: Parent, count: int, seed: int) -> Any:
        """What is decomposed with: rows with random targets."""
        network, draw = parent.network, torch.Generator().manual_seed(seed)
        config, answer, labels = network.config, network.config.answer, len(parent.labels)
        given = parent.input.check(self.inputs(parent, count, seed), parent.input_size)
        rows = parent.rows(given)
        answered = network.answered(rows)
        if answered is not None:
            targets = torch.randint(labels, answered.shape, generator=draw)
        elif answer.rivals:
            targets = torch.randint(labels, (count,), generator=draw)
        else:
            targets = torch.randint(2, (count, labels), generator=draw)
        shown = lambda: (answered, network.side)  # noqa: E731
        return replace(rows, targets=answer.conform(targets, config, "data", shown))

    def outputs(self, network: Any, data: Any, trunk: Trunk | None, cut: bool = True) -> Tensor:
        """What heads read of a network, or of it through a trunk."""
        view = network if trunk is None else network.view(trunk, cut)
        with torch.inference_mode():
            return view.readout(data)

    def at_once(self, network: Network, data: Any, trunks: Sequence[Trunk]) -> dict[str, Tensor]:
        """Outputs ``(trunks, ...)`` through several trunks, in every way of running them."""
        found: dict[str, Tensor] = {}
        for way in WAYS:
            together, parts = network.through(trunks), {}

            def finish(part: slice, readouts: Tensor, parts: dict[int, Tensor] = parts) -> None:
                parts.update(zip(range(len(trunks))[part], readouts, strict=True))

            with torch.inference_mode():
                together.run(data, together.way(way, data), finish)
            found[way] = torch.stack([parts[i] for i in range(len(trunks))])
        return found

    def check_is_parent(self, composite: Composite, parent: Parent, count: int = 9) -> None:
        """Whether a composite scores, orders and answers as the parent does."""
        network: Any = parent.network
        inputs = self.inputs(parent, count, 5)
        rows = parent.rows(parent.input.check(inputs, parent.input_size))
        expected = torch.stack(
            [self.slow(network, rows[i : i + 1]).margins for i in range(len(rows))]
        )
        scores, answered = composite.scores(inputs), network.answered(rows)
        answers = [expected[i] for i in range(len(rows))]
        if answered is not None:
            answers = [row[mask] for row, mask in zip(answers, answered, strict=True)]
            expected, scores = expected[answered], scores[~scores.isnan().any(2)]
        torch.testing.assert_close(scores, expected, rtol=1e-10, atol=1e-10)
        assert torch.equal(scores.argsort(-1), expected.argsort(-1))
        assert composite.predict(inputs) == [plain_answer(network, row) for row in answers]

    def answers(self, thing: Composite, inputs: list[Any]) -> Any:
        """What a composite answers, as plain data."""
        return thing.predict(inputs), thing.scores(inputs).nan_to_num(-1.0).tolist()


def plain_answer(network: Any, margins: Tensor) -> Any:
    """What somebody who trained a network reads from a row's margins."""
    answer, labels = network.config.answer, network.labels
    if answer.stepwise:
        best = [labels[i] for i in margins.argmax(1).tolist()]
        end = network.config.end_label
        return best[: best.index(end)] if end in best else best
    if answer.rivals:
        return labels[int(margins.argmax())]
    return [label for label, z in zip(labels, margins.tolist(), strict=True) if z >= 0]


@dataclass(frozen=True, eq=False)
class Subject:
    """A network, and what is done with it.

    Args:
        suite: of its architecture.
        parent: a float64 one.
    """

    suite: Suite
    parent: Parent

    @property
    def network(self) -> Network:
        return self.parent.network

    @property
    def scored(self) -> bool:
        """Whether its modules have scores, or are routed to."""
        return bool(self.network.config.answer.scored)

    @property
    def kinds(self) -> list[Kind]:
        """Kinds of trunks that its groups allow."""
        groups = self.network.groups.values()
        steps, gates = any(g.steps for g in groups), any(g.gates for g in groups)
        return [
            (variant, gate)
            for variant in ("rolled", "unrolled")[: 1 + steps]
            for gate in ("joint", "separate")[: 1 + gates]
        ]

    def data(self, count: int = 6, seed: int = 0) -> Any:
        return self.suite.data(self.parent, count, seed)

    def inputs(self, count: int = 6, seed: int = 0) -> list[Any]:
        return self.suite.inputs(self.parent, count, seed)

    def sample(self, count: int = 6, seed: int = 0) -> Sample:
        """The data as a sample to watch."""
        job = HeadJob if self.scored else RoutedJob
        return job.sample(self.parent, self.data(count, seed), DecompositionConfig())

    def outputs(self, data: Any, trunk: Trunk | None, cut: bool = True) -> Tensor:
        return self.suite.outputs(self.network, data, trunk, cut)

    def changed(self, tensors: Mapping[str, Tensor]) -> Subject:
        """The same with other weights, by name."""
        with torch.device("meta"):
            network = type(self.network)(self.network.config)
        network.load_state_dict({**self.network.state_dict(), **tensors}, assign=True)
        return replace(self, parent=replace(self.parent, network=network))


def trunk_of(
    network: Network,
    kind: Kind = JOINT,
    seed: int = 0,
    fold: bool = True,
    mix: bool = True,
    removal: float = 0.4,
    steps: int = 3,
) -> Trunk:
    """A random trunk of a kind, with guesses where asked for; each group keeps some unit."""
    draw = torch.Generator().manual_seed(seed)
    variant, gates = kind
    keep, constants, weights = {}, {}, {}
    for name, group in network.groups.items():
        shape = (
            *((steps,) if variant == "unrolled" and group.steps else ()),
            *((len(group.gates),) if gates == "separate" and group.gates else ()),
            group.units,
        )
        mask = torch.rand(shape, generator=draw) >= removal
        if removal:  # at least one goes, and one stays
            mask[..., int(torch.randint(group.units, (), generator=draw))] = False
            mask.view(-1)[int((~mask).flatten().long().argmax()) - 1] = True
        keep[name] = mask
        constants[name] = torch.randn(shape, generator=draw) * 0.4
        weights[name] = torch.randn(group.units, group.units, generator=draw) * 0.3
    mixed = weights if mix and kind == JOINT else {}
    return Trunk(keep, constants if fold else {}, mixed, variant, gates)


def cached(make: Callable[..., Parent], *args: Any, **settings: Any) -> Callable[[], Parent]:
    """A parent that is made once."""
    return cache(lambda: make(*args, **settings))
