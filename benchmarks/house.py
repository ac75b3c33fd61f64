"""How the package's code is arranged: sizes of files, and how many of them one thing passes.

``python -m benchmarks.house`` prints a table. "Passes" are counted by running: a small network is
trained with the callback, and one text is asked of what that logged; every file of the packages in
which a function was called counts.
"""

from __future__ import annotations

import ast
import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click
import mlflow
import pandas as pd
import pytorch_lightning as L
import torch
from pytorch_lightning.loggers import MLFlowLogger
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_callbacks
import mlflow_rnnmod
from lightning_callbacks import ModuleDecomposition
from mlflow_rnnmod.answers import ANSWERS
from mlflow_rnnmod.inputs import INPUTS

ROOTS = tuple(
    Path(str(package.__file__)).parent for package in (mlflow_rnnmod, lightning_callbacks)
)
_SHORT, _LONG = 60, 400
_DOORS = ("answers", "inputs")
_LABELS = ("one", "two", "three")


def files() -> list[Path]:
    """All Python files of the two packages."""
    return sorted(path for root in ROOTS for path in root.rglob("*.py"))


def branches(path: Path) -> Iterator[int]:
    """Lines that compare something with the name of a kind of answer or of input."""
    kinds = {*ANSWERS, *INPUTS}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Compare):
            sides = [part for side in (node.left, *node.comparators) for part in ast.walk(side)]
            if any(isinstance(side, ast.Constant) and side.value in kinds for side in sides):
                yield node.lineno


@contextmanager
def passed() -> Iterator[set[Path]]:
    """Files of the packages in which anything was called, in all threads."""
    found: set[Path] = set()
    names: set[str] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            names.add(frame.f_code.co_filename)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        found.update(path for path in map(Path, names) if any(r in path.parents for r in ROOTS))


class _Classifier(L.LightningModule):
    """A network as people write it."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, 8, padding_idx=0)
        self.lstm = nn.LSTM(8, 12, batch_first=True)
        self.head = nn.Linear(12, len(_LABELS))

    def forward(self, ids: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.lstm(self.embedding(ids))[0].amax(dim=1))

    def training_step(self, batch: Any, _: int) -> Tensor:
        """The loss."""
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    validation_step: Callable[..., Any] = training_step

    def configure_optimizers(self) -> Any:
        """Adam."""
        return torch.optim.Adam(self.parameters(), 0.01)


def trips(folder: Path) -> dict[str, set[Path]]:
    """What one fit, and one text, pass on their way."""
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    words = {word: index for index, word in enumerate(("[PAD]", "[UNK]", *"abcdefghij"))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ids = torch.randint(2, len(words), (240, 6), generator=torch.Generator().manual_seed(0))
    ids[::2, 4:] = 0
    data = DataLoader(TensorDataset(ids, ids[:, 0] % len(_LABELS)), batch_size=32)
    callback = ModuleDecomposition(
        labels=_LABELS, tokenizer=tokenizer, registered_model_prefix="house", strict=True
    )
    experiment = mlflow.create_experiment("house", artifact_location=(folder / "files").as_uri())
    trainer = L.Trainer(
        max_epochs=2, callbacks=[callback], accelerator="cpu", enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
        logger=MLFlowLogger(
            mlflow.get_experiment(experiment).name, tracking_uri=mlflow.get_tracking_uri()
        ),
    )  # fmt: skip
    with passed() as fit:
        trainer.fit(_Classifier(len(words)), data, data)
    uris = [callback.logged.uris[label] for label in _LABELS]
    composite = mlflow_rnnmod.compose(uris)
    info = mlflow_rnnmod.log_model(composite, name="all")
    model = mlflow.pyfunc.load_model(info.model_uri)
    with passed() as text:
        model.predict(pd.DataFrame({"text": ["a b c"]}))
    return {"fit": fit, "text": text}


@click.command()
def main() -> None:
    """Print the table."""
    warnings.filterwarnings("ignore")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    for name in ("pytorch_lightning", "mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    lines = {path: len(path.read_text().splitlines()) for path in files()}
    outside = [path for path in lines if not set(_DOORS) & {p.name for p in path.parents}]
    asked = {path: list(branches(path)) for path in outside}
    with tempfile.TemporaryDirectory() as folder:
        found = trips(Path(folder))
    short = [path for path, count in lines.items() if count < _SHORT]
    table = Table("", "now", "at most")
    for name, value, most in (
        ("lines", sum(lines.values()), 20_500),
        (f"files under {_SHORT} lines", len(short), 6),
        ("... packages' faces left out", sum(p.name != "__init__.py" for p in short), ""),
        (f"files over {_LONG} lines", sum(count > _LONG for count in lines.values()), 0),
        ("comparisons with a kind's name outside of its door", sum(map(len, asked.values())), 20),
        ("files that one text passes", len(found["text"]), 15),
        ("files that one fit passes", len(found["fit"]), 50),
    ):
        table.add_row(name, f"{value:,}", str(most))
    Console().print(table)


if __name__ == "__main__":
    main()
