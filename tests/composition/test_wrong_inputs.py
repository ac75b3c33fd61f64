"""What was answered without a word though nothing could be known: refused, or answered right."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from mlflow_rnnmod.composition import compose
from mlflow_rnnmod.composition.engine import MAX_PADDED, alike
from mlflow_rnnmod.composition.scores import check_scores
from tests.builders import tiny_inputs, tiny_modules, tiny_parent

KINDS = ("text", "tokens", "features")


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_no_order_or_names_is_no_list(kind):
    composite = compose(tiny_modules(tiny_parent(kind)))
    inputs = tiny_inputs(composite.modules[0].parent)
    for wrong in (
        pd.DataFrame({"text": ["a", "b"]}),
        {"text": ["a", "b"]},
        {"a": 1}.keys(),
        {"a", "b"},
        frozenset({"a"}),
        "one text",
    ):
        with pytest.raises(TypeError, match="expected a list"):
            composite.predict(wrong)
    assert composite.predict(tuple(inputs)) == composite.predict(inputs)


@pytest.mark.parametrize("value", [1e300, -1e39])
def test_numbers_that_are_too_large_for_the_network(value):
    composite = compose(tiny_modules(tiny_parent("features")))
    size = composite.modules[0].contract.input_size
    for inputs in ([[[value] * size]], [np.full((2, size), value)]):
        with pytest.raises(ValueError, match=r"as float32, holds -?inf"):
            composite.predict(inputs)


def test_a_network_of_nan_answers_nothing():
    modules = tiny_modules(tiny_parent("tokens"))
    parent = modules[0].parent
    state = parent.network.state_dict()
    name = next(name for name in state if state[name].is_floating_point())
    with torch.no_grad():
        state[name].fill_(float("nan"))
    composite = compose([replace(module, parent=parent) for module in modules])
    with pytest.raises(ValueError, match=r"scores of inputs\[0\] are NaN"):
        composite.predict([[1, 2]])


def test_nan_behind_the_last_step_is_none():
    table = torch.zeros(2, 3, 2)
    table[0, 2] = torch.nan
    check_scores(table, stepwise=True)
    table[1, 0, 1] = torch.nan
    with pytest.raises(ValueError, match=r"inputs\[1\]"):
        check_scores(table, stepwise=True)


@pytest.mark.parametrize("kind", ["text", "tokens"])
def test_one_long_input_does_not_pad_the_others(kind):
    composite = compose(tiny_modules(tiny_parent(kind)))
    short = tiny_inputs(composite.modules[0].parent)
    one = short[-1]
    long = " ".join([one] * 3000) if kind == "text" else [int(i) for i in one] * 20_000
    inputs = [*short * 300, long, *short]
    tracemalloc.start()
    found = composite.scores(inputs)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**29
    rest = composite.scores([*short * 300, *short])
    count = len(short) * 300
    torch.testing.assert_close(found[:count], rest[:count])
    torch.testing.assert_close(found[count + 1 :], rest[count:])
    torch.testing.assert_close(found[count : count + 1], composite.scores([long]))


def test_inputs_are_padded_in_parts_of_like_size():
    sizes = [5, MAX_PADDED, 3, 8, 100]
    parts = alike(["x" * size for size in sizes])
    assert sorted(torch.cat(parts).tolist()) == list(range(5))
    assert len(parts) == 2
    assert parts[-1].tolist() == [1]
    assert len(alike(["x"] * 5)) == 1
