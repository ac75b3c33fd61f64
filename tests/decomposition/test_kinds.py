"""Parents of every kind of output and every kind of mask, taken apart."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from mlflow_rnnmod.composition import compose
from mlflow_rnnmod.decomposition import DecompositionConfig, decompose, draw_sample
from mlflow_rnnmod.decomposition.watching import collect
from mlflow_rnnmod.inputs.rows import IGNORE
from mlflow_rnnmod.networks import NetworkConfig, Parent, RecurrentNetwork, Rows
from mlflow_rnnmod.networks.parts import part_name as layer_name

KINDS = {
    "tags": {"output": "tags", "readout": "all_steps"},
    "list": {
        "output": "list",
        "readout": "all_steps",
        "feed": "repeat",
        "steps": 6,
        "output_steps": 4,
        "end_label": "end",
    },
    "multilabel": {"output": "multilabel", "readout": "max_valid"},
    "flat": {"feed": "flat", "steps": 6, "readout": "last_step"},
}
LABELS = ("a", "b", "c", "end")


@cache
def parent_of(kind: str, cell: str = "lstm") -> Parent:
    torch.manual_seed(1)
    config = NetworkConfig(
        "tokens",
        15,
        5,
        cell,
        ((8,),),
        LABELS,
        pad_index=0,
        **KINDS[kind],  # type: ignore[arg-type]
    )
    network = RecurrentNetwork(config)
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(2.0)
    return Parent(network)


def rows_of(parent: Parent, count: int, seed: int) -> Rows:
    """Random rows with the parent's own answers as targets, a tenth of them changed."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 7, (count,), generator=draw)
    values = torch.randint(1, 15, (count, 6), generator=draw)
    rows = Rows(values * (torch.arange(6) < lengths[:, None]), lengths)
    config = parent.network.config
    with torch.no_grad():
        logits = parent.network(rows)
    if config.output == "multilabel":
        return replace(
            rows, targets=(logits > 0) ^ (torch.rand(logits.shape, generator=draw) < 0.1)
        )
    targets = logits.argmax(dim=-1)
    other = torch.randint(len(LABELS), targets.shape, generator=draw)
    targets = torch.where(torch.rand(targets.shape, generator=draw) < 0.1, other, targets)
    if config.stepwise:
        targets[~parent.network.answered(rows)] = IGNORE
    if config.output == "list":
        ended = (targets == 3).cumsum(dim=1) - (targets == 3).long() > 0
        targets[ended] = IGNORE
    return replace(rows, targets=targets)


def counted(answers: list, rows: Rows, parent: Parent) -> float:
    """The metric, by counting labels one by one."""
    config = parent.network.config
    hits = said = right = 0
    for i, answer in enumerate(answers):
        target = rows.targets[i]
        if config.output == "tags":
            truth = [LABELS[y] for y in target[target >= 0].tolist()]
            hits += sum(a == b for a, b in zip(answer, truth, strict=True))
            said += len(truth)
        elif config.output == "label":
            hits += answer == LABELS[int(target)]
            said += 1
        else:
            if config.output == "multilabel":
                truth = {LABELS[y] for y in target.nonzero()[:, 0].tolist()}
            else:
                truth = {LABELS[y] for y in target[target >= 0].tolist()} - {"end"}
            hits += 2 * len(set(answer) & truth)
            said += len(set(answer))
            right += len(truth)
    return hits / (said + right)


@pytest.mark.slow
@pytest.mark.parametrize("gates", ["joint", "separate"])
@pytest.mark.parametrize("variant", ["rolled", "unrolled"])
@pytest.mark.parametrize("kind", KINDS)
def test_figures_are_what_composing_and_counting_gives(kind, variant, gates):
    parent = parent_of(kind)
    sizes = ((200, 1), (120, 2), (60, 3))
    train, validation, report = (rows_of(parent, n, seed) for n, seed in sizes)
    config = DecompositionConfig(
        removal=0.25, variant=variant, gates=gates, rows_per_label=80, rule="sensitivity"
    )
    found = decompose(parent, train, validation, report, config)
    metric = "accuracy" if kind in ("tags", "flat") else "f1"
    assert found.metric == metric
    composite = compose(found.modules)
    assert found.figures[f"composed_{metric}"] == pytest.approx(
        counted(composite.predict(report), report, parent), abs=1e-9
    )
    for module in found.modules:
        assert module.trunk.variant == variant and module.trunk.gates == gates
        steps = None if variant == "rolled" else module.trunk.steps
        assert module.contract.mask_steps == steps and module.contract.output == composite.output
    assert 0.7 < found.figures["units_kept"] < 0.8


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["paper", "reference", "random", "sensitivity"])
@pytest.mark.parametrize("cell", ["gru", "rnn_relu"])
@pytest.mark.parametrize("kind", ["tags", "multilabel"])
def test_every_rule_takes_every_kind(kind, cell, rule):
    parent = parent_of(kind, cell)
    rows = [rows_of(parent, n, seed) for n, seed in ((100, 1), (60, 2), (60, 3))]
    config = DecompositionConfig(rule=rule, removal=0.3, repairs="none", rows_per_label=40)
    found = decompose(parent, *rows, config)
    assert all(6 <= module.trunk.kept <= 8 for module in found.modules)


