"""The benchmarks' encoder-decoder, its batches, and the parent made of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.data import TranslationData
from benchmarks.translators import (
    END,
    PAD,
    EncoderDecoder,
    PairBatches,
    Pairs,
    TranslatorTraining,
    bleu_scores,
    learn_tokenizers,
    to_translator,
    trained_translator,
    translations,
    translator_parent,
)
from mlflow_rnnmod.networks import TextEncoder

SMALL = TranslatorTraining(
    units=12, embedding=8, source_vocabulary=60, vocabulary=40, epochs=1, batch_size=3
)


def sentences() -> TranslationData:
    one = ["a red dog", "the dog", "a cat and a dog", "red", "the red cat runs", "a dog"]
    two = [
        "ein roter Hund",
        "der Hund",
        "eine Katze und ein Hund",
        "rot",
        "die rote Katze",
        "ein Hund",
    ]
    three = ["un cane rosso", "il cane", "un gatto e un cane", "rosso", "il gatto corre", "un cane"]
    split = {"en": one * 3, "de": two * 3, "it": three * 3}
    splits = dict.fromkeys(("train", "validation", "test"), split)
    return TranslationData("animals", splits, "en", ("de", "it"))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_a_parent_translates_as_the_network(cell: str, layers: int) -> None:
    data, training = sentences(), replace(SMALL, cell=cell, layers=layers)
    source, target = learn_tokenizers(data, training)
    torch.manual_seed(0)
    network = EncoderDecoder(
        source.tokenizer.get_vocab_size(), target.tokenizer.get_vocab_size(), training
    ).eval()
    for parameter in network.parameters():
        parameter.detach().mul_(3)  # so that it does not say the same all the time
    kept = {
        "weights": network.state_dict(),
        "source_tokenizer": source.json,
        "target_tokenizer": target.json,
    }
    parent = to_translator(kept, data.targets, training)
    assert parent.labels == ("de", "it")
    rows = source(data.sources("test"))
    assert rows.lengths is not None
    for code in data.targets:
        start = target.tokenizer.token_to_id(f"[{code}]")
        expected = network.translate(rows.values, rows.lengths, start)
        assert parent.network.translate(rows, code) == expected
        assert sum(map(len, expected)) > len(expected)


def test_trained_and_kept(tmp_path: Path) -> None:
    data = sentences()
    parent, seconds = translator_parent(data, SMALL, tmp_path)
    again, same = translator_parent(data, SMALL, tmp_path)
    assert again.digest == parent.digest and same == seconds
    other, _ = translator_parent(data.only(["it"]), SMALL, tmp_path)
    assert other.labels == ("it",)
    assert trained_translator(data, SMALL, tmp_path)["epochs"] == 1


def test_sentences_without_a_translation_are_left_out() -> None:
    data = sentences()
    more = TranslationData(
        "more",
        {"train": {"en": ["a cow", "red"], "it": ["una mucca", "rosso"]}},
        "en",
        ("it",),
    )
    both = data.with_more(more)
    assert both.sources("train") == [*data.sources("train"), "a cow"]
    assert both.references("train", "it")[-1] == "una mucca"
    assert both.references("train", "de")[-1] is None
    assert both.sources("test") == data.sources("test")
    source, target = learn_tokenizers(both, SMALL)
    pairs = Pairs.of(both, "train", source, target)
    german, italian = (targets[-1] for targets in pairs.targets)
    assert not german.any() and int((italian == END).sum()) == 1


def test_batches_hold_every_sentence_once() -> None:
    data = sentences()
    source, target = learn_tokenizers(data, SMALL)
    pairs = Pairs.of(data, "train", source, target)
    longest = torch.stack([pairs.lengths, *((t != PAD).sum(1) for t in pairs.targets)]).amax(0)
    limit = int(longest.max()) - 1
    cut = pairs.shorter(limit)
    assert len(cut.lengths) == int((longest <= limit).sum()) < len(pairs.lengths)
    torch.manual_seed(0)
    batches = PairBatches(cut, 3)
    seen = []
    for read, written in batches:
        assert not (read == PAD).any()
        assert len(written) == 2 * len(read)
        assert ((written == END).sum(1) == 1).all()
        starts = [target.tokenizer.id_to_token(i) for i in written[:, 0].tolist()]
        assert starts == ["[de]"] * len(read) + ["[it]"] * len(read)
        texts = source.tokenizer.decode_batch(read.tolist())
        answers = target.tokenizer.decode_batch(written.tolist())
        for place, text in enumerate(texts):
            row = data.sources("train").index(text)
            assert answers[place] == data.references("train", "de")[row]
            assert answers[len(read) + place] == data.references("train", "it")[row]
        seen += texts
    assert len(seen) == len(cut.lengths)
    assert sum(1 for _ in batches) == len(batches)


class Reciter(EncoderDecoder):
    """Says what it was told to."""

    said: list[list[int]]

    def translate(self, source, lengths, start):
        found, self.said = self.said[: len(source)], self.said[len(source) :]
        return found


def test_bleu_and_the_order_of_sentences() -> None:
    data = sentences().only(["de"])
    source, target = learn_tokenizers(data, SMALL)
    network = Reciter(60, 40, SMALL)
    rows = source(data.sources("test"))
    order = rows.lengths.argsort(stable=True).tolist()
    spoken = [target.tokenizer.encode(text).ids for text in data.references("test", "de")]
    network.said = [spoken[i] for i in order]
    found = translations(network, data.sources("test"), "de", source, target, batch_size=5)
    assert found == data.references("test", "de")
    network.said = [spoken[i] for i in order]
    assert bleu_scores(network, data, "test", source, target) == {"de": pytest.approx(100)}
    assert isinstance(target, TextEncoder)
