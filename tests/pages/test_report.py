"""Reports: index, tables, pictures and the page that holds it all."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlflow_rnnmod.pages.dial import settings_svg, sorted_settings, taken_of, write_settings
from mlflow_rnnmod.pages.markdown import plain
from mlflow_rnnmod.pages.page import page
from mlflow_rnnmod.pages.pictures import overlap_svg, sizing_svg, write_overlap
from mlflow_rnnmod.pages.report import (
    Entry,
    index_markdown,
    summary,
    worst_first,
    write_index,
    write_pictures,
)
from mlflow_rnnmod.tracking.names import slugs
from tests.builders import LABELS, ODD_LABELS, tiny_decomposition, tiny_modules, tiny_parent
from tests.pages.test_card import PARSER, shown, tables


def entries(decomposition: Any, registered: bool = False) -> list[Entry]:
    names = slugs(module.label for module in decomposition.modules)
    return [
        Entry(
            module,
            names[module.label],
            f"m-{position}",
            f"fam.{names[module.label]}" if registered else None,
            "2" if registered else None,
        )
        for position, module in enumerate(decomposition.modules)
    ]


class _Page(HTMLParser):
    """Tags, attributes and text of a page; everything opened has to be closed again."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.parametrize("labels", [LABELS, ODD_LABELS, [f"intent_{i}" for i in range(150)]])
def test_the_index_links_every_module(labels: tuple[str, ...]) -> None:
    decomposition = tiny_decomposition(tiny_parent(labels=labels))
    markdown = index_markdown(decomposition, entries(decomposition, True), "7", "m-parent")
    found = tables(markdown)
    rows = [row for table in found for row in table[1:]]
    assert {len(row) for table in found for row in table} == {len(rows[0])}
    shown_labels = sorted(row[0].strip() for row in rows)
    assert shown_labels == sorted(plain(label, 80).strip() for label in labels)
    assert [len(table) - 1 for table in found] == (
        [10] * 15 if len(labels) == 150 else [len(labels)]
    )
    targets = re.findall(r"\]\((#/experiments/7/models/[^)]+)\)", markdown)
    end = "?workflowType=machine_learning"
    assert sorted(targets) == sorted(
        f"#/experiments/7/models/m-{i}{end}" for i in ("parent", *range(len(labels)))
    )
    assert markdown.count("](#/models/fam.") == len(labels)
    assert all(link.endswith(f"{end})") for link in re.findall(r"\(#/[^)]*\)", markdown))
    assert not any(token.type == "html_block" for token in PARSER.parse(markdown))


def test_worst_first() -> None:
    """By what was lost against the parent, then by how good it is; what is not known comes last."""
    parent = tiny_parent(labels="abcde")
    figures = (
        {"f1": 0.9, "parent_f1": 0.9},
        {"f1": 0.8, "parent_f1": 0.9},
        {"f1": 0.5, "parent_f1": 0.5},
        {},
        {"f1": float("nan"), "parent_f1": 0.4},
    )
    modules = tuple(
        replace(module, figures=mine)
        for module, mine in zip(tiny_modules(parent), figures, strict=True)
    )
    decomposition = tiny_decomposition(parent, modules=modules)
    found = [entry.module.label for entry in worst_first(entries(decomposition))]
    assert found[:3] == ["b", "c", "a"]
    markdown = index_markdown(decomposition, entries(decomposition), "7")
    (rows,) = tables(markdown)
    assert rows[0][1:4] == ["F1", "its parent", "points"]
    assert rows[1][1:4] == ["80.0 %", "90.0 %", "-10.0"]
    assert re.search(r'data-value="b">b</td>.*data-value="c">c</td>', page(decomposition), re.S)


def test_a_promise_that_is_broken_comes_first() -> None:
    decomposition = tiny_decomposition(tiny_parent())
    figures = {**decomposition.figures, "net": -0.031}
    words = shown(summary(replace(decomposition, figures=figures), "7"))
    assert words.startswith("Mind: what was removed costs 3.1 points on the rows of the report, ")
    assert "Mind" not in shown(summary(decomposition, "7"))  # half a point is what was promised


