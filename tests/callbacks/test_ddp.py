"""Two processes train together on the CPU; both watch, and the first alone logs."""

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
import json, os, sys
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import MLFlowLogger

from lightning_callbacks import ModuleDecomposition
from tests.callbacks import models
import mlflow_rnnmod.decomposition.decompose

torch.set_num_threads(1)
folder, uri = Path(sys.argv[1]), sys.argv[2]
module = sys.modules["mlflow_rnnmod.decomposition.decompose"]
watched, original = [], module.collect

def spy(network, sample, **options):
    watched.append(len(sample))
    return original(network, sample, **options)

module.collect = spy
callback = ModuleDecomposition(labels=["a", "b", "c"], rule="paper", removal=0.3, strict=True)
pl.seed_everything(0)
trainer = pl.Trainer(
    max_epochs=1, accelerator="cpu", devices=2, strategy="ddp", enable_progress_bar=False,
    enable_model_summary=False, enable_checkpointing=False, default_root_dir=folder,
    logger=MLFlowLogger(experiment_name="ddp", tracking_uri=uri), callbacks=[callback],
)
model = models.Classifier()
trainer.fit(model, *models.loaders())
logged = callback.logged is not None
found = {"watched": list(watched), "world": trainer.world_size, "logged": logged}
if trainer.is_global_zero:
    with_others = callback.decomposition
    watched.clear()
    alone = callback.decompose_checkpoint(None, model, *models.loaders())
    found["alone"] = list(watched)
    found["same"] = all(
        torch.equal(one.trunk.keep[name], other.trunk.keep[name])
        for one, other in zip(with_others.modules, alone.modules)
        for name in one.trunk.keep
    )
    found["full"] = all(m.trunk.full for m in alone.modules)
(folder / f"rank-{trainer.global_rank}.json").write_text(json.dumps(found))
"""


@pytest.mark.slow
def test_ddp(tracking_uri: str, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    repository = str(Path(mlflow_rnnmod.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "train.py"), str(tmp_path), tracking_uri],
        env={**os.environ, "PYTHONPATH": repository, "GLOO_SOCKET_IFNAME": "lo"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2))
    assert first["world"] == 2
    (whole,) = first["alone"]
    assert first["watched"] == [(whole + 1) // 2]
    assert second["watched"] == [whole // 2]
    assert first["same"] and not first["full"]
    assert (first["logged"], second["logged"]) == (True, False)
    # One run of the training with its three modules; the second decomposition logged to it again.
    experiment = mlflow.get_experiment_by_name("ddp")
    client = MlflowClient()
    runs = client.search_runs([experiment.experiment_id])  # figures of modules: a child run
    assert sum("mlflow.parentRunId" not in run.data.tags for run in runs) == 1
    models = client.search_logged_models(
        [experiment.experiment_id], filter_string="tags.`rnnmod.kind` = 'module'"
    )
    assert len(list(models)) == 2 * 3
