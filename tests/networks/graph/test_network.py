"""Graph networks against the slow and obvious way: trunks, stacks, watching, counts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mlflow_rnnmod.decomposition import DecompositionConfig, decompose
from mlflow_rnnmod.networks import Parent, Rows, Trunk
from mlflow_rnnmod.networks.architectures import architecture_of
from mlflow_rnnmod.networks.graph.config import GraphConfig
from mlflow_rnnmod.networks.graph.network import GraphNetwork
from mlflow_rnnmod.networks.graph.operations import Node
from mlflow_rnnmod.networks.groups import trimmed_tensors
from mlflow_rnnmod.networks.many import WAYS
from mlflow_rnnmod.networks.protocol import Load, Told, moved, view
from mlflow_rnnmod.storage.parents import read_parent, write_parent
from tests.networks.graph.drawn import (
    by_hand,
    networks,
    owned_numbers,
    random_rows,
    random_trunk,
)

CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def chain(op: str = "relu", units: tuple[int, ...] = (8, 6), labels: int = 3) -> GraphNetwork:
    nodes, last = [], "input"
    for i, size in enumerate(units):
        nodes.append(Node(f"linear_{i}", "linear", (last,), {"units": size}))
        nodes.append(Node(f"{op}_{i}", op, (f"linear_{i}",)))
        last = f"{op}_{i}"
    config = GraphConfig(tuple(nodes), tuple("abcdefgh"[:labels]), 5, last)
    torch.manual_seed(0)
    return GraphNetwork(config).requires_grad_(False)


@given(networks())
@settings(max_examples=60, deadline=None)
def test_nothing_removed_is_the_network(network: GraphNetwork) -> None:
    rows = random_rows(network, 4)
    readout = network.readout(rows)
    torch.testing.assert_close(readout, by_hand(network, rows), **CLOSE)
    whole = Trunk.whole(network.units)
    assert view(network, whole) is network
    for cut in (True, False):
        torch.testing.assert_close(network.view(whole, cut).readout(rows), readout, **CLOSE)


@given(networks(), st.integers(0, 99), st.booleans())
@settings(max_examples=80, deadline=None)
def test_masked_and_cut_read_guesses_in_the_place_of_removed_units(
    network: GraphNetwork, seed: int, mix: bool
) -> None:
    rows, trunk = random_rows(network, 4), random_trunk(network, seed, mix=mix)
    wanted = by_hand(network, rows, trunk)
    for cut in (True, False):
        torch.testing.assert_close(network.view(trunk, cut).readout(rows), wanted, **CLOSE)


@pytest.mark.slow
@given(networks(), st.integers(2, 5), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_every_way_of_running_many_trunks_is_the_loop(
    network: GraphNetwork, count: int, seed: int
) -> None:
    rows = random_rows(network, 3)
    trunks = [random_trunk(network, seed + i, mix=bool(i % 2)) for i in range(count)]
    many = network.through(trunks)
    for way in WAYS:
        found = torch.full((count, 3, network.config.readout_size), torch.nan, dtype=torch.float64)

        def finish(part: slice, readouts: Tensor, found: Tensor = found) -> None:
            found[part] = readouts

        many.run(rows, many.way(way, rows), finish)
        wanted = torch.stack([by_hand(network, rows, trunk) for trunk in trunks])
        torch.testing.assert_close(found, wanted, **CLOSE)


def test_stacks_are_run_in_parts_where_there_are_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow_rnnmod.networks.graph import many

    monkeypatch.setattr(many, "MAX_HELD", 100)
    network = chain().double()
    rows = random_rows(network, 7)
    trunks = [random_trunk(network, seed) for seed in range(5)]
    parts: list[slice] = []
    found = torch.zeros(5, 7, 6, dtype=torch.float64)

    def finish(part: slice, readouts: Tensor) -> None:
        parts.append(part)
        found[part] = readouts

    network.through(trunks).run(rows, "stacked", finish)
    wanted = torch.stack([by_hand(network, rows, trunk) for trunk in trunks])
    torch.testing.assert_close(found, wanted, **CLOSE)
    assert len(parts) == 5


def odds(logits: Tensor, label: int) -> Tensor:
    """Of a label against any other; 0 for none."""
    others = [other for other in range(len(logits)) if other != label]
    if label == len(logits):
        return logits.new_zeros(())
    return logits[label] - torch.logsumexp(logits[others], 0)


@given(networks(), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_gradients_are_total_derivatives(network: GraphNetwork, seed: int) -> None:
    rows, labels = random_rows(network, 3), len(network.labels)
    generator = torch.Generator().manual_seed(seed)
    several = network.config.output == "multilabel"
    sides = torch.randint(0, labels + 1, (2, 3), generator=generator)
    if several:
        sides = torch.rand(2, 3, labels, generator=generator) < 0.5
    wanted = {
        name: torch.zeros(2, labels, units, dtype=torch.float64)
        for name, units in network.units.items()
    }
    added = {
        (name, f"{node}:{offset}"): torch.zeros(3, network.units[name], dtype=torch.float64)
        for name, places in network.config.structure.places.items()
        for node, offset, _ in places
    }
    leaves = [tensor.requires_grad_() for tensor in added.values()]
    logits = network.logits(by_hand(network, rows, added=added))
    for side in range(2):
        for row in range(3):
            for label in range(labels):
                if not (sides[side, row, label] if several else sides[side, row] == label):
                    continue
                margin = logits[row, label]
                if not several:  # of its label less that of its rival; either may be none
                    both = [odds(logits[row], int(of)) for of in sides[:, row]]
                    margin = both[0] - both[1]
                slopes = torch.autograd.grad(margin, leaves, retain_graph=True)
                for (name, _), slope in zip(added, slopes, strict=True):
                    wanted[name][side, label] += slope[row] ** 2
    watch = network.watch(rows, Told(), gradients=True)
    found = watch.squared(sides)
    assert list(found) == list(wanted)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-7, atol=1e-9)


def test_a_single_place_is_watched_with_its_sides() -> None:
    network = chain("tanh")
    rows = Rows(torch.randn(4, 5))
    sides = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 3]])
    first, second = network.watch(rows, Told(), gradients=False).observations(sides)
    assert (first.name, second.name) == ("hidden.0", "hidden.1")
    assert first.also is None and first.joint and first.sides is sides
    torch.testing.assert_close(second.values, network.readout(rows))
    assert network.groups["hidden.0"].bounded and not network.groups["hidden.0"].idles
    assert chain("relu").groups["hidden.1"].idles
    assert not chain("silu").groups["hidden.1"].idles


@given(networks(), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_shares_kept_are_counted(network: GraphNetwork, seed: int) -> None:
    trunk = random_trunk(network, seed)
    plain = Trunk(trunk.keep)
    ones = {name: torch.ones_like(tensor) for name, tensor in network.state_dict().items()}
    masked = trimmed_tensors(ones, network.groups, plain, cut=False)
    cut = trimmed_tensors(ones, network.groups, plain, cut=True)
    left = owned_numbers(network, cut)
    whole = {name for name, tensor in masked.items() if len(tensor) == len(cut[name])}
    assert all(masked[n].sum() == cut[n].sum() for n in whole)
    shares = network.shares_kept(trunk)
    assert shares["weights_kept"] == pytest.approx(left / owned_numbers(network, ones))
    assert shares["units_kept"] == pytest.approx(trunk.kept / trunk.total)


def test_structure_of_a_residual() -> None:
    """Both owners of the stream are one group, read at two places; the inner layer is another."""
    nodes = (
        Node("linear_0", "linear", ("input",), {"units": 4}),
        Node("relu_0", "relu", ("linear_0",)),
        Node("linear_1", "linear", ("relu_0",), {"units": 3}),
        Node("tanh_0", "tanh", ("linear_1",)),
        Node("linear_2", "linear", ("tanh_0",), {"units": 4}),
        Node("add_0", "add", ("relu_0", "linear_2")),
    )
    structure = GraphConfig(nodes, ("a", "b"), 2, "add_0").structure
    assert {name: group.units for name, group in structure.groups.items()} == {
        "hidden.0": 4,
        "hidden.1": 3,
    }
    stream = structure.groups["hidden.0"]
    assert [owner.tensor for owner in stream.owners] == [
        "linear_0.weight",
        "linear_0.bias",
        "linear_2.weight",
        "linear_2.bias",
    ]
    assert [reader.tensor for reader in stream.readers] == ["linear_1.weight"]
    assert structure.places["hidden.0"] == (("relu_0", 0, 1), ("add_0", 0, 1))
    assert structure.readout_groups == ("hidden.0",)
    assert not stream.idles and not stream.bounded


def test_units_that_lie_across_one_another_are_kept_whole() -> None:
    nodes = (
        Node("linear_0", "linear", ("input",), {"units": 2}),
        Node("linear_1", "linear", ("input",), {"units": 3}),
        Node("concat_0", "concat", ("linear_0", "linear_1")),
        Node("linear_2", "linear", ("input",), {"units": 5}),
        Node("add_0", "add", ("concat_0", "linear_2")),
        Node("linear_3", "linear", ("add_0",), {"units": 4}),
    )
    network = GraphNetwork(GraphConfig(nodes, ("a", "b"), 2, "linear_3"))
    assert network.units == {"hidden.0": 4}
    with pytest.raises(ValueError, match="'add_0' that can't be masked"):
        GraphConfig(nodes[:-1], ("a", "b"), 2, "add_0")
    with pytest.raises(ValueError, match="same units twice"):
        twice = Node("concat_0", "concat", ("linear_0", "linear_0"))
        GraphConfig((nodes[0], twice), ("a", "b"), 2, "concat_0")


def test_trunks_of_other_networks_and_wrong_rows_are_refused() -> None:
    network = chain()
    with pytest.raises(ValueError, match="trunk's layers and the network's differ"):
        network.view(Trunk.whole({"hidden.0": 8}))
    steps = {"hidden.0": torch.ones(2, 8).bool(), "hidden.1": torch.ones(2, 6).bool()}
    with pytest.raises(ValueError):
        network.view(Trunk(steps, variant="unrolled"))
    with pytest.raises(ValueError, match="neither steps nor gates"):
        network.told(Rows(torch.zeros(1, 5)), "unrolled", "joint", 8)
    for shape in ((3, 4), (3,), (2, 5, 2)):
        with pytest.raises(ValueError, match=r"expected \(rows, 5\)"):
            network.readout(Rows(torch.zeros(shape)))
    assert network.prepare(Rows(torch.zeros(2, 1, 5))).values.shape == (2, 5)
    assert network(Rows(torch.zeros(0, 5))).shape == (0, 3)


def test_moves_files_and_words(tmp_path) -> None:  # type: ignore[no-untyped-def]
    parent = Parent(chain())
    rows = Rows(torch.randn(3, 5))
    again = moved(parent.network, "cpu")
    torch.testing.assert_close(again(rows), parent.network(rows))
    write_parent(parent, tmp_path)
    read = read_parent(tmp_path, parent.digest)
    torch.testing.assert_close(read.network(rows), parent.network(rows))
    assert read.network.words() == (
        "dense network, 5 inputs, hidden layers of 8, 6 units (relu), 3 labels"
    )
    assert read.network.params() == {"layers": 2, "hidden": "8+6"}
    assert "labels" not in read.network.reading()[1]


def test_estimates_tell_what_a_plan_needs() -> None:
    config = chain().config
    seconds = architecture_of("graph").seconds
    assert seconds is not None
    small = {"hidden.0": 4, "hidden.1": 3}
    few = seconds(config, Load([small] * 3, frozenset(), 16, None))
    more = seconds(config, Load([small] * 30, frozenset(), 4096, None))
    assert {"parent", "sliced", "stacked"} <= set(few)
    assert few["stacked"] < few["sliced"] < more["sliced"] and few["parent"] < more["parent"]


@pytest.mark.slow
@pytest.mark.parametrize("op", ["relu", "tanh"])
@pytest.mark.parametrize("rule", ["sensitivity", "paper", "reference", "random", "none"])
def test_decomposed_from_end_to_end(op: str, rule: str) -> None:
    network = chain(op, (12, 10))
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(240, 5, generator=generator)
    rows = Rows(values, targets=network(Rows(values)).argmax(1))
    network._modules["linear_0"].bias[:2] = -99.0  # type: ignore[union-attr,index]  # never on
    config = DecompositionConfig(rule=rule, removal=0.25, rows_per_label=60)
    found = decompose(Parent(network), rows, rows, rows, config)
    assert [module.label for module in found.modules] == ["a", "b", "c"]
    assert found.figures["composed_accuracy"] > 0.6
    removed = {module.trunk.total - module.trunk.kept for module in found.modules}
    if rule in ("sensitivity", "random"):
        assert removed == {3 + 2}
    elif rule == "none":
        assert removed == {0}
    elif rule == "paper" and op == "relu":
        assert all(not module.trunk.keep["hidden.0"][:2].any() for module in found.modules)
