"""Networks of the benchmarks as plain PyTorch, their batches, metrics and cached parents."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from benchmarks.classifiers import (
    Batches,
    RecurrentClassifier,
    Training,
    counts,
    listed,
    shuffle_words,
)
from benchmarks.data import TextData
from benchmarks.parents import train_parent, trained_weights
from benchmarks.tasks import TASKS
from mlflow_rnnmod.networks import Rows

SHAPES = {
    "label": {},
    "multilabel": {"readout": "max_valid", "bucketed": True},
    "tags": {"readout": "all_steps", "words": "tokens", "steps": None, "decay": True},
    "list": {"readout": "all_steps", "feed": "repeat", "steps": 5, "shuffled": True, "alike": True},
    "flat": {"readout": "last_step", "feed": "flat", "words": "numbers", "steps": 5},
}


def data_of(shape: str) -> TextData:
    texts = ["red 1 green", "green", "red red 2 blue red red", "blue green"] * 5
    output = "label" if shape == "flat" else shape
    names: tuple[str, ...] = ("red", "green", "blue", "1", "2")
    labels = [t.split() for t in texts]
    more = {}
    if output == "label":
        labels = [words[0] for words in labels]
    if output in ("list", "multilabel"):
        labels = [sorted(set(words), key=names.index) for words in labels]
    if output == "list":
        names, more = ("none", *names), {"output_steps": 6, "end_label": "none"}
    splits = ("train", "validation", "test")
    return TextData(
        f"colours/{shape}",
        dict.fromkeys(splits, texts),
        dict.fromkeys(splits, labels),
        names,
        output,
        **more,
    )


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn", "rnn_relu"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_parent_answers_as_the_trained_network(shape: str, cell: str, tmp_path: Path) -> None:
    data = data_of(shape)
    training = Training(
        cell, layers=2, units=6, embedding=4, **{"steps": 9, **SHAPES[shape], "epochs": 1}
    )
    parent, seconds = train_parent(data, training, tmp_path)
    kept = trained_weights(data, training, tmp_path)
    again, same = train_parent(data, training, tmp_path)
    assert again.digest == parent.digest and same == seconds == kept["seconds"]
    tokens = len(kept["weights"]["embedding.weight"])
    network = RecurrentClassifier(tokens, len(data.names), training, data.output_steps).eval()
    network.load_state_dict(kept["weights"])
    assert parent.tokenizer is not None
    rows = data.rows("test", parent.tokenizer)
    assert rows.lengths is not None and rows.targets is not None
    with torch.no_grad():
        expected, found = network(rows.values, rows.lengths), parent.network(rows)
    if shape == "tags":
        counted = rows.targets != -1
        expected, found = expected[counted], found[counted]
    torch.testing.assert_close(found, expected)


def test_the_cache_knows_parents_of_the_first_release() -> None:
    older = asdict(Training())
    for name in ("feed", "readout", "words", "bucketed", "decay", "shuffled", "alike"):
        del older[name]
    del older["embedding_scale"]
    assert Training().key() == older
    assert replace(Training(), feed="flat").key() == {**older, "feed": "flat"}
    assert TASKS["clinc_oos"].training("gru", 2, 1).key() == {
        **older,
        "cell": "gru",
        "layers": 2,
        "seed": 1,
    }


def test_lists_are_read_up_to_their_end() -> None:
    generator = torch.Generator().manual_seed(0)
    found = torch.randint(-1, 4, (50, 6), generator=generator)
    table = listed(found, end=2, labels=4)
    for row, labels in zip(found.tolist(), table.tolist(), strict=True):
        before = []
        for label in row:
            if label in (2, -1):
                break
            before.append(label)
        assert [i for i, wanted in enumerate(labels) if wanted] == sorted(set(before))


@pytest.mark.parametrize("output", ["multilabel", "list"])
def test_micro_f1(output: str) -> None:
    generator = torch.Generator().manual_seed(1)
    if output == "multilabel":
        logits = torch.randn(40, 3, generator=generator)
        targets = torch.rand(40, 3, generator=generator) > 0.5
        given = [{i for i, z in enumerate(row) if z >= 0} for row in logits.tolist()]
        wanted = [{i for i, y in enumerate(row) if y} for row in targets.tolist()]
    else:
        logits = torch.randn(40, 4, 3, generator=generator)
        targets = torch.tensor(
            [[1, 2, 0, -1], [0, -1, -1, -1], [2, 0, -1, -1], [1, 0, -1, -1]] * 10
        )
        best = logits.argmax(2).tolist()
        given = [set(row[: row.index(0)] if 0 in row else row) for row in best]
        wanted = [set(row[: row.index(0)]) for row in targets.tolist()]
    right = sum(len(a & b) for a, b in zip(given, wanted, strict=True))
    precision, recall = right / sum(map(len, given)), right / sum(map(len, wanted))
    found = counts(logits, targets, output, end=0)
    assert float(found[0] / found[1]) == pytest.approx(
        2 * precision * recall / (precision + recall)
    )


def test_accuracy_of_what_counts() -> None:
    logits = torch.eye(3)[torch.tensor([[0, 1, 2], [2, 2, 2]])]
    targets = torch.tensor([[0, 2, -1], [2, 0, -1]])
    assert counts(logits, targets, "tags").tolist() == [2, 4]
    assert counts(logits[:, 0], targets[:, 0], "label").tolist() == [2, 2]


@pytest.mark.parametrize("bucketed", [False, True])
def test_batches_hold_every_row_once(bucketed: bool) -> None:
    lengths = torch.arange(100) % 7 + 1
    values = torch.arange(1, 101)[:, None].expand(-1, 7).clone()
    values[torch.arange(7) >= lengths[:, None]] = 0
    rows = Rows(values, lengths, torch.where(values == 0, -1, values))
    torch.manual_seed(0)
    seen = []
    for x, found, y in Batches(rows, 8, True, bucketed, tagged=True):
        assert x.shape == y.shape == (len(found), int(found.max()))
        assert ((x != 0).sum(1) == found).all()
        assert (torch.where(x == 0, -1, x) == y).all()
        if bucketed:
            assert int(found.max() - found.min()) <= 1
        seen += x[:, 0].tolist()
    assert seen != sorted(seen) and sorted(seen) == list(range(1, 101))


def test_words_are_shuffled_before_padding() -> None:
    lengths = torch.tensor([1, 5, 30])
    x = torch.arange(1, 31).repeat(3, 1) * (torch.arange(30) < lengths[:, None])
    torch.manual_seed(0)
    found = shuffle_words(x, lengths)
    for row, before, length in zip(found, x, lengths.tolist(), strict=True):
        assert sorted(row[:length].tolist()) == before[:length].tolist()
        assert not row[length:].any()
    assert found[2].tolist() != x[2].tolist()
