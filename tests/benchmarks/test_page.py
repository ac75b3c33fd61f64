"""The page of results: rows told apart and averaged, tables, limits, the picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.page.limits import figures, parents
from benchmarks.page.machine import hours, machine
from benchmarks.page.missing import missing
from benchmarks.page.page import page, write
from benchmarks.page.plot import draw, most_sizes
from benchmarks.page.rows import mean_by, read_rows
from benchmarks.page.tables import paper_delta, reuse_table, rq1_table, scenarios_table
from benchmarks.paper import main
from benchmarks.results import RowFile


def rq1(**other: Any) -> dict[str, Any]:
    row = {
        "question": "rq1",
        "dataset": "math_qa",
        "cell": "lstm",
        "layers": 1,
        "variant": "rolled",
        "gates": "joint",
        "seed": 0,
        "rule": "sensitivity",
        "removal": 0.2,
        "matched": None,
        "repairs": "all",
        "metric": "accuracy",
        "parent_score": 90.0,
        "score": 90.5,
        "delta": 0.5,
        "control_delta": 0.25,
        "net": 0.25,
        "units_kept": 0.8,
        "recurrent_weights_kept": 0.64,
        "jaccard": 0.7,
        "training_seconds": 1800.0,
        "seconds": 900.0,
    }
    return {**row, **other}


def pair(question: str, dataset: str, delta: float, **other: Any) -> dict[str, Any]:
    row = {
        "question": question,
        "dataset": dataset,
        "cell": "lstm",
        "layers": 1,
        "variant": "rolled",
        "gates": "joint",
        "seed": 0,
        "pair": "a+b",
        "rule": "sensitivity",
        "removal": 0.2,
        "repairs": "all",
        "metric": "accuracy",
        "score": 50.0 + delta,
        "scratch_score": 50.0,
        "scratch_seconds": 120.0,
        "delta": delta,
        "score_strategy": "margin",
    }
    return {**row, **other}


def scenario(**other: Any) -> dict[str, Any]:
    row = pair("scenarios", "tatoeba_uk", -0.1, pair="uk from en > uk", metric="bleu")
    row |= {
        "languages": {"de": 10.0, "uk": 12.0},
        "scratch_languages": {"de": 11.0, "uk": 11.5},
        "base_languages": {"de": 10.5},
        "paper_deltas": [-0.18, 0.41],
        "new_seconds": 60.0,
        "base_seconds": 600.0,
        "decomposition_seconds": 6.0,
        "signature": "sig",
    }
    return {**row, **other}


def all_rows() -> list[dict[str, Any]]:
    random = {"rule": "random", "matched": "sensitivity", "net": -2.0}
    none = {"rule": "none", "removal": 0.0, "delta": 0.25, "net": 0.0}
    bleu = {"metric": "bleu", "signature": "sig"}
    return [
        rq1(),
        rq1(seed=1, net=0.75),
        rq1(**random),
        rq1(**none),
        rq1(repairs="none", delta=-1.5, net=-1.5),
        rq1(dataset="tatoeba/de", **bleu),
        rq1(dataset="tatoeba/fr", net=-0.5, **bleu),
        pair("rq2", "math_qa", -0.2),
        pair("rq2", "brown_pos", -1.0),
        pair("rq2", "one-to-one with one-to-many", -3.0),
        pair("rq3", "math_qa", 0.5, worst="rnn 1 seed 0", best="gru 1 seed 0"),
        scenario(),
    ]


def cells(table: str, line: int) -> list[str]:
    return [cell.strip() for cell in table.splitlines()[2 + line].strip("|").split("|")]


def test_rows_of_files_are_told_apart_and_quick_ones_left_out(tmp_path: Path) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    first.write_text(json.dumps({"rows": [rq1(), rq1(dataset="math_qa/3000"), {"cell": "lstm"}]}))
    second.write_text(json.dumps({"rows": [rq1(net=-7.0), rq1(seed=1)]}))
    assert [(r["seed"], r["net"]) for r in read_rows([first, second])] == [(0, -7.0), (1, 0.25)]


def test_rows_say_where_they_come_from_and_survive(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows.json")
    file.add(rq1())
    again = RowFile(tmp_path / "rows.json")
    assert again.where(cell="lstm", seed=0)[0]["machine"] == machine()
    assert again.where(cell="gru") == []


def test_a_mean_of_means_counts_groups_alike() -> None:
    rows = [rq1(net=1.0), rq1(net=3.0, seed=1), rq1(net=0.0, cell="gru")]
    assert mean_by(rows, "net", lambda r: r["cell"]) == 1.0
    assert mean_by(rows, "net") == pytest.approx(4 / 3)


def test_the_table_of_a_network_has_every_rule_beside_the_paper() -> None:
    found = cells(rq1_table(all_rows()[:5], "all"), 0)
    assert found[:6] == ["MathQA", "lstm", "1", "rolled", "2", "90.00"]
    # delta, net of sensitivity, of the paper's rule (none here), of random masks, control, paper.
    assert found[6:] == ["+0.50 ± 0.00", "+0.50 ± 0.25", "", "-2.00", "+0.25", "+0.13"]
    assert cells(rq1_table(all_rows()[:5], "none"), 0)[6] == "-1.50"


def test_tables_of_reuse_and_scenarios() -> None:
    found = cells(reuse_table(all_rows(), "rq2"), 2)
    assert found[0] == "one-to-one with one-to-many" and "-3.00" in found and "-2.49" in found
    assert cells(reuse_table(all_rows(), "rq3"), 0)[1] == "rnn 1 seed 0 / gru 1 seed 0"
    found = cells(scenarios_table(all_rows()), 0)
    assert found[3:6] == ["49.90", "50.00", "-0.10"] and found[-4:] == [
        "-0.18 / +0.41",
        "1.0",
        "0.1",
        "2.0",
    ]


def test_limits_are_compared_with_means_over_sets() -> None:
    found = {f.what: f for f in figures(all_rows())}
    within = found["rq2 within a type, mean over sets"]
    assert within.value == pytest.approx(-0.6) and not within.met and within.rows == 2
    assert found["rq1 net, MathQA, rolled"].met
    assert found["rq2 across types, mean over sets"].value == -3.0
    assert not found["rq1 BLEU, Tatoeba, en > fr"].met
    assert found["Ukrainian added: uk from en > uk"].met
    assert "rq3 across types, mean over sets" not in found


def test_every_output_has_its_own_limit() -> None:
    rows = [
        rq1(dataset=dataset, variant=variant)
        for dataset in ("clinc_oos/domain", "brown_pos")
        for variant in ("rolled", "unrolled")
    ]
    assert [f.limit for f in figures(rows)] == [-0.5, -0.5, -0.7, -0.5, 0.0]


def test_parents_are_as_good_as_the_worst_of_them() -> None:
    bleu = {"metric": "bleu", "cell": "gru"}
    rows = [rq1(parent_score=80.0), rq1(parent_score=74.0, seed=1), rq1(dataset="other")]
    rows += [
        rq1(dataset=f"tatoeba/{c}", parent_score=s, **bleu)
        for c, s in zip("ab", (14, 18), strict=True)
    ]
    first, second = parents(rows)
    assert first.scores == (80.0, 74.0) and not first.met
    assert (second.dataset, second.scores, second.met) == ("tatoeba", (16.0,), True)


def test_what_is_missing_is_named() -> None:
    found = list(missing(all_rows()))
    assert "rq1 MathQA, rolled, gru, 1 layer(s)" in found
    assert not any(what.startswith("rq1 MathQA, rolled, lstm, 1 ") for what in found)  # two seeds
    assert "rq1 Tatoeba, rolled, gru, 1 layer(s)" in found
    assert "rq1 Tatoeba, rolled, lstm, 1 layer(s)" not in found
    assert "rq2 CLINC, 10 domains" in found and "rq2 MathQA" not in found
    assert "scenario: Ukrainian added, 1 of 2 modules" in found
    more = [*all_rows(), rq1(dataset="brown_pos", cell="rnn")]
    assert "rq1 Brown, tags, rolled, rnn, 1 layer(s): 1 more seed" in missing(more)


def test_the_papers_figure_is_that_of_the_network() -> None:
    assert paper_delta(rq1(dataset="clinc_oos/domain", layers=3)) == -1.40
    assert paper_delta(rq1(dataset="wiki_toxicity/multilabel")) is None
    assert paper_delta(rq1(cell="rnn_relu")) is None


def test_hours_count_each_training_and_measurement_once() -> None:
    one = [rq1(), rq1(repairs="none"), rq1(rule="paper")]  # both repairs take the same 900 s
    assert hours(one) == pytest.approx((1800 + 2 * 900) / 3600)
    bleu = {"metric": "bleu", "signature": "sig"}
    two = [rq1(dataset=f"tatoeba/{code}", **bleu) for code in ("de", "fr")]
    assert hours(two) == pytest.approx((1800 + 900) / 3600)
    three = [scenario(), scenario(pair="uk from en > it, uk"), scenario(rule="random")]
    assert hours(three) == pytest.approx((120 + 2 * 60 + 600 + 2 * 6) / 3600)


def test_the_picture_shows_the_same_parents_at_every_size(tmp_path: Path) -> None:
    rows = [rq1(), rq1(removal=0.5, recurrent_weights_kept=0.25), rq1(seed=1)]
    assert most_sizes(rows) == rows[:2]
    assert draw(rows, tmp_path / "some" / "picture.png")
    assert (tmp_path / "some" / "picture.png").read_bytes()[:4] == b"\x89PNG"
    assert not draw([rq1(variant="unrolled")], tmp_path / "other.png")


def test_the_page_has_sections_for_what_there_is(tmp_path: Path) -> None:
    text = write(all_rows(), tmp_path).read_text()
    assert "![" in text and "(results.png)" in text and "sig" in text
    assert [line for line in text.splitlines() if line.startswith("## ")][1].startswith("## rq1")
    assert "## Scenarios" not in page([rq1()]) and "## rq2" not in page([rq1()])
    with pytest.raises(ValueError, match="no rows"):
        write([], tmp_path)


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    full, quick = RowFile(tmp_path / "full.json"), RowFile(tmp_path / "quick.json")
    for row in all_rows():
        full.add(row)
    quick.add(rq1(dataset="math_qa/3000"))
    run = CliRunner().invoke
    given = ["results", "--out", str(tmp_path / "docs"), "--json"]
    assert run(main, [*given, str(full.path), "--json", str(quick.path)]).exit_code == 0
    text = (tmp_path / "docs" / "results.md").read_text()
    assert machine() in text and "/3000" not in text
    refused = run(main, [*given, str(quick.path)])
    assert refused.exit_code == 1 and "no rows" in refused.output
    commands = run(main, ["--help"]).output
    assert all(name in commands for name in ("rq1", "rq2", "rq3", "scenarios", "results"))
