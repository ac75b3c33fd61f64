"""A decoder on the right translations, step by step: what its units do, and what these owe them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mlflow_rnnmod.inputs.rows import ForcedRows, Rows
from mlflow_rnnmod.networks.parts import part_name
from mlflow_rnnmod.networks.protocol import Observations, Told
from mlflow_rnnmod.networks.recurrent.config import GATES, cell_weights
from mlflow_rnnmod.networks.translator.config import TranslatorConfig
from mlflow_rnnmod.networks.translator.decoding import States
from mlflow_rnnmod.networks.translator.layers import TranslatorLayers
from mlflow_rnnmod.networks.translator.masked_decoder import from_gates


@dataclass(frozen=True, eq=False)
class Watched:
    """What one layer of a decoder did.

    Args:
        values: its outputs, ``(rows, steps, units)``, or what goes into its gates, ``(rows, steps,
            gates, units)``.
        squared: squared total derivatives by them of each row's mean log-likelihood of the right
            tokens, of the same shape; None where nobody asked.
    """

    values: Tensor
    squared: Tensor | None


def watch_decoder(
    translator: TranslatorLayers,
    states: States,
    given: Tensor,
    wanted: Tensor,
    valid: Tensor,
    gates: bool = False,
    gradients: bool = False,
) -> dict[str, Watched]:
    """Run the decoder on given tokens, and back through time where gradients are asked for.

    Args:
        translator: unmasked; it is not changed.
        states: that the decoder starts from.
        given: tokens that are read, int64 ``(rows, steps)``.
        wanted: tokens that should follow them, of the same shape.
        valid: which steps count, bool, of the same shape.
        gates: by what goes into the gates, in the place of outputs.
        gradients: whether derivatives are asked for. They are total: through later steps, through
            the layers above, and through the output layer.

    Returns:
        by layer, from the first to the last.
    """
    if not gradients and not gates:
        forced = translator.force(states, given, logits=False)
        return {name: Watched(out.detach(), None) for name, out in forced.layers.items()}
    with torch.set_grad_enabled(gradients):
        run = _Run(translator, gates, gradients)
        x = F.embedding(given, translator.embedding.weight.detach())
        for index, state in enumerate(states):
            x = run.layer(index, x, tuple(part.detach() for part in state))
        if not gradients:
            return run.watched(None)
        logits = F.linear(
            x[valid], translator.output.weight.detach(), translator.output.bias.detach()
        )
        # Of each row the mean over its tokens, and the sum over rows, which do not touch.
        share = (1.0 / valid.sum(dim=1, keepdim=True).clamp(min=1)).expand(valid.shape)[valid]
        likelihood = -F.cross_entropy(logits, wanted[valid], reduction="none") * share
        return run.watched(torch.autograd.grad(likelihood.sum(), run.leaves))


class _Run:
    """Layers run step by step, with a zero added to each step that is differentiated by."""

    def __init__(self, translator: TranslatorLayers, gates: bool, gradients: bool) -> None:
        self.translator, self.gates, self.gradients = translator, gates, gradients
        self.leaves: list[Tensor] = []
        self.values: list[Tensor] = []

    def layer(self, index: int, x: Tensor, state: tuple[Tensor, ...]) -> Tensor:
        """Outputs ``(rows, steps, units)``."""
        cell = self.translator.config.cell
        weight_ih, weight_hh, bias_ih, bias_hh = cell_weights(self.translator.cell(index))
        projected = F.linear(x, weight_ih, bias_ih)
        outputs, inside = [], []
        for t in range(x.shape[1]):
            given, recurred = projected[:, t], F.linear(state[0], weight_hh, bias_hh)
            if self.gates:
                given = given + self._zeros(given)
                inside.append(_into_gates(cell, given, recurred))
            state = from_gates(cell, given, recurred, state)
            if not self.gates:
                state = (state[0] + self._zeros(state[0]), *state[1:])
            outputs.append(state[0])
        out = torch.stack(outputs, dim=1)
        shown = torch.stack(inside, dim=1).unflatten(2, (GATES[cell], -1)) if self.gates else out
        self.values.append(shown.detach())
        return out

    def _zeros(self, like: Tensor) -> Tensor:
        zeros = torch.zeros_like(like, requires_grad=self.gradients)
        self.leaves.append(zeros)
        return zeros

    def watched(self, slopes: tuple[Tensor, ...] | None) -> dict[str, Watched]:
        """What was seen, by layer."""
        found, steps = {}, self.values[0].shape[1]
        for index, (name, values) in enumerate(
            zip(self.translator.units, self.values, strict=True)
        ):
            squared = None
            if slopes is not None:
                own = slopes[index * steps : (index + 1) * steps]
                squared = torch.stack(own, dim=1).square().view(values.shape)
            found[name] = Watched(values, squared)
        return found


def _into_gates(cell: str, given: Tensor, recurred: Tensor) -> Tensor:
    """What goes into each gate's sigmoid or tanh, ``(rows, gates x units)``."""
    if cell != "gru":
        return given + recurred
    units = given.shape[-1] // 3
    both = given + recurred
    r = torch.sigmoid(both[:, :units])
    inner = given[:, 2 * units :] + r * recurred[:, 2 * units :]
    return torch.cat([both[:, : 2 * units], inner], dim=1)


