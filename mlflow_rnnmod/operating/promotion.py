"""A new version behind a gate: measured, written, tried in a fresh process; the alias moves last.

Nothing is written before both models have answered the same rows and no label has lost more than
allowed. After that each step leaves the alias where it was until all that it will point to is there
and has been loaded by its URI; what a failed step leaves behind is deleted again, and where the
registry is gone, too, it is a version that no alias names.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_STATE

from mlflow_rnnmod.composition import Composite
from mlflow_rnnmod.inputs import input_of
from mlflow_rnnmod.tracking import fetch
from mlflow_rnnmod.tracking.aliases import BEFORE, Alias
from mlflow_rnnmod.tracking.all_or_nothing import Attempt
from mlflow_rnnmod.tracking.directory import answer_in, input_kind, kind, labels_of
from mlflow_rnnmod.tracking.drift import with_expected
from mlflow_rnnmod.tracking.gate import MIN_ROWS, Comparison, compare, union
from mlflow_rnnmod.tracking.given import Given, read_given
from mlflow_rnnmod.tracking.probe import ROWS, answers_in, made_up, probe
from mlflow_rnnmod.tracking.pyfunc import RnnmodModel
from mlflow_rnnmod.tracking.registration import ALIAS
from mlflow_rnnmod.tracking.searching import registered_names, suggestion
from mlflow_rnnmod.tracking.servers import asks

if TYPE_CHECKING:
    from mlflow_rnnmod.tracking.directory import Thing

_logger = logging.getLogger(__name__)

GATE = "rnnmod.gate"
"""Tag of a version: what the gate measured, as JSON."""
_LONGEST = 90_000  # of a version's tag


class PromotionRefused(MlflowException):
    """A new version did not come through the gate; nothing was changed.

    Args:
        reason: labels and amounts.
        comparison: of old and new.
    """

    def __init__(self, reason: str, comparison: Comparison) -> None:
        super().__init__(reason, error_code=INVALID_STATE)
        self.comparison = comparison


@dataclass(frozen=True)
class Promotion:
    """What came of :func:`promote`.

    Args:
        alias: that was to be moved.
        version: it points at now; ``None`` where that was only tried (``dry_run``).
        before: version that it pointed at before; ``None`` where there was none.
        comparison: of old and new; ``None`` without rows, and for the first version.
        tried: a version that is there and was only tried.
    """

    alias: Alias
    version: str | None
    before: str | None
    comparison: Comparison | None
    tried: str | None = None

    @property
    def uri(self) -> str | None:
        """Of the new version."""
        return None if self.version is None else f"models:/{self.alias.name}/{self.version}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "alias": self.alias.uri,
            "uri": self.uri,
            "version": self.version,
            "before": self.before,
            "comparison": None if self.comparison is None else self.comparison.to_dict(),
        }

    def __str__(self) -> str:
        moved = f"{self.alias.uri}: version {self.before or 'none'}"
        tried = f"{self.tried or 'the new one'} (only tried)"
        return f"{moved} -> {self.version or tried}"


@asks()
def promote(
    target: str,
    candidate: Thing | str | os.PathLike[str] | None = None,
    *,
    replace: Mapping[str, Any] | None = None,
    data: Any = None,
    label_column: str | None = None,
    max_drop: float | None = 0.5,
    min_rows: int = MIN_ROWS,
    dry_run: bool = False,
) -> Promotion:
    """Put a new version in the place of the one that an alias names, if no label loses by it.

    Both answer the same rows. The new one is logged and registered where it is not yet, loaded by
    its URI in a fresh process, and asked there; the alias moves last.

    Args:
        target: the alias, ``models:/<name>@<alias>``.
        candidate: what is to take its place: a composite (or another model of this flavor), or the
            URI of one; a registered version of ``<name>`` is taken as it is, all else becomes a new
            version.
        replace: instead of it, modules by label that take the place of the target's own.
        data: rows with what is right (see :func:`~mlflow_rnnmod.tracking.given.read_given`): a
            file, a DataFrame, or a pair of inputs and labels.
        label_column: where what is right stands in it.
        max_drop: points of F1 that a label may lose; ``None`` lets everything through.
        min_rows: rows that each label must have, or there are too few to tell.
        dry_run: measure only.

    Returns:
        Versions, and figures of each label.

    Raises:
        PromotionRefused: if a label lost more than allowed, or has too few rows; nothing was
            changed.
        MlflowException: if something is not there or does not fit, the new version does not load
            in a process of its own, or somebody else moved the alias in the meantime. The alias
            stays where it was.
        IncompatibleModules: if modules do not go together.

    Example::

        mlflow_rnnmod.promote("models:/names@champion", data="test.jsonl",
                              replace={"Irish": "models:/more.irish/1"})
    """
    alias = Alias.of(target)
    _check_arguments(candidate, replace, data, max_drop, min_rows)
    client = MlflowClient()
    before = alias.version(client)
    if before is None and replace is not None:
        _missing_target(client, alias)
    old = None if before is None else fetch.load(f"models:/{alias.name}/{before}")
    new, version = _candidate(alias, candidate, replace, old)
    comparison, rows = None, None
    if data is not None:
        rows = read_given(data, new, label_column)
        if old is not None:
            comparison = compared(old, new, rows)
    if comparison is not None and max_drop is not None:
        reason = comparison.refusal(max_drop, min_rows)
        if reason is not None:
            told = f"{alias.uri} stays at version {before}: {reason}."
            raise PromotionRefused(told, comparison)
    if dry_run:
        return Promotion(alias, None, before, comparison, tried=version)
    if version is None and rows is not None and isinstance(new, Composite):
        new = with_expected(new, rows.inputs)
    with _attempt(client, alias) as attempt:
        made = attempt.registered(new, rows) if version is None else version
        attempt.write(made, before, comparison, rows)
        try_version(f"models:/{alias.name}/{made}", new, rows)
        attempt.move(made, before)
    return Promotion(alias, made, before, comparison)


def compared(old: Thing, new: Thing, rows: Given) -> Comparison:
    """What two models answer to the same rows, label by label."""
    kinds = [answer_in(thing) for thing in (old, new)]
    inputs = [input_kind(thing) for thing in (old, new)]
    if kinds[0] != kinds[1] or inputs[0] != inputs[1]:
        told = [f"{i} -> {k.name}" for i, k in zip(inputs, kinds, strict=True)]
        raise MlflowException.invalid_parameter_value(
            f"The old model is {told[0]} and the new one {told[1]}; expected both to read and "
            "answer the same."
        )
    before, after = (answers_in(RnnmodModel(thing).predict(rows.inputs)) for thing in (old, new))
    try:
        if not kinds[0].scored:
            from mlflow_rnnmod.tracking.translations import compare_translations

            return compare_translations(rows.targets, before, after, labels_of(old), labels_of(new))
        return compare(
            rows.targets,
            before,
            after,
            labels=union(labels_of(old), labels_of(new)),
            answer=kinds[0],
            end_label=getattr(new, "end_label", None) or getattr(old, "end_label", None),
        )
    except ValueError as error:
        raise MlflowException.invalid_parameter_value(str(error)) from error


def _check_arguments(
    candidate: Any, replace: Any, data: Any, max_drop: float | None, min_rows: int
) -> None:
    problems = []
    if (candidate is None) == (replace is None):
        problems.append("expected one of candidate= and replace=")
    if replace is not None and (not isinstance(replace, Mapping) or not replace):
        problems.append(f"replace={replace!r:.80}; expected modules by label")
    if data is None and max_drop is not None:
        problems.append(
            "data=None; expected rows to compare on, or max_drop=None for no comparison"
        )
    if max_drop is not None and not (isinstance(max_drop, int | float) and 0 <= max_drop <= 100):
        problems.append(f"max_drop={max_drop!r}; expected points from 0 to 100")
    if not isinstance(min_rows, int) or min_rows < 0:
        problems.append(f"min_rows={min_rows!r}; expected a number of rows from 0 on")
    if problems:
        raise MlflowException.invalid_parameter_value("; ".join(problems) + ".")


def _missing_target(client: MlflowClient, alias: Alias) -> None:
    """Say what is there instead of the alias."""
    known = registered_names(client)
    if alias.name not in known:
        raise MlflowException.invalid_parameter_value(
            f"target={alias.uri!r}: there is no registered model {alias.name!r}."
            + suggestion(alias.name, known)
        )
    aliases = list(client.get_registered_model(alias.name).aliases)
    raise MlflowException.invalid_parameter_value(
        f"target={alias.uri!r}: {alias.name!r} has no alias {alias.alias!r}; it has {aliases}."
    )


def _candidate(
    alias: Alias, candidate: Any, replace: Mapping[str, Any] | None, old: Thing | None
) -> tuple[Thing, str | None]:
    """What is to be promoted, and its version where it is one of this registered model's."""
    from mlflow_rnnmod import verbs

    if replace is not None:
        if not isinstance(old, Composite):
            raise MlflowException.invalid_parameter_value(
                f"target={alias.uri!r} is a {kind(old) if old else 'missing'}; expected a "
                "composite to replace modules of."
            )
        new = old
        for label, module in replace.items():
            new = verbs.replace(new, label, module)
        return new, None
    if not isinstance(candidate, str | os.PathLike):
        kind(candidate)  # refuses what is none of ours
        return candidate, None
    thing = fetch.load(candidate)
    origin = fetch.origin_of(os.fspath(candidate))
    return thing, origin["version"] if origin.get("name") == alias.name else None


