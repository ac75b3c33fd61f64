"""Statistics against loops over rows, steps and units."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_rnnmod.decomposition import Sample, collect
from mlflow_rnnmod.decomposition.statistics import BINS, bin_centres, to_bins
from mlflow_rnnmod.networks import HiddenLayer, RecurrentNetwork, Rows
from tests.builders import tiny_parent, tiny_rows
from tests.contract.test_watching import assert_same, bin_of
from tests.networks.recurrent.strategies import random_rows

OUTPUTS = ("label", "tags", "list", "multilabel")
CELLS = ("rnn_tanh", "rnn_relu", "lstm", "gru")


def random_sample(network: RecurrentNetwork, count: int = 6, steps: int = 5) -> Sample:
    """Rows with targets, each with a random other label as its rival.

    Where every step is answered, one valid step of each row stands for a label.
    """
    rows = random_rows(network, count, steps)
    labels = len(network.labels)
    if network.config.output == "multilabel":
        targets = torch.rand(count, labels) < 0.5
        return Sample(replace(rows, targets=targets), ~targets, torch.ones(count))
    targets = torch.randint(labels, (count,))
    rivals = (targets + torch.randint(1, labels, (count,))) % labels
    if network.config.output not in ("tags", "list"):
        return Sample(replace(rows, targets=targets), rivals, torch.ones(count))
    whole = torch.full(network.answered(rows).shape, -1)
    chosen, others = whole.clone(), whole.clone()
    for i in range(count):
        steps = valid_steps(network, rows, i)
        whole[i, steps] = torch.randint(labels, (len(steps),))
        step = steps[int(torch.randint(len(steps), ()))]
        chosen[i, step], others[i, step], whole[i, step] = targets[i], rivals[i], targets[i]
    return Sample(replace(rows, targets=whole), others, (whole >= 0).float(), chosen)


def valid_steps(network: RecurrentNetwork, rows: Rows, row: int) -> list[int]:
    """Steps of the recurrent layers that are not padding."""
    config, length = network.config, int(rows.lengths[row])
    if config.feed != "steps":
        return list(range(config.output_steps or 1))
    steps = list(range(rows.values.shape[1]))
    return steps[-length:] if config.side == "left" else steps[:length]


Seen = dict[str, list[tuple[int, int | None, list]]]


def observations(network: RecurrentNetwork, sample: Sample) -> Seen:
    """For each layer, each valid step of each row: row, step, and the units' outputs."""
    found: Seen = {name: [] for name in network.units}
    rows = sample.rows
    for i in range(len(rows)):
        with torch.no_grad():
            states = network.states(rows[i : i + 1])
        for name, output in states.layers.items():
            if output.ndim == 2:
                found[name].append((i, None, output[0].tolist()))
                continue
            for step in valid_steps(network, rows, i):
                found[name].append((i, step, output[0][step].tolist()))
    return found


def of_side(seen: list, sample: Sample, side: int, label: int) -> list[list]:
    """The outputs of positives (side 0) or negatives of a label."""
    who = sample.sides[side]

    def belongs(row: int, step: int | None) -> bool:
        if who.dtype == torch.bool:
            return bool(who[row, label])
        return int(who[row] if who.ndim == 1 else who[row, step]) == label

    return [values for row, step, values in seen if belongs(row, step)]


def trimmed(values: list[float]) -> float:
    """The papers' central tendency, from the values themselves."""
    if not values:
        return 0.0
    x = torch.tensor(values, dtype=torch.float64)
    median = x.median()
    deviation = (x - median).abs().median()
    kept = x[(x - median).abs() < 2 * deviation] if deviation > 0 else x
    return float(kept.mean())


@pytest.mark.parametrize("hidden", [(), (HiddenLayer(6, "relu"),)])
@pytest.mark.parametrize("cell", CELLS)
def test_tendency_is_the_trimmed_mean_of_binned_values(cell, hidden):
    parent = tiny_parent(cell=cell, recurrent=((6,),), hidden=hidden, dtype=torch.float64)
    torch.manual_seed(3)
    sample = random_sample(parent.network, count=40, steps=8)
    found = collect(parent.network, sample, gradients=False)
    for name, seen in observations(parent.network, sample).items():
        bounded = cell != "rnn_relu" and name.startswith("recurrent")
        centres = bin_centres(bounded).tolist()
        for side, label in ((0, 0), (1, 0), (0, 2), (1, 2)):
            mine = of_side(seen, sample, side, label)
            tendency = found.tendency(name, side, label)
            for unit in range(6):
                binned = [centres[bin_of(v[unit], bounded)] for v in mine]
                assert tendency[unit] == pytest.approx(trimmed(binned), rel=1e-9, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_bounded_bins_are_as_wide_as_stated(values):
    centres = bin_centres(True)
    for value in values:
        assert abs(centres[bin_of(value, True)] - value) <= 0.5 / BINS + 1e-12


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.floats(2.0**-19, 2.0**11), min_size=1, max_size=40))
def test_relu_bins_are_as_wide_as_stated(values):
    centres = bin_centres(False)
    for value in values:
        assert 2**-0.26 <= centres[bin_of(value, False)] / value <= 2**0.26


@pytest.mark.parametrize("bounded", [False, True])
def test_what_is_larger_than_any_bin_is_in_the_last(bounded):
    values = torch.tensor([[0.0, 0.5, -0.999, 1.0, -4.1, 8.3, 1e30]]).repeat(40, 1)
    expected = [bin_of(value, bounded) for value in values[0].tolist()]
    assert to_bins(values, bounded).tolist() == [expected] * 40
    assert to_bins(values, bounded).tolist()[0][-1] == BINS - 1


def test_tendency_of_a_label_nobody_saw_is_zero():
    parent = tiny_parent()
    rows = tiny_rows(parent)
    rows = replace(rows, targets=torch.zeros(len(rows), dtype=torch.int64))
    found = collect(parent.network, Sample(rows, rows.targets + 1, torch.ones(len(rows))))
    assert found.tendency("recurrent.0.fwd", 0, 2).tolist() == [0.0] * 8
    assert found.layers["recurrent.0.fwd"].active_rate(0, 2).tolist() == [0.0] * 8
    assert found.layers["recurrent.0.fwd"].sensitivity(2).tolist() == [0.0] * 8


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("config", [{}, {"packed": True, "recurrent": ((4, 3), (5, 2))}])
def test_padding_is_left_out(cell, config):
    """Wider padding, of whatever content, changes nothing where the network skips it."""
    parent = tiny_parent("features", cell=cell, dtype=torch.float64, **config)
    network = parent.network
    sample = random_sample(network)
    values = torch.cat([sample.rows.values, torch.full((6, 3, 5), 7.0, dtype=torch.float64)], 1)
    noise = torch.where(network.valid(sample.rows.lengths, 8)[..., None], values, 9.0)
    wide = Rows(noise, sample.rows.lengths, sample.rows.targets)
    assert_same(
        collect(network, Sample(wide, sample.rivals, sample.weights)), collect(network, sample)
    )


def test_the_result_does_not_grow_with_the_sample():
    parent = tiny_parent()
    sizes = []
    for count in (4, 400):
        found = collect(parent.network, random_sample(parent.network, count))
        layer = found.layers["recurrent.0.fwd"]
        kept = [getattr(layer, field.name) for field in fields(layer) if field.name != "exact"]
        assert layer.exact is None
        sizes.append([tensor.numel() for tensor in kept])
    assert sizes[0] == sizes[1] == [1, 8, 64, 6, 48, 48 * BINS, 48]
