"""What floors above ask of a network, whatever it is made of.

Nothing else of a network is known to them: not its layers, nor whether it takes steps. A new
architecture is a :class:`Network`, and a row of the table in
:mod:`~mlflow_rnnmod.networks.architectures`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.groups import Groups, check_fits, shares_kept
from mlflow_rnnmod.networks.trunk import Trunk
from mlflow_rnnmod.networks.views import Finish as Finish
from mlflow_rnnmod.networks.views import Load as Load
from mlflow_rnnmod.networks.views import TrunkNetwork as TrunkNetwork
from mlflow_rnnmod.networks.views import Trunks as Trunks
from mlflow_rnnmod.networks.views import View as View


class Config(Protocol):
    """The structure of a network, as plain data.

    A frozen dataclass; ``from_dict`` of its class reads what :meth:`to_dict` wrote.
    """

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the output labels, in the order of the logits."""

    @property
    def input(self) -> str:
        """Name of the kind of input (a key of ``INPUTS``)."""

    @property
    def input_size(self) -> int:
        """Size of the vocabulary, or how many numbers are read at once."""

    @property
    def output(self) -> str:
        """Name of the kind of answer (a key of ``ANSWERS``)."""

    @property
    def end_label(self) -> str | None:
        """The label that ends a list of labels."""

    @property
    def steps(self) -> int | None:
        """Steps that every input is padded or cut to; ``None`` where there is no such number."""

    @property
    def readout_size(self) -> int:
        """Length of the vector that the output layer reads."""

    @property
    def format(self) -> int:
        """The format version of files that it takes to say this structure."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""


@dataclass(frozen=True)
class Told:
    """What is told apart while units are watched.

    Args:
        steps: so many steps are watched by themselves, later ones as the last; ``None`` for all
            together.
        gates: whether each gate's activation is watched, in the place of outputs.
        last: whether only the last step of a row is kept where observations are kept.
        others: for each group what its units guess for one another, where derivatives are to count
            what the others can't guess: a matrix ``(units, units)`` and means ``(units,)``, which
            give ``matrix @ (output - mean)``.
    """

    steps: int | None = None
    gates: bool = False
    last: bool = False
    others: Mapping[str, tuple[Tensor, Tensor]] | None = None


@dataclass(frozen=True, eq=False)
class Observations:
    """What the units of one group did in a batch, or at one of its steps, or in one of its gates.

    Args:
        name: of the group, with step and gate where these are told apart (see
            :func:`~mlflow_rnnmod.networks.parts.part_name`).
        values: ``(observations, units)``.
        sides: what each stands for, ``(2, observations)`` or bool ``(2, observations, labels)``
            (see :meth:`Watch.observations`).
        joint: whether it is a whole group's, whose units guess for one another.
        chosen: those that are kept where all observations are, bool ``(observations,)``; ``None``
            for all.
        block: so many observations, one after the other, stand for the same labels.
        also: more values, which only guesses are made from, with sides of their own.
    """

    name: str
    values: Tensor
    sides: Tensor
    joint: bool
    chosen: Tensor | None = None
    block: int = 1
    also: tuple[Tensor, Tensor] | None = None


class Watch(Protocol):
    """One batch through an unmasked network, which can be asked what its units did."""

    def observations(self, sides: Tensor) -> Iterator[Observations]:
        """What each group's units did.

        Args:
            sides: for each row - or row and step, where each step is answered - the label that it
                is a positive of and the one that it is a negative of, int64 ``(2, rows)`` or ``(2,
                rows, steps)``, the number of labels for none; or bool ``(2, rows, labels)``.
        """

    def squared(self, sides: Tensor) -> dict[str, Tensor]:
        """Squared derivatives of labels' margins by units' outputs, added up.

        They are total derivatives: through all that comes behind. Only of watches that were made
        with ``gradients``. Where one label answers for a row, both of its sides get the square of
        the one's margin less the other's.

        Gives by the names of the observations, float64 ``(2, labels, units)``.
        """


class Network(nn.Module):
    """A trained network that answers, can be watched, and can be seen through trunks.

    What a subclass must have are the methods that raise ``NotImplementedError``, and ``config``;
    the others have answers that suit networks that read each row at once.

    Args:
        config: the structure. Its class is the architecture's.
    """

    architecture: ClassVar[str]
    """Name in the table of architectures, and in files."""
    guesses_by_label: ClassVar[bool] = False
    """Whether removed units are guessed from each label's own observations."""
    ranks_unexplained: ClassVar[bool] = False
    """Whether ``sensitivity`` counts only what the other units can't guess of a unit."""

    @property
    def ranks_together(self) -> bool:
        """Whether ``sensitivity`` ranks units of all groups at once.

        Then squares of watches are of derivatives times what the other units can't guess of a
        unit, added up over places (see :attr:`Told.others`).
        """
        return False

    config: Any

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the output labels, in the order of the logits."""
        found: tuple[str, ...] = self.config.labels
        return found

    @property
    def groups(self) -> Groups:
        """Groups of units that can be masked, by name, from the input to the readout."""
        raise NotImplementedError

    @property
    def readout_groups(self) -> tuple[str, ...]:
        """Names of the groups that make up the readout, in the order of its columns."""
        raise NotImplementedError

    @property
    def units(self) -> dict[str, int]:
        """Number of units of each group, by name."""
        return {name: group.units for name, group in self.groups.items()}

    @property
    def layers(self) -> list[list[str]]:
        """Names of the groups by layer, from the input up: both directions of one are together."""
        found: dict[str, list[str]] = {}
        for name in self.groups:
            stem = name.removesuffix(".fwd").removesuffix(".bwd")
            found.setdefault(stem, []).append(name)
        return list(found.values())

    @property
    def like(self) -> Tensor:
        """A tensor of the dtype of states and logits, where the weights are."""
        return next(iter(self.parameters()))

    @property
    def dtype(self) -> torch.dtype:
        """Of states and logits."""
        return self.like.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.like.device

    @property
    def side(self) -> str:
        """Where padding stands, ``"right"`` or ``"left"``."""
        return "right"

    @property
    def answer_side(self) -> str:
        """Where steps without an answer stand."""
        return self.side

    # Rows

    def prepare(self, rows: Rows) -> Rows:
        """Rows as the network reads them: cut or padded where it has a fixed number of steps."""
        return rows

    def content(self, rows: Rows) -> Rows:
        """The rows with what tells their content from padding, where there is padding."""
        return rows

    def lengths(self, rows: Rows) -> Tensor:
        """Valid steps of each row, int64 ``(rows,)``; 1 where a row is read at once."""
        return torch.ones(len(rows), dtype=torch.int64, device=rows.values.device)

    def sizes(self, rows: Rows) -> Tensor:
        """How many steps are run for each row, without needless ones, int64 ``(rows,)``."""
        return self.lengths(rows)

    def trimmed(self, rows: Rows) -> Rows:
        """The rows without steps that change no answer."""
        return rows

    def order(self, rows: Rows) -> Tensor:
        """Row numbers in an order that leaves out most steps when batches are trimmed."""
        return torch.arange(len(rows))

    def rows_at_once(self, most: int) -> int:
        """How many rows are held at once while it runs, where ``most`` are allowed."""
        return most

    def answered(self, rows: Rows) -> Tensor | None:
        """Which steps have an answer, bool ``(rows, steps)``; ``None`` where each row has one."""
        return None

    # Running

    def readout(self, rows: Rows) -> Tensor:
        """What the output layer reads, ``(rows, readout size)``, or with steps before the last."""
        raise NotImplementedError

    def logits(self, readout: Tensor) -> Tensor:
        """The output layer: float ``(..., labels)`` from a readout ``(..., readout size)``."""
        raise NotImplementedError

    def forward(self, rows: Rows) -> Tensor:
        """Logits of a batch, float ``(rows, labels)``, or ``(rows, steps, labels)``."""
        return self.logits(self.readout(rows))

    def fastest(self) -> Callable[[Rows], Tensor]:
        """:meth:`readout` in the fastest way; what that needs is made now."""
        return self.readout

    # Watching

    def told(
        self, rows: Rows, variant: str, gates: str, unrolled_steps: int, last: bool = False
    ) -> Told:
        """What is told apart for masks of this kind.

        Args:
            rows: the sample.
            variant: ``"unrolled"`` for a mask for each step.
            gates: ``"separate"`` for one for each gate.
            unrolled_steps: steps with masks of their own, at the most.
            last: whether only the last step of a row is asked for.

        Raises:
            ValueError: if the network has no steps, or no gates, to tell apart.
        """
        if variant != "rolled" or gates != "joint":
            raise ValueError(
                f"variant={variant!r}, gates={gates!r}; expected 'rolled' and 'joint': a network "
                f"of architecture {self.architecture!r} has neither steps nor gates."
            )
        return Told()

    def watch(self, rows: Rows, told: Told, gradients: bool) -> Watch:
        """Run a batch, and keep what is needed to be asked about it."""
        raise NotImplementedError

    # Trunks

    def refitting(self, rows: Rows) -> Callable[[Trunk], Trunk]:
        """Fits weights to trunks with guesses, on rows of training, where these can do better."""
        return lambda trunk: trunk

    def view(self, trunk: Trunk, cut: bool = True) -> View:
        """The network through a trunk, cut down to its units where they can be cut out.

        Args:
            trunk: over the network's groups.
            cut: False zeroes removed units instead: the plain meaning of a trunk.

        Raises:
            ValueError: if the trunk's groups are not the network's; both are shown.
        """
        raise NotImplementedError

    def through(self, trunks: Sequence[Trunk]) -> Trunks:
        """Several trunks at once."""
        raise NotImplementedError

    def shares_kept(self, trunk: Trunk) -> dict[str, float]:
        """Shares of units and weights that a trunk keeps, from 0 to 1."""
        shapes = {name: tensor.shape for name, tensor in self.state_dict().items()}
        return shares_kept(shapes, self.groups, trunk)

    def work_kept(self, trunk: Trunk) -> float:
        """Share of the multiply-adds that a trunk keeps: each weight is used once a step."""
        return self.shares_kept(trunk)["weights_kept"]

    def writer(self, trunk: Trunk) -> Any:
        """What writes through a trunk, where answers are written and not scored."""
        raise NotImplementedError

    def write(
        self,
        rows: Rows,
        jobs: Sequence[tuple[Any, int]],
        beams: int = 1,
        batch_size: int = 256,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[list[list[int]]]:
        """What some writers, each with the token it starts with, make of all rows, as tokens.

        Args:
            rows: each is read once.
            jobs: what :meth:`writer` gave, with start tokens.
            beams: how many beginnings are followed.
            batch_size: rows read at once, at the most.
            progress: called with rows done and rows in all.
        """
        raise NotImplementedError

    def target(self, label: str) -> dict[str, Any] | None:
        """What modules of a label must be told, where they are routed to."""
        return None

    # For people

    def words(self) -> str:
        """The structure in words."""
        raise NotImplementedError

    def params(self) -> Mapping[str, Any]:
        """What is logged of the structure, as columns of a table of models."""
        return {}

    def reading(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """How it reads its input, not what it knows: tensors and JSON types, to compare by."""
        return {}, self.config.to_dict()


def view(network: Network, trunk: Trunk) -> View:
    """The fastest view that gives what ``network`` gives through ``trunk``.

    Raises:
        ValueError: if the trunk's groups are not the network's; both are shown.
    """
    check_fits(network.groups, trunk)
    return network if trunk.full else network.view(trunk)


def fastest(network: Network, trunk: Trunk) -> Callable[[Rows], Tensor]:
    """The readout of :func:`view`, to be run again and again; what that needs is made now."""
    check_fits(network.groups, trunk)
    return network.fastest() if trunk.full else network.through([trunk]).alone


def moved(network: Network, device: torch.device | str) -> Network:
    """A copy of a network on ``device``."""
    with torch.device("meta"):
        copy = type(network)(network.config)
    state = {name: tensor.to(device, copy=True) for name, tensor in network.state_dict().items()}
    copy.load_state_dict(state, assign=True)
    return copy.requires_grad_(False).eval()
