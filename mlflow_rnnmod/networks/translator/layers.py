"""The layers of a translator: encoder, bridge, and one decoder for all languages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mlflow_rnnmod._locks import cached_property
from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.groups import Groups, Reader, by_name
from mlflow_rnnmod.networks.protocol import Network
from mlflow_rnnmod.networks.recurrent.config import (
    CELL_WORDS,
    DIRECTIONS,
    State,
    cell_params,
    layer_words,
)
from mlflow_rnnmod.networks.recurrent.layers import (
    ACTIVATION_FUNCTIONS,
    RecurrentLayers,
    build_cell,
    build_embedding,
    side_by_side,
)
from mlflow_rnnmod.networks.recurrent.slots import cell_group
from mlflow_rnnmod.networks.translator.config import TranslatorConfig
from mlflow_rnnmod.networks.translator.decoding import Decoder, States, beam_search, layer_weights


@dataclass(frozen=True, eq=False)
class Forced:
    """What a decoder did while it was told each token (teacher forcing).

    Args:
        layers: output of every decoder layer, by name, ``(rows, steps, units)``.
        logits: of the next token after each, ``(rows, steps, target tokens)``; empty where nobody
            asked for them.
    """

    layers: Mapping[str, Tensor]
    logits: Tensor


class TranslatorLayers(Network):
    """An encoder-decoder that is told the target language by the token it starts with.

    Every layer and direction is a module of its own, as in :class:`RecurrentLayers`, which the
    encoder is, without its output layer. Dropout is left out: put it around this network to train.

    Args:
        config: the structure. Weights start as PyTorch initialises them.

    Example:
        >>> config = TranslatorConfig("gru", 30, 8, 30, 8, ((6, 6),), (12,), ("de",), (2,), end=3)
        >>> translator = TranslatorLayers(config)
        >>> rows = Rows(torch.tensor([[4, 7, 0], [5, 0, 0]]))
        >>> translator(rows, torch.tensor([[2, 9], [2, 11]])).shape
        torch.Size([2, 2, 30])
        >>> len(translator.translate(rows, "de"))
        2
    """

    def __init__(self, config: TranslatorConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = RecurrentLayers(config.encoder_config)
        del self.encoder.output
        linear = config.bridge == "linear"
        parts = ("h", "c") if config.cell == "lstm" else ("h",)
        self.bridge = nn.ModuleList(
            nn.ModuleDict({part: nn.Linear(config.bridge_size(i), units) for part in parts})
            for i, units in enumerate(config.decoder if linear else ())
        )
        self.embedding = build_embedding(config.target_size, config.target_embedding)
        sizes = (config.target_embedding, *config.decoder)
        self.decoder = nn.ModuleList(
            build_cell(config.cell, size, units)
            for size, units in zip(sizes, config.decoder, strict=False)
        )
        self.output = nn.Linear(config.decoder[-1], config.target_size)
        self.eval()

    @cached_property
    def groups(self) -> Groups:
        """The decoder's layers, by name."""
        found, config = [], self.config
        last = len(config.decoder) - 1
        for i, (name, units) in enumerate(config.units.items()):
            behind = Reader(f"decoder.{i + 1}.weight_ih_l0", f"decoder.{i + 1}.bias_ih_l0")
            if i == last:
                behind = Reader("output.weight", "output.bias")
            found.append(cell_group(name, config.cell, f"decoder.{i}", units, (behind,)))
        return by_name(found)

    @property
    def readout_groups(self) -> tuple[str, ...]:
        """None: the output layer writes tokens, and is trimmed with the rest."""
        return ()

    @property
    def like(self) -> Tensor:
        """A tensor of the dtype of states and logits, where the weights are."""
        return self.output.weight

    @property
    def side(self) -> str:
        """Where padding stands in the sources."""
        return self.config.side

    def cell(self, layer: int) -> nn.RNNBase:
        """One layer of the decoder."""
        found = self.decoder[layer]
        assert isinstance(found, nn.RNNBase)
        return found

    def lengths(self, rows: Rows) -> Tensor:
        """Valid steps of each source, int64 ``(rows,)``, at least 1."""
        return self.encoder.lengths(rows)

    def valid(self, lengths: Tensor, steps: int) -> Tensor:
        """Bool ``(rows, steps)``: which steps of the sources are not padding."""
        return self.encoder.valid(lengths, steps)

    def prepare(self, rows: Rows) -> Rows:
        """Sources cut or padded to ``config.steps``, where there is a fixed number of steps."""
        return self.encoder.prepare(rows)

    def encode(self, rows: Rows) -> States:
        """Read the sources.

        Gives the decoder's first states: for each layer ``(h,)`` or, for an LSTM, ``(h, c)``, each
        ``(rows, units)``.
        """
        finals = self._final_states(rows)
        picked = [
            finals[i if self.config.bridge_from == "each" else -1]
            for i in range(len(self.config.decoder))
        ]
        if self.config.bridge == "state":
            return tuple(picked)
        activation = ACTIVATION_FUNCTIONS[self.config.bridge_activation]
        found = []
        for layers, state in zip(self.bridge, picked, strict=True):
            assert isinstance(layers, nn.ModuleDict)
            dense = layers.values()
            found.append(tuple(activation(layer(x)) for layer, x in zip(dense, state, strict=True)))
        return tuple(found)

    def _final_states(self, rows: Rows) -> list[State]:
        """Of each encoder layer, both directions side by side, ``(rows, units)``."""
        if rows.values.ndim != 2 or rows.values.shape[1] == 0:
            raise ValueError(
                f"values has shape {tuple(rows.values.shape)}; expected (rows, steps) with at "
                "least one step."
            )
        encoder, config = self.encoder, self.encoder.config
        lengths = encoder.lengths(rows)
        x = encoder.embed(rows.values)
        finals: list[State] = []
        for index, layer in enumerate(config.recurrent):
            outputs, states = [], []
            for direction in DIRECTIONS[: len(layer)]:
                inputs = encoder.reverse(x, lengths) if direction == "bwd" else x
                known = lengths if config.packed else None
                out, state = _run(encoder.cell(index, direction), inputs, known)
                states.append(state)
                outputs.append(encoder.reverse(out, lengths) if direction == "bwd" else out)
            finals.append(tuple(torch.cat(part, dim=-1) for part in zip(*states, strict=True)))
            x = side_by_side(outputs)
        return finals

    def force(self, states: States, tokens: Tensor, logits: bool = True) -> Forced:
        """Run the decoder over given tokens.

        ``tokens``: int64 ``(rows, steps)``, the target's start token first; ``logits``: whether to
        run the output layer, which is most of the work.
        """
        x = self.embedding(tokens)
        layers = {}
        for index, (name, state) in enumerate(zip(self.units, states, strict=True)):
            parts = [part[None].contiguous() for part in state]
            first = parts[0] if len(parts) == 1 else tuple(parts)
            x = self.cell(index)(x, first)[0]
            layers[name] = x
        return Forced(layers, self.output(x) if logits else x.new_zeros(0))

    def forward(self, rows: Rows, tokens: Tensor) -> Tensor:  # type: ignore[override]
        """Logits of the token after each of ``tokens``, float ``(rows, steps, target tokens)``.

        ``tokens``: int64 ``(rows, steps)``: the target's start token, then its translation.
        """
        return self.force(self.encode(rows), tokens).logits

    def stepper(self, tensors: Mapping[str, Tensor] | None = None) -> Decoder:
        """The decoder as plain tensors, to be run token by token.

        ``tensors``: its weights through a trunk, by the names of the state; ``None`` for its own.
        """
        state = self.state_dict() if tensors is None else tensors
        return Decoder(
            cell=self.config.cell,
            embedding=state["embedding.weight"],
            layers=[layer_weights(state, f"decoder.{i}") for i in range(len(self.decoder))],
            weight=state["output.weight"],
            bias=state["output.bias"],
        )

    def params(self) -> Mapping[str, Any]:
        """The cell, the decoder's layers and their units, and the size of the vocabulary."""
        return cell_params(self.config, [(units,) for units in self.config.decoder])

    def reading(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """The sources' embedding, and the shape of everything but the languages."""
        known = self.config.to_dict()
        shape = {name: value for name, value in known.items() if name not in ("targets", "starts")}
        embedding = self.encoder.embedding
        return {} if embedding is None else {"embedding": embedding.weight}, shape

    def target(self, label: str) -> dict[str, Any]:
        """The language's code, and the token that its translations start with."""
        return {"code": label, "start": self.config.start_of(label)}

    def words(self) -> str:
        """The structure in words."""
        config, written = self.config, " + ".join(map(str, self.config.decoder))
        read = layer_words(config.encoder)
        return f"{CELL_WORDS[config.cell]} that reads with {read} units and writes with {written}"

    def limits(self, rows: Rows) -> Tensor:
        """Most tokens of each row's translation, int64 ``(rows,)``."""
        config = self.config
        most = self.lengths(rows).double() * config.length_factor + config.length_extra
        return most.floor().long()

    @torch.inference_mode()
    def translate(self, rows: Rows, target: str, beams: int = 1) -> list[list[int]]:
        """Translations into a language, as tokens, without start and end."""
        config = self.config
        start, limits = config.start_of(target), self.limits(rows)
        return beam_search(self.stepper(), self.encode(rows), start, config.end, limits, beams)


def _run(cell: nn.RNNBase, inputs: Tensor, lengths: Tensor | None) -> tuple[Tensor, State]:
    """Outputs of one direction, and its state at each row's last valid step (None: at the last)."""
    steps = inputs.shape[1]
    if lengths is None or bool((lengths == steps).all()):  # packing is slow
        out, state = cell(inputs)
        return out, tuple(part[0] for part in state) if isinstance(state, tuple) else (state[0],)
    if not isinstance(cell, nn.LSTM):
        out = cell(inputs)[0]
        return out, (out[torch.arange(len(out), device=out.device), lengths - 1],)
    # Only packing shows the cell state of a step before the last.
    packed = pack_padded_sequence(inputs, lengths.cpu(), batch_first=True, enforce_sorted=False)
    joined, (h, c) = cell(packed)
    out, _ = pad_packed_sequence(joined, batch_first=True, total_length=steps)
    return out, (h[0], c[0])