# Samples


def test_rows_are_drawn_until_every_label_has_its_steps():
    parent = parent_of("tags")
    rows = rows_of(parent, 300, 5)
    sample = draw_sample(rows, 4, 20, 0, "tags")
    assert sample.chosen is not None
    for label in range(4):
        available = int((rows.targets == label).sum())
        assert int((sample.chosen == label).sum()) == min(20, available)
        mine = sample.rivals[sample.chosen == label]
        assert (mine != label).all() and (mine >= 0).all()
        counts = mine.bincount(minlength=4)
        assert counts[[y for y in range(4) if y != label]].max() - counts[
            [y for y in range(4) if y != label]
        ].min() <= 1  # fmt: skip
        # Weights make up for how often each label was taken.
        share = sample.weights[sample.rows.targets == label].sum() / sample.weights.sum()
        assert float(share) == pytest.approx(available / int((rows.targets >= 0).sum()), rel=1e-5)
    assert (sample.chosen == sample.rows.targets)[sample.chosen >= 0].all()
    assert (sample.weights == 0).equal(sample.rows.targets == IGNORE)


def test_rows_with_several_labels_are_negatives_of_what_they_lack():
    rows = rows_of(parent_of("multilabel"), 300, 6)
    sample = draw_sample(rows, 4, 30, 0, "multilabel")
    assert torch.equal(sample.rivals, ~sample.rows.targets)
    for label in range(4):
        available = int(rows.targets[:, label].sum())
        assert int(sample.rows.targets[:, label].sum()) >= min(30, available)
        share = (sample.weights * sample.rows.targets[:, label]).sum() / sample.weights.sum()
        kinds = {tuple(row) for row in sample.rows.targets.tolist()}
        seen = torch.tensor([tuple(row) in kinds for row in rows.targets.tolist()])
        expected = rows.targets[seen, label].double().mean()
        assert float(share) == pytest.approx(float(expected), rel=1e-4)


# Steps and gates told apart


def by_hand(parent: Parent, rows: Rows, number: int, label: int) -> tuple[int, Tensor]:
    """Positives at one step, and how many of them have an output above 0."""
    count, active = 0, torch.zeros(8)
    with torch.no_grad():
        for i in range(len(rows)):
            output = parent.network.states(rows[i : i + 1]).layers["recurrent.0.fwd"][0]
            for t in range(int(rows.lengths[i])):
                if min(t, 3) == number and int(rows.targets[i, t]) == label:
                    count, active = count + 1, active + (output[t] > 0)
    return count, active


def test_steps_are_told_apart_up_to_the_last_one_told():
    parent = parent_of("tags")
    sample = draw_sample(rows_of(parent, 60, 7), 4, 10_000, 0, "tags")
    found = collect(parent.network, sample, variant="unrolled", unrolled_steps=4)
    assert set(found.layers) == {layer_name("recurrent.0.fwd", t) for t in range(4)}
    whole = collect(parent.network, sample).layers["recurrent.0.fwd"]
    layers = [found.layers[layer_name("recurrent.0.fwd", t)] for t in range(4)]
    for name in ("count", "total", "observed", "active", "squared"):
        parts = sum(getattr(layer, name) for layer in layers)
        torch.testing.assert_close(parts, getattr(whole, name), rtol=1e-6, atol=1e-9)
    for number in range(4):
        for label in range(4):
            count, active = by_hand(parent, sample.rows, number, label)
            assert int(layers[number].observed[0, label]) == count
            assert layers[number].active[0, label].tolist() == active.tolist()
