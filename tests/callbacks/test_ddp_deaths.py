"""A rank that dies while the network is taken apart: the first goes on, the run is finished."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

import mlflow_rnnmod

SCRIPT = """
import json, os, signal, sys
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import MLFlowLogger

from lightning_callbacks import ModuleDecomposition
from lightning_callbacks.decomposer import Decomposer
from tests.callbacks import models
import mlflow_rnnmod.decomposition.decompose

torch.set_num_threads(1)
folder, uri, when = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
rank = int(os.environ.get("LOCAL_RANK", "0"))

def dying(function):
    def call(*args, **options):
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)
    return call

if when == "reading":
    Decomposer.help = dying(Decomposer.help)
else:
    module = sys.modules["mlflow_rnnmod.decomposition.decompose"]
    module.collect = dying(module.collect)

callback = ModuleDecomposition(labels=["a", "b", "c"], rule="paper", removal=0.3)
pl.seed_everything(0)
trainer = pl.Trainer(
    max_epochs=1, accelerator="cpu", devices=2, strategy="ddp", enable_progress_bar=False,
    enable_model_summary=False, enable_checkpointing=False, default_root_dir=folder,
    logger=MLFlowLogger(experiment_name="ddp", tracking_uri=uri), callbacks=[callback],
)
trainer.fit(models.Classifier(), *models.loaders())
(folder / f"rank-{rank}.json").write_text(json.dumps({"logged": callback.logged is not None}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["reading", "watching"])
def test_the_first_process_goes_on_alone(tracking_uri: str, tmp_path: Path, when: str) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    repository = str(Path(mlflow_rnnmod.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "train.py"), str(tmp_path), tracking_uri, when],
        env={**os.environ, "PYTHONPATH": repository, "GLOO_SOCKET_IFNAME": "lo"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    experiment = mlflow.get_experiment_by_name("ddp")
    runs = MlflowClient().search_runs([experiment.experiment_id])
    (run,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    assert run.info.status == "FINISHED", done.stderr[-4000:]
    found = json.loads((tmp_path / "rank-0.json").read_text())
    assert found["logged"], done.stderr[-4000:]
