"""Steps are cut only where that changes no answer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

from mlflow_rnnmod.networks import NetworkConfig, RecurrentNetwork, Rows
from mlflow_rnnmod.networks.recurrent.config import READOUTS
from tests.networks.recurrent.strategies import networks, random_rows


def padded(network: RecurrentNetwork, rows: Rows) -> Rows:
    """The rows with two more steps of padding, where the network takes any number."""
    config = network.config
    if config.steps is not None:
        return rows
    shape = (len(rows), 2, *rows.values.shape[2:])
    filler = rows.values.new_full(shape, config.pad_index or 0)
    parts = [filler, rows.values] if config.side == "left" else [rows.values, filler]
    return Rows(torch.cat(parts, dim=1), rows.lengths)


def check(network: RecurrentNetwork, rows: Rows) -> None:
    rows = padded(network, rows)
    short = network.trimmed(rows)
    with torch.no_grad():
        expected, found = network(rows), network(short)
    if network.config.stepwise:
        expected, found = expected[network.answered(rows)], found[network.answered(short)]
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-10)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(network=networks(outputs=("label", "tags")))
def test_answers_stay_what_they_are(network):
    check(network, random_rows(network))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("readout", READOUTS)
def test_every_readout(readout, packed):
    torch.manual_seed(0)
    output = "tags" if readout == "all_steps" else "label"
    config = NetworkConfig(
        "tokens", 9, 4, "gru", ((5,),), ("a", "b"), pad_index=0, packed=packed,
        readout=readout, output=output,
    )  # fmt: skip
    network = RecurrentNetwork(config).double()
    rows = Rows(torch.tensor([[3, 4, 5], [6, 0, 0], [7, 8, 0]]))
    check(network, rows)
    cut = network.trimmed(padded(network, rows)).values.shape[1] == 3
    assert cut == RecurrentNetwork(config).ignores_padding == (readout in {
        False: ("last_valid", "mean_valid", "max_valid", "all_steps"),
        True: ("last_valid", "mean_valid", "max_valid", "all_steps", "final_state"),
    }[packed])  # fmt: skip
