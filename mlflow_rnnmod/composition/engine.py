"""Running the modules of a composite: what they share is run once, by parent and trunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod._locks import cached_property
from mlflow_rnnmod.answers import answer_of
from mlflow_rnnmod.answers.lists import whole_input
from mlflow_rnnmod.composition.heads import ModuleOutputs, ModuleStack, Observed, widened
from mlflow_rnnmod.composition.scores import ScoreStrategy, without_energy
from mlflow_rnnmod.decomposition.module import Module
from mlflow_rnnmod.inputs.rows import MAX_STEPS, Rows, bucket
from mlflow_rnnmod.networks.many import check_way
from mlflow_rnnmod.networks.parent import Parent

# Numbers that are padded together: at 8 bytes, 32 MB.
MAX_PADDED = 4_194_304


@dataclass(frozen=True, eq=False)
class How:
    """How scores are made.

    Args:
        strategy: that compares modules.
        parameters: what it needs.
        way: in which trunks are run.
        batch_size: rows run at once, at the most.
    """

    strategy: ScoreStrategy
    parameters: Mapping[str, Any]
    way: str = "auto"
    batch_size: int = 512
    split: bool = False

    def score(self, outputs: ModuleOutputs) -> Tensor:
        """Scores of some modules from what they put out, or the parts of their scores."""
        ask = self.strategy.split if self.split else self.strategy.score
        return ask(outputs, self.parameters)


class Engine:
    """Runs the modules of a composite.

    Modules are grouped by parent and trunk: a trunk is run once for all its heads, and trunks of
    one parent are run in whichever way should be fastest (see
    :data:`~mlflow_rnnmod.networks.many.WAYS`). The unmasked
    parent runs once where some module has the full trunk or its energy is asked for.

    Args:
        modules: at least one.
        batch_size: rows run at once, at the most.
        output: what they answer together (see :func:`~mlflow_rnnmod.answers.joining.output_of`).
    """

    def __init__(
        self, modules: Sequence[Module], batch_size: int = 512, output: str = "label"
    ) -> None:
        self.modules = tuple(modules)
        self.batch_size = batch_size
        self.answer = answer_of(output)
        parents = {m.parent.digest: m.parent for m in reversed(self.modules)}
        self.groups = [
            _Group(parents[d], [(i, m) for i, m in enumerate(self.modules) if m.parent.digest == d])
            for d in dict.fromkeys(m.parent.digest for m in self.modules)
        ]

    @torch.inference_mode()
    def scores(
        self,
        inputs: Any,
        strategy: ScoreStrategy,
        parameters: Mapping[str, Any],
        way: str = "auto",
    ) -> Tensor:
        """The score of every module for every input, on the CPU.

        Gives float ``(rows, modules)``, or ``(rows, steps, modules)`` for answers that have one for
        each step: counted from the first valid one, NaN behind the last.
        """
        some, order = in_parts(inputs)
        if len(some) > 1:
            found = [self.scores(part, strategy, parameters, way) for part in some]
            if self.answer.stepwise:
                wide = widened([scores.permute(2, 0, 1) for scores in found])
                found = [table.permute(1, 2, 0) for table in wide]
            return torch.cat(found)[order]
        if self.answer.stepwise:
            tables = self.tables(inputs, strategy, parameters, way)
            return self.joined([scores for _, scores in tables])
        check_way(way)
        how, found = How(strategy, parameters, way, self.batch_size), []
        for group in self.groups:
            rows = group.parent.rows(inputs)
            if group.stepwise:
                found.append(group.whole(rows, how, self.answer.rivals))
            else:
                found.append(group.scores(rows, how))
        return self.joined(found)

    @torch.inference_mode()
    def parts(
        self,
        inputs: Any,
        strategy: ScoreStrategy,
        parameters: Mapping[str, Any],
        way: str = "auto",
    ) -> Tensor:
        """What scores of whole inputs add up, ``(rows, modules, parts)``; see :meth:`scores`."""
        some, order = in_parts(inputs)
        if len(some) > 1:
            return torch.cat([self.parts(part, strategy, parameters, way) for part in some])[order]
        check_way(way)
        how = How(strategy, parameters, way, self.batch_size, split=True)
        tables = [group.scores(group.parent.rows(inputs), how) for group in self.groups]
        return torch.stack([self.joined(part) for part in zip(*tables, strict=True)], dim=-1)

    @torch.inference_mode()
    def tables(
        self,
        inputs: Any,
        strategy: ScoreStrategy,
        parameters: Mapping[str, Any],
        way: str = "auto",
    ) -> list[tuple[_Group, Tensor]]:
        """For each parent, its modules' scores: ``(modules, rows)`` or ``(modules, rows, steps)``.

        Arguments as for :meth:`scores`; :meth:`joined` puts such tables together.
        """
        check_way(way)
        how, found = How(strategy, parameters, way, self.batch_size), []
        for group in self.groups:
            rows = group.parent.rows(inputs)
            scores = group.scores(rows, how)
            if self.answer.each_step:  # other kinds have to answer something for nothing, too
                assert rows.lengths is not None
                scores[:, rows.lengths == 0] = torch.nan
            found.append((group, scores))
        if self.answer.each_step:
            self._check_steps(found)
        return found

    def joined(self, tables: Sequence[Tensor]) -> Tensor:
        """Tables of all parents in one: ``(rows, modules)``, ``(rows, steps, modules)``."""
        if len(tables) == 1 and self.groups[0].ordered:
            scores = tables[0]
        else:
            order = torch.tensor([i for group in self.groups for i in group.positions])
            scores = torch.cat(widened(tables))[order.argsort()]
        return scores.T if scores.ndim == 2 else scores.permute(1, 2, 0)

    @staticmethod
    def _check_steps(tables: Sequence[tuple[_Group, Tensor]]) -> None:
        """Whether all parents read as many steps in each row."""
        first, scores = tables[0]
        counts = (~scores[0].isnan()).sum(dim=1)
        for other, scores in tables[1:]:
            differ = (counts != (~scores[0].isnan()).sum(dim=1)).nonzero()
            if len(differ):
                row = int(differ[0])
                found = int((~scores[0, row].isnan()).sum())
                raise ValueError(
                    f"inputs[{row}] has {int(counts[row])} steps for parent "
                    f"{first.parent.digest[:12]} and {found} for {other.parent.digest[:12]}; "
                    "modules that answer each step together need parents whose tokenizers split "
                    "and cut alike."
                )

    def ways(self, rows: int, steps: int) -> list[str]:
        """The way that each parent's trunks would be run in, for a batch of this size."""
        return [group.trunks.planned(rows, steps) for group in self.groups if group.trunks]


