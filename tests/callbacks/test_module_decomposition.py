"""What the callback takes apart at the end of a training, and what else it does there."""

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, StochasticWeightAveraging
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn

from lightning_callbacks import ModuleDecomposition
from mlflow_rnnmod.decomposition import DecompositionConfig
from mlflow_rnnmod.networks import Rows
from tests.builders import character_encoder, tiny_decomposition
from tests.callbacks import models
from tests.callbacks.training import Data, equal, fit, make_trainer, states


def test_the_network_of_the_end_of_the_training_is_decomposed(calls):
    settings = {"rule": "paper", "removal": 0.2, "seed": 3, "trunks": "auto", "max_cost": 1.2}
    callback = ModuleDecomposition(models.LABELS, **settings)
    _, model = fit(callback)
    (call,) = calls.decompose
    x, _, y = models.token_data()
    network = call.parent.network
    assert network.labels == tuple(models.LABELS)
    torch.testing.assert_close(network(Rows(x)), model.eval()(x))
    assert call.config == DecompositionConfig(**settings)
    assert sorted(call.train.values.tolist()) == sorted(x.tolist())
    assert torch.bincount(call.train.targets).tolist() == torch.bincount(y).tolist()
    assert sorted(call.validation.values.tolist()) == sorted(models.token_data(64, 1)[0].tolist())
    assert call.report is None
    assert callback.decomposition.modules[0].label == "low"
    assert callback.logged.parent_model_id == "m-1"
    (logged,) = calls.log
    assert logged.registered_model_prefix is None
    assert logged.run_id is None


def test_the_training_is_the_same_bit_for_bit(calls):
    class Watching(pl.Callback):
        def on_fit_end(self, trainer, pl_module):
            self.mode = pl_module.training, pl_module.dropout.training

    def train(*callbacks):
        pl.seed_everything(5)
        model, watching = models.Classifier(nn.LSTM), Watching()
        loader = models.token_loader(num_workers=0, generator=torch.Generator().manual_seed(1))
        trainer = make_trainer(*callbacks, watching, max_epochs=3)
        trainer.fit(model, loader, models.token_loader(32, shuffle=False))
        return states(model), torch.rand(3), watching.mode

    plain, random, mode = train()
    watched, random_then, mode_then = train(ModuleDecomposition(models.LABELS))
    assert calls.decompose
    assert equal(plain, watched)
    assert torch.equal(random, random_then)
    assert mode == mode_then == (True, True)


def test_a_layer_that_was_frozen_in_evaluation_mode_stays_so(calls):
    class Frozen(models.Classifier):
        def on_train_start(self):
            self.seen = self.training, self.dropout.training

    model = Frozen()
    model.dropout.eval()
    fit(ModuleDecomposition(models.LABELS), model)
    assert model.seen == (True, False)


def test_best_weights_are_those_of_the_best_checkpoint(calls, tmp_path):
    class Worse(models.Classifier):
        """Unlearns in its last epoch."""

        def on_train_epoch_end(self):
            if self.current_epoch == 2:
                with torch.no_grad():
                    self.head.weight.zero_()

    checkpoint = ModelCheckpoint(tmp_path, monitor="val_loss", mode="min")
    callback = ModuleDecomposition(models.LABELS, weights="best")
    _, model = fit(callback, Worse(), None, checkpoint, max_epochs=3)
    saved = torch.load(checkpoint.best_model_path, weights_only=True)["state_dict"]
    used = calls.decompose[0].parent.network
    assert torch.equal(used.output.weight, saved["head.weight"])
    assert torch.count_nonzero(model.head.weight) == 0  # the live model is left alone


def test_last_weights_are_the_averaged_ones_after_weight_averaging(calls):
    class LastStep(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            self.weight = pl_module.head.weight.detach().clone()

    # Listed before the averaging, whose own hook changes the weights after the last step.
    callback, last = ModuleDecomposition(models.LABELS), LastStep()
    averaging = StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=1)
    _, model = fit(callback, None, None, last, averaging, max_epochs=4)
    used = calls.decompose[0].parent.network.output.weight
    assert torch.equal(used, model.head.weight)
    assert not torch.equal(used, last.weight)


def test_without_validation_data(calls):
    fit(ModuleDecomposition(models.LABELS), data=(models.token_loader(),))
    assert calls.decompose[0].validation is None


def test_several_validation_loaders_are_read_as_one(calls):
    several = [models.token_loader(10, 1, False), models.token_loader(7, 2, False)]
    model = models.Classifier()
    model.validation_step = lambda batch, batch_idx, dataloader_idx=0: None
    fit(ModuleDecomposition(models.LABELS), model, (models.token_loader(), several))
    assert len(calls.decompose[0].validation) == 17


@pytest.mark.parametrize("as_rows", [True, False])
def test_report_data(calls, as_rows):
    x, _, y = models.token_data(9, 4)
    report = Rows(x, None, y) if as_rows else models.token_loader(9, 4, False)
    fit(ModuleDecomposition(models.LABELS, report_data=report))
    assert sorted(calls.decompose[0].report.values.tolist()) == sorted(x.tolist())


def test_a_datamodule_knows_labels_and_test_data(calls):
    fit(ModuleDecomposition(report_data="test"), data=(Data(),))
    (call,) = calls.decompose
    assert call.parent.labels == ("a", "b", "c")
    assert len(call.report) == 11


def test_labels_of_the_model_else_numbers(calls):
    model = models.Classifier()
    fit(ModuleDecomposition(), model)
    model.class_names = ["x", "y", "z"]
    fit(ModuleDecomposition(), model)
    fit(ModuleDecomposition(models.LABELS), model)
    found = [call.parent.labels for call in calls.decompose]
    assert found == [("0", "1", "2"), ("x", "y", "z"), tuple(models.LABELS)]


