"""Cards of modules, parents and composites, read back by a Markdown parser."""

from __future__ import annotations

import ast
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from mlflow_rnnmod.composition import Composite, compose
from mlflow_rnnmod.pages.card import module_card, parent_card, registered_card
from mlflow_rnnmod.pages.composite import Places, composite_page
from mlflow_rnnmod.pages.markdown import escape, fenced, fit, inline, link, plain, table
from mlflow_rnnmod.pages.wording import percent, points
from tests.builders import LABELS, ODD_LABELS, tiny_module, tiny_modules, tiny_parent
from tests.composition.test_kinds import mixed, parent_of

URI = "models:/surnames.german@champion"
PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def shown(markdown: str) -> str:
    """What a reader sees: the text of all paragraphs and cells, without the markup."""
    found = []
    for token in PARSER.parse(markdown):
        for child in token.children or ():
            assert child.type not in ("html_inline", "image"), child
            found.append(child.content)
        assert token.type != "html_block", token
    return "".join(found)


def tables(markdown: str) -> list[list[list[str]]]:
    """Cells of all tables, as text, row by row."""
    found: list[list[list[str]]] = []
    tokens = PARSER.parse(markdown)
    for position, token in enumerate(tokens):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in ("td_open", "th_open"):
            cell = tokens[position + 1].children or ()
            found[-1][-1].append("".join(child.content for child in cell).strip())
    return found


def code(markdown: str) -> list[str]:
    return [token.content for token in PARSER.parse(markdown) if token.type == "fence"]


@given(st.text())
def test_escaped_text_is_shown_as_it_is(text: str) -> None:
    assert shown("x" + escape(text, 10_000)) == "x" + plain(text, 10_000)
    # At the beginning of a line as well, where headings, lists and quotes start.
    assert shown(escape(text, 10_000)).split() == plain(text, 10_000).split()


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_no_text_breaks_a_table(texts: list[str]) -> None:
    markdown = table(("n", "text"), [(str(i), escape(t)) for i, t in enumerate(texts)])
    (rows,) = tables(markdown)
    assert len(rows) == len(texts) + 1
    assert all(len(row) == 2 for row in rows)


@given(st.text(st.sampled_from("`~a\n"), max_size=30))
def test_no_code_leaves_its_block(text: str) -> None:
    assert code(fenced(text)) == [text + "\n"]


@pytest.mark.parametrize("label", ODD_LABELS)
def test_a_card_shows_any_label(label: str) -> None:
    card = module_card(tiny_module(tiny_parent(labels=ODD_LABELS), label), URI)
    assert plain(label) in shown(card)
    facts = dict(tables(card)[1])
    assert facts["label"] == f"{plain(label)} ({ODD_LABELS.index(label) + 1} of 10)"
    assert "<script" not in card


@pytest.mark.parametrize("kind", ["text", "tokens", "features"])
def test_what_a_module_card_says(kind: str) -> None:
    parent = tiny_parent(kind).known_as("m-123", "sqlite:///x.db")
    module = tiny_module(parent, "irish", removal=0.25)
    card = module_card(
        module, URI, ["models:/surnames.zulu@champion"], "#/experiments/1/models/m-123"
    )
    figures, facts, layers = (dict((row[0], row[1:]) for row in t) for t in tables(card))
    assert facts["units kept"] == [f"{module.trunk.kept} of 8"]
    assert facts["units removed"] == ["25.0 % by random"]
    assert facts["repairs"] == ["fold, refit, calibrate"]
    assert figures["precision"] == [percent(module.figures["precision"])]
    assert figures["rows of this label"] == ["25"]
    assert layers["recurrent.0.fwd"][1:] == ["6", "8"]
    assert parent.digest in card
    assert f"[{parent.digest[:12]}](#/experiments/1/models/m-123)" in card
    assert facts["calibrated on"] == ["25 of 50 validation rows"]
    rows = "Measured on the other 25 of 50 validation rows, split off by a seeded hash."
    assert rows in shown(card)


@pytest.mark.parametrize("kind", ["text", "tokens", "features"])
def test_snippets_are_python(kind: str) -> None:
    parent = tiny_parent(kind)
    card = module_card(tiny_module(parent), 'models:/a"b\\@champion', [URI])
    first, second = code(card)
    found = [ast.parse(snippet) for snippet in (first, second)]
    texts = [n.value for tree in found for n in ast.walk(tree) if isinstance(n, ast.Constant)]
    assert texts.count('models:/a"b\\@champion') == 2
    assert texts.count(URI) == 1
    assert kind in texts


def test_what_is_not_known_is_not_claimed() -> None:
    module = replace(tiny_module(tiny_parent()), figures={}, made={})
    card = module_card(module, URI)
    assert "None were measured" in card
    bare = replace(tiny_module(tiny_parent()), made={"rule": "none", "removal": 0.0})
    facts = dict(tables(module_card(bare, URI))[1])
    assert facts["units removed"] == "nothing removed"
    assert facts["repairs"] == "none"
    assert "The rows behind them are not recorded." in module_card(bare, URI)


