"""Networks that can't be read: what the errors say."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mlflow_rnnmod.networks import NetworkSpec, Rows, UnreadableNetwork
from mlflow_rnnmod.networks.recurrent.reading import read_network
from tests.networks.recurrent.user_networks import Classifier, make_rows

LABELS = ("a", "b", "c")


def message(model: nn.Module, rows=None, labels=LABELS, spec=None, forward=None) -> str:
    """What the error says that reading ``model`` raises."""
    rows, lengths = make_rows() if rows is None else rows
    forward = forward or (lambda: model(rows.values, lengths))
    before = {name: value.clone() for name, value in model.state_dict().items() if value.numel()}
    with pytest.raises(UnreadableNetwork) as error:
        read_network(model, rows, forward, labels, spec)
    assert isinstance(error.value, ValueError)
    assert all(torch.equal(before[name], model.state_dict()[name]) for name in before)
    return str(error.value)


class Pieces(nn.Module):
    """Submodules by name, and no forward that matters."""

    def __init__(self, **pieces: nn.Module) -> None:
        super().__init__()
        for name, piece in pieces.items():
            setattr(self, name, piece)

    def forward(self, values, lengths):
        return torch.zeros(len(values), 3)


def test_no_recurrent_layer():
    found = message(Pieces(embed=nn.Embedding(20, 6), fc=nn.Linear(6, 3)))
    assert "no recurrent layer: expected an nn.RNN, nn.LSTM or nn.GRU" in found
    assert "embed (Embedding 20 x 6), fc (Linear 6 to 3)" in found


def test_a_loop_over_cells():
    found = message(Pieces(cell=nn.LSTMCell(6, 8), fc=nn.Linear(8, 3)))
    assert "cell (LSTMCell) is run step by step by code that can't be read" in found


def test_all_problems_at_once():
    pieces = Pieces(
        words=nn.Embedding(20, 6),
        characters=nn.Embedding(20, 6),
        one=nn.LSTM(6, 8),
        two=nn.LSTM(6, 8),
        first=nn.Linear(8, 3),
        second=nn.Linear(8, 3),
    )
    found = message(pieces)
    assert "2 submodules could be the embedding: words" in found
    assert "2 submodules could be the recurrent layer: one" in found
    found = message(pieces, spec=NetworkSpec(embedding="words", recurrent="one"))
    assert "2 dense layers, first (Linear 8 to 3), second (Linear 8 to 3)" in found


def test_two_heads_are_told_apart_by_name():
    class TwoHeads(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.auxiliary = nn.Linear(12, 3)

    model = TwoHeads().double()
    assert "2 dense layers, fc" in message(model)
    rows, lengths = make_rows()
    spec = NetworkSpec(head="fc", hidden=())
    _, reading = read_network(model, rows, lambda: model(rows.values, lengths), LABELS, spec)
    assert "auxiliary (Linear)" in reading.notes[0]
    spec = NetworkSpec(head="auxiliary", hidden=())
    assert "Not covered: fc (Linear)" in message(model, spec=spec)


@pytest.mark.parametrize(("labels", "outputs"), [(("a", "b"), 3), (tuple("abcd"), 3), (LABELS, 1)])
def test_labels_that_do_not_match_the_head(labels, outputs):
    found = message(Classifier(labels=outputs), labels=labels)
    assert "labels don't match the head" in found
    assert f"labels has {len(labels)} names" in found and f"has {outputs} outputs" in found


def test_labels_that_do_not_match_behind_a_hidden_layer():
    found = message(Classifier(hidden=(7,)), labels=("a", "b"))
    assert "labels has 2 names, ['a', 'b']; fc (Linear 7 to 3) has 3 outputs" in found
    assert "expected 2 (or 1, for two labels)" in found


def test_projections():
    found = message(Classifier(proj_size=4))
    assert "proj_size=4, which is not covered; expected proj_size=0" in found


def test_cells_of_two_kinds():
    pieces = Pieces(
        embed=nn.Embedding(20, 6), one=nn.LSTM(6, 8), two=nn.GRU(8, 8), fc=nn.Linear(8, 3)
    )
    found = message(pieces, spec=NetworkSpec(recurrent=("one", "two")))
    assert "mixes ['GRU', 'LSTM']; expected one kind of cell" in found


def test_sizes_that_do_not_follow():
    pieces = Pieces(embed=nn.Embedding(20, 7), rnn=nn.LSTM(6, 8), fc=nn.Linear(8, 3))
    found = message(pieces)
    assert "rnn (LSTM 6 to 8, 1 layers) reads vectors of 6, but before it come embed" in found
    found = message(Pieces(embed=nn.Embedding(20, 6), rnn=nn.LSTM(6, 8), fc=nn.Linear(9, 3)))
    assert "the readout has 8 units, then come fc (Linear 9 to 3)" in found


def test_names_that_are_not_there():
    found = message(Classifier(), spec=NetworkSpec(embedding="emb", recurrent="fc", head="nothing"))
    assert "embedding='emb' is no submodule; candidates: embedding (Embedding 20 x 6)" in found
    assert "recurrent='fc' is a Linear, expected a RNNBase; candidates: rnn (LSTM" in found
    assert "head='nothing' is no submodule; candidates: fc (Linear 12 to 3)" in found


def test_lazy_layers():
    pieces = Pieces(embed=nn.Embedding(20, 6), rnn=nn.LSTM(6, 8), fc=nn.LazyLinear(3))
    with pytest.raises(UnreadableNetwork, match="is lazy and has no weights yet; run one batch"):
        read_network(pieces, make_rows()[0], lambda: torch.zeros(24, 3), LABELS)


def test_quantized_layers():
    from torch.ao.nn.quantized.dynamic import LSTM  # the module alone needs no quantized backend

    class Quantized(LSTM):
        def __init__(self) -> None:
            nn.Module.__init__(self)

    Quantized.__module__ = LSTM.__module__
    found = message(Pieces(rnn=Quantized(), fc=nn.Linear(8, 3)))
    assert "is quantized; expected the float network" in found
    assert "no recurrent layer" in found


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    assert f"weights are ['{dtype}']; expected torch.float32" in message(Classifier().to(dtype))


def test_mixed_precision():
    model = Classifier()
    model.fc.double()
    assert "['torch.float32', 'torch.float64']" in message(model)


class WithAttention(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
        self.norm = nn.LayerNorm(12)
        self.start = nn.Parameter(torch.ones(12))

    def read(self, out, h_n, lengths):
        return self.norm(self.attention(out, out, out)[0] + self.start)[:, -1]


def test_what_is_not_covered_is_named_and_both_answers_are_shown():
    found = message(WithAttention())
    assert "does not reproduce the network WithAttention" in found
    lines = found.splitlines()
    shown = [line for line in lines if line.startswith(("the network gives: [", "the reading"))]
    assert len(shown) == 2 and shown[0].count(",") == 2
    assert "Not covered: start (a parameter of the network itself)" in found
    assert "attention (MultiheadAttention)" in found and "norm (LayerNorm)" in found
    assert "MultiheadAttention: attention is not covered." in found
    assert "LayerNorm: normalisation between layers is not covered." in found
    tried = lines[lines.index("Tried:") + 1 :]
    assert len(tried) >= 9 and all("readout=" in line and "differs by" in line for line in tried)


def test_convolutions_and_decoders():
    class Convolved(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv1d(6, 6, 3, padding=1)

        def forward(self, values, lengths):
            x = self.convolution(self.embedding(values).transpose(1, 2)).transpose(1, 2)
            return self.fc(self.rnn(x)[0][:, -1])

    found = message(Convolved().double())
    assert "Conv1d: convolutions before or behind the recurrent layers are not covered" in found
    pieces = Pieces(
        words=nn.Embedding(20, 6),
        encoder=nn.GRU(6, 8),
        decoder=nn.GRU(6, 8),
        fc=nn.Linear(8, 3),
    )
    assert "is fed answers, is a translator: see TranslatorSpec" in message(pieces)


def test_other_activations_are_named():
    class Gelu(Classifier):
        def __init__(self) -> None:
            super().__init__(hidden=(10,))
            self.activation = nn.GELU()

    assert "GELU: only relu, tanh and identity follow a dense layer" in message(Gelu())


@pytest.mark.parametrize("outputs", [1, 2])
def test_probabilities_are_recognised(outputs):
    class Probable(Classifier):
        def forward(self, values, lengths):
            z = super().forward(values, lengths)
            return z.sigmoid() if outputs == 1 else z.softmax(-1)

    found = message(Probable(labels=outputs), labels=("no", "yes"))
    assert "answers are probabilities; expected logits or log-softmax" in found


def test_rows_of_one_length_tell_nothing():
    rows, lengths = make_rows(padded=False)
    model = Classifier(readout="last_step", bidirectional=True)
    found = message(model, (rows, lengths))
    assert "different settings reproduce the network on this batch of 24 rows" in found
    assert "All rows of the batch have the same length, 9 of 9 steps." in found
    assert "Give a batch with rows of different lengths, or say which it is: NetworkSpec(" in found
    assert "readout='last_step', packed=False" in found and "readout='last_valid'" in found
    spec = NetworkSpec(readout="last_step", packed=False)
    network, _ = read_network(model, rows, lambda: model(rows.values, lengths), LABELS, spec)
    assert network.config.readout == "last_step"


def test_a_spec_that_is_wrong():
    found = message(Classifier(readout="last_valid"), spec=NetworkSpec(readout="mean_steps"))
    assert "of 2 settings tried" in found and "packed=False" in found and "last_valid" not in found


def test_answers_that_change():
    model = Classifier()
    rows, lengths = make_rows()
    found = message(model, forward=lambda: model(rows.values, lengths) + torch.rand(3))
    assert "differently each time" in found and "first:  [" in found and "second: [" in found


def test_answers_that_are_not_numbers():
    found = message(Classifier(), forward=lambda: torch.full((24, 3), torch.nan))
    assert "NaN or infinity, in 24 of 24 rows" in found


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (torch.zeros(24, 5, 3), "expected an answer for each row, for each step of the input or"),
        (torch.zeros(24, 9, 4), r"answers at each step \(24, 'steps', 3\) or \(24, 3, 'steps'\)"),
        (torch.zeros(23, 3), r"of shape \(23, 3\); expected floats of shape \(24, 3\)"),
        (torch.zeros(24, dtype=torch.int64), "gave torch.int64"),
        ("text", "gave a str; expected a tensor"),
        (None, "gave a NoneType"),
        ({"output": torch.zeros(24, 3)}, "a mapping with 'logits'"),
    ],
)
def test_answers_of_a_wrong_kind(output, expected):
    with pytest.raises(UnreadableNetwork, match=expected):
        read_network(Classifier(), make_rows()[0], lambda: output, LABELS)


@pytest.mark.parametrize(
    "values",
    [
        torch.zeros(0, 9, dtype=torch.int64),
        torch.zeros(5, 0, dtype=torch.int64),
        torch.zeros(5, dtype=torch.int64),
        torch.zeros(5, 9),
        torch.zeros(5, 9, dtype=torch.bool),
    ],
)
def test_batches_of_a_wrong_kind(values):
    with pytest.raises(UnreadableNetwork, match="expected token ids of shape"):
        read_network(Classifier(), Rows(values), lambda: torch.zeros(5, 3), LABELS)


def test_features_for_a_network_of_tokens():
    found = message(Classifier(), make_rows(tokens=False), spec=NetworkSpec(embedding="embedding"))
    assert "embedding='embedding' with torch.float64 inputs" in found


def test_tokens_beyond_one_hot_vectors():
    found = message(Classifier(tokens=False), forward=lambda: torch.zeros(24, 3))
    assert "but no nn.Embedding" in found


def test_labels_that_clash():
    with pytest.raises(ValueError, match="expected at least two labels, all different"):
        read_network(Classifier(), make_rows()[0], lambda: torch.zeros(24, 3), ("a", "a", "b"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"readout": "last"}, "readout='last', expected one of"),
        ({"padding": "center"}, "padding='center', expected one of ('right', 'left')"),
        ({"packed": "yes"}, "packed='yes', expected one of (True, False)"),
        ({"output": "softmax"}, "output='softmax'"),
        ({"directions": "first"}, "directions='first'"),
        ({"embedding": 3}, "embedding=3, expected the name of one submodule"),
        ({"recurrent": ()}, "recurrent=(), expected at least one name"),
        ({"recurrent": 5}, "recurrent=5, expected names of submodules"),
        ({"hidden": "fc"}, "hidden='fc', expected names of submodules"),
        ({"activations": ("gelu",)}, "activations=('gelu',), expected some of"),
        ({"hidden": ("a", "b"), "activations": ("relu",)}, "expected one a hidden layer"),
        ({"packed": True, "padding": "left"}, "packing needs padding on the right"),
        ({"pad_index": -1}, "pad_index=-1, expected a token id"),
        ({"steps": 0}, "steps=0, expected a positive number or 'any'"),
        ({"steps": "all"}, "steps='all'"),
    ],
)
def test_specs_that_do_not_fit(arguments, expected):
    with pytest.raises(ValueError) as error:
        NetworkSpec(**arguments)
    assert expected in str(error.value)


def test_a_spec_names_all_problems_at_once():
    with pytest.raises(ValueError) as error:
        NetworkSpec(readout="first", packed=3, steps=-1)
    assert all(name in str(error.value) for name in ("readout='first'", "packed=3", "steps=-1"))
