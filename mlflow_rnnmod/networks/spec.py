"""What a user may say about a network, and what was found out about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from mlflow_rnnmod.answers import ANSWERS
from mlflow_rnnmod.networks.recurrent.config import (
    READOUTS,
    Activation,
    Feed,
    NetworkConfig,
    OutputKind,
    Readout,
    Side,
    outside,
)

Directions = Literal["concatenate", "sum", "mean", "backward"]
Output = Literal["logits", "log_softmax", "sigmoid"]
Axes = Literal[
    "rows_labels", "rows_steps_labels", "rows_labels_steps", "steps_rows_labels", "flattened"
]

DIRECTIONS_JOINED: tuple[str, ...] = get_args(Directions)
OUTPUTS: tuple[str, ...] = get_args(Output)
AXES: tuple[str, ...] = get_args(Axes)
ACTIVATIONS: tuple[str, ...] = get_args(Activation)
SIDES: tuple[str, ...] = get_args(Side)


class UnreadableNetwork(ValueError):
    """A user's network that can't be read into ours; the message says why and what would help."""


class AmbiguousNetwork(UnreadableNetwork):
    """A network that several readings fit, on the batch that there was."""


@dataclass(frozen=True)
class NetworkSpec:
    """Names of a network's submodules, and its habits. What is left out is found by trying.

    Names are as in ``module.named_modules()``, dotted: ``"encoder.lstm"``.

    Args:
        embedding: the ``nn.Embedding`` that reads token ids.
        recurrent: the ``nn.RNN``, ``nn.LSTM`` or ``nn.GRU``, or several that follow one another.
        hidden: the ``nn.Linear`` layers between readout and output layer; ``()`` for none.
        activations: what follows each of ``hidden``: ``"relu"``, ``"tanh"`` or ``"identity"``.
        head: the ``nn.Linear`` that gives the answer.
        readout: how states become one vector; see :class:`~.config.NetworkConfig`.
        directions: what becomes of the two directions of a bidirectional network: both side by
            side (``"concatenate"``), their ``"sum"`` or ``"mean"``, or the ``"backward"`` one
            alone, which is what ``h_n[-1]`` holds.
        padding: where padding stands, ``"right"`` or ``"left"``.
        pad_index: token id of padding.
        packed: whether rows go through ``pack_padded_sequence``.
        output: whether the network answers with ``"logits"``, their ``"log_softmax"`` or, for
            several labels a row, their ``"sigmoid"``.
        axes: how answers are arranged: ``"rows_labels"``; for an answer at each step
            ``"rows_steps_labels"``, ``"rows_labels_steps"`` (as ``nn.CrossEntropyLoss`` wants
            them), ``"steps_rows_labels"`` or ``"flattened"`` (rows x steps, labels).
        kind: what the network answers: ``"label"``, one for each row; ``"multilabel"``, any number
            of labels a row; ``"tags"``, a label for each step; ``"list"``, labels one after the
            other. Left out, the shapes of answers and targets show it; without targets, or with
            targets of shape ``(rows,)``, an answer a row is taken for one ``"label"``, and answers
            at each step are ``"tags"`` where every token is a step, else a ``"list"``.
        end_label: the label that ends a ``"list"``; what stands behind the first one in a row
            counts for nothing. ``None`` for lists that fill all steps.
        feed: what the recurrent layers read: a token or vector at each step (``"steps"``), all of
            them flattened, as one step (``"flat"``), or that vector at each of ``output_steps``
            steps (``"repeat"``). Left out, the sizes show it.
        output_steps: steps of the recurrent layers, for ``"repeat"``; only needed where the
            network does not answer at each of them.
        steps: number of steps that every input is padded or cut to, or ``"any"``. Left out, it is
            the number of steps of the batch that the network was read with where the network reads
            its padding (the answer depends on how far rows are padded) and that batch has padding;
            otherwise inputs are taken as long as they are.

    Raises:
        ValueError: naming every argument that does not fit.

    Example:
        >>> NetworkSpec(recurrent="lstm", readout="last_valid").packed is None
        True
    """

    embedding: str | None = None
    recurrent: str | tuple[str, ...] | None = None
    hidden: tuple[str, ...] | None = None
    activations: tuple[Activation, ...] | None = None
    head: str | None = None
    readout: Readout | None = None
    directions: Directions | None = None
    padding: Side | None = None
    pad_index: int | None = None
    packed: bool | None = None
    output: Output | None = None
    axes: Axes | None = None
    kind: OutputKind | None = None
    end_label: str | None = None
    feed: Feed | None = None
    output_steps: int | None = None
    steps: int | Literal["any"] | None = None

    def __post_init__(self) -> None:
        for name in ("recurrent", "hidden", "activations"):
            value = getattr(self, name)
            if isinstance(value, list):  # as JSON and YAML have it
                object.__setattr__(self, name, tuple(value))
        choices = {
            "readout": READOUTS,
            "directions": DIRECTIONS_JOINED,
            "padding": SIDES,
            "output": OUTPUTS,
            "packed": (True, False),
            "axes": AXES,
            "kind": get_args(OutputKind),
            "feed": get_args(Feed),
        }
        problems = outside(self, choices, none=True)
        for name in ("embedding", "head"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                problems.append(f"{name}={value!r}, expected the name of one submodule")
        for name in ("recurrent", "hidden"):
            value = getattr(self, name)
            single = name == "recurrent" and isinstance(value, str)
            if value is None or single:
                continue
            if not isinstance(value, tuple) or not all(isinstance(item, str) for item in value):
                problems.append(f"{name}={value!r}, expected names of submodules")
            elif name == "recurrent" and not value:
                problems.append("recurrent=(), expected at least one name")
        problems += self._problems_of_activations()
        problems += self._problems_of_kind()
        if self.packed and self.padding == "left":
            problems.append("packed=True with padding='left'; packing needs padding on the right")
        if self.pad_index is not None and (type(self.pad_index) is not int or self.pad_index < 0):
            problems.append(f"pad_index={self.pad_index!r}, expected a token id")
        if self.steps not in (None, "any") and (type(self.steps) is not int or self.steps < 1):
            problems.append(f"steps={self.steps!r}, expected a positive number or 'any'")
        if problems:
            raise ValueError("The network spec does not fit: " + "; ".join(problems) + ".")

    def _problems_of_activations(self) -> list[str]:
        given = self.activations
        if given is None:
            return []
        if not isinstance(given, tuple) or any(item not in ACTIVATIONS for item in given):
            return [f"activations={given!r}, expected some of {ACTIVATIONS}, one a hidden layer"]
        if self.hidden is not None and len(given) != len(self.hidden):
            return [
                f"activations={given!r} with hidden={self.hidden!r}; expected one a hidden layer"
            ]
        return []

    def _problems_of_kind(self) -> list[str]:
        """What does not fit between kind, readout, axes and feed."""
        problems = []
        answer = ANSWERS.get(self.kind or "label", ANSWERS["label"])
        if self.kind is not None:
            stepwise = answer.stepwise
            for name, value, fits in (
                ("readout", self.readout, (self.readout == "all_steps") == stepwise),
                ("axes", self.axes, (self.axes != "rows_labels") == stepwise),
            ):
                if value is not None and not fits:
                    problems.append(f"{name}={value!r} with kind={self.kind!r}")
        if self.end_label is not None and not (self.kind is None or answer.ends):
            problems.append(f"end_label={self.end_label!r} with kind={self.kind!r}; a list has one")
        if self.output == "sigmoid" and self.kind not in (None, "multilabel"):
            problems.append(f"output='sigmoid' with kind={self.kind!r}; expected 'multilabel'")
        if self.feed in ("flat", "repeat") and (self.packed or self.steps == "any"):
            problems.append(f"feed={self.feed!r} reads a fixed number of steps, and packs nothing")
        given = self.output_steps
        if given is not None and (type(given) is not int or given < 1):
            problems.append(f"output_steps={given!r}, expected a positive number")
        elif given is not None and self.feed not in (None, "repeat"):
            problems.append(f"output_steps={given!r} with feed={self.feed!r}; 'repeat' has them")
        return problems

    def to_dict(self) -> dict[str, Any]:
        """This spec as JSON types; ``NetworkSpec(**spec.to_dict())`` reads it back."""
        return asdict(self)


def problem_of_kinds(parameters: Iterable[Tensor]) -> str | None:
    """What is wrong with the kinds of weights, which must be one of two."""
    kinds = {parameter.dtype for parameter in parameters}
    if kinds in ({torch.float32}, {torch.float64}):
        return None
    return (
        f"weights are {sorted(map(str, kinds))}; expected torch.float32 or torch.float64 for all "
        "(module.float() makes it so)"
    )


@dataclass(frozen=True)
class Reading:
    """What reading a user's network found.

    Args:
        spec: every submodule named and every habit known. Settings that are the same function on
            any input are written in one way, so a habit can differ in name from what was given.
        config: structure of the network that was read.
        tried: the settings that were tried, in words, each with its largest difference.
        difference: the largest difference between both networks' answers on the batch.
        notes: what a user should know about this reading.
    """

    spec: NetworkSpec
    config: NetworkConfig
    tried: tuple[str, ...] = ()
    difference: float = 0.0
    notes: tuple[str, ...] = ()
