"""Taking an architecture apart, from the user's forward to a model that ``mlflow.pyfunc`` loads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow.pyfunc
import pandas as pd
import torch
from torch import Tensor

import mlflow_rnnmod
from benchmarks.architectures import Architecture
from mlflow_rnnmod.composition import compose
from mlflow_rnnmod.decomposition import Decomposition, DecompositionConfig, decompose
from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks import Parent, read_network

SHARE = 0.2


@dataclass(frozen=True)
class Outcome:
    """What became of one.

    Args:
        way: the architecture that it was read as.
        same: share of answers, of modules from which nothing is removed, that are the user's own.
        kept: share of units that are left, where a fifth is removed.
    """

    way: str
    same: float
    kept: float


def take_apart(architecture: Architecture, count: int = 48, seed: int = 0) -> Outcome:
    """Read, decompose, compose, save, load by ``mlflow.pyfunc`` and ask.

    Raises:
        ValueError: if it can't be read.
    """
    module, rows = architecture.module(seed), architecture.rows(count, seed)
    with torch.no_grad():
        answers = architecture.answers(module, rows)
    network, _ = read_network(
        module, rows, lambda: architecture.answers(module, rows), architecture.labels
    )
    parent = Parent(network)
    rows = network.prepare(network.content(rows))
    whole = DecompositionConfig(rule="none", repairs="none", likelihood=False)
    plain = decompose(parent, rows, rows, config=whole)
    removed = DecompositionConfig(rule="random", removal=SHARE)
    some = decompose(parent, rows, rows, config=removed)
    same = _agreement(_asked(plain, rows), answers, rows, architecture)
    assert len(_asked(some, rows)) == len(rows)
    shares = [m.trunk.kept / m.trunk.total for m in some.modules]
    return Outcome(network.architecture, same, sum(shares) / len(shares))


def _asked(decomposition: Decomposition, rows: Rows) -> list:
    """What the composite of all modules answers, behind a file and ``mlflow.pyfunc``."""
    assert rows.lengths is not None
    composite = compose(list(decomposition.modules))
    inputs = [row[:length].tolist() for row, length in zip(rows.values, rows.lengths, strict=True)]
    with TemporaryDirectory() as folder:
        path = Path(folder, "model")
        mlflow_rnnmod.save_model(composite, path)
        model = mlflow.pyfunc.load_model(str(path))
        column = model.metadata.signature.inputs.input_names()[0]
        found = model.predict(pd.DataFrame({column: pd.Series(inputs, dtype=object)}))
    return found.iloc[:, 0].tolist() if isinstance(found, pd.DataFrame) else list(found)


def _agreement(found: list, answers: Tensor, rows: Rows, architecture: Architecture) -> float:
    """Share of answers that are the user's network's own."""
    labels = architecture.labels
    if architecture.kind == "multilabel":
        wanted = [{labels[i] for i in own.nonzero()[:, 0].tolist()} for own in answers >= 0.5]
        pairs = list(zip(map(set, found), wanted, strict=True))
    elif architecture.kind == "tags":
        assert rows.lengths is not None
        pairs = [
            (tag, labels[int(index)])
            for own, row, length in zip(found, answers.argmax(-1), rows.lengths, strict=True)
            for tag, index in zip(own, row[:length], strict=True)
        ]
    else:
        if answers.ndim == 1 or answers.shape[1] == 1:
            answers = torch.stack([torch.zeros(len(answers)), answers.flatten()], 1)
        pairs = [(own, labels[i]) for own, i in zip(found, answers.argmax(1).tolist(), strict=True)]
    return sum(one == other for one, other in pairs) / len(pairs)
