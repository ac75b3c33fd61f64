"""When the callback does what, with stand-ins for the decomposition and for MLflow."""

import logging
import warnings
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, StochasticWeightAveraging
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn

from lightning_callbacks import ModuleDecomposition, module_decomposition
from mlflow_rnnmod.decomposition import DecompositionConfig
from mlflow_rnnmod.network import Rows
from mlflow_rnnmod.network.spec import NetworkSpec
from tests.builders import character_encoder, tiny_decomposition
from tests.callbacks import models


@pytest.fixture
def calls(monkeypatch):
    """Stand-ins for the slow parts; what they were given."""
    seen = SimpleNamespace(decompose=[], log=[], error=None, log_error=None)

    def decompose(parent, train, validation, report, config, progress):
        seen.decompose.append(SimpleNamespace(**locals()))
        torch.rand(5)
        if seen.error is not None:
            raise seen.error
        progress("watching", 1, 2)
        progress("watching", 2, 2)
        return tiny_decomposition(parent, config=config)

    def log_decomposition(decomposition, **options):
        if seen.log_error is not None:
            raise seen.log_error
        seen.log.append(SimpleNamespace(decomposition=decomposition, **options))
        return SimpleNamespace(parent_model_id="m-1")

    monkeypatch.setattr(module_decomposition, "decompose", decompose)
    monkeypatch.setattr(module_decomposition, "log_decomposition", log_decomposition)
    return seen


def make_trainer(*callbacks, **options):
    options = {
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        **options,
    }
    return pl.Trainer(callbacks=list(callbacks), **options)


def fit(callback, model=None, data=None, *others, **options):
    model = models.Classifier() if model is None else model
    data = models.loaders() if data is None else data
    trainer = make_trainer(callback, *others, **options)
    trainer.fit(model, *data)
    return trainer, model


