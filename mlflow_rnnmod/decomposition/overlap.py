"""How much of what trunks keep is the same."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mlflow_rnnmod.networks.trunk import Trunk


def overlap_matrix(trunks: Sequence[Trunk]) -> Tensor:
    """Jaccard index of the units kept by every two trunks, float ``(trunks, trunks)``.

    Units count at each step and in each gate that are told apart.
    """
    flat = [torch.cat([mask.flatten() for mask in trunk.keep.values()]) for trunk in trunks]
    masks = torch.stack(flat).double()
    both = masks @ masks.T
    sizes = masks.sum(1)
    return (both / (sizes[:, None] + sizes[None, :] - both)).float()
