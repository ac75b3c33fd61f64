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

from mlflow_rnnmod.networks.recurrent.cells import State
from mlflow_rnnmod.networks.recurrent.config import GATES
from mlflow_rnnmod.networks.translator.decoder import Decoder, States
from mlflow_rnnmod.networks.translator.network import Translator
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


def trunk_decoder(translator: Translator, trunk: Trunk, cut: bool = True) -> Decoder:
    """The translator's decoder through ``trunk``.

    Args:
        translator: it is read, never changed.
        trunk: a mask over the decoder's layers.
        cut: cut removed units out where they are removed at every step and in every gate, which is
            exact; False zeroes their weights instead.

    Raises:
        ValueError: if the trunk's layers are not the decoder's; both are shown.

    Example:
        >>> from mlflow_rnnmod.networks.translator.config import TranslatorConfig
        >>> config = TranslatorConfig("gru", 30, 8, 30, 8, ((6, 6),), (3,), ("de",), (2,), end=3)
        >>> trunk = Trunk({"decoder.0.fwd": torch.tensor([True, False, True])})
        >>> trunk_decoder(Translator(config), trunk).weight.shape
        torch.Size([30, 2])
    """
    check_trunk(translator, trunk)
    if trunk.full:
        return translator.stepper()
    if trunk.variant == "rolled" and trunk.gates == "joint":
        return _trimmed(translator, trunk, cut)
    return _stepped(translator, trunk)


def check_trunk(translator: Translator, trunk: Trunk) -> None:
    """Whether a trunk is one of this translator's.

    Raises:
        ValueError: if its layers are not the decoder's, or its gates not the cell's.
    """
    if trunk.units != translator.units:
        raise ValueError(
            f"The trunk's layers and the translator's differ:\ntrunk: {trunk.units}\n"
            f"translator: {translator.units}."
        )
    gates = GATES[translator.config.cell]
    found = {mask.shape[-2] for mask in trunk.keep.values() if trunk.gates == "separate"}
    if found - {gates}:
        raise ValueError(
            f"The trunk's masks have {max(found)} gates; expected {gates}, as "
            f"{translator.config.cell} has."
        )


def _trimmed(translator: Translator, trunk: Trunk, cut: bool) -> TrimmedDecoder:
    whole, gates = translator.stepper(), GATES[translator.config.cell]

    def behind(weight: Tensor, bias: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """Weight and bias that read layer ``name``, with the guesses folded into them."""
        keep = trunk.keep[name].to(weight.device)
        bias = bias + weight @ trunk.fold[name].to(weight)
        folded = weight * keep
        if name in trunk.mix:
            folded = folded + weight @ trunk.mix[name].to(weight)
        return (folded[:, keep] if cut else folded), bias

    def rows(keep: Tensor, tensor: Tensor) -> Tensor:
        """Rows of kept units; a unit that is gone is neither fed nor biased."""
        return tensor[keep] if cut else tensor * keep.view(-1, *[1] * (tensor.ndim - 1))

    layers, below = [], None
    for (weight_ih, weight_hh, bias_ih, bias_hh), name in zip(
        whole.layers, trunk.keep, strict=True
    ):
        if below is not None:
            weight_ih, bias_ih = behind(weight_ih, bias_ih, below)
        weight_hh, bias_hh = behind(weight_hh, bias_hh, name)
        kept = trunk.keep[name].to(weight_hh.device).repeat(gates)
        found = [rows(kept, tensor) for tensor in (weight_ih, weight_hh, bias_ih, bias_hh)]
        layers.append((found[0], found[1], found[2], found[3]))
        below = name
    assert below is not None
    weight, bias = behind(whole.weight, whole.bias, below)
    keep = [mask.to(weight.device) for mask in trunk.keep.values()]
    return TrimmedDecoder(whole.cell, whole.embedding, layers, weight, bias, keep, cut)


def _stepped(translator: Translator, trunk: Trunk) -> SteppedDecoder:
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
