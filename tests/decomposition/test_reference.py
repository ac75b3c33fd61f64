"""The papers' rules on exact statistics, against loops from rows to removed units.

Nothing is shared with the package but the network: rows are picked, states looked up, medians taken
and units removed one after the other, as docs/method.md has it.
"""

from __future__ import annotations

import math
import statistics as numbers

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_rnnmod.decomposition import RULES, DecompositionConfig, collect, decompose, draw_sample
from mlflow_rnnmod.decomposition.rules import removed_units
from mlflow_rnnmod.decomposition.statistics import Exact
from mlflow_rnnmod.networks import RecurrentNetwork, Rows
from mlflow_rnnmod.networks.recurrent.config import GATES
from mlflow_rnnmod.networks.recurrent.gates import gate_activations
from tests.builders import groups_named, tiny_parent, tiny_rows

LABELS = 3
LETTERS = {"lstm": "ifgo", "gru": "rzn", "rnn_tanh": "h", "rnn_relu": "h"}


def tendency(sizes: list[float]) -> float:
    """Mean of what is closer than two median deviations to the median; with none, of all."""
    if not sizes:
        return 0.0
    median = numbers.median(sizes)
    deviation = numbers.median([abs(x - median) for x in sizes])
    if deviation != 0:
        sizes = [x for x in sizes if abs(x - median) / deviation < 2]
    return sum(sizes) / len(sizes)


def rate(values: list[float]) -> float:
    return sum(x > 0 for x in values) / len(values) if values else 0.0


def picked(targets: list[int], label: int, per_label: int) -> tuple[list[int], list[int]]:
    """Rows of the reference's sample: the first of the label, the first few of any other."""
    positives = [i for i, y in enumerate(targets) if y == label][:per_label]
    negatives = [i for i, y in enumerate(targets) if y != label]
    return positives, negatives[: math.ceil(per_label / (LABELS - 1))]


def observed(
    network: RecurrentNetwork, rows: Rows, variant: str, gates: str, last_only: bool
) -> dict[str, list[list[list[float]]]]:
    """For each name and row, the outputs of its observations."""
    found: dict[str, list[list[list[float]]]] = {}
    with torch.no_grad():
        states = network.states(rows)
        outputs = dict(states.layers)
        if gates == "separate":
            letters = LETTERS[network.config.cell]
            for name, values in gate_activations(network, rows).items():
                del outputs[name]
                outputs.update({f"{name}#{g}": values[:, :, i] for i, g in enumerate(letters)})
    for name, output in outputs.items():
        if name.startswith("hidden"):
            found[name] = [[row.tolist()] for row in output]
            continue
        layer, _, gate = name.partition("#")
        for row in range(len(rows)):
            steps = [output[row, p].tolist() for p in states.valid[row].nonzero()[:, 0].tolist()]
            if variant == "unrolled":
                for t in range(states.valid.shape[1]):
                    key = f"{layer}@{t}" + (f"#{gate}" if gate else "")
                    found.setdefault(key, []).append(steps[t : t + 1])
            elif last_only:
                last = steps[0] if "bwd" in name else steps[-1]
                found.setdefault(name, []).append([last])
            else:
                found.setdefault(name, []).append(steps)
    return found


def remove(rule: str, name: str, relu: bool, sides: list[list[list[float]]], most: int) -> set[int]:
    """Units that leave, from the observations ``(observations, units)`` of both sides."""
    units = len((sides[0] or sides[1])[0])
    columns = [[[row[u] for row in side] for u in range(units)] for side in sides]
    removed: list[int] = []
    if relu and not name.startswith("hidden"):
        rates = [[rate(column) for column in side] for side in columns]
        if rule == "paper":
            for u in range(units):
                if rates[0][u] == 0 and len(removed) < most:
                    removed.append(u)
            return {u for u in removed if not rates[1][u] > 0}
        difference = [rates[0][u] - rates[1][u] for u in range(units)]
        order = sorted(range(units), key=lambda u: (difference[u], u))
        return set([u for u in order if difference[u] <= -0.5][:most])
    means = [[tendency([abs(x) for x in column]) for column in side] for side in columns]
    d = [means[0][u] - means[1][u] for u in range(units)]
    first = min(d)
    for u in sorted(range(units), key=lambda u: (d[u], u)):
        if d[u] >= 0 or most == 0:
            break
        over = rule == "reference" and "#" not in name and first / d[u] < 1.1
        if len(removed) < most or (over and len(removed) < units - 1):
            removed.append(u)
    return set(removed)


