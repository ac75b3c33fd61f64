"""Loaders of the data sets with labels: CLINC, MathQA, Wikipedia toxicity, Brown."""

from __future__ import annotations

from pathlib import Path

from benchmarks.data.files import read_splits
from benchmarks.data.texts import TextData

TOXICITY_LABELS = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
END_LABEL = "none"


def load_clinc(data_dir: Path, label: str) -> TextData:
    """CLINC OOS by ``label`` (``"domain"`` or ``"intent"``), without the out-of-scope rows.

    Raises:
        FileNotFoundError: if the folder does not hold ``clinc_oos/train.jsonl.gz``.
    """
    return _one_label(data_dir, "clinc_oos", label, f"clinc_oos/{label}")


def load_clinc_out_of_scope(data_dir: Path, split: str = "oos_test") -> list[str]:
    """Queries that belong to none of CLINC's intents."""
    return list(read_splits(data_dir / "clinc_oos", (split,))[split]["text"])


def load_math_qa(data_dir: Path) -> TextData:
    """MathQA's problems, each of one of six categories."""
    return _one_label(data_dir, "math_qa", "category", "math_qa")


def load_toxicity(data_dir: Path, output: str) -> TextData:
    """Wikipedia's comments with their labels (none to six), in a fixed order.

    Args:
        data_dir: holds ``wiki_toxicity/``.
        output: ``"multilabel"``, or ``"list"``: the labels one a step, then ``"none"``.

    Raises:
        ValueError: if ``output`` is neither.
    """
    if output not in ("multilabel", "list"):
        raise ValueError(f"output={output!r}; expected 'multilabel' or 'list'.")
    splits = read_splits(data_dir / "wiki_toxicity")
    labels = {}
    for split, found in splits.items():
        columns = zip(*(found[name] for name in TOXICITY_LABELS), strict=True)
        labels[split] = [
            [name for name, flag in zip(TOXICITY_LABELS, flags, strict=True) if flag]
            for flags in columns
        ]
    texts = {split: list(found["text"]) for split, found in splits.items()}
    name = f"wiki_toxicity/{output}"
    if output == "multilabel":
        return TextData(name, texts, labels, TOXICITY_LABELS, output)
    names = (END_LABEL, *TOXICITY_LABELS)
    return TextData(name, texts, labels, names, output, len(names), END_LABEL)


def load_brown(data_dir: Path) -> TextData:
    """The Brown corpus: sentences as words with a space between them, and a tag for each word."""
    splits = read_splits(data_dir / "brown_pos")
    names = tuple(sorted({tag for tags in splits["train"]["tags"] for tag in tags}))
    return TextData(
        "brown_pos",
        {split: [" ".join(words) for words in found["tokens"]] for split, found in splits.items()},
        {split: list(found["tags"]) for split, found in splits.items()},
        names,
        "tags",
    )


def _one_label(data_dir: Path, folder: str, field: str, name: str) -> TextData:
    splits = read_splits(data_dir / folder)
    return TextData(
        name,
        {split: list(found["text"]) for split, found in splits.items()},
        {split: list(found[field]) for split, found in splits.items()},
        tuple(sorted(set(splits["train"][field]))),
    )
