"""Dense networks over pictures: data, parents, and the questions asked of them."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import paper, rq2, tasks
from benchmarks.classifiers import Training
from benchmarks.data import NotInstalled, VectorData, load_fashion_mnist, load_images
from benchmarks.data.images import FASHION, IN_A_ROW, SIDE, vector_data
from benchmarks.dense import DenseClassifier
from benchmarks.parents import train_parent, trained_weights
from benchmarks.reuse import parent_points
from benchmarks.tasks import DENSE, TASKS, Task
from mlflow_rnnmod.networks import Rows

PIXELS = 12


def made_up(name: str, names: tuple[str, ...], rows: int = 240) -> VectorData:
    """Pictures whose brightest pixels say which of the labels they are of."""
    generator = np.random.default_rng(len(names) + ord(names[0]))
    splits = []
    for count in (rows, rows // 2):
        labels = generator.permutation(np.arange(count) % len(names)).tolist()
        images = generator.integers(0, 120, (count, PIXELS))
        places = np.array([(ord(names[y]) + 3 * k) % PIXELS for y in labels for k in (0, 1)])
        images[np.arange(count).repeat(2), places] = 255
        splits.append((images.astype(np.uint8), labels))
    return vector_data(name, names, *splits)


def test_tiles_are_read_row_by_row(tmp_path: Path) -> None:
    folder = tmp_path / "images" / "mnist"
    folder.mkdir(parents=True)
    pixels = np.zeros((IN_A_ROW, SIDE, IN_A_ROW, SIDE), np.uint8)
    for row in range(40):
        pixels[row // IN_A_ROW, 0, row % IN_A_ROW, 1] = row
    tile = Image.fromarray(pixels.reshape(IN_A_ROW * SIDE, IN_A_ROW * SIDE))
    (folder / "classes.json").write_text('["zero", "one"]')
    for split in ("train", "test"):
        tile.save(folder / f"{split}-000.webp", lossless=True)
        (folder / f"{split}.json").write_text(json.dumps([0, 1] * 20))
    data = load_images(tmp_path, "mnist")
    assert {s: len(v) for s, v in data.texts.items()} == {"train": 33, "validation": 7, "test": 40}
    assert [round(255 * float(x[1])) for x in data.texts["test"]] == list(range(40))
    assert [round(255 * float(x[1])) for x in data.texts["validation"]] == list(range(0, 40, 6))
    assert data.labels["test"][:3] == ["zero", "one", "zero"]
    with pytest.raises(FileNotFoundError, match=r"emnist_letters.*--data-dir"):
        load_images(tmp_path, "emnist_letters")


def test_fashion_mnist_is_a_package(tmp_path: Path) -> None:
    for split in ("train", "t10k"):
        pixels, labels = bytes(range(256)) * 49, bytes([1, 9] * 8)
        (tmp_path / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"h" * 16 + pixels))
        (tmp_path / f"{split}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"h" * 8 + labels))
    data = load_fashion_mnist(tmp_path, tmp_path)
    assert data.labels["test"][:2] == ["trousers", "ankle boot"]
    assert torch.equal(data.texts["test"][0][:256], torch.arange(256) / 255)
    with pytest.raises(NotInstalled, match="dataset-fashion-mnist"):
        load_fashion_mnist(tmp_path, tmp_path / "none")


def test_few_rows_of_a_label_and_two_sets_together() -> None:
    data, other = made_up("one", ("a", "b")), made_up("two", ("x", "y"), 48)
    weak = data.few("a", 0.1)
    assert weak.name == "one, few a" and isinstance(weak, VectorData)
    for split, share in (("train", 0.1), ("validation", 0.1), ("test", 1)):
        before, after = data.labels[split], weak.labels[split]
        assert after.count("a") == int(share * before.count("a")) < len(after)
        assert after.count("b") == before.count("b") and len(weak.texts[split]) == len(after)
    both = rq2.joined(data, other)
    assert both.names == ("a", "b", "x", "y") and both.rows("test").values.shape == (48, PIXELS)
    assert [len(v) for v in both.texts.values()] == [240, 16, 48]


@pytest.mark.parametrize("layers", [1, 3])
def test_a_parent_answers_as_the_trained_network(layers: int, tmp_path: Path) -> None:
    data = made_up("one", ("a", "b", "c"))
    training = Training("fcnn", layers, **{**DENSE, "units": 8, "batch_size": 8, "epochs": 12})
    parent, seconds = train_parent(data, training, tmp_path)
    assert list(parent.network.units.values()) == [8] * layers and parent.tokenizer is None
    assert parent_points(parent, data) > 50
    again, same = train_parent(data, training, tmp_path)
    assert again.digest == parent.digest and same == seconds
    network = DenseClassifier(PIXELS, 3, training)
    network.load_state_dict(trained_weights(data, training, tmp_path)["weights"])
    rows = Rows(torch.stack(data.texts["test"]))
    assert torch.allclose(parent.network(rows), network(rows.values), atol=1e-5)


@pytest.mark.parametrize("question", ["rq1", "rq2", "rq3"])
def test_the_questions_are_asked(
    question: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(_: Path) -> Any:
        raise NotInstalled("is not there.")

    settings = {**DENSE, "units": 10, "batch_size": 8, "epochs": 6}
    made = {"mnist": ("a", "b", "c"), "emnist_letters": ("x", "y", "z")}
    found = {
        name: Task("dense", (lambda _, name=name, own=own: made_up(name, own),), settings,
                   ("fcnn",), 0.1)
        for name, own in made.items()
    }  # fmt: skip
    found["fashion_mnist"] = Task("dense", (absent,), settings, ("fcnn",), 0.1)
    monkeypatch.setattr(tasks, "TASKS", {**TASKS, **found})
    monkeypatch.setattr(paper, "TASKS", {**TASKS, **found})
    file = tmp_path / "rows.json"
    more = ["--removal", "0.2"] + (["--draws", "1"] if question == "rq1" else [])
    names = ["mnist", "fashion_mnist"]
    told = [question, *names, *more, "--data-dir", str(tmp_path), "--cache", str(tmp_path)]
    paper.main([*told, "--json", str(file)], standalone_mode=False)
    rows = json.loads(file.read_text())["rows"]
    assert {row["cell"] for row in rows} == {"fcnn"} and {row["question"] for row in rows} == {
        question
    }
    sets = {row["dataset"] for row in rows}
    if question == "rq1":
        assert sets == {"mnist"} and {r["rule"] for r in rows} == {
            *("none", "sensitivity", "paper", "random")
        }
        nothing = next(r for r in rows if (r["rule"], r["repairs"]) == ("none", "none"))
        assert nothing["delta"] == 0 and "recurrent_weights_kept" not in nothing
        paper.main([*told, "--json", str(file), "--trunks", "1"], standalone_mode=False)
        shared = [r for r in json.loads(file.read_text())["rows"] if r["trunks"] == 1]
        assert len(shared) == len(rows) and {r["jaccard"] for r in shared} == {1.0}
        assert {r["rule"] for r in shared if r["units_kept"] < 1} >= {"sensitivity", "random"}
    if question == "rq2":
        assert sets == {"mnist", "mnist with emnist_letters", "mnist and emnist_letters"}
        assert {r["pair"] for r in rows if r["dataset"] == "mnist and emnist_letters"} == {"all"}
    if question == "rq3":
        assert sets == {"mnist", "mnist by emnist_letters"}
        assert {r["pair"] for r in rows if "label_delta" in r} == {"a", "b", "c"}


def test_the_digits() -> None:
    found = os.environ.get("RNNMOD_DATA")
    if not found:
        pytest.skip("RNNMOD_DATA names no folder with the data sets")
    data = load_images(Path(found), "mnist")
    assert [len(v) for v in data.texts.values()] == [50_000, 10_000, 10_000]
    assert data.labels["test"].count("1") == 1135 and min(map(float, data.texts["test"][0])) >= 0


@pytest.mark.skipif(not FASHION.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_the_clothes(tmp_path: Path) -> None:
    data = load_fashion_mnist(tmp_path)
    assert [len(v) for v in data.texts.values()] == [50_000, 10_000, 10_000]
    assert data.labels["test"].count("bag") == 1000
