"""Recipes: what a composite is made of, as a YAML file that people write and composites carry.

name: european
register: european-surnames
modules:
- models:/surnames.german@champion
- uri: models:/names/3        # of a composite: the module of one label
label: Irish
- baltic.yml                  # the modules of another recipe
score: open
thresholds: {Irish: 0.5}        # where labels have no rivals
reject_below: -2.0
"""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from mlflow.exceptions import MlflowException

from mlflow_rnnmod._digest import canonical_json, digest_text
from mlflow_rnnmod.composition import Composite
from mlflow_rnnmod.storage.module_parts import knowledge
from mlflow_rnnmod.tracking.searching import suggestion
from mlflow_rnnmod.tracking.uses import used

FILE = "recipe.yml"
"""The file's name in a composite's model."""
EXPECTED = "expected"
"""A composite's parameter that says nothing of what it answers: what its scores looked like."""
_KEYS = {
    "name": str,
    "register": str,
    "modules": (list, dict),
    "score": str,
    "thresholds": dict,
    "reject_below": (int, float),
    "parameters": dict,
    "digest": str,
}
_ENDINGS = (".yml", ".yaml")
_WORDS = {str: "a text", dict: "a mapping", (list, dict): "a list", (int, float): "a number"}


@dataclass(frozen=True)
class Ingredient:
    """One entry of a recipe.

    Args:
        uri: of a module or a composite.
        label: of the module to take of it; ``None`` for all that are there.
    """

    uri: str
    label: str | None = None

    def missing(self, labels: Sequence[str]) -> str:
        """What is said where the label is none of those that are there."""
        told = f"the recipe wants {self.label!r} of {self.uri}, which has {list(labels)}"
        return f"{told}.{suggestion(str(self.label), labels)}"


@dataclass(frozen=True)
class Recipe:
    """What a composite is made of.

    Args:
        modules: in order.
        name: of the LoggedModel.
        register: name of the registered model.
        score: how modules are compared; ``None`` for the default.
        thresholds: by label.
        reject_below: the best score from which on an answer counts.
        parameters: all of a composite's parameters, where it carried its recipe.
        digest: what the composite's digest is to be, where it carried its recipe.
    """

    modules: tuple[Ingredient, ...]
    name: str | None = None
    register: str | None = None
    score: str | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    reject_below: float | None = None
    parameters: Mapping[str, Any] | None = None
    digest: str | None = None

    @property
    def uris(self) -> list[str]:
        """Of all entries, each once: what a plan looks at."""
        return list(dict.fromkeys(entry.uri for entry in self.modules))


