"""A real training, decomposition and MLflow store."""

import mlflow
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from mlflow import MlflowClient
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import MLFlowLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import mlflow_rnnmod
from lightning_callbacks import ModuleDecomposition, decomposer
from mlflow_rnnmod.composition import compose
from tests.builders import ODD_LABELS, character_encoder
from tests.callbacks import models

QUICK = {"removal": 0.25, "max_rows": 60}


@pytest.fixture
def logger(tracking_uri):
    return MLFlowLogger(experiment_name="trainings", tracking_uri=tracking_uri)


def fit(callback, logger=False, *others, model=None, data=None, **options):
    options = {
        "max_epochs": 1,
        "logger": logger,
        "enable_checkpointing": bool(others),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        **options,
    }
    model = models.Classifier() if model is None else model
    trainer = pl.Trainer(callbacks=[callback, *others], **options)
    trainer.fit(model, *(models.loaders() if data is None else data))
    return model


def logged_models(run_id):
    experiments = [run.info.experiment_id for run in runs() if run.info.run_id == run_id]
    found = mlflow.search_logged_models(experiment_ids=experiments, output_format="list")
    return [model for model in found if model.source_run_id == run_id]


def runs():
    found = mlflow.search_runs(search_all_experiments=True, output_format="list")
    return [run for run in found if "mlflow.parentRunId" not in run.data.tags]


def labels_of(run_id):
    found = [m for m in logged_models(run_id) if m.model_type == "rnnmod-module"]
    return sorted(model.params["label"] for model in found)


def test_the_modules_of_a_training_are_in_its_run(logger):
    callback = ModuleDecomposition(
        models.LABELS, registered_model_prefix="thirds", max_rows=60, strict=True
    )
    model = fit(callback, logger, max_epochs=3)
    (run,) = runs()
    assert run.info.run_id == logger.run_id == callback.logged.run_id
    assert run.info.status == "FINISHED"
    assert "val_loss" in run.data.metrics
    figures = callback.decomposition.figures
    for name in ("parent_accuracy", "composed_accuracy", "mean_jaccard"):
        assert run.data.metrics[f"rnnmod/{name}"] == pytest.approx(figures[name])
    found = logged_models(logger.run_id)
    kinds = sorted(model.model_type for model in found)
    assert kinds == ["rnnmod-module"] * 3 + ["rnnmod-parent"]
    assert {model.status.value for model in found} == {"READY"}
    assert labels_of(logger.run_id) == sorted(models.LABELS)
    assert {item.dataset.name for item in run.inputs.dataset_inputs} == {"validation"}

    names = {model.name for model in MlflowClient().search_registered_models()}
    assert names == {"thirds", "thirds.low", "thirds.middle", "thirds.high"}
    x, lengths, _ = models.token_data(6)
    ids = [row[:length].tolist() for row, length in zip(x, lengths, strict=True)]
    predict = mlflow.pyfunc.load_model("models:/thirds@champion").predict
    expected = [models.LABELS[i] for i in model.eval()(x).argmax(1)]
    assert list(predict(pd.DataFrame({"tokens": ids}))) == expected

    loaded = mlflow_rnnmod.compose([f"models:/thirds.{label}/1" for label in models.LABELS])
    assert loaded.predict(ids) == compose(callback.decomposition.modules).predict(ids)


def test_a_failed_decomposition_leaves_the_run_finished_and_can_be_repeated(
    logger, tmp_path, monkeypatch
):
    def failing(*args, **kwargs):
        raise ArithmeticError("no units left")

    checkpoint = ModelCheckpoint(tmp_path, filename="net", save_last=True)
    callback = ModuleDecomposition(models.LABELS, **QUICK)
    with monkeypatch.context() as patch:
        patch.setattr(decomposer, "decompose", failing)
        with pytest.warns(UserWarning, match="no units left"):
            model = fit(callback, logger, checkpoint)
    (run,) = runs()
    assert run.info.status == "FINISHED"
    assert labels_of(run.info.run_id) == []

    callback.decompose_checkpoint(tmp_path / "last.ckpt", models.Classifier(), *models.loaders())
    assert len(runs()) == 1
    assert MlflowClient().get_run(run.info.run_id).info.status == "FINISHED"
    assert labels_of(run.info.run_id) == sorted(models.LABELS)
    weight = callback.decomposition.parent.network.output.weight
    assert torch.equal(weight, model.head.weight)


