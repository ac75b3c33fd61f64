"""A training with the callback, for the short examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlflow
import pytorch_lightning as L
from classifier import Classifier
from pytorch_lightning.loggers import MLFlowLogger
from tables import console, heading, percent
from texts import TextData

from lightning_callbacks import ModuleDecomposition


def train(
    name: str,
    model: Classifier,
    data: TextData,
    epochs: int,
    network_spec: Mapping[str, Any] | None = None,
) -> ModuleDecomposition:
    """Train a network; at the end of the training the callback puts its modules into MLflow.

    Args:
        name: what the network is registered as; its modules are ``<name>.<label>``.
        model: the network.
        data: texts and what is right for them.
        epochs: how long.
        network_spec: what the network and its data do not show by themselves.
    """
    modules = ModuleDecomposition(
        labels=data.labels,
        tokenizer=data.tokenizer,
        network_spec=network_spec,
        registered_model_prefix=name,
        strict=True,
    )
    logger = MLFlowLogger("examples", run_name=name, tracking_uri=mlflow.get_tracking_uri())
    trainer = L.Trainer(
        max_epochs=epochs,
        callbacks=[modules],
        logger=logger,
        log_every_n_steps=10,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(model, data)
    found = modules.decomposition
    heading(f"{name}: {len(found.modules)} modules of {found.parent.network.config.output} kind")
    for who in ("parent", "composed", "random"):
        console.print(f"{found.metric} {who}: {percent(found.figures[f'{who}_{found.metric}'])}")
    return modules
