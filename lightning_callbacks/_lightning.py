"""All that is known of Lightning: its two names, and what a trainer is asked.

``lightning.pytorch`` and ``pytorch_lightning`` hold the same classes twice. A callback of either
works in both trainers, so one class is enough; but nothing here may ask ``isinstance`` against one
of them.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import distributed as dist

from mlflow_rnnmod.decomposition import Team
from mlflow_rnnmod.tracking.download import first_line

SHARDED = ("FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy")
NAMESPACES = ("lightning.pytorch", "pytorch_lightning")


def find_namespace() -> str:
    """The namespace to build on: the one the program already uses, else one that is installed."""
    for name in NAMESPACES:
        if sys.modules.get(name) is not None:
            return name
    for name in NAMESPACES:
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            return name
    raise ImportError(
        "lightning_callbacks needs Lightning, and neither `lightning` nor `pytorch_lightning` is "
        "installed. Install one of them: pip install pytorch-lightning"
    )


NAMESPACE = find_namespace()
Callback: Any = importlib.import_module(f"{NAMESPACE}.callbacks").Callback

_rank_zero = importlib.import_module(f"{NAMESPACE}.utilities.rank_zero")
rank_zero_info = _rank_zero.rank_zero_info


@_rank_zero.rank_zero_only
def rank_zero_warn(message: str) -> None:
    """A warning that is shown each time: the same may happen to the next training of a process."""
    warnings.warn_explicit(message, UserWarning, __file__, 1, registry={})


def misconfiguration(message: str, owner: Any = None) -> Exception:
    """A ``MisconfigurationException`` of the namespace that a trainer or model belongs to.

    The two namespaces may have one of their own each, and a user catches theirs.
    """
    roots = {kind.__module__.partition(".")[0] for kind in type(owner).__mro__}
    name = next((n for n in NAMESPACES if n.partition(".")[0] in roots), NAMESPACE)
    exceptions = importlib.import_module(f"{name}.utilities.exceptions")
    error: Exception = exceptions.MisconfigurationException(message)
    return error


def trainer_problems(trainer: Any, weights: str) -> list[str]:
    """What is wrong with a trainer, for the weights that are to be taken apart."""
    problems = []
    strategy = type(trainer.strategy).__name__
    if strategy in SHARDED:
        problems.append(
            f"strategy={strategy}; the model's weights are spread over devices, expected a "
            "strategy that keeps the model whole, such as ddp"
        )
    if weights == "best" and not trainer.fast_dev_run:
        checkpoint = trainer.checkpoint_callback
        if checkpoint is None or getattr(checkpoint, "monitor", "") is None:
            found = "none" if checkpoint is None else "one with monitor=None"
            problems.append(
                f"weights='best' with {found} as checkpoint callback; expected a ModelCheckpoint "
                "with monitor= and mode=, or weights='last'"
            )
    return problems


def checkpoint_of(trainer: Any, weights: str) -> str | None:
    """The checkpoint with the weights to take apart; ``None`` for those that the model has."""
    if weights != "best":
        return None
    checkpoint = getattr(trainer.checkpoint_callback, "best_model_path", None)
    if not checkpoint:
        raise ValueError("weights='best', but no checkpoint was saved.")
    return str(checkpoint)


def team_of(trainer: Any) -> Team | None:
    """The processes of a trainer, to work together; none where there is one only."""
    if trainer.world_size > 1 and dist.is_available() and dist.is_initialized():
        return Team()
    return None


def meet(trainer: Any, team: Team | None, name: str) -> None:
    """Wait for the other processes; not where one of them is known to be gone or elsewhere."""
    if team is not None and team.broken:
        return
    try:
        trainer.strategy.barrier(name)
    except RuntimeError as error:  # what process groups raise where a process has died
        rank_zero_warn(
            f"ModuleDecomposition: another process of the training is gone: {first_line(error)}"
        )


@contextmanager
def spared_by_observers() -> Iterator[None]:
    """Nobody kills this process meanwhile because another one of the training has died.

    Lightning's launcher does so, as a process may hang where it waits for a dead one; here nothing
    waits, and the training is over. Where one has died, it stays so.
    """
    observers = [t for t in threading.enumerate() if type(t).__name__ == "_ChildProcessObserver"]
    for observer in observers:
        vars(observer)["_run"] = lambda: False
    try:
        yield
    finally:
        for observer in observers:
            children = getattr(observer, "_child_processes", ())
            if all(child.poll() in (None, 0) for child in children):
                vars(observer).pop("_run", None)


def leave_finished(trainer: Any) -> None:
    """Tell a trainer's loggers that the training is finished, and nothing after that.

    The training is over and went well. Lightning would mark its run as failed for whatever is
    raised afterwards, a Ctrl-C included.
    """
    for logger in trainer.loggers:
        logger.finalize("success")
    trainer.loggers = []


def interruptions(error: BaseException) -> int:
    """How many times Ctrl-C was pressed, as far as an error tells."""
    count, seen = 0, error
    while seen is not None and count < 100:
        count += isinstance(seen, KeyboardInterrupt)
        seen = seen.__context__  # type: ignore[assignment]
    return count


def failure_message(
    error: BaseException,
    trainer: Any,
    model: Any,
    weights: str,
    made: bool = False,
    logged: Any = None,
) -> str:
    """What there is not, why, and how to get it later."""
    name = type(model).__name__
    told = "it was interrupted" if isinstance(error, KeyboardInterrupt) else ""
    told = told or f"{type(error).__name__}: {error}"
    if logged is not None:
        return (
            f"ModuleDecomposition has taken {name} apart and logged its modules (parent "
            f"{logged.parent_model_id}); the training itself is not affected. Afterwards "
            f"on_modules_ready failed. {told}"
        )
    checkpoint = getattr(trainer.checkpoint_callback, f"{weights}_model_path", "") or getattr(
        trainer.checkpoint_callback, "best_model_path", ""
    )
    where = repr(str(checkpoint)) if checkpoint else "None"
    data = "datamodule=datamodule" if trainer.datamodule is not None else "train, val"
    message = (
        f"ModuleDecomposition could not take {name} apart, and logged no modules; the training "
        f"itself is not affected. {told}\nTo repeat it: "
        f"callback.decompose_checkpoint({where}, model, {data})"
    )
    if made:
        message = (
            f"ModuleDecomposition has taken {name} apart, but logged no modules; the training "
            f"itself is not affected. {told}\nTo log them: mlflow_rnnmod.log_decomposition("
            "callback.decomposition, run_id=...). To repeat it all: "
            f"callback.decompose_checkpoint({where}, model, {data})"
        )
    return message
