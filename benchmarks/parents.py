"""Parents for the benchmarks: trained by Lightning, cached by a digest of their settings."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytorch_lightning as L
import torch
from torch import Tensor

from benchmarks.classifiers import Batches, ClassifierTraining, RecurrentClassifier, Training
from benchmarks.convolutional import given_weights, image_parent, image_weights
from benchmarks.data import (
    ImageData,
    TextData,
    character_tokenizer,
    number_tokenizer,
    token_tokenizer,
    word_tokenizer,
)
from benchmarks.dense import CELL, dense_parent, train_dense
from benchmarks.resnet import ImageTraining
from benchmarks.written import WRITTEN, written_parent
from mlflow_rnnmod._digest import canonical_json, digest_text
from mlflow_rnnmod.networks import NetworkConfig, Parent, RecurrentNetwork, TextEncoder

AnyTraining: TypeAlias = Training | ImageTraining

__all__ = ["AnyTraining", "Training", "to_parent", "train_parent", "trained_weights"]

TOKENIZERS = {
    "words": word_tokenizer,
    "numbers": number_tokenizer,
    "tokens": token_tokenizer,
    "characters": character_tokenizer,
}


def train_parent(
    data: TextData, training: AnyTraining, cache: Path | None, min_epochs: int | None = None
) -> tuple[Parent, float]:
    """A parent for ``data``, from the cache where it is there.

    Returns:
        the parent, with the weights of its best validation epoch, and the seconds that training
        took (when it took place).
    """
    if isinstance(training, ImageTraining):
        assert isinstance(data, ImageData)
        kept = trained_weights(data, training, cache, min_epochs)
        return image_parent(kept["weights"], data, training), kept["seconds"]
    kept = trained_weights(data, training, cache, min_epochs)
    if training.cell == CELL:
        return dense_parent(kept["weights"], data, training), kept["seconds"]
    encoder = TextEncoder(kept["tokenizer"])
    if training.cell in WRITTEN:
        return written_parent(kept["weights"], data, training, encoder), kept["seconds"]
    if "config" in kept:
        network = RecurrentNetwork(NetworkConfig.from_dict(kept["config"]))
        network.load_state_dict(kept["weights"])
        return Parent(network, encoder), kept["seconds"]
    return to_parent(kept["weights"], data, training, encoder), kept["seconds"]


def trained_weights(
    data: TextData, training: AnyTraining, cache: Path | None, min_epochs: int | None = None
) -> dict[str, Any]:
    """What the cache holds of a parent, which is trained first where it is not there.

    Returns:
        ``weights`` of a :class:`~benchmarks.classifiers.RecurrentClassifier`, ``tokenizer`` (its
        JSON; not of vectors), ``seconds``, ``metric`` (on validation), ``epochs`` and ``key``.
        Parents of the first release's cache have a ``config`` and the weights of a
        ``RecurrentNetwork``.
    """
    key = [data.name, data.names, training.key(), min_epochs]
    if isinstance(training, ImageTraining):
        assert isinstance(data, ImageData)
        given = given_weights(data, training)
        if given is not None:
            return {"weights": given, "seconds": 0.0, "epochs": 1}
        state = cache / f"{_name(key)}.state" if cache else None
        return cached(key, cache, lambda: image_weights(data, training, state))
    return cached(key, cache, lambda: _train(data, training, min_epochs or 0))


def cached(key: Any, cache: Path | None, train: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What is in the cache under ``key``; ``train`` makes it where it is not there.

    Returns:
        what ``train`` returned, with the ``seconds`` it took and ``key`` as text.
    """
    file = cache / f"{_name(key)}.pt" if cache else None
    if file and file.exists():
        return torch.load(file, weights_only=True)
    started = time.perf_counter()
    kept = train()
    kept |= {"seconds": time.perf_counter() - started, "key": canonical_json(key)}
    if file:
        save(kept, file)
    return kept


def _name(key: Any) -> str:
    return digest_text(canonical_json(key))[:20]


