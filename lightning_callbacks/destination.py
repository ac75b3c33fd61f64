"""Which MLflow run the modules of a training go to, and what it is told of their data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlflow_rnnmod.decomposition import Pairs
from mlflow_rnnmod.networks import Rows


@dataclass(frozen=True)
class Destination:
    """A run, and the server it is on; ``None`` leaves both to MLflow's own rules."""

    run_id: str | None = None
    tracking_uri: str | None = None


def find_destination(loggers: list[Any]) -> Destination:
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


def figures_dataset(rows: Rows | Pairs, name: str) -> Any:
    """The rows that figures come from as an MLflow dataset, which groups figures in its pages.

    Args:
        rows: with targets, or sentences, of which the sources are shown.
        name: what to call them.
    """
    import mlflow.data

    rows = rows.sources if isinstance(rows, Pairs) else rows
    targets = None if rows.targets is None else rows.targets.cpu().numpy()
    return mlflow.data.from_numpy(rows.values.cpu().numpy(), targets=targets, name=name)  # type: ignore[attr-defined]
