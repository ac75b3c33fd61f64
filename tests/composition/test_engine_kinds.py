"""Answers for each step, lists and several labels: every way of running them, by the formulas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mlflow_rnnmod.composition import SCORES, compose
from mlflow_rnnmod.composition.composite import Composite
from mlflow_rnnmod.composition.scores import ENERGY_WEIGHT
from mlflow_rnnmod.decomposition.module import Head, Module
from mlflow_rnnmod.networks import Parent, RecurrentNetwork, Rows, Trunk
from mlflow_rnnmod.networks.many import WAYS
from tests.builders import tiny_modules, tiny_parent, tiny_rows
from tests.composition.test_engine import random_modules
from tests.networks.recurrent.reference import reference_readout
from tests.networks.recurrent.reference_masks import masked_readout
from tests.networks.recurrent.strategies import STEPS, networks, random_rows, random_trunk
from tests.networks.recurrent.test_unrolled import KINDS as MASKS
from tests.networks.recurrent.test_unrolled import random_masks

KINDS = ("label", "tags", "multilabel", "list")


def answered_steps(network: RecurrentNetwork, rows: Rows, row: int) -> list[int]:
    """The steps of a row that have an answer, in the batch's own numbering."""
    config = network.config
    if config.feed != "steps":
        return list(range(config.output_steps or 1))
    steps, length = rows.values.shape[1], max(int(rows.lengths[row]), 1)
    return list(range(length) if config.side == "right" else range(steps - length, steps))


def one_score(module: Module, readout: Tensor, parent_logits: Tensor, score: str) -> float:
    """What a module says of one readout, from the formulas."""
    network, own = module.parent.network, module.contract.index
    logits = network.logits(readout).tolist()
    others = [z for i, z in enumerate(logits) if i != own]
    odds = logits[own]
    if network.config.output != "multilabel":
        odds -= math.log(sum(map(math.exp, others)))

    def margin(head: Head) -> float:
        found = odds
        if head.weight is not None:
            found += float((readout * head.weight).sum()) + head.bias
        return found * head.calibration.scale + head.calibration.offset

    if score == "margin":
        return margin(module.head)
    if score == "logit":
        return logits[own]
    if score == "probability":
        return 1 / (1 + math.exp(-odds))
    energy = math.log(sum(map(math.exp, parent_logits.tolist())))
    energy = (energy - module.energy.mean) / module.energy.deviation
    return math.log(1 / (1 + math.exp(-margin(module.open_head)))) + ENERGY_WEIGHT * energy


def plain_scores(modules: list[Module], rows: Rows, score: str) -> list[list[list[float]]]:
    """For each module, row and answered step (one where the row itself is answered) a score."""
    network = modules[0].parent.network
    parent = reference_readout(network, rows)
    found = []
    for module in modules:
        read = reference_readout if module.trunk.sliceable else masked_readout
        readout = read(network, rows, module.trunk)
        table = []
        for row in range(len(rows)):
            steps = [...]
            if network.config.stepwise:
                steps = answered_steps(network, rows, row)
            table.append(
                [
                    one_score(module, readout[row][t], network.logits(parent[row][t]), score)
                    for t in steps
                ]
            )
        found.append(table)
    return found


def assert_same(found: Tensor, expected: list[list[list[float]]], stepwise: bool) -> None:
    assert found.shape[-1] == len(expected)
    if not stepwise:
        found = found[:, None]
    assert found.shape[1] == max(len(row) for row in expected[0])
    for number, table in enumerate(expected):
        for row, scores in enumerate(table):
            column = found[row, :, number].tolist()
            assert column[: len(scores)] == pytest.approx(scores, rel=1e-7, abs=1e-7)
            assert all(math.isnan(rest) for rest in column[len(scores) :])


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    network=networks(outputs=KINDS),
    mixed=st.booleans(),
    count=st.integers(1, 4),
    full=st.booleans(),
    score=st.sampled_from(["margin", "open", "logit", "probability"]),
    way=st.sampled_from([way for way in WAYS if way != "auto"]),
)
def test_all_ways_score_as_the_formulas_do(network, mixed, count, full, score, way):
    rows = random_rows(network)
    trunks = [random_trunk(network, True, mixed) for _ in range(count)]
    if full:
        trunks[-1] = Trunk.whole(network.units)
    modules = random_modules(Parent(network), trunks)
    rivals = network.config.output in ("label", "tags")
    if score == "open" and not rivals:
        return
    found = compose(modules, score=score).scores(rows, engine=way)
    with torch.no_grad():
        expected = plain_scores(modules, rows, score)
    assert_same(found, expected, network.config.stepwise)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    network=networks(outputs=KINDS),
    masks=st.lists(st.sampled_from(MASKS), min_size=1, max_size=3),
    steps=st.integers(1, STEPS + 1),
    full=st.booleans(),
    way=st.sampled_from([way for way in WAYS if way != "auto"]),
)
def test_so_they_do_with_masks_for_steps_and_gates(network, masks, steps, full, way):
    rows = random_rows(network, count=4)
    trunks = [random_masks(network, kind, steps) for kind in masks]
    trunks += [random_trunk(network, True)] if full else []
    modules = random_modules(Parent(network), trunks)
    with torch.no_grad():
        expected = plain_scores(modules, rows, "margin")
    found = compose(modules, score="margin").scores(rows, engine=way)
    assert_same(found, expected, network.config.stepwise)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(network=networks(outputs=KINDS), batch=st.integers(1, 7), seed=st.integers(0, 99))
