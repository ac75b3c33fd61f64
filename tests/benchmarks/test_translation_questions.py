"""The questions asked of tiny translators of a few made-up sentences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import torch

from benchmarks.data import TranslationData
from benchmarks.translation import parents
from benchmarks.translation.parents import Trained, Translators
from benchmarks.translation.questions import Studies, rq1_rows, rq2_rows, rq3_rows
from benchmarks.translation.scenarios import SCENARIOS, scenario_rows
from benchmarks.translation.study import Bleu, TranslationStudy, bleu
from mlflow_rnnmod.composition import whole_parent

WORDS = {
    "en": ["one", "two", "three", "red", "dog"],
    "de": ["eins", "zwei", "drei", "rot", "Hund"],
    "fr": ["un", "deux", "trois", "rouge", "chien"],
    "it": ["uno", "due", "tre", "rosso", "cane"],
    "uk": ["один", "два", "три", "червоний", "пес"],
    "et": ["üks", "kaks", "kolm", "punane", "koer"],
}
LANGUAGES = {
    "tatoeba": ("en", "de", "fr", "it"),
    "tatoeba_uk": ("en", "de", "fr", "it", "uk"),
    "tatoeba_et": ("et", "en", "de", "it"),
    "tatoeba_et_en": ("et", "en"),
}
TINY = {
    "units": 10,
    "embedding": 6,
    "source_vocabulary": 60,
    "vocabulary": 60,
    "epochs": 1,
    "batch_size": 4,
}


def sentences(folder: str) -> TranslationData:
    draw = torch.Generator().manual_seed(len(folder))
    splits = {}
    for split, rows in (("train", 12), ("validation", 4), ("test", 6)):
        picked = torch.randint(0, 5, (rows, 3), generator=draw).tolist()
        splits[split] = {
            code: [" ".join(WORDS[code][i] for i in row) for row in picked]
            for code in LANGUAGES[folder]
        }
    source, *targets = LANGUAGES[folder]
    return TranslationData(folder, splits, source, tuple(targets))


class Few(Translators):
    """Of a few sentences, in the place of files."""

    def data(self, folder: str, targets: Sequence[str] | None = None) -> TranslationData:
        first, *others = (sentences(name) for name in folder.split("+"))
        for other in others:
            first = first.with_more(other)
        return first if targets is None else first.only(targets)


@pytest.fixture(scope="module")
def translators(tmp_path_factory: pytest.TempPathFactory) -> Translators:
    patch = pytest.MonkeyPatch()
    patch.setattr(parents, "QUICK", TINY)
    yield Few(Path(), tmp_path_factory.mktemp("cache"), quick=True)
    patch.undo()


@pytest.fixture(scope="module")
def trained(translators: Translators) -> Trained:
    return translators.trained("tatoeba", cell="gru")


@pytest.fixture(scope="module")
def study(trained: Trained) -> TranslationStudy:
    return TranslationStudy.start(trained)


FIXED = {"question": "rq1", "cell": "gru", "layers": 1, "variant": "rolled"}


def told(_: str) -> None:
    pass


def test_bleu_is_sacrebleus_over_sentences_that_have_a_translation(trained: Trained) -> None:
    data, composite = trained.data, whole_parent(trained.parent)
    found = bleu(composite, data, ["fr"])
    answers = composite.predict(data.sources("test"), target="fr")
    right = data.references("test", "fr")
    assert found.languages["fr"] == sacrebleu.corpus_bleu(answers, [right]).score
    assert "tok:13a" in found.signature
    lacking = {**data.sentences["test"], "fr": [None, *right[1:]]}
    some = TranslationData("some", {"test": lacking}, "en", ("fr",))
    expected = sacrebleu.corpus_bleu(answers[1:], [right[1:]]).score
    assert bleu(composite, some, ["fr"]).languages["fr"] == expected
    assert Bleu({"de": 1.0, "fr": 4.0}, "").mean == 2.5


def test_modules_leave_out_what_the_rule_removes(study: TranslationStudy) -> None:
    for rule in ("sensitivity", "random"):
        removed = study.removed(rule, 0.2)
        modules = study.modules(removed)
        assert list(modules) == ["de", "fr", "it"]
        for module, units in zip(modules.values(), removed, strict=True):
            for name, keep in module.trunk.keep.items():
                assert torch.equal(keep, ~units[name]) and int(units[name].sum()) == 2
    first, second = study.random(removed, draws=2)
    assert [int(units.sum()) for units in first[0].values()] == [2]
    assert any(not torch.equal(a[k], b[k]) for a, b in zip(first, second, strict=True) for k in a)


def test_rows_of_the_first_question(study: TranslationStudy) -> None:
    given: Any = (FIXED, ["sensitivity"], [0.2], ["none", "calibrate", "all"], 2)
    rows = list(rq1_rows(study, *given, done=set(), told=told))
    assert len(rows) == 3 * 2 * 3  # none, sensitivity, random; two repairs; three languages
    whole = study.parent_bleu.languages
    for row in rows:
        code = row["dataset"].removeprefix("tatoeba/")
        assert row["parent_score"] == whole[code]
        assert row["delta"] == row["net"] == row["score"] - whole[code]
        assert row["metric"] == "bleu" and row["signature"].startswith("nrefs:1")
    nothing = [r for r in rows if r["rule"] == "none"]
    assert {r["delta"] for r in nothing} == {0.0} and {r["units_kept"] for r in nothing} == {1.0}
    folded = study.composed(study.removed("sensitivity", 0.2), fold=True).languages
    mine = [r for r in rows if (r["rule"], r["repairs"]) == ("sensitivity", "all")]
    assert [r["score"] for r in mine] == [folded[code] for code in ("de", "fr", "it")]
    assert {r["units_kept"] for r in mine} == {0.8} and mine[0]["paper_delta"] == -0.16
    random = [r for r in rows if r["rule"] == "random"]
    assert {r["matched"] for r in random} == {"sensitivity"}
    done = {(r["rule"], r["removal"], r["repairs"], r["matched"]) for r in rows}
    assert list(rq1_rows(study, *given, done=done, told=told)) == []


def test_two_languages_against_a_translator_from_scratch(translators: Translators) -> None:
    studies = Studies("rolled", "joint")
    done = {("de+fr", rule) for rule in ("sensitivity", "random", "none")}
    given: Any = (translators, studies, 0.2, "gru", 1, 0)
    rows = list(rq2_rows(*given, done=done, told=told))
    assert [r["pair"] for r in rows] == ["de+it"] * 3 + ["fr+it"] * 3
    scratch = translators.trained("tatoeba", ("de", "it"), "gru", scratch=True)
    right = bleu(whole_parent(scratch.parent), scratch.data)
    assert rows[0]["scratch_score"] == right.mean and rows[0]["scratch_seconds"] > 0
    whole = studies.of(translators.trained("tatoeba", cell="gru")).parent_bleu.languages
    none = next(r for r in rows if r["rule"] == "none")
    assert none["languages"] == {code: whole[code] for code in ("de", "it")}


def test_a_module_of_the_worst_gives_way_to_the_best_ones(translators: Translators) -> None:
    studies = Studies("rolled", "joint")
    given: Any = (translators, studies, 0.2, ("lstm", "gru"), 1, 0)
    rows = [r for r in rq3_rows(*given, done=set(), told=told) if r["rule"] == "none"]
    cells = [rows[0][name].split()[0] for name in ("worst", "best")]
    found = [translators.trained("tatoeba", cell=cell) for cell in cells]
    assert found[0].metric <= found[1].metric
    worst, best = (studies.of(t).parent_bleu.languages for t in found)
    for row in rows:
        assert row["languages"] == {**worst, row["pair"]: best[row["pair"]]}
        assert row["scratch_score"] == pytest.approx(sum(worst.values()) / 3)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_language_comes_in(translators: Translators, name: str) -> None:
    scenario, studies = SCENARIOS[name], Studies("rolled", "joint")
    given: Any = (scenario, translators, studies, 0.2, "gru", 1, 0)
    rows = [r for r in scenario_rows(*given, done=set(), told=told) if r["rule"] == "none"]
    assert [r["pair"] for r in rows] == list(scenario.sources)
    base = translators.trained(name, scenario.base, "gru")
    whole = studies.of(base).parent_bleu.languages
    data = translators.data(name, scenario.languages)
    for row in rows:
        assert list(row["languages"]) == list(row["scratch_languages"]) == [*scenario.languages]
        for code in set(scenario.languages) - {scenario.language}:
            assert row["languages"][code] == whole[code]
        new = translators.trained(*scenario.sources[row["pair"]], "gru")
        own = bleu(whole_parent(new.parent), data, [scenario.language]).languages
        assert row["languages"][scenario.language] == own[scenario.language]
        assert len(row["paper_deltas"]) == 2 and row["new_seconds"] == new.seconds
    done = {(pair, rule) for pair in scenario.sources for rule in ("sensitivity", "random", "none")}
    assert list(scenario_rows(*given, done=done, told=told)) == []


def test_settings_of_models_from_scratch(translators: Translators, monkeypatch: Any) -> None:
    found: list[Any] = []

    def trained_translator(data: TranslationData, training: Any, cache: Any, least: Any) -> Any:
        found.append((data.targets, training, least))
        raise KeyboardInterrupt

    monkeypatch.setattr(parents, "trained_translator", trained_translator)
    full = Few(Path(), None)
    for folder, scratch in (("tatoeba", False), ("tatoeba", True), ("tatoeba_et", False)):
        with pytest.raises(KeyboardInterrupt):
            full.trained(folder, scratch=scratch)
    (_, parent, none), (_, same, least), (_, small, _) = found
    assert none is None and same == parent and least == parent.epochs
    assert small.units < parent.units and small.vocabulary < parent.vocabulary
    with pytest.raises(ValueError, match="cell='rnn_relu'"):
        full.trained("tatoeba", cell="rnn_relu")
