"""A decoder as plain tensors, and translations by it: the likeliest token, or a few guesses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mlflow_rnnmod._locks import cached_property
from mlflow_rnnmod.networks.recurrent.config import STEPS, State
from mlflow_rnnmod.networks.recurrent.projections import Product

States = tuple[State, ...]
"""What a decoder carries from token to token: for each layer ``(h,)`` or ``(h, c)``."""

Weights = tuple[Tensor, Tensor, Tensor, Tensor]
"""``weight_ih``, ``weight_hh``, ``bias_ih`` and ``bias_hh`` of one layer."""


def layer_weights(state: Mapping[str, Tensor], prefix: str) -> Weights:
    """The weights of one layer, from a network's state."""
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    found = [state[f"{prefix}.{name}"].detach() for name in names]
    return found[0], found[1], found[2], found[3]


@dataclass(frozen=True, eq=False)
class Decoder:
    """Embedding, recurrent layers and output layer of a translator.

    Args:
        cell: kind of recurrent cell.
        embedding: ``(tokens, size)``.
        layers: weights of each layer.
        weight: of the output layer, ``(tokens, units)``.
        bias: of the output layer, ``(tokens,)``.
    """

    cell: str
    embedding: Tensor
    layers: Sequence[Weights]
    weight: Tensor
    bias: Tensor

    def start(self, states: States) -> States:
        """The states that it starts from, given those that the encoder hands over."""
        return states

    def step(self, tokens: Tensor, states: States, number: int) -> tuple[Tensor, States]:
        """Read one token of each row.

        ``tokens``: int64 ``(rows,)``; ``number``: of the step, from 0; gives logits of the next
        token, ``(rows, tokens)``, and the states afterwards.
        """
        x = F.embedding(tokens, self.embedding)
        after = []
        for (weight_ih, weight_hh, bias_ih, bias_hh), state in zip(
            self.layers, states, strict=True
        ):
            projected = F.linear(x, weight_ih, bias_ih)
            state = STEPS[self.cell](projected, state, weight_hh, bias_hh)
            after.append(state)
            x = state[0]
        return self.finish(x), tuple(after)

    def run(self, tokens: Tensor, states: States) -> Tensor:
        """Logits after each of some tokens, ``(rows, steps, tokens)`` from ``(rows, steps)``."""
        states = self.start(states)
        found = []
        for t in range(tokens.shape[1]):
            logits, states = self.step(tokens[:, t], states, t)
            found.append(logits)
        return torch.stack(found, dim=1)

    def finish(self, x: Tensor) -> Tensor:
        """The output layer: ``(rows, tokens)`` from ``(rows, units)``."""
        return self._product(x, self.bias)

    @cached_property
    def _product(self) -> Product:
        return Product(self.weight)


def picked(states: States, rows: Tensor) -> States:
    """The states of some rows."""
    return tuple(tuple(part[rows] for part in state) for state in states)


@torch.inference_mode()
def greedy(
    decoder: Decoder, states: States, start: int, end: int, limits: Tensor
) -> list[list[int]]:
    """Take the likeliest token until it is the end, or a row has as many as it may have.

    Args:
        decoder: what is run.
        states: that the encoder hands over, ``(rows, units)`` each.
        start: the first token that is read.
        end: the token that ends a translation; it is not part of it.
        limits: most tokens of each row, int64 ``(rows,)``.

    Returns:
        for each row its tokens. Rows that are done are no longer run.
    """
    found: list[list[int]] = [[] for _ in range(len(limits))]
    states = decoder.start(states)
    rows = torch.arange(len(limits))
    tokens = torch.full((len(limits),), start, device=states[0][0].device)
    left = limits.tolist()
    step = 0
    while len(rows):
        logits, states = decoder.step(tokens, states, step)
        tokens = logits.argmax(dim=1)
        step += 1
        going = []
        for place, (row, token) in enumerate(zip(rows.tolist(), tokens.tolist(), strict=True)):
            if token != end:
                found[row].append(token)
                if step < left[row]:
                    going.append(place)
        if len(going) < len(rows):
            kept = torch.tensor(going, dtype=torch.int64)
            rows = rows[kept]
            kept = kept.to(tokens.device)
            tokens, states = tokens[kept], picked(states, kept)
    return found


@torch.inference_mode()
def beam_search(
    decoder: Decoder, states: States, start: int, end: int, limits: Tensor, beams: int
) -> list[list[int]]:
    """Follow the ``beams`` likeliest beginnings of each row, and take the best by mean likelihood.

    A beginning that has ended stays among them as it is. In the end, the one with the largest mean
    log-likelihood of its tokens, the end included, is taken: by the sum alone, short ones win.

    ``states``: that the encoder hands over, ``(rows, units)`` each; ``end``: the token that ends a
    translation; it is not part of it; ``limits``: most tokens of each row, int64 ``(rows,)``.
    """
    if isinstance(beams, bool) or not isinstance(beams, int) or beams < 1:
        raise ValueError(f"beams={beams!r}; expected a positive whole number.")
    if beams == 1 or len(limits) == 0:
        return greedy(decoder, states, start, end, limits)
    count, device = len(limits), states[0][0].device
    limits = limits.to(device)
    states = decoder.start(states)
    # In the beginning there is one guess a row; the others are there, and can't win.
    spread = torch.arange(count, device=device).repeat_interleave(beams)
    states = picked(states, spread)
    score = torch.full((count, beams), -torch.inf, device=device, dtype=states[0][0].dtype)
    score[:, 0] = 0.0
    tokens = torch.full((count * beams,), start, device=device)
    ended = torch.zeros(count, beams, dtype=torch.bool, device=device)
    size = torch.zeros(count, beams, dtype=torch.int64, device=device)
    history: list[tuple[Tensor, Tensor]] = []
    step = 0
    while not bool(ended.all()):
        logits, states = decoder.step(tokens, states, step)
        step += 1
        odds = logits.log_softmax(dim=1).view(count, beams, -1)
        vocabulary = odds.shape[2]
        # What has ended goes on with one more end, which costs nothing.
        odds = odds.masked_fill(ended[..., None], -torch.inf)
        odds[..., end].masked_fill_(ended, 0.0)
        score, place = (score[..., None] + odds).flatten(1).topk(beams, dim=1)
        source, token = place // vocabulary, place % vocabulary
        was = ended.gather(1, source)
        size = size.gather(1, source) + (~was).long()
        ended = was | (token == end) | (step >= limits[:, None])
        history.append((source, token.masked_fill(was, end)))
        index = (torch.arange(count, device=device)[:, None] * beams + source).flatten()
        states, tokens = picked(states, index), token.flatten()
    best = (score / size.clamp(min=1)).argmax(dim=1)
    return _traced(history, best, end)


def _traced(history: list[tuple[Tensor, Tensor]], best: Tensor, end: int) -> list[list[int]]:
    """The tokens of the best guesses, from which guess each came of which, last step first."""
    place, found = best[:, None], []
    for source, token in reversed(history):
        found.append(token.gather(1, place)[:, 0])
        place = source.gather(1, place)
    rows = torch.stack(found[::-1], dim=1).tolist()
    return [row[: row.index(end)] if end in row else row for row in rows]
