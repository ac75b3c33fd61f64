"""A convolutional network: a picture's file in, a digit out; a digit is replaced, and it is served.

The network is a small ResNet. Its modules take files of PNG or JPEG, since the callback is told
what the training's pictures went through (`image=`), and stores it beside the weights.
"""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import mlflow
import pandas as pd
import pytorch_lightning as L
import torch
from PIL import Image
from pytorch_lightning.loggers import MLFlowLogger
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import mlflow_rnnmod
from lightning_callbacks import ModuleDecomposition
from mlflow_rnnmod import ImagePreparation

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SCARCE = "eight"
MEAN, STD = 0.305, 0.376


class Block(nn.Module):
    """Two convolutions, and the input added to what they make of it."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.past: nn.Module = nn.Identity()
        if stride > 1:
            self.past = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """From ``(rows, inputs, height, width)``."""
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.past(x))


class ResNet(L.LightningModule):
    """Pictures ``(rows, 1, 8, 8)`` to logits ``(rows, 10)``."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.blocks = nn.Sequential(Block(width, width), Block(width, 2 * width, stride=2))
        self.head = nn.Linear(2 * width, len(DIGITS))

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.blocks(self.stem(pictures)).mean(dim=(2, 3)))

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Cross entropy."""
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Share of right answers."""
        self.log("accuracy", (self(batch[0]).argmax(dim=1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def load() -> tuple[Tensor, Tensor]:
    """Pictures uint8 ``(rows, 1, 8, 8)``, and digits ``(rows,)``."""
    digits = load_digits()
    pictures = torch.tensor(digits.images / 16 * 255).round().to(torch.uint8)
    return pictures[:, None], torch.tensor(digits.target)


def png(picture: Tensor) -> bytes:
    """A picture as a file."""
    file = io.BytesIO()
    Image.fromarray(picture[0].numpy()).save(file, "PNG")
    return file.getvalue()


def train(name: str, rows: TensorDataset, validation: TensorDataset, epochs: int) -> None:
    """A network, whose modules are registered as ``<name>.<digit>`` when it is trained."""
    modules = ModuleDecomposition(
        labels=DIGITS,
        image=ImagePreparation(mean=MEAN, std=STD),
        registered_model_prefix=name,
        strict=True,
    )
    trainer = L.Trainer(
        max_epochs=epochs,
        callbacks=[modules],
        logger=MLFlowLogger("examples", run_name=name, tracking_uri=mlflow.get_tracking_uri()),
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(ResNet(), DataLoader(rows, 32, shuffle=True), DataLoader(validation, 256))
    figures = modules.decomposition.figures
    print(
        f"{name}: {100 * figures['parent_accuracy']:.1f} %, its modules together "
        f"{100 * figures['composed_accuracy']:.1f} %, with {100 * figures['units_kept']:.0f} % of "
        "the channels"
    )


def ask_server(uri: str, files: Sequence[bytes]) -> list[str]:
    """What ``mlflow models serve`` answers to files, which JSON holds as base64."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {
        **os.environ,
        "PATH": beside,
        "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(),
    }
    with subprocess.Popen(
        [*command, "-m", uri, "-p", str(port)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as server:
        try:
            address = f"http://127.0.0.1:{port}"
            while True:
                if server.poll() is not None:
                    raise RuntimeError(f"{' '.join(command)} ended with {server.returncode}.")
                try:
                    urllib.request.urlopen(f"{address}/ping", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.3)
            rows = [{"image": base64.b64encode(file).decode()} for file in files]
            request = urllib.request.Request(
                f"{address}/invocations",
                json.dumps({"dataframe_records": rows}).encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read())["predictions"]
        finally:
            if server.poll() is None:
                os.killpg(server.pid, 15)  # the command starts others in its session


def main(epochs: int = 15, serve: bool = True) -> dict[str, float]:
    """Train two networks, mend the first with a module of the second, and serve it."""
    L.seed_everything(0, verbose=False)
    pictures, digits = load()
    order = torch.randperm(len(digits))
    prepared = (pictures / 255 - MEAN) / STD
    parts = [TensorDataset(prepared[part], digits[part]) for part in order.split([1000, 300, 497])]
    fit, validation, _ = parts
    scarce = digits[order[:1000]] == DIGITS.index(SCARCE)
    few = torch.cat([(~scarce).nonzero()[:, 0], scarce.nonzero()[:2, 0]])
    train("pictures", TensorDataset(*fit[few]), validation, epochs)
    train("more-pictures", fit, validation, epochs)

    every = mlflow_rnnmod.compose([f"models:/pictures.{digit}/1" for digit in DIGITS])
    mended = mlflow_rnnmod.replace(every, SCARCE, f"models:/more-pictures.{SCARCE}/1")
    info = mlflow_rnnmod.log_model(mended, name="pictures", registered_model_name="mended-pictures")
    model = mlflow.pyfunc.load_model(info.model_uri)

    files = [png(picture) for picture in pictures[order[1300:]]]
    truth = [DIGITS[digit] for digit in digits[order[1300:]]]
    found = {
        "before": every.predict(files),
        "mended": model.predict(pd.DataFrame({"image": files})),
    }
    shares = {}
    for who, answers in found.items():
        for label in (None, SCARCE):
            of = [a == t for a, t in zip(answers, truth, strict=True) if label in (None, t)]
            shares[f"{who} {label or 'all'}"] = sum(of) / len(of)
    for who, share in shares.items():
        print(f"{who}: {100 * share:.1f} %")
    if serve:
        answers = ask_server(info.model_uri, files[:5])
        print(f"served: {', '.join(answers)}; right: {', '.join(truth[:5])}")
        shares["served"] = sum(a == b for a, b in zip(answers, truth, strict=False)) / 5
    return shares


if __name__ == "__main__":
    main()
