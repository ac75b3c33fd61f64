"""Names in MLflow: labels can hold anything, names of models can not.

A label becomes a *slug*, which is safe in the name of a LoggedModel (no ``/ : . % " '``), of a
registered model (no ``/`` or ``:``), in a file name and in a URI's path. The true label stays in
``module.json`` and in the model's params.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping

from mlflow.exceptions import MlflowException

_OTHER = re.compile(r"[^\w]+")
_DIGITS = 6
# Registered models' names are cut or refused beyond 256 characters by some databases; with the
# prefix, the dot and the digits of the digest there must be room for more than the label.
_LONGEST = 120


def slug(label: str) -> str:
    """A name for ``label`` that is safe wherever MLflow needs one.

    NFKC, case-folded, runs of other characters than letters, digits and ``_`` as ``-``; and ``-``
    with six digits of the label's SHA-256 where that changed more than case.

    Gives at least one character, at most 127, all of them letters, digits, ``_`` or ``-``.

    Example:
        >>> slug("German"), slug("book_flight"), slug("a/b")
        ('german', 'book_flight', 'a-b-c14cdd')
    """
    base = _base(label)
    return base if base and base == label.casefold() else _marked(label, base)


def marked_slug(label: str) -> str:
    """The slug that :func:`slugs` gives to a label that clashes with another one's.

    Example:
        >>> marked_slug("Polish")
        'polish-770341'
    """
    return _marked(label, _base(label))


def slugs(labels: Iterable[str]) -> dict[str, str]:
    """A slug for each label, no two the same even where a database ignores case or accents.

    Labels that would share a slug all get digits of their SHA-256, so that none of their slugs
    depends on the labels' order.

    Gives slug by label, in the order of ``labels``.

    Example:
        >>> slugs(["Polish", "polish", "dutch"])
        {'Polish': 'polish-770341', 'polish': 'polish-8a741e', 'dutch': 'dutch'}
    """
    given = list(labels)
    found = {label: slug(label) for label in given}
    if len(found) < len(given):
        twice = sorted(label for label, count in Counter(given).items() if count > 1)
        raise MlflowException.invalid_parameter_value(
            f"labels={given!r} holds {twice!r} more than once; expected labels that all differ."
        )
    digits = _DIGITS
    # One round is enough, except where a label looks like another one's slug or six digits of two
    # digests agree: then more digits follow. Digests differ, so it ends.
    while clashing := _clashing(found):
        for label in clashing:
            found[label] = _marked(label, _base(label), digits)
        digits += _DIGITS
    return found


def registered_name(prefix: str, label_slug: str | None = None) -> str:
    """The registered model's name of a module, or of the parent where ``label_slug`` is ``None``.

    Example:
        >>> registered_name("surnames", "german"), registered_name("surnames")
        ('surnames.german', 'surnames')
    """
    problems = []
    if not isinstance(prefix, str) or not prefix.strip():
        problems.append("it is empty")
    else:
        problems += [f"it holds {character!r}" for character in "/:" if character in prefix]
        if len(prefix) > 250 - _LONGEST:
            problems.append(f"it has {len(prefix)} characters")
    if problems:
        raise MlflowException.invalid_parameter_value(
            f"registered_model_prefix={prefix!r} can't begin the name of a registered model: "
            f"{', '.join(problems)}. Expected 1 to {250 - _LONGEST} characters without '/' and ':'."
        )
    return prefix if label_slug is None else f"{prefix}.{label_slug}"


def check_registered_name(name: str, argument: str = "registered_model_name") -> str:
    """A name that a registered model can have."""
    return _checked(name, argument, "/:", 256, "a registered model")


def check_logged_name(name: str, argument: str = "name") -> str:
    """A name that a LoggedModel can have.

    Example:
        >>> check_logged_name("european")
        'european'
    """
    return _checked(name, argument, "/:.%\"'", 500, "a logged model")


def _checked(name: str, argument: str, without: str, longest: int, what: str) -> str:
    problems = [f"it holds {character!r}" for character in without if character in name]
    if not name.strip():
        problems.append("it is empty")
    if len(name) > longest:
        problems.append(f"it has {len(name)} characters")
    if problems:
        raise MlflowException.invalid_parameter_value(
            f"{argument}={name!r:.80} can't be the name of {what}: {', '.join(problems)}. Expected "
            f"1 to {longest} characters without {' '.join(without)}"
        )
    return name


def _base(label: str) -> str:
    if not isinstance(label, str):
        raise MlflowException.invalid_parameter_value(
            f"label={label!r} is a {type(label).__name__}; expected a string."
        )
    # Folding case can undo the normal form, so that comes last.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold())
    return _OTHER.sub("-", folded)[:_LONGEST]


def _marked(label: str, base: str, digits: int = _DIGITS) -> str:
    digest = hashlib.sha256(label.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{base}-{digest[:digits]}"


def _clashing(found: Mapping[str, str]) -> list[str]:
    """Labels whose slugs are the same to a database that ignores case and accents."""
    keys = {label: _without_accents(name) for label, name in found.items()}
    counts = Counter(keys.values())
    return [label for label, key in keys.items() if counts[key] > 1]


def _without_accents(name: str) -> str:
    parts = unicodedata.normalize("NFKD", name)
    return "".join(c for c in parts if not unicodedata.combining(c)).casefold()
