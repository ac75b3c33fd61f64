"""Figures of labels, against scikit-learn's; and what ``mlflow.models.evaluate`` logs of them."""

from __future__ import annotations

import mlflow
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models.evaluation.evaluator_registry import _model_evaluation_registry

import mlflow_rnnmod
from mlflow_rnnmod import composition
from mlflow_rnnmod.tracking.evaluator import RnnmodEvaluator
from mlflow_rnnmod.tracking.figures import figures, set_figures, top_accuracy
from tests.builders import LABELS, ODD_LABELS, tiny_module, tiny_modules, tiny_parent, tiny_texts
from tests.composition.test_kinds import parent_of

WORDS = tiny_texts(24)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """As the entry point does where the package is installed."""
    registry = dict(_model_evaluation_registry._registry)
    monkeypatch.setattr(_model_evaluation_registry, "_registry", registry)
    _model_evaluation_registry.register("rnnmod", RnnmodEvaluator)


@given(st.lists(st.tuples(st.sampled_from("abcx"), st.sampled_from("abcy")), min_size=1))
@settings(max_examples=60, deadline=None)
def test_figures_are_those_of_scikit_learn(pairs):
    sklearn = pytest.importorskip("sklearn.metrics")
    truth, answers = [list(side) for side in zip(*pairs, strict=True)]
    overall, table = figures(truth, answers, ["a", "b", "c"])
    known = [[y if y in "abc" else "none" for y in side] for side in (truth, answers)]
    expected = sklearn.precision_recall_fscore_support(
        *known, labels=["a", "b", "c"], zero_division=0
    )
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert np.allclose(table[name], values)
    assert overall["accuracy"] == pytest.approx(sklearn.accuracy_score(*known))
    assert overall["f1_macro"] == pytest.approx(expected[2].mean())
    assert overall["rows"] == len(pairs)


def test_no_rows():
    overall, table = figures([], [], ["a", "b"])
    assert np.isnan(overall["accuracy"])
    assert table["support"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [("rnnmod", True), ("rnnmod-composed", True), ("classifier", True), ("text", False)],
)
def test_only_our_own_models(model_type, expected):
    found = RnnmodEvaluator.can_evaluate(model_type=model_type, evaluator_config={})
    assert found is expected


def evaluate(thing, truth, **options):
    data = pd.DataFrame({"text": WORDS, "label": truth})
    with mlflow.start_run() as run:
        info = mlflow_rnnmod.log_model(thing)
        result = mlflow.models.evaluate(
            info.model_uri, data, targets="label", model_type="rnnmod", **options
        )
    return run.info.run_id, info.model_id, result


def test_a_composite(tracking_uri):
    composite = composition.compose(tiny_modules(tiny_parent("text")))
    answers = composite.predict(WORDS)
    truth = [LABELS[i % 3] for i in range(24)]
    run_id, model_id, result = evaluate(composite, truth)
    overall, table = figures(truth, answers, LABELS)
    assert result.metrics["accuracy"] == overall["accuracy"]
    for row in table.itertuples():
        assert result.metrics[f"recall/{row.label}"] == row.recall
    logged = MlflowClient().get_run(run_id).data.metrics
    assert logged["accuracy"] == overall["accuracy"]
    assert pd.read_csv(
        mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="per_label.csv")
    )["label"].tolist() == list(LABELS)
    assert result.artifacts["per_label"].content["support"].sum() == 24
    of_model = {m.key: m for m in MlflowClient().get_logged_model(model_id).metrics}
    assert of_model["accuracy"].value == overall["accuracy"]
    assert of_model["accuracy"].dataset_digest


@pytest.mark.parametrize("named", ["id", "version", "alias", "run", "model", "given", "active"])
@pytest.mark.parametrize("model_type", ["rnnmod", "classifier"])
def test_one_set_of_figures_on_the_model(tracking_uri, named, model_type):
    """Whichever way the model was named: one value of each figure, beside the data set."""
    composite = composition.compose(tiny_modules(tiny_parent("text")))
    with mlflow.start_run() as logging:
        info = mlflow_rnnmod.log_model(composite, name="c", registered_model_name="names")
    MlflowClient().set_registered_model_alias("names", "best", "1")
    uri = {
        "version": "models:/names/1",
        "alias": "models:/names@best",
        "run": f"runs:/{logging.info.run_id}/c",
    }.get(named, f"models:/{info.model_id}")
    model = mlflow.pyfunc.load_model(uri) if named == "model" else uri
    if named == "active":
        mlflow.set_active_model(model_id=info.model_id)
    options = {"model_id": info.model_id} if named == "given" else {}
    truth = [LABELS[i % 3] for i in range(24)]
    data = pd.DataFrame({"text": WORDS, "label": truth})
    try:
        with mlflow.start_run() as run:
            mlflow.models.evaluate(model, data, targets="label", model_type=model_type, **options)
    finally:
        mlflow.clear_active_model()
    overall, _ = figures(truth, composite.predict(WORDS), LABELS)
    found = MlflowClient().get_logged_model(info.model_id).metrics
    ours = [metric for metric in found if metric.key in overall or "/" in metric.key]
    assert sorted(m.key for m in ours) == sorted(
        [*overall, *(f"{f}/{y}" for f in ("precision", "recall", "f1") for y in LABELS)]
    )
    values = {metric.key: metric.value for metric in ours}
    assert {key: values[key] for key in overall} == pytest.approx(overall)
    assert all(metric.dataset_digest for metric in ours)
    of_run = MlflowClient().get_run(run.info.run_id).data.metrics
    assert {key: of_run[key] for key in overall} == pytest.approx(overall)
    if model_type == "classifier":
        assert of_run["accuracy_score"] == pytest.approx(overall["accuracy"])


