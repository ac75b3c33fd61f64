"""The data of the examples."""

from __future__ import annotations

import sys
from pathlib import Path

import datasets
import pytest

EXAMPLES = str(Path(__file__).resolve().parent.parent / "examples")
NAMES = (
    "at_once", "attention", "classifier", "clinc", "digits", "lists", "orders", "pictures",
    "several_labels", "stories", "surnames", "tables", "tags", "textcnn", "texts", "training",
    "translate",
)  # fmt: skip


@pytest.fixture(autouse=True)
def examples(monkeypatch: pytest.MonkeyPatch):
    """The examples can be imported as the script imports them."""
    monkeypatch.syspath_prepend(EXAMPLES)
    yield
    for name in NAMES:
        sys.modules.pop(name, None)


def fake_hub(name: str, configuration: str, split: str) -> datasets.Dataset:
    """Rows as the Hub's copy has them: numbers for intents, out-of-scope ones among them."""
    assert (name, configuration) == ("clinc/clinc_oos", "plus")
    intents = ["oos", "weather", "balance"]
    features = datasets.Features(
        text=datasets.Value("string"), intent=datasets.ClassLabel(names=intents)
    )
    rows = {
        "text": [f"{split} {index}" for index in range(9)],
        "intent": [index % 3 for index in range(9)],
    }
    return datasets.Dataset.from_dict(rows, features=features)


def test_clinc_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import clinc

    monkeypatch.setattr(clinc, "load_dataset", fake_hub)
    label, splits = clinc.load_clinc()
    assert label == "intent"
    assert splits.labels == ["balance", "weather"]
    assert sorted(zip(splits.test.texts, splits.test.labels, strict=True)) == [
        ("test 1", "weather"),
        ("test 2", "balance"),
        ("test 4", "weather"),
        ("test 5", "balance"),
        ("test 7", "weather"),
        ("test 8", "balance"),
    ]
    with pytest.raises(ValueError, match=r"label='domain'.*--data-dir"):
        clinc.load_clinc("domain")


def test_clinc_of_a_folder_that_lacks_it(tmp_path: Path) -> None:
    import clinc

    with pytest.raises(FileNotFoundError, match=r"train\.jsonl\.gz.*--data-dir"):
        clinc.load_clinc(data_dir=tmp_path)


def test_surnames() -> None:
    import surnames

    splits = surnames.load_surnames(seed=3)
    assert len(splits.labels) == 12
    parts = [set(part.texts) for part in (splits.train, splits.validation, splits.test)]
    assert sum(map(len, parts)) == len(parts[0] | parts[1] | parts[2]) > 10_000
    for part in (splits.train, splits.validation, splits.test):
        assert set(part.labels) == set(splits.labels)
    assert "Oberhauser" not in parts[0] | parts[1] | parts[2]
    again = surnames.load_surnames(seed=3)
    assert again.train == splits.train
    assert surnames.load_surnames(seed=4).train != splits.train


def test_scarce_labels_stay_in_the_test_rows() -> None:
    import surnames

    splits = surnames.load_surnames(share=0.3)
    scarce = splits.scarce("Zulu", 5)
    assert scarce.train.labels.count("Zulu") == scarce.validation.labels.count("Zulu") == 5
    assert scarce.test == splits.test
    assert scarce.train.labels.count("Irish") == splits.train.labels.count("Irish")


def test_stories_fit_their_labels() -> None:
    import stories
    import surnames

    labels = [f"label {index}" for index in range(10)]
    told = [
        (stories.SURNAMES, set(surnames.LOCALES)),
        (stories.clinc_story("domain", labels), set(labels)),
    ]
    for story, known in told:
        assert set(story.first) | set(story.second) <= known
        assert set(story.first) & set(story.second) == {story.scarce}
        assert set(story.reused) < set(story.first) - {story.scarce}
        assert story.added in set(story.second) - set(story.first)
    assert not {name.casefold() for name in stories.SURNAMES.asked} & {
        name.casefold() for names in surnames.surnames_by_language().values() for name in names
    }


