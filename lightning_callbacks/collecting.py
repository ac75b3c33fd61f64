"""Rows out of dataloaders, without disturbing whoever trains with them.

A ``DataLoader`` is not iterated itself: that would draw from its sampler and generators and wake
its workers. Its data set is read again with the same collation, in a seeded order, in this process.
So a training goes on bit for bit as it would have, and what is read does not depend on it. Only
what is no plain ``DataLoader`` (or one with its own ``__iter__``) is iterated as it is; if it keeps
a position between iterations, give the callback's ``decompose_checkpoint`` a fresh one instead.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
)

from lightning_callbacks.batches import Batch, Layout, Steps, split
from lightning_callbacks.sources import Transfer
from mlflow_rnnmod.networks import Rows
from mlflow_rnnmod.networks.architectures import network_of


@contextmanager
def random_state_kept(*generators: Any) -> Iterator[None]:
    """Random state of Python, NumPy, PyTorch and some generators as before, also after an error.

    Lightning's ``isolate_rng`` does not restore after an exception, and wakes up CUDA.

    ``generators``: ``torch.Generator`` objects to restore too; ``None`` among them is skipped.

    Example:
        >>> state = torch.get_rng_state()
        >>> with random_state_kept():
        ...     _ = torch.rand(3)
        >>> torch.equal(state, torch.get_rng_state())
        True
    """
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    kept = [(g, g.get_state()) for g in generators if isinstance(g, torch.Generator)]
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        for generator, state in kept:
            generator.set_state(state)


def flatten_loaders(loaders: Any) -> list[Any]:
    """One or several dataloaders - a list, a mapping, nested - as a flat list.

    Example:
        >>> loader = DataLoader([1, 2])
        >>> flatten_loaders({"a": [loader], "b": loader}) == [loader, loader]
        True
    """
    if loaders is None:
        return []
    if isinstance(loaders, Mapping):
        return [found for item in loaders.values() for found in flatten_loaders(item)]
    if isinstance(loaders, list | tuple) and not isinstance(loaders, DataLoader):
        return [found for item in loaders for found in flatten_loaders(item)]
    return [loaders]


def raw_batches(
    loader: Any, seed: int = 0, max_rows: int | None = None, least_rows: int = 1
) -> Generator[Any, None, None]:
    """Batches of a dataloader, as its collation makes them.

    Args:
        loader: anything to iterate over.
        seed: for the order, where the data set can be indexed.
        max_rows: read no more rows than this, where that can be told beforehand.
        least_rows: make smaller batches this large, where that can be said.
    """
    quiet = quiet_loader(loader, seed, max_rows, least_rows)
    if quiet is not None:
        yield from quiet
        return
    try:
        yield from loader
    finally:
        if getattr(loader, "_iterator", None) is not None:
            # Persistent workers keep their random state: without them the training has its own.
            loader._iterator = None


def quiet_loader(
    loader: Any, seed: int = 0, max_rows: int | None = None, least_rows: int = 1
) -> DataLoader[Any] | None:
    """A loader of the same data in an order of its own; ``None`` where that can't be made."""
    if not isinstance(loader, DataLoader) or type(loader).__iter__ is not DataLoader.__iter__:
        return None
    own = torch.Generator().manual_seed(seed)
    common: dict[str, Any] = {"collate_fn": loader.collate_fn, "num_workers": 0, "generator": own}
    size = loader.batch_size
    if size is None and loader.batch_sampler is not None:
        size = getattr(loader.batch_sampler, "batch_size", None) or 32
    size = size if size is None else max(size, least_rows)
    if isinstance(loader.dataset, IterableDataset):
        return DataLoader(loader.dataset, batch_size=size, **common)
    index = torch.tensor(sampled_indices(loader, max_rows), dtype=torch.int64)
    index = index[torch.randperm(len(index), generator=own)]
    order = index[:max_rows].tolist()
    return DataLoader(loader.dataset, batch_size=size, sampler=order, **common)


