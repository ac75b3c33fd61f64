"""A decomposition that fails, and how it is repeated."""

import warnings

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn

from lightning_callbacks import ModuleDecomposition
from tests.callbacks import models
from tests.callbacks.training import Data, equal, fit, make_trainer, states


def test_a_failed_decomposition_is_a_warning(calls):
    calls.error = ArithmeticError("no units left")
    callback = ModuleDecomposition(models.LABELS)
    with pytest.warns(UserWarning, match="no units left") as caught:
        trainer, _ = fit(callback)
    (message,) = [str(w.message) for w in caught if "no units left" in str(w.message)]
    assert "the training itself is not affected" in message
    assert "decompose_checkpoint(None, model, train, val)" in message
    assert trainer.state.finished
    assert callback.decomposition is None and callback.logged is None


def test_strict_raises_it(calls):
    calls.error = ArithmeticError("no units left")
    with pytest.raises(ArithmeticError, match="no units left"):
        fit(ModuleDecomposition(models.LABELS, strict=True))


def test_a_failure_to_log_leaves_the_decomposition(calls):
    calls.log_error = ConnectionError("server is away")
    callback = ModuleDecomposition(models.LABELS)
    with pytest.warns(UserWarning, match="server is away"):
        fit(callback)
    assert callback.decomposition is not None and callback.logged is None


def test_random_state_is_restored_after_a_failure(calls):
    calls.error = ArithmeticError("no")

    def after(*callbacks):
        pl.seed_everything(2)
        model, trainer = models.Classifier(), make_trainer(*callbacks)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(model, *models.loaders())
        return torch.rand(2)

    assert torch.equal(after(), after(ModuleDecomposition(models.LABELS)))


def test_a_network_that_changed_its_structure_is_a_warning(calls):
    class Changing(models.Classifier):
        def on_train_end(self):
            self.forward = lambda x: 2 * models.Classifier.forward(self, x)
            self.recurrent = nn.LSTM(5, 8, batch_first=True)

    with pytest.warns(UserWarning, match="ModuleDecomposition could not take Changing apart"):
        fit(ModuleDecomposition(models.LABELS), Changing())
    assert not calls.decompose


def test_a_warning_names_the_checkpoint_to_repeat_from(calls, tmp_path):
    calls.error = ArithmeticError("no")
    checkpoint = ModelCheckpoint(tmp_path, filename="best", monitor="val_loss")
    with pytest.warns(UserWarning, match=r"decompose_checkpoint\('.*best.ckpt', model, datamodule"):
        callback = ModuleDecomposition(models.LABELS, weights="best")
        fit(callback, None, (Data(),), checkpoint)


def test_decompose_checkpoint_does_the_same_work_later(calls, tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, filename="last", save_last=True)
    first = ModuleDecomposition(models.LABELS, seed=1)
    _, model = fit(first, None, None, checkpoint)
    fresh = models.Classifier().train()
    before = states(fresh)
    later = ModuleDecomposition(models.LABELS, seed=1)
    found = later.decompose_checkpoint(checkpoint.best_model_path, fresh, *models.loaders())
    one, other = calls.decompose
    assert one.parent.digest == other.parent.digest
    assert torch.equal(one.train.values, other.train.values)
    assert torch.equal(one.validation.values, other.validation.values)
    assert later.decomposition is found
    assert later.logged is not None
    assert equal(states(fresh), before) and fresh.training and fresh.recurrent.training


@pytest.mark.parametrize("positional", [True, False])
def test_decompose_checkpoint_with_a_datamodule_and_the_models_own_weights(calls, positional):
    model, data = models.Classifier(), Data()
    callback = ModuleDecomposition(report_data="test")
    given = {"train_dataloaders": data} if positional else {"datamodule": data}
    callback.decompose_checkpoint(None, model, **given)
    (call,) = calls.decompose
    assert torch.equal(call.parent.network.output.weight, model.head.weight)
    assert [len(call.train), len(call.validation), len(call.report)] == [96, 32, 11]
    assert data.stages == ["fit", "test"]


def test_decompose_checkpoint_raises_what_is_wrong(calls, tmp_path):
    callback, model = ModuleDecomposition(models.LABELS), models.Classifier()
    with pytest.raises(MisconfigurationException, match="train_dataloaders=None"):
        callback.decompose_checkpoint(None, model)
    with pytest.raises(MisconfigurationException, match="expected one"):
        callback.decompose_checkpoint(None, model, models.token_loader(), datamodule=Data())
    with pytest.raises(ValueError, match="nowhere.ckpt can't be read"):
        callback.decompose_checkpoint(tmp_path / "nowhere.ckpt", model, models.token_loader())
    path = tmp_path / "other.ckpt"
    torch.save({"state_dict": models.Classifier(nn.LSTM).state_dict()}, path)
    with pytest.raises(ValueError, match=r"other.ckpt does not fit the model: [^$]*size mismatch"):
        callback.decompose_checkpoint(path, model, models.token_loader())
    torch.save({"epoch": 3}, path)
    with pytest.raises(ValueError, match="does not fit the model|holds no weights"):
        callback.decompose_checkpoint(path, model, models.token_loader())
    torch.save({"state_dict": model.state_dict(), "trap": Unpickled()}, path)
    with pytest.raises(ValueError, match="can't be read"):
        callback.decompose_checkpoint(path, model, models.token_loader())
    assert not calls.decompose


class Unpickled:
    def __reduce__(self):
        return (pytest.fail, ("code from a checkpoint was run",))
