"""One batch through a graph network: what its units did, and what answers owe to them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from mlflow_rnnmod.answers.targets import margin_of
from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.graph.config import GraphConfig
from mlflow_rnnmod.networks.graph.structure import Place
from mlflow_rnnmod.networks.protocol import Observations
from mlflow_rnnmod.networks.recurrent.watching import signs_of


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
        rows: the batch.
        valid: which steps are no padding, bool ``(rows, steps)``, where there are steps.
    """

    def __init__(
        self,
        config: GraphConfig,
        values: Mapping[str, Tensor],
        logits: Tensor,
        leaves: Mapping[str, Tensor],
        others: Mapping[str, tuple[Tensor, Tensor]] | None = None,
        rows: Rows | None = None,
        valid: Tensor | None = None,
    ) -> None:
        self.rows, self.valid = rows, valid
        self.recurrent = {node.name for node in config.nodes if node.operation.recurs}
        self.config, self.values, self.logits, self.leaves = config, values, logits, leaves
        self.others = others
        self.places, self.groups = config.structure.places, config.structure.groups

    def observations(self, sides: Tensor) -> Iterator[Observations]:
        """What each group's units did; see :class:`~mlflow_rnnmod.networks.protocol.Watch`."""
        if self.valid is not None:
            yield from self._over_steps(sides)
            return
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
        if self.config.stepwise:
            self._squared_by_step(margins, sides, found)
        elif sides.dtype == torch.bool:
            for label in range(labels):
                both = sides[:, :, label].double()
                for name, square in self._squares(margins[:, label]):
                    found[name][:, label] = both @ square
        else:
            # One way back answers for both sides: that of the one less the other.
            one, other = (margin_of(margins, of) for of in sides)
            for name, square in self._squares(one - other):
                for side, of in enumerate(sides):
                    found[name][side].index_add_(0, of, square)
        return {name: total[:, :labels].cpu() for name, total in found.items()}

    def _squared_by_step(self, margins: Tensor, sides: Tensor, found: dict[str, Tensor]) -> None:
        """Where each step is answered: all steps of a label at once, with signs as good as random.

        Squares of sums are then sums of squares, but for noise.
        """
        assert self.rows is not None and self.valid is not None
        signs = signs_of(self.rows, self.valid)
        for side, of in enumerate(sides):
            for label in range(margins.shape[-1]):
                asked = (of == label) * signs
                for name, square in self._squares((margins[..., label] * asked).sum(1)):
                    found[name][side, label] += square.sum(0)

    def _over_steps(self, sides: Tensor) -> Iterator[Observations]:
        """What units did at valid steps; guesses are made from all places where they are read."""
        assert self.valid is not None
        stepwise, none = self.config.stepwise, self.logits.shape[-1]
        for name, places in self.places.items():
            seen, own = [], []
            for place in places:
                part = self._part(self.values, name, place).detach()
                row, step = self._valid_at(place).nonzero(as_tuple=True)
                seen.append(part[row, step])
                if not stepwise:
                    own.append(sides[:, row])
                elif part.shape[1] == sides.shape[2]:
                    own.append(sides[:, row, step])
                else:
                    own.append(sides.new_full((2, len(row)), none))
            at = next((i for i, p in enumerate(places) if p.node in self.recurrent), -1) % len(seen)
            others = [i for i in range(len(seen)) if i != at]
            also = None
            if others:
                also = torch.cat([seen[i] for i in others]), torch.cat([own[i] for i in others], 1)
            yield Observations(name, seen[at], own[at], joint=True, also=also)

    def _valid_at(self, place: Place) -> Tensor:
        """Which places of a node are no padding, bool ``(rows, places)``."""
        assert self.valid is not None
        value, valid = self.values[place.node], self.valid
        if value.ndim == 2:
            return valid.new_ones(len(valid), 1)
        steps, places = valid.shape[1], value.shape[2]
        if places == steps + 1:  # last cells stand behind
            return torch.cat([valid, valid[:, :1] | True], dim=1)
        # Where kernels and windows left fewer steps, those that they began with tell.
        index = torch.arange(places, device=valid.device) * steps // places
        return valid[:, index]

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
                sums = [
                    (self._not_guessed(name, place) * slope).sum(1)
                    for place, slope in zip(read, parts, strict=True)
                ]
                yield name, torch.stack(sums).sum(0).double() ** 2
            else:
                yield name, torch.stack([(part.double() ** 2).sum(1) for part in parts]).sum(0)

    def _not_guessed(self, group: str, place: Place) -> Tensor:
        """What the other units can't guess of each, ``(rows, places, units)``."""
        assert self.others is not None
        x = self._part(self.values, group, place).detach()
        matrix, mean = (found.to(x) for found in self.others[group])
        return torch.matmul(x - mean, matrix.T)

    def _part(self, values: Mapping[str, Tensor], group: str, place: Place) -> Tensor:
        """Of a group's units, ``(rows, places, units)``."""
        value, units = values[place.node], self.groups[group].units
        part = value[:, place.offset : place.offset + units * place.block]
        flat = part.reshape(len(value), units, math.prod(part.shape[1:]) // units)
        return flat.transpose(1, 2)

    def _observed(self, values: Mapping[str, Tensor], group: str, place: Place) -> Tensor:
        """The same as observations, ``(rows x places, units)``."""
        return self._part(values, group, place).detach().flatten(0, 1)
