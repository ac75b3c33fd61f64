"""Modules: what is left of a parent for one label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from mlflow_rnnmod.answers import Answer, answer_of
from mlflow_rnnmod.inputs import Input, Likelihood, input_of
from mlflow_rnnmod.networks.parent import Parent
from mlflow_rnnmod.networks.trunk import Trunk

_LATER = ("end_label", "mask_steps", "target", "vocabulary")


@dataclass(frozen=True)
class Calibration:
    """A scale and an offset on a margin: ``scale * margin + offset``."""

    scale: float = 1.0
    offset: float = 0.0

    def __call__(self, margin: Tensor) -> Tensor:
        """Calibrated margins, of the same shape."""
        return margin * self.scale + self.offset


@dataclass(frozen=True, eq=False)
class Head:
    """From readout to margin, the log-odds of one label against any other.

    The parent's output layer gives the log-odds (channeling by log-sum-exp); a refitted head adds
    a linear correction to it, and a calibration.

    Args:
        weight: float32 ``(readout size,)``, the correction's weights; ``None`` for no correction.
        bias: the correction's bias.
        calibration: applied last.
    """

    weight: Tensor | None = None
    bias: float = 0.0
    calibration: Calibration = Calibration()

    def raw(self, readout: Tensor, log_odds: Tensor) -> Tensor:
        """Uncalibrated margins, ``(rows,)``, from a readout and the parent's log-odds on it."""
        if self.weight is None:
            return log_odds
        weight = self.weight.to(readout.device, readout.dtype)
        return log_odds + readout @ weight + self.bias

    def __call__(self, readout: Tensor, log_odds: Tensor) -> Tensor:
        """Calibrated margins, ``(rows,)``."""
        return self.calibration(self.raw(readout, log_odds))


@dataclass(frozen=True)
class Energy:
    """Mean and deviation of the unmasked parent's energy (logsumexp of logits) on its own rows."""

    mean: float = 0.0
    deviation: float = 1.0


@dataclass(frozen=True)
class Contract:
    """What a module accepts and promises; all that a plan needs to know of it.

    Args:
        label: the label it answers for.
        index: the label's row in the parent's output layer.
        input: name of the input (a key of :data:`~mlflow_rnnmod.inputs.INPUTS`).
        input_size: size of the vocabulary, or of one step's features; of images channels, height
            and width, 0 for any.
        tokenizer: digest of the parent's tokenizer, or of its preparation of images; ``None``
            without either.
        output: kind of answer (see :class:`~mlflow_rnnmod.NetworkConfig`).
        steps: number of steps each input is padded or cut to; ``None`` for any.
        labels: all labels of the parent, in order.
        end_label: the label that ends a list; ``None`` where nothing does.
        mask_steps: steps with a mask of their own, in an unrolled module; later steps have the
            last one. ``None`` for rolled ones.
        target: of a translating module the language's ``code``, the id of the ``start`` token that
            its decoder is told, and the digest of the ``tokenizer`` that writes, where it is not
            the one that reads. ``None`` for all others.
        vocabulary: of token ids, a name for what they mean, as :attr:`Parent.vocabulary`; ``None``
            where nothing is known, and with a tokenizer.
    """

    label: str
    index: int
    input: str
    input_size: int | tuple[int, ...]
    tokenizer: str | None
    output: str
    steps: int | None
    labels: tuple[str, ...]
    end_label: str | None = None
    mask_steps: int | None = None
    target: Mapping[str, Any] | None = None
    vocabulary: str | None = None

    @property
    def answer(self) -> Answer:
        """What the module answers by itself, as an object."""
        return answer_of(self.output)

    @property
    def reads(self) -> Input:
        """The input that goes by the name :attr:`input`."""
        return input_of(self.input)

    @property
    def tokenizers(self) -> str | None:
        """What :attr:`Parent.tokenizers` must be of the parent."""
        writes = (self.target or {}).get("tokenizer")
        return self.tokenizer if writes is None else f"{self.tokenizer}+{writes}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; fields that came later are left out where they say nothing."""
        found = asdict(self)
        return {k: v for k, v in found.items() if v is not None or k not in _LATER}


@dataclass(frozen=True, eq=False)
class Module:
    """One label of a parent, to be used by itself or in a composite.

    Args:
        parent: the network it is a mask over.
        trunk: which units of it are kept.
        head: readout to margin.
        open_head: the same, fitted with made-up rows among the negatives; compared across parents.
        energy: to standardize the parent's energy by.
        contract: what it accepts and promises.
        figures: measured on rows that played no part in making it: ``precision``, ``recall``,
            ``f1``, ``agreement``, ``support`` (shares from 0 to 1; support in rows) and sizes:
            ``units_kept``, ``weights_kept``, ``recurrent_weights_kept`` (shares), ``jaccard``
            (mean overlap with the other modules of the decomposition).
        made: how it was made: ``rule``, ``removal``, ``repairs``, ``rows`` (which rows the figures
            come from), and whatever else a card should say.
        origin: where it was loaded from: ``uri``, ``name``, ``version``, ``model_id``; empty for a
            module that was just made.
        likelihood: p(x | label), a density of the raw input; ``None`` where none is stored.
    """

    parent: Parent
    trunk: Trunk
    head: Head
    open_head: Head
    energy: Energy
    contract: Contract
    figures: Mapping[str, float] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)
    likelihood: Likelihood | None = None

    @property
    def label(self) -> str:
        """The label it answers for."""
        return self.contract.label

    def __repr__(self) -> str:
        return (
            f"Module({self.label!r}, {self.trunk.kept} of {self.trunk.total} units of parent "
            f"{self.parent.digest[:12]})"
        )


def make_contract(parent: Parent, label: str, trunk: Trunk | None = None) -> Contract:
    """The contract of ``label``'s module of ``parent``.

    Raises:
        ValueError: if the parent has no such label.
    """
    if label not in parent.labels:
        raise ValueError(f"label={label!r} is none of the parent's labels {list(parent.labels)}.")
    config, target = parent.network.config, parent.network.target(label)
    if target is not None:
        writer = parent.target_tokenizer
        target = {**target, "tokenizer": None if writer is None else writer.digest}
    return Contract(
        label=label,
        index=parent.labels.index(label),
        input=parent.input_kind,
        input_size=parent.input_size,
        tokenizer=parent.encoder.digest if parent.encoder else None,
        output=config.output,
        steps=config.steps,
        labels=parent.labels,
        end_label=config.end_label,
        mask_steps=None if trunk is None else trunk.steps,
        target=target,
        vocabulary=parent.vocabulary,
    )
