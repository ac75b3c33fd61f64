"""Which MLflow run modules go to, which of them, and what it is told of their data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from mlflow_rnnmod.decomposition import Decomposition, Module


@dataclass(frozen=True)
class Destination:
    """A run, and the server it is on; ``None`` leaves both to MLflow's own rules."""

    run_id: str | None = None
    tracking_uri: str | None = None


def find_destination(loggers: Sequence[Any] = ()) -> Destination:
    """The run of an ``MLFlowLogger`` among ``loggers``, else the active run, else a new one.

    The logger is known by its name, as it may be of either Lightning namespace. It has no active
    run but one of its own, so modules must be told its id and server.
    """
    for logger in loggers:
        if any(kind.__name__ == "MLFlowLogger" for kind in type(logger).__mro__):
            run_id = logger.run_id
            if run_id is not None:
                return Destination(run_id, logger._tracking_uri)
    import mlflow

    active = mlflow.active_run()
    if active is not None:
        return Destination(active.info.run_id, mlflow.get_tracking_uri())
    return Destination()


def figures_dataset(rows: Any, name: str) -> Any:
    """The rows that figures come from as an MLflow dataset, which groups figures in its pages.

    Args:
        rows: with targets, or sentences, of which the sources are shown.
        name: what to call them.
    """
    import mlflow.data

    rows = getattr(rows, "sources", rows)
    targets = None if rows.targets is None else rows.targets.cpu().numpy()
    return mlflow.data.from_numpy(rows.values.cpu().numpy(), targets=targets, name=name)  # type: ignore[attr-defined]


def only(decomposition: Decomposition, modules: Sequence[Module]) -> Decomposition:
    """A decomposition with some of its modules; figures stay those of the whole.

    Raises:
        ValueError: if one of them is none of its modules.
    """
    position = {id(module): index for index, module in enumerate(decomposition.modules)}
    strangers = [module for module in modules if id(module) not in position]
    if strangers:
        raise ValueError(
            f"modules_to_log returned {strangers[0]!r}, which is none of the decomposition's "
            "modules; expected some of decomposition.modules."
        )
    kept = torch.tensor([position[id(module)] for module in modules])
    overlap = decomposition.overlap[kept][:, kept]
    return replace(decomposition, modules=tuple(modules), overlap=overlap)
