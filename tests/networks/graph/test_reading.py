"""Dense networks as users write them are read, whatever their weights, and left as they were."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mlflow_rnnmod.networks import NetworkSpec, Rows, UnreadableNetwork
from mlflow_rnnmod.networks.graph.network import GraphNetwork
from mlflow_rnnmod.networks.graph.reading import (
    GraphReading,
    check_graph_parity,
    read_graph,
    read_graph_weights,
)
from tests.networks.graph.user_networks import (
    LABELS,
    NETWORKS,
    ByHand,
    Functional,
    Lit,
    Residual,
    Single,
    norm_before,
    sequential,
)

PIXELS = {"image": (1, 2, 3), "viewed": (2, 3)}


def made(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    module = NETWORKS[name]()
    module.train()
    values = torch.randn(7, 6).view(7, *PIXELS.get(name, (6,)))
    return module, (values * 40 + 128).byte() if name == "image" else values


def read(module: nn.Module, values: Tensor, **more: Any) -> tuple[GraphNetwork, GraphReading]:
    rows = Rows(values, targets=more.pop("targets", None))
    labels = more.pop("labels", LABELS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_graph(module, rows, lambda: module(values), labels, **more)


def state_of(module: nn.Module) -> dict[str, Any]:
    """All that must be as it was."""
    return {
        "tensors": copy.deepcopy(module.state_dict()),
        "modes": [part.training for part in module.modules()],
        "names": [sorted(vars(part)) for part in module.modules()],
        "random": torch.get_rng_state(),
    }


def train(module: nn.Module, values: Tensor) -> None:
    """A few steps, so that weights and running statistics are others."""
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.3)
    for _ in range(3):
        output = module(values)
        output = output["logits"] if isinstance(output, dict) else output
        output = output[0] if isinstance(output, tuple) else getattr(output, "logits", output)
        optimizer.zero_grad()
        output.square().mean().backward()
        optimizer.step()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETWORKS)
def test_users_networks_are_read(name: str) -> None:
    module, values = made(name)
    module(values)
    before = state_of(module)
    network, reading = read(module, values)
    after = state_of(module)
    for kind in ("modes", "names"):
        assert before[kind] == after[kind]
    assert torch.equal(before["random"], after["random"])
    assert all(torch.equal(x, after["tensors"][key]) for key, x in before["tensors"].items())
    assert reading.config.labels == LABELS and reading.difference < 1e-5
    assert not any(node.op == "batch_norm" for node in reading.config.nodes)
    train(module, values)
    again = read_graph_weights(module, reading)
    assert not torch.equal(again.like, network.like)
    rows = Rows(values)
    assert check_graph_parity(module, again, rows, lambda: module(values), reading) < 1e-4
    with pytest.raises(UnreadableNetwork, match="the network gives"):
        check_graph_parity(module, network, rows, lambda: module(values), reading)
    double = module.double()
    if name not in PIXELS:
        network, reading = read(double, values.double())
        assert network.dtype == torch.float64 and reading.difference < 1e-10


def structure(name: str) -> list[str]:
    module, values = made(name)
    return [node.op for node in read(module, values)[1].config.nodes]


@pytest.mark.filterwarnings("ignore")
def test_norms_scales_dropout_and_shapes_leave_no_node() -> None:
    assert structure("norm_before") == ["linear", "relu"]
    assert structure("norm_after") == ["linear", "sigmoid", "linear", "silu"]
    assert structure("image") == ["linear", "softplus"]
    assert structure("viewed") == ["linear", "relu"]
    assert structure("two").count("affine") == 0
    assert structure("by_hand") == ["linear", "tanh"] * 3 + ["linear", "sigmoid"]
    assert structure("loop") == ["linear", "gelu", "linear", "elu", "linear", "leaky_relu"]


def test_a_norm_between_an_activation_and_a_sum_stays_as_scale_and_shift() -> None:
    module, values = made("residual")
    network, reading = read(module, values)
    assert [node.op for node in reading.config.nodes].count("affine") == 3
    assert network.units == {"hidden.0": 8, "hidden.1": 5, "hidden.2": 5}
    stream = network.groups["hidden.0"]
    assert {owner.tensor.split(".")[1] for owner in stream.owners} == {
        "weight",
        "bias",
        "scale",
        "shift",
    }


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("squeeze", [False, True])
def test_one_output_for_two_labels(sigmoid: bool, squeeze: bool) -> None:
    torch.manual_seed(0)
    module, values = Single(sigmoid, squeeze), torch.randn(7, 6)
    network, reading = read(module, values, labels=("no", "yes"))
    logits = network(Rows(values))
    assert bool((logits[:, 0] == 0).all())
    wanted = module(values).reshape(-1)
    found = logits[:, 1].sigmoid() if sigmoid else logits[:, 1]
    torch.testing.assert_close(found, wanted)
    assert reading.end == ("sigmoid" if sigmoid else "logits") and reading.config.output == "label"
    with pytest.raises(UnreadableNetwork, match="labels don't match the answers"):
        read(module, values)


def test_kinds_of_answers() -> None:
    torch.manual_seed(0)
    values, several = torch.randn(7, 6), torch.rand(7, 3) < 0.5
    plain, probable = sequential(), nn.Sequential(sequential(), nn.Sigmoid())
    assert read(plain, values)[1].config.output == "label"
    assert read(plain, values, targets=torch.arange(7) % 3)[1].config.output == "label"
    assert read(plain, values, targets=several)[1].config.output == "multilabel"
    assert read(probable, values)[1].config.output == "multilabel"
    said = NetworkSpec(kind="multilabel")
    assert read(plain, values, spec=said)[1].config.output == "multilabel"
    with pytest.raises(UnreadableNetwork, match="end with 'logits'"):
        read(plain, values, spec=NetworkSpec(output="log_softmax"))
    with pytest.raises(UnreadableNetwork, match="recurrent, hidden.*recurrent networks"):
        read(plain, values, spec=NetworkSpec(recurrent="lstm", hidden=("a",)))
    with pytest.raises(UnreadableNetwork, match="kind='tags'"):
        read(plain, values, spec=NetworkSpec(kind="tags"))


def test_what_answers_do_not_depend_on_is_noted() -> None:
    torch.manual_seed(0)
    _, reading = read(ByHand(), torch.randn(7, 6))
    assert reading.notes == (
        "Not read, as the answers do not depend on it: auxiliary.weight, auxiliary.bias.",
    )


@pytest.mark.filterwarnings("ignore")
def test_tracing_leaves_no_stand_ins_in_a_lightning_module() -> None:
    torch.manual_seed(0)
    module, values = Lit(), torch.randn(7, 6)
    read(module, values)
    assert all(isinstance(seen, Tensor) for seen in module.seen)
    assert not hasattr(module, "last") or isinstance(module.last, Tensor)
    assert "log" not in vars(module)


def test_arguments_beside_the_input() -> None:
    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = sequential()

        def forward(self, batch: dict[str, Any], *, scale: float, twice: bool = False) -> Any:
            x, mask = batch["x"], batch["mask"]
            out = self.net(x * scale)
            return {"loss": mask.sum(), "logits": out + out if twice else out}

    torch.manual_seed(0)
    module, x = Many(), torch.randn(7, 6)
    batch = {"x": x, "mask": torch.ones(7)}
    rows = Rows(x)
    _, reading = read_graph(module, rows, lambda: module(batch, scale=0.5), LABELS)
    assert reading.difference < 1e-6
    with pytest.raises(UnreadableNetwork, match="answers come from 'add'"):
        read_graph(module, rows, lambda: module(batch, scale=0.5, twice=True), LABELS)
    with pytest.raises(UnreadableNetwork, match=r"with other numbers; expected the values of rows"):
        read_graph(module, Rows(x + 1), lambda: module(batch, scale=0.5), LABELS)


def test_dead_units_behind_a_norm_are_no_difference() -> None:
    """A running variance of nearly 0 makes rounding in front of it large."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 3))
    with torch.no_grad():
        module[0].weight.mul_(1e-3)
        module[0].bias.mul_(10)
        module[1].running_mean.copy_(module[0].bias)
        module[1].running_var.zero_()
    read(module, torch.randn(7, 6))


