"""Spark: labels, scores as a struct, and no silent labels in the place of scores."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

import mlflow_rnnmod
from mlflow_rnnmod.composition import Composite, compose
from mlflow_rnnmod.tracking.pyfunc import RnnmodModel
from tests.builders import tiny_modules, tiny_parent, tiny_texts

TEXTS = tiny_texts(20)


def composite() -> Composite:
    return compose(tiny_modules(tiny_parent("text")))


def test_scores_are_not_silently_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """What MLflow does with a table where a text is wanted, in a task and outside of one."""
    model = RnnmodModel(composite())
    outside = model.predict(TEXTS, {"scores": True})
    assert type(outside) is pd.DataFrame
    context = SimpleNamespace(get=lambda: object())
    monkeypatch.setitem(sys.modules, "pyspark", SimpleNamespace(TaskContext=context))
    inside = model.predict(TEXTS, {"scores": True})
    with pytest.raises(MlflowException, match='result_type="prediction string, `german` double'):
        inside.map(str)
    pd.testing.assert_frame_equal(pd.DataFrame(inside), outside)
    assert inside.map(lambda cell: 1).to_numpy().sum() == inside.size


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    pytest.importorskip("pyspark")
    if shutil.which("java") is None:
        pytest.skip("there is no Java here")
    from pyspark.sql import SparkSession

    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["PYTHONPATH"] = str(Path(mlflow_rnnmod.__file__).parent.parent)
    builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    found = builder.getOrCreate()
    yield found
    found.stop()


@pytest.mark.slow
def test_spark_udf(spark: Any, tmp_path: Path) -> None:
    thing = composite()
    mlflow_rnnmod.save_model(thing, tmp_path / "m")
    uri = str(tmp_path / "m")
    frame = spark.createDataFrame([(text,) for text in TEXTS], ["text"])
    labels = mlflow.pyfunc.spark_udf(spark, uri, env_manager="local")
    found = [row[0] for row in frame.select(labels("text")).collect()]
    assert found == thing.predict(TEXTS)
    struct = "prediction string, " + ", ".join(f"`{y}` double" for y in thing.labels)
    scores = mlflow.pyfunc.spark_udf(
        spark, uri, env_manager="local", result_type=struct, params={"scores": True}
    )
    rows = [row[0] for row in frame.select(scores("text")).collect()]
    assert [row["prediction"] for row in rows] == found
    expected = thing.scores(TEXTS)
    for row, values in zip(rows, expected.tolist(), strict=True):
        assert [row[y] for y in thing.labels] == pytest.approx(values, abs=1e-5)
    silent = mlflow.pyfunc.spark_udf(
        spark, uri, env_manager="local", result_type="string", params={"scores": True}
    )
    with pytest.raises(Exception, match="would leave the scores out"):
        frame.select(silent("text")).collect()
