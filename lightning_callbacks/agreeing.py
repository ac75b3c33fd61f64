"""Whether a tokenizer is the one that made a data set's ids, found out before the first step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
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
    padding_of,
    without_padding,
)
from mlflow_rnnmod.inputs.readback import strangers
from mlflow_rnnmod.inputs.rows import IGNORE
from mlflow_rnnmod.networks import TextEncoder

TEXT_KEYS = ("text", "texts", "sentence", "sentences", "raw_text")
"""Under which texts are looked for, in batches that are mappings and in data sets."""
_ITEMS = 64


def compare_batches(encoder: TextEncoder, batches: Iterator[Batch], config: Any) -> Agreement:
    """Whether a tokenizer made the ids of some batches, and of the texts in them."""
    found, read, count, told = Agreement(), list[Batch](), 0, dict[int, Sequence[Any]]()
    while count < ROWS:
        try:
            batch = next(batches, None)
        except Exception:  # it is raised again where the rows are needed
            break
        if batch is None:
            break
        if isinstance(batch.raw, Mapping):
            texts = _texts_under(batch.raw.get, len(batch.rows))
            told |= {} if texts is None else {len(read): texts}
        count += len(batch.rows)
        read.append(replace(batch, raw=None, inputs=None))
    # What pads rows may show in no batch by itself.
    own, pad = ids_of(read, encoder, config)
    for number, texts in told.items():
        found += compare_texts(encoder, texts, own[number])
        if found.problems:
            return found
    rows = [row for batch_rows in own for row in batch_rows]
    return found + compare_ids(encoder, rows, config.input_size, pad)


def compare_items(
    encoder: TextEncoder,
    loaders: Any,
    config: Any,
    transfer: Transfer,
    split_batch: SplitFunction | None,
    layout: Layout,
) -> Agreement:
    """Whether a tokenizer made the ids of the texts that data sets hold beside them."""
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
            read = [split(item, split_batch, layout) for item in raw]
            own = [rows[0] for rows in ids_of(read, encoder, config)[0]]
        except Exception:  # a data set may raise anything; what has to be read is read elsewhere
            continue
        found += compare_texts(encoder, [texts[i] for i in place], own)
    return found


def ids_of(
    batches: Sequence[Batch], encoder: TextEncoder, config: Any
) -> tuple[list[list[list[int]]], int | None]:
    """Token ids of the rows of each batch, without padding, and what pads them."""
    found, left = list[list[list[int]]](), config.side == "left"
    for batch in batches:
        values, lengths = batch.rows.values, batch.rows.lengths
        rows, steps = values.tolist(), values.shape[1]
        if lengths is not None:
            both = zip(rows, lengths.tolist(), strict=True)
            rows = [row[steps - length :] if left else row[:length] for row, length in both]
        found.append(rows)
    unsaid = [i for i, batch in enumerate(batches) if batch.rows.lengths is None]
    rows, pad = [row for i in unsaid for row in found[i]], config.pad_index
    odd = lambda i: encoder.tokenizer.id_to_token(i) is None  # noqa: E731
    shown = padding_of(rows, config.side, odd)
    # Where nobody said it, networks take 0 for it.
    pad = shown if pad is None or (shown is not None and odd(shown)) else pad
    for i in unsaid if pad is not None else ():
        found[i] = without_padding(found[i], pad, config.side)
    return found, pad


def _texts_under(get: Callable[[str, None], Any], count: int) -> Sequence[Any] | None:
    """The texts under one of the usual names, if there are so many."""
    for name in TEXT_KEYS:
        found = get(name, None)
        listed = isinstance(found, list | tuple) and len(found) == count and count
        if listed and all(isinstance(text, str) for text in found):
            return found
    return None


def warning_of_all(encoder: TextEncoder | None, rows: Any, config: Any) -> list[str]:
    """What some rows could not tell: whether a tokenizer has a token for each id of all rows."""
    if encoder is None or not len(rows):
        return []
    values = getattr(rows, "sources", rows).values
    ends = values[:, -2:] if config.side == "right" else values[:, :2]
    odd = lambda i: encoder.tokenizer.id_to_token(i) is None  # noqa: E731
    padding = padding_of(ends[ends[:, 0] == ends[:, -1]].tolist(), config.side, odd)
    found = zip(*(part.tolist() for part in values.unique(return_counts=True)), strict=True)
    told = strangers(encoder, {i: n for i, n in found if i not in (padding, config.pad_index)})
    return [f"{told}: texts may be answered wrongly"] if told else []


def warnings_of_length(network: Any, rows: Any, before: int | None) -> list[str]:
    """Which rows are cut, with how many labels of their steps; what is read, where it changed."""
    steps, rows = network.config.steps, getattr(rows, "sources", rows)
    if steps is None or not len(rows) or rows.values.ndim < 2:
        return []
    lengths = network.lengths(rows).cpu()
    longest, cut = int(lengths.max()), int((lengths > steps).sum())
    if not cut:
        if before is None or before == steps:
            return []
        return [
            f"training rows have up to {longest} steps: inputs will be padded or cut to {steps} "
            f"steps, and not to the {before} of the batch that the model was read with"
        ]
    lost, targets = 0, rows.targets
    if (
        network.config.stepwise
        and targets is not None
        and targets.shape[1:] == rows.values.shape[1:2]
    ):
        kept = torch.zeros_like(targets, dtype=torch.bool)
        kept[:, :steps] = True
        kept = kept.flip(1) if network.side == "left" else kept
        lost = int((~kept & (targets != IGNORE)).sum())
    labels = f", and with them {lost} labels of their steps" if lost else ""
    return [
        f"{cut} of {len(rows)} training rows are longer than {steps} steps, up to {longest}: what "
        f"is behind is cut{labels}. NetworkSpec(steps={longest}) reads all of it"
    ]
