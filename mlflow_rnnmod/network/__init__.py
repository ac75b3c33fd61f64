"""Floor 1: the recurrent network, its masks and slices, and reading a user's model into it."""

from mlflow_rnnmod.network.config import HiddenLayer, NetworkConfig
from mlflow_rnnmod.network.network import RecurrentNetwork, States
from mlflow_rnnmod.network.parent import Parent
from mlflow_rnnmod.network.reading import check_parity, read_network, read_weights
from mlflow_rnnmod.network.reading_translator import read_translator
from mlflow_rnnmod.network.rows import Rows, concatenate
from mlflow_rnnmod.network.slicing import TrunkNetwork, View, masked, sliced, view
from mlflow_rnnmod.network.spec import NetworkSpec, Reading, UnreadableNetwork
from mlflow_rnnmod.network.text import TextEncoder
from mlflow_rnnmod.network.tolerance import tolerance
from mlflow_rnnmod.network.translator import Translator
from mlflow_rnnmod.network.translator_config import TranslatorConfig
from mlflow_rnnmod.network.translator_spec import TranslatorReading, TranslatorSpec
from mlflow_rnnmod.network.trunk import Trunk, jaccard, shapes

__all__ = [
    "HiddenLayer",
    "NetworkConfig",
    "NetworkSpec",
    "Parent",
    "Reading",
    "RecurrentNetwork",
    "Rows",
    "States",
    "TextEncoder",
    "Translator",
    "TranslatorConfig",
    "TranslatorReading",
    "TranslatorSpec",
    "Trunk",
    "TrunkNetwork",
    "UnreadableNetwork",
    "View",
    "check_parity",
    "concatenate",
    "jaccard",
    "masked",
    "read_network",
    "read_translator",
    "read_weights",
    "shapes",
    "sliced",
    "tolerance",
    "view",
]
