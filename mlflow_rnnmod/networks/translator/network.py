"""The translator that modules come from, as floors above see it; many sources in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mlflow_rnnmod.inputs.rows import ForcedRows, Rows, bucket
from mlflow_rnnmod.networks.protocol import Told
from mlflow_rnnmod.networks.translator.decoding import Decoder, beam_search
from mlflow_rnnmod.networks.translator.forcing import TranslatorWatch
from mlflow_rnnmod.networks.translator.layers import TranslatorLayers
from mlflow_rnnmod.networks.translator.masked_decoder import trunk_decoder
from mlflow_rnnmod.networks.trunk import Trunk


class Translator(TranslatorLayers):
    """An encoder-decoder that is told the target language by the token it starts with.

    Its labels are the languages, its groups the decoder's layers: encoder, bridge and embeddings
    are shared by all languages. Rows to watch are :class:`ForcedRows`, a translation each.

    Args:
        config: the structure. Weights start as PyTorch initialises them.

    Example:
        >>> import torch
        >>> from mlflow_rnnmod.networks.translator.config import TranslatorConfig
        >>> config = TranslatorConfig("gru", 30, 8, 30, 8, ((6, 6),), (12,), ("de",), (2,), end=3)
        >>> len(Translator(config).translate(Rows(torch.tensor([[4, 7, 0], [5, 0, 0]])), "de"))
        2
    """

    architecture = "translator"
    guesses_by_label = True
    ranks_unexplained = True

    def order(self, rows: Rows) -> Tensor:
        """Row numbers, those with the shortest translations first."""
        assert isinstance(rows, ForcedRows) and rows.token_lengths is not None
        return rows.token_lengths.cpu().argsort(stable=True)

    def told(
        self, rows: Rows, variant: str, gates: str, unrolled_steps: int, last: bool = False
    ) -> Told:
        """Steps of the decoder, from its first one, and gates that masks of this kind tell apart.

        Steps are told apart up to the longest translation's; none of them answers for all.
        """
        assert isinstance(rows, ForcedRows) and rows.token_lengths is not None
        longest = int(rows.token_lengths.max()) + 1
        steps = min(longest, unrolled_steps) if variant == "unrolled" else None
        return Told(steps, gates == "separate")

    def watch(self, rows: Rows, told: Told, gradients: bool) -> TranslatorWatch:
        """Tell the decoder the right translations, and keep what is needed to be asked about it."""
        assert isinstance(rows, ForcedRows)
        return TranslatorWatch(self, rows, told, gradients)

    def writer(self, trunk: Trunk) -> Decoder:
        """The decoder through a trunk (:func:`~.masked_decoder.trunk_decoder`)."""
        return trunk_decoder(self, trunk)

    @torch.inference_mode()
    def write(
        self,
        rows: Rows,
        jobs: Sequence[tuple[Decoder, int]],
        beams: int = 1,
        batch_size: int = 256,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[list[list[int]]]:
        """Translations of all sources by all decoders; each source is read once."""
        rows = self.prepare(rows)
        lengths = self.lengths(rows).cpu()
        found: list[list[list[int]]] = [[[] for _ in range(len(rows))] for _ in jobs]
        done = 0
        for index in bucket(lengths, batch_size):
            values = rows.values[index.to(rows.values.device)]
            if self.config.packed and self.config.steps is None:
                values = values[:, : int(lengths[index].max())]
            batch = Rows(values, lengths[index]).to(self.device)
            states, limits = self.encode(batch), self.limits(batch).cpu()
            for place, (decoder, start) in enumerate(jobs):
                tokens = beam_search(decoder, states, start, self.config.end, limits, beams)
                for row, translation in zip(index.tolist(), tokens, strict=True):
                    found[place][row] = translation
            done += len(index)
            if progress:
                progress(done, len(rows))
        return found
