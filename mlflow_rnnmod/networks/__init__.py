"""Floor 1: the recurrent network, its masks and slices, and reading a user's model into it."""

from mlflow_rnnmod.inputs.rows import Rows, concatenate
from mlflow_rnnmod.inputs.text import TextEncoder
from mlflow_rnnmod.networks.architectures import read_network
from mlflow_rnnmod.networks.guard import tolerance
from mlflow_rnnmod.networks.parent import Parent
from mlflow_rnnmod.networks.protocol import Network, TrunkNetwork, View, view
from mlflow_rnnmod.networks.recurrent.config import HiddenLayer, NetworkConfig
from mlflow_rnnmod.networks.recurrent.layers import States
from mlflow_rnnmod.networks.recurrent.network import RecurrentNetwork
from mlflow_rnnmod.networks.recurrent.reading import check_parity, read_weights
from mlflow_rnnmod.networks.recurrent.ways import masked, sliced
from mlflow_rnnmod.networks.spec import NetworkSpec, Reading, UnreadableNetwork
from mlflow_rnnmod.networks.translator.config import TranslatorConfig
from mlflow_rnnmod.networks.translator.network import Translator
from mlflow_rnnmod.networks.translator.reading import read_translator
from mlflow_rnnmod.networks.translator.spec import TranslatorReading, TranslatorSpec
from mlflow_rnnmod.networks.trunk import Trunk, jaccard, shapes

__all__ = [
    "HiddenLayer",
    "Network",
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