def test_the_summary_adds_up() -> None:
    text = shown(summary(tiny_decomposition(tiny_parent()), "7"))
    assert "3 labels (25.0 % by sensitivity)" in text
    assert "93.0 %; the parent has 92.0 % (+1.0 points)" in text
    assert "that is -0.5 points" in text


def test_warnings_are_shown() -> None:
    decomposition = tiny_decomposition(tiny_parent(), warnings=("half <b>| rows",))
    assert "half <b>| rows" in shown(index_markdown(decomposition, entries(decomposition), "7"))
    assert "half &lt;b&gt;| rows" in page(decomposition)


def test_tables_hold_the_figures(tmp_path: Path) -> None:
    decomposition = tiny_decomposition(tiny_parent(labels=ODD_LABELS))
    write_index(decomposition, entries(decomposition), tmp_path, "7")
    with (tmp_path / "modules.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    table = json.loads((tmp_path / "modules_table.json").read_text(encoding="utf-8"))
    assert list(rows[0])[:3] == ["label", "points", "f1"]
    assert [row["label"] for row in rows] == list(ODD_LABELS)
    assert [row[0] for row in table["data"]] == list(ODD_LABELS)
    for row, values, module in zip(rows, table["data"], decomposition.modules, strict=True):
        found = dict(zip(table["columns"], values, strict=True))
        assert float(row["recall"]) == pytest.approx(module.figures["recall"], abs=5e-5)
        assert found["recall"] == float(row["recall"])
        assert found["kept_units"] == module.trunk.kept
        assert found["version"] is None


def test_missing_figures_are_left_open(tmp_path: Path) -> None:
    parent = tiny_parent()
    bare = tuple(
        replace(module, figures={"recall": float("nan")}, made={})
        for module in tiny_modules(parent)
    )
    decomposition = tiny_decomposition(parent, modules=bare, figures={}, sizing=(), rows={})
    write_index(decomposition, entries(decomposition), tmp_path, "7")
    write_pictures(decomposition, tmp_path)
    assert "NaN" not in (tmp_path / "modules_table.json").read_text()
    assert "How much to remove" not in (tmp_path / "report.html").read_text()
    assert "rows that are not recorded" in (tmp_path / "modules.md").read_text()


@pytest.mark.parametrize("labels", [LABELS, ODD_LABELS, [f"intent_{i}" for i in range(60)]])
def test_the_page_stands_alone_and_shows_any_label(labels: tuple[str, ...]) -> None:
    found = _Page(page(tiny_decomposition(tiny_parent(labels=labels))))
    tags = [tag for tag, _ in found.tags]
    assert not {"a", "link", "iframe"} & set(tags)
    assert tags.count("script") == 1
    for _, attributes in found.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:image/png;base64,") or (
                name not in attributes
            )
    for label in labels:
        assert found.texts.count(plain(label)) >= 1
    words = " ".join(found.texts)
    assert "the other 50 of 100 validation rows, held out by a seeded hash" in words
    assert "120 training rows, at most 500 a label" in words


def test_the_share_taken_is_marked() -> None:
    parent = tiny_parent()
    html = page(tiny_decomposition(parent, modules=tiny_modules(parent, removal=0.2)))
    assert re.search(
        r"<tr class=taken><td>20\.0 %</td><td>93\.2 %</td><td>93\.5 %</td><td>-0\.3", html
    )
    assert html.count("<tr class=taken>") == 1


