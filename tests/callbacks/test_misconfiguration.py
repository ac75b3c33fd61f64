"""What is wrong is told before the first step."""

from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from lightning_callbacks import ModuleDecomposition
from mlflow_rnnmod.decomposition import DecompositionConfig
from mlflow_rnnmod.networks.spec import NetworkSpec
from tests.builders import character_encoder
from tests.callbacks import models
from tests.callbacks.training import fit, make_trainer


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
    "tokenizer: there is no file 'bert-base-uncased'": {"tokenizer": "bert-base-uncased"},
    "expected the path of a tokenizer.json, a tokenizers.Tokenizer": {"tokenizer": "nowhere.json"},
    "Nothing is downloaded": {"target_tokenizer": "nowhere"},
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
    del model.recurrent, model.head
    callback = ModuleDecomposition(models.LABELS)
    with pytest.raises(MisconfigurationException, match="no recurrent layer"):
        callback.setup(make_trainer(callback), model, "fit")


def test_of_two_recurrent_layers_the_one_that_answers_is_read_and_the_spec_tells_it_too(calls):
    fit(ModuleDecomposition(models.LABELS), models.TwoRecurrent())
    assert calls.decompose.pop().parent.network.architecture == "graph"
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
