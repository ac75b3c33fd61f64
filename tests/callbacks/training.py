"""Short trainings with the callback."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from tests.callbacks import models

ROOT = Path(__file__).parents[2]


def run_python(code, tmp_path):
    """Run code in a process of its own, where nothing is imported yet."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def make_trainer(*callbacks, **options):
    options = {
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        **options,
    }
    return pl.Trainer(callbacks=list(callbacks), **options)


def fit(callback, model=None, data=None, *others, **options):
    model = models.Classifier() if model is None else model
    data = models.loaders() if data is None else data
    trainer = make_trainer(callback, *others, **options)
    trainer.fit(model, *data)
    return trainer, model


def states(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


class Data(pl.LightningDataModule):
    labels = ("a", "b", "c")

    def setup(self, stage):
        self.stages = [*getattr(self, "stages", []), stage]

    def train_dataloader(self):
        return models.token_loader()

    def val_dataloader(self):
        return models.token_loader(32, 1, False)

    def test_dataloader(self):
        return models.token_loader(11, 2, False)
