"""Many sources through one encoder and some decoders, in batches of like length."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.translator.decoder import Decoder
from mlflow_rnnmod.networks.translator.decoding import beam_search
from mlflow_rnnmod.networks.translator.layers import TranslatorLayers

# Steps of sources that are read at once.
_MOST_STEPS = 65_536


@torch.inference_mode()
def translations(
    translator: TranslatorLayers,
    rows: Rows,
    jobs: Sequence[tuple[Decoder, int]],
    beams: int = 1,
    batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[list[int]]]:
    """Translations of all sources by all decoders; each source is read once.

    Args:
        translator: whose encoder reads, and whose end token ends.
        rows: the sources.
        jobs: decoders, each with the token that it starts with.
        beams: how many beginnings are followed; 1 takes the likeliest token each time.
        batch_size: sources read at once, at the most.
        progress: called with sources done and sources in all.

    Returns:
        for each job and source the tokens, without start and end.

    Raises:
        ValueError: if ``beams`` is no positive number.
    """
    rows = translator.prepare(rows)
    lengths = translator.lengths(rows).cpu()
    found: list[list[list[int]]] = [[[] for _ in range(len(rows))] for _ in jobs]
    done = 0
    for index in batches(lengths, batch_size):
        values = rows.values[index.to(rows.values.device)]
        if translator.config.packed and translator.config.steps is None:
            values = values[:, : int(lengths[index].max())]
        batch = Rows(values, lengths[index]).to(translator.device)
        states, limits = translator.encode(batch), translator.limits(batch).cpu()
        for place, (decoder, start) in enumerate(jobs):
            tokens = beam_search(decoder, states, start, translator.config.end, limits, beams)
            for row, translation in zip(index.tolist(), tokens, strict=True):
                found[place][row] = translation
        done += len(index)
        if progress:
            progress(done, len(rows))
    return found


def batches(lengths: Tensor, batch_size: int) -> list[Tensor]:
    """Numbers of rows of like length, at most ``batch_size`` at once, the shortest first.

    Example:
        >>> [index.tolist() for index in batches(torch.tensor([5, 2, 5, 2]), 3)]
        [[1, 3, 0], [2]]
    """
    order = lengths.argsort(stable=True)
    found, start = [], 0
    while start < len(order):
        end = min(start + batch_size, len(order))
        while end > start + 1 and int(lengths[order[end - 1]]) * (end - start) > _MOST_STEPS:
            end = start + (end - start) // 2
        found.append(order[start:end])
        start = end
    return found
