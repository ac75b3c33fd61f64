"""Whether a tokenizer is the one that made a data set's ids, found out before the first step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from torch.utils.data import Subset

from lightning_callbacks.batches import Batch, Layout, SplitFunction, split
from lightning_callbacks.collecting import (
    flatten_loaders,
    quiet_loader,
    random_state_kept,
    sampled_indices,
)
from lightning_callbacks.sources import Transfer
from mlflow_rnnmod.inputs.agreement import (
    ROWS,
    Agreement,
    compare_ids,
    compare_texts,
    strangers,
    without_padding,
)
from mlflow_rnnmod.networks import TextEncoder

TEXT_KEYS = ("text", "texts", "sentence", "sentences", "raw_text")
"""Under which texts are looked for, in batches that are mappings and in data sets."""
_ITEMS = 64


def compare_batches(encoder: TextEncoder, batches: Iterator[Batch], config: Any) -> Agreement:
    """Whether a tokenizer made the ids of some batches, and of the texts in them.

    Args:
        encoder: with the tokenizer.
        batches: of training rows; so many are read as tell.
        config: of the network.
    """
    found, rows = Agreement(), list[list[int]]()
    while len(rows) < ROWS and not found.problems:
        try:
            batch = next(batches, None)
        except Exception:  # it is raised again where the rows are needed
            break
        if batch is None:
            break
        own = ids_of(batch, config)
        rows += own
        if isinstance(batch.raw, Mapping):
            texts = _texts_under(batch.raw.get, len(own))
            found += compare_texts(encoder, texts, own) if texts is not None else Agreement()
    if found.problems:
        return found
    return found + compare_ids(encoder, rows, config.input_size, config.pad_index)


def compare_items(
    encoder: TextEncoder,
    loaders: Any,
    config: Any,
    transfer: Transfer,
    split_batch: SplitFunction | None,
    layout: Layout,
) -> Agreement:
    """Whether a tokenizer made the ids of the texts that data sets hold beside them.

    Args:
        encoder: with the tokenizer.
        loaders: of the training rows.
        config: of the network.
        transfer: what happens to a batch before the model sees it.
        split_batch: how the user takes a batch apart.
        layout: what the inputs of a batch are.
    """
    found = Agreement()
    for loader in flatten_loaders(loaders):
        try:
            data: Any = loader.dataset
            index = sampled_indices(loader, _ITEMS)[:_ITEMS] if quiet_loader(loader) else []
            place = index
            while isinstance(data, Subset):
                data, place = data.dataset, [int(data.indices[i]) for i in place]
            texts = _texts_under(partial(getattr, data), len(data))
            if not index or texts is None:
                continue
            # One by one: a collation may sort them.
            with random_state_kept():
                raw = [transfer(loader.collate_fn([loader.dataset[i]])) for i in index]
            own = [ids_of(split(item, split_batch, layout), config)[0] for item in raw]
        except Exception:  # a data set may raise anything; what has to be read is read elsewhere
            continue
        found += compare_texts(encoder, [texts[i] for i in place], own)
    return found


def ids_of(batch: Batch, config: Any) -> list[list[int]]:
    """Token ids of a batch's rows, without padding."""
    values, lengths = batch.rows.values, batch.rows.lengths
    if lengths is None:
        return without_padding(values.tolist(), config.pad_index, config.side)
    steps, left = values.shape[1], config.side == "left"
    both = zip(values.tolist(), lengths.tolist(), strict=True)
    return [row[steps - length :] if left else row[:length] for row, length in both]


def _texts_under(get: Callable[[str, None], Any], count: int) -> Sequence[Any] | None:
    """The texts under one of the usual names, if there are so many."""
    for name in TEXT_KEYS:
        found = get(name, None)
        listed = isinstance(found, list | tuple) and len(found) == count and count
        if listed and all(isinstance(text, str) for text in found):
            return found
    return None


def warning_of_all(encoder: TextEncoder | None, rows: Any, config: Any) -> list[str]:
    """What some rows could not tell: whether a tokenizer has a token for each id of all rows.

    Args:
        encoder: with the tokenizer; ``None`` without one.
        rows: all training rows, or pairs with their sources.
        config: of the network.
    """
    if encoder is None or not len(rows):
        return []
    values = getattr(rows, "sources", rows).values
    ends = values[:, -1 if config.side == "right" else 0]
    padding = int(ends.mode().values) if config.pad_index is None else config.pad_index
    found = zip(*(part.tolist() for part in values.unique(return_counts=True)), strict=True)
    told = strangers(encoder, {i: count for i, count in found if i != padding})
    return [f"{told}: ids may be shifted by one, and texts answered wrongly"] if told else []
