"""Targets of zeros and a one: one label a row, as a softmax over labels is trained with."""

import gc
import weakref

import pytest
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_callbacks import ModuleDecomposition
from lightning_callbacks.batches import Whole, split
from lightning_callbacks.readers.base import _with_one_label
from tests.callbacks import answers, models
from tests.callbacks.training import fit


def loaders(change=lambda y: y, rows=96):
    found = []
    for seed in (0, 1):
        x, _, y = models.token_data(rows, seed)
        targets = change(nn.functional.one_hot(y, 3).float())
        found.append(DataLoader(TensorDataset(x, targets), 16, shuffle=not seed))
    return found


class Followed(models.Attentive):
    """Read by following it."""


@pytest.mark.parametrize("kind", [None, "label"])
@pytest.mark.parametrize("model", [models.Classifier, Followed])
def test_one_one_a_row_is_a_label(calls, model, kind):
    spec = None if kind is None else {"kind": kind}
    with pytest.warns(UserWarning, match="read as (one label a row|the label of each row)"):
        fit(ModuleDecomposition(models.LABELS, network_spec=spec, strict=True), model(), loaders())
    given = calls.decompose[0]
    assert given.parent.network.config.output == "label"
    for rows, seed in ((given.train, 0), (given.validation, 1)):
        right = models.token_data(96, seed)[2]
        assert sorted(rows.targets.tolist()) == sorted(right.tolist())
    x, _, y = models.token_data(96, 0)
    by_row = {tuple(values): target for values, target in zip(x.tolist(), y.tolist(), strict=True)}
    shown = zip(given.train.values.tolist(), given.train.targets.tolist(), strict=True)
    assert all(by_row[tuple(values)] == target for values, target in shown)


def test_a_single_row_with_two_ones_makes_it_several(calls):
    def two(y):
        y[-1] = torch.tensor([1.0, 1.0, 0.0])
        return y

    fit(ModuleDecomposition(models.LABELS, strict=True), answers.Several(), loaders(two))
    assert calls.decompose[0].parent.network.config.output == "multilabel"
    with pytest.raises(MisconfigurationException, match="rows with none or several of the labels"):
        callback = ModuleDecomposition(models.LABELS, network_spec={"kind": "label"})
        callback.decompose_checkpoint(None, models.Classifier(), loaders(lambda y: y * 0)[0])


def test_several_labels_can_be_said(calls):
    spec = {"kind": "multilabel"}
    fit(ModuleDecomposition(models.LABELS, network_spec=spec, strict=True), None, loaders())
    assert calls.decompose[0].parent.network.config.output == "multilabel"


def test_zeros_and_ones_of_steps_are_tags(calls):
    x, lengths, _ = models.token_data(64)
    first = torch.zeros(64, 7).index_fill(1, torch.tensor([0]), 1.0)
    data = DataLoader(TensorDataset(x, lengths, first), 16)
    callback = ModuleDecomposition(["no", "yes"], strict=True)
    callback.decompose_checkpoint(None, answers.Tagger(2), data, data)
    assert calls.decompose[0].parent.network.config.output == "tags"


def test_as_many_columns_as_labels():
    data = loaders(lambda y: torch.cat([y, 0 * y[:, :1]], dim=1))
    callback = ModuleDecomposition(models.LABELS)
    with pytest.raises(MisconfigurationException, match="targets of shape"):
        callback.decompose_checkpoint(None, models.Classifier(), *data)


@pytest.mark.parametrize("where", ["training", "validation"])
def test_a_later_row_with_two_ones_loses_no_training(calls, monkeypatch, where):
    """The first rows that are looked at have one label each."""
    monkeypatch.setattr("lightning_callbacks.readers.base.ENOUGH", 16)

    def two(y):
        y[order[-1]] = torch.tensor([1.0, 1.0, 0.0])
        return y

    order = torch.randperm(96, generator=torch.Generator().manual_seed(0)).tolist()
    one, other = loaders(two), loaders()
    data = (one[0], other[1]) if where == "training" else (other[0], one[1])
    with pytest.warns(UserWarning, match=f"{where} dataloader has 1 of .*: read as any number"):
        fit(ModuleDecomposition(models.LABELS, strict=True), answers.Several(), data)
    given = calls.decompose[0]
    assert given.parent.network.config.output == "multilabel"
    counts = [int((rows.targets.sum(dim=1) == 2).sum()) for rows in (given.train, given.validation)]
    assert counts == [where == "training", where == "validation"]


def test_rows_of_the_report_with_two_ones_are_left_out(calls):
    def two(y):
        y[:2] = 1.0
        return y

    callback = ModuleDecomposition(models.LABELS, report_data=loaders(two)[1], strict=True)
    with pytest.warns(UserWarning, match="report_data is left out"):
        fit(callback, models.Classifier(), loaders())
    assert calls.decompose[0].report is None


def test_large_batches_are_not_kept():
    alive = weakref.WeakSet()
    most = 0

    def batches():
        nonlocal most
        for _ in range(40):
            batch = split((torch.zeros(4, 3), torch.eye(3)[[0, 1, 2, 0]]), layout=Whole())
            alive.add(batch)
            gc.collect()
            most = max(most, len(alive))
            yield batch

    found, told = _with_one_label(batches(), None)
    assert "each of 160 training rows" in told[0]
    assert most <= 6 and len(list(found)) == 3
