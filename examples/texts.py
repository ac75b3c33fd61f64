"""Texts with one label each, and how they become batches of token ids."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pytorch_lightning as L
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, TensorDataset

PADDING, UNKNOWN = "[PAD]", "[UNK]"  # ids 0 and 1


@dataclass(frozen=True)
class Texts:
    """Texts and their labels, in the same order."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> Texts:
        """From pairs of text and label."""
        pairs = list(pairs)
        return cls(tuple(text for text, _ in pairs), tuple(label for _, label in pairs))

    def __len__(self) -> int:
        return len(self.texts)

    def only(self, labels: Iterable[str]) -> Texts:
        """The texts of these labels."""
        wanted = set(labels)
        pairs = zip(self.texts, self.labels, strict=True)
        return Texts.of((text, label) for text, label in pairs if label in wanted)

    def at_most(self, count: int, label: str) -> Texts:
        """All texts, but of ``label`` only the first ``count``."""
        seen, kept = 0, []
        for text, found in zip(self.texts, self.labels, strict=True):
            seen += found == label
            if found != label or seen <= count:
                kept.append((text, found))
        return Texts.of(kept)


@dataclass(frozen=True)
class Splits:
    """Three sets of texts with the same labels; ``tokens`` is what a text is split into."""

    train: Texts
    validation: Texts
    test: Texts
    tokens: str

    @property
    def labels(self) -> list[str]:
        """All labels, sorted."""
        return sorted(set(self.train.labels))

    def only(self, labels: Iterable[str]) -> Splits:
        """The texts of these labels."""
        labels = list(labels)
        return Splits(
            self.train.only(labels),
            self.validation.only(labels),
            self.test.only(labels),
            self.tokens,
        )

    def scarce(self, label: str, count: int) -> Splits:
        """The same with only ``count`` training (and as many validation) texts of ``label``."""
        train = self.train.at_most(count, label)
        return Splits(train, self.validation.at_most(count, label), self.test, self.tokens)


def shuffled(texts: Texts, seed: int = 0) -> Texts:
    """The same texts in random order."""
    pairs = list(zip(texts.texts, texts.labels, strict=True))
    random.Random(seed).shuffle(pairs)
    return Texts.of(pairs)


def build_tokenizer(texts: Sequence[str], tokens: str, at_least: int = 2) -> Tokenizer:
    """A tokenizer into ``"characters"`` or ``"words"``.

    It knows those that occur at least ``at_least`` times in ``texts``. It is a
    ``tokenizers.Tokenizer``, no Python function, so that it is stored with the model, as JSON.
    """
    normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    characters = tokens == "characters"
    splitter = pre_tokenizers.Split("", "isolated") if characters else pre_tokenizers.Whitespace()
    counts = Counter(
        token
        for text in texts
        for token, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
    )
    known = sorted(token for token, count in counts.items() if count >= at_least)
    vocabulary = {token: index for index, token in enumerate([PADDING, UNKNOWN, *known])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    return tokenizer


class TextData(L.LightningDataModule):
    """Batches ``(token ids, label indices)`` of some texts, padded with 0 on the right."""

    def __init__(
        self, splits: Splits, tokenizer: Tokenizer, labels: Sequence[str], batch_size: int = 64
    ) -> None:
        super().__init__()
        self.splits, self.tokenizer, self.labels = splits, tokenizer, list(labels)
        self.batch_size = batch_size

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Token ids ``(texts, steps)``, padded with 0 on the right."""
        ids = [torch.tensor(e.ids) for e in self.tokenizer.encode_batch(list(texts))]
        return pad_sequence(ids, batch_first=True)

    def targets(self, texts: Texts) -> Tensor:
        """What is right for each text: the index of its label."""
        return torch.tensor([self.labels.index(label) for label in texts.labels])

    def _loader(self, texts: Texts, shuffle: bool = False) -> DataLoader:
        x = self.encode(texts.texts)
        return DataLoader(TensorDataset(x, self.targets(texts)), self.batch_size, shuffle=shuffle)

    def train_dataloader(self) -> DataLoader:
        """Training texts, shuffled."""
        return self._loader(self.splits.train, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """Validation texts."""
        return self._loader(self.splits.validation)

    def test_dataloader(self) -> DataLoader:
        """Test texts."""
        return self._loader(self.splits.test)
