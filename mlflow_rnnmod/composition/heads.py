"""The heads of many modules side by side, what modules say of rows, and rows as observations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mlflow_rnnmod._locks import cached_property
from mlflow_rnnmod.answers.targets import all_log_odds
from mlflow_rnnmod.decomposition.module import Head, Module
from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.protocol import Network

# Logits that are few; and between what log-odds float64 probabilities give them to 1e-7.
_FEW, _UNLIKELY, _SURE = 512, -690.0, 20.0
# The sum of the others' exponentials that float32 holds with all its digits.
_TINY = 1e-30


@dataclass(frozen=True, eq=False)
class HeadStack:
    """One head of each of some modules, as tensors with a row a module.

    Args:
        weight: of the corrections, ``(modules, readout size)``; None where no head has one.
        scale: of the calibrations, ``(modules, 1)``.
        offset: of the calibrations, with what they make of the corrections' biases,
            ``(modules, 1)``.
    """

    weight: Tensor | None
    scale: Tensor
    offset: Tensor

    @classmethod
    def of(cls, heads: Sequence[Head], like: Tensor, size: int) -> HeadStack:
        """The stack of ``heads`` for readouts of ``size``, in the dtype and place of ``like``."""
        weights = [head.weight for head in heads]
        weight = None
        if any(w is not None for w in weights):
            rows = [torch.zeros(size).to(like) if w is None else w.to(like) for w in weights]
            weight = torch.stack(rows)
        bias = [0.0 if head.weight is None else head.bias for head in heads]
        scale = [head.calibration.scale for head in heads]
        offset = [
            h.calibration.offset + h.calibration.scale * b for h, b in zip(heads, bias, strict=True)
        ]
        return cls(weight, like.new_tensor(scale)[:, None], like.new_tensor(offset)[:, None])

    def __getitem__(self, part: slice) -> HeadStack:
        weight = None if self.weight is None else self.weight[part]
        return HeadStack(weight, self.scale[part], self.offset[part])

    def __call__(self, readout: Tensor, log_odds: Tensor) -> Tensor:
        """Calibrated margins, ``(modules, rows)``.

        ``readout``: ``(1, rows, size)`` where the modules share it, else ``(modules, rows, size)``;
        ``log_odds``: the parent's, of each module's label, ``(modules, rows)``.
        """
        margin = log_odds
        if self.weight is not None:
            if len(readout) == 1:
                margin = torch.addmm(margin.T, readout[0], self.weight.T).T
            else:
                margin = margin + torch.bmm(readout, self.weight[:, :, None])[:, :, 0]
        return torch.addcmul(self.offset, margin, self.scale)


class ModuleStack:
    """Modules of one parent, in any order, with all that is needed to score them at once."""

    def __init__(self, modules: Sequence[Module]) -> None:
        self.modules = tuple(modules)
        network = self.modules[0].parent.network
        weight = network.like.detach()
        size = network.config.readout_size
        self.index = torch.tensor([m.contract.index for m in modules], device=weight.device)
        self.head = HeadStack.of([m.head for m in modules], weight, size)
        self.open_head = HeadStack.of([m.open_head for m in modules], weight, size)
        energies = [(m.energy.mean, m.energy.deviation) for m in modules]
        self.energy = weight.new_tensor(energies)
        self._whole = self.index.tolist() == list(range(len(network.labels)))
        self.rivals = network.config.answer.rivals

    def part(self, part: slice) -> ModuleStack:
        """Some of the modules."""
        if part == slice(0, len(self.modules)):
            return self
        found = object.__new__(ModuleStack)
        found.modules = self.modules[part]
        found.index = self.index[part]
        found.head, found.open_head = self.head[part], self.open_head[part]
        found.energy = self.energy[part]
        found._whole = False
        found.rivals = self.rivals
        return found

    def log_odds(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Log-odds and logit of each module's own label, both ``(modules, rows)``.

        Where labels are no rivals, a label's logit is its log-odds: a sigmoid each.

        ``logits``: ``(1, rows, labels)`` where the modules share a trunk, else ``(modules, rows,
        labels)``.
        """
        if len(logits) == 1 and len(self.modules) > 1:
            own = logits[0].T
            odds = quick_log_odds(logits[0]).T if self.rivals else own
            return (odds, own) if self._whole else (odds[self.index], own[self.index])
        index = self.index[:, None, None].expand(*logits.shape[:2], 1)
        own = logits.gather(2, index)
        if not self.rivals:
            return own[..., 0], own[..., 0]
        others = logits.scatter(2, index, -torch.inf)
        return own[..., 0] - torch.logsumexp(others, dim=2), own[..., 0]


