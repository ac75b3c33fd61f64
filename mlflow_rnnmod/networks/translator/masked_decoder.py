"""A translator's decoder through a trunk: units cut out, zeroed, or left out step by step.

The encoder, both embeddings and the output layer are the translator's; a trunk masks the decoder's
recurrent layers and, with them, the states that they start from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mlflow_rnnmod.networks.groups import check_fits, trimmed_tensors
from mlflow_rnnmod.networks.recurrent.config import GATES, State
from mlflow_rnnmod.networks.translator.decoding import Decoder, States
from mlflow_rnnmod.networks.translator.layers import TranslatorLayers
from mlflow_rnnmod.networks.trunk import Trunk


@dataclass(frozen=True, eq=False)
class TrimmedDecoder(Decoder):
    """A decoder whose removed units are gone at every step and in every gate.

    Args:
        keep: for each layer the units that are kept, bool ``(units,)``.
        cut: whether the others are cut out; else their weights are zeros.
    """

    keep: Sequence[Tensor] = ()
    cut: bool = True

    def start(self, states: States) -> States:
        """The kept units' part of what the encoder hands over.

        What is guessed of the others is in the weights already, for the first states as for all.
        """
        if self.cut:
            return tuple(
                tuple(part[:, keep] for part in state)
                for keep, state in zip(self.keep, states, strict=True)
            )
        return tuple(
            tuple(part * keep for part in state)
            for keep, state in zip(self.keep, states, strict=True)
        )


@dataclass(frozen=True, eq=False)
class SteppedDecoder(Decoder):
    """A decoder with a mask for each step, or for each gate, or both.

    Behind its states it carries what it last sent on, as that is what others read: of a unit that
    is removed at a step, the step's constant.

    Args:
        gate_masks: for each layer, float ``(steps, gates x units)``: 0 where the gate's unit has no
            weights and biases.
        gate_constants: for each layer, of the same shape: what is put in place of a pre-activation.
        sent_masks: for each layer, bool ``(steps, units)``: whose outputs are sent on; None where
            all are.
        sent_constants: for each layer, float ``(steps, units)``: what is sent in their place.
    """

    gate_masks: Sequence[Tensor] = ()
    gate_constants: Sequence[Tensor] = ()
    sent_masks: Sequence[Tensor | None] = ()
    sent_constants: Sequence[Tensor] = ()

    def start(self, states: States) -> States:
        """What the encoder hands over, as it is.

        It is no step of the decoder, and masks for single steps or gates say nothing of it.
        """
        return tuple((*state, state[0]) for state in states)

    def step(self, tokens: Tensor, states: States, number: int) -> tuple[Tensor, States]:
        """Read one token of each row; the masks are those of step ``number``, or the last."""
        x = F.embedding(tokens, self.embedding)
        after = []
        for index, (*carried, sent) in enumerate(states):
            weight_ih, weight_hh, bias_ih, bias_hh = self.layers[index]
            place = min(number, len(self.gate_masks[index]) - 1)
            mask = self.gate_masks[index][place]
            given = F.linear(x, weight_ih, bias_ih) * mask + self.gate_constants[index][place]
            recurred = F.linear(sent, weight_hh, bias_hh) * mask
            state = from_gates(self.cell, given, recurred, tuple(carried))
            x = self._sent(index, state[0], place)
            after.append((*state, x))
        return self.finish(x), tuple(after)

    def _sent(self, index: int, outputs: Tensor, place: int) -> Tensor:
        mask = self.sent_masks[index]
        if mask is None:
            return outputs
        return torch.where(mask[place], outputs, self.sent_constants[index][place])


def from_gates(cell: str, given: Tensor, recurred: Tensor, state: State) -> State:
    """One step of a cell from both sides' pre-activations, ``(rows, gates x units)`` each."""
    if cell == "gru":
        input_r, input_z, input_n = given.chunk(3, dim=-1)
        state_r, state_z, state_n = recurred.chunk(3, dim=-1)
        r, z = torch.sigmoid(input_r + state_r), torch.sigmoid(input_z + state_z)
        n = torch.tanh(input_n + r * state_n)
        return (n + z * (state[0] - n),)
    total = given + recurred
    if cell == "lstm":
        i, f, g, o = total.chunk(4, dim=-1)
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
    return (torch.tanh(total) if cell == "rnn_tanh" else torch.relu(total),)


def trunk_decoder(translator: TranslatorLayers, trunk: Trunk, cut: bool = True) -> Decoder:
    """The translator's decoder through ``trunk``.

    ``cut``: cut removed units out where they are removed at every step and in every gate, which is
    exact; False zeroes their weights instead.

    Example:
        >>> from mlflow_rnnmod.networks.translator.config import TranslatorConfig
        >>> config = TranslatorConfig("gru", 30, 8, 30, 8, ((6, 6),), (3,), ("de",), (2,), end=3)
        >>> trunk = Trunk({"decoder.0.fwd": torch.tensor([True, False, True])})
        >>> trunk_decoder(TranslatorLayers(config), trunk).weight.shape
        torch.Size([30, 2])
    """
    check_fits(translator.groups, trunk)
    if trunk.full:
        return translator.stepper()
    if trunk.variant == "rolled" and trunk.gates == "joint":
        return _trimmed(translator, trunk, cut)
    return _stepped(translator, trunk)


def _trimmed(translator: TranslatorLayers, trunk: Trunk, cut: bool) -> TrimmedDecoder:
    state = translator.state_dict()
    decoder = {name: t for name, t in state.items() if not name.startswith(("encoder.", "bridge."))}
    whole = translator.stepper(trimmed_tensors(decoder, translator.groups, trunk, cut))
    keep = [mask.to(whole.weight.device) for mask in trunk.keep.values()]
    parts = (whole.cell, whole.embedding, whole.layers, whole.weight, whole.bias)
    return TrimmedDecoder(*parts, keep, cut)


def _stepped(translator: TranslatorLayers, trunk: Trunk) -> SteppedDecoder:
    whole, gates = translator.stepper(), GATES[translator.config.cell]
    masks, constants = [], []
    sent_masks: list[Tensor | None] = []
    sent_constants = []
    for name, keep in trunk.keep.items():
        keep, fold = keep.to(whole.weight.device), trunk.fold[name].to(whole.weight)
        if trunk.variant == "rolled":
            keep, fold = keep[None], fold[None]
        if trunk.gates == "separate":
            mask, constant = keep.flatten(1), fold.flatten(1)
            sent_masks.append(None)
            sent_constants.append(fold[:, 0])
        else:
            mask, constant = keep.repeat(1, gates), fold.new_zeros(len(keep), gates * keep.shape[1])
            sent_masks.append(keep)
            sent_constants.append(fold)
        masks.append(mask.to(fold))
        constants.append(constant)
    return SteppedDecoder(
        whole.cell,
        whole.embedding,
        whole.layers,
        whole.weight,
        whole.bias,
        masks,
        constants,
        sent_masks,
        sent_constants,
    )