def _train(data: TextData, training: Training, min_epochs: int) -> dict[str, Any]:
    if training.cell == CELL:
        return train_dense(data, training, fit, min_epochs)
    L.seed_everything(training.seed, verbose=False)
    tokenizer = TOKENIZERS[training.words](data.texts["train"], training.vocabulary, training.steps)
    encoder = TextEncoder(tokenizer)
    network: Any = WRITTEN.get(training.cell, RecurrentClassifier)(
        tokenizer.get_vocab_size(), len(data.names), training, data.output_steps
    )
    end = None if data.end_label is None else data.names.index(data.end_label)
    tagged = data.output == "tags"
    train, validation = (data.rows(s, encoder) for s in ("train", "validation"))
    best = fit(
        ClassifierTraining(network, training, data.output, end),
        Batches(train, training.batch_size, True, training.bucketed, tagged),
        Batches(validation, 512, False, training.bucketed, tagged),
        training.epochs,
        training.patience,
        min_epochs,
    )
    return {**best.found("network."), "tokenizer": encoder.json}


def to_parent(
    weights: dict[str, Tensor], data: TextData, training: Training, encoder: TextEncoder
) -> Parent:
    """A trained classifier as a parent."""
    extra: dict[str, Any] = {}
    if training.feed != "steps":
        extra = {"feed": training.feed, "steps": training.steps}
    if training.feed == "repeat":
        extra["output_steps"] = data.output_steps
    if data.output == "list":
        extra["end_label"] = data.end_label
    config = NetworkConfig(
        "tokens",
        len(weights["embedding.weight"]),
        training.embedding,
        "rnn_tanh" if training.cell == "rnn" else training.cell,  # type: ignore[arg-type]
        ((training.units,),) * training.layers,
        data.names,
        readout=training.readout,  # type: ignore[arg-type]
        output=data.output,  # type: ignore[arg-type]
        pad_index=0,
        **extra,
    )
    network = RecurrentNetwork(config)
    found = {"embedding.weight": weights["embedding.weight"]}
    for layer in range(training.layers):
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            source = weights[f"recurrent.{name}_l{layer}"]
            found[f"recurrent.{layer}.fwd.{name}_l0"] = source
    found.update({"output.weight": weights["head.weight"], "output.bias": weights["head.bias"]})
    network.load_state_dict({name: w.detach().clone() for name, w in found.items()})
    return Parent(network, encoder)


def fit(
    module: L.LightningModule,
    train: Any,
    validation: Any,
    epochs: int,
    patience: int,
    min_epochs: int = 0,
) -> BestWeights:
    """Train until validation's ``metric`` has not risen for ``patience`` epochs; the best weights.

    Args:
        module: logs ``metric`` at the end of each validation epoch.
        train: batches.
        validation: batches.
        epochs: at most.
        patience: see above.
        min_epochs: at least, whatever the metric does.
    """
    for name in ("lightning.pytorch", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    best = BestWeights(patience, min_epochs)
    trainer = L.Trainer(
        max_epochs=epochs,
        callbacks=[best],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        accelerator="cpu",
        gradient_clip_val=1.0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, train, validation)
    return best


def save(kept: dict[str, Any], file: Path) -> None:
    """Write ``kept`` so that a file of this name is always whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".part")
    torch.save(kept, unfinished)
    unfinished.replace(file)


class BestWeights(L.Callback):
    """Stops after ``patience`` epochs without a better validation metric; keeps the best."""

    def __init__(self, patience: int, min_epochs: int) -> None:
        self.patience, self.min_epochs = patience, min_epochs
        self.best, self.waited, self.epochs = -1.0, 0, 0
        self.weights: dict[str, Tensor] = {}
        self.started = time.perf_counter()

    def found(self, prefix: str) -> dict[str, Any]:
        """The best weights, without ``prefix`` in their names, and how they were found."""
        weights = {name.removeprefix(prefix): weight for name, weight in self.weights.items()}
        return {"weights": weights, "metric": self.best, "epochs": self.epochs}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep or stop."""
        self.epochs += 1
        metric = float(trainer.callback_metrics["metric"])
        LOG.info("epoch %d: %.4f, %.0f s", self.epochs, metric, time.perf_counter() - self.started)
        if metric > self.best:
            self.best, self.waited = metric, 0
            self.weights = {k: v.detach().clone() for k, v in pl_module.state_dict().items()}
        else:
            self.waited += 1
        trainer.should_stop = self.waited >= self.patience and self.epochs >= self.min_epochs


LOG = logging.getLogger(__name__)
