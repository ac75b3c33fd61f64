"""Models that were compiled are read as what they were made from."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_callbacks.decomposer import Decomposer
from lightning_callbacks.sources import Sources
from tests.callbacks import models


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.dropout, self.last = nn.Linear(24, 8), nn.Dropout(0.3), nn.Linear(8, 3)

    def forward(self, x):
        return self.last(self.dropout(self.first(x.flatten(1)).relu()))


def parts(model):
    for name, part in list(model.named_children()):
        setattr(model, name, torch.compile(part, backend="eager"))
    return model


def in_place(model):
    model.compile(backend="eager")
    return model


def by_lightning(model):
    from pytorch_lightning.utilities.compile import from_compiled

    return from_compiled(torch.compile(model, backend="eager"))


WAYS = {"whole": lambda m: torch.compile(m, backend="eager"), "parts": parts, "in place": in_place}


@pytest.mark.parametrize("way", [*WAYS, "by lightning"])
@pytest.mark.parametrize("kind", [Dense, models.Attentive])
def test_compiled_models_are_read(kind, way):
    torch.manual_seed(0)
    plain = kind()
    if way == "by lightning" and kind is Dense:
        pytest.skip("no LightningModule")
    features = kind is Dense
    data = models.feature_data() if features else models.token_data(96)[::2]
    loader = DataLoader(TensorDataset(*data), 16)
    expected = plain.eval()(data[0]).detach()
    compiled = {**WAYS, "by lightning": by_lightning}[way](plain)
    with torch.no_grad():
        again = compiled(data[0])
    prepared = Decomposer(models.LABELS).prepare(compiled, Sources(loader))
    parent = prepared.weights_of(compiled, None)  # by names with what compiling adds
    found = parent.network.logits(parent.network.readout(prepared.rows(loader, "data")))
    torch.testing.assert_close(found.sort(0)[0], expected.sort(0)[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(again, expected, atol=1e-5, rtol=0)
