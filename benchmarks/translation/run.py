"""The commands of ``benchmarks.paper`` for translators: rows in a file, progress, tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.options import progress_bar
from benchmarks.published import CELLS as PUBLISHED_CELLS
from benchmarks.published import REPLACE, REUSE
from benchmarks.results import RowFile, print_reuse, print_rows, print_scenarios
from benchmarks.translation.parents import QUICK_ROWS, Translators
from benchmarks.translation.questions import FOLDER, Studies, rq1_rows, rq2_rows, rq3_rows
from benchmarks.translation.scenarios import SCENARIOS, scenario_rows

# Worst and best are looked for among the parents of these cells.
COMPARED = ("lstm", "gru")


def run_rq1(settings: dict[str, Any]) -> None:
    """Each language of a translator that is taken apart, against the translator itself."""
    cell, layers, file = settings["cell"], settings["layers"], RowFile(settings["json_file"])
    mine = {
        "question": "rq1",
        "io_type": "sequence-to-sequence",
        "cell": cell,
        "layers": layers,
        "variant": settings["variant"],
        "gates": settings["gates"],
    }
    translators, name = _translators(settings), _name(FOLDER, settings)
    with progress_bar() as progress:
        bar = progress.add_task("", total=None)
        for seed in range(settings["seeds"]):

            def told(stage: str, seed: int = seed) -> None:
                progress.update(bar, description=f"seed {seed}, {stage}"[:40])

            told("translator of all languages")
            trained = translators.trained(FOLDER, None, cell, layers, seed)
            study = Studies(settings["variant"], settings["gates"]).of(trained)
            fixed = {**mine, "seed": seed, "training_seconds": trained.seconds}
            languages = [f"{name}/{code}" for code in trained.data.targets]
            rows = [r for r in file.where(**mine, seed=seed) if r["dataset"] in languages]
            done = {(r["rule"], r["removal"], r["repairs"], r["matched"]) for r in rows}
            given = [settings[key] for key in ("rules", "removals", "repairs", "draws")]
            for row in rq1_rows(study, fixed, *given, done, told):
                file.add(row)
    found = [r for r in file.where(**mine) if r["dataset"].rsplit("/", 1)[0] == name]
    rules = ("none", "sensitivity", "paper", "reference")

    def place(row: dict[str, Any]) -> tuple:
        rule = row["matched"] or row["rule"]
        ranked = rules.index(rule) if rule in rules else len(rules)
        return row["repairs"], row["removal"], ranked, row["rule"] == "random", row["dataset"]

    title = f"{name}, {cell}, {layers} layer(s), {settings['variant']}: BLEU, modules minus parent"
    print_rows(
        sorted(found, key=place), ("repairs", "removal", "rule", "matched", "dataset"), title
    )


def run_reuse(question: str, settings: dict[str, Any]) -> None:
    """Research questions 2 and 3 for translators."""
    cell, layers, file = settings["cell"], settings["layers"], RowFile(settings["json_file"])
    name, published = _name(FOLDER, settings), REUSE if question == "rq2" else REPLACE
    paper = published[FOLDER][PUBLISHED_CELLS.index(cell)]
    mine = _common(question, settings, name)
    translators = _translators(settings)
    studies = Studies(settings["variant"], settings["gates"])
    with progress_bar() as progress:
        bar = progress.add_task("", total=None)
        for seed in range(settings["seeds"]):

            def told(stage: str, seed: int = seed) -> None:
                progress.update(bar, description=f"seed {seed}, {stage}"[:40])

            done = {(r["pair"], r["rule"]) for r in file.where(**mine, seed=seed)}
            which: Any = cell if question == "rq2" else COMPARED
            rows = rq2_rows if question == "rq2" else rq3_rows
            found = rows(translators, studies, settings["removal"], which, layers, seed, done, told)
            _keep(file, found, {**mine, "seed": seed, "paper_delta": paper})
    print_reuse(file.where(**mine), f"{question}, {name}, {cell}: BLEU of modules")


def run_scenarios(names: tuple[str, ...], settings: dict[str, Any]) -> None:
    """A language added, a language replaced."""
    cell, layers, file = settings["cell"], settings["layers"], RowFile(settings["json_file"])
    translators = _translators(settings)
    studies = Studies(settings["variant"], settings["gates"])
    found = []
    with progress_bar() as progress:
        bar = progress.add_task("", total=None)
        for name in names or tuple(SCENARIOS):
            mine = _common("scenarios", settings, _name(name, settings))
            for seed in range(settings["seeds"]):

                def told(stage: str, name: str = name) -> None:
                    progress.update(bar, description=f"{name}: {stage}"[:40])

                done = {(r["pair"], r["rule"]) for r in file.where(**mine, seed=seed)}
                rows = scenario_rows(
                    SCENARIOS[name],
                    translators,
                    studies,
                    settings["removal"],
                    cell,
                    layers,
                    seed,
                    done,
                    told,
                )
                _keep(file, rows, {**mine, "seed": seed})
            found += file.where(**mine)
    print_scenarios(found, f"scenarios, {cell}: mean BLEU, against a model trained again")


def _keep(file: RowFile, rows: Iterator[dict[str, Any]], extra: dict[str, Any]) -> None:
    for row in rows:
        file.add({**extra, **row, "delta": row["score"] - row["scratch_score"]})


def _common(question: str, settings: dict[str, Any], name: str) -> dict[str, Any]:
    given = {key: settings[key] for key in ("cell", "layers", "variant", "gates")}
    return {"question": question, "dataset": name, **given}


def _translators(settings: dict[str, Any]) -> Translators:
    return Translators(settings["data_dir"], settings["cache"], settings["quick"])


def _name(folder: str, settings: dict[str, Any]) -> str:
    return f"{folder}/{QUICK_ROWS}" if settings["quick"] else folder
