"""One input, a list of labels: the courses of an order, one after the other, as they are asked for.

The network reads the whole order at once, and again for each label that it gives; "none" ends the
list.
"""

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

WORDS, LONGEST, END = 16, 4, "none"


class Lister(Classifier):
    """Reads all words at each of its steps, and gives a label at each."""

    def __init__(self, vocabulary: int, labels: int, units: int = 64) -> None:
        super().__init__(vocabulary, labels, units, learning_rate=1e-2)
        self.lstm = nn.LSTM(48 * WORDS, units, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(rows, steps, labels)``."""
        whole = self.dropout(self.embedding(x)).flatten(1)
        out, _ = self.lstm(whole[:, None].repeat(1, LONGEST, 1))
        return self.output(self.dropout(out))

    def loss(self, answers: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy."""
        return nn.functional.cross_entropy(answers.transpose(1, 2), y)

    def accuracy(self, answers: Tensor, y: Tensor) -> Tensor:
        """Share of orders whose list is right."""
        return (answers.argmax(dim=2) == y).all(dim=1).float().mean()


class ListData(TextData):
    """Batches ``(token ids, a label index for each step)``, of fixed width."""

    def encode(self, texts: list[str]) -> Tensor:
        """Token ids ``(texts, WORDS)``."""
        ids = super().encode(texts)[:, :WORDS]
        return nn.functional.pad(ids, (0, WORDS - ids.shape[1]))

    def targets(self, texts: Texts) -> Tensor:
        """Label indices ``(texts, LONGEST)``: the courses, then the end of the list."""
        rows = [[*courses, *[END] * LONGEST][:LONGEST] for courses in texts.labels]
        return torch.tensor([[self.labels.index(label) for label in row] for row in rows])


def main(epochs: int = 20) -> tuple[list[list[str]], list[list[str]]]:
    """Train, compose all labels, then two of them without the one that ends the list."""
    L.seed_everything(0, verbose=False)
    splits = load_orders(lambda order: order.courses, count=3000)
    tokenizer = build_tokenizer(splits.train.texts, splits.tokens)
    labels = [*COURSES, END]
    data = ListData(splits, tokenizer, labels)
    model = Lister(tokenizer.get_vocab_size(), len(labels))
    modules = train("menus", model, data, epochs, network_spec={"end_label": END})

    asked = ["i want a soup and two cold beer", "three cake", "a drink and a pizza and a sweet"]
    every = mlflow_rnnmod.compose(modules.logged.uris.values())
    two = mlflow_rnnmod.select(every, "drink", "dessert")
    answers = every.predict(asked), two.predict(asked)
    for text, *found in zip(asked, *answers, strict=True):
        console.print(text, *(", then ".join(courses) for courses in found), sep="\n  ")
    return answers


if __name__ == "__main__":
    main()
