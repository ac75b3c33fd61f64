"""Splits of a data set as the ``datasets`` library reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets import load_dataset

SPLITS = ("train", "validation", "test")


def read_splits(folder: Path, splits: Sequence[str] = SPLITS) -> dict:
    """The named splits of one data set.

    Raises:
        FileNotFoundError: if the folder lacks one of ``<split>.jsonl.gz``.
    """
    files = {split: str(folder / f"{split}.jsonl.gz") for split in splits}
    missing = [file for file in files.values() if not Path(file).exists()]
    if missing:
        raise FileNotFoundError(
            f"No such data: {missing}; expected --data-dir to hold {folder.name}/ with "
            "one .jsonl.gz a split."
        )
    return dict(load_dataset("json", data_files=files))
