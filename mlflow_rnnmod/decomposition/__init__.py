"""Floor 2: what each unit does for each label, which units a label needs, and the modules made."""

from mlflow_rnnmod.answers import Sample, draw_sample
from mlflow_rnnmod.decomposition.config import DecompositionConfig
from mlflow_rnnmod.decomposition.decompose import Decomposition, decompose, help_decompose
from mlflow_rnnmod.decomposition.module import (
    Calibration,
    Contract,
    Energy,
    Head,
    Module,
    make_contract,
)
from mlflow_rnnmod.decomposition.pairs import Pairs
from mlflow_rnnmod.decomposition.rules import RULES, Rule
from mlflow_rnnmod.decomposition.statistics import ActivationStatistics
from mlflow_rnnmod.decomposition.team import Team
from mlflow_rnnmod.decomposition.watching import collect

__all__ = [
    "RULES",
    "ActivationStatistics",
    "Calibration",
    "Contract",
    "Decomposition",
    "DecompositionConfig",
    "Energy",
    "Head",
    "Module",
    "Pairs",
    "Rule",
    "Sample",
    "Team",
    "collect",
    "decompose",
    "draw_sample",
    "help_decompose",
    "make_contract",
]
