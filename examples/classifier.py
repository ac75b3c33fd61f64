"""An ordinary Lightning model: embedding, an LSTM, its state after the last token, output layer."""

from __future__ import annotations

import pytorch_lightning as L
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from torchmetrics.functional.classification import multiclass_accuracy


class Classifier(L.LightningModule):
    """Token ids in, one label out.

    Args:
        vocabulary: number of token ids; 0 is padding, 1 the unknown token.
        labels: number of labels.
        units: hidden units of the LSTM.
        learning_rate: at its peak; it rises and falls once over the training.
        token_dropout: share of tokens that training replaces by the unknown one, so that the model
            has seen texts with tokens that it does not know.
    """

    def __init__(
        self,
        vocabulary: int,
        labels: int,
        units: int = 96,
        learning_rate: float = 8e-3,
        token_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.embedding = nn.Embedding(vocabulary, 48, padding_idx=0)
        self.lstm = nn.LSTM(48, units, batch_first=True)
        self.dropout = nn.Dropout(0.3)
        self.output = nn.Linear(units, labels)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(rows, labels)`` of token ids ``(rows, steps)``."""
        lengths = (x != 0).sum(dim=1).clamp(min=1).cpu()
        embedded = self.dropout(self.embedding(x))
        packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        _, (state, _) = self.lstm(packed)
        return self.output(self.dropout(state[-1]))

    def loss(self, answers: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy."""
        return nn.functional.cross_entropy(answers, y)

    def accuracy(self, answers: Tensor, y: Tensor) -> Tensor:
        """Share of right answers."""
        return multiclass_accuracy(answers, y, num_classes=answers.shape[1], average="micro")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss, with some tokens made unknown."""
        x, y = batch
        forget = (torch.rand(x.shape, device=x.device) < self.hparams["token_dropout"]) & (x != 0)
        return self.loss(self(x.masked_fill(forget, 1)), y)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Accuracy."""
        x, y = batch
        self.log("val_accuracy", self.accuracy(self(x), y), prog_bar=True)

    def configure_optimizers(self) -> dict:
        """Adam with a one-cycle schedule."""
        rate = self.hparams["learning_rate"]
        optimizer = torch.optim.Adam(self.parameters(), rate)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }
