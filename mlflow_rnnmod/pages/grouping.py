"""An order of modules in which those that are alike stand together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FEWEST = 4
"""Modules from which on their order is changed."""


def grouped(
    overlap: NDArray[np.floating], labels: Sequence[str]
) -> tuple[NDArray[np.floating], list[str]]:
    """Overlap and labels in an order of like ones: average linkage, leaves ordered optimally.

    Args:
        overlap: shares from 0 to 1, symmetric, ``(labels, labels)``.
        labels: one for each row and column.

    Example:
        >>> one, two = [1.0, 0.1, 0.9, 0.1], [0.1, 1.0, 0.1, 0.8]
        >>> matrix = np.array([one, two, [0.9, 0.1, 1.0, 0.1], [0.1, 0.8, 0.1, 1.0]])
        >>> order = grouped(matrix, list("abcd"))[1]
        >>> sorted(map(sorted, (order[:2], order[2:])))
        [['a', 'c'], ['b', 'd']]
    """
    if len(labels) < FEWEST:
        return overlap, list(labels)
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    distance = 1 - np.asarray(overlap, dtype=float)
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
    order = leaves_list(tree)
    return overlap[np.ix_(order, order)], [labels[i] for i in order]