def _questions(new: Thing, rows: Given | None) -> list[Any]:
    """What to ask in the fresh process: the first rows, or without any a made-up one."""
    return [made_up(new)] if rows is None else rows.inputs[:ROWS]


def try_version(uri: str, thing: Thing, rows: Given | None = None) -> None:
    """Whether a model answers in a fresh process, by its URI, what it answers here."""
    inputs = _questions(thing, rows)
    found = probe(uri, input_of(input_kind(thing)).column, inputs)
    expected = answers_in(RnnmodModel(thing).predict(list(inputs)))
    different = sum(a != b for a, b in zip(found, expected, strict=False))
    if different or len(found) != len(expected):
        raise MlflowException(
            f"{uri} answers {different} of {len(expected)} rows otherwise in a process of its own "
            "than here; the alias was not moved.",
            error_code=INVALID_STATE,
        )


class _Attempt(Attempt):
    """One attempt to promote a version, and what it has made so far."""

    def __init__(self, client: MlflowClient, alias: Alias) -> None:
        super().__init__(client)
        self._alias = alias
        self._moving: str | None = None

    def registered(self, new: Thing, rows: Given | None) -> str:
        """Log and register it, with its figures; gives the version."""
        # No alias names it before it has been tried.
        name = self._alias.name
        info = self.log(new, _model_name(name), name, rows=rows, first_alias=False)
        return str(info.registered_model_version)

    def write(
        self, version: str, before: str | None, comparison: Comparison | None, rows: Given | None
    ) -> None:
        """What the gate measured, and the version before, on the new version."""
        tags = {}
        if before is not None and before != version:
            tags[BEFORE + self._alias.alias] = before
        name, now = self._alias.name, self.client.get_model_version(self._alias.name, version)
        if comparison is not None:
            found = {"against": before, "data": rows.name if rows else None, **comparison.to_dict()}
            text = json.dumps(found, ensure_ascii=False)
            if len(text) > _LONGEST:
                found["labels"] = found["labels"][:200]
                text = json.dumps(found, ensure_ascii=False)[:_LONGEST]
            tags[GATE] = text
        for key, value in tags.items():
            present = now.tags.get(key)
            if present is None:
                self.later(f"tag {key}", self.client.delete_model_version_tag, name, version, key)
            else:
                tag = name, version, key, present
                self.later(f"tag {key}", self.client.set_model_version_tag, *tag)
            self.client.set_model_version_tag(name, version, key, value)
        if comparison is not None:
            told = _description(comparison, before, rows)
            own = (now.description or "").partition(_TITLE)[0].rstrip()
            undo = self.client.update_model_version
            self.later("description", undo, name, version, now.description)
            self.client.update_model_version(name, version, f"{own}\n\n{told}".lstrip())

    def move(self, version: str, before: str | None) -> None:
        """Point the alias at the version, and ``champion`` where no alias was there at all."""
        name = self._alias.name
        first = not self.client.get_registered_model(name).aliases
        self._moving = version
        self._alias.move(self.client, version, before)
        if first and self._alias.alias != ALIAS:
            try:
                self.client.set_registered_model_alias(name, ALIAS, version)
            except MlflowException as error:
                _logger.warning("%s/%s did not get the alias %r: %s", name, version, ALIAS, error)

    def may_have_moved(self) -> bool:
        """Whether the alias may point at the new version although moving it failed.

        An answer can get lost on its way back; what an alias names must not be deleted.
        """
        if self._moving is None:
            return False
        try:
            return self._alias.version(self.client) == self._moving
        except Exception:  # the registry is gone: nothing can be told, and nothing undone
            return True


_TITLE = "**The gate**"


def _description(comparison: Comparison, before: str | None, rows: Given | None) -> str:
    c = comparison.overall
    name = rows.name if rows else "rows"
    first = (
        f"{_TITLE}: {comparison.metric} {100 * c.old:.1f} -> {100 * c.new:.1f} "
        f"({100 * c.difference:+.1f}) against version {before} on {comparison.rows} rows of {name}"
    )
    return f"{first}\n\n{comparison.markdown()}"


def _model_name(registered: str) -> str:
    """A name for a LoggedModel, in which some characters may not be."""
    return "".join("-" if c in "/:.%\"'" else c for c in registered) or "composite"


@contextmanager
def _attempt(client: MlflowClient, alias: Alias) -> Iterator[_Attempt]:
    attempt = _Attempt(client, alias)
    try:
        yield attempt
    except BaseException:
        if not attempt.may_have_moved():
            attempt.undo()
        raise