def test_rows_in_plain_words() -> None:
    module = replace(tiny_module(tiny_parent()), made={"rows": "ten rows"})
    assert "Measured on ten rows." in shown(module_card(module, URI))


def test_whatever_else_was_made_is_told() -> None:
    module = replace(tiny_module(tiny_parent()), made={"kept_repairs": "fold", "nested": {"a": 1}})
    facts = dict(tables(module_card(module, URI))[1])
    assert facts["kept repairs"] == "fold"
    assert "nested" not in facts


def test_parent_card() -> None:
    parent = tiny_parent("text", cell="gru", recurrent=((4, 4), (6, 6)))
    card = parent_card(parent, URI, {"accuracy": 0.925}, "50 rows | more", "runs:/abc")
    figures, facts = (dict(t) for t in tables(card))
    assert facts["network"] == "GRU of 4/4 both ways + 6/6 both ways units"
    assert facts["digest"] == parent.digest
    assert facts["tokenizer"] == parent.tokenizer.digest
    assert facts["labels"] == "3: " + ", ".join(LABELS)
    assert figures["accuracy"] == "92.5 %"
    assert "Measured on 50 rows | more." in shown(card)
    assert '"runs:/abc"' in code(card)[1]


@pytest.mark.parametrize("label", [None, *ODD_LABELS])
def test_a_registered_models_card_holds_for_every_version(label: str | None) -> None:
    card = registered_card(label, "features", 5, URI, ["models:/surnames.zulu@champion"])
    assert label is None or plain(label) in shown(card)
    assert f'"{URI}"' in code(card)[0]
    assert "models:/surnames.zulu@champion" in code(card)[1]
    assert "%" not in shown(card).replace(plain(label or ""), "")


def composite_card(composite: Composite, uri: str) -> str:
    return composite_page(composite, Places(uri))


def _composite(count: int) -> Composite:
    parent = tiny_parent(labels=[f"label|{i}" for i in range(count)])
    return compose(
        replace(module, origin={"uri": f"models:/a.{i}/1", "version": "1"})
        for i, module in enumerate(tiny_modules(parent))
    )


def test_composite_card() -> None:
    composite = _composite(3)
    card = composite_card(composite, "models:/all/1")
    three, labels, technical = tables(card)
    assert [cell.strip() for cell in three[1][:2]] == ["not measured"] * 2
    assert three[1][2].endswith("passes of a parent")
    digest = composite.modules[0].parent.digest
    assert labels[1] == ["label|0", digest[:12]]
    assert len(labels) == 4
    assert "1. Put together from the modules for label" in card
    assert "A model of 3 modules" in shown(card)
    assert "models:/a.0/1" in dict(technical)["modules"]
    assert "and 120 more" in composite_card(_composite(150), "models:/all/1")


@pytest.mark.parametrize("length", [5, 400])
def test_cards_fit_mlflows_limit(length: int) -> None:
    labels = [f"{'label | <b> ' * length}{i}" for i in range(150)]
    parent = tiny_parent(labels=labels, recurrent=((8, 8),) * 30)
    for card in (
        module_card(tiny_modules(parent)[-1], URI, [URI] * 5),
        parent_card(parent, URI, {"accuracy": 0.9}, "x" * 9000, "runs:/x"),
        composite_card(_composite(150), URI),
    ):
        assert len(card) <= 8000
        assert card.count("```") % 2 == 0


def test_fit_leaves_out_whole_sections() -> None:
    assert fit(["one", "two", "three"], 9) == "one\n\ntwo\n"


def test_small_words() -> None:
    assert link("a]b", "#/x") == r"[a\]b](#/x)"
    assert inline("a`b") == "`` a`b ``"
    assert re.fullmatch(r"-12\.3", points(-0.1234))


@pytest.mark.parametrize(
    ("kind", "question", "joined"),
    [
        ("tags", "is a step of the input a, or another", "At each step, the label with the best"),
        ("list", "is a in the list of labels", "at each place of the list, up to c (score"),
        ("multilabel", "does a apply to the input?", "thresholds are 0, but: b 0.25."),
    ],
)
def test_cards_say_what_kind_of_answer_it_is(kind: str, question: str, joined: str) -> None:
    modules = tiny_modules(parent_of(kind))
    card = module_card(modules[0], URI)
    assert question in shown(card)
    assert dict(tables(card)[1])["answer"]
    assert dict(tables(parent_card(modules[0].parent, URI))[0])["answer"]
    thresholds = {"b": 0.25} if kind == "multilabel" else None
    composite = compose(modules, thresholds=thresholds)
    assert joined in shown(composite_card(composite, URI))
    if kind == "list":
        assert "A module that ends lists" in shown(module_card(modules[2], URI))
        assert "reads the whole input at each of 4 steps" in card
        alone = shown(composite_card(compose(modules[:2]), URI))
        assert "reaches its threshold" in alone and "all thresholds are 0" in alone
    if kind == "tags":
        assert "steps with this label" in card


def test_cards_of_kinds_together() -> None:
    both, _, _ = mixed("tags")
    assert "less the logarithm of the number of steps" in shown(composite_card(both, URI))