def states(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# ------------------------------------------------------------------ what comes out of a training


def test_the_network_of_the_end_of_the_training_is_decomposed(calls):
    callback = ModuleDecomposition(models.LABELS, rule="paper", removal=0.2, seed=3)
    _, model = fit(callback)
    (call,) = calls.decompose
    x, _, y = models.token_data()
    network = call.parent.network
    assert network.labels == tuple(models.LABELS)
    torch.testing.assert_close(network(Rows(x)), model.eval()(x))
    assert call.config == DecompositionConfig(rule="paper", removal=0.2, seed=3)
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


class Data(pl.LightningDataModule):
    labels = ("a", "b", "c")

    def setup(self, stage):
        self.stages = [*getattr(self, "stages", []), stage]

    def train_dataloader(self):
        return models.token_loader()

    def val_dataloader(self):
        return models.token_loader(32, 1, False)

    def test_dataloader(self):
        return models.token_loader(11, 2, False)


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


# ------------------------------------------------------------------------- batches of all kinds


def lengths_loader(**options):
    return models.collated(torch.utils.data.default_collate, **options)


KINDS = {
    "lengths": (models.WithLengths, lengths_loader, {}),
    "left padding and masks": (models.WithMask, models.masked_left, {}),
    "batches of one": (models.WithLengths, lambda: lengths_loader(rows=24, size=1), {}),
    "features": (
        models.Features,
        lambda: torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(*models.feature_data()), 16
        ),
        {},
    ),
    "time first": (
        models.TimeFirst,
        lambda: models.collated(
            lambda items: (
                torch.stack([x for x, _, _ in items], dim=1),
                torch.stack([y for _, _, y in items]),
            ),
            size=10,
        ),
        {},
    ),
    "the whole batch, unknown keys": (
        models.TakesBatch,
        lambda: models.collated(
            lambda items: {
                "ids": torch.stack([x for x, _, _ in items]),
                "class": torch.stack([y for _, _, y in items]),
            }
        ),
        {"split_batch": lambda batch: (batch["ids"], batch["class"])},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_all_kinds(calls, kind):
    model, loader, options = KINDS[kind]
    _, model = fit(ModuleDecomposition(models.LABELS, **options), model(), (loader(),))
    (call,) = calls.decompose
    batch = next(iter(loader()))
    with torch.no_grad():
        if kind in ("lengths", "batches of one"):
            theirs = model.eval()(batch[0], batch[1])
            rows = Rows(batch[0], batch[1])
        elif kind == "left padding and masks":
            theirs = model.eval()(batch["input_ids"], batch["attention_mask"])["logits"]
            rows = Rows(batch["input_ids"], batch["attention_mask"].sum(1))
        elif kind == "the whole batch, unknown keys":
            theirs, rows = model.eval()(batch), Rows(batch["ids"])
        elif kind == "time first":
            theirs, rows = model.eval()(batch[0]), Rows(batch[0].T)
        else:
            theirs, rows = model.eval()(batch[0]), Rows(batch[0])
        torch.testing.assert_close(call.parent.network(rows), theirs)
    assert len(call.train) == len(loader().dataset)


def test_one_output_for_two_labels(calls):
    x, _, y = models.token_data()
    data = torch.utils.data.TensorDataset(x, (y > 0).float())
    _, model = fit(
        ModuleDecomposition(["no", "yes"]),
        models.Single(),
        (torch.utils.data.DataLoader(data, 16, shuffle=True),),
    )
    logits = calls.decompose[0].parent.network(Rows(x))
    torch.testing.assert_close(logits[:, 1:] - logits[:, :1], model.eval()(x))


def test_what_was_noticed_when_reading_is_said_before_the_training():
    class Unmasked(models.Classifier):
        def forward(self, x):
            return self.head(self.recurrent(self.embedding(x))[0][:, -1])

    callback, model = ModuleDecomposition(models.LABELS), Unmasked()
    with pytest.warns(UserWarning, match="reads its padding"):
        fit(callback, model, fast_dev_run=True)


def test_double_precision(calls):
    data = torch.utils.data.TensorDataset(*models.feature_data())
    loader = torch.utils.data.DataLoader(data, 16)
    callback = ModuleDecomposition(models.LABELS)
    fit(callback, models.Features(), (loader,), precision="64-true")
    assert calls.decompose[0].parent.network.dtype == torch.float64


def test_a_model_that_can_not_be_copied_any_more_after_training(calls):
    class Remembering(models.Classifier):
        def training_step(self, batch, batch_idx):
            self.last = super().training_step(batch, batch_idx)
            return self.last

    _, model = fit(ModuleDecomposition(models.LABELS), Remembering())
    assert torch.equal(calls.decompose[0].parent.network.output.weight, model.head.weight)


# --------------------------------------------------------------------- before the first step


class Untrained(models.Classifier):
    """Fails where it is trained at all."""

    def training_step(self, batch, batch_idx):
        raise AssertionError("a step was made")


ARGUMENTS = {
    "labels='low'": {"labels": "low"},
    "labels=['a']": {"labels": ["a"]},
    "['b'] more than once": {"labels": ["a", "b", "b"]},
    "labels holds 1, a int": {"labels": ["a", 1, "b"]},
    "tokenizer is a function": {"tokenizer": lambda text: text},
    "tokenizer: [Errno 2]": {"tokenizer": "nowhere.json"},
    "split_batch=3, expected a function": {"split_batch": 3},
    "forward='x', expected a function": {"forward": "x"},
    "readout='middle'": {"network_spec": {"readout": "middle"}},
    "network_spec=5": {"network_spec": 5},
    "weights='first', expected 'last' or 'best'": {"weights": "first"},
    "rule='magic'": {"rule": "magic"},
    "removal=2": {"config": {"removal": 2}},
    "unexpected keyword argument 'colour'": {"colour": "red"},
    "expected the settings in one or the other": {"config": DecompositionConfig(), "seed": 1},
    "report_data=3": {"report_data": 3},
    "report_data='tset'": {"report_data": "tset"},
    "registered_model_prefix='a/b'": {"registered_model_prefix": "a/b"},
    "registered_model_prefix=' '": {"registered_model_prefix": " "},
    "max_rows=0": {"max_rows": 0},
}


@pytest.mark.parametrize("words", ARGUMENTS)
def test_arguments_are_checked_in_setup(words):
    callback = ModuleDecomposition(**{"labels": models.LABELS, **ARGUMENTS[words]})
    trainer = make_trainer(callback)
    with pytest.raises(MisconfigurationException) as caught:
        callback.setup(trainer, models.Classifier(), "fit")
    assert words in str(caught.value)


def test_all_wrong_arguments_are_named_at_once():
    callback = ModuleDecomposition("low", weights="first", max_rows=-1, rule="magic")
    with pytest.raises(MisconfigurationException) as caught:
        fit(callback, Untrained())
    for words in ("labels='low'", "weights='first'", "max_rows=-1", "rule='magic'"):
        assert words in str(caught.value)


def test_other_stages_than_fit_are_none_of_its_business():
    callback = ModuleDecomposition("nonsense")
    callback.setup(make_trainer(callback), models.Classifier(), "validate")


@pytest.mark.parametrize(
    "checkpoint, words",
    [(None, "with none as checkpoint callback"), (ModelCheckpoint(), "one with monitor=None")],
)
def test_best_weights_need_a_checkpoint_that_knows_the_best(checkpoint, words):
    callback = ModuleDecomposition(models.LABELS, weights="best")
    others = [checkpoint] if checkpoint else []
    with pytest.raises(MisconfigurationException, match=words):
        fit(callback, Untrained(), None, *others)


def test_a_model_without_a_recurrent_layer():
    model = Untrained()
    model.recurrent = nn.Linear(5, 8)
    callback = ModuleDecomposition(models.LABELS)
    with pytest.raises(MisconfigurationException, match="no recurrent layer"):
        callback.setup(make_trainer(callback), model, "fit")


def test_two_recurrent_layers_are_an_error_in_setup_and_the_spec_tells_them_apart(calls):
    callback = ModuleDecomposition(models.LABELS)
    with pytest.raises(MisconfigurationException, match="2 submodules could be the recurrent"):
        callback.setup(make_trainer(callback), models.TwoRecurrent(), "fit")
    for spec in (NetworkSpec(recurrent="recurrent"), {"recurrent": "recurrent"}):
        fit(ModuleDecomposition(models.LABELS, network_spec=spec), models.TwoRecurrent())
    assert len(calls.decompose) == 2


@pytest.mark.parametrize("labels", [["a", "b"], ["a", "b", "c", "d"]])
def test_labels_that_do_not_match_the_head(labels):
    with pytest.raises(MisconfigurationException, match="labels don't match the head") as caught:
        fit(ModuleDecomposition(labels), Untrained())
    assert f"labels has {len(labels)} names" in str(caught.value)
    assert "3 outputs" in str(caught.value)


def test_layers_that_are_made_late_are_checked_before_the_first_step(calls):
    class Late(models.Trained, pl.LightningModule):
        forward = models.Classifier.forward

        def configure_model(self):
            if not hasattr(self, "head"):
                models.layers(self)

    fit(ModuleDecomposition(models.LABELS), Late())
    assert calls.decompose


def test_a_network_that_is_not_reproduced():
    class Wrong(models.Attentive, Untrained):
        pass

    callback = ModuleDecomposition(models.LABELS, network_spec=NetworkSpec(hidden=(), head="head"))
    with pytest.raises(MisconfigurationException) as caught:
        fit(callback, Wrong())
    assert "attention" in str(caught.value)


@pytest.mark.parametrize(
    "collate, words",
    [
        (lambda items: [text for text, _, _ in items], "split_batch"),
        (lambda items: (torch.stack([x for x, _, _ in items]),) * 2, "one label index"),
        (
            lambda items: (
                torch.stack([x for x, _, _ in items]),
                torch.stack([y + 5 for _, _, y in items]),
            ),
            "expected the index of one of 3 labels",
        ),
    ],
)
def test_batches_that_do_not_fit(collate, words):
    with pytest.raises(MisconfigurationException, match=words):
        fit(ModuleDecomposition(models.LABELS), Untrained(), (models.collated(collate),))


def test_a_tokenizer_that_is_too_large_for_the_embedding():
    tokenizer = character_encoder().tokenizer  # more tokens than models.VOCABULARY
    with pytest.raises(MisconfigurationException, match="embedding 14 rows"):
        fit(ModuleDecomposition(models.LABELS, tokenizer), Untrained())


def test_sharded_strategies_are_refused():
    class FSDPStrategy:
        pass

    callback = ModuleDecomposition(models.LABELS)
    trainer = SimpleNamespace(
        strategy=FSDPStrategy(), datamodule=None, fast_dev_run=False, checkpoint_callback=None
    )
    with pytest.raises(Exception, match="strategy=FSDPStrategy"):
        callback.setup(trainer, models.Classifier(), "fit")


# ---------------------------------------------------------------------------- when it fails


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


# ------------------------------------------------------------------------------------- later


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


# ------------------------------------------------------------------------------- other modes


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
    fit(ModuleDecomposition(models.LABELS))
    assert "watching" not in "".join(capsys.readouterr())


def test_what_came_of_it_is_said(calls, caplog):
    with caplog.at_level(logging.INFO, logger="pytorch_lightning.utilities.rank_zero"):
        fit(ModuleDecomposition(models.LABELS))
    assert "3 modules" in caplog.text and "logged to MLflow" in caplog.text


# ------------------------------------------------------------------------------ overridable


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
