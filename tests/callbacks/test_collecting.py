"""Rows are read without disturbing whoever trains with the dataloader."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from lightning_callbacks.collecting import (
    collect,
    flatten_loaders,
    random_state_kept,
    read_batches,
    sampled_indices,
)
from lightning_callbacks.sources import transfer_hooks
from mlflow_rnnmod.networks import NetworkConfig, Rows
from tests.callbacks import models

X, LENGTHS, Y = models.token_data(20)
DATA = TensorDataset(X, Y)


def same(raw):
    return raw


def reads(labels=3, pad_index=0, side="right", **options):
    """A network that reads such rows."""
    shape = {"input": "features", "input_size": 3, "embedding_size": None}
    if pad_index is not None:
        shape = {"input": "tokens", "input_size": 20, "embedding_size": 4}
    return NetworkConfig(
        **shape,
        cell="gru",
        recurrent=((3,),),
        labels=tuple("abcdefgh"[:labels]),
        pad_index=pad_index,
        side=side,
        **options,
    )


def rows_of(loader, **options):
    batches = read_batches(loader, same, **options)
    return collect(batches, reads(), "test data", options.get("max_rows"))


def as_set(rows):
    return {(tuple(x), y) for x, y in zip(rows.values.tolist(), rows.targets.tolist(), strict=True)}


EXPECTED = as_set(Rows(X, None, Y))


class Noisy(TensorDataset):
    """Augments with all three sources of random numbers."""

    def __getitem__(self, index):
        torch.rand(3), np.random.rand(3), random.random()
        return super().__getitem__(index)


class Stream(IterableDataset):
    def __iter__(self):
        return zip(X, Y, strict=True)


class Bucketed(BatchSampler):
    """A batch sampler of the user's own, with a state."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(3)

    def __iter__(self):
        order = torch.randperm(20, generator=self.generator).tolist()
        yield order[:13]
        yield order[13:]

    def __len__(self):
        return 2


def epochs(loader, count=2):
    return [[batch[1].tolist() for batch in loader] for _ in range(count)]


def make(kind):
    generator = torch.Generator().manual_seed(7)
    weights = torch.ones(20)
    options = {
        "shuffled": {"shuffle": True},
        "own generator": {"shuffle": True, "generator": generator},
        "workers": {"shuffle": True, "num_workers": 1, "persistent_workers": True},
        "weighted": {"sampler": WeightedRandomSampler(weights, 60, generator=generator)},
        "random sampler": {"sampler": RandomSampler(DATA, generator=generator)},
        "subset sampler": {"sampler": SubsetRandomSampler(range(20), generator=generator)},
    }
    if kind == "bucketed":
        return DataLoader(Noisy(X, Y), batch_sampler=Bucketed())
    if kind == "no batching":
        batches = models.ListDataset([(X[:9], Y[:9]), (X[9:], Y[9:])])
        return DataLoader(batches, batch_size=None, shuffle=True)
    if kind == "stream":
        return DataLoader(Stream(), batch_size=6)
    return DataLoader(Noisy(X, Y), batch_size=6, **options[kind])


