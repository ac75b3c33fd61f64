"""A replacement behind a gate, over a real store: what is written, when, and what is taken back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as RegistryStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as TrackingStore

import mlflow_rnnmod
from mlflow_rnnmod import composition
from mlflow_rnnmod.operating import promotion
from mlflow_rnnmod.tracking import probe as probing
from mlflow_rnnmod.tracking import searching
from mlflow_rnnmod.tracking.aliases import Alias
from mlflow_rnnmod.tracking.parents import forget_parents
from tests.builders import LABELS, tiny_module, tiny_modules, tiny_parent, tiny_texts
from tests.translators import sentences, tiny_translator, translator_module, translator_modules

TARGET = "models:/names@champion"
WORDS = tiny_texts(60)


def in_this_process(uri: str, column: str, inputs: list[Any]) -> list[Any]:
    """Like the probe, without the seconds that a process takes."""
    forget_parents()
    import pandas as pd

    model = mlflow.pyfunc.load_model(uri)
    return probing.answers_in(model.predict(pd.DataFrame({column: inputs})))


@pytest.fixture
def registry(tracking_uri, monkeypatch) -> dict[str, Any]:
    """``names`` with an alias, and another parent's module ``more.irish``; rows that are right."""
    monkeypatch.setattr(promotion, "probe", in_this_process)
    composite = composition.compose(tiny_modules(tiny_parent("text")))
    mlflow_rnnmod.log_model(composite, registered_model_name="names")
    MlflowClient().set_registered_model_alias("names", "champion", "1")
    other = tiny_module(tiny_parent("text", seed=1), "irish")
    mlflow_rnnmod.log_model(other, registered_model_name="more.irish")
    replaced = mlflow_rnnmod.replace(composite, "irish", other)
    return {"old": (WORDS, composite.predict(WORDS)), "new": (WORDS, replaced.predict(WORDS))}


def state() -> dict[str, Any]:
    """All that a registry can show."""
    client = MlflowClient()
    models = {m.name: (dict(m.aliases), dict(m.tags)) for m in client.search_registered_models()}
    versions = {
        (v.name, v.version): (dict(v.tags), v.description) for v in client.search_model_versions()
    }
    logged = {m.model_id: dict(m.tags) for m in searching.logged_models(client)}
    runs = {run.info.run_id: run.info.status for run in client.search_runs(["0"])}
    return {"models": models, "versions": versions, "logged": logged, "runs": runs}


def promoted(data: Any, **options: Any) -> mlflow_rnnmod.Promotion:
    options = {"replace": {"irish": "models:/more.irish/1"}, "min_rows": 0, **options}
    return mlflow_rnnmod.promote(TARGET, data=data, **options)


def test_one_line_replaces_another_one_goes_back(registry):
    found = promoted(registry["new"])
    assert (found.version, found.before, found.uri) == ("2", "1", "models:/names/2")
    assert Alias.of(TARGET).version(MlflowClient()) == "2"
    assert mlflow_rnnmod.load_model(TARGET).predict(WORDS) == registry["new"][1]
    version = MlflowClient().get_model_version("names", "2")
    gate = json.loads(version.tags["rnnmod.gate"])
    assert gate["against"] == "1"
    assert [change["label"] for change in gate["labels"]] == list(LABELS)
    assert gate["overall"]["new"] == 1.0
    assert set(gate["labels"][0]) >= {"old", "new", "difference", "low", "high", "p", "rows"}
    assert "McNemar" in version.description
    table = [line for line in version.description.splitlines() if line.startswith("| ")]
    header, _, *shown = table  # MLflow puts no space between columns
    assert len(shown) == len(LABELS) + 1
    assert all(line.count("| &emsp;") == 6 for line in (header, *shown))
    model = MlflowClient().get_logged_model(searching.model_id_of(version))
    assert {m.key: m.value for m in model.metrics}["accuracy"] == 1.0
    back = mlflow_rnnmod.rollback(TARGET)
    assert (back.version, back.before) == ("1", "2")
    assert mlflow_rnnmod.load_model(TARGET).predict(WORDS) == registry["old"][1]
    with pytest.raises(MlflowException, match=r"does not say which version.*one of 2"):
        mlflow_rnnmod.rollback(TARGET)
    assert mlflow_rnnmod.rollback(TARGET, to=2).version == "2"


