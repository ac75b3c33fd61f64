"""What a recurrent network is made of, as plain data that fits in a JSON file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Cell = Literal["rnn_tanh", "rnn_relu", "lstm", "gru"]
InputKind = Literal["tokens", "features"]
Readout = Literal[
    "last_step", "last_valid", "final_state", "mean_valid", "max_valid", "mean_steps", "max_steps"
]
Side = Literal["right", "left"]
Activation = Literal["relu", "tanh", "identity"]
OutputKind = Literal["label"]

CELLS: tuple[str, ...] = get_args(Cell)
READOUTS: tuple[str, ...] = get_args(Readout)
GATES: dict[str, int] = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 3}
DIRECTIONS = ("fwd", "bwd")


@dataclass(frozen=True)
class HiddenLayer:
    """One dense layer between the readout of the recurrent layers and the output layer."""

    units: int
    activation: Activation = "relu"


@dataclass(frozen=True)
class NetworkConfig:
    """The structure of a :class:`~mlflow_rnnmod.network.network.RecurrentNetwork`.

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
        output: kind of answer; ``"label"`` is one label for the whole input.
        pad_index: token id of padding; ``None`` for features.
        side: where padding stands.
        packed: whether padding is skipped as by ``pack_padded_sequence`` (right padding only).
        steps: number of steps that every input is padded or cut to; ``None`` for as many as it has.
            Networks that read their padding need it, or their answers depend on the batch.

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

    def __post_init__(self) -> None:
        problems = []
        if self.input not in get_args(InputKind):
            problems.append(f"input={self.input!r}, expected one of {get_args(InputKind)}")
        if (self.embedding_size is None) == (self.input == "tokens"):
            problems.append(
                f"embedding_size={self.embedding_size!r} with input={self.input!r}; tokens need an "
                "embedding size, features have none"
            )
        if self.cell not in CELLS:
            problems.append(f"cell={self.cell!r}, expected one of {CELLS}")
        if self.readout not in READOUTS:
            problems.append(f"readout={self.readout!r}, expected one of {READOUTS}")
        if self.output not in get_args(OutputKind):
            problems.append(f"output={self.output!r}, expected one of {get_args(OutputKind)}")
        if self.side not in get_args(Side):
            problems.append(f"side={self.side!r}, expected one of {get_args(Side)}")
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
        if self.steps is not None and self.steps < 1:
            problems.append(f"steps={self.steps!r}, expected None or a positive number")
        for layer in self.hidden:
            if layer.activation not in get_args(Activation):
                problems.append(
                    f"hidden activation={layer.activation!r}, expected one of "
                    f"{get_args(Activation)}"
                )
        if problems:
            raise ValueError("The network's structure does not fit: " + "; ".join(problems) + ".")

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
        return self.input_size if self.embedding_size is None else self.embedding_size

    def to_dict(self) -> dict[str, Any]:
        """This structure as JSON types; :meth:`from_dict` reads it back."""
        return asdict(self)

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
            return cls(**data)
        except (TypeError, KeyError) as error:
            raise ValueError(f"Not a network's structure: {error}; got {sorted(data)}.") from error
