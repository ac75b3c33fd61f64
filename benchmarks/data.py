"""The paper's data sets, read in place from a folder laid out as its README says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import load_dataset
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from mlflow_rnnmod.network import Rows, TextEncoder

PAD, UNKNOWN = "[PAD]", "[UNK]"


@dataclass(frozen=True)
class TextData:
    """Splits of a text data set: for each split its texts and the label of each text."""

    name: str
    texts: dict[str, list[str]]
    labels: dict[str, list[str]]
    names: tuple[str, ...]

    def only(self, names: Sequence[str]) -> TextData:
        """The rows that carry one of these labels, and these labels alone, in this order."""
        wanted = set(names)
        keep = {s: [y in wanted for y in found] for s, found in self.labels.items()}
        return TextData(
            self.name,
            {s: [t for t, k in zip(v, keep[s], strict=True) if k] for s, v in self.texts.items()},
            {s: [t for t, k in zip(v, keep[s], strict=True) if k] for s, v in self.labels.items()},
            tuple(names),
        )

    def rows(self, split: str, encoder: TextEncoder) -> Rows:
        """One split as rows with targets (indices into ``names``)."""
        encoded = encoder(self.texts[split])
        index = {name: i for i, name in enumerate(self.names)}
        targets = torch.tensor([index[name] for name in self.labels[split]])
        return Rows(encoded.values, encoded.lengths, targets)


def load_clinc(data_dir: Path, label: str) -> TextData:
    """CLINC OOS by ``label`` (``"domain"`` or ``"intent"``), without the out-of-scope rows.

    Raises:
        FileNotFoundError: if the folder does not hold ``clinc_oos/train.jsonl.gz``.
    """
    splits = read_splits(data_dir / "clinc_oos", ("train", "validation", "test"))
    names = tuple(sorted(set(splits["train"][label])))
    return TextData(
        f"clinc_oos/{label}",
        {split: list(found["text"]) for split, found in splits.items()},
        {split: list(found[label]) for split, found in splits.items()},
        names,
    )


def read_splits(folder: Path, splits: Sequence[str]) -> dict:
    """The named splits of one data set, by the ``datasets`` library."""
    files = {split: str(folder / f"{split}.jsonl.gz") for split in splits}
    missing = [file for file in files.values() if not Path(file).exists()]
    if missing:
        raise FileNotFoundError(
            f"No such data: {missing}; expected --data-dir to hold {folder.name}/ with "
            "one .jsonl.gz a split."
        )
    return dict(load_dataset("json", data_files=files))


def load_clinc_out_of_scope(data_dir: Path, split: str = "oos_test") -> list[str]:
    """Queries that belong to none of CLINC's intents."""
    return list(read_splits(data_dir / "clinc_oos", (split,))[split]["text"])


def word_tokenizer(texts: Sequence[str], vocabulary: int = 10_000, steps: int | None = 15):
    """A lower-casing word tokenizer learned from ``texts``, cutting (not padding) at ``steps``."""
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(
        vocab_size=vocabulary, special_tokens=[PAD, UNKNOWN], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    if steps is not None:
        tokenizer.enable_truncation(steps)
    return tokenizer