def test_neither_batches_nor_order_matter(network, batch, seed):
    torch.manual_seed(seed)
    rows = random_rows(network, count=9)
    modules = random_modules(Parent(network), [random_trunk(network, True) for _ in range(2)])
    composite = compose(modules)
    whole = composite.scores(rows)
    composite.engine.batch_size = batch
    torch.testing.assert_close(composite.scores(rows), whole, equal_nan=True)
    order = torch.randperm(9)
    torch.testing.assert_close(composite.scores(rows[order]), whole[order], equal_nan=True)
    alone = [composite.scores(rows[slice(i, i + 1)])[0] for i in range(9)]
    for found, expected in zip(alone, whole, strict=True):
        expected = expected if expected.ndim == 1 else expected[: len(found)]
        torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh", "rnn_relu"])
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"recurrent": ((9, 8),), "packed": True},
        {"side": "left", "recurrent": ((9,), (8,))},
        {"feed": "repeat", "steps": 9, "output_steps": 4},
        {"feed": "flat", "steps": 9},
    ],
)
@pytest.mark.parametrize("count", [1, 150])
def test_all_ways_agree_in_float32(cell, config, count):
    output = "list" if "feed" in config else "tags"
    labels = tuple(f"label {i}" for i in range(7))
    config = {"recurrent": ((12,),), **config}
    parent = tiny_parent(
        labels=labels, cell=cell, scale=1.0, output=output, readout="all_steps", **config
    )
    composite = compose(tiny_modules(parent, removal=0.3))
    rows = tiny_rows(parent, count, steps=9)
    expected = composite.scores(rows, engine="loop")
    for way in WAYS:
        found = composite.scores(rows, engine=way)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_a_long_row_does_not_pad_the_others(monkeypatch):
    parent = tiny_parent(output="tags", readout="all_steps", recurrent=((4,),))
    composite = compose(tiny_modules(parent))
    shapes = []
    real = RecurrentNetwork.feed
    monkeypatch.setattr(
        RecurrentNetwork,
        "feed",
        lambda self, rows: shapes.append(tuple(rows.values.shape)) or real(self, rows),
    )
    short = [[3, 4], [5, 6, 7]] * 30
    found = composite.scores([*short, [8] * 2000])
    assert all(rows * steps <= 65_536 for rows, steps in shapes)
    assert found.shape == (61, 2000, 3)
    assert composite.predict([*short, [8] * 2000])[:60] == composite.predict(short)


def test_two_parents_that_answer_each_step_keep_their_columns():
    first = tiny_parent("text", ("a", "b", "c"), output="tags", readout="all_steps")
    second = tiny_parent(
        "text", ("d", "e"), "gru", seed=1, output="tags", readout="all_steps", side="left"
    )
    one, two = tiny_modules(first), tiny_modules(second)
    mixed = [two[1], one[2], one[0], two[0]]
    texts = ["ab", "", "schröder", "x"]
    composite = compose(mixed)
    assert composite.score == "open"
    found = composite.scores(texts)
    assert found.shape == (4, 8, 4)
    for column, module in enumerate(mixed):
        alone = Composite((module,), "open").scores(texts)[..., 0]
        torch.testing.assert_close(found[..., column], alone, equal_nan=True)


def test_the_energy_is_only_asked_for_where_it_counts(monkeypatch):
    calls = []
    composite = compose(
        tiny_modules(tiny_parent()),
        calibrate_on=([[3, 4], [5, 6], [7, 8]], ["german", "irish", "zulu"]),
    )
    assert composite.score == "joint" and SCORES["joint"].energy
    real = RecurrentNetwork.readout
    monkeypatch.setattr(
        RecurrentNetwork, "readout", lambda self, rows: calls.append(self) or real(self, rows)
    )
    composite.scores([[3, 4]], engine="stacked")
    assert composite.modules[0].parent.network not in calls


@pytest.mark.parametrize("way", WAYS)
def test_trunks_that_remove_nothing_are_one_whatever_they_tell_apart(way):
    parent = Parent(tiny_parent().network.double())
    units = parent.network.units
    whole = [Trunk.whole(units)]
    whole.append(
        Trunk({name: torch.ones(2, n).bool() for name, n in units.items()}, variant="unrolled")
    )
    modules = random_modules(parent, [*whole, random_masks(parent.network, MASKS[0])])
    rows = tiny_rows(parent, 4)
    with torch.no_grad():
        expected = plain_scores(modules, rows, "margin")
    found = compose(modules, score="margin").scores(rows, engine=way)
    assert_same(found, expected, False)
