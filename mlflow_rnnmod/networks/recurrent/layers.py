"""The layers of a recurrent network: ours, so that they can be read, masked and sliced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mlflow_rnnmod._locks import cached_property
from mlflow_rnnmod.inputs.rows import Rows, lengths_of, resized, valid_of
from mlflow_rnnmod.networks.groups import Groups
from mlflow_rnnmod.networks.protocol import Network
from mlflow_rnnmod.networks.recurrent.config import DIRECTIONS, NetworkConfig
from mlflow_rnnmod.networks.recurrent.slots import groups_of

_RECURRENT = {"rnn_tanh": nn.RNN, "rnn_relu": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
_PLAIN = ("last_step", "last_valid", "all_steps")
ACTIVATION_FUNCTIONS = {"relu": torch.relu, "tanh": torch.tanh, "identity": lambda x: x}


@dataclass(frozen=True, eq=False)
class States:
    """What a network computed for a batch.

    Args:
        layers: output of every maskable layer, by name: ``(rows, steps, units)`` for recurrent
            directions, ``(rows, units)`` for hidden dense layers - or as many steps, where every
            step is answered.
        valid: bool ``(rows, steps)``, False where a step is padding; steps are those of the
            recurrent layers.
        readout: ``(rows, readout size)``, what the output layer reads, or ``(rows, steps, readout
            size)`` where every step is answered.
    """

    layers: Mapping[str, Tensor]
    valid: Tensor
    readout: Tensor


def build_cell(cell: str, input_size: int, units: int) -> nn.RNNBase:
    """One layer and one direction of a recurrent cell, with biases, ``batch_first``."""
    extra = {"nonlinearity": cell.removeprefix("rnn_")} if cell.startswith("rnn_") else {}
    return _RECURRENT[cell](input_size, units, batch_first=True, **extra)  # type: ignore[arg-type]


def build_embedding(tokens: int, size: int) -> nn.Embedding:
    """An embedding as PyTorch makes it; where weights are left out, nothing is drawn.

    To draw them on the device ``meta``, as PyTorch does there, loads its compiler: seconds.
    """
    weight = torch.empty(tokens, size)
    if not weight.is_meta:
        nn.init.normal_(weight)
    return nn.Embedding(tokens, size, _weight=weight)


def side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """Outputs of several directions in one; of a single one as they are."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=-1)


def reversed_steps(x: Tensor, lengths: Tensor) -> Tensor:
    """The valid steps of ``(rows, steps, ...)`` in reverse order, padding behind them as it is."""
    position = torch.arange(x.shape[1], device=x.device)[None, :]
    index = torch.where(position < lengths[:, None], lengths[:, None] - 1 - position, position)
    return x.gather(1, index[..., None].expand_as(x))


