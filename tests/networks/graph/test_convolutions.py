"""Convolutional networks: read as they are, masked as if by hand, cut as they are masked."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mlflow_rnnmod.networks import Parent, Rows, Trunk, UnreadableNetwork
from mlflow_rnnmod.networks.architectures import architecture_of
from mlflow_rnnmod.networks.graph.counting import multiply_adds
from mlflow_rnnmod.networks.graph.network import GraphNetwork
from mlflow_rnnmod.networks.graph.reading import (
    GraphReading,
    check_graph_parity,
    read_graph,
    read_graph_weights,
)
from tests.networks.graph.convolutional_networks import NETWORKS
from tests.networks.graph.drawn import random_trunk

LABELS = ("a", "b", "c", "d")
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def made(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    module, values = NETWORKS[name](), torch.randn(5, 3, 8, 8)
    module(values)  # running statistics are others than at the start
    return module.double().eval(), values.double()


def read(module: nn.Module, values: Tensor) -> tuple[GraphNetwork, GraphReading]:
    return read_graph(module, Rows(values), lambda: module(values), LABELS)


@pytest.mark.parametrize("name", NETWORKS)
def test_users_networks_are_read(name: str) -> None:
    module, values = made(name)
    before = copy.deepcopy(module.state_dict())
    network, reading = read(module, values)
    assert reading.difference < 1e-10 and network.config.input == "pixels"
    assert all(torch.equal(x, before[key]) for key, x in module.state_dict().items())
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        module(values).square().mean().backward()
        optimizer.step()
    module.eval()
    again = read_graph_weights(module, reading)
    assert check_graph_parity(module, again, Rows(values), lambda: module(values), reading) < 1e-10
    built = architecture_of("graph").build(network.config.to_dict())
    assert built.config == network.config and network.config.format == 3
    single, floats = module.float(), values.float()
    assert read(single, floats)[1].difference < 1e-4


@pytest.mark.parametrize("name", NETWORKS)
def test_masked_is_cut(name: str) -> None:
    network, _ = read(*made(name))
    rows = Rows(torch.randn(3, 3, 8, 8, dtype=torch.float64))
    whole = network.readout(rows)
    for seed, mix in ((0, False), (1, True), (2, True)):
        trunk = random_trunk(network, seed, mix=mix)
        masked, cut = (network.view(trunk, way).readout(rows) for way in (False, True))
        torch.testing.assert_close(cut, masked, **CLOSE)
        assert not torch.allclose(masked, whole)
        assert 0 < network.work_kept(trunk) < 1


def structure(name: str) -> list[str]:
    return [node.op for node in read(*made(name))[1].config.nodes]


def test_batch_norm_is_folded_where_that_is_exact() -> None:
    assert structure("plain") == [
        *("conv", "relu", "max_pool", "conv", "relu", "max_pool", "reshape", "linear", "relu")
    ]
    # In front of a border of zeros a shift is not a constant behind it.
    assert structure("norm_first").count("affine") == 2
    assert "affine" not in structure("option_a") + structure("option_b")
    assert structure("separable").count("affine") == 0


def test_shortcuts_with_zeros_beside_join_the_streams_of_stages() -> None:
    network, _ = read(*made("option_a"))
    assert list(network.units.values()) == [4, 4, 4, 8, 2, 2, 8]
    first = network.groups["hidden.0"]
    assert {owner.tensor: owner.offset for owner in first.owners if "weight" in owner.tensor} == {
        "conv_0.weight": 0,
        "conv_2.weight": 0,
        "conv_4.weight": 0,
        "conv_6.weight": 2,
        "conv_8.weight": 2,
    }
    assert network.readout_groups == ("hidden.4", "hidden.0", "hidden.5")
    assert list(read(*made("option_b"))[0].units.values()) == [4, 4, 4, 8, 8, 8]


def test_a_flattened_channel_is_read_by_a_block_of_columns() -> None:
    network, _ = read(*made("plain"))
    (reader,) = network.groups["hidden.1"].readers
    assert (reader.tensor, reader.width, network.units["hidden.1"]) == ("linear_0.weight", 4, 8)


class TwoLayers(nn.Module):
    """A convolution, something, and a convolution that is read by the answer."""

    def __init__(self, padding: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3, padding=padding, stride=stride)
        self.two = nn.Conv2d(4, 5, 3, padding=padding)
        self.out = nn.Linear(5, 4)

    def hidden(self, x: Tensor) -> Tensor:
        return torch.relu(self.one(x))

    def behind(self, h: Tensor) -> Tensor:
        return torch.tanh(self.two(h)).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.behind(self.hidden(x)))


@pytest.mark.parametrize("padding, stride", [(0, 1), (1, 1), (1, 2), (2, 1)])
def test_a_mask_is_what_pytorch_does_with_other_channels(padding: int, stride: int) -> None:
    """The user's own network with channels overwritten by their guesses, border included."""
    torch.manual_seed(1)
    module = TwoLayers(padding, stride).double().eval()
    values = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    network, _ = read(module, values)
    trunk = random_trunk(network, 3)
    first, second = (trunk.keep[name] for name in ("hidden.0", "hidden.1"))

    def guessed(h: Tensor, name: str, keep: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (h.ndim - 2))
        kept = h * keep.view(shape)
        mix = trunk.mix.get(name, torch.zeros(len(keep), len(keep))).double()
        guess = torch.einsum("uk,rk...->ru...", mix, kept)
        guess = guess + trunk.fold[name].double().view(shape)
        return torch.where(keep.view(shape), h, guess)

    with torch.no_grad():
        h = guessed(module.hidden(values), "hidden.0", first)
        expected = guessed(module.behind(h), "hidden.1", second)
    for cut in (False, True):
        found = network.view(trunk, cut).readout(Rows(values))
        torch.testing.assert_close(found, expected, **CLOSE)


