"""What the quickstart trains on which labels, and what it does with the parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clinc import load_clinc
from surnames import load_surnames
from texts import Splits


@dataclass(frozen=True)
class Story:
    """The labels of two parents, and those that play a part.

    Args:
        name: registered name of the first parent; the second's is ``more-<name>``.
        first: labels of the first parent.
        second: labels of the second parent: some that the first lacks, and ``scarce``.
        reused: labels of the first parent that make a small model.
        added: label of the second parent that the first lacks.
        scarce: label of both parents, of which the first is shown only ``examples`` texts.
        examples: how many.
        asked: texts for the final model; the last one fits none of its labels.
    """

    name: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    reused: tuple[str, ...]
    added: str
    scarce: str
    examples: int
    asked: tuple[str, ...]


SURNAMES = Story(
    name="surnames",
    first=("Croatian", "Dutch", "French", "German", "Irish", "Italian", "Slovak", "Spanish"),
    second=("Estonian", "Finnish", "Irish", "Swedish", "Zulu"),
    reused=("French", "German", "Italian"),
    added="Finnish",
    scarce="Irish",
    examples=20,
    # None of these is in the lists; no list has Turkish or Greek names.
    asked=("Oberhauser", "Koskenniemi", "Nic Craith", "Zapatero", "Öztürk", "Παπαδοπούλου"),
)


def clinc_story(label: str, labels: Sequence[str]) -> Story:
    """The same with CLINC's labels: the first seven tenths, and the others."""
    cut = round(len(labels) * 0.7)
    first, others = tuple(labels[:cut]), tuple(labels[cut:])
    return Story(
        name=f"clinc-{label}s",
        first=first,
        second=(first[-1], *others),
        reused=first[:3],
        added=others[0],
        scarce=first[-1],
        examples=20,
        asked=(
            "i need to know how much money i have",
            "is this card good for earning miles",
            "will you be my friend",
            "who wrote the odyssey",
            "ποιος έγραψε την οδύσσεια",
        ),
    )


def load(
    dataset: str, label: str | None, data_dir: Path | None, share: float, seed: int
) -> tuple[Story, Splits]:
    """The story and its data; the first parent's lack of examples is not in them yet."""
    if dataset == "surnames":
        return SURNAMES, load_surnames(share, seed)
    label, splits = load_clinc(label, data_dir, share)
    return clinc_story(label, splits.labels), splits
