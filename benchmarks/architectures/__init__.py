"""Recurrent networks as users write them: which of them come apart, to ``mlflow.pyfunc``.

``python -m benchmarks.architectures`` tries them all; a new one is a class and a row of the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.architectures import built, plain, pooled
from benchmarks.architectures.plain import LABELS, SIZE, WORDS
from mlflow_rnnmod.networks import Rows

STEPS = 9


@dataclass(frozen=True)
class Architecture:
    """A network, and what it is called with.

    Args:
        make: the network, with random weights.
        given: what its forward takes: ``"ids"``, ``"lengths"`` or a ``"mask"`` besides, or
            ``"floats"`` with lengths.
        labels: names of its labels.
        kind: of its answers.
    """

    make: Callable[[], nn.Module]
    given: str = "ids"
    labels: tuple[str, ...] = tuple("abc"[:LABELS])
    kind: str = "label"

    @property
    def name(self) -> str:
        """In words."""
        return (self.make.__doc__ or "").strip().rstrip(".").splitlines()[0]

    def module(self, seed: int = 0) -> nn.Module:
        """In evaluation mode, with weights and running statistics as after some training."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            module = self.make().eval()
            for part in module.modules():
                if isinstance(part, nn.BatchNorm1d):
                    part.running_mean.normal_(0, 0.3)  # type: ignore[union-attr]
                    part.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
        return module

    def rows(self, count: int = 48, seed: int = 0) -> Rows:
        """Rows of 1 to :data:`STEPS` steps, padded on the right, with targets."""
        draw = torch.Generator().manual_seed(seed)
        lengths = torch.randint(1, STEPS + 1, (count,), generator=draw)
        lengths[0] = STEPS
        outside = torch.arange(STEPS) >= lengths[:, None]
        shape = {"label": (count,), "tags": (count, STEPS), "multilabel": (count, len(self.labels))}
        targets = torch.randint(len(self.labels), shape[self.kind], generator=draw)
        if self.kind == "tags":
            targets = targets.masked_fill(outside, -1)
        if self.kind == "multilabel":
            targets = targets % 2 == 1
        if self.given == "floats":
            values = torch.randn(count, STEPS, SIZE, generator=draw)
            return Rows(values.masked_fill(outside[..., None], 0.0), lengths, targets)
        ids = torch.randint(2, WORDS, (count, STEPS), generator=draw).masked_fill(outside, 0)
        return Rows(ids, lengths if self.given != "ids" else None, targets)

    def answers(self, module: nn.Module, rows: Rows) -> Tensor:
        """What the user's network answers to rows."""
        found = module(*self.arguments(rows))
        return found["logits"] if isinstance(found, dict) else found

    def arguments(self, rows: Rows) -> tuple[Tensor, ...]:
        """What its forward takes."""
        if rows.lengths is None:
            return (rows.values,)
        if self.given == "mask":
            return rows.values, torch.arange(rows.values.shape[1]) < rows.lengths[:, None]
        return rows.values, rows.lengths


TWO = ("a", "b")
ARCHITECTURES: dict[str, Architecture] = {
    row.make.__name__: row
    for row in (
        Architecture(plain.LastState),
        Architecture(plain.LastOutput),
        Architecture(plain.PackedState, "lengths"),
        Architecture(plain.PackedBothWays, "lengths"),
        Architecture(plain.LastValid, "lengths"),
        Architecture(plain.LastByNumber),
        Architecture(plain.MaskedMean),
        Architecture(plain.MaxPooled),
        Architecture(plain.StepsFirst),
        Architecture(plain.OneHot),
        Architecture(plain.Stacked),
        Architecture(plain.Tagger, "lengths", kind="tags"),
        Architecture(plain.Features, "floats"),
        Architecture(plain.Single, labels=TWO),
        Architecture(pooled.AttentionPooling),
        Architecture(pooled.AdditiveAttention, "lengths"),
        Architecture(pooled.DotAttention),
        Architecture(pooled.EinsumAttention),
        Architecture(pooled.LayerNormed),
        Architecture(pooled.BatchNormed),
        Architecture(pooled.MeanAndMax),
        Architecture(pooled.GeluHead),
        Architecture(pooled.Rectified),
        Architecture(pooled.AllLayers),
        Architecture(pooled.StateAndCell),
        Architecture(pooled.SummedDirections, "lengths"),
        Architecture(pooled.Gated),
        Architecture(pooled.NormedTagger, kind="tags"),
        Architecture(pooled.MultiLabel, kind="multilabel"),
        Architecture(built.LinearBefore),
        Architecture(built.TanhBefore),
        Architecture(built.Scaled),
        Architecture(built.TwoEmbeddings),
        Architecture(built.LearnedStart, "lengths"),
        Architecture(built.ZeroStart),
        Architecture(built.EncoderState),
        Architecture(built.Residual),
        Architecture(built.NormsBetween),
        Architecture(built.ConvolutionBefore),
        Architecture(built.PooledConvolution),
        Architecture(built.TextCNN),
        Architecture(built.FlatTextCNN),
        Architecture(built.ConvolutionBehind),
        Architecture(built.RecurrentConvolution),
        Architecture(built.Projected),
        Architecture(built.Positions),
        Architecture(built.Tied, labels=tuple(map(str, range(WORDS)))),
        Architecture(built.MaskGiven, "mask"),
        Architecture(built.SelfAttention),
        Architecture(built.PackedResidual, "lengths"),
    )
}
"""By the names of their classes."""
