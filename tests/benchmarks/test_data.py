"""The data sets themselves, where they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.data import (
    TATOEBA,
    load_brown,
    load_math_qa,
    load_tatoeba,
    load_toxicity,
    token_tokenizer,
)
from mlflow_rnnmod.networks import TextEncoder


@pytest.fixture(scope="session")
def data_dir() -> Path:
    found = os.environ.get("RNNMOD_DATA")
    if not found:
        pytest.skip("RNNMOD_DATA names no folder with the data sets")
    return Path(found)


def sizes(splits: dict[str, list]) -> list[int]:
    return [len(splits[name]) for name in ("train", "validation", "test")]


def test_math_qa(data_dir: Path) -> None:
    data = load_math_qa(data_dir)
    assert sizes(data.texts) == [29_837, 4_475, 2_985]
    assert data.labels["test"].count("probability") == 52
    assert data.names == ("gain", "general", "geometry", "other", "physics", "probability")


def test_toxicity(data_dir: Path) -> None:
    data = load_toxicity(data_dir, "list")
    assert sizes(data.texts) == [21_134, 4_528, 4_528]
    assert sum("threat" in labels for labels in data.labels["test"]) == 71
    targets = data.targets("test", 0)
    assert targets.shape == (4_528, 7)
    ends = (targets == data.names.index("none")).sum(dim=1)
    assert ends.unique().tolist() == [1]
    assert int((targets[:, 0] == data.names.index("none")).sum()) == 2_370
    several = load_toxicity(data_dir, "multilabel")
    table = several.targets("test", 0)
    for place, name in enumerate(several.names):
        assert int(table[:, place].sum()) == int((targets == data.names.index(name)).sum())


def test_toxicity_comes_in_two_shapes(data_dir: Path) -> None:
    with pytest.raises(ValueError, match="output='tags'.*multilabel.*list"):
        load_toxicity(data_dir, "tags")


def test_brown(data_dir: Path) -> None:
    data = load_brown(data_dir)
    assert sizes(data.texts) == [45_872, 2_867, 8_601]
    assert len(data.names) == 12
    rows = data.rows("validation", TextEncoder(token_tokenizer(data.texts["validation"])))
    assert rows.targets is not None and rows.lengths is not None
    assert ((rows.targets != -1).sum(dim=1) == rows.lengths).all()
    assert int((rows.targets == data.names.index("X")).sum()) == 62


def test_tatoeba(data_dir: Path) -> None:
    expected = {
        "tatoeba": [35_519, 7_611, 7_611],
        "tatoeba_uk": [16_972, 3_637, 3_636],
        "tatoeba_et": [808, 173, 172],
        "tatoeba_et_en": [2_048, 439, 438],
    }
    for folder in TATOEBA:
        data = load_tatoeba(data_dir, folder)
        for code in (data.source, *data.targets):
            found = {split: data.references(split, code) for split in data.sentences}
            assert sizes(found) == expected[folder]
    assert load_tatoeba(data_dir).only(["it"]).targets == ("it",)


def test_only_these_four(data_dir: Path) -> None:
    with pytest.raises(ValueError, match="folder='europarl'.*tatoeba_uk"):
        load_tatoeba(data_dir, "europarl")


def test_a_folder_without_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"--data-dir to hold brown_pos/"):
        load_brown(tmp_path)
