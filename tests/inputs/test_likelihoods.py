"""Likelihoods against slow references: dictionaries of n-grams, PyTorch's own Gaussians."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_rnnmod.inputs import DENSITIES, density_of, ngrams
from mlflow_rnnmod.inputs.gaussian import (
    ImageDensity,
    StepDensity,
    VectorDensity,
    cosines,
    projection,
)
from mlflow_rnnmod.inputs.normaliser import Sequences, characters_of, hashed, words_of
from mlflow_rnnmod.inputs.wording import Characters, Ids, Words, text_density
from mlflow_rnnmod.networks import Rows, TextEncoder
from tests.builders import character_encoder

TEXTS = ["the cat sat", "the cat ran", "a dog sat", "the dog ran", "a cat sat"] * 3
LABELS = torch.tensor([0, 0, 1, 1, 0] * 3)


def both(labels: torch.Tensor, count: int = 2) -> torch.Tensor:
    return torch.nn.functional.one_hot(labels, count).bool()


def witten_bell(texts: list[str], asked: str) -> float:
    """Interpolated bigrams of words, from dictionaries, every one of them seen at least twice."""
    words, pairs, heads, followers = Counter(), Counter(), Counter(), {}
    for text in texts:
        row = ["<s>", *text.split(), "</s>"]
        for before, word in zip(row, row[1:], strict=False):
            words[word] += 1
            pairs[before, word] += 1
            heads[before] += 1
            followers.setdefault(before, set()).add(word)
    total, types = sum(words.values()), len(words)
    found, row = 0.0, ["<s>", *asked.split(), "</s>"]
    for before, word in zip(row, row[1:], strict=False):
        one = (words[word] + types / ngrams.VOCABULARY) / (total + types)
        if before in heads:
            kinds = len(followers[before])
            one = (pairs[before, word] + kinds * one) / (heads[before] + kinds)
        found += math.log(one)
    return found


@pytest.mark.parametrize("asked", ["the cat sat", "a dog ran", "the sat", "", "strange cat words"])
def test_bigrams_are_witten_and_bells(asked, monkeypatch):
    monkeypatch.setattr(ngrams, "FEW_STEPS", 0)  # no parent behind them
    density, counts = Words(), Words().counts(2)
    counts.add(density.of_inputs(TEXTS), both(LABELS))
    found = density.stack(counts.likelihoods())(density.of_inputs([asked]))[0]
    for label in range(2):
        own = [text for text, y in zip(TEXTS, LABELS.tolist(), strict=True) if y == label]
        steps = len(asked.split()) + 1
        rounding = 1.1 * steps / ngrams.STEP  # half a step for a probability, half for a weight
        assert float(found[label]) == pytest.approx(witten_bell(own, asked), abs=rounding)


def test_a_label_with_few_rows_has_its_parents_words_behind_it():
    density, counts = Words(), Words().counts(2)
    texts = ["green tea please"] * 2 + ["black coffee now"] * 200
    counts.add(density.of_inputs(texts), both(torch.tensor([0] * 2 + [1] * 200)))
    few = density.stack(counts.likelihoods())(density.of_inputs(["coffee", "zebra"]))[:, 0]
    assert few[0] > few[1] + 1  # of its own texts neither word


@pytest.mark.parametrize("density", [Words(), Characters()], ids=["words", "characters"])
def test_what_was_seen_once_is_not_stored(density):
    counts = density.counts(2)
    counts.add(density.of_inputs(["secret name", *TEXTS]), both(torch.tensor([0, *LABELS])))
    other = density.counts(2)
    other.add(density.of_inputs(["hidden town", *TEXTS]), both(torch.tensor([0, *LABELS])))
    stored = [each.likelihoods()[0].tensors["keys"] for each in (counts, other)]
    once, known = (set(ngrams.unpacked(keys).tolist()) for keys in stored)
    parts = words_of if density.kind == "words" else characters_of
    hashes = ngrams.grams_of(hashed([parts("secret")]), density.order)[0]
    mine = {int(k) & ngrams.SHORT for level in hashes for k in level.keys} - known
    assert mine and not mine & once


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.text("abc ", max_size=8), min_size=1, max_size=12),
    st.integers(0, 12),
    st.sampled_from([Words, Characters]),
)
def test_parts_that_are_merged_are_as_one_pass(texts, cut, kind):
    density = kind()
    carried = both(torch.arange(len(texts)) % 2)
    whole, first, second = (density.counts(2) for _ in range(3))
    whole.add(density.of_inputs(texts), carried)
    for part, counts in ((slice(0, cut), first), (slice(cut, None), second)):
        counts.add(density.of_inputs(texts[part]), carried[part])
    for a, b in zip(whole.likelihoods(), first.merge(second).likelihoods(), strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.facts == b.facts
            assert all(torch.equal(a.tensors[name], b.tensors[name]) for name in a.tensors)


def test_gaussians_are_pytorchs_and_merge():
    draw = torch.Generator().manual_seed(0)
    rows = Rows(torch.randn(400, 3, generator=draw) * torch.tensor([1.0, 2.0, 0.5]))
    carried = both(torch.arange(400) % 2)
    density = VectorDensity(3)
    whole, first, second = (density.counts(2) for _ in range(3))
    whole.add(density.of_rows(rows), carried)
    first.add(density.of_rows(rows[slice(0, 130)]), carried[:130])
    second.add(density.of_rows(rows[slice(130, None)]), carried[130:])
    merged = density.stack(first.merge(second).likelihoods())(rows.values)
    found = density.stack(whole.likelihoods())(density.of_rows(rows))
    assert torch.allclose(found, merged, atol=1e-4)
    own = [rows.values[carried[:, y]].double() for y in range(2)]
    spread = [torch.cov(x.T, correction=0) for x in own]
    pooled = (spread[0] + spread[1]) / 2
    floor = 1e-3 * pooled.diagonal().mean() * torch.eye(3)
    for label in range(2):
        covariance = 0.95 * spread[label] + 0.05 * pooled + floor
        right = torch.distributions.MultivariateNormal(own[label].mean(0), covariance)
        assert torch.allclose(found[:, label].double(), right.log_prob(rows.values), atol=1e-3)


@pytest.mark.parametrize("rows", [1, 2])
def test_labels_with_hardly_a_row_have_a_gaussian_that_is_finite(rows):
    values = torch.cat([torch.rand(50, 100), torch.rand(rows, 100)])
    density = VectorDensity(100)
    counts = density.counts(2)
    counts.add(density.of_rows(Rows(values)), both(torch.tensor([0] * 50 + [1] * rows)))
    found = density.stack(counts.likelihoods())(density.of_rows(Rows(values)))
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 5, 3), (1, 1, 4)])
def test_the_basis_of_images_is_orthonormal(shape):
    basis = cosines(*shape)
    count = basis.shape[1]
    assert count <= 64 and torch.allclose(basis.T @ basis, torch.eye(count), atol=1e-5)
    assert ImageDensity(*shape).of_rows(Rows(torch.rand(2, *shape))).shape == (2, count)


@pytest.mark.parametrize("size", [1, 5, 64, 65, 784, 1000])
def test_projections_are_the_same_each_time(size):
    assert projection(size).shape == (size, min(size, 64))
    projection.cache_clear()
    assert torch.equal(projection(size), projection(size))


@pytest.mark.parametrize("side", ["right", "left"])
def test_summaries_of_steps_pass_padding_over(side):
    steps, padding = torch.rand(1, 4, 2), torch.full((1, 3, 2), 9.0)
    parts = (steps, padding) if side == "right" else (padding, steps)
    padded = Rows(torch.cat(parts, dim=1), torch.tensor([4]))
    density = StepDensity(2)
    assert torch.allclose(density.of_rows(padded, side=side), density.of_rows(Rows(steps)))


@pytest.mark.parametrize("side", ["right", "left"])
def test_characters_are_read_back_from_a_parents_rows(side):
    encoder = character_encoder(side=side)
    texts = ["abc", "Größe", "o' b a"]
    rows = encoder(texts)
    density = text_density(encoder)
    assert isinstance(density, Characters)
    found, raw = density.of_rows(rows, encoder, side), density.of_inputs(texts)
    assert torch.equal(found.lengths, raw.lengths) and torch.equal(found.values, raw.values)


@pytest.mark.parametrize("kind", ["words", "pieces"])
def test_words_are_read_back_from_a_parents_rows(kind):
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    texts = ["What's the time in Rome?", "the time", "call my mother at 17"]
    word = kind == "words"
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]") if word else models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    if word:
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.WordLevelTrainer(special_tokens=["[PAD]", "[UNK]"])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(special_tokens=["[PAD]"], vocab_size=300)
    tokenizer.train_from_iterator(texts, trainer)
    encoder = TextEncoder(tokenizer)
    density = text_density(encoder)
    assert isinstance(density, Words)
    found, raw = density.of_rows(encoder(texts), encoder), density.of_inputs(texts)
    assert torch.equal(found.values, raw.values) and torch.equal(found.lengths, raw.lengths)


def test_ids_without_padding():
    rows = Rows(torch.tensor([[3, 4, 0], [5, 0, 0]]), torch.tensor([2, 1]))
    assert Ids(9).of_rows(rows).lengths.tolist() == [2, 1]


@pytest.mark.parametrize(
    "text", ["", "   ", "日本語 テキスト", "\ud800", "x" * 100_000, "a b " * 30_000]
)
@pytest.mark.parametrize("density", [Words(), Characters()], ids=["words", "characters"])
def test_odd_texts_have_a_likelihood(density, text):
    counts = density.counts(2)
    counts.add(density.of_inputs(TEXTS), both(LABELS))
    seen = density.of_inputs([text])
    found = density.stack(counts.likelihoods())(seen)
    assert torch.isfinite(found).all()
    # Only so many steps of a long text count.
    assert float(density.vote(found, density.sizes(seen)).abs().max()) < 12 * 25


def test_a_long_text_says_as_much_as_a_short_one():
    density = Words()
    counts = density.counts(2)
    counts.add(density.of_inputs(TEXTS), both(LABELS))
    seen = density.of_inputs(["the cat sat " * n for n in (4, 400)])
    votes = density.vote(density.stack(counts.likelihoods())(seen), density.sizes(seen))
    assert float((votes[0, 0] - votes[0, 1]) / (votes[1, 0] - votes[1, 1])) == pytest.approx(1, 0.1)


@pytest.mark.parametrize(
    ("space", "words"),
    [("words-2", "reads version 1"), ("smells-1", "expected one of"), ("words-1:7", "nothing")],
)
def test_spaces_that_nobody_knows(space, words):
    with pytest.raises(ValueError, match=words):
        density_of(space)


def test_spaces_have_the_densities_that_name_them():
    made = [Words(), Characters(), Ids(7), VectorDensity(9), ImageDensity(1, 2, 3), StepDensity(2)]
    assert {each.kind for each in made} == set(DENSITIES)
    for each in made:
        assert density_of(each.space).space == each.space


def test_no_texts_at_all():
    density = Words()
    counts = density.counts(2)
    counts.add(density.of_inputs(["", ""]), both(torch.tensor([0, 1])))
    assert isinstance(density.of_inputs([]), Sequences)
    there = [each for each in counts.likelihoods() if each is not None]
    assert all(each.bytes < 100 for each in there)
