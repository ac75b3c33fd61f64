"""The whole decomposition: what it promises about rows, figures, seeds and the parent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import pytest
import torch

from mlflow_rnnmod.composition import compose
from mlflow_rnnmod.decomposition import Decomposition, DecompositionConfig, Module, decompose
from mlflow_rnnmod.decomposition.config import SHARES
from mlflow_rnnmod.networks import HiddenLayer, Parent, Rows, jaccard
from tests.builders import tiny_parent
from tests.decomposition.test_fitting import answered

PARENT = tiny_parent(recurrent=((10,),), seed=3)
TRAIN, VALIDATION, REPORT = (answered(PARENT, n, seed, 0.15)
                             for n, seed in ((240, 1), (160, 2), (90, 3)))  # fmt: skip


@cache
def run(report: bool = True, validation: bool = True, **settings) -> Decomposition:
    return decompose(
        PARENT,
        TRAIN,
        VALIDATION if validation else None,
        REPORT if report else None,
        DecompositionConfig(**settings),
    )


def made_of(module: Module) -> tuple:
    """Everything of a module that decides its answers."""

    def head(found):
        weight = None if found.weight is None else tuple(found.weight.tolist())
        return weight, found.bias, found.calibration

    return module.trunk.digest, head(module.head), head(module.open_head), module.energy


@pytest.mark.slow
def test_a_seed_decides_and_the_parent_stays():
    digest = Parent(PARENT.network).digest
    for settings in ({"removal": 0.3}, {"rule": "random", "removal": 0.3, "rows_per_label": 20}):
        first = run(**settings)
        config = DecompositionConfig(**settings)
        torch.manual_seed(123)  # the process's random state has no say
        second = decompose(PARENT, TRAIN, VALIDATION, REPORT, config)
        assert list(map(made_of, first.modules)) == list(map(made_of, second.modules))
        assert first.figures == second.figures and first.rows == second.rows
        assert torch.equal(first.overlap, second.overlap)
        other = decompose(PARENT, TRAIN, VALIDATION, REPORT, replace(config, seed=1))
        assert list(map(made_of, first.modules)) != list(map(made_of, other.modules))
    state = torch.random.get_rng_state()
    run(removal=0.35)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert Parent(PARENT.network).digest == digest
    assert all(module.parent is PARENT for module in first.modules)
    assert [module.label for module in first.modules] == list(PARENT.labels)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["sensitivity", "paper", "random"])
@pytest.mark.parametrize("repairs", ["all", "none", ("refit",)])
def test_figures_are_what_composing_and_counting_gives(rule, repairs):
    found = run(rule=rule, repairs=repairs, removal=0.3)
    truth = [PARENT.labels[y] for y in REPORT.targets.tolist()]
    with torch.no_grad():
        parents = [PARENT.labels[y] for y in PARENT.network(REPORT).argmax(1).tolist()]
    answers = compose(found.modules).predict(REPORT)
    rows = len(truth)

    def accuracy(given: list[str]) -> float:
        return sum(a == y for a, y in zip(given, truth, strict=True)) / rows

    figures = found.figures
    assert figures["rows"] == rows and figures["modules"] == 3
    assert figures["parent_accuracy"] == pytest.approx(accuracy(parents))
    assert figures["composed_accuracy"] == pytest.approx(accuracy(answers))
    for score in ("bayes", "likelihood"):
        likely = compose(found.modules, score=score).predict(REPORT)
        assert figures[f"{score}_accuracy"] == pytest.approx(accuracy(likely))
    delta = accuracy(answers) - accuracy(parents)
    assert figures["delta_accuracy"] == pytest.approx(delta)
    control = run(rule=rule, repairs=repairs, removal=0.0)
    assert figures["control_accuracy"] == pytest.approx(control.figures["composed_accuracy"])
    assert figures["net"] == pytest.approx(
        figures["composed_accuracy"] - figures["control_accuracy"]
    )
    for module in found.modules:
        label, own = module.label, module.figures
        hits = sum(a == y == label for a, y in zip(answers, truth, strict=True))
        said, there = answers.count(label), truth.count(label)
        precision, recall = hits / max(said, 1), hits / max(there, 1)
        assert own["support"] == there
        assert own["precision"] == pytest.approx(precision)
        assert own["recall"] == pytest.approx(recall)
        assert own["f1"] == pytest.approx(2 * precision * recall / max(precision + recall, 1e-9))
        same = sum((a == label) == (p == label) for a, p in zip(answers, parents, strict=True))
        assert own["agreement"] == pytest.approx(same / rows)
        assert own["units_kept"] == module.trunk.kept / 10
        others = [jaccard(module.trunk, m.trunk) for m in found.modules if m is not module]
        assert own["jaccard"] == pytest.approx(sum(others) / 2)
    for name in ("units_kept", "weights_kept", "recurrent_weights_kept"):
        mean = sum(module.figures[name] for module in found.modules) / 3
        assert figures[name] == pytest.approx(mean)
    if rule != "paper":  # which may remove less than it may
        assert figures["units_kept"] == pytest.approx(0.7)


@pytest.mark.parametrize("repairs", ["none", "all"])
def test_the_random_control_removes_as_much(repairs):
    """With the rule ``random`` the control is the mean case of the rule itself."""
    found = run(rule="sensitivity", repairs=repairs, removal=0.3)
    assert 0 <= found.figures["random_accuracy"] <= 1
    whole = run(rule="none", repairs=repairs, removal=0.3)
    assert whole.figures["random_accuracy"] == whole.figures["control_accuracy"]
    assert whole.figures["net"] == 0.0


@pytest.mark.parametrize("settings", [{"rule": "none"}, {"removal": 0.0}])
def test_nothing_removed_nothing_changed(settings):
    found = run(**{"repairs": "none", "removal": 0.0, **settings})
    assert found.figures["delta_accuracy"] == found.figures["net"] == 0.0
    with torch.no_grad():
        expected = PARENT.network(REPORT).argmax(1).tolist()
    assert compose(found.modules).predict(REPORT) == [PARENT.labels[y] for y in expected]
    assert all(module.figures["agreement"] == 1.0 for module in found.modules)


@pytest.mark.slow
def test_report_rows_decide_nothing():
    """Other rows, or other targets, for the report leave every module as it was."""
    for settings in ({"removal": 0.3}, {}):
        first = run(**settings)
        config = DecompositionConfig(**settings)
        wrong = replace(REPORT, targets=(REPORT.targets + 1) % 3)
        for report in (wrong, answered(PARENT, 40, 9)):
            other = decompose(PARENT, TRAIN, VALIDATION, report, config)
            assert list(map(made_of, first.modules)) == list(map(made_of, other.modules))
            assert first.figures != other.figures and first.sizing == other.sizing


def test_halves_of_the_validation_rows_do_not_meet():
    """Targets of the half that gives the figures decide nothing, of the other half they do."""
    from mlflow_rnnmod.decomposition.splitting import split_by_hash

    config = DecompositionConfig(removal=0.3)
    lengths = PARENT.network.lengths(VALIDATION)
    first, second = split_by_hash(replace(VALIDATION, lengths=lengths), config.seed)
    wrong = (VALIDATION.targets + 1) % 3
    plain = run(report=False, removal=0.3)
    assert plain.figures["rows"] == int(second.sum()) and 0 < int(second.sum()) < 160
    assert str(int(first.sum())) in plain.rows["calibrated"]
    assert str(int(second.sum())) in plain.rows["figures"] and "hash" in plain.rows["figures"]
    for half, same in ((second, True), (first, False)):
        changed = replace(VALIDATION, targets=torch.where(half, wrong, VALIDATION.targets))
        other = decompose(PARENT, TRAIN, changed, None, config)
        assert (list(map(made_of, plain.modules)) == list(map(made_of, other.modules))) == same
    assert plain.warnings == ()


@pytest.mark.parametrize("report", [False, True])
def test_without_validation_rows_the_user_is_told(report):
    found = run(report=report, validation=False, removal=0.3)
    (warning,) = found.warnings
    assert "no validation rows: 48 training rows" in warning and "too good" in warning
    assert "held out" in found.rows["calibrated"]
    assert "192 training rows" in found.rows["fitted"]
    assert ("report on" in warning) == (not report)
    assert found.figures["rows"] == (90 if report else found.figures["rows"]) < 160


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"repairs": "none"}, {"tolerance": 5.0}])
def test_auto_takes_the_largest_share_that_costs_little(settings):
    found = run(**settings)
    tolerance = found.config.tolerance
    tried = list(found.sizing)
    assert tried and {step["removal"] for step in tried} <= set(SHARES)
    controls = {step["control_accuracy"] for step in tried}
    assert len(controls) == 1
    for step in tried:
        # The same modules, measured on the rows that they are sized on.
        config = DecompositionConfig(**{**settings, "removal": step["removal"]})
        again = decompose(PARENT, TRAIN, VALIDATION, VALIDATION, config).figures
        assert step["accuracy"] == pytest.approx(again["composed_accuracy"])
        assert step["control_accuracy"] == pytest.approx(again["control_accuracy"])
    fits = {
        step["removal"]: 100 * (step["control_accuracy"] - step["accuracy"] + step["error"])
        <= tolerance + 1e-9
        for step in tried
    }
    chosen = found.figures["removal"]
    assert chosen == max([0.0, *(share for share, good in fits.items() if good)])
    larger = [share for share in SHARES if share > chosen]
    assert not larger or fits[larger[0]] is False  # the next one was tried, and costs too much
    removed = {module.trunk.total - module.trunk.kept for module in found.modules}
    assert removed == {int(chosen * 10 + 1e-9)}


def test_auto_of_a_rule_that_removes_nothing():
    found = run(rule="none")
    assert found.figures["removal"] == 0.0 and found.figures["net"] == 0.0
    assert all(module.trunk.full and module.made["removal"] == 0.0 for module in found.modules)


@pytest.mark.slow
@pytest.mark.parametrize("trunks", [1, 2, 3, 5])
def test_labels_share_trunks(trunks):
    found = run(removal=0.3, trunks=trunks)
    kinds = {module.trunk.digest for module in found.modules}
    assert len(kinds) <= min(trunks, 3) and found.figures["trunks"] == len(kinds)
    assert all(module.trunk.kept == 7 for module in found.modules)
    if trunks >= 3:
        alone = run(removal=0.3)
        assert list(map(made_of, found.modules)) == list(map(made_of, alone.modules))
    answers = compose(found.modules).predict(REPORT)
    truth = [PARENT.labels[y] for y in REPORT.targets.tolist()]
    right = sum(a == y for a, y in zip(answers, truth, strict=True)) / len(truth)
    assert found.figures["composed_accuracy"] == pytest.approx(right)


@pytest.mark.slow
@pytest.mark.parametrize("removal", [0.3, "auto"])
def test_a_limit_on_the_cost_is_held_where_it_can_be(removal):
    free = run(removal=removal, trunks="auto", max_cost=100.0)
    tight = run(removal=removal, trunks="auto", max_cost=1.2)
    assert tight.figures["cost"] <= free.figures["cost"]
    assert tight.figures["cost"] <= 1.2 or tight.figures["trunks"] == 1
    assert len({module.trunk for module in tight.modules}) == tight.figures["trunks"]


def test_a_label_without_rows_is_told_and_its_module_still_answers():
    train = TRAIN[TRAIN.targets != 2]
    found = decompose(PARENT, train, VALIDATION, REPORT, DecompositionConfig(removal=0.3))
    assert any("no training rows for ['zulu']" in warning for warning in found.warnings)
    scores = compose(found.modules).scores(REPORT)
    assert scores.isfinite().all()
    assert compose(found.modules, score="open").scores(REPORT).isfinite().all()


def test_a_label_nobody_is_calibrated_on():
    """Its module has the calibration that suits the others, in the middle of theirs."""
    validation = VALIDATION[VALIDATION.targets != 1]
    config = DecompositionConfig(removal=0.3, repairs="calibrate")
    found = decompose(PARENT, TRAIN, validation, REPORT, config)
    assert compose(found.modules).scores(REPORT).isfinite().all()
    first, second, third = (module.head.calibration for module in found.modules)
    slack = 0.1
    assert min(first.scale, third.scale) - slack < second.scale
    assert second.scale < max(first.scale, third.scale) + slack
    assert min(first.offset, third.offset) - slack < second.offset
    assert second.offset < max(first.offset, third.offset) + slack


@pytest.mark.parametrize(
    ("train", "validation", "report", "said"),
    [
        (replace(TRAIN, targets=None), None, None, "train: rows has no targets"),
        (TRAIN[slice(0, 0)], None, None, "train: rows has no targets"),
        (TRAIN[slice(0, 1)], None, None, "train has 1 row; expected at least two"),
        (TRAIN, replace(VALIDATION, targets=VALIDATION.targets + 1), None,
         "validation: targets go from 1 to 3; expected the index of one of 3 labels, 0 to 2"),
        (TRAIN, VALIDATION, replace(REPORT, targets=REPORT.targets.double()),
         "report: targets is torch.float64"),
        (TRAIN, VALIDATION[slice(0, 0)], None, "validation: rows has no targets"),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit(train, validation, report, said):
    with pytest.raises(ValueError, match=said):
        decompose(PARENT, train, validation, report, DecompositionConfig(removal=0.1))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_very_few_validation_rows_will_do(count):
    few = VALIDATION[slice(0, count)]
    found = decompose(PARENT, TRAIN, few, None, DecompositionConfig(removal=0.2))
    assert found.figures["rows"] >= 1
    assert compose(found.modules).scores(REPORT).isfinite().all()


def test_progress_is_told():
    told: list[tuple[str, int, int]] = []
    decompose(
        PARENT, TRAIN, VALIDATION, REPORT, DecompositionConfig(batch_size=100),
        progress=lambda *step: told.append(step),
    )  # fmt: skip
    assert all(0 < done <= total for _, done, total in told)
    stages = dict.fromkeys(stage for stage, _, _ in told)
    assert {"watching units", "fitting modules"} <= set(stages)
    for stage in stages:
        last = [(done, total) for name, done, total in told if name == stage][-1]
        assert last[0] == last[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("tokens", {"cell": "gru", "recurrent": ((5, 4), (4, 4)), "packed": True}),
        ("tokens", {"cell": "rnn_relu", "recurrent": ((6,),), "scale": 1.0}),
        ("features", {"cell": "rnn_tanh", "recurrent": ((6,),), "readout": "mean_valid"}),
        ("features", {"hidden": (HiddenLayer(5),), "dtype": torch.float64}),
        ("tokens", {"side": "left", "readout": "last_step", "steps": 7}),
        ("text", {"readout": "max_valid"}),
    ],
)
@pytest.mark.parametrize("rule", ["sensitivity", "paper"])
def test_all_kinds_of_parents_come_apart(kind, config, rule):
    parent = tiny_parent(kind, **config)
    train, validation, report = (answered(parent, 60, seed) for seed in (1, 2, 3))
    settings = DecompositionConfig(rule=rule, removal=0.25)
    found = decompose(parent, train, validation, report, settings)
    for module in found.modules:
        for name, units in parent.network.units.items():
            removed = units - int(module.trunk.keep[name].sum())
            assert removed <= units // 4
            assert rule == "paper" or removed == units // 4
    figures: Mapping[str, float] = found.figures
    with torch.no_grad():
        readout = parent.network.states(report).readout
    assert readout.shape[1] == parent.network.config.readout_size
    if kind != "text":
        answers = compose(found.modules).predict(report)
        truth = [parent.labels[y] for y in report.targets.tolist()]
        right = sum(a == y for a, y in zip(answers, truth, strict=True)) / len(truth)
        assert figures["composed_accuracy"] == pytest.approx(right)


def test_rows_of_another_width_than_the_parents_steps():
    """Where a parent reads a fixed number of steps, rows are padded or cut as its inputs are."""
    parent = tiny_parent(readout="last_step", steps=9)
    wide = [answered(parent, 60, seed) for seed in (1, 2, 3)]
    exact = [replace(parent.network.prepare(rows), targets=rows.targets) for rows in wide]
    assert wide[0].values.shape[1] == 7 and exact[0].values.shape[1] == 9
    config = DecompositionConfig(removal=0.25)
    first, second = (decompose(parent, *rows, config) for rows in (wide, exact))
    assert list(map(made_of, first.modules)) == list(map(made_of, second.modules))
    assert first.figures == second.figures


def test_left_padded_validation_rows_are_split_by_their_content():
    parent = tiny_parent(side="left", readout="last_valid", cell="gru", packed=False)
    rows = answered(parent, 80, 4)
    filler = torch.zeros(80, 2, dtype=torch.int64)
    wider = Rows(torch.cat([filler, rows.values], 1), rows.lengths, rows.targets)
    config = DecompositionConfig(removal=0.0, repairs="none")
    train = answered(parent, 60, 1)
    counts = [
        decompose(parent, train, validation, None, config).figures["rows"]
        for validation in (rows, wider)
    ]
    assert counts[0] == counts[1]


def test_a_time_that_is_over_leaves_out_what_can_be_and_says_so():
    found = decompose(PARENT, TRAIN, VALIDATION, REPORT, DecompositionConfig(max_seconds=0.0))
    assert found.figures["removal"] == 0.0 and found.sizing == ()
    assert "random_accuracy" not in found.figures
    assert any("no share was tried" in warning for warning in found.warnings)
    assert any("no random control" in warning for warning in found.warnings)
    assert compose(found.modules).scores(REPORT).isfinite().all()
    free = run()
    assert free.figures["random_accuracy"] >= 0 and not any(
        "max_seconds" in w for w in free.warnings
    )
    assert set(free.timing) == {"watching", "sizing", "fitting", "controls", "figures"}
    assert sum(free.timing.values()) <= free.seconds


@pytest.mark.slow
@pytest.mark.parametrize("labels", [3, 24])
def test_many_labels_share_trunks_and_few_do_not(labels):
    parent = tiny_parent(recurrent=((10,),), labels=tuple(f"label {i}" for i in range(labels)))
    rows = [answered(parent, count, seed) for count, seed in ((200, 1), (120, 2), (60, 3))]
    found = decompose(parent, *rows, config=DecompositionConfig(removal=0.5))
    figures = found.figures
    if labels == 3:
        assert "isolated_cost" not in figures
        return
    assert figures["trunks"] < labels and figures["cost"] <= 1.5 + 1e-9
    assert figures["isolated_cost"] > 8 and len({m.trunk for m in found.modules}) <= 3
    config = DecompositionConfig(trunks="label", removal=0.2)
    alone = decompose(parent, *rows, config=config)
    assert "isolated_cost" not in alone.figures
    assert all(module.trunk.kept == 8 for module in alone.modules)