def sampled_indices(loader: DataLoader[Any], max_rows: int | None = None) -> list[int]:
    """Which rows of its data set a loader gives out, each once.

    A sampler may choose: two loaders over one data set often split it into training and validation
    rows that way, and one must not read the other's.
    """
    batches = loader.batch_sampler
    sampler = _unwrapped(loader.sampler)
    if batches is not None and type(batches).__iter__ is not BatchSampler.__iter__:
        sampler = batches
    whole = list(range(len(loader.dataset)))  # type: ignore[arg-type]
    if isinstance(sampler, SequentialSampler | RandomSampler | DistributedSampler):
        return whole
    if isinstance(sampler, SubsetRandomSampler):
        return list(dict.fromkeys(int(i) for i in sampler.indices))
    generators = [getattr(item, "generator", None) for item in (loader, loader.sampler, sampler)]
    limit = 2 * max(len(whole), max_rows or 0)  # a sampler may never end
    found: dict[int, None] = {}
    with random_state_kept(*generators):
        for item in islice(iter(copy.copy(sampler)), limit):
            for index in item if isinstance(item, list | tuple) else [item]:
                found[int(index)] = None
    return sorted(found)


def _unwrapped(sampler: Any) -> Any:
    """The user's own sampler inside the one that Lightning puts around it on several devices."""
    if "SamplerWrapper" in type(sampler).__name__:
        inner = getattr(getattr(sampler, "dataset", None), "_sampler", None)
        return sampler if inner is None else inner
    return sampler


def read_batches(
    loaders: Any,
    transfer: Transfer,
    split_batch: Any = None,
    layout: Layout = Steps(),  # noqa: B008
    seed: int = 0,
    max_rows: int | None = None,
    least_rows: int = 1,
) -> Iterator[Batch]:
    """Batches of all ``loaders``, taken apart; random state is as before whenever one is out."""
    for loader in flatten_loaders(loaders):
        generators = [getattr(loader, "generator", None)]
        generators.append(getattr(getattr(loader, "sampler", None), "generator", None))
        seen = 0
        with closing(raw_batches(loader, seed, max_rows, least_rows)) as raw:
            while max_rows is None or seen < max_rows:
                with random_state_kept(*generators):
                    item = next(raw, None)
                    if item is None:
                        break
                    batch = split(transfer(item), split_batch, layout)
                seen += len(batch.rows)
                yield batch


def collect(
    batches: Iterator[Batch],
    config: Any,
    source: str,
    limit: int | None = None,
    layout: Layout = Steps(),  # noqa: B008
) -> Rows | None:
    """All rows of some batches in one, ``None`` where there are none.

    Raises:
        ValueError: if targets don't fit the network, or features come in batches of different
            length without lengths.
    """
    parts, kept = [], 0
    for batch in batches:
        rows = batch.rows if limit is None else batch.rows[: max(limit - kept, 0)]
        if len(rows) == 0:
            continue
        parts.append(conform(rows, config, source))
        kept += len(rows)
    if not parts:
        return None
    return layout.joined(parts, config, source)


def conform(rows: Rows, config: Any, source: str) -> Rows:
    """Rows with the targets that :class:`~mlflow_rnnmod.networks.Rows` wants for a kind of answer.

    Steps that have no label hold ``IGNORE``: those whose target is negative (as -100, PyTorch's
    ``ignore_index``), that are padding, or that stand behind the label that ends a list.

    ``rows``: with int64 targets ``(rows,)`` or ``(rows, steps)``, or bool ``(rows, labels)`` or
    ``(rows, steps)``.

    Example:
        >>> import torch
        >>> from mlflow_rnnmod.networks import NetworkConfig
        >>> config = NetworkConfig(
        ...     "features", 2, None, "gru", ((3,),), ("a", "b"), readout="all_steps", output="tags"
        ... )
        >>> targets = torch.tensor([[1, 0, -100], [0, 1, 1]])
        >>> rows = Rows(torch.zeros(2, 3, 2), torch.tensor([3, 1]), targets)
        >>> conform(rows, config, "batch").targets.tolist()
        [[1, 0, -1], [0, -1, -1]]
    """
    if rows.targets is None:
        raise ValueError(f"The {source} has no targets; expected the right answer to each row.")

    def shown() -> tuple[Tensor | None, str]:
        network = network_of(config)
        return network.answered(rows), network.answer_side

    return replace(rows, targets=config.answer.conform(rows.targets, config, source, shown))
