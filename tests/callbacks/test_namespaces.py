"""``lightning.pytorch`` and ``pytorch_lightning``: one callback for both."""

import importlib

import pytest
import pytorch_lightning
import torch
from torch import nn

from lightning_callbacks import ModuleDecomposition, _lightning
from lightning_callbacks.sources import is_overridden
from tests.callbacks import models
from tests.callbacks.training import run_python


@pytest.mark.slow
def test_a_training_with_lightning_alone(tracking_uri, tmp_path):
    done = run_python(
        """
        import sys
        import lightning as L
        import mlflow
        import torch
        from lightning.pytorch.loggers import MLFlowLogger
        from lightning.pytorch.utilities.exceptions import MisconfigurationException
        from lightning_callbacks import ModuleDecomposition

        assert issubclass(ModuleDecomposition, L.Callback)
        assert "pytorch_lightning" not in sys.modules

        class Net(L.LightningModule):
            def __init__(self):
                super().__init__()
                self.embedding = torch.nn.Embedding(9, 4, padding_idx=0)
                self.lstm = torch.nn.LSTM(4, 6, batch_first=True)
                self.head = torch.nn.Linear(6, 2)

            def forward(self, x):
                return self.head(self.lstm(self.embedding(x))[0].amax(1))

            def training_step(self, batch, batch_idx):
                return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), 0.1)

        torch.manual_seed(0)
        x, y = torch.randint(1, 9, (40, 5)), torch.arange(40) % 2
        x[::3, 3:] = 0
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 8)
        uri = "sqlite:///mlflow.db"
        logger = MLFlowLogger(experiment_name="there", tracking_uri=uri)

        def trainer(labels):
            callback = ModuleDecomposition(labels, removal=0.2, strict=True)
            return callback, L.Trainer(
                max_epochs=1, callbacks=[callback], logger=logger, accelerator="cpu",
                enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            )

        try:
            trainer(["a", "b", "c"])[1].fit(Net(), loader)
        except MisconfigurationException as error:
            assert "don't match the head" in str(error)
        else:
            raise AssertionError("not refused")
        logger = MLFlowLogger(experiment_name="there", tracking_uri=uri)
        callback, fitting = trainer(["a", "b"])
        fitting.fit(Net(), loader)
        assert callback.logged.run_id == logger.run_id
        print(mlflow.get_run(logger.run_id).info.status, sorted(callback.logged.uris))
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "FINISHED ['a', 'b']"


def test_a_trainer_of_the_other_namespace_in_the_same_process(monkeypatch):
    other = importlib.import_module("lightning.pytorch")
    from lightning_callbacks import decomposer
    from tests.builders import tiny_decomposition

    monkeypatch.setattr(
        decomposer, "decompose", lambda parent, *_, **__: tiny_decomposition(parent)
    )
    monkeypatch.setattr(decomposer, "log_decomposition", lambda *_, **__: "logged")
    for namespace in (other, pytorch_lightning):

        class Model(models.Trained, namespace.LightningModule):
            def __init__(self):
                super().__init__()
                models.layers(self, nn.LSTM)

            def forward(self, x):
                return self.head(self.recurrent(self.embedding(x))[0].mean(1))

        def make(labels, namespace=namespace):
            callback = ModuleDecomposition(labels, strict=True)
            return callback, namespace.Trainer(
                max_epochs=1,
                callbacks=[callback],
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                accelerator="cpu",
            )

        callback, trainer = make(models.LABELS)
        model = Model()
        trainer.fit(model, *models.loaders())
        assert callback.logged == "logged"
        parent = callback.decomposition.parent
        assert torch.equal(parent.network.output.weight, model.head.weight)
        expected = namespace.pytorch if hasattr(namespace, "pytorch") else namespace
        with pytest.raises(expected.utilities.exceptions.MisconfigurationException):
            make(["one", "two"])[1].fit(Model(), *models.loaders())


def test_the_namespace_in_use_comes_first(monkeypatch):
    loaded = {name: object() for name in _lightning.NAMESPACES}
    for name in _lightning.NAMESPACES:
        monkeypatch.setattr(_lightning.sys, "modules", {name: loaded[name]})
        assert _lightning.find_namespace() == name


@pytest.mark.parametrize(
    "installed, expected",
    [
        ({"lightning", "pytorch_lightning"}, "lightning.pytorch"),
        ({"lightning"}, "lightning.pytorch"),
        ({"pytorch_lightning"}, "pytorch_lightning"),
    ],
)
def test_else_the_one_that_is_installed(monkeypatch, installed, expected):
    find = lambda name: object() if name in installed else None  # noqa: E731
    monkeypatch.setattr(_lightning.importlib.util, "find_spec", find)
    with monkeypatch.context() as patch:
        patch.setattr(_lightning.sys, "modules", {})
        assert _lightning.find_namespace() == expected


def test_without_lightning_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(_lightning.importlib.util, "find_spec", lambda name: None)
    with monkeypatch.context() as patch:
        patch.setattr(_lightning.sys, "modules", {})
        with pytest.raises(ImportError, match="pip install pytorch-lightning"):
            _lightning.find_namespace()


def test_hooks_of_lightning_itself_are_not_the_users():
    class Own(models.Classifier):
        def on_before_batch_transfer(self, batch, dataloader_idx):
            return batch

    assert not is_overridden("on_before_batch_transfer", models.Classifier())
    assert is_overridden("on_before_batch_transfer", Own())
    assert not is_overridden("train_dataloader", models.Classifier())
    assert not is_overridden("anything", None)
