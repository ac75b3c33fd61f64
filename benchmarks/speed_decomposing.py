"""What taking parents apart costs, against training them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.speed_parents import STEPS, VOCABULARY, Network, make_parent
from benchmarks.timing import Figure
from mlflow_rnnmod.composition import compose
from mlflow_rnnmod.decomposition import decompose
from mlflow_rnnmod.networks import NetworkConfig, Parent, RecurrentNetwork, Rows

# A tagger as people train them, and for how many epochs.
TAGS, TAGGER_UNITS, WORDS, SENTENCES, LONGEST, EPOCHS = 45, 48, 5000, 3500, 50, 15
# Stages whose share of the time is asked for.
_EXTRAS = ("controls", "figures")


def once(name: str, value: float, limit: float | None, note: str) -> Figure:
    """A figure that was measured once."""
    return Figure(name, value, value, value, limit, note)


def whole_decompositions() -> list[Figure]:
    """Everything that a default decomposition does against one epoch of training; once."""
    found = []
    for labels, limit in ((10, 1.5), (150, 8.0)):
        user, parent = make_parent("lstm", 1, labels)
        torch.manual_seed(2)
        count = 15_000
        values = torch.randint(1, VOCABULARY, (count + 3000, STEPS))
        targets = values[:, 0] % labels
        rows = Rows(values, torch.full((len(values),), STEPS), targets)
        network = Network("lstm", 1, labels)
        optimizer = torch.optim.Adam(network.parameters())
        started = time.perf_counter()
        for batch in rows[:count].batches(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(
                network(batch.values, batch.lengths), batch.targets
            ).backward()
            optimizer.step()
        epoch = time.perf_counter() - started
        made = decompose(parent, rows[:count], rows[count:])
        name = f"whole default decomposition / training epoch, {labels} labels"
        trunks = f"{made.figures['trunks']:.0f} trunks"
        found.append(once(name, made.seconds / epoch, limit, f"{made.seconds:.1f} s; {trunks}"))
        extra = sum(made.timing[stage] for stage in _EXTRAS) / made.seconds
        found.append(
            once(f"... controls and figures, share of it, {labels} labels", extra, 0.2, "")
        )
    return found


def _seconds(timing: Mapping[str, float]) -> list[str]:
    return [f"{stage} {seconds:.1f} s" for stage, seconds in timing.items()]


class Tagger(nn.Module):
    """Two bidirectional layers, packed, and a label for each step."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 64, padding_idx=0)
        self.lstm = nn.LSTM(64, TAGGER_UNITS, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * TAGGER_UNITS, TAGS)

    def forward(self, values: Tensor, lengths: Tensor) -> Tensor:
        """Logits ``(rows, steps, tags)``."""
        packed = pack_padded_sequence(
            self.embedding(values), lengths, batch_first=True, enforce_sorted=False
        )
        steps = values.shape[1]
        out, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=steps)
        return self.head(out)  # type: ignore[no-any-return]

    def parent(self) -> Parent:
        """The same as a parent."""
        layer = (TAGGER_UNITS, TAGGER_UNITS)
        names = tuple(f"tag {i}" for i in range(TAGS))
        how: dict[str, Any] = {"readout": "all_steps", "output": "tags", "packed": True}
        config = NetworkConfig(
            "tokens", WORDS, 64, "lstm", (layer, layer), names, pad_index=0, **how
        )
        network = RecurrentNetwork(config)
        weights = {"embedding.weight": self.embedding.weight, "output.weight": self.head.weight}
        weights["output.bias"] = self.head.bias
        for i in range(2):
            for direction, suffix in (("fwd", ""), ("bwd", "_reverse")):
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                    source = getattr(self.lstm, f"{name}_l{i}{suffix}")
                    weights[f"recurrent.{i}.{direction}.{name}_l0"] = source
        network.load_state_dict({name: w.detach().clone() for name, w in weights.items()})
        return Parent(network.requires_grad_(False).eval())


def sentences() -> Rows:
    """Made-up sentences: a word mostly has its tag, and tags are as uneven as words."""
    draw = torch.Generator().manual_seed(0)
    count = SENTENCES + 390
    lengths = torch.randint(5, LONGEST, (count,), generator=draw)

    def uneven(kinds: int, size: int) -> Tensor:
        odds = 1 / torch.arange(1, kinds + 1).double()
        return torch.multinomial(odds, size, True, generator=draw)

    values = 1 + uneven(WORDS - 1, count * LONGEST).view(count, LONGEST)
    targets = uneven(TAGS, WORDS)[values]
    other = torch.rand(targets.shape, generator=draw) < 0.15
    targets = torch.where(other, (targets + values.roll(1, 1)) % TAGS, targets)
    valid = torch.arange(LONGEST) < lengths[:, None]
    return Rows(values * valid, lengths, torch.where(valid, targets, -1))


def tagger() -> list[Figure]:
    """A default decomposition of a tagger of 45 tags, and tagging with it; once."""
    torch.manual_seed(0)
    network, rows = Tagger(), sentences()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    train, test = rows[:SENTENCES], rows[SENTENCES:]
    assert train.lengths is not None and test.lengths is not None and train.targets is not None
    started = time.perf_counter()
    for index in torch.randperm(SENTENCES).split(32):  # the other epochs take as long
        steps = int(train.lengths[index].max())
        optimizer.zero_grad()
        logits = network(train.values[index, :steps], train.lengths[index])
        right = train.targets[index, :steps].flatten()
        nn.functional.cross_entropy(logits.flatten(0, 1), right, ignore_index=-1).backward()
        optimizer.step()
    training = EPOCHS * (time.perf_counter() - started)
    made = decompose(network.parent(), train, test)
    note = f"{made.seconds:.1f} s / {training:.1f} s; {made.figures['trunks']:.0f} trunks"
    composite, user = compose(made.modules), network.eval()

    def seconds(run: Any) -> float:
        run()
        started = time.perf_counter()
        run()
        return time.perf_counter() - started

    with torch.inference_mode():
        alone = seconds(lambda: user(test.values, test.lengths))
        ours = seconds(lambda: composite.scores(test))
    return [
        once(f"decomposition / training of {EPOCHS} epochs, {TAGS} tags", made.seconds / training,
             0.25, note),
        once(f"tagging {len(test)} sentences / parent, {TAGS} tags, default", ours / alone, 3.0,
             f"{ours:.2f} s"),
    ]  # fmt: skip
