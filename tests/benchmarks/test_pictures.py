"""Residual networks over images: data, training, parents, and the questions asked of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import gorilla, paper, rq2, tasks
from benchmarks.convolutional import PREPARATION
from benchmarks.data import ImageData, load_pictures
from benchmarks.data.pictures import IN_A_ROW, SIDE
from benchmarks.parents import train_parent, trained_weights
from benchmarks.published import delta, reuse_delta
from benchmarks.resnet import ImageTraining, ResNet, resnet, train_resnet
from benchmarks.reuse import parent_points
from benchmarks.scoring import top_points
from benchmarks.tasks import TASKS, ImageTask
from mlflow_rnnmod.composition import whole_parent
from mlflow_rnnmod.networks import Rows

SPLITS = {"train": 96, "fit": 40, "validation": 40, "joint": 40, "test": 40, "whole": 40}


def made_up(name: str, names: tuple[str, ...]) -> ImageData:
    """Images with a bright column for each label."""
    draw = torch.Generator().manual_seed(len(name))
    texts, labels = {}, {}
    for split, rows in SPLITS.items():
        images = torch.randint(100, (rows, 3, SIDE, SIDE), generator=draw, dtype=torch.uint8)
        for row, image in enumerate(images):
            image[:, :, 4 * (row % len(names)) : 4 * (row % len(names)) + 4] += 150
        texts[split] = list(images)
        labels[split] = [names[row % len(names)] for row in range(rows)]
    return ImageData(name, texts, labels, names)


QUICK = {"epochs": 3, "least_steps": 12, "batch_size": 16, "learning_rate": 0.1}


def test_tiles_are_read_row_by_row_and_split(tmp_path: Path) -> None:
    folder = tmp_path / "images" / "cifar10"
    folder.mkdir(parents=True)
    pixels = np.zeros((IN_A_ROW, SIDE, IN_A_ROW, SIDE, 3), np.uint8)
    for row in range(40):
        pixels[row // IN_A_ROW, 3, row % IN_A_ROW, 5, 1] = 100 + row
    tile = Image.fromarray(pixels.reshape(IN_A_ROW * SIDE, IN_A_ROW * SIDE, 3))
    (folder / "classes.json").write_text('["cat", "dog"]')
    for split in ("train", "test"):
        tile.save(folder / f"{split}-000.webp", lossless=True, exact=True)
        (folder / f"{split}.json").write_text(json.dumps([0, 1] * 20))
    (folder / "resnet20.safetensors").touch()
    data = load_pictures(tmp_path, "cifar10")
    marks = {s: [int(x[1, 3, 5]) - 100 for x in v] for s, v in data.texts.items()}
    # The networks know the training rows by heart: the test split is halved, and one half again.
    assert marks["train"] == list(range(40)) and marks["test"] == list(range(1, 40, 2))
    assert marks["joint"] == sorted(marks["fit"] + marks["validation"]) == list(range(0, 40, 2))
    assert list(data.given) == ["resnet20"] and data.only(["cat"]).given == {}
    (tmp_path / "images" / "cifar100").symlink_to(folder)
    other = load_pictures(tmp_path, "cifar100")
    assert [len(other.texts[s]) for s in ("train", "fit", "validation")] == [36, 36, 4]
    with pytest.raises(FileNotFoundError, match=r"tiny_imagenet32.*--data-dir"):
        load_pictures(tmp_path, "tiny_imagenet32")


def test_an_interrupted_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import resnet as module

    data, training = made_up("one", ("a", "b")), ImageTraining(**QUICK)
    given = data.images("train"), data.targets("train", 0), 2, PREPARATION.scaled, training
    monkeypatch.setattr(module, "LEAST_SECONDS", 0.0)
    whole = train_resnet(*given)
    state = tmp_path / "state"
    schedule = torch.optim.lr_scheduler.OneCycleLR.step
    steps: list[int] = []

    def interrupted(self: Any, *args: Any) -> None:
        schedule(self, *args)
        steps.append(1)
        if len(steps) == 9:
            raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.lr_scheduler.OneCycleLR, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_resnet(*given, state=state)
    monkeypatch.setattr(torch.optim.lr_scheduler.OneCycleLR, "step", schedule)
    assert state.exists()
    again = train_resnet(*given, state=state)
    assert not state.exists()
    for name, weight in whole.items():
        assert torch.allclose(weight.float(), again[name].float(), atol=1e-3), name


def test_a_parent_answers_as_the_trained_network(tmp_path: Path) -> None:
    data, training = made_up("one", ("a", "b", "c")), ImageTraining(**QUICK)
    parent, seconds = train_parent(data, training, tmp_path)
    assert parent.image == PREPARATION and parent.input_kind == "images"
    again, same = train_parent(data, training, tmp_path)
    assert again.digest == parent.digest and same == seconds
    network = resnet("resnet20", trained_weights(data, training, tmp_path)["weights"])
    values = PREPARATION.scaled(data.images("test"))
    with torch.no_grad():
        expected = network(values)
    assert torch.allclose(parent.network(Rows(values)), expected, rtol=1e-4, atol=1e-4)
    right = (expected.argmax(1) == data.targets("test", 0)).double().mean()
    assert parent_points(parent, data) == pytest.approx(100 * float(right))
    found = top_points(whole_parent(parent), data, top=2)
    best = expected.topk(2).indices == data.targets("test", 0)[:, None]
    assert found == pytest.approx((100 * float(right), 100 * float(best.any(1).double().mean())))


def test_weights_that_are_given_are_not_trained(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = ResNet(3, 2)
    save_file(network.state_dict(), tmp_path / "resnet20.safetensors")
    data = made_up("one", ("a", "b"))
    data = ImageData(data.name, data.texts, data.labels, data.names,
                     given={"resnet20": tmp_path / "resnet20.safetensors"})  # fmt: skip
    parent, seconds = train_parent(data, ImageTraining(), None)
    values = PREPARATION.scaled(data.images("test"))
    with torch.no_grad():
        assert torch.allclose(parent.network(Rows(values)), network.eval()(values), atol=1e-4)
    assert seconds == 0.0


def test_figures_of_the_paper() -> None:
    assert delta("cifar10", "rolled", "resnet32", 1) == -6.7
    assert delta("mnist", "rolled", "resnet20", 1) is None
    assert reuse_delta("rq2", "cifar10 with cifar100", "resnet20") == -12.7
    assert reuse_delta("rq2", "cifar10", "resnet20") == 6.6
    assert reuse_delta("rq3", "cifar10 by cifar100", "resnet20") == 2.5


@pytest.mark.slow
@pytest.mark.parametrize("question", ["rq1", "rq2"])
def test_the_questions_are_asked(
    question: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {"cifar10": ("a", "b", "c"), "cifar100": ("x", "y", "z")}
    found = {
        name: ImageTask("images", (lambda _, name=name, own=own: made_up(name, own),), QUICK)
        for name, own in made.items()
    }
    for module in (tasks, paper):
        monkeypatch.setattr(module, "TASKS", {**TASKS, **found})
    monkeypatch.setattr(rq2, "IMAGE_PAIRS", 1)
    file = tmp_path / "rows.json"
    more = ["--draws", "1", "--repairs", "all"] if question == "rq1" else ["--across"]
    told = [question, "cifar10", "--cell", "resnet20", "--removal", "0.2", *more]
    told += ["--data-dir", str(tmp_path), "--cache", str(tmp_path), "--json", str(file)]
    paper.main(told, standalone_mode=False)
    rows = json.loads(file.read_text())["rows"]
    assert {row["cell"] for row in rows} == {"resnet20"}
    if question == "rq1":
        assert {r["rule"] for r in rows} == {"none", "sensitivity", "paper", "random"}
        ours = next(r for r in rows if r["rule"] == "sensitivity")
        assert 0 < ours["multiply_adds_kept"] < 1 and ours["paper_delta"] == -0.1
    else:
        assert {row["dataset"] for row in rows} == {"cifar10 with cifar100"}
        assert all({"joint_score", "scratch_score", "open_score"} <= set(row) for row in rows)


@pytest.mark.slow
def test_the_gorilla_is_told_from_the_person(tmp_path: Path) -> None:
    names = (gorilla.PERSON, gorilla.ANIMAL, "cat", "dog", "owl", "elk")
    data = made_up("animals", names)
    task = ImageTask("images", (lambda _: data,), QUICK, ("resnet20",))
    workshop = gorilla.Workshop(tmp_path)
    before = gorilla.TASKS
    gorilla.TASKS = {gorilla.GORILLA: task}
    try:
        rows = list(gorilla.gorilla_rows(workshop, data, "resnet20", lambda stage: None))
    finally:
        gorilla.TASKS = before
    assert {row["pair"] for row in rows} >= set(gorilla.PUBLISHED)
    removed = next(row for row in rows if row["pair"] == "gorilla removed")
    assert removed["score"] >= removed["score_of_all_rows"]


def test_the_trained_networks() -> None:
    found = os.environ.get("RNNMOD_DATA")
    if not found:
        pytest.skip("RNNMOD_DATA names no folder with the data sets")
    data = load_pictures(Path(found), "cifar10")
    assert [len(data.texts[s]) for s in ("train", "joint", "whole")] == [50_000, 5000, 5000]
    parent, _ = train_parent(data, ImageTraining(), None)
    part = slice(300)
    rows = Rows(PREPARATION.scaled(data.images("whole")[part]))
    right = parent.network(rows).argmax(1) == data.targets("whole", 0)[part]
    assert float(right.double().mean()) > 0.88
