"""One batch of right translations through a decoder: what its units did."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mlflow_rnnmod.inputs.rows import ForcedRows, Rows
from mlflow_rnnmod.networks.parts import part_name
from mlflow_rnnmod.networks.protocol import Observations, Told
from mlflow_rnnmod.networks.translator.forcing import Watched, forced_tokens, watch_decoder
from mlflow_rnnmod.networks.translator.layers import TranslatorLayers

# Numbers of logits that are held at once.
_HELD = 2**25
_FUNCTIONS = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}


class TranslatorWatch:
    """A batch of translations that the decoder was told (teacher forcing).

    An observation is a step that is answered by a token of the translation or by its end. The right
    translation of another language owes nothing to a module that is never told its start token: so
    only positives' gradients count, and the decoder's first state is guessed like its steps.

    Args:
        translator: unmasked.
        rows: sources with a translation each.
        told: what is told apart.
        gradients: keep squared gradients of each translation's mean token log-likelihood. They are
            total: through later steps and layers, and through the output layer.
    """

    def __init__(
        self, translator: TranslatorLayers, rows: ForcedRows, told: Told, gradients: bool
    ) -> None:
        self.translator, self.told, config = translator, told, translator.config
        assert rows.targets is not None and rows.tokens is not None
        sources = Rows(rows.values, rows.lengths)
        self.states = translator.encode(sources)
        starts = torch.tensor(config.starts, device=rows.tokens.device)[rows.targets]
        forced = forced_tokens(config, starts, Rows(rows.tokens, rows.token_lengths))
        given, wanted, self.valid = forced
        size = len(rows)
        if gradients:
            size = max(_HELD // (config.target_size * given.shape[1]), 1)
        parts = []
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            states = tuple(tuple(s[part] for s in state) for state in self.states)
            pieces = given[part], wanted[part], self.valid[part]
            parts.append(watch_decoder(translator, states, *pieces, told.gates, gradients))
        self.watched = {name: _joined([part[name] for part in parts]) for name in parts[0]}

    def observations(self, sides: Tensor) -> Iterator[Observations]:
        """What each layer's units did.

        Args:
            sides: bool ``(2, rows, labels)``.
        """
        row, number = self.valid.nonzero(as_tuple=True)
        of_steps = sides[:, row]
        joint = self.told.steps is None and not self.told.gates
        for (name, seen), state in zip(self.watched.items(), self.states, strict=True):
            for gate, values in self._parts(name, seen.values[self.valid], activated=True):
                also = (state[0], sides[0]) if joint else None
                if self.told.steps is None:
                    named = part_name(name, gate=gate)
                    yield Observations(named, values, of_steps, joint, also=also)
                    continue
                for t in range(self.told.steps):
                    here = self._at(number, t)
                    named = part_name(name, t, gate)
                    yield Observations(named, values[here], of_steps[:, here], False)

    def squared(self, sides: Tensor) -> dict[str, Tensor]:
        """Squared derivatives by label, of positives alone, float64 ``(1, labels, units)``."""
        row, number = self.valid.nonzero(as_tuple=True)
        own = sides[0][row].double()
        found = {}
        for name, seen in self.watched.items():
            assert seen.squared is not None
            for gate, values in self._parts(name, seen.squared[self.valid], activated=False):
                for t in range(self.told.steps) if self.told.steps is not None else (None,):
                    here = slice(None) if t is None else self._at(number, t)
                    sums = own[here].T @ values[here].double()
                    found[part_name(name, t, gate)] = sums[None].cpu()
        return found

    def _at(self, number: Tensor, t: int) -> Tensor:
        """Observations at step ``t``, with all later ones at the last."""
        return number == t if t + 1 < (self.told.steps or 0) else number >= t

    def _parts(
        self, name: str, values: Tensor, activated: bool
    ) -> Iterator[tuple[str | None, Tensor]]:
        """Observations ``(observations, units)``, gate by gate where these are told apart."""
        if not self.told.gates:
            yield None, values
            return
        for i, gate in enumerate(self.translator.groups[name].gates):
            own = values[:, i]
            yield gate.letter, _FUNCTIONS[gate.function](own) if activated else own


def _joined(parts: list[Watched]) -> Watched:
    squares = [part.squared for part in parts if part.squared is not None]
    return Watched(torch.cat([p.values for p in parts]), torch.cat(squares) if squares else None)
