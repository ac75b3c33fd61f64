"""A label for each word: a tagger taken apart into a module for each tag, and what they are for."""

from __future__ import annotations

import pytorch_lightning as L
import torch
from classifier import Classifier
from orders import TAGS, load_orders
from tables import console
from texts import TextData, Texts, build_tokenizer
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from training import train

import mlflow_rnnmod

NO_TAG = -100  # what PyTorch's cross-entropy leaves out: padding has no tag


class Tagger(Classifier):
    """Reads in both directions, and answers at each word."""

    def __init__(self, vocabulary: int, labels: int, units: int = 24) -> None:
        super().__init__(vocabulary, labels, units, learning_rate=2e-2)
        self.lstm = nn.LSTM(48, units, batch_first=True, bidirectional=True)
        self.output = nn.Linear(2 * units, labels)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(rows, labels, steps)``, as cross-entropy wants them."""
        lengths = (x != 0).sum(dim=1).clamp(min=1).cpu()
        embedded = self.dropout(self.embedding(x))
        packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        out, _ = self.lstm(packed)
        out, _ = pad_packed_sequence(out, batch_first=True, total_length=x.shape[1])
        return self.output(self.dropout(out)).transpose(1, 2)

    def accuracy(self, answers: Tensor, y: Tensor) -> Tensor:
        """Share of words with the right tag."""
        return (answers.argmax(dim=1) == y)[y != NO_TAG].float().mean()


class TaggedData(TextData):
    """Batches ``(token ids, a label index for each token)``."""

    def targets(self, texts: Texts) -> Tensor:
        """Label indices ``(texts, steps)``."""
        rows = [torch.tensor([self.labels.index(tag) for tag in tags]) for tags in texts.labels]
        return pad_sequence(rows, batch_first=True, padding_value=NO_TAG)


def main(epochs: int = 8) -> tuple[list[list[str]], list[list[str]]]:
    """Train, compose all tags, then only two of them."""
    L.seed_everything(0, verbose=False)
    splits = load_orders(lambda order: order.tags)
    tokenizer = build_tokenizer(splits.train.texts, splits.tokens)
    data = TaggedData(splits, tokenizer, TAGS)
    modules = train("tagger", Tagger(tokenizer.get_vocab_size(), len(TAGS)), data, epochs)

    asked = ["we drink a sweet drink", "you bring two roast chicken and a roast"]
    # As models:/tagger.noun/1 and so on, or by hand: they are registered.
    every = mlflow_rnnmod.compose(modules.logged.uris.values())
    some = mlflow_rnnmod.select(every, "noun", "verb")
    answers = every.predict(asked), some.predict(asked)
    for text, *found in zip(asked, *answers, strict=True):
        console.print(text, *(" ".join(row) for row in found), sep="\n  ")
    return answers


if __name__ == "__main__":
    main()
