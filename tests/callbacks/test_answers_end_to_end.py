"""Networks of each kind of answer: trained, decomposed, logged, composed, loaded and asked."""

import mlflow
import pandas as pd
import pytest
import torch

import mlflow_rnnmod
from lightning_callbacks import ModuleDecomposition
from mlflow_rnnmod.networks import Rows
from tests.callbacks import answers
from tests.callbacks.training import fit

KINDS = {
    "tags": (answers.Tagger, answers.tag_data, answers.LABELS, None),
    "multilabel": (answers.Several, answers.several_data, answers.LABELS, None),
    "list": (answers.Lister, answers.list_data, answers.LISTED, {"end_label": "end"}),
    "flat": (answers.AtOnce, answers.one_data, answers.LABELS, None),
}


def trained(kind, epochs=6, **settings):
    """A short training with the callback, whose modules are registered under ``kind``."""
    model, make, labels, spec = KINDS[kind]
    torch.manual_seed(1)
    callback = ModuleDecomposition(
        labels, network_spec=spec, registered_model_prefix=kind, strict=True, **settings
    )
    _, model = fit(callback, model(), answers.loaders_of(make), max_epochs=epochs)
    return callback, model.eval()


def in_words(kind, logits, x, lengths):
    """What a network's logits ``(rows, labels)``, or with steps between, say."""
    _, _, labels, _ = KINDS[kind]
    if kind == "multilabel":
        return [[labels[i] for i in torch.nonzero(row >= 0)[:, 0]] for row in logits]
    best = logits.argmax(-1)
    if kind == "flat":
        return [labels[i] for i in best]
    rows = [[labels[i] for i in row] for row in best]
    if kind == "tags":
        return [row[:length] for row, length in zip(rows, lengths.tolist(), strict=True)]
    return [row[: row.index("end")] if "end" in row else row for row in rows]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_modules_of_a_training_answer_as_their_parent(kind, tracking_uri):
    """Nothing removed and no repairs: all modules together are the parent, loaded from MLflow."""
    callback, model = trained(kind, removal=0.0, repairs="none")
    _, make, labels, _ = KINDS[kind]
    x = make(30, 5)[0]
    lengths = (x != 0).sum(1)
    with torch.no_grad():
        logits = model(x, lengths).transpose(1, 2) if kind == "tags" else model(x)
    wanted = in_words(kind, logits, x, lengths)
    assert len({str(answer) for answer in wanted}) >= 2
    ids = [row[:length].tolist() for row, length in zip(x, lengths, strict=True)]
    names = [f"models:/{kind}.{label}@champion" for label in labels]
    composite = mlflow_rnnmod.compose(names)
    assert composite.predict(ids) == wanted
    info = mlflow_rnnmod.log_model(composite, name="together")
    for uri in (info.model_uri, callback.logged.parent_uri):
        found = mlflow.pyfunc.load_model(uri).predict(pd.DataFrame({"tokens": ids}))
        if kind != "flat":  # lists come as a column
            found = [list(answer) for answer in found["prediction"]]
        assert list(found) == wanted


@pytest.mark.parametrize(
    ("kind", "metric"),
    [("tags", "accuracy"), ("multilabel", "f1"), ("list", "f1"), ("flat", "accuracy")],
)
def test_figures_of_a_training_are_in_its_run(kind, metric, tracking_uri):
    callback, _ = trained(kind, 2, removal=0.25)
    decomposition = callback.decomposition
    assert decomposition.metric == metric
    run = mlflow.get_run(callback.logged.run_id)
    names = [f"{who}_{metric}" for who in ("parent", "composed", "delta", "control", "random")]
    for name in names:
        assert run.data.metrics[f"rnnmod/{name}"] == pytest.approx(decomposition.figures[name])
    parent = mlflow.get_logged_model(callback.logged.parent_model_id)
    assert parent.metrics[0].key == metric


def test_the_figure_of_a_tagger_is_the_share_of_right_tags(tracking_uri):
    _, model = trained("tags", 2, removal=0.0, repairs="none")
    x, lengths, y = answers.tag_data(50, 7)
    callback = ModuleDecomposition(
        answers.LABELS, removal=0.25, report_data=Rows(x, lengths, y), strict=True
    )
    callback.decompose_checkpoint(None, model, *answers.loaders_of(answers.tag_data))
    right = (model(x, lengths).argmax(1) == y)[y >= 0]
    figures = callback.decomposition.figures
    assert figures["parent_accuracy"] == pytest.approx(float(right.float().mean()))


@pytest.mark.parametrize(
    "settings", [{"variant": "unrolled"}, {"gates": "separate", "rule": "reference"}]
)
def test_variants_are_settings_of_the_callback(settings, tracking_uri):
    callback, _ = trained("tags", 1, removal=0.25, **settings)
    config = callback.decomposition.config
    assert {name: getattr(config, name) for name in settings} == settings
    loaded = mlflow_rnnmod.load_model("models:/tags.low/1")
    assert torch.equal(
        loaded.trunk.keep["recurrent.0.fwd"],
        callback.decomposition.modules[0].trunk.keep["recurrent.0.fwd"],
    )
    assert loaded.trunk.keep["recurrent.0.fwd"].ndim == 2
