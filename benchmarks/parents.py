"""Parents for the benchmarks: trained by Lightning, cached by a digest of their settings."""

from __future__ import annotations

import logging
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import pytorch_lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.data import TextData, word_tokenizer
from mlflow_rnnmod.network import NetworkConfig, Parent, RecurrentNetwork, Rows, TextEncoder
from mlflow_rnnmod.network.digest import canonical_json, digest_text


@dataclass(frozen=True)
class Training:
    """Settings of one parent; the cache's key together with the data's name and labels."""

    cell: str = "lstm"
    layers: int = 1
    units: int = 100
    embedding: int = 50
    steps: int = 15
    vocabulary: int = 10_000
    epochs: int = 30
    patience: int = 3
    batch_size: int = 32
    learning_rate: float = 1e-3
    dropout: float = 0.0
    # Without it the unknown word is never seen in training, and noise to the network ever after.
    word_dropout: float = 0.1
    weight_decay: float = 0.0
    seed: int = 0


class SequenceClassifier(L.LightningModule):
    """The paper's many-to-one network: embedding, recurrent layers, last state, output layer."""

    def __init__(self, vocabulary: int, labels: int, training: Training) -> None:
        super().__init__()
        self.training_settings = training
        kind = {"lstm": nn.LSTM, "gru": nn.GRU}.get(training.cell, nn.RNN)
        extra = {"nonlinearity": "relu"} if training.cell == "rnn_relu" else {}
        self.embedding = nn.Embedding(vocabulary, training.embedding, padding_idx=0)
        self.recurrent = kind(
            training.embedding, training.units, training.layers, batch_first=True, **extra
        )
        self.dropout = nn.Dropout(training.dropout)
        self.head = nn.Linear(training.units, labels)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Logits ``(rows, labels)`` of token ids ``(rows, steps)``."""
        out, _ = self.recurrent(self.dropout(self.embedding(x)))
        return self.head(self.dropout(out[torch.arange(len(x)), lengths - 1]))

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        """Cross-entropy, with some words replaced by the unknown one."""
        x, lengths, y = batch
        drop = torch.rand(x.shape) < self.training_settings.word_dropout
        x = torch.where(drop & (x != 0), 1, x)
        return nn.functional.cross_entropy(self(x, lengths), y)

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        """Accuracy."""
        x, lengths, y = batch
        self.log("accuracy", (self(x, lengths).argmax(1) == y).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        settings = self.training_settings
        return torch.optim.Adam(
            self.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
        )


def to_parent(model: SequenceClassifier, data: TextData, encoder: TextEncoder) -> Parent:
    """The trained classifier as a parent."""
    settings = model.training_settings
    config = NetworkConfig(
        "tokens",
        model.embedding.num_embeddings,
        settings.embedding,
        "rnn_tanh" if settings.cell == "rnn" else settings.cell,  # type: ignore[arg-type]
        ((settings.units,),) * settings.layers,
        data.names,
        readout="last_valid",
        pad_index=0,
    )
    network = RecurrentNetwork(config)
    weights = {"embedding.weight": model.embedding.weight}
    for layer in range(settings.layers):
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            source = getattr(model.recurrent, f"{name}_l{layer}")
            weights[f"recurrent.{layer}.fwd.{name}_l0"] = source
    weights.update({"output.weight": model.head.weight, "output.bias": model.head.bias})
    network.load_state_dict({name: w.detach().clone() for name, w in weights.items()})
    return Parent(network, encoder)


def _loader(rows: Rows, batch_size: int, shuffle: bool) -> DataLoader:
    assert rows.lengths is not None and rows.targets is not None
    dataset = TensorDataset(rows.values, rows.lengths.clamp(min=1), rows.targets)
    return DataLoader(dataset, batch_size, shuffle=shuffle)


def train_parent(
    data: TextData, training: Training, cache: Path | None, min_epochs: int | None = None
) -> tuple[Parent, float]:
    """A parent for ``data``, from the cache where it is there.

    Returns:
        the parent, with the weights of its best validation epoch, and the seconds that training
        took (when it took place).
    """
    key = digest_text(canonical_json([data.name, data.names, asdict(training), min_epochs]))[:20]
    file = cache / f"{key}.pt" if cache else None
    if file and file.exists():
        kept = torch.load(file, weights_only=True)
        encoder = TextEncoder(kept["tokenizer"])
        network = RecurrentNetwork(NetworkConfig.from_dict(kept["config"]))
        network.load_state_dict(kept["weights"])
        return Parent(network, encoder), kept["seconds"]
    started = time.perf_counter()
    L.seed_everything(training.seed, verbose=False)
    for name in ("lightning.pytorch", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    tokenizer = word_tokenizer(data.texts["train"], training.vocabulary, training.steps)
    encoder = TextEncoder(tokenizer)
    model = SequenceClassifier(tokenizer.get_vocab_size(), len(data.names), training)
    best = _BestWeights(training.patience, min_epochs or 0)
    trainer = L.Trainer(
        max_epochs=training.epochs,
        callbacks=[best],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        gradient_clip_val=1.0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(
            model,
            _loader(data.rows("train", encoder), training.batch_size, shuffle=True),
            _loader(data.rows("validation", encoder), 512, shuffle=False),
        )
    model.load_state_dict(best.weights)
    parent = to_parent(model, data, encoder)
    seconds = time.perf_counter() - started
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(
            {
                "config": parent.network.config.to_dict(),
                "weights": parent.network.state_dict(),
                "tokenizer": encoder.json,
                "seconds": seconds,
            },
            file,
        )
    return parent, seconds


class _BestWeights(L.Callback):
    """Stops after ``patience`` epochs without a better validation accuracy; keeps the best."""

    def __init__(self, patience: int, min_epochs: int) -> None:
        self.patience, self.min_epochs = patience, min_epochs
        self.best, self.waited, self.epochs = -1.0, 0, 0
        self.weights: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep or stop."""
        if trainer.sanity_checking:
            return
        self.epochs += 1
        accuracy = float(trainer.callback_metrics["accuracy"])
        if accuracy > self.best:
            self.best, self.waited = accuracy, 0
            self.weights = {k: v.detach().clone() for k, v in pl_module.state_dict().items()}
        else:
            self.waited += 1
        trainer.should_stop = self.waited >= self.patience and self.epochs >= self.min_epochs
