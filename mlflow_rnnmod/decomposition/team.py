"""Processes that watch a sample together, and stay together whatever goes wrong in one of them.

A process that waits for one that failed would wait until its group's timeout. So before it is
waited for, every process tells how it fared: first whether it has the sample - and which, as each
drew it by itself -, then whether it has watched its share. Where one has not, the first process
watches all of the sample alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeVar

from torch import Tensor
from torch import distributed as dist

from mlflow_rnnmod._digest import digest_tensors
from mlflow_rnnmod.answers import Sample
from mlflow_rnnmod.decomposition.statistics import ActivationStatistics, Exact, LayerStatistics
from mlflow_rnnmod.networks.protocol import Network


def share_of(sample: Sample, rank: int, world: int) -> Sample:
    """The part of a sample that one of ``world`` processes watches; the parts are disjoint.

    Example:
        >>> import torch
        >>> from mlflow_rnnmod.inputs.rows import Rows
        >>> rows = Rows(torch.arange(5)[:, None], targets=torch.zeros(5, dtype=torch.int64))
        >>> sample = Sample(rows, torch.ones(5, dtype=torch.int64), torch.ones(5))
        >>> share_of(sample, 1, 2).rows.values.flatten().tolist()
        [1, 3]
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank={rank!r}, expected a number from 0 to {world - 1}.")
    part = slice(rank, None, world)
    return sample[part]


def merge_across_processes(
    statistics: ActivationStatistics, group: dist.ProcessGroup | None = None
) -> ActivationStatistics:
    """The statistics of all processes' parts together; every process gets them.

    Everything in them is a sum, so merging is adding: counts and histograms are the same as one
    process's, other sums up to rounding. Without an initialised process group nothing is done.

    ``statistics``: of this process's part. All processes must have watched the same network for the
    same things.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return statistics
    layers = {}
    for name, found in statistics.layers.items():
        merged: dict[str, Any] = {
            field.name: _summed(getattr(found, field.name), group)
            for field in fields(found)
            if field.name != "exact"
        }
        merged["exact"] = _joined(found.exact, group)
        layers[name] = LayerStatistics(**merged)
    return replace(statistics, layers=layers)


def _joined(exact: Exact | None, group: dist.ProcessGroup | None) -> Exact | None:
    """The observations of all processes."""
    if exact is None:
        return None
    parts: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(parts, exact, group=group)
    found: Exact = parts[0]
    for part in parts[1:]:
        found = found + part
    return found


def _summed(tensor: Tensor | None, group: dist.ProcessGroup | None) -> Tensor | None:
    if tensor is None:
        return None
    on_gpu = dist.get_backend(group) == "nccl"  # which takes nothing else
    total = tensor.to("cuda") if on_gpu else tensor.contiguous().clone()
    dist.all_reduce(total, group=group)
    return total.to(tensor.device)


_logger = logging.getLogger(__name__)
T = TypeVar("T")

Collect = Callable[..., ActivationStatistics]


class Team:
    """The processes of a group; each makes one, and all use it alike.

    As a context it ends well where its process does not get as far as :meth:`watch`: the others
    are told.

    Args:
        group: an initialised group; by default all processes.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)
        self._told = 0
        self._alone = False
        self.broken = False
        """Whether a process is gone, or this one was interrupted while it waited for others."""

    def watch(
        self, network: Network, sample: Sample, collect: Collect, before: Collect | None = None
    ) -> ActivationStatistics | None:
        """Statistics of the whole sample; each process watches its share of it.

        Args:
            network: the same for all.
            sample: the same for all; where it is not, or one process has none, the first watches
                its own alone.
            collect: gives the statistics of a part of the sample.
            before: gives what ``collect`` needs to know of the whole sample, as its ``known``.

        Returns:
            the statistics; for other processes than the first ``None`` where they were not needed.
        """
        found = self._tell(_digest(network, sample))
        # A process without a row would have nothing to add.
        self._alone = None in found or len(set(found)) > 1 or len(sample) < self.size
        merged: ActivationStatistics | None = None
        for step in [collect] if before is None else [before, collect]:
            part: ActivationStatistics | None = None
            if not self._alone:
                share = share_of(sample, self.rank, self.size)
                try:
                    part = step(share) if merged is None else step(share, known=merged)
                finally:
                    self._alone = None in self._tell(None if part is None else "watched")
            merged = None
            if not self._alone and part is not None:
                merged = self._merged(part)
        if merged is not None:
            return merged
        return collect(sample) if self.rank == 0 else None

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *error: object) -> None:
        if self._told == 0:
            self._tell(None)

    def _tell(self, word: str | None) -> list[Any]:
        """What every process has to say at this point."""
        self._told += 1
        words: list[Any] = [None] * self.size
        self._together(lambda: dist.all_gather_object(words, word, group=self.group))
        return [None] * self.size if self.broken else words

    def _merged(self, part: ActivationStatistics) -> ActivationStatistics | None:
        """The statistics of all; ``None``, and alone from here on, where one is gone."""
        found = self._together(lambda: merge_across_processes(part, self.group))
        self._alone = self._alone or found is None
        return found

    def _together(self, work: Callable[[], T]) -> T | None:
        """What all processes do at once; ``None`` where one of them is gone."""
        if self.broken:
            return None
        self.broken = True
        try:
            found = work()
        except RuntimeError as error:  # what process groups raise where a process has died
            _logger.warning("Another process is gone, the first goes on alone: %s", error)
            return None
        self.broken = False
        return found


def _digest(network: Network, sample: Sample) -> str:
    """Of everything that statistics depend on."""
    positives, negatives = sample.sides
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors.update(values=sample.rows.values, positives=positives, negatives=negatives)
    if sample.rows.lengths is not None:
        tensors["lengths"] = sample.rows.lengths
    return digest_tensors(tensors, network.config.to_dict())