def quick_log_odds(logits: Tensor) -> Tensor:
    """:func:`~mlflow_rnnmod.answers.targets.all_log_odds` where no gradient is asked for.

    A few numbers go through float64 probabilities, in three operations instead of a dozen, unless
    a label is so sure that its odds would lose digits there. Many numbers are worked on in place.

    ``logits``: ``(rows, labels)``.
    """
    if logits.dtype == torch.float32 and logits.numel() <= _FEW:
        odds = torch.softmax(logits, 1, dtype=torch.float64).logit()
        low, high = map(float, odds.aminmax())
        # A probability that float64 can't hold is 0, with odds of -inf.
        if low > _UNLIKELY and high < _SURE:
            return odds.to(torch.float32)
    top, place = logits.max(dim=1, keepdim=True)
    shifted = logits - top
    others = shifted.exp().scatter_(1, place, 0.0)
    rest = others.sum(dim=1, keepdim=True)
    if float(rest.amin()) < _TINY:
        return all_log_odds(logits)
    others = torch.sub(rest + 1, others, out=others).scatter_(1, place, rest)
    return shifted.sub_(others.log_())


@dataclass(frozen=True, eq=False)
class ModuleOutputs:
    """What some modules of one parent have to say about some rows.

    Where each step is answered, every answered step is a row.

    Args:
        stack: the modules.
        readout: of their trunks, at the parent's width: ``(1, rows, readout size)`` where all
            share one trunk, else ``(modules, rows, readout size)``.
        log_odds: the parent's output layer on that readout, as log-odds of each module's label,
            ``(modules, rows)``.
        logit: each label's own logit on that readout, ``(modules, rows)``.
        energy: logsumexp of the unmasked parent's logits, ``(rows,)``; None where no strategy
            needs it.
    """

    stack: ModuleStack
    readout: Tensor
    log_odds: Tensor
    logit: Tensor
    energy: Tensor | None

    @property
    def modules(self) -> tuple[Module, ...]:
        """The modules, one a row."""
        return self.stack.modules

    @cached_property
    def margin(self) -> Tensor:
        """The calibrated margins, ``(modules, rows)``."""
        return self.stack.head(self.readout, self.log_odds)

    @cached_property
    def open_margin(self) -> Tensor:
        """The open heads' calibrated margins, ``(modules, rows)``."""
        return self.stack.open_head(self.readout, self.log_odds)

    @property
    def standard_energy(self) -> Tensor:
        """The energy in deviations from its mean on validation rows, ``(modules, rows)``."""
        assert self.energy is not None
        mean, deviation = self.stack.energy[:, :1], self.stack.energy[:, 1:]
        return (self.energy - mean) / deviation


@dataclass(frozen=True, eq=False)
class Observed:
    """Which steps of a batch are answered: each of them is an observation.

    Args:
        counts: steps that are answered, int64 ``(rows,)``.
        index: where they are in the batch's steps, row after row; ``None`` where all are.
    """

    counts: Tensor
    index: Tensor | None

    @classmethod
    def of(cls, network: Network, rows: Rows) -> Observed | None:
        """The observations of a batch; ``None`` where a row is a single one."""
        answered = network.answered(rows)
        if answered is None:
            return None
        counts = answered.sum(dim=1)
        if int(counts.sum()) == answered.numel():
            return cls(counts, None)
        return cls(counts, answered.flatten().nonzero()[:, 0])

    def __len__(self) -> int:
        return int(self.counts.sum())

    def pick(self, values: Tensor) -> Tensor:
        """``(trunks, observations, size)`` from ``(trunks, rows, steps, size)``."""
        flat = values.flatten(1, 2)
        return flat if self.index is None else flat.index_select(1, self.index)

    def place(self, values: Tensor) -> Tensor:
        """``(modules, rows, steps)`` from ``(modules, observations)``.

        Steps are counted from a row's first valid one; behind its last, there is NaN.
        """
        steps = int(self.counts.max())
        if self.index is None:
            return values.view(len(values), -1, steps)
        found = values.new_full((len(values), len(self.counts), steps), math.nan)
        found[:, within(self.counts, steps)] = values
        return found


def within(counts: Tensor, steps: int) -> Tensor:
    """Bool ``(rows, steps)``: the first ``counts`` of each row's steps."""
    return torch.arange(steps, device=counts.device) < counts[:, None]


def widened(tables: Sequence[Tensor]) -> list[Tensor]:
    """Tables ``(modules, rows, steps)`` with as many steps each: NaN behind the shorter ones'.

    Tables ``(modules, rows)`` pass as they are.
    """
    if not tables or tables[0].ndim == 2:
        return list(tables)
    steps = max(table.shape[2] for table in tables)
    return [
        torch.nn.functional.pad(table, (0, steps - table.shape[2]), value=math.nan)
        for table in tables
    ]