class _Group:
    """The modules of one parent: those with the full trunk first, then trunk by trunk."""

    def __init__(self, parent: Parent, modules: Sequence[tuple[int, Module]]) -> None:
        self.parent = parent
        self.device = parent.network.device
        # Trunks that remove nothing are one, whatever they tell apart, and come first.
        own = {position: None if m.trunk.full else m.trunk for position, m in modules}
        trunks = sorted(dict.fromkeys(own.values()), key=lambda trunk: trunk is not None)
        ranked = {trunk: rank for rank, trunk in enumerate(trunks)}
        modules = sorted(modules, key=lambda item: ranked[own[item[0]]])
        self.positions = [position for position, _ in modules]
        self.ordered = self.positions == list(range(len(self.positions)))
        self.stack = ModuleStack([module for _, module in modules])
        contracts = [module.contract for _, module in modules]
        self.ending = torch.tensor([c.label == c.end_label for c in contracts])
        ranks = [ranked[own[position]] for position in self.positions]
        starts = [ranks.index(rank) for rank in range(len(trunks))] + [len(ranks)]
        spans = [slice(a, b) for a, b in zip(starts, starts[1:], strict=False)]
        self.full = spans.pop(0) if trunks[0] is None else None
        masks = [trunk for trunk in trunks if trunk is not None]
        self.trunks = parent.network.through(masks) if masks else None
        self.spans = spans

    def scores(self, rows: Rows, how: How) -> Tensor:
        """Scores of all modules, ``(modules, rows)`` or ``(modules, rows, steps)``, on the CPU.

        Or of one for each row the parts of their scores, ``(parts, modules, rows)``.
        """
        network = self.parent.network
        if len(rows) == 1 and rows.values.numel() <= MAX_STEPS:
            return self._batch(self._here(rows), how).cpu()
        rows, sizes = Rows(rows.values, network.lengths(rows)), network.sizes(rows)
        if len(rows) <= how.batch_size and int(sizes.max()) * len(rows) <= MAX_STEPS:
            part = network.trimmed(rows)
            return self._batch(self._here(part), how).cpu()
        found = []
        chunks = bucket(sizes, how.batch_size)
        for chunk in chunks:
            part = network.trimmed(rows[chunk])
            found.append(self._batch(self._here(part), how).cpu())
        order = torch.cat(chunks).argsort()
        if how.split:
            return torch.cat(found, dim=-1)[..., order]
        return torch.cat(widened(found), dim=1)[:, order]

    def _here(self, rows: Rows) -> Rows:
        """The rows where the parent is."""
        return rows if rows.values.device == self.device else rows.to(self.device)

    @property
    def stepwise(self) -> bool:
        """Whether the modules answer each step."""
        return self.parent.network.config.answer.stepwise

    def whole(self, rows: Rows, how: How, competing: bool) -> Tensor:
        """Scores for whole inputs of modules that answer each step, ``(modules, rows)``.

        A label's part is that of its best step; the parent's energy, which says whether it knows
        the input, is the mean over the steps.
        """
        labels = [module.label for module in self.stack.modules]
        own, weights = without_energy(how.strategy, how.parameters, labels)
        table = self.scores(rows, replace(how, strategy=own))
        scores = whole_input(table, competing, self.ending, how.strategy.odds)
        if weights is None:
            return scores
        return scores + scores.new_tensor(weights)[:, None] * self.energies(rows, how.batch_size)

    @torch.inference_mode()
    def energies(self, rows: Rows, batch_size: int) -> Tensor:
        """The mean standardized energy over each row's steps, ``(modules, rows)``, on the CPU."""
        network, found = self.parent.network, []
        steps = max(rows.values.shape[1], int(network.sizes(rows).max()))
        for part in rows.batches(max(min(batch_size, MAX_STEPS // steps), 1)):
            part = self._here(part)
            energy = torch.logsumexp(network(part), dim=2)
            answered = network.answered(part)
            assert answered is not None
            found.append(((energy * answered).sum(dim=1) / answered.sum(dim=1)).cpu())
        mean, deviation = self.stack.energy.cpu().T[..., None]
        return (torch.cat(found) - mean) / deviation

    def _batch(self, rows: Rows, how: How) -> Tensor:
        """Scores of one batch, ``(modules, rows)`` or ``(modules, rows, steps)``."""
        observed = Observed.of(self.parent.network, rows)
        if observed is None:
            return self._score(rows, None, how)
        return observed.place(self._score(rows, observed, how))

    def _score(self, rows: Rows, observed: Observed | None, how: How) -> Tensor:
        """Scores of a batch's observations, ``(modules, observations)``."""
        network, energy, found = self.parent.network, None, None
        if self.full is not None or how.strategy.energy:
            readout = self._whole(rows)[None]
            readout = readout if observed is None else observed.pick(readout)
            logits = network.logits(readout)
            if how.strategy.energy:
                energy = torch.logsumexp(logits[0], dim=1)
            if self.full is not None:
                found = self._outputs(self.full, readout, logits, energy)
                if self.trunks is None:
                    return how.score(found)
        assert self.trunks is not None
        count = len(rows) if observed is None else len(observed)
        parts = (how.strategy.count,) if how.split else ()
        scores = network.like.new_empty(*parts, len(self.positions), count)
        if found is not None and self.full is not None:
            scores[..., self.full, :] = how.score(found)

        def finish(part: slice, readout: Tensor) -> None:
            readout = readout if observed is None else observed.pick(readout)
            for span, given in self._parts(part, readout):
                outputs = self._outputs(span, given, network.logits(given), energy)
                scores[..., span, :] = how.score(outputs)

        taken = self.trunks.way(how.way, rows)
        self.trunks.run(rows, taken, finish)
        return scores

    @cached_property
    def _whole(self) -> Callable[[Rows], Tensor]:
        """The readout of the unmasked parent."""
        return self.parent.network.fastest()

    def _parts(self, part: slice, readout: Tensor) -> list[tuple[slice, Tensor]]:
        """Modules with their readouts: together where each has a trunk of its own."""
        spans = self.spans[part]
        if len(spans) > 1 and all(span.stop - span.start == 1 for span in spans):
            return [(slice(spans[0].start, spans[-1].stop), readout)]
        return [(span, readout[i : i + 1]) for i, span in enumerate(spans)]

    def _outputs(
        self, span: slice, readout: Tensor, logits: Tensor, energy: Tensor | None
    ) -> ModuleOutputs:
        stack = self.stack.part(span)
        log_odds, logit = stack.log_odds(logits)
        return ModuleOutputs(stack, readout, log_odds, logit, energy)


def in_parts(inputs: Any) -> tuple[list[Any], Tensor]:
    """Inputs in the parts that :func:`alike` finds, and where each is in all of these."""
    parts = alike(inputs)
    some = [inputs] if len(parts) == 1 else [[inputs[i] for i in p.tolist()] for p in parts]
    return some, torch.cat(parts).argsort()


def alike(inputs: Any) -> list[Tensor]:
    """Row numbers in parts that can be padded each by itself; one part where all fit together.

    A single text of 100,000 letters would pad ten thousand others to its length.
    """
    count = len(inputs)
    if isinstance(inputs, Rows):  # padded already
        return [torch.arange(count)]
    sizes = torch.tensor([_size(item) for item in inputs])
    if count * int(sizes.max()) <= MAX_PADDED:
        return [torch.arange(count)]
    order = sizes.argsort(stable=True)
    parts, start = [], 0
    while start < count:
        # The longest of a part is its last.
        fits = (torch.arange(1, count - start + 1) * sizes[order[start:]] <= MAX_PADDED).long()
        size = max(1, int(fits.cumprod(0).sum()))
        parts.append(order[start : start + size])
        start += size
    return parts


def _size(item: Any) -> int:
    """About how many numbers an input becomes: letters of a text, or of all of its words."""
    if isinstance(item, Tensor):
        return item.numel()
    if isinstance(item, list | tuple) and item and isinstance(item[0], str):
        return sum(len(word) + 1 for word in item)
    return len(item) if hasattr(item, "__len__") else 1
