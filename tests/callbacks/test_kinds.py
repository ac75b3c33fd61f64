"""Models and batches of all kinds."""

import pytest
import torch

from lightning_callbacks import ModuleDecomposition
from mlflow_rnnmod.networks import Rows
from tests.callbacks import models
from tests.callbacks.training import fit


def lengths_loader(**options):
    return models.collated(torch.utils.data.default_collate, **options)


KINDS = {
    "lengths": (models.WithLengths, lengths_loader, {}),
    "left padding and masks": (models.WithMask, models.masked_left, {}),
    "batches of one": (models.WithLengths, lambda: lengths_loader(rows=24, size=1), {}),
    "features": (
        models.Features,
        lambda: torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(*models.feature_data()), 16
        ),
        {},
    ),
    "time first": (
        models.TimeFirst,
        lambda: models.collated(
            lambda items: (
                torch.stack([x for x, _, _ in items], dim=1),
                torch.stack([y for _, _, y in items]),
            ),
            size=10,
        ),
        {},
    ),
    "the whole batch, unknown keys": (
        models.TakesBatch,
        lambda: models.collated(
            lambda items: {
                "ids": torch.stack([x for x, _, _ in items]),
                "class": torch.stack([y for _, _, y in items]),
            }
        ),
        {"split_batch": lambda batch: (batch["ids"], batch["class"])},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_all_kinds(calls, kind):
    model, loader, options = KINDS[kind]
    _, model = fit(ModuleDecomposition(models.LABELS, **options), model(), (loader(),))
    (call,) = calls.decompose
    batch = next(iter(loader()))
    with torch.no_grad():
        if kind in ("lengths", "batches of one"):
            theirs = model.eval()(batch[0], batch[1])
            rows = Rows(batch[0], batch[1])
        elif kind == "left padding and masks":
            theirs = model.eval()(batch["input_ids"], batch["attention_mask"])["logits"]
            rows = Rows(batch["input_ids"], batch["attention_mask"].sum(1))
        elif kind == "the whole batch, unknown keys":
            theirs, rows = model.eval()(batch), Rows(batch["ids"])
        elif kind == "time first":
            theirs, rows = model.eval()(batch[0]), Rows(batch[0].T)
        else:
            theirs, rows = model.eval()(batch[0]), Rows(batch[0])
        torch.testing.assert_close(call.parent.network(rows), theirs)
    assert len(call.train) == len(loader().dataset)


def test_one_output_for_two_labels(calls):
    x, _, y = models.token_data()
    data = torch.utils.data.TensorDataset(x, (y > 0).float())
    _, model = fit(
        ModuleDecomposition(["no", "yes"]),
        models.Single(),
        (torch.utils.data.DataLoader(data, 16, shuffle=True),),
    )
    logits = calls.decompose[0].parent.network(Rows(x))
    torch.testing.assert_close(logits[:, 1:] - logits[:, :1], model.eval()(x))


def test_what_was_noticed_when_reading_is_said_before_the_training():
    class Unmasked(models.Classifier):
        def forward(self, x):
            return self.head(self.recurrent(self.embedding(x))[0][:, -1])

    callback, model = ModuleDecomposition(models.LABELS), Unmasked()
    with pytest.warns(UserWarning, match="reads its padding"):
        fit(callback, model, fast_dev_run=True)


def test_double_precision(calls):
    data = torch.utils.data.TensorDataset(*models.feature_data())
    loader = torch.utils.data.DataLoader(data, 16)
    callback = ModuleDecomposition(models.LABELS)
    fit(callback, models.Features(), (loader,), precision="64-true")
    assert calls.decompose[0].parent.network.dtype == torch.float64


def test_a_model_that_can_not_be_copied_any_more_after_training(calls):
    class Remembering(models.Classifier):
        def training_step(self, batch, batch_idx):
            self.last = super().training_step(batch, batch_idx)
            return self.last

    _, model = fit(ModuleDecomposition(models.LABELS), Remembering())
    assert torch.equal(calls.decompose[0].parent.network.output.weight, model.head.weight)