def test_tokenizers() -> None:
    import texts

    letters = texts.build_tokenizer(["Abba", "baff"], "characters")
    assert letters.encode("AbX").tokens == ["a", "b", "[UNK]"]
    words = texts.build_tokenizer(["call me", "Call you"], "words")
    assert words.encode("call her").tokens == ["call", "[UNK]"]
    assert words.token_to_id("[PAD]") == 0


def test_orders_and_their_tags() -> None:
    import orders

    splits = orders.load_orders(lambda order: order, count=60)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [40, 10, 10]
    texts = [*splits.train.texts, *splits.validation.texts, *splits.test.texts]
    assert len(set(texts)) == 60
    for text, order in zip(splits.train.texts, splits.train.labels, strict=True):
        assert len(text.split()) == len(order.tags) and set(order.tags) <= set(orders.TAGS)
        assert len(set(order.courses)) == len(order.courses) >= 1
    word = {
        (word, tag)
        for order in splits.train.labels
        for word, tag in zip(order.text.split(), order.tags, strict=True)
    }
    assert {("drink", "verb"), ("drink", "noun"), ("roast", "adjective")} <= word


def test_an_example_that_tags(tracking_uri: str) -> None:
    import tags

    every, some = tags.main()
    assert every == [
        ["pronoun", "verb", "number", "adjective", "noun"],
        ["pronoun", "verb", "number", "adjective", "noun", "particle", "number", "noun"],
    ]
    assert [row[1] for row in some] == ["verb", "verb"]
    assert {tag for row in some for tag in row} == {"noun", "verb"}


def test_an_example_with_several_labels(tracking_uri: str) -> None:
    import several_labels

    every, sober = several_labels.main()
    assert [set(row) for row in every] == [{"starter", "drink"}, {"dessert"}, {"main", "dessert"}]
    assert [set(row) for row in sober] == [{"starter"}, {"dessert"}, {"main", "dessert"}]


def test_an_example_that_lists(tracking_uri: str) -> None:
    import lists

    every, two = lists.main()
    assert every[:2] == [["starter", "drink"], ["dessert"]]
    assert two[:2] == [["drink"], ["dessert"]]


def test_an_example_that_reads_at_once(tracking_uri: str) -> None:
    import at_once

    every, two = at_once.main()
    assert every == ["Finnish", "Irish", "Italian", "Zulu"]
    assert two[2:] == ["Italian", "Zulu"] and set(two) == {"Italian", "Zulu"}


def test_an_example_that_weights_its_letters(tracking_uri: str) -> None:
    import attention

    every, two = attention.main(share=0.4)
    assert every == ["Finnish", "Irish", "Italian", "Zulu"]
    assert two[2:] == ["Italian", "Zulu"] and set(two) == {"Italian", "Zulu"}


def test_an_example_with_convolutions_over_letters(tracking_uri: str) -> None:
    import textcnn

    assert textcnn.main(share=0.4) == ["Finnish", "Irish", "Italian", "Zulu"]


def test_an_example_that_translates(tracking_uri: str) -> None:
    import translate

    answers = translate.main()
    for code in translate.CODES:
        right = [row[code] for row in answers["right"]]
        found = answers.get(code, [row[code] for row in answers["all"]])
        assert sum(map(str.__eq__, found, right)) > len(right) / 2
    assert answers["de"] == [row["de"] for row in answers["all"]]


def test_an_example_that_mends_a_digit(tracking_uri: str) -> None:
    import digits

    shares = digits.main()
    assert shares["mended all"] > shares["before all"] + 0.005
    assert shares["mended eight"] > shares["before eight"] + 0.1


def test_an_example_of_pictures(tracking_uri: str) -> None:
    import pictures

    shares = pictures.main()
    assert shares["mended all"] > 0.9 and shares["before all"] > 0.8
    assert shares["mended eight"] > shares["before eight"] + 0.1
    assert shares["served"] >= 0.8
