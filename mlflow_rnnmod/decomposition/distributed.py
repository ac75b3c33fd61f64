"""Statistics across processes: each watches its share of the sample, and all get the sum."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from torch import Tensor
from torch import distributed as dist

from mlflow_rnnmod.answers import Sample
from mlflow_rnnmod.decomposition.exact import Exact
from mlflow_rnnmod.decomposition.statistics import ActivationStatistics, LayerStatistics


def share_of(sample: Sample, rank: int, world: int) -> Sample:
    """The part of a sample that one of ``world`` processes watches; the parts are disjoint.

    Raises:
        ValueError: if ``rank`` is not one of the processes.

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

    Args:
        statistics: of this process's part. All processes must have watched the same network for
            the same things.
        group: the processes; by default all.
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