def test_what_is_refused_changes_nothing(registry):
    before = state()
    with pytest.raises(mlflow_rnnmod.PromotionRefused) as error:
        promoted(registry["old"])
    lost = [c for c in error.value.comparison.labels if c.difference < -0.005]
    assert lost
    for change in lost:
        assert f"'{change.label}' {100 * change.old:.1f} to {100 * change.new:.1f}" in str(
            error.value
        )
    assert state() == before


def test_too_few_rows_to_tell(registry):
    before = state()
    with pytest.raises(mlflow_rnnmod.PromotionRefused, match=r"too few rows to tell for .*'zulu'"):
        promoted(registry["new"], min_rows=1000)
    assert state() == before


def test_trying_only_changes_nothing(registry):
    before = state()
    found = promoted(registry["new"], dry_run=True)
    assert found.version is None
    assert found.comparison.overall.new == 1.0
    assert state() == before


def test_a_version_that_is_there_is_taken_as_it_is(registry):
    new = mlflow_rnnmod.replace("models:/names/1", "irish", "models:/more.irish/1")
    mlflow_rnnmod.log_model(new, registered_model_name="names")
    before = state()
    with pytest.raises(mlflow_rnnmod.PromotionRefused):
        promoted(registry["old"], replace=None, candidate="models:/names/2")
    assert state() == before
    found = promoted(registry["new"], replace=None, candidate="models:/names/2")
    assert found.version == "2"
    assert len(MlflowClient().search_model_versions("name='names'")) == 2


def test_the_first_version_needs_no_rows(registry):
    composite = mlflow_rnnmod.compose("models:/names/1")
    found = mlflow_rnnmod.promote("models:/fresh@champion", composite, max_drop=None)
    assert (found.version, found.before, found.comparison) == ("1", None, None)
    assert mlflow_rnnmod.load_model("models:/fresh@champion").labels == LABELS


def aliases(name: str) -> dict[str, str]:
    found = MlflowClient().get_registered_model(name).aliases
    return {alias: str(version) for alias, version in found.items()}


def test_the_first_version_is_the_one_when_there_is_no_alias(registry):
    """An attempt that broke off took number 1 with it, or left it without an alias."""
    composite, client = mlflow_rnnmod.compose("models:/names/1"), MlflowClient()
    for left in (False, True):
        name = f"again-{left}"
        mlflow_rnnmod.log_model(composite, registered_model_name=name, first_alias=False)
        assert aliases(name) == {}
        if not left:
            client.delete_model_version(name, "1")
        mlflow_rnnmod.log_model(composite, registered_model_name=name)
        version = str(max(int(v.version) for v in client.search_model_versions(f"name='{name}'")))
        assert aliases(name) == {"champion": version}
        mlflow_rnnmod.log_model(composite, registered_model_name=name)
        assert aliases(name) == {"champion": version}


@pytest.mark.parametrize("alias", ["champion", "production"])
def test_no_alias_names_a_first_version_before_it_was_tried(registry, monkeypatch, alias):
    seen = []

    def broken(uri: str, *others: Any) -> list[Any]:
        seen.append(aliases("fresh"))
        raise MlflowException("it does not load")

    composite = mlflow_rnnmod.compose("models:/names/1")
    with monkeypatch.context() as patch:
        patch.setattr(promotion, "probe", broken)
        with pytest.raises(MlflowException, match="does not load"):
            mlflow_rnnmod.promote(f"models:/fresh@{alias}", composite, max_drop=None)
    assert seen == [{}]
    assert "fresh" not in searching.registered_names(MlflowClient())
    found = mlflow_rnnmod.promote(f"models:/fresh@{alias}", composite, max_drop=None)
    assert aliases("fresh") == {alias: found.version, "champion": found.version}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": None}, "data=None"),
        ({"data": ([], [])}, "has no rows"),
        ({"data": []}, "has no rows"),
        (
            {"data": [{"text": "a", "languag": "b", "x": 1}], "label_column": "language"},
            "languag'?",
        ),
        ({"data": [{"txt": "a", "label": "b"}]}, "Did you mean 'txt'?"),
        ({"data": "nowhere.jsonl"}, "can't be read"),
        ({"data": "rows.xlsx"}, "expected one of .jsonl"),
        ({"max_drop": -1}, "max_drop=-1"),
        ({"min_rows": 1.5}, "min_rows=1.5"),
        ({"replace": {}}, "replace={}"),
        ({"replace": {"frisian": "models:/more.irish/1"}}, "frisian"),
        ({"replace": {"irish": "models:/more.irish/9"}}, "more.irish"),
        ({"replace": {"german": "models:/more.irish/1"}}, "expected a module for the same label"),
        ({"candidate": "models:/names/1"}, "one of candidate= and replace="),
    ],
)
def test_what_does_not_fit_is_said(registry, change, said):
    before = state()
    arguments = {"data": registry["new"], **change}
    with pytest.raises((MlflowException, ValueError)) as error:
        promoted(**arguments)
    assert said in str(error.value)
    assert state() == before