class _Loader(yaml.SafeLoader):
    """YAML without foreign objects, and without keys that come twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                line = key_node.start_mark.line + 1
                raise yaml.YAMLError(f"line {line}: {key!r} is there twice")
            seen.add(key if isinstance(key, Hashable) else repr(key))
        return super().construct_mapping(node, deep)


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """The recipe in a file, with those that it names."""
    return _read(Path(path), ())


def _read(path: Path, above: tuple[Path, ...]) -> Recipe:
    here = path.resolve()
    if here in above:
        circle = " -> ".join(p.name for p in (*above[above.index(here) :], here))
        raise _wrong(path, [f"recipes name each other in a circle: {circle}"])
    try:
        found = yaml.load(path.read_text("utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise _wrong(path, [f"it can't be read: {error}"]) from error
    except RecursionError as error:
        raise _wrong(path, ["it can't be read: lists or mappings are nested too deep"]) from error
    return _recipe(found, path, (*above, here))


def _recipe(found: Any, path: Path, above: tuple[Path, ...]) -> Recipe:
    if not isinstance(found, dict):
        raise _wrong(path, [f"it holds a {type(found).__name__}; expected keys, as 'modules:'"])
    problems = []
    for key, value in found.items():
        expected: Any = _KEYS.get(key)
        if expected is None:
            near = get_close_matches(str(key), list(_KEYS), 1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(_KEYS)}"
            problems.append(f"{key!r} is no key of a recipe; {hint}")
        elif isinstance(value, bool) or not isinstance(value, expected):
            problems.append(f"{key}: {value!r:.60}; expected {_WORDS[expected]}")
    limits = found.get("thresholds")
    for label, limit in limits.items() if isinstance(limits, dict) else ():
        if isinstance(limit, bool) or not isinstance(limit, int | float) or math.isnan(limit):
            problems.append(f"thresholds: {label}: {limit!r}; expected a number")
    given = found.get("modules")
    entries: list[Ingredient] = []
    if isinstance(given, list | dict):
        for entry in _entries(given, path, above, problems):
            if entry.label is not None and entry.label in [e.label for e in entries]:
                problems.append(f"modules: label {entry.label!r} is there twice")
            elif entry in entries:
                problems.append(f"modules: {entry.uri} is there twice")
            entries.append(entry)
    if not entries and not problems:
        problems.append("modules: there are none; expected URIs of modules")
    if problems:
        raise _wrong(path, problems)
    known = {key: value for key, value in found.items() if key != "modules"}
    known["thresholds"] = {str(k): float(v) for k, v in (limits or {}).items()}
    return Recipe(tuple(entries), **known)


def _entries(
    given: Any, path: Path, above: tuple[Path, ...], problems: list[str]
) -> Iterator[Ingredient]:
    """Entries of a list, or of a mapping from labels to URIs."""
    if isinstance(given, dict):
        given = [{"label": label, "uri": uri} for label, uri in given.items()]
    for number, entry in enumerate(given):
        where = f"modules[{number}]"
        if isinstance(entry, str) and entry.lower().endswith(_ENDINGS) and ":/" not in entry:
            yield from _read(path.parent / entry, above).modules
        elif isinstance(entry, str) and entry.strip():
            yield Ingredient(entry)
        elif isinstance(entry, dict) and {*entry} <= {"uri", "label", "parent", "trunk"}:
            uri, label = entry.get("uri"), entry.get("label")
            if not isinstance(uri, str) or not isinstance(label, str | None):
                problems.append(f"{where}: {entry!r:.80}; expected texts for uri and label")
            else:
                yield Ingredient(uri, label)
        else:
            problems.append(f"{where}: {entry!r:.80}; expected a URI, or 'uri:' and 'label:'")


def _wrong(path: Path, problems: list[str]) -> MlflowException:
    return MlflowException.invalid_parameter_value(f"recipe {path}: {'; '.join(problems)}.")


def recipe_of(composite: Composite) -> dict[str, Any]:
    """A composite's recipe with aliases resolved: composed again, it has the same digest.

    Modules that were never logged have no URI, so that such a recipe tells what is in the
    composite, and can't be composed again.
    """
    entries = [
        {
            "label": source["label"],
            "uri": _resolved(source),
            "parent": source["parent"][:12],
            "trunk": source["trunk"][:12],
        }
        for source in composite.sources
    ]
    found: dict[str, Any] = {"modules": entries, "score": composite.score}
    parameters = {k: v for k, v in composite.parameters.items() if k != EXPECTED}
    if parameters:
        found["parameters"] = parameters
    return {**found, "digest": composite_digest(composite)}


def recipe_text(composite: Composite) -> str:
    """:func:`recipe_of` as YAML."""
    body = yaml.safe_dump(recipe_of(composite), sort_keys=False, allow_unicode=True)
    return f"# rnnmod compose {FILE} makes this composite again.\n{body}"


def _resolved(source: Mapping[str, Any]) -> str | None:
    if source.get("name") and source.get("version"):
        return f"models:/{source['name']}/{source['version']}"
    if source.get("model_id"):
        return f"models:/{source['model_id']}"
    uri = source.get("uri")
    return None if uri is None else str(uri)


def composite_digest(composite: Composite) -> str:
    """SHA-256 over what a composite answers by: its modules in order, their score, its parameters.

    Where modules came from is not in it, and neither is how it was made.
    """
    parameters = {k: v for k, v in composite.parameters.items() if k != EXPECTED}
    content = {
        "modules": [knowledge(module) for module in composite.modules],
        "score": composite.score,
        "parameters": parameters,
    }
    return digest_text(canonical_json(content))


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
