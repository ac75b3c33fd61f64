"""What rq2 and rq3 compare: modules of benchmark parents, and models trained from scratch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.data import TextData
from benchmarks.parents import AnyTraining, train_parent, trained_weights
from benchmarks.scoring import composite_points, points
from benchmarks.study import Study
from mlflow_rnnmod.answers import answer_of
from mlflow_rnnmod.composition import Composite, compose
from mlflow_rnnmod.decomposition import Energy, Head, Module, make_contract
from mlflow_rnnmod.decomposition.likelihoods import with_likelihoods
from mlflow_rnnmod.networks import Parent, Trunk

PAIRS = 6
RULES = ("sensitivity", "random", "none")


def seeded_pairs(names: Sequence[str], count: int = PAIRS, seed: int = 0) -> list[tuple[str, str]]:
    """Some pairs of labels, the same for every run.

    Example:
        >>> len(seeded_pairs(["a", "b", "c", "d"])), len(seeded_pairs(["a", "b"]))
        (6, 1)
    """
    every = list(itertools.combinations(names, 2))
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed)).tolist()
    return [every[i] for i in order[:count]]


def undone(pair: str, done: set[tuple]) -> list[str]:
    """The rules that a pair has no row of yet.

    Example:
        >>> undone("a+b", {("a+b", "random"), ("a+c", "none")})
        ['sensitivity', 'none']
    """
    return [rule for rule in RULES if (pair, rule) not in done]


@dataclass(frozen=True, eq=False)
class Workshop:
    """Parents, their modules and models from scratch, each made once.

    Args:
        cache: folder of trained parents.
        variant: of the masks.
        gates: of the masks.
        share_of: what the share that is removed is one of.
        trunks: how many a parent's modules share; each has its own where it is not given.
    """

    cache: Path
    variant: str = "rolled"
    gates: str = "joint"
    share_of: str = "units"
    trunks: int | None = None
    _studies: dict[tuple, Study] = field(default_factory=dict)
    _modules: dict[tuple, dict[str, Module]] = field(default_factory=dict)

    def study(self, data: TextData, training: AnyTraining) -> Study:
        """A parent with its statistics."""
        key = (data.name, data.names, training)
        if key not in self._studies:
            parent, _ = train_parent(data, training, self.cache)
            splits = [data.rows(s, parent.encoder) for s in ("train", "validation", "test")]
            how = self.variant, self.gates, self.share_of, self.trunks
            self._studies[key] = Study.start(parent, *splits, training.seed, *how)
        return self._studies[key]

    def modules(
        self, data: TextData, training: AnyTraining, rule: str, removal: float
    ) -> dict[str, Module]:
        """A parent's modules by label."""
        removal = 0.0 if rule == "none" else removal
        key = (data.name, data.names, training, rule, removal)
        if key not in self._modules:
            study = self.study(data, training)
            made = study.modules(study.removed_or_random(rule, removal))
            self._modules[key] = {module.label: module for module in made}
        return self._modules[key]

    def forget(self, data: TextData) -> None:
        """Drop what is kept of the parents of a data set: its rows take room."""
        for kept in (self._studies, self._modules):
            for key in [key for key in kept if key[0] == data.name]:
                del kept[key]

    def epochs(self, data: TextData, training: AnyTraining) -> int:
        """How many epochs a parent was trained for."""
        return int(trained_weights(data, training, self.cache).get("epochs", 1))

    def scratch(
        self, data: TextData, training: AnyTraining, least: int
    ) -> tuple[float, float, Parent]:
        """A model trained for some labels alone, for at least as many epochs as a parent.

        Returns:
            its points on the test split, the seconds it took, and the model.
        """
        parent, seconds = train_parent(data, training.scratch(least), self.cache, least)
        return parent_points(parent, data), seconds, parent


def reuse_row(
    pair: str, rule: str, removal: float, composite: Composite, data: TextData, **beside: Any
) -> dict[str, Any]:
    """How good a composite is on the raw texts of the test split, with what stands beside."""
    return {
        "pair": pair,
        "rule": rule,
        "removal": removal if rule != "none" else 0.0,
        "repairs": "all",
        "metric": answer_of(data.output).metric,
        **beside,
        "score": composite_points(composite, data),
        "score_strategy": composite.score,
    }


def parent_points(parent: Parent, data: TextData, split: str = "test") -> float:
    """Of a model as it is, on the raw texts of a split: as its modules with nothing removed."""
    composite = compose(whole_modules(parent))
    return points(composite.predict(data.texts[split]), data.labels[split], composite.output)


def whole_modules(parent: Parent) -> list[Module]:
    """Modules that together are the parent itself."""
    trunk = Trunk.whole(parent.network.units)
    return [
        Module(parent, trunk, Head(), Head(), Energy(), make_contract(parent, label))
        for label in parent.labels
    ]


def with_likelihood(parent: Parent, data: TextData) -> Composite:
    """A model as it is, each of its labels with the likelihood of its training texts."""
    train, held_out = (data.rows(s, parent.encoder) for s in ("train", "validation"))
    rows = [parent.network.prepare(given) for given in (train, held_out)]
    return compose(with_likelihoods(whole_modules(parent), *rows), score="bayes")
