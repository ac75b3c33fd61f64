"""An encoder-decoder as a user would write it, and its settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

PAD, UNKNOWN, END = 0, 1, 2


@dataclass(frozen=True)
class TranslatorTraining:
    """Settings of one translator; the cache's key together with the data's name and languages.

    Args:
        cell: ``"lstm"``, ``"gru"`` or ``"rnn"``.
        layers: of the decoder.
        units: of each layer and direction.
        embedding: length of an embedding vector, on both sides.
        source_vocabulary: subwords of the source language.
        vocabulary: subwords for each target language; all of them share one tokenizer.
        epochs: at most; the learning rate falls to a tenth over them.
        patience: epochs without a better validation BLEU after which training ends.
        batch_size: sources of a batch, each with its translations into all languages.
        learning_rate: of Adam, at first.
        dropout: of embeddings, and of what the output layer reads.
        word_dropout: share of tokens, on both sides, that are replaced by the unknown one.
        embedding_scale: standard deviation of the embeddings' first weights.
        seed: of weights, batches and dropout.
    """

    cell: str = "lstm"
    layers: int = 1
    units: int = 256
    embedding: int = 256
    source_vocabulary: int = 3000
    vocabulary: int = 1500
    epochs: int = 8
    patience: int = 3
    batch_size: int = 24
    learning_rate: float = 2e-3
    dropout: float = 0.15
    word_dropout: float = 0.0
    embedding_scale: float = 1.0
    seed: int = 0


class EncoderDecoder(nn.Module):
    """One bidirectional layer that reads, and a decoder that starts from its final states.

    The decoder is told the target language by the token that it reads first.
    """

    def __init__(self, source_tokens: int, target_tokens: int, settings: TranslatorTraining):
        super().__init__()
        kind = {"lstm": nn.LSTM, "gru": nn.GRU}.get(settings.cell, nn.RNN)
        size, units, layers = settings.embedding, settings.units, settings.layers
        self.source_embedding = nn.Embedding(source_tokens, size, padding_idx=PAD)
        self.encoder = kind(size, units, batch_first=True, bidirectional=True)
        parts = 2 if settings.cell == "lstm" else 1
        self.bridge = nn.ModuleList(nn.Linear(2 * units, units) for _ in range(layers * parts))
        self.target_embedding = nn.Embedding(target_tokens, size, padding_idx=PAD)
        self.decoder = kind(size, units, layers, batch_first=True)
        self.dropout = nn.Dropout(settings.dropout)
        self.output = nn.Linear(units, target_tokens)
        for embedding in (self.source_embedding, self.target_embedding):
            embedding.weight.detach().mul_(settings.embedding_scale)

    def encode(self, source: Tensor, lengths: Tensor) -> Any:
        """First states of the decoder.

        Returns:
            ``h``, or ``(h, c)`` for an LSTM, each ``(layers, rows, units)``.
        """
        embedded: Any = self.dropout(self.source_embedding(source))
        if int(lengths.min()) < source.shape[1]:  # packing is slow
            embedded = nn.utils.rnn.pack_padded_sequence(
                embedded, lengths, batch_first=True, enforce_sorted=False
            )
        _, final = self.encoder(embedded)
        finals = final if isinstance(final, tuple) else (final,)
        joined = [torch.cat([state[0], state[1]], dim=1) for state in finals]
        count = len(self.bridge) // len(joined)
        parts = [
            torch.stack([torch.tanh(self.bridge[i * count + k](x)) for k in range(count)])
            for i, x in enumerate(joined)
        ]
        return tuple(parts) if len(parts) > 1 else parts[0]

    def decode(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """What the output layer reads, ``(rows, steps, units)``, and the states afterwards."""
        out, state = self.decoder(self.dropout(self.target_embedding(tokens)), state)
        return self.dropout(out), state

    def forward(self, source: Tensor, lengths: Tensor, tokens: Tensor) -> Tensor:
        """Logits of the token after each of ``tokens``, ``(rows, steps, target tokens)``."""
        return self.output(self.decode(tokens, self.encode(source, lengths))[0])

    @torch.inference_mode()
    def translate(self, source: Tensor, lengths: Tensor, start: int) -> list[list[int]]:
        """The likeliest token each time, until the end or twice the source's tokens and ten."""
        state = self.encode(source, lengths)
        limits = 2 * lengths + 10
        token = torch.full((len(source), 1), start)
        found = []
        ended = torch.zeros(len(source), dtype=torch.bool)
        for step in range(int(limits.max())):
            out, state = self.decode(token, state)
            token = self.output(out).argmax(-1)
            ended = ended | (token[:, 0] == END) | (step >= limits)
            found.append(torch.where(ended, END, token[:, 0]))
            if bool(ended.all()):
                break
        rows = torch.stack(found, dim=1).tolist()
        return [row[: row.index(END)] if END in row else row for row in rows]
