"""One input, one label: the language of a surname, by convolutions over its letters.

A network without a recurrent layer: its forward is followed, and its channels are the units.
"""

from __future__ import annotations

import mlflow
import pandas as pd
import pytorch_lightning as L
import torch
from classifier import Classifier
from surnames import load_surnames
from tables import console
from texts import TextData, build_tokenizer
from torch import Tensor, nn
from training import train

import mlflow_rnnmod

LANGUAGES = ("Finnish", "Irish", "Italian", "Zulu")
WIDTHS = (2, 3, 4)


class TextCNN(Classifier):
    """The largest of each channel over the letters, side by side (Kim, EMNLP 2014)."""

    def __init__(self, vocabulary: int, labels: int, units: int = 32) -> None:
        super().__init__(vocabulary, labels, units, learning_rate=5e-3)
        del self.lstm
        self.convolutions = nn.ModuleList([nn.Conv1d(48, units, k, padding=k) for k in WIDTHS])
        self.output = nn.Linear(units * len(WIDTHS), labels)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(rows, labels)`` of token ids ``(rows, steps)``."""
        letters = self.dropout(self.embedding(x)).transpose(1, 2)
        found = [torch.relu(part(letters)).max(dim=2).values for part in self.convolutions]
        return self.output(self.dropout(torch.cat(found, dim=1)))


def main(epochs: int = 6, share: float = 1.0) -> list[str]:
    """Train, compose, log the composite, and ask it by ``mlflow.pyfunc``."""
    L.seed_everything(0, verbose=False)
    splits = load_surnames(share).only(LANGUAGES)
    tokenizer = build_tokenizer(splits.train.texts, splits.tokens)
    data = TextData(splits, tokenizer, LANGUAGES)
    modules = train("textcnn", TextCNN(tokenizer.get_vocab_size(), len(LANGUAGES)), data, epochs)

    every = mlflow_rnnmod.compose(modules.logged.uris.values())
    info = mlflow_rnnmod.log_model(every, name="surnames", registered_model_name="surnames-textcnn")
    model = mlflow.pyfunc.load_model(info.model_uri)
    asked = ["Virtanen", "Ó Súilleabháin", "Zuccarelli", "Ngcobondwane"]
    answers = list(model.predict(pd.DataFrame({"text": asked})))
    for name, found in zip(asked, answers, strict=True):
        console.print(name, found, sep=", ")
    return answers


if __name__ == "__main__":
    main()
