"""The user's forward is called as the user calls it."""

import pytest
import torch

from lightning_callbacks.batches import split
from lightning_callbacks.forwards import find_forward
from tests.callbacks import models

X, LENGTHS, Y = models.token_data(8)
MASK = (X != 0).long()


def test_optional_lengths_are_given_where_the_batch_has_them():
    module = models.WithLengths().eval()
    call = find_forward(module, split((X, LENGTHS, Y)))
    assert torch.equal(call(module), module(X, LENGTHS))
    assert not torch.allclose(call(module), module(X))


def test_optional_lengths_are_left_out_where_the_batch_has_none():
    module = models.WithLengths().eval()
    assert torch.equal(find_forward(module, split((X, Y)))(module), module(X))


def test_lengths_that_forward_does_not_want_are_left_out():
    module = models.Classifier().eval()
    assert torch.equal(find_forward(module, split((X, LENGTHS, Y)))(module), module(X))


@pytest.mark.parametrize(
    "raw",
    [
        {"input_ids": X, "attention_mask": MASK, "labels": Y},
        {"input_ids": X, "attention_mask": MASK, "labels": Y, "idx": Y},
        {"x": X, "mask": MASK, "y": Y},
        (X, MASK, Y),
        ((X, MASK), Y),
    ],
)
def test_masks(raw):
    module = models.WithMask().eval()
    call = find_forward(module, split(raw))
    assert torch.equal(call(module), module(X, MASK)["logits"])


def test_the_whole_batch():
    module = models.TakesBatch().eval()
    raw = {"ids": X, "class": Y}
    call = find_forward(module, split(raw, lambda batch: (batch["ids"], batch["class"])))
    assert torch.equal(call(module), module(raw))


def test_a_copy_can_be_called_the_same_way():
    module, other = models.Classifier().eval(), models.Classifier().eval()
    call = find_forward(module, split((X, Y)))
    assert torch.equal(call(other), other(X))


def test_the_users_own_way_comes_first():
    module = models.WithLengths().eval()
    call = find_forward(module, split((X, LENGTHS, Y)), lambda m, batch: m(batch[0]))
    assert torch.equal(call(module), module(X))


class Wrapped(torch.nn.Module):
    """Answers in some wrapping."""

    def __init__(self, wrap):
        super().__init__()
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(x.float())


class Answer:
    def __init__(self, logits):
        self.logits = logits


@pytest.mark.parametrize(
    "wrap", [lambda t: t, lambda t: (t, None), lambda t: {"logits": t}, Answer]
)
def test_logits_are_found_in_the_answer(wrap):
    module = Wrapped(wrap)
    assert torch.equal(find_forward(module, split((X, Y)))(module), X.float())


def test_a_single_number_for_each_row():
    module = Wrapped(lambda t: t[:, 0])
    assert torch.equal(find_forward(module, split((X, Y)))(module), X[:, :1].float())


@pytest.mark.parametrize(
    "wrap, words",
    [
        (lambda t: t.long(), ["int64 tensor (8, 7)", "float logits"]),
        (lambda t: t[None, None], ["(1, 1, 8, 7)", "(8, labels)", "(8, steps, labels)"]),
        (lambda t: None, ["NoneType"]),
        (lambda t: t @ torch.zeros(3), ["RuntimeError"]),
    ],
)
def test_all_that_was_tried_is_listed(wrap, words):
    with pytest.raises(ValueError) as caught:
        find_forward(Wrapped(wrap), split((X, LENGTHS, Y)))
    for word in [*words, "module(inputs)", "module(inputs, lengths)", "forward="]:
        assert word in str(caught.value)