def test_max_rows(calls):
    fit(ModuleDecomposition(models.LABELS, max_rows=20))
    assert len(calls.decompose[0].train) == len(calls.decompose[0].validation) == 20


def test_a_tokenizer_makes_modules_that_read_text(calls, tmp_path):
    encoder = character_encoder()
    path = tmp_path / "tokenizer.json"
    path.write_text(encoder.json, encoding="utf-8")
    for tokenizer in (encoder.tokenizer, encoder.json, str(path), path):
        model = models.Classifier()
        model.embedding = nn.Embedding(encoder.tokenizer.get_vocab_size(), 5, padding_idx=0)
        fit(ModuleDecomposition(models.LABELS, tokenizer), model)
        parent = calls.decompose[-1].parent
        assert parent.input_kind == "text"
        assert parent.tokenizer.digest == encoder.digest
        assert (parent.tokenizer.pad_index, parent.tokenizer.side) == (0, "right")


def test_fast_dev_run_checks_and_does_no_more(calls):
    callback = ModuleDecomposition(models.LABELS)
    fit(callback, fast_dev_run=True)
    assert not calls.decompose and not calls.log
    with pytest.raises(MisconfigurationException, match="don't match the head"):
        fit(ModuleDecomposition(["a", "b"]), fast_dev_run=True)


def test_a_training_that_was_over_when_it_was_resumed(calls, tmp_path):
    checkpoint = ModelCheckpoint(tmp_path)
    _, model = fit(ModuleDecomposition(models.LABELS), None, None, checkpoint)
    again, other = ModuleDecomposition(models.LABELS), models.Classifier()
    trainer = make_trainer(again)
    trainer.fit(other, *models.loaders(), ckpt_path=checkpoint.best_model_path)
    assert [call.parent.digest for call in calls.decompose] == [
        calls.decompose[0].parent.digest
    ] * 2


def test_only_rank_zero_works_and_all_wait(calls, monkeypatch):
    waited = []
    callback = ModuleDecomposition(models.LABELS)
    trainer = make_trainer(callback)
    monkeypatch.setattr(trainer.strategy, "barrier", lambda name=None: waited.append(name))
    monkeypatch.setattr(type(trainer), "is_global_zero", False)
    trainer.fit(models.Classifier(), *models.loaders())
    assert not calls.decompose
    assert "ModuleDecomposition.on_fit_end" in waited


def test_others_do_not_wait_forever_for_a_strict_rank_zero(calls, monkeypatch):
    calls.error = ArithmeticError("no")
    waited = []
    trainer = make_trainer(ModuleDecomposition(models.LABELS, strict=True))
    monkeypatch.setattr(trainer.strategy, "barrier", lambda name=None: waited.append(name))
    with pytest.raises(ArithmeticError):
        trainer.fit(models.Classifier(), *models.loaders())
    assert "ModuleDecomposition.on_fit_end" in waited


def test_progress_is_shown_as_the_trainer_shows_its_own(calls, capsys):
    for bar in (pl.callbacks.TQDMProgressBar(), pl.callbacks.RichProgressBar()):
        fit(ModuleDecomposition(models.LABELS), None, None, bar, enable_progress_bar=True)
        shown = "".join(capsys.readouterr())
        assert "watching" in shown and "2/2" in shown
        assert "100%" in shown
    fit(ModuleDecomposition(models.LABELS))
    assert "watching" not in "".join(capsys.readouterr())


def test_what_came_of_it_is_said(calls, monkeypatch):
    # Lightning's two namespaces share one logger, which is that of whichever was imported last.
    said = []
    monkeypatch.setattr("lightning_callbacks.module_decomposition.rank_zero_info", said.append)
    fit(ModuleDecomposition(models.LABELS))
    assert "3 modules" in said[-1] and "logged to MLflow" in said[-1]


def test_modules_to_log_and_on_modules_ready(calls):
    class Choosy(ModuleDecomposition):
        def modules_to_log(self, decomposition):
            return [decomposition.modules[2], decomposition.modules[0]]

        def on_modules_ready(self, modules):
            self.ready = [module.label for module in modules], self.logged

    callback = Choosy(models.LABELS)
    fit(callback)
    logged = calls.log[0].decomposition
    assert [module.label for module in logged.modules] == ["high", "low"]
    whole = callback.decomposition.overlap
    assert torch.equal(logged.overlap, whole[[2, 0]][:, [2, 0]])
    assert callback.ready == (["high", "low"], callback.logged)
    assert len(callback.decomposition.modules) == 3


def test_nothing_is_logged_for_an_empty_list(calls):
    class Silent(ModuleDecomposition):
        def modules_to_log(self, decomposition):
            return []

    callback = Silent(models.LABELS)
    fit(callback)
    assert not calls.log and callback.logged is None
    assert callback.decomposition is not None


def test_a_stranger_among_the_modules_is_a_warning(calls):
    class Confused(ModuleDecomposition):
        def modules_to_log(self, decomposition):
            return tiny_decomposition(decomposition.parent).modules

    with pytest.warns(UserWarning, match="none of the decomposition's modules"):
        fit(Confused(models.LABELS))


def test_state_keys_tell_two_callbacks_apart(calls):
    one, other = (ModuleDecomposition(models.LABELS, removal=share) for share in (0.1, 0.2))
    assert one.state_key != other.state_key
    assert one.state_key == ModuleDecomposition(models.LABELS, removal=0.1).state_key
    make_trainer(one, other).fit(models.Classifier(), *models.loaders())
    assert [call.config.removal for call in calls.decompose] == [0.1, 0.2]
