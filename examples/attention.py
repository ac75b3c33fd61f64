"""One input, one label: the language of a surname, by an LSTM that weights its letters."""

from __future__ import annotations

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


class Attentive(Classifier):
    """States of both directions, weighted by a score of their own, normed."""

    def __init__(self, vocabulary: int, labels: int, units: int = 48) -> None:
        super().__init__(vocabulary, labels, units, learning_rate=5e-3)
        self.lstm = nn.LSTM(48, units, batch_first=True, bidirectional=True)
        self.score = nn.Linear(2 * units, 1)
        self.norm = nn.LayerNorm(2 * units)
        self.output = nn.Linear(2 * units, labels)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(rows, labels)`` of token ids ``(rows, steps)``."""
        states, _ = self.lstm(self.dropout(self.embedding(x)))
        scores = self.score(states).squeeze(-1).masked_fill(x == 0, -1e9)
        context = torch.bmm(scores.softmax(dim=1).unsqueeze(1), states).squeeze(1)
        return self.output(self.dropout(self.norm(context)))


def main(epochs: int = 6, share: float = 1.0) -> tuple[list[str], list[str]]:
    """Train, compose all languages, then two of them."""
    L.seed_everything(0, verbose=False)
    splits = load_surnames(share).only(LANGUAGES)
    tokenizer = build_tokenizer(splits.train.texts, splits.tokens)
    data = TextData(splits, tokenizer, LANGUAGES)
    modules = train(
        "attention", Attentive(tokenizer.get_vocab_size(), len(LANGUAGES)), data, epochs
    )

    asked = ["Virtanen", "Ó Súilleabháin", "Zuccarelli", "Ngcobondwane"]
    every = mlflow_rnnmod.compose(modules.logged.uris.values())
    some = mlflow_rnnmod.select(every, "Italian", "Zulu")
    answers = every.predict(asked), some.predict(asked)
    for name, *found in zip(asked, *answers, strict=True):
        console.print(name, *found, sep=", ")
    return answers


if __name__ == "__main__":
    main()
