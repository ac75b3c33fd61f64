"""Floor 3: what fits together, how modules are compared and run, and composites."""

from mlflow_rnnmod.composition.composite import Composite, calibrated, compose
from mlflow_rnnmod.composition.contracts import NONE_OF_THESE, IncompatibleModules, find_problems
from mlflow_rnnmod.composition.scores import SCORES, ScoreStrategy
from mlflow_rnnmod.composition.verbs import add, remove, replace, select

__all__ = [
    "NONE_OF_THESE",
    "SCORES",
    "Composite",
    "IncompatibleModules",
    "ScoreStrategy",
    "add",
    "calibrated",
    "compose",
    "find_problems",
    "remove",
    "replace",
    "select",
]