class RecurrentLayers(Network):
    """Embedding, recurrent layers, readout, hidden dense layers and an output layer.

    Every layer and direction is a module of its own, so that the states of all of them can be seen
    and masked; the result is the same as that of one many-layer ``nn.LSTM``. Dropout is left out:
    the network only answers.

    Args:
        config: the structure. Weights start as PyTorch initialises them.

    Example:
        >>> config = NetworkConfig("tokens", 30, 8, "gru", ((16,),), ("yes", "no"), pad_index=0)
        >>> network = RecurrentLayers(config)
        >>> network(Rows(torch.tensor([[4, 7, 0], [5, 0, 0]]))).shape
        torch.Size([2, 2])
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = (
            None
            if config.embedding_size is None
            else build_embedding(config.input_size, config.embedding_size)
        )
        size = config.step_size
        layers = []
        for units in config.recurrent:
            cells = {DIRECTIONS[d]: build_cell(config.cell, size, u) for d, u in enumerate(units)}
            layers.append(nn.ModuleDict(cells))
            size = sum(units)
        self.recurrent = nn.ModuleList(layers)
        dense = []
        for layer in config.hidden:
            dense.append(nn.Linear(size, layer.units))
            size = layer.units
        self.hidden = nn.ModuleList(dense)
        self.output = nn.Linear(size, len(config.labels))
        # Set by slicing, where outputs of removed units are needed before the readout.
        self.completion: nn.Module | None = None
        self.eval()

    @cached_property
    def groups(self) -> Groups:
        """Directions of recurrent layers and dense layers, by name."""
        return groups_of(self.config)

    @property
    def readout_groups(self) -> tuple[str, ...]:
        """Names of the groups that make up the readout, in the order of its columns."""
        return self.config.readout_layers

    @property
    def side(self) -> str:
        """Where padding stands."""
        return self.config.side

    @property
    def answer_side(self) -> str:
        """Where steps without an answer stand."""
        return self.side if self.config.feed == "steps" else "right"

    @property
    def like(self) -> Tensor:
        """A tensor of the dtype of states and logits, where the weights are."""
        return self.cell(0, "fwd").weight_hh_l0  # type: ignore[return-value]

    def cell(self, layer: int, direction: str) -> nn.RNNBase:
        """The cell of one recurrent layer and direction (``"fwd"`` or ``"bwd"``)."""
        found = self.recurrent[layer][direction]  # type: ignore[index]
        assert isinstance(found, nn.RNNBase)
        return found

    def dense(self, index: int) -> nn.Linear:
        """One hidden dense layer."""
        found = self.hidden[index]
        assert isinstance(found, nn.Linear)
        return found

    def dense_output(self, index: int, x: Tensor) -> Tensor:
        """What one hidden dense layer puts out."""
        function = ACTIVATION_FUNCTIONS[self.config.hidden[index].activation]
        return function(self.dense(index)(x))

    def content(self, rows: Rows) -> Rows:
        """The rows with the lengths that are found where none are given, on the CPU."""
        return replace(rows, lengths=self.lengths(rows).cpu())

    def lengths(self, rows: Rows) -> Tensor:
        """Valid steps of each row (:func:`~mlflow_rnnmod.inputs.rows.lengths_of`)."""
        return lengths_of(self.config, rows)

    def valid(self, lengths: Tensor, steps: int) -> Tensor:
        """Bool ``(rows, steps)``: which steps are not padding."""
        return valid_of(self.config, lengths, steps)

    def prepare(self, rows: Rows) -> Rows:
        """Rows cut or padded to ``config.steps``, where the network has a fixed number of steps."""
        config = self.config
        if config.steps is None:
            return rows
        answered = config.answer.stepwise and config.feed == "steps"
        return resized(config, rows, config.steps, answered)

    def spans(self, rows: Rows) -> tuple[Tensor, int]:
        """Valid steps of each row in the recurrent layers, int64 ``(rows,)``, and steps in all."""
        if self.config.feed == "steps":
            return self.lengths(rows), rows.values.shape[1]
        steps = self.config.output_steps or 1
        return torch.full((len(rows),), steps, device=rows.values.device), steps

    def answered(self, rows: Rows) -> Tensor | None:
        """Which steps have an answer, bool ``(rows, steps)``; ``None`` where each row has one."""
        return self.valid(*self.spans(rows)) if self.config.answer.stepwise else None

    def sizes(self, rows: Rows) -> Tensor:
        """How many steps are run for each row, without needless ones, int64 ``(rows,)``."""
        return self.lengths(rows).clamp(min=self.config.output_steps or 1)

    @cached_property
    def ignores_padding(self) -> bool:
        """Whether steps behind a row's last valid one can be cut without changing its answers."""
        config = self.config
        if config.side == "left" or config.steps or config.feed != "steps":
            return False
        if config.packed:
            # Outputs at padding are zeros, which a readout of fixed places or of all steps sees.
            return config.readout not in ("last_step", "mean_steps", "max_steps")
        one_way = all(len(layer) == 1 for layer in config.recurrent)
        return one_way and (config.answer.stepwise or config.readout.endswith("_valid"))

    def order(self, rows: Rows) -> Tensor:
        """Row numbers, the shortest first where padding changes no answer."""
        if not self.ignores_padding:
            return torch.arange(len(rows))
        return self.lengths(rows).cpu().argsort(stable=True)

    def trimmed(self, rows: Rows) -> Rows:
        """The rows without steps that are padding in all of them, where those change no answer.

        Example:
            >>> config = NetworkConfig("tokens", 9, 4, "gru", ((3,),), ("a", "b"), pad_index=0)
            >>> rows = Rows(torch.tensor([[3, 4, 0, 0], [5, 0, 0, 0]]))
            >>> RecurrentLayers(config).trimmed(rows).values.shape
            torch.Size([2, 2])
        """
        if not self.ignores_padding or len(rows) == 0:
            return rows
        steps = int(self.lengths(rows).max())
        if steps == rows.values.shape[1]:
            return rows
        targets = rows.targets
        if targets is not None and self.config.answer.stepwise:
            targets = targets[:, :steps]
        return Rows(rows.values[:, :steps], rows.lengths, targets)

    def feed(self, rows: Rows) -> Tensor:
        """What the first recurrent layer reads, float ``(rows, steps, step size)``."""
        values, config = rows.values, self.config
        if values.ndim < 2 or values.shape[1] == 0:
            raise ValueError(f"values has shape {tuple(values.shape)}; expected at least one step.")
        x = self.embed(values)
        if config.feed == "steps":
            return x
        if x.shape[1] != config.steps:
            raise ValueError(
                f"values has {x.shape[1]} steps; expected {config.steps}, which the network reads "
                "at once (prepare() cuts and pads)."
            )
        return x.flatten(1)[:, None].expand(-1, config.output_steps or 1, -1)

    def states(self, rows: Rows) -> States:
        """Run the network and keep what every layer sent out."""
        x = self.feed(rows)
        lengths, steps = self.spans(rows)
        valid = self.valid(lengths, steps)
        layers: dict[str, Tensor] = {}
        for index, layer in enumerate(self.recurrent):
            parts = []
            for direction in layer:  # type: ignore[attr-defined]
                backward = direction == "bwd"
                out = self.cell(index, direction)(self.reverse(x, lengths) if backward else x)[0]
                if backward:
                    out = self.reverse(out, lengths)
                if self.config.packed:
                    out = out * valid[..., None]
                layers[f"recurrent.{index}.{direction}"] = out
                parts.append(out)
            x = side_by_side(parts)
        if self.completion is not None:
            x = self.completion(x)
        last = [layers[name] for name in self.config.inputs_of(len(self.recurrent))]
        readout = self.read(last, x, lengths, valid)
        for index in range(len(self.hidden)):
            readout = self.dense_output(index, readout)
            layers[f"hidden.{index}"] = readout
        return States(layers, valid, readout)

    def readout(self, rows: Rows) -> Tensor:
        """The readout of :meth:`states` alone, with less ado."""
        config, values = self.config, rows.values
        plain = config.readout in _PLAIN and not config.packed
        two_ways = any(len(layer) > 1 for layer in config.recurrent)
        if (
            not plain
            or two_ways
            or self.completion is not None
            or values.ndim < 2
            or 0 in values.shape
        ):
            return self.states(rows).readout
        x = self.feed(rows)
        for index in range(len(config.recurrent)):
            x = self.cell(index, "fwd")(x)[0]
        if config.answer.stepwise:
            pass
        elif config.readout == "last_step" or config.side == "left" or config.feed != "steps":
            x = x[:, -1]
        elif len(x) == 1 and rows.lengths is not None:
            x = x[:, min(max(int(rows.lengths[0]), 1), x.shape[1]) - 1]
        else:
            x = self._last_valid(x, self.lengths(rows))
        for index in range(len(self.hidden)):
            x = self.dense_output(index, x)
        return x

    def logits(self, readout: Tensor) -> Tensor:
        """The output layer: float ``(..., labels)`` from a readout ``(..., readout size)``."""
        return self.output(readout)

    def embed(self, values: Tensor) -> Tensor:
        """Tokens as vectors, features as they are: float ``(rows, steps, size)``."""
        if self.embedding is not None:
            return self.embedding(values)
        if values.ndim != 3 or values.shape[-1] != self.config.input_size:
            raise ValueError(
                f"values has shape {tuple(values.shape)}; expected "
                f"(rows, steps, {self.config.input_size}) float features."
            )
        return values.to(self.dtype)

    def read(self, last: list[Tensor], x: Tensor, lengths: Tensor, valid: Tensor) -> Tensor:
        """The readout vector of the last layer's outputs ``x`` (``last``: by direction)."""
        readout = self.config.readout
        if readout == "all_steps":
            return x
        if readout == "final_state":
            forward = self._last_valid(last[0], lengths) if self.config.packed else last[0][:, -1]
            return torch.cat([forward, *(part[:, 0] for part in last[1:])], dim=-1)
        if readout == "last_step":
            return x[:, -1]
        if readout == "last_valid":
            return self._last_valid(x, lengths)
        if readout == "mean_steps":
            return x.mean(dim=1)
        if readout == "max_steps":
            return x.amax(dim=1)
        if readout == "mean_valid":
            return (x * valid[..., None]).sum(dim=1) / lengths[:, None].to(x.dtype)
        return x.masked_fill(~valid[..., None], -torch.inf).amax(dim=1)

    def reverse(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Steps in reverse order: of the valid ones when packed, else of all, as PyTorch does."""
        if not self.config.packed:
            return x.flip(1)
        return reversed_steps(x, lengths)

    def _last_valid(self, x: Tensor, lengths: Tensor) -> Tensor:
        if self.config.side == "left":
            return x[:, -1]
        return x[torch.arange(len(x), device=x.device), lengths - 1]
