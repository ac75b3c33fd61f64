"""One input, one label: the language of a surname whose letters are read at once, in one step."""

from __future__ import annotations

import pytorch_lightning as L
from classifier import Classifier
from surnames import load_surnames
from tables import console
from texts import TextData, build_tokenizer
from torch import Tensor, nn
from training import train

import mlflow_rnnmod

LETTERS = 12
LANGUAGES = ("Finnish", "Irish", "Italian", "Zulu")


class AtOnce(Classifier):
    """All letters side by side are the only step."""

    def __init__(self, vocabulary: int, labels: int, units: int = 48) -> None:
        super().__init__(vocabulary, labels, units, learning_rate=5e-3)
        self.lstm = nn.LSTM(48 * LETTERS, units, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(rows, labels)``."""
        whole = self.dropout(self.embedding(x)).flatten(1)
        out, _ = self.lstm(whole[:, None])
        return self.output(self.dropout(out[:, -1]))


class FixedData(TextData):
    """Batches ``(token ids, label indices)``, of fixed width."""

    def encode(self, texts: list[str]) -> Tensor:
        """Token ids ``(texts, LETTERS)``."""
        ids = super().encode(texts)[:, :LETTERS]
        return nn.functional.pad(ids, (0, LETTERS - ids.shape[1]))


def main(epochs: int = 6, share: float = 1.0) -> tuple[list[str], list[str]]:
    """Train, compose all languages, then two of them."""
    L.seed_everything(0, verbose=False)
    splits = load_surnames(share).only(LANGUAGES)
    tokenizer = build_tokenizer(splits.train.texts, splits.tokens)
    data = FixedData(splits, tokenizer, LANGUAGES)
    modules = train("letters", AtOnce(tokenizer.get_vocab_size(), len(LANGUAGES)), data, epochs)

    asked = ["Virtanen", "Ó Súilleabháin", "Zuccarelli", "Ngcobondwane"]
    every = mlflow_rnnmod.compose(modules.logged.uris.values())
    some = mlflow_rnnmod.select(every, "Italian", "Zulu")
    answers = every.predict(asked), some.predict(asked)
    for name, *found in zip(asked, *answers, strict=True):
        console.print(name, *found, sep=", ")
    return answers


if __name__ == "__main__":
    main()
