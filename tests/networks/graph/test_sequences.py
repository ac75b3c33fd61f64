"""Reading networks over steps: padding, orders of dimensions, what is refused by which line."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.architectures import ARCHITECTURES, STEPS
from mlflow_rnnmod.networks import NetworkSpec, Rows, UnreadableNetwork, read_network
from mlflow_rnnmod.networks.graph.config import GraphConfig
from mlflow_rnnmod.networks.graph.network import GraphNetwork
from mlflow_rnnmod.networks.graph.reading import read_graph, read_graph_weights

LABELS = ("a", "b", "c")
WORDS = 20


class Reads(nn.Module):
    """An embedding and a GRU; what follows is a function of states, ids and lengths."""

    def __init__(self, behind, size: int = 8, steps_first: bool = False, **more: nn.Module) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 6, padding_idx=0)
        self.gru = nn.GRU(6, 8, batch_first=True)
        self.fc = nn.Linear(size, 3)
        self.behind, self.steps_first = behind, steps_first
        for name, part in more.items():
            self.add_module(name, part)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        x = x.T if self.steps_first else x
        return self.fc(self.behind(self, self.gru(self.embedding(x))[0], x, lengths))


def batch(lengths: bool = False, count: int = 12, steps: int = 7) -> Rows:
    draw = torch.Generator().manual_seed(0)
    found = torch.randint(1, steps + 1, (count,), generator=draw)
    found[5] = steps
    x = torch.randint(1, WORDS, (count, steps), generator=draw)
    x = x.masked_fill(torch.arange(steps) >= found[:, None], 0)
    return Rows(x, found if lengths else None)


def read(module: nn.Module, rows: Rows, spec: NetworkSpec | None = None):
    given = (rows.values,) if rows.lengths is None else (rows.values, rows.lengths)
    module.eval()
    return read_graph(module, rows, lambda: module(*given), LABELS, spec)


def masked_mean(self, out, x, lengths):
    mask = (x != 0).float()
    return (out * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def test_where_padding_changes_no_answer_any_number_of_steps_is_read() -> None:
    module, rows = Reads(masked_mean), batch()
    network, reading = read(module, rows)
    assert network.config.steps is None and reading.notes == ()
    assert network.config.pad_index == 0 and network.config.input_size == WORDS
    for values in (rows.values[:, :4], F.pad(rows.values, (0, 5)), rows.values[:1]):
        with torch.no_grad():
            torch.testing.assert_close(network(Rows(values)), module(values), rtol=1e-5, atol=1e-6)
    trimmed = network.trimmed(Rows(rows.values[rows.values[:, 3] == 0]))
    assert trimmed.values.shape[1] < rows.values.shape[1]


def test_where_padding_is_read_steps_are_those_of_the_batch() -> None:
    module, rows = Reads(lambda self, out, x, lengths: out[:, -1]), batch()
    network, reading = read(module, rows)
    assert network.config.steps == 7 and "reads its padding" in reading.notes[0]
    assert network.prepare(Rows(rows.values[:, :4])).values.shape == (12, 7)
    network, _ = read(module, rows, NetworkSpec(steps="any"))
    assert network.config.steps is None
    network, _ = read(module, rows, NetworkSpec(steps=9))
    assert network.prepare(rows).values.shape == (12, 9)


def test_lengths_may_come_as_a_list() -> None:
    class Packs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.gru = nn.Embedding(WORDS, 6), nn.GRU(6, 8, batch_first=True)
            self.fc = nn.Linear(8, 3)

        def forward(self, x: Tensor, lengths: list[int]) -> Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(
                self.embedding(x), lengths, batch_first=True, enforce_sorted=False
            )
            return self.fc(torch.relu(self.gru(packed)[1][-1]))

    module, rows = Packs().eval(), batch(lengths=True)
    network, _ = read_graph(
        module, rows, lambda: module(rows.values, rows.lengths.tolist()), LABELS
    )
    assert network.config.steps is None
    assert "gather_0" in [node.name for node in network.config.nodes]


def test_weights_for_each_step_fix_their_number() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.hidden = nn.Embedding(WORDS, 4), nn.Linear(28, 9)
            self.fc = nn.Linear(9, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(torch.relu(self.hidden(self.embedding(x).flatten(1))))

    network, _ = read(Flat(), batch())
    assert network.config.steps == 7
    with pytest.raises(ValueError, match="steps=5"):
        GraphConfig.from_dict({**network.config.to_dict(), "steps": 5})


def test_steps_before_rows() -> None:
    module, rows = Reads(masked_mean), batch()

    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x.transpose(0, 1))

    turned = Turned().eval()
    network, _ = read_graph(turned, rows, lambda: turned(rows.values.T), LABELS)
    with torch.no_grad():
        torch.testing.assert_close(network(rows), module(rows.values), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["AttentionPooling", "LearnedStart", "Tagger", "MaskGiven"])
def test_a_reading_is_read_again_and_read_back(name: str) -> None:
    architecture = ARCHITECTURES[name]
    module, rows = architecture.module(), architecture.rows()
    network, reading = read_graph(
        module, rows, lambda: architecture.answers(module, rows), architecture.labels
    )
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    again = read_graph_weights(module, reading)
    assert GraphConfig.from_dict(network.config.to_dict()) == network.config == again.config
    with torch.no_grad():
        wanted, found = architecture.answers(module, rows), again(network.content(rows))
    if wanted.ndim == 3:
        valid = torch.arange(STEPS) < rows.lengths[:, None]
        wanted, found = wanted[valid], found[valid]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_learned_start_that_is_still_zero_is_seen() -> None:
    class Starts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.gru = nn.Embedding(WORDS, 6), nn.GRU(6, 8, batch_first=True)
            self.start, self.fc = nn.Parameter(torch.zeros(1, 1, 8)), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.gru(self.embedding(x), self.start.repeat(1, len(x), 1))[1][-1])

    network, _ = read(Starts(), batch())
    assert "constant_0" in [node.name for node in network.config.nodes]
    (group,) = network.groups.values()
    assert not group.bounded  # a state begins with whatever is given


def norm_before_training(self, out, x, lengths):
    return self.norm(out[:, -1])


def test_a_norm_that_is_indifferent_before_training_is_no_plain_network() -> None:
    rows = batch()
    module = Reads(norm_before_training, norm=nn.BatchNorm1d(8)).eval()
    network, _ = read_network(module, rows, lambda: module(rows.values), LABELS)
    assert network.architecture == "graph"
    plain = Reads(lambda self, out, x, lengths: out[:, -1]).eval()
    network, _ = read_network(plain, rows, lambda: plain(rows.values), LABELS)
    assert network.architecture == "recurrent"


REFUSED = {
    "where the largest are": (
        lambda self, out, x, lengths: out.gather(1, out.max(1, keepdim=True).indices)[:, 0],
        "gather",
    ),
    "rows among one another": (
        lambda self, out, x, lengths: out[:, -1] - out[:, -1].mean(0, keepdim=True),
        "rows of .* can't be averaged",
    ),
    "rows in another order": (lambda self, out, x, lengths: out[:, -1].flip(0), "flip.*round"),
    "a decision by numbers": (
        lambda self, out, x, lengths: out[:, 0] if x.sum() > 3 else out[:, 1],
        "decision that depends on the numbers",
    ),
    "numbers of each row's own": (
        lambda self, out, x, lengths: torch.stack([out[i, n] for i, n in enumerate([0, 1, 2])]),
        "it takes some rows",
    ),
    "attention of PyTorch's": (
        lambda self, out, x, lengths: self.attention(out, out, out)[0][:, 0],
        "MultiheadAttention",
    ),
    "a mask of every other step": (
        lambda self, out, x, lengths: torch.where(
            torch.arange(out.shape[1])[None, :, None] % 2 == 0, out, 0.0
        ).sum(1),
        "mask does not depend on the input; expected one made of it in forward, as x != 0",
    ),
    "random numbers": (lambda self, out, x, lengths: out[:, -1] + torch.rand(1), "each time"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_covered_is_refused_by_its_line(name: str) -> None:
    behind, expected = REFUSED[name]
    more = {"attention": nn.MultiheadAttention(8, 2, batch_first=True)}
    module = Reads(behind, **(more if "attention" in name else {}))
    with pytest.raises(UnreadableNetwork, match=f"(?s){expected}") as caught:
        read(module, batch())
    assert name == "random numbers" or "test_sequences.py" in str(caught.value)


def test_both_ways_of_reading_say_why_they_refuse() -> None:
    module, rows = Reads(REFUSED["rows in another order"][0]).eval(), batch()
    with pytest.raises(UnreadableNetwork, match="(?s)at line .*Nor is it a plain one: .*nearest"):
        read_network(module, rows, lambda: module(rows.values), LABELS)


def test_files_of_wrong_graphs_are_refused() -> None:
    network, _ = read(Reads(masked_mean), batch())
    data = network.config.to_dict()
    index = {node["op"]: at for at, node in enumerate(data["nodes"])}

    def changed(op: str, **settings: object) -> dict:
        nodes = [dict(node) for node in data["nodes"]]
        nodes[index[op]] = {
            **nodes[index[op]],
            "settings": {**nodes[index[op]]["settings"], **settings},
        }
        return {**data, "nodes": nodes}

    for wrong, message in (
        (changed("gru", packed=True), "has 1 inputs, expected 2"),
        (changed("gru", ends=True), "only an LSTM"),
        (changed("gru", units="8"), "units='8'"),
        (changed("compare", how="is"), "how='is'"),
        ({**data, "side": "up"}, "side='up'"),
        ({**data, "pad_index": -1}, "pad_index=-1"),
        ({**data, "output": "list"}, "output='list'"),
        ({**data, "input_shape": [2, None]}, "one id a step"),
    ):
        with pytest.raises(ValueError, match=message):
            GraphConfig.from_dict(wrong)


def test_rows_that_do_not_fit_are_refused() -> None:
    network, _ = read(Reads(masked_mean), batch())
    for shape in ((3,), (3, 0)):
        with pytest.raises(ValueError, match="values has shape"):
            network.readout(Rows(torch.zeros(shape, dtype=torch.int64)))
    assert isinstance(network, GraphNetwork)
