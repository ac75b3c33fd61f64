"""Running many modules: what they share is run once, by parent and trunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.composition.inputs import to_rows
from mlflow_rnnmod.composition.scores import ModuleOutputs
from mlflow_rnnmod.decomposition.module import Module, log_odds
from mlflow_rnnmod.network.config import NetworkConfig
from mlflow_rnnmod.network.parent import Parent
from mlflow_rnnmod.network.rows import Rows
from mlflow_rnnmod.network.slicing import sliced
from mlflow_rnnmod.network.trunk import Trunk

# From rows to readouts at the parent's width.
View = Callable[[Rows], Tensor]

# Steps times rows that are run at once: a single very long text must not pad a whole batch to its
# length.
MAX_STEPS = 65_536


@dataclass(frozen=True, eq=False)
class _Group:
    """The modules of one parent that share a trunk: one run of it serves them all."""

    trunk: Trunk
    positions: tuple[int, ...]
    view: View


class Engine:
    """Runs the modules of a composite.

    Modules are grouped by parent and trunk; each trunk is cut down to its units and run once for
    all its heads. The unmasked parent runs once more where its energy is asked for, or once in all
    where some module has the full trunk.

    Args:
        modules: at least one.
        batch_size: rows run at once, at the most.
    """

    def __init__(self, modules: Sequence[Module], batch_size: int = 512) -> None:
        self.modules = tuple(modules)
        self.batch_size = batch_size
        self.parents: dict[str, Parent] = {}
        self._groups: dict[str, list[_Group]] = {}
        for digest in dict.fromkeys(module.parent.digest for module in self.modules):
            mine = [i for i, m in enumerate(self.modules) if m.parent.digest == digest]
            parent = self.modules[mine[0]].parent
            self.parents[digest] = parent
            self._groups[digest] = [
                _Group(trunk, tuple(i for i in mine if self.modules[i].trunk == trunk), view)
                for trunk, view in _views(parent, [self.modules[i].trunk for i in mine]).items()
            ]

    @torch.inference_mode()
    def run(self, inputs: Any, energy: bool) -> list[ModuleOutputs]:
        """Outputs of every module, in their order, for all ``inputs`` (checked, at least one row).

        Args:
            inputs: as :func:`~.inputs.check_inputs` returns them.
            energy: whether to run the unmasked parents for their energy.
        """
        outputs: list[ModuleOutputs | None] = [None] * len(self.modules)
        for digest, parent in self.parents.items():
            rows = to_rows(parent, inputs)
            chunks = bucket(parent.network.lengths(rows), self.batch_size)
            back = torch.cat(chunks).argsort()
            energies = self._energies(parent, rows, chunks)[back] if energy else None
            for group in self._groups[digest]:
                readout = _in_chunks(group.view, parent, rows, chunks)[back]
                logits = parent.network.logits(readout)
                for position in group.positions:
                    module = self.modules[position]
                    index = module.contract.index
                    outputs[position] = ModuleOutputs(
                        module, readout, log_odds(logits, index), logits[:, index], energies
                    )
        return [found for found in outputs if found is not None]

    def _energies(self, parent: Parent, rows: Rows, chunks: list[Tensor]) -> Tensor:
        readout = _in_chunks(_whole(parent), parent, rows, chunks)
        return torch.logsumexp(parent.network.logits(readout), dim=1)


def _whole(parent: Parent) -> View:
    return lambda rows: parent.network.states(rows).readout


def _views(parent: Parent, trunks: Sequence[Trunk]) -> dict[Trunk, View]:
    """How each distinct trunk is run: the parent itself where nothing is removed."""
    return {
        trunk: _whole(parent) if trunk.full else sliced(parent.network, trunk).readout
        for trunk in dict.fromkeys(trunks)
    }


def bucket(lengths: Tensor, batch_size: int) -> list[Tensor]:
    """Row numbers in batches of like length, longest last.

    Batches hold at most ``batch_size`` rows, and fewer where the rows are very long.
    """
    order = lengths.argsort(stable=True)
    chunks, start = [], 0
    while start < len(order):
        end = min(start + batch_size, len(order))
        while end > start + 1 and int(lengths[order[end - 1]]) * (end - start) > MAX_STEPS:
            end = start + (end - start) // 2
        chunks.append(order[start:end])
        start = end
    return chunks


def _in_chunks(view: View, parent: Parent, rows: Rows, chunks: list[Tensor]) -> Tensor:
    """Readouts of the rows in the order of the chunks."""
    network = parent.network
    fixed = network.config.steps is not None
    found = []
    for chunk in chunks:
        part = rows[chunk]
        if not fixed and part.lengths is not None and _ignores_padding(network.config):
            longest = max(int(part.lengths.max()), 1)
            values = part.values
            values = values[:, :longest] if network.config.side == "right" else values[:, -longest:]
            part = Rows(values, part.lengths)
        found.append(view(part.to(network.device)))
    return torch.cat(found)


def _ignores_padding(config: NetworkConfig) -> bool:
    """Whether steps behind a row's last valid one can be cut without changing its answer."""
    if config.side == "left":
        return False
    if config.packed:
        return not config.readout.endswith("_steps") and config.readout != "last_step"
    one_way = all(len(layer) == 1 for layer in config.recurrent)
    return one_way and config.readout in ("last_valid", "mean_valid", "max_valid")
