"""Parents: trained networks that modules come from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from mlflow_rnnmod._digest import digest_tensors
from mlflow_rnnmod._locks import cached_property
from mlflow_rnnmod.inputs import Density, Input, input_of
from mlflow_rnnmod.inputs.preparation import ImagePreparation
from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.inputs.text import TextEncoder
from mlflow_rnnmod.networks.protocol import Network, moved


@dataclass(frozen=True, eq=False)
class Parent:
    """A trained network with its tokenizer; never changed once made.

    Args:
        network: the network, in evaluation mode; or a translator (see :meth:`of_translator`).
        tokenizer: how it reads text; ``None`` where it is given token ids or features.
        model_id: MLflow model id it was logged under, where it was.
        tracking_uri: the server that knows this id.
        target_tokenizer: of a translator, how it writes text; ``None`` where it writes as it reads.
        image: how images became what the network reads; ``None`` where it is given arrays that are
            prepared already, or reads no images.
        vocabulary: of a network that is given token ids, a name for what these mean (see
            :func:`~mlflow_rnnmod.inputs.tokenizers.vocabulary_name`), which its modules carry;
            ``None`` where nothing is known, and with a tokenizer.

    Example:
        >>> from mlflow_rnnmod.networks import NetworkConfig, RecurrentNetwork
        >>> config = NetworkConfig("features", 3, None, "gru", ((4,),), ("a", "b"))
        >>> len(Parent(RecurrentNetwork(config)).digest)
        64
    """

    network: Network
    tokenizer: TextEncoder | None = None
    model_id: str | None = None
    tracking_uri: str | None = None
    target_tokenizer: TextEncoder | None = None
    image: ImagePreparation | None = None
    vocabulary: str | None = None

    def __post_init__(self) -> None:
        if self.vocabulary is not None and (self.encoder or not self.input.ids):
            raise ValueError(
                f"vocabulary={self.vocabulary!r:.100}, and the parent reads {self.input_kind}; "
                "expected it where token ids are read, without a tokenizer."
            )
        if self.tokenizer is None and self.target_tokenizer is not None:
            raise ValueError(
                "target_tokenizer is given and tokenizer is None; expected both, or tokenizer "
                "alone where one reads and writes."
            )
        if self.image is not None:
            reads = self.network.config.input
            if self.tokenizer is not None or not input_of(reads).whole:
                raise ValueError(
                    f"image is given, and the network reads {reads}; expected it for networks of "
                    "images alone."
                )
            object.__setattr__(self, "image", self.image.fitted(self.network.config.input_size))
        self.network.eval().requires_grad_(False)

    @classmethod
    def of_translator(
        cls,
        translator: Network,
        tokenizer: TextEncoder | None = None,
        target_tokenizer: TextEncoder | None = None,
    ) -> Parent:
        """A translator as a parent: its labels are the languages that it translates into.

        Args:
            translator: in evaluation mode.
            tokenizer: how it reads text; ``None`` where it is given token ids, and answers ids.
            target_tokenizer: how it writes text, where that is another tokenizer.

        Raises:
            ValueError: if there is only the second tokenizer.
        """
        return cls(translator, tokenizer=tokenizer, target_tokenizer=target_tokenizer)

    @property
    def writer(self) -> TextEncoder | None:
        """What turns a translator's tokens into text."""
        return self.target_tokenizer or self.tokenizer

    @property
    def encoder(self) -> TextEncoder | ImagePreparation | None:
        """What stands before its network: a tokenizer, or a preparation of images."""
        return self.tokenizer or self.image

    @property
    def tokenizers(self) -> str | None:
        """One name for its tokenizers together: their digests, the writing one's behind a plus."""
        parts = [t.digest for t in (self.encoder, self.target_tokenizer) if t is not None]
        return "+".join(parts) or None

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the network's weights and structure; the parent's name in every file."""
        tensors = dict(self.network.state_dict())
        return digest_tensors(tensors, self.network.config.to_dict())

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the output labels, in the order of the output layer."""
        return self.network.labels

    @property
    def input(self) -> Input:
        """What it reads: text or images where it has what makes rows of them, or as its network."""
        return input_of(self.encoder.reads if self.encoder else self.network.config.input)

    @property
    def input_size(self) -> Any:
        """Size of its vocabulary or of one vector; or channels, height and width of its images."""
        return self.image.accepted if self.image else self.network.config.input_size

    @property
    def input_kind(self) -> str:
        """The input's name: a key of ``INPUTS``."""
        return self.input.name

    def rows(self, inputs: Any) -> Rows:
        """Inputs, as ``input.check`` returned them, as the rows that it reads, on the CPU."""
        return self.input.rows(inputs, self.network, self.encoder)

    def background(self, rows: Rows, count: int, seed: int) -> Rows:
        """Made-up rows, as its input makes them of training rows with lengths."""
        unknown = self.tokenizer.unknown if self.tokenizer else None
        shape = rows.values.shape[1:]
        if self.image is not None:  # a network may read images as vectors
            assert self.image.channels is not None
            size = (self.image.channels, *self.image.sides)
            rows = Rows(rows.values.view(len(rows), *size), rows.lengths)
        made = self.input.background(rows, self.network.config, count, seed, unknown)
        if self.image is not None:
            made = Rows(made.values.view(count, *shape), made.lengths)
        return made

    @cached_property
    def density(self) -> Density | None:
        """What likelihoods of its inputs are made of; ``None`` where there are none."""
        return self.input.density(self.network.config, self.encoder)

    def seen(self, rows: Rows) -> Any:
        """What likelihoods read of rows: what was there before its tokenizer or preparation.

        Raises:
            ValueError: if there are no likelihoods of its inputs.
        """
        if self.density is None:
            raise ValueError(f"Inputs of kind {self.input_kind!r} have no likelihoods.")
        return self.density.of_rows(self.network.content(rows), self.encoder, self.network.side)

    @property
    def steps_likely(self) -> bool:
        """Whether single steps of its inputs have likelihoods, as its answers are for each."""
        answer = self.network.config.answer
        return bool(answer.each_step and self.density is not None and self.density.stepwise)

    def known_as(self, model_id: str | None, tracking_uri: str | None) -> Parent:
        """The same parent with the place where it was logged."""
        return replace(self, model_id=model_id, tracking_uri=tracking_uri)

    def to(self, device: torch.device | str) -> Parent:
        """The same parent with its weights on ``device``; this one stays where it is."""
        if torch.device(device) == self.device:
            return self
        return replace(self, network=moved(self.network, device))

    @property
    def bytes(self) -> int:
        """Size of its weights."""
        return sum(t.numel() * t.element_size() for t in self.network.state_dict().values())

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.network.device
