"""Floor 1: the recurrent network, its masks and slices, and reading a user's model into it."""

from mlflow_rnnmod.network.config import HiddenLayer, NetworkConfig
from mlflow_rnnmod.network.network import RecurrentNetwork, States
from mlflow_rnnmod.network.parent import Parent
from mlflow_rnnmod.network.rows import Rows, concatenate
from mlflow_rnnmod.network.slicing import TrunkNetwork, masked, sliced
from mlflow_rnnmod.network.text import TextEncoder
from mlflow_rnnmod.network.trunk import Trunk, jaccard

__all__ = [
    "HiddenLayer",
    "NetworkConfig",
    "Parent",
    "RecurrentNetwork",
    "Rows",
    "States",
    "TextEncoder",
    "Trunk",
    "TrunkNetwork",
    "concatenate",
    "jaccard",
    "masked",
    "sliced",
]
