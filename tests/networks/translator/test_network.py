"""The translator against plain PyTorch, and decoding against plain loops."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.recurrent.config import CELLS
from mlflow_rnnmod.networks.translator.config import TranslatorConfig
from mlflow_rnnmod.networks.translator.network import Translator

START, END = {"de": 2, "fr": 3}, 4


def make(
    cell: str = "gru", encoder=((5, 5),), decoder=(7,), seed: int = 0, **changes
) -> Translator:
    config = TranslatorConfig(
        cell=cell,
        source_size=20,
        source_embedding=6,
        target_size=22,
        target_embedding=5,
        encoder=encoder,
        decoder=decoder,
        targets=("de", "fr"),
        starts=(2, 3),
        end=END,
        **changes,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        translator = Translator(config).double()
    with torch.no_grad():
        for weight in translator.parameters():
            weight.mul_(2.0)
        translator.output.weight.mul_(4.0)
    return translator.requires_grad_(False)


def sources(count: int = 9, steps: int = 6, seed: int = 0) -> Rows:
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, steps + 1, (count,), generator=draw)
    values = torch.randint(5, 20, (count, steps), generator=draw)
    values[torch.arange(steps) >= lengths[:, None]] = 0
    return Rows(values, lengths)


def plain_states(translator: Translator, ids: list[int]) -> list[tuple[torch.Tensor, ...]]:
    """The encoder's final states of one row without padding, by PyTorch's own many-layer module."""
    config = translator.config
    kind = {"lstm": nn.LSTM, "gru": nn.GRU}.get(config.cell, nn.RNN)
    extra = {"nonlinearity": config.cell[4:]} if config.cell.startswith("rnn") else {}
    directions = len(config.encoder[0])
    module = kind(
        config.source_embedding,
        config.encoder[0][0],
        num_layers=len(config.encoder),
        bidirectional=directions == 2,
        batch_first=True,
        **extra,
    ).double()
    for i in range(len(config.encoder)):
        for d, name in enumerate(("fwd", "bwd")[:directions]):
            own = translator.encoder.cell(i, name).state_dict()
            for key, value in own.items():
                key = key.replace("_l0", f"_l{i}") + ("_reverse" if d else "")
                getattr(module, key).data = value
    embedded = translator.encoder.embedding(torch.tensor([ids]))
    state = module(embedded)[1]
    parts = state if isinstance(state, tuple) else (state,)
    shaped = [part.view(len(config.encoder), directions, -1).flatten(1) for part in parts]
    return [tuple(part[i][None] for part in shaped) for i in range(len(config.encoder))]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("encoder", [((5,),), ((5, 5), (5, 5))])
def test_first_states_are_those_of_each_row_by_itself(cell, encoder):
    translator = make(cell, encoder, (7, 4))
    rows = sources()
    found = translator.encode(rows)
    for row, length in enumerate(rows.lengths.tolist()):
        finals = plain_states(translator, rows.values[row, :length].tolist())
        for layer, state in enumerate(found):
            for part, (name, mine) in zip(
                finals[-1], zip(("h", "c"), state, strict=False), strict=True
            ):
                expected = torch.tanh(translator.bridge[layer][name](part))
                torch.testing.assert_close(mine[row : row + 1], expected)


def test_states_can_be_handed_on_as_they_are_layer_by_layer():
    translator = make("lstm", ((5, 5), (4, 4)), (10, 8), bridge="state", bridge_from="each")
    found = translator.encode(sources())
    assert [[part.shape[1] for part in state] for state in found] == [[10, 10], [8, 8]]
    # The first layer's, bit for bit: forward units before backward ones.
    x = translator.encoder.embedding(sources().values[:1, :1])
    one = translator.encode(Rows(sources().values[:1, :1]))
    out, (h, c) = translator.encoder.cell(0, "fwd")(x)
    assert torch.equal(one[0][0][:, :5], h[0]) and torch.equal(one[0][1][:, :5], c[0])


def test_without_packing_padding_is_read():
    translator = make("gru", ((5,),), packed=False)
    rows = sources()
    x = translator.encoder.embedding(rows.values)
    expected = torch.tanh(translator.bridge[0]["h"](translator.encoder.cell(0, "fwd")(x)[1][0]))
    assert torch.equal(translator.encode(rows)[0][0], expected)


def plain_greedy(translator: Translator, ids: list[int], target: str) -> list[int]:
    """One row, one token after the other, every time from the start, by the forced forward."""
    tokens = [START[target]]
    most = int(translator.config.length_factor * len(ids) + translator.config.length_extra)
    while len(tokens) <= most:
        logits = translator(Rows(torch.tensor([ids])), torch.tensor([tokens]))[0, -1]
        token = int(logits.argmax())
        if token == END:
            break
        tokens.append(token)
    return tokens[1:]


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("decoder", [(7,), (6, 5)])
def test_greedy_decoding_is_a_plain_loop(cell, decoder):
    translator = make(cell, decoder=decoder)
    # Make the end likely enough that some rows stop by themselves, at different steps.
    translator.output.bias.data[END] += 1.5
    rows = sources(12)
    lengths = set()
    for target in START:
        found = translator.translate(rows, target)
        for row, length in enumerate(rows.lengths.tolist()):
            assert found[row] == plain_greedy(
                translator, rows.values[row, :length].tolist(), target
            )
            lengths.add(len(found[row]))
    assert len(lengths) > 1


@pytest.mark.parametrize("beams", [2, 5])
def test_beam_search_is_a_plain_search(beams):
    translator = make("lstm", decoder=(6, 5))
    translator.output.bias.data[END] += 1.0
    rows = sources(6)
    found = translator.translate(rows, "fr", beams=beams)
    for row, length in enumerate(rows.lengths.tolist()):
        ids = rows.values[row, :length].tolist()
        most = int(2 * len(ids) + 10)
        alive = [(0.0, [])]
        while any(END not in tokens and len(tokens) < most for _, tokens in alive):
            grown = []
            for score, tokens in alive:
                if END in tokens or len(tokens) >= most:
                    grown.append((score, tokens))
                    continue
                given = torch.tensor([[START["fr"], *tokens]])
                odds = translator(Rows(torch.tensor([ids])), given)[0, -1].log_softmax(0)
                grown += [(score + float(o), [*tokens, t]) for t, o in enumerate(odds)]
            alive = sorted(grown, key=lambda item: -item[0])[:beams]
        best = max(alive, key=lambda item: item[0] / len(item[1]))[1]
        assert found[row] == [token for token in best if token != END]


def test_one_beam_is_greedy_and_more_find_likelier_ones():
    translator = make("gru")
    translator.output.bias.data[END] += 1.0
    rows = sources(20)
    alone = translator.translate(rows, "de")
    assert translator.translate(rows, "de", beams=1) == alone
    assert translator.translate(rows, "de", beams=4) != alone


def test_translations_do_not_depend_on_the_batch():
    translator, rows = make("lstm", ((5, 5), (4,)), (6, 5)), sources(10)
    together = translator.translate(rows, "de")
    alone = [
        translator.translate(Rows(rows.values[i : i + 1, :n]), "de")[0]
        for i, n in enumerate(rows.lengths.tolist())
    ]
    assert together == alone


def test_a_translation_is_no_longer_than_it_may_be():
    translator = make(length_factor=1.0, length_extra=2)
    translator.output.bias.data[END] -= 1e6
    rows = sources()
    for beams in (1, 3):
        found = translator.translate(rows, "de", beams=beams)
        assert [len(tokens) for tokens in found] == [n + 2 for n in rows.lengths.tolist()]


def test_gradients_reach_every_weight():
    """So that it can be trained as it is."""
    translator = make("lstm", ((5, 5), (4,)), (6, 5)).requires_grad_(True)
    translator(sources(), torch.randint(22, (9, 4))).logsumexp(-1).sum().backward()
    assert all(weight.grad is not None for weight in translator.parameters())


def test_the_structure_goes_through_json():
    import json

    config = make("lstm", ((5, 5), (4,)), (6, 5)).config
    assert TranslatorConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ValueError, match="Not a translator's structure"):
        TranslatorConfig.from_dict({"cell": "gru"})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cell": "lstm2"}, "cell='lstm2', expected one of"),
        ({"targets": ("de", "de")}, "all different"),
        ({"starts": (2, 2)}, "a token of its own"),
        ({"starts": (2, 99)}, "starts has token 99, expected one from 0 to 21"),
        ({"end": 2}, "end=2 is one of starts"),
        ({"bridge": "attention"}, "bridge='attention'"),
        ({"bridge": "state"}, "a state of 10 units, expected its own 7"),
        ({"bridge_from": "each", "decoder": (7, 7)}, "1 encoder and 2 decoder layers"),
        ({"encoder": ((0,),)}, "recurrent="),
        ({"pad_index": 20}, "pad_index=20"),
        ({"side": "left"}, "packed=True with side='left'"),
    ],
)
def test_what_does_not_fit_is_named(changes, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(").replace(")", r"\)")):
        replace(make().config, **changes)