KINDS = [
    "shuffled",
    "own generator",
    "workers",
    "weighted",
    "random sampler",
    "subset sampler",
    "bucketed",
    "no batching",
    "stream",
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_once_and_the_training_sees_what_it_would_have_seen(kind):
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    expected = epochs(make(kind))
    after = torch.rand(1), np.random.rand(), random.random()

    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    loader = make(kind)
    rows = rows_of(loader)
    next(read_batches(loader, same))  # and one that is not read to its end
    assert len(rows) == len(set(sampled_or_all(loader)))
    assert as_set(rows) == EXPECTED or kind == "weighted"
    assert as_set(rows) <= EXPECTED
    assert epochs(loader) == expected
    assert (torch.rand(1), np.random.rand(), random.random()) == after


def sampled_or_all(loader):
    return sampled_indices(loader) if hasattr(loader.dataset, "tensors") else range(20)


def test_a_plain_iterable():
    batches = [(X[:9], Y[:9]), (X[9:], Y[9:])]
    rows = collect(read_batches(iter_only(batches), same), reads(), "x")
    assert rows.values.tolist() == X.tolist()


def iter_only(batches):
    class Iterable:
        def __iter__(self):
            return iter(batches)

    return Iterable()


def test_a_loader_with_its_own_iteration_is_iterated():
    class Doubling(DataLoader):
        def __iter__(self):
            for x, y in super().__iter__():
                yield x * 2, y

    rows = rows_of(Doubling(DATA, batch_size=7, shuffle=True))
    assert as_set(rows) == as_set(Rows(X * 2, None, Y))


def test_the_order_is_the_seeds():
    loader = DataLoader(DATA, batch_size=6, shuffle=True)
    first, again, other = (rows_of(loader, seed=seed).values.tolist() for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_a_split_by_samplers_is_kept():
    chosen = SubsetRandomSampler([0, 3, 5])
    loader = DataLoader(DATA, batch_size=2, sampler=chosen)
    assert as_set(rows_of(loader)) == as_set(Rows(X[[0, 3, 5]], None, Y[[0, 3, 5]]))
    assert sampled_indices(DataLoader(DATA, sampler=iter_only([4, 4, 2]))) == [2, 4]
    half = DataLoader(Subset(DATA, [1, 2]), batch_size=2)
    assert as_set(rows_of(half)) == as_set(Rows(X[1:3], None, Y[1:3]))


def test_a_sampler_that_never_ends():
    class Endless:
        def __iter__(self):
            while True:
                yield 1
                yield 3

    assert sampled_indices(DataLoader(DATA, sampler=Endless())) == [1, 3]


def test_a_batch_sampler_over_a_sampler():
    sampler = BatchSampler(SequentialSampler(DATA), 4, drop_last=True)
    assert as_set(rows_of(DataLoader(DATA, batch_sampler=sampler))) == EXPECTED


@pytest.mark.parametrize("limit", [1, 6, 13, 20, 50])
@pytest.mark.parametrize(
    "loader", [DataLoader(DATA, 6), DataLoader(Stream(), 6)], ids=["map", "stream"]
)
def test_at_most_so_many_rows(loader, limit):
    assert len(rows_of(loader, max_rows=limit)) == min(limit, 20)


def test_several_loaders():
    first, second = DataLoader(Subset(DATA, range(8)), 3), DataLoader(Subset(DATA, range(8, 20)), 3)
    assert as_set(rows_of([first, second])) == EXPECTED
    assert as_set(rows_of({"a": first, "b": [second]})) == EXPECTED
    assert flatten_loaders(None) == []
    assert rows_of([]) is None


def test_larger_batches_where_asked():
    sizes = {
        least: len(next(read_batches(DataLoader(DATA, 2), same, least_rows=least)).rows)
        for least in (1, 16)
    }
    assert sizes == {1: 2, 16: 16}


def test_batches_of_different_length_are_padded_on_the_side_of_the_padding():
    parts = [
        (torch.tensor([[1, 2, 3]]), torch.tensor([0])),
        (torch.tensor([[4]]), torch.tensor([1])),
    ]
    for side, expected in (("right", [4, 9, 9]), ("left", [9, 9, 4])):
        rows = collect(read_batches(iter_only(parts), same), reads(2, 9, side), "x")
        assert rows.values.tolist() == [[1, 2, 3], expected]


@pytest.mark.parametrize(
    ("side", "values", "targets"),
    [("right", [4, 9, 9], [1, -1, -1]), ("left", [9, 9, 4], [-1, -1, 1])],
)
def test_targets_of_steps_are_padded_like_the_inputs(side, values, targets):
    parts = [
        (torch.tensor([[1, 2, 3], [1, 2, 9]]), torch.tensor([[0, 1, 0], [1, -100, 1]])),
        (torch.tensor([[4], [5]]), torch.tensor([[1], [0]])),
    ]
    config = reads(2, 9, side, output="tags", readout="all_steps")
    rows = collect(read_batches(iter_only(parts), same), config, "x")
    assert rows.values[2].tolist() == values and rows.targets[2].tolist() == targets
    assert rows.targets[:2].tolist() == [[0, 1, 0], [1, -1, -1 if side == "right" else 1]]


def test_features_of_different_length_need_lengths():
    parts = [(torch.randn(2, 5, 3), [0, 1]), (torch.randn(2, 4, 3), [1, 1])]
    with pytest.raises(ValueError, match="batches of 4 to 5 steps without lengths"):
        collect(read_batches(iter_only(parts), same), reads(2, None), "x")
    parts = [(x, torch.tensor([x.shape[1], 2]), y) for x, y in parts]
    rows = collect(read_batches(iter_only(parts), same), reads(2, None), "x")
    assert rows.lengths.tolist() == [5, 2, 4, 2]
    assert rows.values.shape == (4, 5, 3)


@pytest.mark.parametrize("targets", [[0, 3], [-1, 0], [-100, 1]])
def test_targets_that_are_no_label(targets):
    batches = read_batches(iter_only([(X[:2], targets)]), same)
    with pytest.raises(ValueError, match=f"from {targets[0]} to {targets[1]}; .* 0 to 2"):
        collect(batches, reads(), "x")


def test_random_state_is_kept_after_an_error_too():
    own = torch.Generator().manual_seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    mine = own.get_state()
    with pytest.raises(KeyError), random_state_kept(own, None):
        torch.rand(2), np.random.rand(2), random.random(), torch.rand(2, generator=own)
        raise KeyError
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert before[2] == random.getstate()
    assert torch.equal(mine, own.get_state())


def test_transfer_hooks_of_the_user_are_called_and_the_datamodules_come_first():
    class Hooks:
        def __init__(self, name):
            self.name = name

        def on_before_batch_transfer(self, batch, dataloader_idx):
            return [*batch, f"before {self.name}"]

        def on_after_batch_transfer(self, batch, dataloader_idx):
            return [*batch, f"after {self.name}"]

    class Moving:
        def transfer_batch_to_device(self, batch, device, dataloader_idx):
            return [*batch, str(device)]

        def on_after_batch_transfer(self, batch, dataloader_idx):
            return [*batch, "moved"]

    assert transfer_hooks(models.Classifier())(["x"]) == ["x"]
    assert transfer_hooks(Hooks("model"))([]) == ["before model", "after model"]
    assert transfer_hooks(Hooks("model"), Moving())([]) == ["before model", "cpu", "moved"]


def test_float_inputs_take_the_dtype_of_the_weights():
    moved = transfer_hooks(models.Features(), None, torch.float64)((torch.ones(1), Y))
    assert moved[0].dtype == torch.float64
    assert moved[1].dtype == torch.int64
