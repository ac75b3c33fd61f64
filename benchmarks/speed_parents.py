"""What the benchmarks of speed run: a user's network, its modules, and the plain loop over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mlflow_rnnmod.decomposition.module import Calibration, Energy, Head, Module, make_contract
from mlflow_rnnmod.networks import NetworkConfig, Parent, RecurrentNetwork, Rows, Trunk
from mlflow_rnnmod.networks.recurrent.ways import masked

VOCABULARY, INPUTS, UNITS, STEPS = 10_000, 50, 100, 15
REMOVAL = 0.2


class Network(nn.Module):
    """What a user has: an embedding, recurrent layers, an output layer over the last valid step."""

    def __init__(self, cell: str, layers: int, labels: int) -> None:
        super().__init__()
        kind = {"lstm": nn.LSTM, "gru": nn.GRU}[cell]
        self.embedding = nn.Embedding(VOCABULARY, INPUTS, padding_idx=0)
        self.recurrent = kind(INPUTS, UNITS, layers, batch_first=True)
        self.head = nn.Linear(UNITS, labels)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Logits."""
        out, _ = self.recurrent(self.embedding(x))
        return self.head(out[torch.arange(len(x)), lengths - 1])


def make_parent(cell: str, layers: int, labels: int) -> tuple[Network, Parent]:
    """A user's network with random weights, and the same as a parent."""
    torch.manual_seed(0)
    user = Network(cell, layers, labels).eval().requires_grad_(False)
    names = tuple(f"label {i}" for i in range(labels))
    config = NetworkConfig(
        "tokens", VOCABULARY, INPUTS, cell, ((UNITS,),) * layers, names, pad_index=0
    )
    network = RecurrentNetwork(config)
    weights = {"embedding.weight": user.embedding.weight}
    for layer in range(layers):
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            source = getattr(user.recurrent, f"{name}_l{layer}")
            weights[f"recurrent.{layer}.fwd.{name}_l0"] = source
    weights.update({"output.weight": user.head.weight, "output.bias": user.head.bias})
    network.load_state_dict({name: w.clone() for name, w in weights.items()})
    return user, Parent(network)


def random_trunk(parent: Parent) -> Trunk:
    """A fifth of each layer's units removed and guessed from the others."""
    keep, fold, mix = {}, {}, {}
    for name, units in parent.network.units.items():
        keep[name] = torch.ones(units, dtype=torch.bool)
        keep[name][torch.randperm(units)[: int(REMOVAL * units)]] = False
        fold[name], mix[name] = 0.1 * torch.randn(units), 0.05 * torch.randn(units, units)
    return Trunk(keep, fold, mix)


def make_modules(parent: Parent, trunks: Sequence[Trunk]) -> list[Module]:
    """A fully repaired module for each label; labels take the trunks in turn."""
    size = parent.network.config.readout_size

    def head() -> Head:
        return Head(0.1 * torch.randn(size), 0.1, Calibration(1.2, -0.1))

    return [
        Module(
            parent,
            trunks[i % len(trunks)],
            head(),
            head(),
            Energy(1.0, 2.0),
            make_contract(parent, label),
        )
        for i, label in enumerate(parent.labels)
    ]


def make_rows(count: int, steps: int) -> Rows:
    """Random token ids, none of them padding."""
    return Rows(torch.randint(1, VOCABULARY, (count, steps)), torch.full((count,), steps))


def plain_loop(modules: Sequence[Module]) -> Callable[[Rows], list[Tensor]]:
    """Every module's own pass over the whole width of the parent: what everybody else does."""
    views = [masked(module.parent.network, module.trunk) for module in modules]

    def run(rows: Rows) -> list[Tensor]:
        found = []
        with torch.inference_mode():
            for module, view in zip(modules, views, strict=True):
                readout = view.readout(rows)
                logits = module.parent.network.logits(readout)
                index = module.contract.index
                others = logits.index_fill(1, torch.tensor([index]), -torch.inf)
                odds = logits[:, index] - torch.logsumexp(others, 1)
                found.append(module.head(readout, odds))
        return found

    return run
