"""What a user may say about an encoder-decoder, and what was found out about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from mlflow_rnnmod.networks.recurrent.config import Side, outside
from mlflow_rnnmod.networks.translator.config import (
    BridgeActivation,
    BridgeFrom,
    TranslatorConfig,
)

BridgeLayers = Literal["shared", "hidden_only", "by_state", "by_layer", "states_first", "each"]
HandedOn = Literal["concatenate", "sum", "mean", "forward", "backward"]

_NAMES = ("source_embedding", "target_embedding", "output")
_LISTS = ("encoder", "bridge", "decoder")


@dataclass(frozen=True)
class TranslatorSpec:
    """Names of an encoder-decoder's submodules, and its habits.

    Names are as in ``module.named_modules()``, dotted. Submodules that are left out are found by
    their types and sizes, in the order of their definition; habits that are left out by trying.
    The tokens must be said.

    Args:
        starts: for each target language, the token that a translation into it starts with.
        end: the token that ends a translation.
        source_embedding: the ``nn.Embedding`` that reads the source.
        encoder: the ``nn.RNN``, ``nn.LSTM`` or ``nn.GRU`` that reads the source, or several that
            follow one another.
        bridge: the ``nn.Linear`` layers between the encoder's final states and the decoder's first
            ones; ``()`` for none.
        target_embedding: the ``nn.Embedding`` that reads the translation so far; the source's own
            where there is one for both.
        decoder: the recurrent layer or layers that write.
        output: the ``nn.Linear`` that gives the next token.
        bridge_layers: what each of ``bridge`` is for: one for everything (``"shared"``), or for
            hidden states alone, an LSTM's cell state starting from zero (``"hidden_only"``); one
            for hidden and one for cell states (``"by_state"``), one a decoder layer
            (``"by_layer"``), hidden states of all layers and then cell states (``"states_first"``),
            hidden and cell state of each layer in turn (``"each"``).
        bridge_activation: what follows them, ``"tanh"`` or ``"identity"``.
        bridge_from: whose final states a decoder layer starts from, the ``"last"`` encoder layer's
            or those of the layer of its own number (``"each"``).
        directions: without ``bridge``, what a decoder starts from of a bidirectional encoder.
        padding: where padding stands in the source, ``"right"`` or ``"left"``.
        pad_index: token of padding, in source and target.
        packed: whether sources go through ``pack_padded_sequence``.
        steps: number of steps that every source is padded or cut to; ``None`` for any.
        length_factor: see :class:`~.translator_config.TranslatorConfig`.
        length_extra: see there.

    Raises:
        ValueError: naming every argument that does not fit.
    """

    starts: tuple[int, ...]
    end: int
    source_embedding: str | None = None
    encoder: str | tuple[str, ...] | None = None
    bridge: tuple[str, ...] | None = None
    target_embedding: str | None = None
    decoder: str | tuple[str, ...] | None = None
    output: str | None = None
    bridge_layers: BridgeLayers | None = None
    bridge_activation: BridgeActivation | None = None
    bridge_from: BridgeFrom | None = None
    directions: HandedOn | None = None
    padding: Side = "right"
    pad_index: int | None = None
    packed: bool | None = None
    steps: int | None = None
    length_factor: float = 2.0
    length_extra: int = 10

    def __post_init__(self) -> None:
        for name in ("starts", *_LISTS):
            value = getattr(self, name)
            if isinstance(value, list):  # as JSON and YAML have it
                object.__setattr__(self, name, tuple(value))
        choices = {
            "bridge_layers": get_args(BridgeLayers),
            "bridge_activation": get_args(BridgeActivation),
            "bridge_from": get_args(BridgeFrom),
            "directions": get_args(HandedOn),
            "padding": get_args(Side),
            "packed": (True, False),
        }
        problems = outside(self, choices, none=True)
        for name in _NAMES:
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                problems.append(f"{name}={value!r}, expected the name of one submodule")
        for name in _LISTS:
            value = getattr(self, name)
            if isinstance(value, str) and name != "bridge":
                object.__setattr__(self, name, (value,))
            elif value is not None and (
                not isinstance(value, tuple) or not all(isinstance(item, str) for item in value)
            ):
                problems.append(f"{name}={value!r}, expected names of submodules")
        tokens = [*self.starts, self.end] if isinstance(self.starts, tuple) else [None]
        if any(type(token) is not int or token < 0 for token in tokens) or not self.starts:
            problems.append(
                f"starts={self.starts!r}, end={self.end!r}, expected token ids: one to start with "
                "for each language, and the one that ends"
            )
        if problems:
            raise ValueError("The translator spec does not fit: " + "; ".join(problems) + ".")

    def to_dict(self) -> dict[str, Any]:
        """This spec as JSON types; ``TranslatorSpec(**spec.to_dict())`` reads it back."""
        return asdict(self)

    @classmethod
    def from_mapping(cls, data: dict[str, Any]) -> TranslatorSpec:
        """A spec from a mapping of its arguments.

        Raises:
            ValueError: if one is unknown, missing or does not fit.
        """
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(data) - known)
        missing = [name for name in ("starts", "end") if name not in data]
        if unknown or missing:
            raise ValueError(
                f"The translator spec does not fit: unknown are {unknown}, missing {missing}; "
                f"expected some of {sorted(known)}."
            )
        return cls(**data)


@dataclass(frozen=True)
class TranslatorReading:
    """What reading a user's encoder-decoder found.

    Args:
        spec: every submodule named and every habit known.
        config: structure of the translator that was read.
        tried: the settings that were tried, in words, each with its largest difference.
        difference: the largest difference between both networks' log-likelihoods on the batch.
        notes: what a user should know about this reading.
    """

    spec: TranslatorSpec
    config: TranslatorConfig
    tried: tuple[str, ...] = ()
    difference: float = 0.0
    notes: tuple[str, ...] = ()
