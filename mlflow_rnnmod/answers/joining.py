"""What modules of different kinds of answer answer together, and why others do not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mlflow_rnnmod.answers import ANSWERS, Answer, answer_of
from mlflow_rnnmod.answers.lists import PartOfList

_WHY = {
    frozenset(("label", "multilabel")): "a label competes with the others, one of several does not",
    frozenset(("multilabel", "tags")): "a tag competes with the others, one of several does not",
    frozenset(("tags", "list")): (
        "steps of a text and places in a list are not the same; with a module that answers one "
        "label for the whole input, both answer for the whole input"
    ),
}
_PART = PartOfList()


def output_of(kinds: Iterable[str]) -> str | None:
    """What modules of these kinds answer together; ``None`` where they can't.

    Modules of one kind answer as they do alone. Modules that answer each step answer for the whole
    input beside some that do: the best label wins (``"label"``), or, lists only, each label is for
    itself (``"multilabel"``).

    Example:
        >>> output_of(["tags", "tags"]), output_of(["tags", "label"]), output_of(["list", "tags"])
        ('tags', 'label', None)
    """
    found = set(kinds)
    if len(found) == 1:
        return found.pop()
    for name in found & set(ANSWERS):
        if found <= {name, *ANSWERS[name].beside}:
            return name
    return None


def reason_against(kinds: Iterable[str]) -> str:
    """Why modules of these kinds can't be composed, where :func:`output_of` says so.

    Example:
        >>> reason_against(["label", "translation"])
        'a translation is a text, not one of some labels'
    """
    found = set(kinds)
    if any(name in found for name, answer in ANSWERS.items() if not answer.scored):
        return "a translation is a text, not one of some labels"
    return "; ".join(why for pair, why in _WHY.items() if pair <= found)


def joined(contracts: Iterable[Any]) -> Answer | None:
    """What modules answer together, from their contracts; ``None`` where they can't.

    In a list, labels are rivals where the modules answer for all labels of their parents: then it
    can be read place by place. With some labels alone it can't.

    ``contracts``: of some modules: ``label``, ``labels`` of the parent, and ``output``.
    """
    found = list(contracts)
    name = output_of(c.output for c in found)
    if name is None:
        return None
    answer, labels = answer_of(name), {c.label for c in found}
    whole = all(labels.issuperset(c.labels) for c in found)
    return answer if whole or not answer.ends else _PART