@pytest.mark.parametrize("count", [1, 2, 10, 30, 150])
def test_the_heat_map_has_every_cell_and_label(count: int, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    overlap = np.triu(draw.uniform(0.5, 1, (count, count)), 1)
    overlap = overlap + overlap.T + np.eye(count)
    labels = [f"label ${i}$ \\frac" + "x" * (i % 40) for i in range(count)]
    write_overlap(overlap, labels, tmp_path / "overlap.png")
    picture = np.asarray(Image.open(tmp_path / "overlap.png").convert("RGB")).astype(int)
    # Nothing is cut off: a white frame is left on all sides.
    for edge in (picture[:3], picture[-3:], picture[:, :3], picture[:, -3:]):
        assert (edge == 255).all()
    # The diagonal has the darkest colour of the scale, across the whole width of the map.
    dark = np.abs(picture - np.array([8, 29, 88])).sum(-1) < 12
    assert dark.any(axis=0).sum() >= 14 * count
    assert dark.any(axis=1).sum() >= 14 * count
    found = _Page(overlap_svg(overlap, labels))
    assert sum(text == plain(labels[-1], 30) for text in found.texts) >= 2


def test_columns_have_the_names_of_their_rows(tmp_path: Path) -> None:
    labels = ["n" * length for length in (3, 12, 1, 7, 20)]
    write_overlap(np.full((5, 5), 0.5), labels, tmp_path / "overlap.png")
    ink = np.asarray(Image.open(tmp_path / "overlap.png").convert("L")) < 140
    heat = np.asarray(Image.open(tmp_path / "overlap.png").convert("RGB"))
    map_rows, map_columns = np.nonzero((heat == heat[-40, -200]).all(-1))
    left, top = map_columns.min(), map_rows.min()
    rows = [ink[top + 52 * i : top + 52 * (i + 1), :left].any(axis=0).sum() for i in range(5)]
    columns = [ink[44:top, left + 52 * i : left + 52 * (i + 1)].any(axis=1).sum() for i in range(5)]
    assert rows == columns
    assert np.argsort(rows).tolist() == [2, 0, 3, 1, 4]


def test_labels_that_look_like_formulas_do_not_fail(tmp_path: Path) -> None:
    write_overlap(np.eye(2), ["$\\bad{$", "日本語 😀"], tmp_path / "overlap.png")
    assert (tmp_path / "overlap.png").stat().st_size > 1000


@pytest.mark.parametrize(
    "sizing",
    [
        [{"removal": 0.0, "accuracy": 0.9, "control_accuracy": 0.9}],
        [{"removal": 0.0, "accuracy": 1.0}, {"removal": 0.5, "accuracy": 0.0}],
        [{"removal": r, "accuracy": 0.9 - r / 100} for r in (0.0, 0.05, 0.1, 0.2, 0.35, 0.5)],
    ],
)
def test_sizing_points_lie_inside_the_picture(sizing: list[dict[str, float]]) -> None:
    circles = [
        a for tag, a in _Page(sizing_svg(sizing, 0.0)).tags if tag == "circle" and a["r"] != "7"
    ]
    taken = [
        a for tag, a in _Page(sizing_svg(sizing, 0.0)).tags if tag == "circle" and a["r"] == "7"
    ]
    assert len(circles) == len(sizing) - 1
    assert len(taken) == 2  # the legend's and the one at 0
    for circle in circles:
        assert 64 <= float(circle["cx"] or 0) <= 616
        assert 40 <= float(circle["cy"] or 0) <= 250


SWEEPS = tuple(
    {
        "removal": removal,
        "trunks": trunks,
        "accuracy": 0.9 - removal / 10,
        "control_accuracy": 0.9,
        "weights_kept": 1 - removal,
        "cost": trunks * (1 - removal),
    }
    for trunks in (2.0, 1.0)
    for removal in (0.5, 0.2)
)


def test_one_of_several_numbers_of_trunks_is_marked() -> None:
    svg = sizing_svg(SWEEPS, 0.2, 1.0)
    circles = [a for tag, a in _Page(svg).tags if tag == "circle"]
    taken, _legend = [a for a in circles if a["r"] == "7"]
    assert len(circles) == 5
    assert float(taken["cx"]) == pytest.approx(64 + 552 * 0.8 / 1.6, abs=0.1)
    assert "passes of the parent" in svg
    assert "<title>20 % removed, 1 trunk</title>" in svg


def test_the_page_shows_what_every_setting_costs() -> None:
    decomposition = tiny_decomposition(tiny_parent(), sizing=SWEEPS)
    figures = {**decomposition.figures, "trunks": 1.0, "cost": 0.8}
    made = [replace(m, made={**m.made, "removal": 0.2}) for m in decomposition.modules]
    html = page(replace(decomposition, figures=figures, modules=tuple(made)))
    (taken,) = re.findall("<tr class=taken>(.*?)</tr>", html)
    assert re.findall("<td>(.*?)</td>", taken) == [
        "20.0 %", "1", "88.0 %", "90.0 %", "-2.0", "80.0 %", "0.80",
    ]  # fmt: skip
    assert html.count("<th>passes</th>") == 1


def test_every_setting_has_its_line_with_all_it_is_and_costs() -> None:
    rows = sorted_settings(SWEEPS)
    assert [(row["trunks"], row["removal"]) for row in rows] == [
        (1.0, 0.2), (1.0, 0.5), (2.0, 0.2), (2.0, 0.5),
    ]  # fmt: skip
    taken = taken_of(rows, 0.5, 1.0)
    assert taken == 1
    assert taken_of(rows, 0.3, 1.0) is None
    svg = settings_svg(rows, taken, "accuracy")
    texts = re.findall("<text[^>]*>([^<]*)</text>", svg)
    for row in rows:
        plural = "s" if row["trunks"] == 2 else ""
        assert f"{100 * row['removal']:g} % removed, {row['trunks']:g} trunk{plural}" in texts
        assert f"{100 * row['accuracy']:.1f} %" in texts
        assert f"{row['cost']:.2f}" in texts
    assert {"accuracy", "weights kept", "passes of the parent"} <= set(texts)
    circles = [a for tag, a in _Page(svg).tags if tag == "circle"]
    assert len(circles) == 1 + 4 * 4  # the legend's; a column has one, the first one two
    # In a column, what is more is further to the right; the cost is read from 0.
    costs = [float(a["cx"] or 0) for a in circles if a["fill"] != "#fff"][-4:]
    left = 200 + 2 * 240
    assert [(x - left) / 190 for x in costs] == pytest.approx([0.5, 0.3125, 1.0, 0.625], abs=0.001)
    (shade,) = [a for tag, a in _Page(svg).tags if tag == "rect"]
    assert float(shade["y"] or 0) == 58 + 26


@pytest.mark.parametrize("metric", ["f1", "bleu"])
def test_reports_of_another_metric(metric: str, tmp_path: Path) -> None:
    named = {
        "removal": 0.2, metric: 0.4321, f"control_{metric}": 0.5, "weights_kept": 0.6, "cost": 2.0,
    }  # fmt: skip
    decomposition = replace(
        tiny_decomposition(tiny_parent(), sizing=(named,)),
        metric=metric,
        figures={f"composed_{metric}": 0.4321, f"parent_{metric}": 0.5, f"delta_{metric}": -0.0679},
    )
    html = page(decomposition)
    shown = {"f1": "F1", "bleu": "BLEU"}[metric]
    assert f"<b>43.2 %</b><span>{shown} of all modules composed again</span>" in html
    assert "<b>-6.8</b><span>points between the two</span>" in html
    assert f"<th>{shown}</th>" in html
    assert "accuracy" not in html.lower().replace("accuracy against", "")
    assert f"reach **43.2 %** {shown}; the parent has 50.0 % {shown} (-6.8" in summary(
        decomposition, "0"
    )
    write_pictures(decomposition, tmp_path)
    assert (tmp_path / "settings.png").stat().st_size > 1000


def test_the_picture_of_settings_marks_the_one_taken(tmp_path: Path) -> None:
    rows = sorted_settings(SWEEPS)
    pictures = []
    for taken in (None, 1):
        write_settings(rows, taken, "accuracy", tmp_path / "settings.png")
        pictures.append(
            np.asarray(Image.open(tmp_path / "settings.png").convert("RGB")).astype(int)
        )
    changed = np.abs(pictures[0] - pictures[1]).sum(axis=2) > 0
    assert set(np.flatnonzero(changed[:, 5]) // 2) == set(range(58 + 26, 58 + 2 * 26 + 1))


@pytest.mark.parametrize(("trunks", "said"), [(1.0, "one trunk between"), (3.0, "3 trunks betw")])
def test_the_summary_says_what_all_modules_cost(trunks: float, said: str) -> None:
    decomposition = tiny_decomposition(tiny_parent())
    assert "passes" not in summary(decomposition, "0")
    figures = {**decomposition.figures, "trunks": trunks, "cost": 1.234}
    words = summary(replace(decomposition, figures=figures), "0")
    assert said in words
    assert "about 1.23 passes of the parent" in words