class Written(nn.Module):
    """Two dense layers with something in between."""

    def __init__(self, between: Callable[[Any, Tensor], Any], **parts: nn.Module) -> None:
        super().__init__()
        self.between, self.fc1, self.fc2 = between, nn.Linear(6, 8), nn.Linear(8, 3)
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        h = self.between(self, self.fc1(x))
        return self.fc2(h)


def decides(net: Any, h: Tensor) -> Tensor:
    if h.sum() > 0:
        h = h * 2
    return h


def through_numpy(net: Any, h: Tensor) -> Tensor:
    return torch.from_numpy(h.detach().numpy() * 2)


def through_a_view(net: Any, h: Tensor) -> Tensor:
    h.view(-1, 4).relu_()
    return h


def sets(net: Any, h: Tensor) -> Tensor:
    h[:, 0] = 0.0
    return h


def plain_list(net: Any, h: Tensor) -> Tensor:
    return net.hidden_away[0](h)


REFUSED: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "decision": (
        lambda: Written(decides),
        ("depends on the numbers in the input", "test_reading.py", "if h.sum() > 0:"),
    ),
    "numpy": (lambda: Written(through_numpy), ("could not be followed", "h.detach().numpy()")),
    "view": (lambda: Written(through_a_view), ("in place through another view", "relu_()")),
    "item": (lambda: Written(lambda s, h: h * h.max().item()), ("the method 'max'", "line")),
    "sets": (lambda: Written(sets), ("item assignment", "h[:, 0] = 0.0")),
    "list": (lambda: _with_list(), ("not installed as a submodule", "net.hidden_away[0](h)")),
    "erf": (lambda: Written(lambda s, h: torch.erf(h)), ("the function 'erf' is not covered",)),
    "transposed": (
        lambda: Written(
            lambda s, h: s.conv(h[:, None]).flatten(1), conv=nn.ConvTranspose1d(1, 1, 1)
        ),
        ("conv (ConvTranspose1d) is not covered", "s.conv("),
    ),
    "lstm": (
        lambda: Written(lambda s, h: s.rnn(h)[0], rnn=nn.LSTM(8, 8)),
        ("rnn (LSTM) is not covered",),
    ),
    "part": (
        lambda: Written(lambda s, h: h[:, [1, 0, 2, 3, 4, 5, 6, 7]]),
        ("takes a part of its input",),
    ),
    "across": (lambda: Written(lambda s, h: h[:, :8] + h[:, 0:1]), ("it adds up shapes",)),
    "across rows": (lambda: Written(lambda s, h: h - h.mean(0)), ("the method 'mean'",)),
    "softmax": (
        lambda: Written(lambda s, h: h.log_softmax(1)),
        ("log-softmax before the last layer",),
    ),
    "statistics": (
        lambda: Written(lambda s, h: s.bn(h), bn=nn.BatchNorm1d(8, track_running_stats=False)),
        ("bn (BatchNorm1d) is not covered: it has no running statistics", "s.bn(h)"),
    ),
    "random": (lambda: Written(lambda s, h: h.tanh() + torch.randn(8)), ("differently each time",)),
    "scripted": (lambda: torch.jit.script(sequential()), ("is scripted",)),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 3)), ("is lazy",)),
    "half": (lambda: sequential().to(torch.bfloat16), ("torch.bfloat16", "module.float()")),
    "no layer": (lambda: nn.Sequential(nn.Linear(6, 3)), ("no hidden layer",)),
    "relu at the end": (lambda: nn.Sequential(sequential(), nn.ReLU()), ("come from 'relu'",)),
    "constant": (lambda: _constant(), ("does not depend on the input",)),
    "hook": (lambda: _hooked(after=True), ("does not reproduce", "hooks on 1")),
    "hook before": (lambda: _hooked(after=False), ("0 (Linear) has a hook that runs before it",)),
}


