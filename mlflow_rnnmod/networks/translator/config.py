"""What a translator is made of, as plain data that fits in a JSON file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from mlflow_rnnmod.answers import Answer, answer_of
from mlflow_rnnmod.networks.recurrent.config import (
    CELLS,
    DIRECTIONS,
    MAX_LAYERS,
    MAX_STEPS,
    Cell,
    NetworkConfig,
    Side,
    outside,
)

Bridge = Literal["linear", "state"]
BridgeFrom = Literal["last", "each"]
BridgeActivation = Literal["tanh", "identity"]

TRANSLATION = "translation"
"""What ``output`` says of a translator."""

MAX_LENGTH_FACTOR = 1_000.0
"""Tokens that a translation may have for each of the source's."""

# A recurrent network has labels; those of the encoder are never asked for.
_NO_LABELS = ("source", "target")


@dataclass(frozen=True)
class TranslatorConfig:
    """The structure of a :class:`~mlflow_rnnmod.networks.translator.network.Translator`.

    Args:
        cell: kind of recurrent cell, in encoder and decoder.
        source_size: tokens of the source vocabulary.
        source_embedding: length of a source token's vector.
        target_size: tokens of the target vocabulary, which is the source's where one tokenizer
            reads all languages.
        target_embedding: length of a target token's vector.
        encoder: for each layer of the encoder, the units of its forward and, when bidirectional,
            backward direction.
        decoder: units of each layer of the decoder.
        targets: codes of the languages that it translates into: a translator's labels.
        starts: for each of ``targets``, the token that a translation into it starts with.
        end: the token that ends a translation.
        pad_index: token of padding, in source and target.
        bridge: how the encoder's final states become the decoder's first ones: ``"linear"``, a
            dense layer for each decoder layer's hidden state (and one for its cell state), or
            ``"state"``, as they are.
        bridge_activation: what follows the dense layers.
        bridge_from: whose final states (of both directions, side by side) a decoder layer starts
            from: the ``"last"`` encoder layer's, or those of the encoder layer of its own number
            (``"each"``).
        side: where padding stands in the source.
        packed: whether the encoder skips padding, as by ``pack_padded_sequence``: its final states
            are then those at the last valid step.
        steps: number of steps that every source is padded or cut to; ``None`` for as many as it
            has.
        length_factor: a translation has at most so many tokens a source token ...
        length_extra: ... and so many more.

    Raises:
        ValueError: naming every argument that does not fit.

    Example:
        >>> config = TranslatorConfig("gru", 30, 8, 30, 8, ((6, 6),), (12,), ("de",), (2,), end=3)
        >>> config.units, config.labels
        ({'decoder.0.fwd': 12}, ('de',))
    """

    cell: Cell
    source_size: int
    source_embedding: int
    target_size: int
    target_embedding: int
    encoder: tuple[tuple[int, ...], ...]
    decoder: tuple[int, ...]
    targets: tuple[str, ...]
    starts: tuple[int, ...]
    end: int
    pad_index: int = 0
    bridge: Bridge = "linear"
    bridge_activation: BridgeActivation = "tanh"
    bridge_from: BridgeFrom = "last"
    side: Side = "right"
    packed: bool = True
    steps: int | None = None
    length_factor: float = 2.0
    length_extra: int = 10

    def __post_init__(self) -> None:
        problems = [*self._problems_of_values(), *self._problems_of_tokens()]
        problems += self._problems_of_layers()
        if problems:
            raise ValueError(
                "The translator's structure does not fit: " + "; ".join(problems) + "."
            )
        try:
            _ = self.encoder_config
        except ValueError as error:
            raise ValueError(f"The translator's encoder does not fit: {error}") from error

    def _problems_of_values(self) -> list[str]:
        choices = {
            "cell": CELLS,
            "bridge": get_args(Bridge),
            "bridge_activation": get_args(BridgeActivation),
            "bridge_from": get_args(BridgeFrom),
        }
        problems = outside(self, choices)
        for name in ("source_size", "source_embedding", "target_size", "target_embedding"):
            if getattr(self, name) < 1:
                problems.append(f"{name}={getattr(self, name)!r}, expected a positive number")
        if len(self.decoder) > MAX_LAYERS:
            problems.append(f"{len(self.decoder)} layers in the decoder, at most {MAX_LAYERS}")
        if self.length_factor > MAX_LENGTH_FACTOR or self.length_extra > MAX_STEPS:
            problems.append(
                f"length_factor={self.length_factor!r} with length_extra={self.length_extra!r}, "
                f"expected at most {MAX_LENGTH_FACTOR} and {MAX_STEPS}"
            )
        if self.length_factor < 0 or self.length_factor + self.length_extra < 1:
            problems.append(
                f"length_factor={self.length_factor!r} with length_extra={self.length_extra!r}, "
                "expected room for at least one token"
            )
        return problems

    def _problems_of_tokens(self) -> list[str]:
        problems = []
        if not self.targets or len(set(self.targets)) != len(self.targets):
            problems.append(f"targets={self.targets!r}, expected language codes, all different")
        if len(self.starts) != len(self.targets) or len(set(self.starts)) != len(self.starts):
            problems.append(
                f"starts={self.starts!r}, expected a token of its own for each of {self.targets!r}"
            )
        for name, token in (("end", self.end), *(("starts", token) for token in self.starts)):
            if not 0 <= token < self.target_size:
                problems.append(
                    f"{name} has token {token!r}, expected one from 0 to {self.target_size - 1}"
                )
        if self.end in self.starts:
            problems.append(f"end={self.end!r} is one of starts={self.starts!r}")
        if not 0 <= self.pad_index < min(self.source_size, self.target_size):
            problems.append(f"pad_index={self.pad_index!r}, expected a token of both vocabularies")
        return problems

    def _problems_of_layers(self) -> list[str]:
        if not self.decoder or min(self.decoder) < 1:
            return [f"decoder={self.decoder!r}, expected a positive number of units a layer"]
        if not self.encoder or any(not layer for layer in self.encoder):
            return [f"encoder={self.encoder!r}, expected one tuple a layer"]
        if self.bridge_from == "each" and len(self.encoder) != len(self.decoder):
            return [
                f"bridge_from='each' with {len(self.encoder)} encoder and {len(self.decoder)} "
                "decoder layers, expected as many of both"
            ]
        if self.bridge == "state":
            return [
                f"bridge='state' gives decoder layer {i} a state of {self.bridge_size(i)} units, "
                f"expected its own {units}"
                for i, units in enumerate(self.decoder)
                if self.bridge_size(i) != units
            ]
        return []

    @property
    def encoder_config(self) -> NetworkConfig:
        """The encoder, as the structure of a recurrent network (whose output nobody asks for)."""
        return NetworkConfig(
            input="tokens",
            input_size=self.source_size,
            embedding_size=self.source_embedding,
            cell=self.cell,
            recurrent=self.encoder,
            labels=_NO_LABELS,
            readout="last_valid",
            pad_index=self.pad_index,
            side=self.side,
            packed=self.packed,
            steps=self.steps,
        )

    def bridge_size(self, layer: int) -> int:
        """Length of the encoder's final states that decoder layer number ``layer`` starts from."""
        return sum(self.encoder[layer if self.bridge_from == "each" else -1])

    @property
    def units(self) -> dict[str, int]:
        """Number of units of each maskable layer: those of the decoder."""
        return {f"decoder.{i}.{DIRECTIONS[0]}": units for i, units in enumerate(self.decoder)}

    @property
    def labels(self) -> tuple[str, ...]:
        """The target languages."""
        return self.targets

    @property
    def output(self) -> str:
        """The kind of answer, ``"translation"``."""
        return TRANSLATION

    @property
    def answer(self) -> Answer:
        """What goes out, as an object."""
        return answer_of(self.output)

    @property
    def stepwise(self) -> bool:
        """Translations have steps of their own: no step of the source has an answer."""
        return self.answer.stepwise

    @property
    def end_label(self) -> None:
        """No label ends a translation: a token does."""
        return None

    @property
    def input(self) -> str:
        """The kind of input, ``"tokens"``."""
        return "tokens"

    @property
    def input_size(self) -> int:
        """Size of the source vocabulary."""
        return self.source_size

    @property
    def readout_size(self) -> int:
        """Length of the vector that the output layer reads."""
        return self.decoder[-1]

    def start_of(self, target: str) -> int:
        """The token that a translation into ``target`` starts with.

        Raises:
            ValueError: if it is none of the targets.
        """
        if target not in self.targets:
            raise ValueError(f"target={target!r}, expected one of {self.targets!r}.")
        return self.starts[self.targets.index(target)]

    @property
    def format(self) -> int:
        """The format version of files that it takes to say this structure."""
        return 2

    def to_dict(self) -> dict[str, Any]:
        """This structure as JSON types; :meth:`from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TranslatorConfig:
        """The structure that :meth:`to_dict` wrote.

        Raises:
            ValueError: if a field is missing, unknown or does not fit.
        """
        try:
            data = dict(data)
            data["encoder"] = tuple(tuple(layer) for layer in data["encoder"])
            for name in ("decoder", "targets", "starts"):
                data[name] = tuple(data[name])
            return cls(**data)
        except (TypeError, KeyError) as error:
            raise ValueError(
                f"Not a translator's structure: {error}; got {sorted(data)}."
            ) from error
