"""Networks of images by the callback: what their images went through is told by ``image=``."""

import re

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_callbacks import Decomposer, ModuleDecomposition, Sources
from mlflow_rnnmod import ImagePreparation
from mlflow_rnnmod.inputs.pixels import png_of
from mlflow_rnnmod.pages.page import page
from tests.callbacks.training import fit

LABELS = ["dark", "bright"]
PREPARATION = ImagePreparation(mean=0.5, std=0.25)


class Convolutional(pl.LightningModule):
    def __init__(self, channels=3):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(8, 2),
        )  # fmt: skip

    def forward(self, images):
        return self.layers(images)

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def pixels(rows=96):
    draw = torch.Generator().manual_seed(0)
    found = torch.randint(0, 150, (rows, 3, 8, 8), generator=draw, dtype=torch.uint8)
    targets = torch.arange(rows) % 2
    return found + (targets * 100).to(torch.uint8)[:, None, None, None], targets


def loader():
    images, targets = pixels()
    return DataLoader(TensorDataset((images / 255 - 0.5) / 0.25, targets), 16)


@pytest.mark.parametrize("image", [PREPARATION, {"mean": 0.5, "std": 0.25}])
def test_modules_take_files(image):
    callback = ModuleDecomposition(LABELS, image=image, removal=0.2)
    callback.modules_to_log = lambda decomposition: []
    _, model = fit(callback, Convolutional(), (loader(), loader()), max_epochs=4)
    found = callback.decomposition
    assert found.parent.image == ImagePreparation((8, 8), 3, 0.5, 0.25)
    images, _ = pixels()
    values = (images / 255 - 0.5) / 0.25
    with torch.no_grad():
        expected = model.eval()(values)
    files = [png_of(each) for each in images]
    rows = found.parent.rows(found.parent.input.check(files, found.parent.input_size))
    torch.testing.assert_close(found.parent.network(rows), expected, rtol=1e-4, atol=1e-4)
    shown = re.findall(r'src="data:image/png;base64', page(found))
    assert len(shown) == sum(map(len, found.pictures.values())) > 0


def test_without_it_modules_take_arrays(calls):
    fit(ModuleDecomposition(LABELS), Convolutional(), (loader(),))
    (call,) = calls.decompose
    assert call.parent.image is None and call.parent.input_kind == "pixels"
    assert call.train.values.shape == (96, 3, 8, 8)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (ImagePreparation(size=16), r"image= makes \(3, 16, 16\).*the model reads \(3, 8, 8\)"),
        ({"mean": (0.1, 0.2)}, "image=.*channels=2"),
        ({"zoom": 2}, "image=.*zoom"),
        (lambda picture: picture, "image=.*none of the transforms"),
    ],
)
def test_what_does_not_fit_is_an_error_before_the_first_step(image, said):
    model = Convolutional()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with pytest.raises((MisconfigurationException, ValueError), match=said):
        fit(ModuleDecomposition(LABELS, image=image), model, (loader(),))
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())


def test_models_of_other_inputs_have_none():
    rows = DataLoader(TensorDataset(torch.randn(64, 5, 3), torch.arange(64) % 2), 16)

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.lstm(x)[0][:, -1])

    decomposer = Decomposer(LABELS, image=PREPARATION)
    with pytest.raises(ValueError, match="image is given, but the model reads features"):
        decomposer.prepare(Recurrent(), Sources(rows, rows))