def test_targets_that_are_not_there_are_said(registry):
    for target, said in (
        ("models:/names/1", "expected models:/<name>@<alias>"),
        ("models:/nams@champion", "Did you mean 'names'?"),
        ("models:/names@best", "it has ['champion']"),
    ):
        with pytest.raises(MlflowException) as error:
            mlflow_rnnmod.promote(target, data=registry["new"], replace={"irish": "x"})
        assert said in str(error.value)
    with pytest.raises(MlflowException, match="there is no such alias"):
        mlflow_rnnmod.rollback("models:/names@best")
    with pytest.raises(MlflowException, match=r"to='abc'; expected the number of a version"):
        mlflow_rnnmod.rollback(TARGET, to="abc")


def test_two_at_once(registry, monkeypatch):
    """The second finds that the alias is elsewhere by now, and takes back what it made."""

    def meanwhile(*arguments: Any) -> list[Any]:
        monkeypatch.setattr(promotion, "probe", in_this_process)
        promoted(registry["new"])
        return in_this_process(*arguments)

    monkeypatch.setattr(promotion, "probe", meanwhile)
    with pytest.raises(MlflowException, match=r"points at version 3 by now, and not at 1"):
        promoted(registry["new"])
    assert Alias.of(TARGET).version(MlflowClient()) == "3"
    left = MlflowClient().search_model_versions("name='names'")
    assert {str(version.version) for version in left} == {"1", "3"}
    assert len(list(searching.logged_models(MlflowClient(), kinds=["composite"]))) == 2


def test_who_sees_another_one_moving_waits_and_gives_up(registry):
    alias, client, waits = Alias.of(TARGET), MlflowClient(), []
    other = "rnnmod.moving.champion.somebody"
    client.set_registered_model_tag("names", other, "9999999999")
    with pytest.raises(MlflowException, match="Somebody else is moving"):
        alias.move(client, "2", "1", waits.append)
    assert len(waits) == 8
    tags = client.get_registered_model("names").tags
    moving = {key: value for key, value in tags.items() if key.startswith("rnnmod.moving.")}
    assert moving == {other: "9999999999"}
    client.set_registered_model_tag("names", other, "0")  # it died long ago
    alias.move(client, "1", "1", waits.append)
    tags = client.get_registered_model("names").tags
    assert not any(key.startswith("rnnmod.moving.") for key in tags)


class Died(ConnectionError):
    pass


@contextmanager
def dying(monkeypatch, step: int, how: str) -> Iterator[list[str]]:
    """A registry that fails at its ``step``-th writing call; lists the calls.

    ``once``: only there. ``dead``: there and ever after, in all that it is asked. ``lost``: what it
    was told is done, but nobody hears of it, and then it is dead.
    """
    calls: list[str] = []
    dead = False

    def wrap(name: str, real: Callable[..., Any], writes: bool) -> Callable[..., Any]:
        @wraps(real)
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal dead
            if dead:
                raise Died("the registry is dead")
            if not writes:
                return real(*arguments, **named)
            calls.append(name)
            if len(calls) != step:
                return real(*arguments, **named)
            found = real(*arguments, **named) if how == "lost" else None
            dead = how != "once"
            raise Died(f"the registry died in {name}: {found!r:.20}")

        return call

    writing = ("create_", "set_", "delete_", "update_", "log_", "finalize_")
    with monkeypatch.context() as patch:
        for store in (RegistryStore, TrackingStore):
            for name in dir(store):
                if name.startswith((*writing, "get_", "search_")):
                    real = getattr(store, name)
                    patch.setattr(store, name, wrap(name, real, name.startswith(writing)))
        yield calls


