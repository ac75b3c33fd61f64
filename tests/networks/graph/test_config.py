"""Structures as plain data: written, read back, and refused where they do not fit."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_rnnmod.networks import Rows
from mlflow_rnnmod.networks.architectures import architecture_of
from mlflow_rnnmod.networks.graph.config import GraphConfig
from mlflow_rnnmod.networks.graph.network import GraphNetwork
from tests.networks.graph.drawn import networks


def plain() -> dict[str, Any]:
    return {
        "nodes": [
            {"name": "linear_0", "op": "linear", "inputs": ["input"], "settings": {"units": 3}},
            {"name": "relu_0", "op": "relu", "inputs": ["linear_0"], "settings": {}},
            {"name": "linear_1", "op": "linear", "inputs": ["relu_0"], "settings": {"units": 3}},
            {"name": "add_0", "op": "add", "inputs": ["relu_0", "linear_1"], "settings": {}},
        ],
        "labels": ["a", "b"],
        "input": "vectors",
        "input_size": 4,
        "output": "label",
        "readout": "add_0",
    }


@given(networks())
@settings(max_examples=30, deadline=None)
def test_a_structure_is_read_back(network: GraphNetwork) -> None:
    config = network.config
    again = GraphConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config and hash(again) == hash(config)
    built = architecture_of("graph").build(config.to_dict())
    shapes = {name: tuple(tensor.shape) for name, tensor in built.state_dict().items()}
    assert shapes == config.shapes
    assert {tensor.device.type for tensor in built.parameters()} == {"meta"}


def at(place: str, value: Any) -> dict[str, Any]:
    """The plain structure with another value at a dotted place; ``...`` for none."""
    data = plain()
    inside: Any = data
    *way, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    for part in way:
        inside = inside[part]
    if value is ...:
        del inside[last]
    else:
        inside[last] = value
    return data


@pytest.mark.parametrize(
    "place, value, words",
    [
        ("nodes.1.op", "exec", "op='exec', expected one of"),
        ("nodes.1.op", ["relu"], "expected texts"),
        ("nodes.1.name", "__class__", "expected a name of letters"),
        ("nodes.1.name", "a.b_0", "expected a name of letters"),
        ("nodes.1.name", "linear_0", "is there twice"),
        ("nodes.1.name", None, "expected texts"),
        ("nodes.1.inputs", ["linear_1"], "no node before it"),
        ("nodes.1.inputs", ["relu_0"], "no node before it"),
        ("nodes.1.inputs", ["nobody"], "no node before it"),
        ("nodes.1.inputs", [], "has 0 inputs, expected one"),
        ("nodes.1.inputs", "linear_0", "is no list"),
        ("nodes.1.inputs", [{}], "expected texts"),
        ("nodes.3.inputs", ["relu_0"], "has 1 inputs, expected two or more"),
        ("nodes.3.inputs", ["linear_1", "input"], "adds up shapes"),
        ("nodes.0.settings", {}, "has no units"),
        ("nodes.0.settings", [], "has no units"),
        ("nodes.0.settings", 7, "Not a network's structure"),
        ("nodes.0.settings", {"units": 3, "code": "x"}, "unknown 'code'"),
        ("nodes.0.settings.units", 0, "units=0"),
        ("nodes.0.settings.units", True, "units=True"),
        ("nodes.0.settings.units", 2.0, "units=2.0"),
        ("nodes.0.settings.units", 10**12, "units=10"),
        ("nodes.0.more", 1, "unexpected keyword"),
        ("nodes.0", "linear", "Not a network's structure"),
        ("nodes.0", None, "Not a network's structure"),
        ("nodes", {}, "is no list"),
        ("nodes", [], "0 nodes"),
        ("nodes", ..., "nodes"),
        ("labels", ["a"], "at least two labels"),
        ("labels", ["a", "a"], "all different"),
        ("labels", ["a", 1], "at least two labels"),
        ("labels", ["a", []], "at least two labels"),
        ("labels", "ab", "is no list"),
        ("labels", None, "is no list"),
        ("input", "text", "expected one of ('vectors'"),
        ("input_size", 0, "input_size=0"),
        ("input_size", "4", "input_size='4'"),
        ("input_size", 2**40, "input_size="),
        ("output", "tags", "expected one of"),
        ("output", ["label"], "expected one of"),
        ("readout", "input", "readout='input'"),
        ("readout", "relu_0", "lead nowhere"),
        ("readout", ["add_0"], "readout="),
        ("readout", ..., "readout"),
        ("code", "import os", "unexpected keyword"),
    ],
)
def test_what_does_not_fit_is_named(place: str, value: Any, words: str) -> None:
    with pytest.raises(ValueError) as error:
        GraphConfig.from_dict(at(place, value))
    assert words in str(error.value) and len(str(error.value)) < 3000


def test_all_problems_are_named_at_once() -> None:
    data = plain()
    data["nodes"][0]["settings"]["units"] = -1
    data["nodes"][1]["op"] = "softest"
    with pytest.raises(ValueError, match="units=-1.*softest"):
        GraphConfig.from_dict(data)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.1", None])
def test_numbers_of_activations_are_finite(value: Any) -> None:
    data = plain()
    data["nodes"][1].update(op="leaky_relu", settings={"negative_slope": value})
    with pytest.raises(ValueError, match="negative_slope"):
        GraphConfig.from_dict(data)
    data["nodes"][1].update(op="gelu", settings={"approximate": value})
    with pytest.raises(ValueError, match="approximate"):
        GraphConfig.from_dict(data)


def nodes_of(count: int) -> list[dict[str, Any]]:
    linear: Any = {"op": "linear", "settings": {"units": 1}}
    return [
        {"name": f"linear_{i}", "inputs": [f"linear_{i - 1}" if i else "input"], **linear}
        for i in range(count)
    ]


def test_absurd_sizes_are_refused_before_they_cost_anything() -> None:
    with pytest.raises(ValueError, match="is no list of at most 10000"):
        GraphConfig.from_dict({**plain(), "nodes": nodes_of(20_000), "readout": "linear_19999"})
    deep = GraphConfig.from_dict({**plain(), "nodes": nodes_of(3_000), "readout": "linear_2999"})
    assert len(deep.structure.groups) == 3_000
    doubled = [*plain()["nodes"][:1]]
    for i in range(60):
        before = f"concat_{i - 1}" if i else "linear_0"
        doubled.append(
            {"name": f"concat_{i}", "op": "concat", "inputs": [before] * 2, "settings": {}}
        )
    with pytest.raises(ValueError, match="more than"):
        GraphConfig.from_dict({**plain(), "nodes": doubled, "readout": "concat_59"})
    wide = plain()
    wide["nodes"][3]["inputs"] = ["relu_0"] * 200_000
    with pytest.raises(ValueError, match="list of at most"):
        GraphConfig.from_dict(wide)


def spatial() -> dict[str, Any]:
    conv = {"kernel": [3, 3], "stride": [1, 1], "dilation": [1, 1], "padding": [[1, 1], [1, 1]]}
    window = {"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0], "ceil": False}
    nodes: list[dict[str, Any]] = [
        {"op": "conv", "settings": {"units": 4, "mode": "zeros", **conv}},
        {"op": "group_norm", "settings": {"groups": 2, "eps": 1e-5}},
        {"op": "relu", "settings": {}},
        {"op": "max_pool", "settings": {**window, "dilation": [1, 1]}},
        {"op": "pad", "settings": {"units": [1, 1], "places": [[0, 1], [1, 0]], "mode": "zeros"}},
        {"op": "slice", "settings": {"bounds": [[1, 5, 1], [0, None, 2], [-2, None, 1]]}},
        {"op": "mean", "settings": {"axes": [1], "keep": True}},
        {"op": "adaptive_avg_pool", "settings": {"places": [2, 1]}},
        {"op": "reshape", "settings": {"shape": [8]}},
    ]
    last = "input"
    for node in nodes:
        node.update(name=f"{node['op']}_0", inputs=[last])
        last = node["name"]
    data = {"nodes": nodes, "labels": ["a", "b"], "input": "pixels", "input_shape": [3, 6, 6]}
    return {**data, "output": "label", "readout": last}


@pytest.mark.parametrize(
    "place, value, words",
    [
        ("input_shape", [3, 6], "expected (channels, height, width)"),
        ("input_shape", [3, 6, None], "expected (channels, height, width)"),
        ("input_shape", [2**20, 2**20, 2], "expected (channels, height, width)"),
        ("input_shape", 3, "expected (channels, height, width)"),
        ("nodes.0.settings.kernel", [7], "differ in length"),
        ("nodes.0.settings.kernel", [9, 9], "reads 6 places with a kernel of 9"),
        ("nodes.0.settings.kernel", [3, 0], "kernel=[3, 0]"),
        ("nodes.0.settings.padding", [[2**24, 2**24]] * 2, "puts out"),
        ("nodes.0.settings.mode", "constant", "mode='constant'"),
        ("nodes.0.settings.stride", "ab", "stride='ab'"),
        ("nodes.1.settings.groups", 3, "shares 4 units out among 3 groups"),
        ("nodes.1.settings.eps", -1.0, "eps=-1.0"),
        ("nodes.3.settings.padding", [2, 2], "more than half"),
        ("nodes.3.settings.kernel", [20, 20], "reads 6 places with a window of 20"),
        ("nodes.4.settings.mode", "reflect", "expected 'zeros'"),
        ("nodes.4.settings.places", [], "puts [] around"),
        ("nodes.5.settings.bounds", [[0, 4, 2], [0, None, 1], [0, None, 1]], "bounds="),
        ("nodes.5.settings.bounds", [[5, 5, 1], [0, None, 1], [0, None, 1]], "expected 1 to"),
        ("nodes.5.settings.bounds", [[0, 4, 1]], "takes 1 slices"),
        ("nodes.6.settings.axes", [2], "goes over axes [2]"),
        ("nodes.6.settings.axes", [0, 0], "axes=[0, 0]"),
        ("nodes.7.settings.places", [2**20, 2**20], "puts out"),
        ("nodes.8.settings.shape", [7], "expected as many numbers"),
        ("nodes.8.settings.shape", [2, 4], "expected units alone"),
        ("nodes.8.settings.shape", [None], "shape=[None]"),
        ("nodes.0.inputs", ["reshape_0"], "no node before it"),
    ],
)
def test_what_does_not_fit_among_channels_is_named(place: str, value: Any, words: str) -> None:
    GraphConfig.from_dict(spatial())
    data = spatial()
    inside: Any = data
    *way, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    for part in way:
        inside = inside[part]
    inside[last] = value
    with pytest.raises(ValueError) as error:
        GraphConfig.from_dict(data)
    assert words in str(error.value) and len(str(error.value)) < 3000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
PLACES = (
    *plain(),
    *(f"nodes.{i}" for i in range(4)),
    *(f"nodes.{i}.{key}" for i in range(4) for key in ("name", "op", "inputs", "settings")),
)


@given(st.sampled_from(PLACES), json_values)
@settings(max_examples=150, deadline=None)
def test_any_other_json_is_a_structure_or_a_value_error(place: str, value: Any) -> None:
    with contextlib.suppress(ValueError):
        GraphConfig.from_dict(at(place, value))


CHANNEL_PLACES = tuple(
    f"nodes.{at}.settings.{key}"
    for at, node in enumerate(spatial()["nodes"])
    for key in node["settings"]
)
sizes = st.sampled_from([0, 1, 2, 3, 6, 7, 2**16, 2**24, -1, None])
lists = st.lists(sizes | st.lists(sizes, max_size=3), max_size=4)


@given(st.sampled_from(CHANNEL_PLACES), json_values | sizes | lists)
@settings(max_examples=300, deadline=None)
def test_what_is_accepted_of_channels_can_be_built_and_run(place: str, value: Any) -> None:
    data = spatial()
    inside: Any = data
    *way, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    for part in way:
        inside = inside[part]
    inside[last] = value
    with contextlib.suppress(ValueError):
        config = GraphConfig.from_dict(json.loads(json.dumps(data)))
        assert GraphConfig.from_dict(config.to_dict()) == config
        assert architecture_of("graph").build(config.to_dict()).config == config
        if config.numbers < 2**16 and sum(map(math.prod, config.shapes.values())) < 2**16:
            GraphNetwork(config).readout(Rows(torch.zeros(2, 3, 6, 6)))