@pytest.mark.slow
@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    rule=st.sampled_from(["reference", "paper"]),
    cell=st.sampled_from(sorted(GATES)),
    variant=st.sampled_from(["rolled", "unrolled"]),
    gates=st.sampled_from(["joint", "separate"]),
    padding=st.sampled_from(["right", "left", "packed"]),
    hidden=st.booleans(),
    share=st.sampled_from([0.0, 0.05, 0.2, 0.35, 0.9]),
    per_label=st.integers(1, 12),
    seed=st.integers(0, 1000),
)
def test_rules_are_their_loops(rule, cell, variant, gates, padding, hidden, share, per_label, seed):
    from mlflow_rnnmod.networks import HiddenLayer

    parent = tiny_parent(
        cell=cell, recurrent=((7, 5), (6,)), hidden=(HiddenLayer(4),) if hidden else (),
        side="left" if padding == "left" else "right", packed=padding == "packed", seed=seed,
        dtype=torch.float64,
    )  # fmt: skip
    network, rows = parent.network, tiny_rows(parent, 40, 5, seed)
    sample = draw_sample(rows, LABELS, per_label, 0, in_order=True)
    last_only = rule == "reference" and variant == "rolled"
    found = collect(
        network, sample, gradients=False, variant=variant, gates=gates, exact=True,
        last_step=rule == "reference", batch_size=9,
    )  # fmt: skip
    values = observed(network, rows, variant, gates, last_only)
    assert set(found.layers) == set(values)
    for label in range(LABELS):
        removed = removed_units(RULES[rule], found, label, share)
        for name, mask in removed.items():
            sides = [
                [step for row in chosen for step in values[name][row]]
                for chosen in picked(rows.targets.tolist(), label, per_label)
            ]
            most = min(int(share * len(mask) + 1e-9), len(mask) - 1)
            expected = remove(rule, name, cell == "rnn_relu", sides, most) if any(sides) else set()
            assert set(mask.nonzero()[:, 0].tolist()) == expected, name


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.lists(st.integers(-4, 4), min_size=2, max_size=2), min_size=1, max_size=15),
    several=st.booleans(),
)
def test_exact_tendencies_and_rates(values, several):
    """Few different values: medians between two, and deviations of 0."""
    table = torch.tensor(values, dtype=torch.float64) / 8
    label = torch.arange(len(table)) % 3
    sides = torch.stack([label, (label + 1) % 3])
    if several:
        sides = torch.nn.functional.one_hot(sides, 3).bool()
    half = len(table) // 2
    found = Exact(table[:half], sides[:, :half]) + Exact(table[half:], sides[:, half:])
    for side in (0, 1):
        for y in range(3):
            own = [row for i, row in enumerate(table.tolist()) if (i + side) % 3 == y]
            for unit in (0, 1):
                column = [row[unit] for row in own]
                expected = tendency([abs(x) for x in column])
                assert float(found.tendency(side, y)[unit]) == pytest.approx(expected)
                assert float(found.active_rate(side, y)[unit]) == pytest.approx(rate(column))


def test_bins_are_off_by_little():
    parent = tiny_parent(recurrent=((9,), (5, 4)))
    sample = draw_sample(tiny_rows(parent, 200), LABELS, 60, 0)
    binned = collect(parent.network, sample, gradients=False)
    exact = collect(parent.network, sample, gradients=False, exact=True)
    for name, layer in exact.layers.items():
        assert layer.histogram is None and binned.layers[name].exact is None
        torch.testing.assert_close(layer.mean, binned.layers[name].mean)
        for label in range(LABELS):
            for side in (0, 1):
                gap = exact.tendency(name, side, label) - binned.tendency(name, side, label)
                assert gap.abs().median() < 1 / 64


def test_what_is_like_the_first_leaves_beyond_the_share():
    """A gap of at least the largest one's tenth less; but one unit stays, and a share of 0 is 0."""
    sizes = torch.tensor([0.5, 0.45, 0.46, 0.2, -0.5, 0.0])
    exact = Exact(torch.stack([torch.zeros(6), sizes.abs()]), torch.tensor([[0, 1], [1, 0]]))
    found = collect_of(exact)
    for share, expected in ((0.0, []), (0.17, [0, 2, 4]), (0.9, [0, 1, 2, 3, 4])):
        removed = removed_units(RULES["reference"], found, 0, share)["recurrent.0.fwd"]
        assert removed.nonzero()[:, 0].tolist() == expected
    alike = collect_of(Exact(torch.stack([torch.zeros(6), torch.ones(6)]), exact.sides))
    removed = removed_units(RULES["reference"], alike, 0, 0.17)["recurrent.0.fwd"]
    assert removed.nonzero()[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert int(removed_units(RULES["paper"], alike, 0, 0.17)["recurrent.0.fwd"].sum()) == 1


def collect_of(exact: Exact):
    """Statistics of a layer that put out these values."""
    from mlflow_rnnmod.decomposition import ActivationStatistics
    from mlflow_rnnmod.decomposition.statistics import LayerStatistics

    units = exact.values.shape[1]
    zeros = torch.zeros(2, 2, units)
    layer = LayerStatistics(
        torch.tensor(2.0), zeros[0, 0], None, torch.ones(2, 2), zeros, None, None, exact
    )
    return ActivationStatistics(
        {"recurrent.0.fwd": layer}, groups_named({"recurrent.0.fwd": units})
    )


@pytest.mark.parametrize("cell", ["lstm", "rnn_relu"])
def test_a_parent_is_decomposed_by_it(cell):
    parent = tiny_parent(cell=cell, recurrent=((20,),))
    rows = tiny_rows(parent, 90)
    config = DecompositionConfig(rule="reference", removal=0.05, rows_per_label=20)
    found = decompose(parent, rows, tiny_rows(parent, 60, seed=1), config=config)
    assert found.config.rule == "reference"
    gone = [module.trunk.total - module.trunk.kept for module in found.modules]
    assert all(count < 20 for count in gone)
    assert cell == "rnn_relu" or any(gone)
