"""The quickstart on a part of the data: that it runs, and that what it says is in the store."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest

import mlflow_rnnmod

SCRIPT = Path(__file__).resolve().parent.parent / "examples" / "quickstart.py"
FIRST = ["croatian", "dutch", "french", "german", "irish", "italian", "slovak", "spanish"]
SECOND = ["estonian", "finnish", "irish", "swedish", "zulu"]


def run(script: Path, folder: Path, *arguments: str) -> str:
    """What a script prints when it is run in ``folder``."""
    environment = {**os.environ, "COLUMNS": "140", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment["HF_HOME"] = str(folder / "huggingface")
    environment["RNNMOD_CACHE"] = str(folder / "cache")
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def quickstart(folder: Path, *arguments: str) -> str:
    """What the quickstart prints when it is run in ``folder``."""
    return run(SCRIPT, folder, *arguments)


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder in which the script ran two times, and what it printed."""
    folder = tmp_path_factory.mktemp("quickstart")
    arguments = ("--share", "0.15", "--epochs", "2")
    return folder, [quickstart(folder, *arguments, "--seed", str(seed)) for seed in (0, 1)]


@pytest.fixture
def client(twice: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch) -> mlflow.MlflowClient:
    """The store that the script wrote; its paths are relative to the folder."""
    folder, _ = twice
    monkeypatch.chdir(folder)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(before)


def test_it_explains_itself(tmp_path: Path) -> None:
    text = quickstart(tmp_path, "--help")
    for option in ("--dataset", "--label", "--data-dir", "--tracking-uri", "--epochs", "--share"):
        assert option in text
    assert not list(tmp_path.iterdir()), "asking for help leaves files behind"


def test_every_chapter_is_told(twice: tuple[Path, list[str]]) -> None:
    for text in twice[1]:
        for words in (
            "8 modules",
            "5 modules",
            "its modules, composed",
            "trained from scratch",
            "... and Finnish",
            "Irish replaced",
            "none of these",
            "make ui",
        ):
            assert words in text
        assert "nan" not in text.casefold().split()
        assert "Traceback" not in text


def test_modules_are_registered_under_the_names_it_shows(
    twice: tuple[Path, list[str]], client: mlflow.MlflowClient
) -> None:
    expected = {"surnames", "more-surnames", "surnames-composite"}
    expected |= {f"surnames.{label}" for label in FIRST}
    expected |= {f"more-surnames.{label}" for label in SECOND}
    assert {model.name for model in client.search_registered_models()} == expected
    for index, text in enumerate(twice[1]):
        shown = set(re.findall(r"models:/([\w.-]+)/(\d+)", text))
        modules = {(name, version) for name, version in shown if "." in name}
        assert len(modules) == len(FIRST) + len(SECOND)
        assert {version for _, version in modules} == {str(index + 1)}
        for name, version in modules:
            assert client.get_model_version(name, version).status == "READY"


def test_runs_are_finished_and_hold_the_modules(client: mlflow.MlflowClient) -> None:
    experiment = client.get_experiment_by_name("quickstart-surnames")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    started = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert sorted(run.info.run_name for run in started) == sorted(
        ["surnames", "more-surnames", "composite"] * 2
    )
    below = [run for run in runs if run not in started]  # figures of modules
    assert {run.data.tags["rnnmod.role"] for run in below} == {"figures"} and len(below) == 4
    logged = client.search_logged_models([experiment.experiment_id])
    assert len(logged) == 2 * (len(FIRST) + len(SECOND) + 2 + 1)


def test_what_was_loaded_answers_as_printed(
    twice: tuple[Path, list[str]], client: mlflow.MlflowClient
) -> None:
    text = twice[1][1]
    threshold = float(re.search(r"reject_below=(-?\d+\.\d+)", text).group(1))
    table = text[text.index("reject_below=") :]
    printed = re.findall(r"^│ (.+?) +│ (.+?) +│ (-?\d+\.\d+) +│$", table, re.MULTILINE)
    assert len(printed) == 6
    model = mlflow.pyfunc.load_model("models:/surnames-composite/2")
    frame = pd.DataFrame({"text": [name for name, _, _ in printed]})
    scores = model.predict(frame, params={"scores": True})
    labels = [name for name in scores.columns if name != "prediction"]
    assert sorted(label.casefold() for label in labels) == sorted([*FIRST, "finnish"])
    answers = model.predict(frame, params={"reject_below": threshold})
    loaded = mlflow_rnnmod.load_model("models:/surnames-composite/2")
    known = loaded.familiarity(frame["text"].tolist()).tolist()
    for (_, answer, shown), found, row, own in zip(
        printed, answers, scores[labels].itertuples(index=False), known, strict=True
    ):
        assert own == pytest.approx(float(shown), abs=6e-4)
        if abs(own - threshold) > 1e-3:
            best = labels[row.index(max(row))]
            assert found == answer == ("none of these" if own < threshold else best)


def test_clinc_does_the_same_job(tmp_path: Path) -> None:
    data = os.environ.get("RNNMOD_DATA")
    if not data:
        pytest.skip("RNNMOD_DATA names no folder with the data sets")
    text = quickstart(
        tmp_path, "--dataset", "clinc_oos", "--data-dir", data, "--share", "0.1", "--epochs", "1"
    )
    assert "7 modules" in text
    assert "4 modules" in text
    assert "models:/more-clinc-domains.travel/1" in text
    assert "small_talk replaced" in text


def readme_code() -> list[str]:
    """The Python code of the README, in order."""
    text = (SCRIPT.parent.parent / "README.md").read_text("utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_readme_composes_what_the_quickstart_registered(
    twice: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(twice[0], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    try:
        found: dict[str, Any] = {"mlflow": mlflow}
        exec(compile(readme_code()[1], "README.md", "exec"), found)
    finally:
        mlflow.set_tracking_uri(before)
    assert list(found["names"].labels) == ["German", "Irish", "Finnish"]
    origins = {source["label"]: source["uri"] for source in found["names"].sources}
    assert origins["Irish"] == "models:/more-surnames.irish/1"
    assert found["info"].registered_model_version == 1


def test_readme_takes_a_network_apart(tmp_path: Path) -> None:
    prepared = (
        f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r})\n"
        "from classifier import Classifier\n"
        "from surnames import load_surnames\n"
        "from texts import TextData, build_tokenizer\n"
        "splits = load_surnames(share=0.1)\n"
        "languages = splits.labels\n"
        "tokenizer = build_tokenizer(splits.train.texts, splits.tokens)\n"
        "datamodule = TextData(splits, tokenizer, languages)\n"
        "model = Classifier(tokenizer.get_vocab_size(), len(languages), units=16)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(
        prepared + readme_code()[0] + "\nprint(sorted(modules.logged.uris.values()))", "utf-8"
    )
    text = run(script, tmp_path)
    assert "'models:/surnames.zulu/1'" in text
