"""One batch through a graph network: what its units did, and what answers owe to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from mlflow_rnnmod.networks.graph.config import GraphConfig
from mlflow_rnnmod.networks.protocol import Observations


class GraphWatch:
    """A batch through an unmasked network. An observation is a row.

    A group that meets others in a sum is read at several places on its way: the last one is what it
    put out, guesses are made from all, and derivatives are by what is read at each, added up.

    Args:
        config: the network's.
        values: of all nodes, where they are read.
        logits: of the batch.
        leaves: zeros that were added to values, to differentiate by, by node.
    """

    def __init__(
        self,
        config: GraphConfig,
        values: Mapping[str, Tensor],
        logits: Tensor,
        leaves: Mapping[str, Tensor],
    ) -> None:
        self.config, self.values, self.logits, self.leaves = config, values, logits, leaves
        self.places, self.groups = config.structure.places, config.structure.groups

    def observations(self, sides: Tensor) -> Iterator[Observations]:
        """What each group's units did; see :class:`~mlflow_rnnmod.networks.protocol.Watch`."""
        for name, places in self.places.items():
            found = [self._part(self.values, name, *place).detach() for place in places]
            also = None
            if len(found) > 1:
                more = len(found) - 1
                also = torch.cat(found[:-1]), torch.cat([sides] * more, dim=1)
            yield Observations(name, found[-1], sides, joint=True, also=also)

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
            parts = [self._part(by_node, name, *place) for place in places if place[0] in by_node]
            if parts:
                yield name, torch.stack([part.double() ** 2 for part in parts]).sum(0)

    def _part(self, values: Mapping[str, Tensor], group: str, node: str, offset: int) -> Tensor:
        return values[node][:, offset : offset + self.groups[group].units]
