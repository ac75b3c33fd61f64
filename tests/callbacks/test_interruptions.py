"""A training that is finished stays so, whatever interrupts what comes after it."""

from __future__ import annotations

import signal
import warnings

import pytest
from mlflow import MlflowClient
from pytorch_lightning.loggers import MLFlowLogger
from pytorch_lightning.strategies import SingleDeviceStrategy

from lightning_callbacks import ModuleDecomposition
from mlflow_rnnmod.decomposition import DecompositionConfig
from tests.callbacks import models
from tests.callbacks.training import fit


class PanicException(BaseException):
    """As extensions in Rust raise them; see ``pyo3_runtime.PanicException``."""


ERRORS = [KeyboardInterrupt, SystemExit, PanicException, GeneratorExit]


@pytest.fixture
def logger(tracking_uri):
    return MLFlowLogger(experiment_name="interrupted", tracking_uri=tracking_uri)


@pytest.fixture(autouse=True)
def _own_handler():
    """Lightning ignores Ctrl-C from the moment on that it has left for one."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


def status_of(logger):
    return MlflowClient(logger._tracking_uri).get_run(logger.run_id).info.status


class Raising(ModuleDecomposition):
    """Raises in one of the hooks that users override."""

    def __init__(self, stage, error, **arguments):
        super().__init__(models.LABELS, **arguments)
        self.stage, self.error = stage, error

    def modules_to_log(self, decomposition):
        if self.stage == "choose":
            raise self.error
        return super().modules_to_log(decomposition)

    def on_modules_ready(self, modules):
        if self.stage == "ready":
            raise self.error


STAGES = ("decompose", "choose", "log", "ready", "barrier")


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("stage", STAGES)
def test_one_interruption_leaves_the_training_finished(calls, logger, stage, error, monkeypatch):
    raised = error()
    calls.error = raised if stage == "decompose" else None
    calls.log_error = raised if stage == "log" else None
    if stage == "barrier":
        gone = RuntimeError("Connection closed by peer")
        monkeypatch.setattr(SingleDeviceStrategy, "barrier", breaking_at_end(gone))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        callback = Raising(stage, raised)
        trainer, _ = fit(callback, logger=logger)
    assert trainer.state.finished
    assert status_of(logger) == "FINISHED"
    told = [str(w.message) for w in caught if "ModuleDecomposition" in str(w.message)]
    assert any("the training itself is not affected" in m or "is gone" in m for m in told), told


def breaking_at_end(error):
    def barrier(self, name=None, *args, **kwargs):
        if name and "on_fit_end" in name:
            raise error

    return barrier


def test_what_is_logged_is_not_said_to_be_missing(calls, logger):
    with pytest.warns(UserWarning, match="on_modules_ready failed. ArithmeticError") as caught:
        fit(Raising("ready", ArithmeticError("my own")), logger=logger)
    assert not [w for w in caught if "logged no modules" in str(w.message)]


def test_how_to_log_what_was_made_is_told(calls, logger):
    calls.log_error = ConnectionError("server is away")
    with pytest.warns(UserWarning, match=r"log_decomposition\(callback.decomposition, run_id="):
        fit(ModuleDecomposition(models.LABELS), logger=logger)


@pytest.mark.parametrize("strict", [False, True])
def test_ctrl_c_twice_leaves_and_the_run_is_finished(calls, logger, strict):
    again = KeyboardInterrupt()
    again.__context__ = KeyboardInterrupt()
    calls.error = again
    callback = ModuleDecomposition(models.LABELS, strict=strict)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(SystemExit):
            fit(callback, logger=logger)
    assert status_of(logger) == "FINISHED"


@pytest.mark.parametrize("error", ERRORS)
def test_an_interruption_is_raised_where_asked_and_the_run_is_finished(calls, logger, error):
    calls.error = error()
    callback = ModuleDecomposition(config=DecompositionConfig(), labels=models.LABELS, strict=True)
    with pytest.raises(SystemExit if error is KeyboardInterrupt else error):
        fit(callback, logger=logger)
    assert status_of(logger) == "FINISHED"
