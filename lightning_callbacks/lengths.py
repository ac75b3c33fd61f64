"""What becomes of rows that are longer than a network reads."""

from __future__ import annotations

from typing import Any

import torch

from mlflow_rnnmod.inputs.rows import IGNORE


def warnings_of_length(network: Any, rows: Any, before: int | None) -> list[str]:
    """Which rows are cut, with how many labels of their steps; and what is read, where it changed.

    Args:
        network: what reads them.
        rows: all training rows, or pairs with their sources.
        before: steps that inputs were to be padded or cut to, by the batch it was read with.
    """
    steps, rows = network.config.steps, getattr(rows, "sources", rows)
    if steps is None or not len(rows) or rows.values.ndim < 2:
        return []
    lengths = network.lengths(rows).cpu()
    longest, cut = int(lengths.max()), int((lengths > steps).sum())
    if not cut:
        if before is None or before == steps:
            return []
        return [
            f"training rows have up to {longest} steps: inputs will be padded or cut to {steps} "
            f"steps, and not to the {before} of the batch that the model was read with"
        ]
    lost, targets = 0, rows.targets
    if (
        network.config.stepwise
        and targets is not None
        and targets.shape[1:] == rows.values.shape[1:2]
    ):
        kept = torch.zeros_like(targets, dtype=torch.bool)
        kept[:, :steps] = True
        kept = kept.flip(1) if network.side == "left" else kept
        lost = int((~kept & (targets != IGNORE)).sum())
    labels = f", and with them {lost} labels of their steps" if lost else ""
    return [
        f"{cut} of {len(rows)} training rows are longer than {steps} steps, up to {longest}: what "
        f"is behind is cut{labels}. NetworkSpec(steps={longest}) reads all of it"
    ]