def test_classifiers_of_others_are_left_alone(tracking_uri):
    data = pd.DataFrame({"x": range(24), "label": [i % 2 for i in range(24)]})
    with mlflow.start_run():
        result = mlflow.models.evaluate(
            lambda frame: np.zeros(len(frame), dtype=int),
            data,
            targets="label",
            model_type="classifier",
        )
    assert "accuracy" not in result.metrics
    assert result.metrics["accuracy_score"] == 0.5


def test_what_the_hint_says_works(tracking_uri):
    composite = composition.compose(tiny_modules(tiny_parent("text")))
    metric = mlflow.models.make_metric(
        eval_fn=lambda predictions, targets, metrics: 0.25, greater_is_better=True, name="mine"
    )
    truth = [LABELS[i % 3] for i in range(24)]
    with pytest.raises(MlflowException, match="give model_type='classifier'"):
        evaluate(composite, truth, extra_metrics=[metric])
    info = mlflow_rnnmod.log_model(composite)
    data = pd.DataFrame({"text": WORDS, "label": truth})
    result = mlflow.models.evaluate(
        info.model_uri, data, targets="label", model_type="classifier", extra_metrics=[metric]
    )
    assert {"accuracy", "accuracy_score"} <= set(result.metrics)


def test_a_module_says_yes_or_no(tracking_uri):
    module = tiny_module(tiny_parent("text"))
    answers = composition.compose([module]).predict(WORDS)
    # Right about everything, whatever the others are called.
    truth = [y if y == module.label else f"other {i}" for i, y in enumerate(answers)]
    _, _, result = evaluate(module, truth)
    assert result.metrics["accuracy"] == 1.0
    assert set(result.metrics) == {
        *("accuracy", "precision_macro", "recall_macro", "f1_macro", "rows"),
        *(f"{name}/{module.label}" for name in ("precision", "recall", "f1")),
    }


def test_any_label(tracking_uri):
    parent = tiny_parent("text", labels=ODD_LABELS)
    _, _, result = evaluate(parent, [ODD_LABELS[i % 10] for i in range(24)])
    assert sum(name.startswith("recall/") for name in result.metrics) == 10


def test_the_right_label_among_five(tracking_uri):
    composite = composition.compose(tiny_modules(tiny_parent("text", labels=ODD_LABELS)))
    truth = [ODD_LABELS[i % 10] for i in range(23)] + ["nobody's"]
    _, _, result = evaluate(composite, truth)
    order = composite.scores(WORDS).argsort(dim=1, descending=True)[:, :5].tolist()
    among = [y in [ODD_LABELS[i] for i in row] for y, row in zip(truth, order, strict=True)]
    assert result.metrics["top5_accuracy"] == pytest.approx(np.mean(among))
    answers = composite.predict(WORDS)
    assert result.metrics["accuracy"] == figures(truth, answers, ODD_LABELS)[0]["accuracy"]


def test_top_accuracy_is_that_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    scores = np.random.default_rng(0).normal(size=(50, 7))
    truth = [list("abcdefg")[i % 7] for i in range(50)]
    for top in (1, 3, 5):
        found = top_accuracy(truth, pd.DataFrame(scores, columns=list("abcdefg")), top)
        expected = sklearn.top_k_accuracy_score(truth, scores, k=top, labels=list("abcdefg"))
        assert found == pytest.approx(expected)
    assert np.isnan(top_accuracy([], pd.DataFrame(columns=list("ab"))))


def test_settings(tracking_uri):
    parent = tiny_parent("text")
    config = {"per_label": False, "metric_prefix": "test_", "params": {"reject_below": 1e9}}
    _, _, result = evaluate(parent, ["unknown"] * 24, evaluator_config=config)
    assert result.metrics["test_accuracy"] == 1.0
    assert not any("/" in name for name in result.metrics)


