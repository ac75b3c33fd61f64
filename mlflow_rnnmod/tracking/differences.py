"""How two composites differ, in words."""

from __future__ import annotations

from typing import Any

from mlflow_rnnmod.composition import Composite
from mlflow_rnnmod.storage.modules import knowledge
from mlflow_rnnmod.tracking.recipes import EXPECTED
from mlflow_rnnmod.tracking.uses import used


def differences(old: Composite, new: Composite) -> list[dict[str, Any]]:
    """What is another in ``new`` than in ``old``: a row with ``what``, ``old`` and ``new`` each.

    Modules are the same where they answer by the same numbers, wherever they came from.
    """
    first, second = ({m.label: m for m in composite.modules} for composite in (old, new))
    sources = [{s["label"]: s for s in composite.sources} for composite in (old, new)]
    found: list[dict[str, Any]] = []
    for label in dict.fromkeys([*first, *second]):
        here = [known[label] for known in (first, second) if label in known]
        if len(here) == 2 and knowledge(here[0]) == knowledge(here[1]):
            continue
        names = [
            _named(known[label], has[label]) if label in has else None
            for known, has in zip(sources, (first, second), strict=True)
        ]
        found.append({"what": f"module of {label}", "old": names[0], "new": names[1]})
    for what, of in (("score", old.score), ("answer", old.output), ("input", old.input_kind)):
        now = {"score": new.score, "answer": new.output, "input": new.input_kind}[what]
        if of != now:
            found.append({"what": what, "old": of, "new": now})
    for name in dict.fromkeys([*old.parameters, *new.parameters]):
        before, after = old.parameters.get(name), new.parameters.get(name)
        if before != after and name != EXPECTED:
            found.append({"what": name, "old": before, "new": after})
    shared = [label for label in new.labels if label in first]
    if shared != [label for label in old.labels if label in second]:
        found.append({"what": "order", "old": list(old.labels), "new": list(new.labels)})
    return found


def _named(source: Any, module: Any) -> str:
    return used(source) or f"{module.trunk.digest[:12]} of parent {module.parent.digest[:12]}"