@pytest.mark.slow
def test_wherever_the_registry_dies_the_alias_loads(registry, monkeypatch):
    """At each of its writing calls, in three ways; the alias always names what answers."""
    with dying(monkeypatch, -1, "once") as calls:
        promoted(registry["new"])
    steps = len(calls)
    assert "set_registered_model_alias" in calls
    assert steps > 8
    mlflow_rnnmod.rollback(TARGET)
    expected = {"1": registry["old"][1]}
    for how in ("once", "dead", "lost"):
        for step in range(1, steps + 1):
            before = state()
            raised = True
            with dying(monkeypatch, step, how) as calls:
                try:
                    promoted(registry["new"])
                    raised = False
                except (Died, MlflowException):
                    pass
            forget_parents()
            now = Alias.of(TARGET).version(MlflowClient())
            right = expected.get(now, registry["new"][1])
            assert mlflow_rnnmod.load_model(TARGET).predict(WORDS) == right, (how, step, calls)
            if raised and how == "once":
                assert state() == before, (step, calls)
            if not raised or calls[-1] == "set_registered_model_alias" and how == "lost":
                assert now != "1", (how, step, calls)
            MlflowClient().set_registered_model_alias("names", "champion", "1")
            for key in MlflowClient().get_registered_model("names").tags:
                if key.startswith("rnnmod.moving."):  # what the dead leave
                    MlflowClient().delete_registered_model_tag("names", key)


@pytest.mark.slow
def test_a_process_of_its_own(registry, monkeypatch):
    monkeypatch.setattr(promotion, "probe", probing.probe)
    assert promoted(registry["new"]).version == "2"
    with pytest.raises(MlflowException, match=r"models:/nobody/1 does not load and answer"):
        probing.probe("models:/nobody/1", "text", ["a"])


def test_where_used(registry):
    promoted(registry["new"])
    for uri in ("models:/more.irish/1", "models:/more.irish"):
        (use,) = mlflow_rnnmod.where_used(uri)
        assert (use.uri, use.label, use.module, use.aliases) == (
            "models:/names/2",
            "irish",
            "more.irish/1",
            ("champion",),
        )
    module = searching.model_id_of(MlflowClient().get_model_version("more.irish", "1"))
    assert [use.uri for use in mlflow_rnnmod.where_used(f"models:/{module}")] == ["models:/names/2"]
    with pytest.raises(MlflowException, match="expected a module"):
        mlflow_rnnmod.where_used("models:/names/1")
    with pytest.raises(MlflowException):
        mlflow_rnnmod.where_used("models:/nobody/1")


def test_translations_are_compared_by_bleu(tracking_uri, monkeypatch, tmp_path):
    """A better language in the place of another; rows have a column for each language."""
    monkeypatch.setattr(promotion, "probe", in_this_process)
    old = composition.compose(translator_modules(tiny_translator()))
    new = translator_module(tiny_translator(seed=1), "de")
    mlflow_rnnmod.log_model(old, registered_model_name="words")
    MlflowClient().set_registered_model_alias("words", "champion", "1")
    sources, _ = sentences(30, seed=0)
    right = mlflow_rnnmod.replace(old, "de", new).predict(sources)
    rows = [{"text": text, **answers} for text, answers in zip(sources, right, strict=True)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    target, data = "models:/words@champion", str(tmp_path / "rows.jsonl")
    found = mlflow_rnnmod.promote(target, replace={"de": new}, data=data)
    assert (found.version, found.comparison.figure) == ("2", "BLEU")
    assert all(change.new > change.old - 1e-9 for change in found.comparison.labels)
    with pytest.raises(mlflow_rnnmod.PromotionRefused, match=r"'de' .* points of BLEU"):
        mlflow_rnnmod.promote(target, "models:/words/1", data=data)
