"""Slugs and registered names."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_logged_model_name, _validate_model_name

from mlflow_rnnmod.tracking.names import registered_name, slug, slugs
from tests.builders import ODD_LABELS

# Letters that fold, join or look alike are likelier here than in plain text().
TRICKY = st.text(st.sampled_from("aAbBeéÉßsSſİıI １1_-./:%\"'|\u0301😀日\n")) | st.text()


def digits(label: str) -> str:
    return hashlib.sha256(label.encode("utf-8", "surrogatepass")).hexdigest()[:6]


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("german", "german"),
        ("German", "german"),
        ("book_flight", "book_flight"),
        ("new-york", "new-york"),
        ("2nd", "2nd"),
        ("Größe", "grösse"),
        ("日本語", "日本語"),
        ("New York", "new-york-" + digits("New York")),
        ("a/b:c.d%e", "a-b-c-d-e-" + digits("a/b:c.d%e")),
        ("a//..//b", "a-b-" + digits("a//..//b")),
        ("", "-" + digits("")),
        ("😀", "--" + digits("😀")),
        ("①", "1-" + digits("①")),
    ],
)
def test_slug_follows_the_rule(label: str, expected: str) -> None:
    assert slug(label) == expected


@given(TRICKY)
def test_slug_fits_every_kind_of_name(label: str) -> None:
    name = slug(label)
    assert re.fullmatch(r"[\w-]{1,127}", name)
    assert not set(name) & set("/:.%\"'")
    _validate_logged_model_name(name)
    _validate_model_name(registered_name("prefix", name))


@given(st.lists(TRICKY, unique=True, max_size=8))
def test_slugs_differ_in_every_database(labels: list[str]) -> None:
    found = slugs(labels)
    assert list(found) == labels
    assert len({name.casefold() for name in found.values()}) == len(labels)


@given(st.lists(TRICKY, unique=True, max_size=6), st.randoms())
def test_slugs_do_not_depend_on_order(labels: list[str], random) -> None:
    moved = labels.copy()
    random.shuffle(moved)
    assert slugs(moved) == slugs(labels)


def test_labels_that_clash_are_both_marked() -> None:
    assert slugs(["Case", "case", "other"]) == {
        "Case": "case-" + digits("Case"),
        "case": "case-" + digits("case"),
        "other": "other",
    }
    assert set(slugs(["cafe", "café"]).values()) == {
        "cafe-" + digits("cafe"),
        "café-" + digits("café"),
    }


def test_a_label_that_looks_like_anothers_slug() -> None:
    mimic = "x-" + digits("X")
    found = slugs(["x", "X", mimic])
    assert len(set(found.values())) == 3
    assert found["X"] != found[mimic]


def test_long_labels_stay_apart() -> None:
    first, second = "a" * 5000, "a" * 5001
    found = slugs([first, second])
    assert found[first] != found[second]
    assert max(map(len, found.values())) <= 140


def test_odd_labels() -> None:
    assert len(set(slugs(ODD_LABELS).values())) == len(ODD_LABELS)


@pytest.mark.parametrize("label", [None, 3, b"german"])
def test_labels_are_text(label: object) -> None:
    with pytest.raises(MlflowException, match=re.escape(f"label={label!r}")):
        slug(label)  # type: ignore[arg-type]


def test_a_label_twice_is_refused() -> None:
    with pytest.raises(MlflowException, match=r"\['a'\] more than once"):
        slugs(["a", "b", "a"])


@pytest.mark.parametrize("prefix", ["", "  ", "a/b", "a:b", "x" * 200])
def test_prefixes_that_mlflow_would_refuse(prefix: str) -> None:
    with pytest.raises(MlflowException, match="registered_model_prefix="):
        registered_name(prefix, "german")


def test_registered_names() -> None:
    assert registered_name("surnames.v1", "german") == "surnames.v1.german"
    assert registered_name("surnames") == "surnames"
