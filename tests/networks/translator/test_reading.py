"""Users' encoder-decoders, of many habits, read into ours."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.spec import UnreadableNetwork
from mlflow_rnnmod.networks.translator.reading import (
    check_translator_parity,
    read_translator,
    read_translator_weights,
)
from mlflow_rnnmod.networks.translator.spec import TranslatorSpec

SPEC = TranslatorSpec(starts=(2, 3), end=4, pad_index=0)
CODES = ("de", "fr")


class Seq2Seq(nn.Module):
    """As tutorials write it, with its habits as arguments."""

    def __init__(
        self,
        kind=nn.LSTM,
        layers=1,
        both=True,
        bridge="by_state",
        activation=True,
        packed=True,
        shared_embedding=False,
        axes="rows_steps",
        attention=False,
        whose="last",
        joined="concatenate",
    ):
        super().__init__()
        self.source = nn.Embedding(20, 6, padding_idx=0)
        if not shared_embedding:
            self.target = nn.Embedding(22, 6, padding_idx=0)
        self.reader = kind(6, 5, layers, batch_first=True, bidirectional=both)
        size = 10 if both else 5
        units = 10 if bridge is None and joined == "concatenate" and both else 5
        self.units, self.states = units, 2 if kind is nn.LSTM else 1
        counts = {"shared": 1, "hidden_only": 1, "by_state": self.states, "by_layer": layers}
        counts |= {"states_first": self.states * layers, "each": self.states * layers, None: 0}
        self.bridge = nn.ModuleList(nn.Linear(size, units) for _ in range(counts[bridge]))
        self.writer = kind(6, units, layers, batch_first=True)
        self.drop = nn.Dropout(0.3)
        self.out = nn.Linear(units, 20 if shared_embedding else 22)
        if attention:
            self.attention = nn.Linear(units, 10)
        self.habits = (bridge, activation, packed, axes, whose, joined)

    def forward(self, source, lengths, tokens):
        bridge, activation, packed, axes, whose, joined = self.habits
        x = self.drop(self.source(source))
        if packed:
            x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        read, state = self.reader(x)
        state = state if isinstance(state, tuple) else (state,)
        layers = self.reader.num_layers
        parts = []
        for s, part in enumerate(state):
            by_layer = part.view(layers, -1, *part.shape[1:])
            found = []
            for i in range(layers):
                pair = by_layer[i if whose == "each" else -1]
                if joined == "sum":
                    found.append(pair.sum(0))
                elif joined == "backward":
                    found.append(pair[1])
                else:
                    found.append(torch.cat(list(pair), dim=-1))
                if bridge is None:
                    continue
                number = {
                    "shared": 0,
                    "hidden_only": 0,
                    "by_state": s,
                    "by_layer": i,
                    "states_first": s * layers + i,
                    "each": i * self.states + s,
                }[bridge]
                found[-1] = self.bridge[number](found[-1])
                if activation:
                    found[-1] = torch.tanh(found[-1])
                if bridge == "hidden_only" and s:
                    found[-1] = torch.zeros_like(found[-1])
            parts.append(torch.stack(found))
        embedding = self.target if hasattr(self, "target") else self.source
        given = tuple(parts) if len(parts) > 1 else parts[0]
        out, _ = self.writer(self.drop(embedding(tokens)), given)
        if hasattr(self, "attention"):
            padded = read.data if packed else read
            out = out + self.attention(out) @ padded[0, 0].new_ones(10, self.units)
        logits = self.out(out)
        if axes == "rows_tokens":
            return logits.transpose(1, 2)
        if axes == "flat":
            return logits.flatten(0, 1).log_softmax(-1), None
        return logits


def batch(padded: bool = True):
    draw = torch.Generator().manual_seed(0)
    lengths = torch.tensor([5, 2, 4, 1, 3, 5] if padded else [5] * 6)
    source = torch.randint(5, 20, (6, 5), generator=draw)
    source[torch.arange(5) >= lengths[:, None]] = 0
    tokens = torch.randint(5, 20, (6, 4), generator=draw)
    tokens[:, 0] = torch.tensor([2, 3, 2, 3, 3, 2])
    tokens[1, 2:] = 0
    return Rows(source, lengths), tokens


def read(model, spec=SPEC, padded=True):
    rows, tokens = batch(padded)
    found = read_translator(
        model, rows, tokens, lambda: model(rows.values, rows.lengths, tokens), CODES, spec
    )
    return *found, rows, tokens


@pytest.mark.slow
@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize(
    "habits",
    [
        {},
        {"both": False, "packed": False},
        {"bridge": "shared", "activation": False},
        {"layers": 2, "bridge": "states_first"},
        {"layers": 2, "bridge": "each", "whose": "each"},
        {"layers": 2, "bridge": "by_layer", "activation": False},
        {"bridge": None},
        {"bridge": None, "both": False, "layers": 3, "whose": "each"},
        {"bridge": None, "joined": "sum"},
        {"bridge": None, "joined": "backward", "packed": False},
        {"axes": "rows_tokens"},
        {"axes": "flat"},
    ],
)
def test_habits_are_found(kind, habits):
    torch.manual_seed(0)
    model = Seq2Seq(kind, **habits)
    model.train()
    translator, reading, rows, tokens = read(model)
    assert model.training
    model.eval()
    expected = model(rows.values, rows.lengths, tokens)
    if isinstance(expected, tuple):
        expected = expected[0].view(6, 4, -1)
    elif habits.get("axes") == "rows_tokens":
        expected = expected.transpose(1, 2)
    found = translator(rows, tokens)
    torch.testing.assert_close(
        found.log_softmax(-1), expected.log_softmax(-1), atol=1e-5, rtol=1e-5
    )
    assert reading.spec.packed == habits.get("packed", True)
    assert reading.config.starts == (2, 3) and reading.config.targets == CODES
    if habits.get("bridge", "by_state") is not None:
        wanted = "tanh" if habits.get("activation", True) else "identity"
        assert reading.config.bridge_activation == wanted
    again = TranslatorSpec(**reading.spec.to_dict())
    assert read(model, again)[1].spec == again
    assert len(read(model, again)[1].tried) == 1


def test_hidden_states_alone_may_be_led_over():
    torch.manual_seed(0)
    reading = read(Seq2Seq(bridge="hidden_only"))[1]
    assert reading.spec.bridge_layers == "hidden_only"


def test_one_embedding_for_both_languages():
    torch.manual_seed(0)
    model = Seq2Seq(nn.GRU, shared_embedding=True)
    translator, reading, *_ = read(model)
    assert reading.spec.source_embedding == reading.spec.target_embedding == "source"
    assert reading.config.source_size == reading.config.target_size == 20
    assert torch.equal(translator.embedding.weight, model.source.weight)


def test_without_padding_packing_is_taken_for_granted():
    torch.manual_seed(0)
    reading = read(Seq2Seq(packed=False), padded=False)[1]
    assert reading.spec.packed is True
    assert "No source of the batch is padded" in reading.notes[0]
    reading = read(Seq2Seq(packed=False), replace(SPEC, packed=False), padded=False)[1]
    assert reading.spec.packed is False and not reading.notes


def test_weights_of_later():
    torch.manual_seed(0)
    model = Seq2Seq()
    before, reading, rows, tokens = read(model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    after = read_translator_weights(model, reading)

    def forward():
        return model(rows.values, rows.lengths, tokens)

    assert check_translator_parity(model, after, rows, tokens, forward) < 1e-5
    with pytest.raises(UnreadableNetwork, match="differ by"):
        check_translator_parity(model, before, rows, tokens, forward)


def test_attention_is_not_covered():
    torch.manual_seed(0)
    with pytest.raises(UnreadableNetwork, match="Attention, states of the encoder"):
        read(Seq2Seq(attention=True), replace(SPEC, bridge=("bridge.0", "bridge.1")))


def test_what_is_missing_or_ambiguous_is_named():
    torch.manual_seed(0)
    with pytest.raises(UnreadableNetwork, match="the recurrent layers are none"):
        read(nn.Sequential(nn.Embedding(20, 5), nn.Linear(5, 20)))
    with pytest.raises(UnreadableNetwork, match="'lstm' is no submodule, expected one of the RNN"):
        read(Seq2Seq(), replace(SPEC, encoder=("lstm",)))
    with pytest.raises(UnreadableNetwork, match="2 start tokens; expected one for each"):
        rows, tokens = batch()
        read_translator(Seq2Seq(), rows, tokens, lambda: None, ("de",), SPEC)
    model = Seq2Seq()
    model.reader = nn.GRU(6, 5, batch_first=True, bidirectional=True)
    with pytest.raises(UnreadableNetwork, match="mix .'GRU', 'LSTM'."):
        read(model)
    model = Seq2Seq()
    model.extra = nn.Embedding(7, 7)
    with pytest.raises(UnreadableNetwork, match="3 embeddings"):
        read(model)
    with pytest.raises(UnreadableNetwork, match=r"logits of shape \(3,\)"):
        rows, tokens = batch()
        read_translator(Seq2Seq(), rows, tokens, lambda: torch.zeros(3), CODES, SPEC)


def test_specs_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="bridge_activation='relu', expected one of"):
        replace(SPEC, bridge_activation="relu")
    with pytest.raises(ValueError, match=r"starts=\(\), end=4, expected token ids"):
        replace(SPEC, starts=())
    with pytest.raises(ValueError, match=r"unknown are .'embeding'., missing .'end'."):
        TranslatorSpec.from_mapping({"starts": (2,), "embeding": "x"})
    assert TranslatorSpec.from_mapping({"starts": [2], "end": 3, "encoder": "a"}).encoder == ("a",)
