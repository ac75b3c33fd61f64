"""What decoders do on right translations, and what these owe to them, against autograd."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from mlflow_rnnmod.decomposition.pairs import Pairs, padded
from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.recurrent.config import CELLS, GATES
from mlflow_rnnmod.networks.translator.forcing import watch_decoder
from tests.networks.translator.test_network import END, make, sources
from tests.translators import told


@torch.no_grad()
def likelihood(translator, states, ids, start, change=None):
    """Mean log-likelihood of one row's right tokens, by the cells of PyTorch, step by step.

    ``change``: (layer, step, unit, by) adds to a unit's output at one step.
    """
    kinds = {"lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}
    given, wanted = [start, *ids], [*ids, END]
    cells = []
    for i in range(len(translator.decoder)):
        layer = translator.decoder[i]
        extra = {} if translator.config.cell in kinds else {"nonlinearity": layer.nonlinearity}
        cell = kinds.get(translator.config.cell, torch.nn.RNNCell)(
            layer.input_size, layer.hidden_size, dtype=torch.float64, **extra
        )
        cell.load_state_dict({k.removesuffix("_l0"): v for k, v in layer.state_dict().items()})
        cells.append(cell)
    states, total = [tuple(part[None] for part in state) for state in states], 0.0
    for t, (token, right) in enumerate(zip(given, wanted, strict=True)):
        x = translator.embedding.weight[token][None]
        for i, cell in enumerate(cells):
            after = cell(x, states[i] if len(states[i]) > 1 else states[i][0])
            parts = list(after) if isinstance(after, tuple) else [after]
            if change is not None and change[:2] == (i, t):
                parts[0] = parts[0] + change[3] * F.one_hot(
                    torch.tensor([change[2]]), parts[0].shape[1]
                )
            states[i], x = tuple(parts), parts[0]
        total = total + translator.output(x)[0].log_softmax(0)[right]
    return total / len(wanted)


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_are_total_derivatives_of_the_mean_token_likelihood(cell):
    translator = make(cell, decoder=(4, 3))
    with torch.no_grad():
        for weight in translator.parameters():
            weight.mul_(0.5)
    ids = [[7, 9, 6, 8], [5, 11], [6]]
    given, wanted, valid = told(translator, "fr", ids)
    states = translator.encode(sources(3))
    found = watch_decoder(translator, states, given, wanted, valid, gradients=True)
    step = 1e-5
    for row, tokens in enumerate(ids):
        mine = [tuple(part[row] for part in state) for state in states]
        for layer, (name, units) in enumerate(translator.units.items()):
            for t in range(len(tokens) + 1):
                for unit in range(units):
                    up, down = (
                        likelihood(translator, mine, tokens, 3, (layer, t, unit, by))
                        for by in (step, -step)
                    )
                    slope = float(up - down) / (2 * step)
                    assert float(found[name].squared[row, t, unit]) == pytest.approx(
                        slope**2, rel=1e-4, abs=1e-9
                    )
            assert not found[name].squared[row, len(tokens) + 1 :].any()


@pytest.mark.parametrize("cell", CELLS)
def test_stepwise_and_kernel_see_the_same_outputs(cell):
    translator = make(cell, decoder=(4, 3))
    given, wanted, valid = told(translator, "de", [[7, 9], [5]])
    states = translator.encode(sources(2))
    plain = watch_decoder(translator, states, given, wanted, valid)
    stepped = watch_decoder(translator, states, given, wanted, valid, gradients=True)
    for name in translator.units:
        assert plain[name].squared is None
        torch.testing.assert_close(plain[name].values, stepped[name].values)


@pytest.mark.parametrize("cell", CELLS)
def test_what_goes_into_gates_gives_the_outputs(cell):
    translator = make(cell, decoder=(4,))
    given, wanted, valid = told(translator, "de", [[7, 9], [5]])
    states = translator.encode(sources(2))
    found = watch_decoder(translator, states, given, wanted, valid, gates=True, gradients=True)
    values = found["decoder.0.fwd"].values
    assert values.shape == (2, 3, GATES[cell], 4) == found["decoder.0.fwd"].squared.shape
    out = watch_decoder(translator, states, given, wanted, valid)["decoder.0.fwd"].values
    first = values[:, 0]
    h, *c = states[0]
    if cell == "lstm":
        i, f, g, o = first.unbind(1)
        new = torch.sigmoid(f) * c[0] + torch.sigmoid(i) * torch.tanh(g)
        expected = torch.sigmoid(o) * torch.tanh(new)
    elif cell == "gru":
        _, z, n = first.unbind(1)
        z = torch.sigmoid(z)
        expected = (1 - z) * torch.tanh(n) + z * h
    else:
        expected = (torch.tanh if cell == "rnn_tanh" else torch.relu)(first[:, 0])
    torch.testing.assert_close(out[:, 0], expected)


def test_a_rows_own_translation_is_read_behind_its_start_and_followed_by_its_end():
    translator = make()
    given, wanted, valid = told(translator, "fr", [[7, 9], [5], []])
    assert given.tolist() == [[3, 7, 9], [3, 5, 0], [3, 0, 0]]
    assert wanted.tolist() == [[7, 9, END], [5, END, 0], [0, 0, 0]]
    assert valid.tolist() == [[True] * 3, [True, True, False], [False] * 3]


def test_pairs_that_do_not_fit_are_named():
    ids = padded([[7], [8]], 0)
    with pytest.raises(ValueError, match="fit 1 sources: targets.'de'. has 2 rows"):
        Pairs(Rows(torch.tensor([[5]])), {"de": ids})
    with pytest.raises(ValueError, match="references.'de'. has 1 rows"):
        Pairs(Rows(torch.tensor([[5], [6]])), {"de": ids}, {"de": ["a"]})
    with pytest.raises(ValueError, match="no lengths"):
        Pairs(Rows(torch.tensor([[5], [6]])), {"de": Rows(ids.values)})
