"""A dense network: a picture in, a digit out; a digit that it hardly knows is replaced."""

from __future__ import annotations

import mlflow
import pandas as pd
import pytorch_lightning as L
import torch
from pytorch_lightning.loggers import MLFlowLogger
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import mlflow_rnnmod
from lightning_callbacks import ModuleDecomposition

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SCARCE = "eight"


class Dense(L.LightningModule):
    """Pictures ``(rows, 8, 8)`` to logits ``(rows, 10)``, through two layers of 49 units."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, 49),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(49, 49),
            nn.ReLU(),
            nn.Linear(49, len(DIGITS)),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits."""
        return self.layers(pictures)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Cross entropy."""
        return cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Share of right answers."""
        self.log("accuracy", (self(batch[0]).argmax(dim=1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def load() -> tuple[Tensor, Tensor]:
    """Pictures float32 ``(rows, 8, 8)`` in [0, 1], and digits ``(rows,)``."""
    digits = load_digits()
    return torch.tensor(digits.images / 16, dtype=torch.float32), torch.tensor(digits.target)


def train(name: str, rows: TensorDataset, validation: TensorDataset, epochs: int) -> None:
    """A network, whose modules are registered as ``<name>.<digit>`` when it is trained."""
    modules = ModuleDecomposition(labels=DIGITS, registered_model_prefix=name, strict=True)
    trainer = L.Trainer(
        max_epochs=epochs,
        callbacks=[modules],
        logger=MLFlowLogger("examples", run_name=name, tracking_uri=mlflow.get_tracking_uri()),
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(Dense(), DataLoader(rows, 32, shuffle=True), DataLoader(validation, 256))


def main(epochs: int = 30) -> dict[str, float]:
    """Train two networks, mend the first with a module of the second."""
    L.seed_everything(0, verbose=False)
    pictures, digits = load()
    order = torch.randperm(len(digits))
    parts = [TensorDataset(pictures[part], digits[part]) for part in order.split([900, 400, 497])]
    fit, validation, test = parts
    scarce = digits[order[:900]] == DIGITS.index(SCARCE)
    few = torch.cat([(~scarce).nonzero()[:, 0], scarce.nonzero()[:4, 0]])
    train("digits", TensorDataset(*fit[few]), validation, epochs)
    train("more-digits", fit, validation, epochs)

    every = mlflow_rnnmod.compose([f"models:/digits.{digit}/1" for digit in DIGITS])
    mended = mlflow_rnnmod.replace(every, SCARCE, f"models:/more-digits.{SCARCE}/1")
    info = mlflow_rnnmod.log_model(mended, name="digits", registered_model_name="mended-digits")
    model = mlflow.pyfunc.load_model(info.model_uri)

    shown, right = test[:]
    truth = [DIGITS[digit] for digit in right]
    found = {
        "before": every.predict(shown.flatten(1)),
        "mended": model.predict(pd.DataFrame({"features": shown.flatten(1).tolist()})),
    }
    shares = {}
    for who, answers in found.items():
        for label in (None, SCARCE):
            of = [a == t for a, t in zip(answers, truth, strict=True) if label in (None, t)]
            shares[f"{who} {label or 'all'}"] = sum(of) / len(of)
    for who, share in shares.items():
        print(f"{who}: {100 * share:.1f} %")
    return shares


if __name__ == "__main__":
    main()
