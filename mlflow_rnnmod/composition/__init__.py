"""Floor 3: what fits together, how modules are compared and run, and composites."""

from mlflow_rnnmod.composition.answers import NONE_OF_THESE, Answerer
from mlflow_rnnmod.composition.composite import Composite, compose
from mlflow_rnnmod.composition.contracts import IncompatibleModules, find_problems
from mlflow_rnnmod.composition.joint import calibrated
from mlflow_rnnmod.composition.kinds import output_of
from mlflow_rnnmod.composition.scores import SCORES, ScoreStrategy
from mlflow_rnnmod.composition.verbs import add, remove, replace, select

__all__ = [
    "NONE_OF_THESE",
    "SCORES",
    "Answerer",
    "Composite",
    "IncompatibleModules",
    "ScoreStrategy",
    "add",
    "calibrated",
    "compose",
    "find_problems",
    "output_of",
    "remove",
    "replace",
    "select",
]