def test_multiply_adds_are_those_of_a_count_by_hand() -> None:
    torch.manual_seed(0)
    module = TwoLayers(1, 1).double()
    network, _ = read(module, torch.randn(2, 3, 8, 8).double())
    assert multiply_adds(network.config) == 64 * 9 * (3 * 4 + 4 * 5) + 5 * 4
    keep = {"hidden.0": torch.tensor([1, 0, 0, 1]).bool(), "hidden.1": torch.ones(5).bool()}
    left = 64 * 9 * (3 * 2 + 2 * 5) + 5 * 4
    assert network.work_kept(Trunk(keep)) == left / multiply_adds(network.config)


def test_trunks_run_together_as_far_as_they_agree() -> None:
    network, _ = read(*made("option_a"))
    rows = Rows(torch.randn(2, 3, 8, 8, dtype=torch.float64))
    trunks = [random_trunk(network, seed) for seed in range(4)]
    early = trunks[0]
    alike = ("hidden.0", "hidden.1")

    def mixed(trunk: Trunk, what: str) -> dict[str, Tensor]:
        """Masks of the first trunk for the first groups, and of this one for the others."""
        first, other = getattr(early, what), getattr(trunk, what)
        return {**other, **{name: first[name] for name in alike if name in first}}

    kinds = ("keep", "fold", "mix")
    trunks = [random_trunk(network, seed, kept=0.5) for seed in range(4)]
    shared = [Trunk(*(mixed(trunk, what) for what in kinds)) for trunk in trunks]
    many = network.through(shared)
    branches: Any = many.make_stack()
    run = [step.node.name for step in branches.steps]
    assert [run.count(name) for name in ("conv_0", "conv_1", "conv_2", "conv_4")] == [1, 1, 1, 4]
    torch.testing.assert_close(
        branches.readouts(rows),
        torch.stack([network.view(trunk).readout(rows) for trunk in shared]),
        **CLOSE,
    )


def test_places_are_observed_and_their_sum_counts() -> None:
    from mlflow_rnnmod.networks.protocol import Told

    network, _ = read(*made("plain"))
    rows = Rows(torch.randn(4, 3, 8, 8, dtype=torch.float64))
    sides = torch.tensor([[0, 1, 2, 4], [1, 0, 4, 4]])
    watch = network.watch(rows, Told(), gradients=True)
    first, second, third = watch.observations(sides)
    assert first.values.shape == (4 * 16, 6) and first.block == 16
    assert second.values.shape == (4 * 4, 8) and third.values.shape == (4, 10)
    assert first.sides.tolist() == sides.repeat_interleave(16, 1).tolist()
    assert network.ranks_together and network.groups["hidden.0"].idles


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x).flatten(2).transpose(1, 2)
        return self.out(self.attention(h, h, h)[0].mean(1))


class Changed(nn.Module):
    def __init__(self, how: Any) -> None:
        super().__init__()
        self.conv, self.out, self.how = nn.Conv2d(3, 8, 3), nn.Linear(8, 4), how

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.how(self.conv(x)).mean((2, 3)))


def view_in_place(h: Tensor) -> Tensor:
    h[:, :4].relu_()
    return h


def decided(h: Tensor) -> Tensor:
    return h * 2 if h.mean() > 0 else h


REFUSED: dict[str, tuple[Any, str]] = {
    "attention": (Attends, r"attention \(MultiheadAttention\) is not covered"),
    "view": (lambda: Changed(view_in_place), "in place through another view"),
    "decision": (lambda: Changed(decided), "depends on the numbers in the input"),
    "across rows": (lambda: Changed(lambda h: h - h.mean(0)), "rows"),
    "over units": (lambda: Changed(lambda h: h - h.mean(1, keepdim=True)), "rows or units"),
    "turned": (lambda: Changed(lambda h: h.transpose(1, 2).flatten(1).view(4, 8, 6, 6)), "in line"),
    "padded": (lambda: Changed(lambda h: torch.nn.functional.pad(h, (1, 1), value=1.0)), "1.0"),
    "indices": (
        lambda: Changed(lambda h: h.max(3)[1].float()[..., None]),
        "places of what is largest",
    ),
    "statistics": (
        lambda: Changed(nn.BatchNorm2d(8, track_running_stats=False)),
        "no running statistics",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_what_is_not_covered_is_named(name: str) -> None:
    torch.manual_seed(0)
    make, words = REFUSED[name]
    module, values = make().eval(), torch.randn(4, 3, 8, 8)
    with pytest.raises(UnreadableNetwork, match=words):
        read(module, values)


def test_images_of_another_shape_are_refused() -> None:
    network, _ = read(*made("plain"))
    for shape in ((2, 3, 8, 9), (2, 1, 8, 8), (2, 192), (2, 3, 8)):
        with pytest.raises(ValueError, match=r"expected \(rows, 3, 8, 8\) floats"):
            network.readout(Rows(torch.zeros(shape)))
    assert Parent(network).input_kind == "pixels"