def test_predictions_without_a_model(tracking_uri):
    data = pd.DataFrame({"label": ["a", "b"], "answer": ["a", "a"]})
    with mlflow.start_run():
        result = mlflow.models.evaluate(
            data=data, targets="label", predictions="answer", model_type="rnnmod"
        )
    assert result.metrics["accuracy"] == 0.5


def test_without_truth(tracking_uri):
    info = mlflow_rnnmod.log_model(tiny_parent("text"))
    with pytest.raises(MlflowException, match="no true labels"), mlflow.start_run():
        mlflow.models.evaluate(
            info.model_uri, pd.DataFrame({"text": WORDS}), model_type="rnnmod", evaluators="rnnmod"
        )


# --- lists of labels ---


@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from("abx")), st.sets(st.sampled_from("aby"))), min_size=1
    )
)
@settings(max_examples=60, deadline=None)
def test_figures_of_sets_are_those_of_scikit_learn(pairs):
    sklearn = pytest.importorskip("sklearn.metrics")
    truth, answers = [[sorted(row) for row in side] for side in zip(*pairs, strict=True)]
    overall, table = set_figures(truth, answers, ["a", "b"])
    wanted, given = [
        np.array([[y in row for y in "ab"] for row in side]) for side in (truth, answers)
    ]
    for average, prefix in (("micro", ""), ("macro", "_macro")):
        expected = sklearn.precision_recall_fscore_support(
            wanted, given, average=average, zero_division=0
        )
        for name, value in zip(("precision", "recall", "f1"), expected[:3], strict=True):
            assert overall[name + prefix] == pytest.approx(value)
    each = sklearn.precision_recall_fscore_support(wanted, given, zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "support"), each, strict=True):
        assert np.allclose(table[name], values)
    assert overall["exact"] == pytest.approx((wanted == given).all(1).mean())


def test_the_label_that_ends_a_list_does_not_count():
    overall, table = set_figures([["a", "none"], ["none"]], [["a"], []], ["a", "none"], "none")
    assert overall["f1"] == overall["exact"] == 1.0 and table["label"].tolist() == ["a"]
    assert np.isnan(set_figures([], [], ["a"])[0]["f1"])
    with pytest.raises(ValueError, match="true labels of row 1 are 'b'"):
        set_figures([["a"], "b"], [["a"], ["b"]])


@pytest.mark.parametrize("kind", ["multilabel", "list"])
def test_several_labels_through_mlflow(kind, tracking_uri):
    composite = composition.compose(tiny_modules(parent_of(kind)))
    answers = composite.predict(WORDS)
    truth = [answers[0] and answers[0][:1], *answers[1:-1], ["unknown"]]
    run_id, model_id, result = evaluate(composite, truth)
    expected, table = set_figures(truth, answers, "ab" if kind == "list" else "abc")
    for name in ("f1", "exact", "precision", "recall_macro", "rows"):
        assert result.metrics[name] == pytest.approx(expected[name])
    assert result.artifacts["per_label"].content["f1"].tolist() == table["f1"].tolist()
    logged = MlflowClient().get_logged_model(model_id).metrics
    assert {m.key: m.value for m in logged}["f1"] == pytest.approx(expected["f1"])


def test_a_label_for_each_step_through_mlflow(tracking_uri):
    composite = composition.compose(tiny_modules(parent_of("tags")))
    truth = composite.predict(WORDS)
    right = sum(map(len, truth))
    truth[0] = ["other"] * len(truth[0])
    truth[1] = [None] * len(truth[1])
    _, _, result = evaluate(composite, truth)
    steps = right - len(truth[1])
    assert result.metrics["accuracy"] == pytest.approx((steps - len(truth[0])) / steps)
    assert result.metrics["rows"] == len(WORDS) and result.metrics["steps"] == steps
    truth[2] = truth[2][:-1]
    with pytest.raises(MlflowException, match="true labels of row 2 .* as many of both"):
        evaluate(composite, truth)


def test_predictions_that_are_lists(tracking_uri):
    data = pd.DataFrame({"truth": [["a"], ["a", "b"]], "said": [["a"], ["b", "b"]]})
    options = {"targets": "truth", "predictions": "said", "model_type": "rnnmod"}
    with mlflow.start_run():
        found = mlflow.models.evaluate(data=data, **options).metrics
        tags = {"evaluators": "rnnmod", "evaluator_config": {"output": "tags"}}
        stepwise = mlflow.models.evaluate(data=data, **options, **tags).metrics
    assert found["f1"] == pytest.approx(0.8) and found["exact"] == 0.5
    assert stepwise["accuracy"] == pytest.approx(2 / 3)