def _with_list() -> nn.Module:
    module = Written(plain_list)
    module.hidden_away = [nn.Linear(8, 8)]  # type: ignore[assignment]
    return module


def _constant() -> nn.Module:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.answer = nn.Parameter(torch.randn(3))

        def forward(self, x: Tensor) -> Tensor:
            return self.answer.expand(x.shape[0], 3)

    return Constant()


def _hooked(after: bool) -> nn.Module:
    module = sequential()
    if after:
        module[1].register_forward_hook(lambda part, given, found: found * 2)  # type: ignore
    else:
        module[0].register_forward_pre_hook(lambda part, given: (given[0] * 2,))  # type: ignore
    return module


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_covered_is_named(name: str) -> None:
    torch.manual_seed(0)
    make, words = REFUSED[name]
    module, values = make(), torch.randn(7, 6)
    names = [sorted(vars(part)) for part in module.modules()]
    forward = (lambda: module(values.bfloat16())) if name == "half" else (lambda: module(values))
    with pytest.raises(UnreadableNetwork) as error:
        read_graph(module, Rows(values), forward, LABELS)
    for text in words:
        assert text in str(error.value)
    if name != "lazy":
        assert names == [sorted(vars(part)) for part in module.modules()]


def test_hooks_that_change_nothing_are_no_matter() -> None:
    torch.manual_seed(0)
    module = sequential()
    module[1].register_forward_hook(lambda part, given, found: None)  # type: ignore[operator]
    read(module, torch.randn(7, 6))


def test_other_structures_than_the_one_that_was_read_are_refused() -> None:
    torch.manual_seed(0)
    module, values = Functional(), torch.randn(7, 6)
    _, reading = read(module, values)
    module.fc2 = nn.Linear(8, 7)
    read_graph_weights(module, reading)
    with pytest.raises(UnreadableNetwork, match="does other things now"):
        read_graph_weights(norm_before(), reading)


@pytest.mark.parametrize("values", [torch.zeros(0, 6), torch.zeros(6), torch.zeros(2, 0)])
def test_a_batch_has_rows_of_numbers(values: Tensor) -> None:
    with pytest.raises(UnreadableNetwork, match=r"expected numbers of shape \(rows, features\)"):
        read_graph(sequential(), Rows(values), lambda: None, LABELS)


def test_a_single_row_and_wrong_answers() -> None:
    torch.manual_seed(0)
    module, values = Residual(), torch.randn(1, 6)
    read(module, values)
    rows = Rows(values)
    with pytest.raises(UnreadableNetwork, match="NaN or infinity"):
        read_graph(module, rows, lambda: module(values) * torch.nan, LABELS)
    with pytest.raises(UnreadableNetwork, match="does not reproduce"):
        read_graph(module, rows, lambda: module(values) * 2, LABELS)
    with pytest.raises(UnreadableNetwork, match="expected floats of shape"):
        read_graph(module, rows, lambda: module(values).argmax(1), LABELS)
