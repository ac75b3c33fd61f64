"""CLINC OOS: what people ask a voice assistant for, labelled with 150 intents in 10 domains."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset, load_dataset
from texts import Splits, Texts, shuffled

HUB_NAME = "clinc/clinc_oos"
SPLITS = ("train", "validation", "test")


def load_clinc(label: str = "domain", data_dir: Path | None = None, share: float = 1.0) -> Splits:
    """The queries without the out-of-scope ones, shuffled.

    Args:
        label: ``"domain"`` (10 labels) or ``"intent"`` (150).
        data_dir: a folder with ``clinc_oos/train.jsonl.gz`` and so on, whose rows have the fields
            ``text``, ``intent`` and ``domain``; ``None`` asks the Hub, which has no domains.
        share: how much of each split to take.

    Raises:
        ValueError: if domains are asked for and the data has none.
    """
    parts = {}
    for split in SPLITS:
        rows = _read(split, data_dir)
        if label not in rows.column_names:
            raise ValueError(
                f"label={label!r} is none of the fields {rows.column_names}; the Hub's copy has "
                "intents only: use --label intent, or --data-dir with a folder that has domains."
            )
        texts = shuffled(Texts.of(zip(rows["text"], rows[label], strict=True)))
        count = round(len(texts) * share)
        parts[split] = Texts(texts.texts[:count], texts.labels[:count])
    return Splits(parts["train"], parts["validation"], parts["test"], tokens="words")


def _read(split: str, data_dir: Path | None) -> Dataset:
    """One split, with names for labels."""
    if data_dir is not None:
        path = Path(data_dir) / "clinc_oos" / f"{split}.jsonl.gz"
        if not path.exists():
            raise FileNotFoundError(f"{path} is not there; see --data-dir in --help.")
        return load_dataset("json", data_files={split: str(path)}, split=split)
    rows = load_dataset(HUB_NAME, "plus", split=split)
    names = rows.features["intent"].names
    rows = rows.map(lambda row: {"intent": names[row["intent"]]}, features=None)
    return rows.filter(lambda row: row["intent"] != "oos")