def test_strict_marks_the_run_as_failed(logger, monkeypatch):
    def failing(*args, **kwargs):
        raise ArithmeticError("no units left")

    monkeypatch.setattr(decomposer, "decompose", failing)
    with pytest.raises(ArithmeticError):
        fit(ModuleDecomposition(models.LABELS, strict=True, **QUICK), logger)
    assert [run.info.status for run in runs()] == ["FAILED"]


def test_logging_that_breaks_off_leaves_nothing_and_works_the_next_time(logger, monkeypatch):
    finalize = MlflowClient.finalize_logged_model

    def failing(client, model_id, status):
        if status == "READY":
            raise ConnectionError("away")
        return finalize(client, model_id, status)

    callback = ModuleDecomposition(models.LABELS, **QUICK)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "finalize_logged_model", failing)
        with pytest.warns(UserWarning, match="away"):
            model = fit(callback, logger)
    assert [run.info.status for run in runs()] == ["FINISHED"]
    ready = [m for m in logged_models(logger.run_id) if m.status.value == "READY"]
    assert ready == []
    callback.decompose_checkpoint(None, model, *models.loaders())
    assert labels_of(logger.run_id) == sorted(models.LABELS)


def test_without_a_logger_the_active_run_is_used(tracking_uri):
    callback = ModuleDecomposition(models.LABELS, strict=True, **QUICK)
    with mlflow.start_run() as run:
        fit(callback)
        assert mlflow.active_run().info.run_id == run.info.run_id
    assert labels_of(run.info.run_id) == sorted(models.LABELS)
    assert len(runs()) == 1


def test_without_any_run_there_is_one_of_its_own(tracking_uri):
    callback = ModuleDecomposition(models.LABELS, strict=True, **QUICK)
    fit(callback)
    (run,) = runs()
    assert run.info.status == "FINISHED"
    assert callback.logged.run_id == run.info.run_id
    assert labels_of(run.info.run_id) == sorted(models.LABELS)


def test_a_logger_of_another_store_than_mlflows_current_one(logger, tmp_path):
    other = f"sqlite:///{tmp_path / 'mlflow.db'}"
    mlflow.set_tracking_uri("sqlite:///unused.db")
    fit(ModuleDecomposition(models.LABELS, strict=True, **QUICK), logger)
    mlflow.set_tracking_uri(other)
    assert labels_of(logger.run_id) == sorted(models.LABELS)
    assert not (tmp_path / "unused.db").exists()


def test_fast_dev_run_logs_nothing(logger):
    callback = ModuleDecomposition(models.LABELS, strict=True, **QUICK)
    fit(callback, logger, fast_dev_run=True)
    assert runs() == [] and callback.decomposition is None


def test_without_validation_data_there_is_a_warning(tracking_uri):
    callback = ModuleDecomposition(models.LABELS, strict=True, **QUICK)
    with pytest.warns(UserWarning, match="no validation rows"):
        fit(callback, data=(models.token_loader(),))
    assert "held out" in callback.decomposition.rows["figures"]


def test_labels_of_any_characters(tracking_uri):
    x, _, _ = models.token_data(100)
    y = torch.arange(100) % len(ODD_LABELS)
    loader = DataLoader(TensorDataset(x, y), 20)
    callback = ModuleDecomposition(
        list(ODD_LABELS), registered_model_prefix="odd", strict=True, removal=0.25, repairs="none"
    )
    fit(callback, model=models.Classifier(labels=len(ODD_LABELS)), data=(loader, loader))
    assert labels_of(callback.logged.run_id) == sorted(ODD_LABELS)
    assert len(set(callback.logged.registered_names.values())) == len(ODD_LABELS)


def test_text_goes_in_and_labels_come_out(tracking_uri):
    encoder = character_encoder()
    words = ["aab", "abba", "ba", "xyz", "zyx", "yy", "mnm", "nm", "mmn"] * 8
    rows = encoder(words)
    y = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2] * 8)
    loader = DataLoader(TensorDataset(rows.values, y), 24, shuffle=True)
    model = models.Classifier(nn.LSTM)
    model.embedding = nn.Embedding(encoder.tokenizer.get_vocab_size(), 5, padding_idx=0)
    callback = ModuleDecomposition(
        models.LABELS, encoder.tokenizer, registered_model_prefix="words", strict=True, removal=0.25
    )
    fit(callback, model=model, data=(loader, loader), max_epochs=25)
    predict = mlflow.pyfunc.load_model("models:/words/1").predict
    assert list(predict(pd.DataFrame({"text": ["ab", "yx", "mn"]}))) == models.LABELS
