"""What a recurrent network is made of, as plain data, and one step of each of its cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlflow_rnnmod.answers import ANSWERS, Answer, answer_of
from mlflow_rnnmod.inputs import input_of

Cell = Literal["rnn_tanh", "rnn_relu", "lstm", "gru"]
InputKind = Literal["tokens", "features"]
Readout = Literal[
    "last_step",
    "last_valid",
    "final_state",
    "mean_valid",
    "max_valid",
    "mean_steps",
    "max_steps",
    "all_steps",
]
Side = Literal["right", "left"]
Activation = Literal["relu", "tanh", "identity"]
OutputKind = Literal["label", "multilabel", "tags", "list"]
Feed = Literal["steps", "flat", "repeat"]

CELLS: tuple[str, ...] = get_args(Cell)
READOUTS: tuple[str, ...] = get_args(Readout)
GATES: dict[str, int] = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 3}
DIRECTIONS = ("fwd", "bwd")
MAX_STEPS = 100_000
"""Steps that an input may be padded to: what a stored structure asks for is allocated."""
MAX_LAYERS = 1_000
_LATER: dict[str, Any] = {"feed": "steps", "output_steps": None, "end_label": None}


_CHOICES = {
    "input": get_args(InputKind),
    "cell": CELLS,
    "readout": READOUTS,
    "output": get_args(OutputKind),
    "side": get_args(Side),
    "feed": get_args(Feed),
}


def outside(thing: Any, choices: Mapping[str, Sequence[Any]], none: bool = False) -> list[str]:
    """Which attributes hold nothing that is accepted, in words; ``none``: None is, for all."""
    return [
        f"{name}={value!r}, expected one of {accepted}"
        for name, accepted in choices.items()
        if (value := getattr(thing, name)) not in accepted and not (none and value is None)
    ]


@dataclass(frozen=True)
class HiddenLayer:
    """One dense layer between the readout of the recurrent layers and the output layer."""

    units: int
    activation: Activation = "relu"


@dataclass(frozen=True)
class NetworkConfig:
    """The structure of a :class:`~mlflow_rnnmod.networks.recurrent.network.RecurrentNetwork`.

    Args:
        input: ``"tokens"`` (int64 ids through an embedding) or ``"features"`` (float vectors).
        input_size: rows of the embedding for tokens; length of one step's vector for features.
        embedding_size: length of an embedding vector; ``None`` for features.
        cell: kind of recurrent cell.
        recurrent: for each layer, the units of its forward and, when bidirectional, backward
            direction: ``((100,),)`` is one layer of 100 units, ``((64, 64), (64, 64))`` two
            bidirectional ones.
        labels: names of the output labels, in the order of the output layer's rows.
        hidden: dense layers between readout and output layer.
        readout: how the states of the last recurrent layer become one vector. ``last_step`` is
            ``output[:, -1]``, ``last_valid`` the output at each row's last valid step,
            ``final_state`` the final states of both directions (``h_n``); ``mean_`` and ``max_``
            go over the valid steps (``_valid``) or over all of them, padding included (``_steps``).
            ``all_steps`` reads every step by itself, for ``"tags"`` and ``"list"``.
        output: kind of answer: ``"label"`` is one label for the whole input, ``"multilabel"`` any
            number of them (a sigmoid each), ``"tags"`` a label for each step, ``"list"`` labels one
            after the other, up to ``end_label``.
        pad_index: token id of padding; ``None`` for features.
        side: where padding stands.
        packed: whether padding is skipped as by ``pack_padded_sequence`` (right padding only).
        steps: number of steps that every input is padded or cut to; ``None`` for as many as it has.
            Networks that read their padding need it, or their answers depend on the batch.
        feed: how the recurrent layers get their input: each token or vector is a step
            (``"steps"``), the whole input, embedded and flattened, is the only step (``"flat"``),
            or that vector is repeated for each of ``output_steps`` steps (``"repeat"``). The last
            two need ``steps``.
        output_steps: steps of the recurrent layers, for ``"repeat"``.
        end_label: the label that ends a ``"list"``; ``None`` for lists that fill all steps.

    Raises:
        ValueError: naming every argument that does not fit.

    Example:
        >>> NetworkConfig("tokens", 30, 8, "gru", ((16,),), ("yes", "no")).units
        {'recurrent.0.fwd': 16}
    """

    input: InputKind
    input_size: int
    embedding_size: int | None
    cell: Cell
    recurrent: tuple[tuple[int, ...], ...]
    labels: tuple[str, ...]
    hidden: tuple[HiddenLayer, ...] = ()
    readout: Readout = "last_valid"
    output: OutputKind = "label"
    pad_index: int | None = None
    side: Side = "right"
    packed: bool = False
    steps: int | None = None
    feed: Feed = "steps"
    output_steps: int | None = None
    end_label: str | None = None

    def __post_init__(self) -> None:
        problems = outside(self, _CHOICES)
        if (self.embedding_size is None) == (self.input == "tokens"):
            problems.append(
                f"embedding_size={self.embedding_size!r} with input={self.input!r}; tokens need an "
                "embedding size, features have none"
            )
        if not self.recurrent or any(
            len(layer) not in (1, 2) or min(layer) < 1 for layer in self.recurrent
        ):
            problems.append(
                f"recurrent={self.recurrent!r}, expected one tuple a layer, of one or two "
                "(bidirectional) positive numbers of units"
            )
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            problems.append(f"labels={self.labels!r}, expected at least two labels, all different")
        if self.packed and self.side == "left":
            problems.append("packed=True with side='left'; packing needs padding on the right")
        if len(self.recurrent) + len(self.hidden) > MAX_LAYERS:
            problems.append(
                f"{len(self.recurrent) + len(self.hidden)} layers, at most {MAX_LAYERS}"
            )
        if not all(isinstance(label, str) for label in self.labels):
            problems.append(f"labels={self.labels!r:.200}, expected texts")
        if self.steps is not None and not 1 <= self.steps <= MAX_STEPS:
            problems.append(
                f"steps={self.steps!r}, expected None or a number from 1 to {MAX_STEPS}"
            )
        problems += self._problems_of_kind()
        for layer in self.hidden:
            if layer.activation not in get_args(Activation):
                problems.append(
                    f"hidden activation={layer.activation!r}, expected one of "
                    f"{get_args(Activation)}"
                )
        if problems:
            raise ValueError("The network's structure does not fit: " + "; ".join(problems) + ".")

    def _problems_of_kind(self) -> list[str]:
        """What does not fit between output, readout and feed."""
        problems = []
        answer = ANSWERS.get(self.output, ANSWERS["label"])
        if (self.readout == "all_steps") != answer.stepwise:
            stepwise = [name for name, other in ANSWERS.items() if other.stepwise]
            problems.append(
                f"readout={self.readout!r} with output={self.output!r}; all_steps goes with "
                f"{' and '.join(stepwise)}, and only with them"
            )
        at_once = self.feed in ("flat", "repeat")
        if at_once and self.steps is None:
            problems.append(f"steps=None with feed={self.feed!r}, expected a positive number")
        elif at_once and self.packed:
            problems.append(f"packed=True with feed={self.feed!r}; packing needs feed='steps'")
        if (self.feed == "repeat") != (self.output_steps is not None):
            problems.append(
                f"output_steps={self.output_steps!r} with feed={self.feed!r}; repeat needs a "
                "positive number, the others None"
            )
        elif self.output_steps is not None and not 1 <= self.output_steps <= MAX_STEPS:
            problems.append(
                f"output_steps={self.output_steps!r}, expected a positive number up to {MAX_STEPS}"
            )
        if self.end_label is not None and not answer.ends:
            problems.append(f"end_label={self.end_label!r} with output={self.output!r}")
        elif self.end_label is not None and self.end_label not in self.labels:
            problems.append(f"end_label={self.end_label!r}, expected one of {self.labels!r}")
        return problems

    @property
    def stepwise(self) -> bool:
        """Whether there is an answer for each step."""
        return self.answer.stepwise

    @property
    def answer(self) -> Answer:
        """What goes out, as an object."""
        return answer_of(self.output)

    @property
    def units(self) -> dict[str, int]:
        """Number of units of each maskable layer: directions of recurrent layers, dense layers."""
        found = {
            f"recurrent.{i}.{DIRECTIONS[d]}": size
            for i, layer in enumerate(self.recurrent)
            for d, size in enumerate(layer)
        }
        found.update({f"hidden.{i}": layer.units for i, layer in enumerate(self.hidden)})
        return found

    @property
    def readout_layers(self) -> tuple[str, ...]:
        """Names of the maskable layers whose units, in this order, the output layer reads."""
        if self.hidden:
            return (f"hidden.{len(self.hidden) - 1}",)
        return self.inputs_of(len(self.recurrent))

    def inputs_of(self, layer: int) -> tuple[str, ...]:
        """Names of the maskable layers that recurrent layer number ``layer`` reads (none for 0)."""
        if layer == 0:
            return ()
        return tuple(
            f"recurrent.{layer - 1}.{DIRECTIONS[d]}" for d in range(len(self.recurrent[layer - 1]))
        )

    @property
    def readout_size(self) -> int:
        """Length of the vector that the output layer reads."""
        return sum(self.units[name] for name in self.readout_layers)

    @property
    def step_size(self) -> int:
        """Length of the vector that the first recurrent layer reads at each step."""
        size = self.input_size if self.embedding_size is None else self.embedding_size
        return size if self.feed == "steps" else size * (self.steps or 1)

    @property
    def format(self) -> int:
        """The format version of files that it takes to say this structure."""
        return 1 if self.output == "label" and self.feed == "steps" else 2

    def to_dict(self) -> dict[str, Any]:
        """This structure as JSON types; :meth:`from_dict` reads it back."""
        # Fields that came later are left out where they say nothing: digests stay what they were.
        found = asdict(self)
        return {k: v for k, v in found.items() if k not in _LATER or v != _LATER[k]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> NetworkConfig:
        """The structure that :meth:`to_dict` wrote.

        Raises:
            ValueError: if a field is missing, unknown or does not fit.
        """
        try:
            data = dict(data)
            data["recurrent"] = tuple(tuple(layer) for layer in data["recurrent"])
            data["labels"] = tuple(data["labels"])
            data["hidden"] = tuple(HiddenLayer(**layer) for layer in data.get("hidden", ()))
            found = cls(**data)
            counts = [found.input_size, found.embedding_size, found.steps, found.output_steps]
            counts += [found.pad_index, *(units for layer in found.recurrent for units in layer)]
            counts += [layer.units for layer in found.hidden]
            if any(type(count) not in (int, type(None)) for count in counts):
                raise TypeError(f"sizes {counts!r:.200}, expected whole numbers")
            if found.pad_index is not None and not 0 <= found.pad_index < found.input_size:
                raise ValueError(
                    f"pad_index={found.pad_index}, expected one of {found.input_size} tokens."
                )
            return found
        except (TypeError, KeyError) as error:
            raise ValueError(f"Not a network's structure: {error}; got {sorted(data)}.") from error


CELL_WORDS = {"lstm": "LSTM", "gru": "GRU", "rnn_tanh": "RNN (tanh)", "rnn_relu": "RNN (ReLU)"}


def layer_words(recurrent: Sequence[Sequence[int]]) -> str:
    """Units of recurrent layers.

    Example:
        >>> layer_words([(64, 64), (32,)])
        '64/64 both ways + 32'
    """
    return " + ".join(
        "/".join(map(str, layer)) + (" both ways" if len(layer) == 2 else "") for layer in recurrent
    )


def network_words(config: NetworkConfig) -> str:
    """The structure of a recurrent network.

    Example:
        >>> network_words(NetworkConfig("features", 3, None, "gru", ((4,),), ("a", "b")))
        'GRU of 4 units'
    """
    dense = "".join(f" + {layer.units} {layer.activation}" for layer in config.hidden)
    fed = {
        "flat": ", which reads the whole input as one step",
        "repeat": f", which reads the whole input at each of {config.output_steps} steps",
    }.get(config.feed, "")
    return f"{CELL_WORDS[config.cell]} of {layer_words(config.recurrent)} units{dense}{fed}"


def cell_params(config: Any, layers: Sequence[Sequence[int]]) -> Mapping[str, Any]:
    """What is logged of recurrent layers that are masked, as columns of a table of models."""
    return {
        "cell": config.cell,
        "layers": len(layers),
        "hidden": "+".join("/".join(map(str, layer)) for layer in layers),
        "vocab": config.input_size if input_of(config.input).ids else 0,
    }


# A state is the tuple of what a cell carries from step to step: (h,) or (h, c).
State = tuple[Tensor, ...]
Step = Callable[[Tensor, State, Tensor, Tensor], State]


# The formulas are PyTorch's own (``torch.nn.RNN``, ``LSTM``, ``GRU``), gates in its order.
# Working step by step lets each answer be fed to the next step.
def _rnn_tanh(projected: Tensor, state: State, weight: Tensor, bias: Tensor) -> State:
    return (torch.tanh(projected + F.linear(state[0], weight, bias)),)


def _rnn_relu(projected: Tensor, state: State, weight: Tensor, bias: Tensor) -> State:
    return (torch.relu(projected + F.linear(state[0], weight, bias)),)


def _lstm(projected: Tensor, state: State, weight: Tensor, bias: Tensor) -> State:
    h, c = state
    i, f, g, o = (projected + F.linear(h, weight, bias)).chunk(4, dim=-1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _gru(projected: Tensor, state: State, weight: Tensor, bias: Tensor) -> State:
    (h,) = state
    input_r, input_z, input_n = projected.chunk(3, dim=-1)
    state_r, state_z, state_n = F.linear(h, weight, bias).chunk(3, dim=-1)
    r, z = torch.sigmoid(input_r + state_r), torch.sigmoid(input_z + state_z)
    n = torch.tanh(input_n + r * state_n)
    return (n + z * (h - n),)


STEPS: dict[str, Step] = {"rnn_tanh": _rnn_tanh, "rnn_relu": _rnn_relu, "lstm": _lstm, "gru": _gru}


def cell_weights(layer: nn.RNNBase) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``weight_ih``, ``weight_hh``, ``bias_ih`` and ``bias_hh`` of a one-layer recurrent module."""
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    found = [getattr(layer, name).detach() for name in names]
    return found[0], found[1], found[2], found[3]
