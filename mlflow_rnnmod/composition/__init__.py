"""Floor 3: what fits together, how modules are compared and run, and composites."""

from mlflow_rnnmod.answers import NONE_OF_THESE
from mlflow_rnnmod.answers.joining import output_of
from mlflow_rnnmod.composition.composite import Composite
from mlflow_rnnmod.composition.contracts import IncompatibleModules, find_problems
from mlflow_rnnmod.composition.joint import calibrated
from mlflow_rnnmod.composition.scores import SCORES, ScoreStrategy
from mlflow_rnnmod.composition.verbs import add, compose, remove, replace, select, whole_parent

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
    "output_of",
    "remove",
    "replace",
    "select",
    "whole_parent",
]
