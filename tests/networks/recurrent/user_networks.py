"""Networks in plain PyTorch, written as people write them, to be read by ours."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mlflow_rnnmod.networks import Rows


class Classifier(nn.Module):
    """One recurrent module with any habits; ``forward(values, lengths)``."""

    def __init__(
        self,
        cell: type[nn.RNNBase] = nn.LSTM,
        units: int = 12,
        labels: int = 3,
        readout: str = "last_valid",
        packed: bool = False,
        tokens: bool = True,
        side: str = "right",
        hidden: tuple[int, ...] = (),
        activation: str = "relu",
        pad_index: int = 0,
        padding_idx: int | None = 0,
        **cell_options: object,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 6, padding_idx=padding_idx) if tokens else None
        self.rnn = cell(6, units, **{"batch_first": True, **cell_options})  # type: ignore[arg-type]
        size = units * (2 if self.rnn.bidirectional else 1)
        sizes = (size, *hidden)
        self.dense = nn.ModuleList(
            nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(sizes[-1], labels)
        self.loss = nn.CrossEntropyLoss()
        self.readout, self.packed, self.side = readout, packed, side
        self.activation = {"relu": torch.relu, "tanh": torch.tanh, "identity": lambda x: x}[
            activation
        ]

    def forward(self, values: Tensor, lengths: Tensor) -> Tensor:
        x = values if self.embedding is None else self.dropout(self.embedding(values))
        steps = x.shape[1]
        first = self.rnn.batch_first
        x = x if first else x.transpose(0, 1)
        if self.packed:
            x = pack_padded_sequence(x, lengths.cpu(), batch_first=first, enforce_sorted=False)
        out, state = self.rnn(x)
        h_n = state[0] if isinstance(state, tuple) else state
        if self.packed:
            out, _ = pad_packed_sequence(out, batch_first=first, total_length=steps)
        out = out if first else out.transpose(0, 1)
        x = self.read(out, h_n, lengths)
        for layer in self.dense:
            x = self.activation(layer(x))
        return self.fc(self.dropout(x))

    def read(self, out: Tensor, h_n: Tensor, lengths: Tensor) -> Tensor:
        steps = torch.arange(out.shape[1], device=out.device)
        if self.side == "left":
            steps = steps.flip(0)
        valid = (steps < lengths[:, None])[..., None]
        if self.readout == "final_state":
            return torch.cat((h_n[-2], h_n[-1]), dim=1) if self.rnn.bidirectional else h_n[-1]
        if self.readout == "last_step":
            return out[:, -1]
        if self.readout == "last_valid":
            at = lengths - 1 if self.side == "right" else torch.full_like(lengths, out.shape[1] - 1)
            return out[torch.arange(len(out)), at]
        if self.readout == "mean_steps":
            return out.mean(dim=1)
        if self.readout == "max_steps":
            return out.max(dim=1).values
        if self.readout == "mean_valid":
            return (out * valid).sum(dim=1) / lengths[:, None]
        return torch.where(valid, out, -1e9).max(dim=1).values


def make_rows(
    seed: int = 0,
    tokens: bool = True,
    count: int = 24,
    steps: int = 9,
    side: str = "right",
    pad_index: int = 0,
    with_lengths: bool | None = None,
    padded: bool = True,
) -> tuple[Rows, Tensor]:
    """Rows and their lengths, a quarter of them without padding (all, with ``padded=False``).

    The rows hold the lengths where ``with_lengths`` (default: for features) says so.
    """
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, steps + 1, (count,), generator=draw)
    lengths[: count // 4 if padded else count] = steps
    position = torch.arange(steps)
    valid = (position if side == "right" else position.flip(0)) < lengths[:, None]
    if tokens:
        values = torch.randint(1, 20, (count, steps), generator=draw)
        if pad_index:
            values[values == pad_index] = pad_index - 1
        values = torch.where(valid, values, pad_index)
    else:
        values = torch.randn(count, steps, 6, generator=draw, dtype=torch.float64)
        values = values * valid[..., None]
    keep = (not tokens) if with_lengths is None else with_lengths
    return Rows(values, lengths if keep else None), lengths
