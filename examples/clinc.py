"""CLINC OOS: what people ask a voice assistant for, labelled with 150 intents in 10 domains."""

from __future__ import annotations

from pathlib import Path

from datasets import ClassLabel, Dataset, load_dataset
from texts import Splits, Texts, shuffled

HUB_NAME = "clinc/clinc_oos"
SPLITS = ("train", "validation", "test")
OUT_OF_SCOPE = "oos"


def load_clinc(
    label: str | None = None, data_dir: Path | None = None, share: float = 1.0
) -> tuple[str, Splits]:
    """The queries without the out-of-scope ones, shuffled.

    Args:
        label: ``"domain"`` (10 labels) or ``"intent"`` (150); ``None`` for domains where the data
            has them, else intents.
        data_dir: a folder with ``clinc_oos/train.jsonl.gz`` and so on, whose rows have the fields
            ``text``, ``intent`` and ``domain``; ``None`` asks the Hub, which has no domains.
        share: how much of each split to take.

    Returns:
        Which label it is, and the queries.

    Raises:
        ValueError: if the data has no such label.
        FileNotFoundError: if the folder has no such files.
    """
    read = {split: _read(split, data_dir) for split in SPLITS}
    fields = read["train"].column_names
    if label is None:
        label = "domain" if "domain" in fields else "intent"
    if label not in fields:
        raise ValueError(
            f"label={label!r} is none of the fields {fields}; the Hub's copy has intents only: "
            "use --label intent, or --data-dir with a folder whose rows have domains."
        )
    parts = {split: _texts(rows, label, share) for split, rows in read.items()}
    return label, Splits(parts["train"], parts["validation"], parts["test"], tokens="words")


def _read(split: str, data_dir: Path | None) -> Dataset:
    if data_dir is None:
        return load_dataset(HUB_NAME, "plus", split=split)
    path = Path(data_dir) / "clinc_oos" / f"{split}.jsonl.gz"
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; see --data-dir in --help.")
    return load_dataset("json", data_files={split: str(path)}, split=split)


def _texts(rows: Dataset, label: str, share: float) -> Texts:
    """Texts and names of labels; the Hub's copy has numbers for names."""
    labels, kind = list(rows[label]), rows.features[label]
    if isinstance(kind, ClassLabel):
        labels = [kind.int2str(number) for number in labels]
    pairs = zip(rows["text"], labels, strict=True)
    texts = shuffled(Texts.of((text, name) for text, name in pairs if name != OUT_OF_SCOPE))
    count = round(len(texts) * share)
    return Texts(texts.texts[:count], texts.labels[:count])
