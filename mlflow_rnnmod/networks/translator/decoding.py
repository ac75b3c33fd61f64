"""From an encoded source to a translation: the likeliest token each time, or a few guesses."""

from __future__ import annotations

import torch
from torch import Tensor

from mlflow_rnnmod.networks.translator.decoder import Decoder, States, picked


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

    Args:
        decoder: what is run.
        states: that the encoder hands over, ``(rows, units)`` each.
        start: the first token that is read.
        end: the token that ends a translation; it is not part of it.
        limits: most tokens of each row, int64 ``(rows,)``.
        beams: how many; 1 is :func:`greedy`.

    Raises:
        ValueError: if ``beams`` is no positive number.
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
