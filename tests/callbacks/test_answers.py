"""Networks that tag, list, or answer with several labels: what the callback makes of their data."""

import re

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_callbacks import ModuleDecomposition
from lightning_callbacks.batches import split
from lightning_callbacks.collecting import conform
from mlflow_rnnmod.networks import NetworkConfig, Rows
from tests.callbacks import answers
from tests.callbacks.training import fit

SHAPE = {
    "input": "tokens",
    "input_size": 9,
    "embedding_size": 2,
    "cell": "gru",
    "recurrent": ((3,),),
    "labels": ("a", "b", "c"),
    "pad_index": 0,
}
ALL = {"readout": "all_steps"}
TAGS = NetworkConfig(**SHAPE, **ALL, output="tags")
SEVERAL = NetworkConfig(**SHAPE, output="multilabel")
LIST = NetworkConfig(
    **SHAPE, **ALL, output="list", end_label="c", feed="repeat", steps=4, output_steps=3
)
X = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]])


def targets_of(config, y, lengths=None):
    rows = split((X, y) if lengths is None else (X, lengths, y)).rows
    return conform(rows, config, "data").targets


def test_targets_of_steps():
    y = torch.tensor([[0, 1, -100, 2], [2, 1, 0, 0]])
    assert targets_of(TAGS, y).tolist() == [[0, 1, -1, 2], [2, 1, -1, -1]]
    known = torch.tensor([2, 1])
    assert targets_of(TAGS, y, known).tolist() == [[0, 1, -1, -1], [2, -1, -1, -1]]
    assert targets_of(TAGS, y[:, :3]).tolist() == [[0, 1, -1, -1], [2, 1, -1, -1]]
    assert targets_of(TAGS, y.float()).tolist() == targets_of(TAGS, y).tolist()
    zeros_and_ones = torch.tensor([[0.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    assert targets_of(TAGS, zeros_and_ones).tolist() == [[0, 1, 1, 0], [1, 0, -1, -1]]


def test_lists_end_at_their_end():
    y = torch.tensor([[0, 2, 2], [2, 1, 0]])
    assert targets_of(LIST, y).tolist() == [[0, 2, -1], [2, -1, -1]]
    assert targets_of(LIST, y[:, :1]).tolist() == [[0, -1, -1], [2, -1, -1]]


def test_several_labels_of_any_dtype():
    y = torch.tensor([[0, 1, 1], [0, 0, 0]])
    for given in (y, y.float(), y.bool(), y.double()):
        found = targets_of(SEVERAL, given)
        assert found.dtype == torch.bool and torch.equal(found.long(), y)


def test_packed_targets_and_steps_before_rows():
    lengths = torch.tensor([4, 2])
    y = torch.tensor([[0, 1, 2, 0], [2, 1, 0, 0]])
    packed = torch.nn.utils.rnn.pack_padded_sequence(y, lengths, batch_first=True)
    assert split((X, packed)).rows.targets.tolist() == [[0, 1, 2, 0], [2, 1, -1, -1]]
    turned = split((X.T, lengths, y.T))
    assert torch.equal(turned.rows.values, X) and torch.equal(turned.rows.targets, y)


@pytest.mark.parametrize(
    ("config", "y", "expected"),
    [
        (
            SEVERAL,
            torch.ones(2, 4),
            r"targets of shape \(2, 4\).*zeros and ones of shape \(rows, 3",
        ),
        (SEVERAL, torch.tensor([[0, 1, 2], [0, 0, 1]]), "from 0 to 2, and the network answers"),
        (SEVERAL, torch.tensor([0, 1]), r"targets of shape \(2,\)"),
        (TAGS, torch.tensor([[0, 3, 0, 0], [0, 0, 0, 0]]), "to 3; .*a negative number"),
        (TAGS, torch.zeros(2, 5, dtype=torch.int64), "network answers at 4 steps"),
        (TAGS, torch.rand(2, 4) / 3, "with fractions in it; .*zeros and ones"),
        (TAGS, torch.zeros(2, 4, 3), r"for each step, \(rows, steps\)"),
        (NetworkConfig(**SHAPE), torch.zeros(2, 3), r"network_spec={'kind': 'multilabel'}"),
    ],
)
def test_targets_that_do_not_fit(config, y, expected):
    with pytest.raises(ValueError, match=expected):
        targets_of(config, y)


def test_rows_without_targets():
    with pytest.raises(ValueError, match="has no targets"):
        conform(Rows(X), TAGS, "data")


@pytest.mark.parametrize(
    ("model", "make", "labels", "spec", "expected"),
    [
        (answers.Tagger, answers.tag_data, 3, None, ("tags", "steps")),
        (answers.Several, answers.several_data, 3, None, ("multilabel", "steps")),
        (answers.Lister, answers.list_data, 4, {"end_label": "3"}, ("list", "repeat")),
        (answers.AtOnce, answers.one_data, 3, None, ("label", "flat")),
    ],
)
def test_what_is_decomposed(calls, model, make, labels, spec, expected):
    """Without names for the labels: their number is found too."""
    x, *_, y = make(40)
    test = DataLoader(TensorDataset(*make(20, 2)), 5)
    callback = ModuleDecomposition(network_spec=spec, strict=True, report_data=test)
    fit(callback, model(), answers.loaders_of(make))
    (call,) = calls.decompose
    config = call.parent.network.config
    assert (config.output, config.feed) == expected
    assert config.labels == tuple(map(str, range(labels)))
    assert len(call.train) == 160 and len(call.report) == 20
    targets = call.train.targets
    assert targets.dtype == (torch.bool if config.output == "multilabel" else torch.int64)
    assert targets.shape[1:] == y.shape[1:]
    if config.output == "tags":
        assert torch.equal(targets >= 0, call.parent.network.answered(call.train))


def test_one_label_too_many_is_an_error_before_training(calls):
    callback = ModuleDecomposition(["a", "b"], network_spec={"kind": "tags"})
    with pytest.raises(Exception, match="labels don't match the head"):
        fit(callback, answers.Tagger(), answers.loaders_of(answers.tag_data))
    callback = ModuleDecomposition(network_spec={"kind": "label"})
    with pytest.raises(Exception, match="answers of shape .* are at each step"):
        fit(callback, answers.Tagger(), answers.loaders_of(answers.tag_data))


class Unpacked(answers.Tagger):
    """Reads the padding of its batches, each padded to its own longest row."""

    def forward(self, x, lengths):
        return self.head(self.recurrent(self.embedding(x))[0]).transpose(1, 2)


def trimmed(items):
    """A batch that is padded to its own longest row only."""
    x, lengths, y = (torch.stack(part) for part in zip(*items, strict=True))
    longest = int(lengths.max())
    return x[:, :longest], lengths, y[:, :longest]


@pytest.mark.parametrize(
    ("spec", "steps", "told"),
    [
        (None, 7, "up to 7 steps: inputs will be padded or cut to 7 steps, and not to the 4"),
        ({"steps": 5}, 5, "1 of 97 training rows are longer than 5 steps, up to 7: .* 2 labels of"),
        ({"steps": "any"}, None, None),
    ],
)
def test_taggers_that_read_their_padding_have_room_for_the_longest_row(
    calls, spec, steps, told, recwarn
):
    x, _, y = answers.tag_data(97)
    x[:-1, 4:], y[:-1, 4:] = 0, -100  # all but one row have at most four steps
    x[-1], y[-1] = 5, 1
    callback = ModuleDecomposition(network_spec=spec, strict=True)
    loader = DataLoader(list(zip(x, (x != 0).sum(1), y, strict=True)), 16, collate_fn=trimmed)
    fit(callback, Unpacked(), (loader,))
    assert callback._prepared.given.batch.rows.values.shape[1] == 4
    (call,) = calls.decompose
    assert (call.parent.network.config.steps, call.train.values.shape[1]) == (steps, 7)
    found = [str(w.message) for w in recwarn if "training rows" in str(w.message)]
    assert len(found) == (told is not None) and (told is None or re.search(told, found[0]))


def test_lists_without_an_end_are_told_of(calls):
    with pytest.warns(UserWarning, match=r"NetworkSpec\(end_label=...\)"):
        fit(ModuleDecomposition(), answers.Lister(), answers.loaders_of(answers.list_data))
