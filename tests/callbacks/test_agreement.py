"""A tokenizer that did not make the data set's ids is found out before the first step."""

import pytest
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from lightning_callbacks import ModuleDecomposition
from lightning_callbacks.decomposer import Decomposer
from lightning_callbacks.sources import Sources
from mlflow_rnnmod.inputs.tokenizers import vocabulary_name
from tests.builders import character_encoder, tiny_texts
from tests.callbacks import models
from tests.callbacks.training import fit

ENCODER = character_encoder()
SIZE = ENCODER.tokenizer.get_vocab_size()
TEXTS = [f"{text} äöüßéó'" for text in tiny_texts(96)]  # with the vocabulary's last tokens


class Untrained(models.Classifier):
    """Fails where it is trained at all."""

    def __init__(self, size=SIZE):
        super().__init__()
        self.embedding = nn.Embedding(size, 5, padding_idx=0)

    def training_step(self, batch, batch_idx):
        raise AssertionError("a step was made")


class OfMapping(Untrained):
    def forward(self, input_ids):
        return super().forward(input_ids)


class WithTexts(Dataset):
    """Ids and labels, and the texts beside them."""

    def __init__(self, texts, values):
        self.texts, self.values = texts, values

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, index):
        torch.rand(1)  # as data sets with augmentation do
        return self.values[index], index % 3


def read(texts=TEXTS):
    return ENCODER(texts).values


def loader(values):
    return DataLoader(TensorDataset(values, torch.arange(len(values)) % 3), 16, shuffle=True)


def prepared(data, model=None):
    return Decomposer(models.LABELS, ENCODER.tokenizer).prepare(
        Untrained() if model is None else model, Sources(data)
    )


def test_ids_shifted_by_one_are_refused_before_the_first_step():
    values = read()
    shifted = torch.where(values == 0, 0, values + 1)
    callback = ModuleDecomposition(models.LABELS, ENCODER.tokenizer)
    with pytest.raises(MisconfigurationException, match="shifted by one") as caught:
        fit(callback, Untrained(SIZE + 1), (loader(shifted), loader(shifted)))
    assert "Give the tokenizer that made the data set's ids" in str(caught.value)
    with pytest.raises(MisconfigurationException, match="shifted by one"):
        callback.decompose_checkpoint(None, Untrained(SIZE + 1), loader(shifted))


def test_the_right_tokenizer_is_not_doubted():
    assert prepared(loader(read())).notes == ()


def test_texts_in_batches_are_read_by_the_tokenizer():
    def collate(items):
        texts = [TEXTS[i] for i in items]
        values = read([text.replace("e", "a") for text in texts])
        return {"input_ids": values, "labels": torch.tensor(items) % 3, "text": texts}

    data = DataLoader(list(range(96)), 16, collate_fn=collate)
    with pytest.raises(ValueError, match="of 16 texts of the training data"):
        prepared(data, OfMapping())


@pytest.mark.parametrize("part", [False, True])
def test_texts_beside_a_data_set_are_read_by_the_tokenizer(part):
    right, wrong = (
        Subset(each, range(95, 4, -1)) if part else each
        for each in (
            WithTexts(TEXTS, read()),
            WithTexts(TEXTS, read([text.replace("e", "a") for text in TEXTS])),
        )
    )
    assert prepared(DataLoader(right, 16)).notes == ()
    with pytest.raises(ValueError, match="texts of the training data"):
        prepared(DataLoader(wrong, 16))


def test_what_is_read_does_not_move_random_state():
    model, data = Untrained(), DataLoader(WithTexts(TEXTS, read()), 16, shuffle=True)
    state = torch.get_rng_state()
    prepared(data, model)
    assert torch.equal(torch.get_rng_state(), state)


def test_ids_that_only_later_rows_have_are_told_behind_the_training(monkeypatch, calls):
    monkeypatch.setattr("lightning_callbacks.agreeing.ROWS", 16)
    values = read()
    values[90, 0] = SIZE
    callback = ModuleDecomposition(models.LABELS, ENCODER.tokenizer, strict=True)
    with pytest.warns(UserWarning, match=f"no tokens of the tokenizer \\({SIZE}; it has {SIZE}"):
        callback.decompose_checkpoint(None, Untrained(SIZE + 1), loader(values))
    assert calls.decompose


@pytest.mark.parametrize("vocabulary", ["words of 2024", ENCODER.tokenizer])
def test_models_that_take_token_ids_are_told_what_these_mean(calls, vocabulary):
    callback = ModuleDecomposition(models.LABELS, vocabulary=vocabulary, strict=True)
    fit(callback)
    assert calls.decompose[0].parent.vocabulary == vocabulary_name(vocabulary)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"vocabulary": ""}, "vocabulary='', expected a name"),
        ({"vocabulary": "words", "tokenizer": ENCODER.tokenizer}, "together with tokenizer"),
    ],
)
def test_vocabularies_that_do_not_fit(options, said):
    with pytest.raises(MisconfigurationException, match=said):
        fit(ModuleDecomposition(models.LABELS, **options), Untrained())


def test_a_model_that_reads_features_has_no_vocabulary():
    data = DataLoader(TensorDataset(*models.feature_data()), 16)
    with pytest.raises(MisconfigurationException, match="vocabulary is given, but the model reads"):
        fit(ModuleDecomposition(models.LABELS, vocabulary="words"), models.Features(), (data, data))


@pytest.mark.parametrize("often", [False, True])
def test_padding_that_the_tokenizer_has_no_token_for_is_no_alarm(often):
    """Batches of rows of like lengths: in most of them nothing is padded."""
    rows = [[int(i) for i in row if i] for row in read()]
    batches = []
    for start in range(0, 96, 4):
        own = rows[start : start + 4]
        if often or start == 40:
            steps = max(map(len, own)) + 2
            padded = [row + [SIZE] * (steps - len(row)) for row in own]
        else:
            steps = min(map(len, own))
            padded = [row[:steps] for row in own]
        batches.append((torch.tensor(padded), torch.arange(4) % 3))
    model = Untrained(SIZE + 1)
    model.embedding = nn.Embedding(SIZE + 1, 5)
    spec = {"readout": "last_step", "packed": False}
    decomposer = Decomposer(models.LABELS, ENCODER.tokenizer, network_spec=spec)
    notes = decomposer.prepare(model, Sources(DataLoader(batches, None))).notes
    assert not [note for note in notes if "no tokens" in note]
