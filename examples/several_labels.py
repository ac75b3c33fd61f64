"""Any number of labels a text: which courses an order holds, each answered by its own module."""

from __future__ import annotations

import pytorch_lightning as L
import torch
from classifier import Classifier
from orders import COURSES, load_orders
from tables import console
from texts import TextData, Texts, build_tokenizer
from torch import Tensor, nn
from training import train

import mlflow_rnnmod


class SeveralLabels(Classifier):
    """The same network; it has a yes or no for each label, and not one answer."""

    def loss(self, answers: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy of each label by itself."""
        return nn.functional.binary_cross_entropy_with_logits(answers, y)

    def accuracy(self, answers: Tensor, y: Tensor) -> Tensor:
        """Share of orders with all labels right."""
        return ((answers >= 0) == (y > 0)).all(dim=1).float().mean()


class SeveralData(TextData):
    """Batches ``(token ids, zeros and ones)``."""

    def targets(self, texts: Texts) -> Tensor:
        """One for each label that a text has, ``(texts, labels)``."""
        hits = [[label in found for label in self.labels] for found in texts.labels]
        return torch.tensor(hits).float()


def main(epochs: int = 10) -> tuple[list[list[str]], list[list[str]]]:
    """Train, compose all courses, then leave one out."""
    L.seed_everything(0, verbose=False)
    splits = load_orders(lambda order: order.courses)
    tokenizer = build_tokenizer(splits.train.texts, splits.tokens)
    data = SeveralData(splits, tokenizer, list(COURSES))
    model = SeveralLabels(tokenizer.get_vocab_size(), len(COURSES), units=32, learning_rate=2e-2)
    modules = train("courses", model, data, epochs)

    asked = ["i want a soup and two cold beer", "three cake", "a pizza and a sweet"]
    every = mlflow_rnnmod.compose(modules.logged.uris.values())
    sober = mlflow_rnnmod.remove(every, "drink")
    answers = every.predict(asked), sober.predict(asked)
    for text, *found in zip(asked, *answers, strict=True):
        console.print(text, *(", ".join(labels) for labels in found), sep="\n  ")
    return answers


if __name__ == "__main__":
    main()