def forced_tokens(
    config: TranslatorConfig, starts: Tensor, rows: Rows
) -> tuple[Tensor, Tensor, Tensor]:
    """What a decoder is told and should answer, where it is told the right translation.

    Args:
        config: the translator's structure.
        starts: the token that each row's translation starts with, int64 ``(rows,)``.
        rows: the translations, without start and end.

    Returns:
        tokens that are read, the start first; tokens that should follow them, the end last; both
        int64 ``(rows, steps)``; and which steps count, bool ``(rows, steps)``: none of rows
        without a translation.
    """
    assert rows.lengths is not None
    lengths = rows.lengths.to(rows.values.device)
    longest = max(int(lengths.max()), 0) if len(lengths) else 0
    values = rows.values[:, :longest]
    start = starts[:, None].to(values)
    position = torch.arange(longest + 1, device=values.device)
    given = torch.cat([start, values], dim=1)
    given = given.masked_fill(position > lengths[:, None], config.pad_index)
    wanted = torch.cat([values, start], dim=1)
    wanted = wanted.masked_fill(position == lengths[:, None], config.end)
    valid = (position <= lengths[:, None]) & (lengths[:, None] > 0)
    return given, wanted.masked_fill(~valid, config.pad_index), valid


# Numbers of logits that are held at once.
_HELD = 2**25
_FUNCTIONS = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}


class TranslatorWatch:
    """A batch of translations that the decoder was told (teacher forcing).

    An observation is a step that is answered by a token of the translation or by its end. The right
    translation of another language owes nothing to a module that is never told its start token: so
    only positives' gradients count, and the decoder's first state is guessed like its steps.

    Args:
        translator: unmasked.
        rows: sources with a translation each.
        told: what is told apart.
        gradients: keep squared gradients of each translation's mean token log-likelihood. They are
            total: through later steps and layers, and through the output layer.
    """

    def __init__(
        self, translator: TranslatorLayers, rows: ForcedRows, told: Told, gradients: bool
    ) -> None:
        self.translator, self.told, config = translator, told, translator.config
        assert rows.targets is not None and rows.tokens is not None
        sources = Rows(rows.values, rows.lengths)
        self.states = translator.encode(sources)
        starts = torch.tensor(config.starts, device=rows.tokens.device)[rows.targets]
        forced = forced_tokens(config, starts, Rows(rows.tokens, rows.token_lengths))
        given, wanted, self.valid = forced
        size = len(rows)
        if gradients:
            size = max(_HELD // (config.target_size * given.shape[1]), 1)
        parts = []
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            states = tuple(tuple(s[part] for s in state) for state in self.states)
            pieces = given[part], wanted[part], self.valid[part]
            parts.append(watch_decoder(translator, states, *pieces, told.gates, gradients))
        self.watched = {name: _joined([part[name] for part in parts]) for name in parts[0]}

    def observations(self, sides: Tensor) -> Iterator[Observations]:
        """What each layer's units did.

        ``sides``: bool ``(2, rows, labels)``.
        """
        row, number = self.valid.nonzero(as_tuple=True)
        of_steps = sides[:, row]
        joint = self.told.steps is None and not self.told.gates
        for (name, seen), state in zip(self.watched.items(), self.states, strict=True):
            for gate, values in self._parts(name, seen.values[self.valid], activated=True):
                also = (state[0], sides[0]) if joint else None
                if self.told.steps is None:
                    named = part_name(name, gate=gate)
                    yield Observations(named, values, of_steps, joint, also=also)
                    continue
                for t in range(self.told.steps):
                    here = self._at(number, t)
                    named = part_name(name, t, gate)
                    yield Observations(named, values[here], of_steps[:, here], False)

    def squared(self, sides: Tensor) -> dict[str, Tensor]:
        """Squared derivatives by label, of positives alone, float64 ``(1, labels, units)``."""
        row, number = self.valid.nonzero(as_tuple=True)
        own = sides[0][row].double()
        found = {}
        for name, seen in self.watched.items():
            assert seen.squared is not None
            for gate, values in self._parts(name, seen.squared[self.valid], activated=False):
                for t in range(self.told.steps) if self.told.steps is not None else (None,):
                    here = slice(None) if t is None else self._at(number, t)
                    sums = own[here].T @ values[here].double()
                    found[part_name(name, t, gate)] = sums[None].cpu()
        return found

    def _at(self, number: Tensor, t: int) -> Tensor:
        """Observations at step ``t``, with all later ones at the last."""
        return number == t if t + 1 < (self.told.steps or 0) else number >= t

    def _parts(
        self, name: str, values: Tensor, activated: bool
    ) -> Iterator[tuple[str | None, Tensor]]:
        """Observations ``(observations, units)``, gate by gate where these are told apart."""
        if not self.told.gates:
            yield None, values
            return
        for i, gate in enumerate(self.translator.groups[name].gates):
            own = values[:, i]
            yield gate.letter, _FUNCTIONS[gate.function](own) if activated else own


def _joined(parts: list[Watched]) -> Watched:
    squares = [part.squared for part in parts if part.squared is not None]
    return Watched(torch.cat([p.values for p in parts]), torch.cat(squares) if squares else None)
