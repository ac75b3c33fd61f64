"""One batch through a graph network: what its units did, and what answers owe to them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from mlflow_rnnmod.networks.graph.config import GraphConfig
from mlflow_rnnmod.networks.graph.structure import Place
from mlflow_rnnmod.networks.protocol import Observations


class GraphWatch:
    """A batch through an unmasked network. An observation is a row, or one of its places.

    A group that meets others in a sum is read at several places on its way: the last one is what it
    put out, guesses are made from all, and derivatives are by what is read at each, added up.

    Args:
        config: the network's.
        values: of all nodes, where they are read.
        logits: of the batch.
        leaves: what is read of nodes, to differentiate by, by node.
        others: see :class:`~mlflow_rnnmod.networks.protocol.Told`.
    """

    def __init__(
        self,
        config: GraphConfig,
        values: Mapping[str, Tensor],
        logits: Tensor,
        leaves: Mapping[str, Tensor],
        others: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        self.config, self.values, self.logits, self.leaves = config, values, logits, leaves
        self.others = others
        self.places, self.groups = config.structure.places, config.structure.groups

    def observations(self, sides: Tensor) -> Iterator[Observations]:
        """What each group's units did; see :class:`~mlflow_rnnmod.networks.protocol.Watch`."""
        for name, places in self.places.items():
            found = [self._observed(self.values, name, place) for place in places]
            blocks = [len(values) // max(sides.shape[1], 1) for values in found]
            own = [sides if n == 1 else sides.repeat_interleave(n, dim=1) for n in blocks]
            also = None
            if len(found) > 1:
                also = torch.cat(found[:-1]), torch.cat(own[:-1], dim=1)
            yield Observations(name, found[-1], own[-1], joint=True, block=blocks[-1], also=also)

    @torch.enable_grad()
    def squared(self, sides: Tensor) -> dict[str, Tensor]:
        """Squared derivatives of margins, float64 ``(2, labels, units)``, by group."""
        labels = self.logits.shape[-1]
        found = {
            name: torch.zeros(2, labels + 1, group.units, dtype=torch.float64, device=sides.device)
            for name, group in self.groups.items()
        }
        margins = self.config.answer.all_margins(self.logits)
        if sides.dtype == torch.bool:
            for label in range(labels):
                both = sides[:, :, label].double()
                for name, square in self._squares(margins[:, label]):
                    found[name][:, label] = both @ square
        else:
            for side, of in enumerate(sides):
                own = margins.gather(1, of.clamp(max=labels - 1)[:, None])[:, 0]
                for name, square in self._squares(own):
                    found[name][side].index_add_(0, of, square)
        return {name: total[:, :labels].cpu() for name, total in found.items()}

    def _squares(self, margin: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Of each row's margin by each group's units, float64 ``(rows, units)``."""
        slopes = torch.autograd.grad(
            margin.sum(), list(self.leaves.values()), retain_graph=True, allow_unused=True
        )
        by_node = {
            name: slope
            for name, slope in zip(self.leaves, slopes, strict=True)
            if slope is not None
        }
        for name, places in self.places.items():
            read = [place for place in places if place.node in by_node]
            if not read:
                continue
            parts = [self._part(by_node, name, place) for place in read]
            if self.others is not None:
                # What its removal changes, to first order: at all places together.
                matrix, mean = (found.to(parts[0]) for found in self.others[name])
                did = [self._part(self.values, name, place).detach() for place in read]
                sums = [
                    (torch.matmul(matrix, x - mean[:, None]) * slope).sum(2)
                    for x, slope in zip(did, parts, strict=True)
                ]
                yield name, torch.stack(sums).sum(0).double() ** 2
            else:
                yield name, torch.stack([(part.double() ** 2).sum(2) for part in parts]).sum(0)

    def _part(self, values: Mapping[str, Tensor], group: str, place: Place) -> Tensor:
        """Of a group's units, ``(rows, units, places)``."""
        value, units = values[place.node], self.groups[group].units
        part = value[:, place.offset : place.offset + units * place.block]
        return part.reshape(len(value), units, math.prod(part.shape[1:]) // units)

    def _observed(self, values: Mapping[str, Tensor], group: str, place: Place) -> Tensor:
        """The same as observations, ``(rows x places, units)``."""
        return self._part(values, group, place).detach().transpose(1, 2).flatten(0, 1)
