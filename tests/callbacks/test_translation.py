"""The callback on encoder-decoders."""

from __future__ import annotations

from types import SimpleNamespace

import mlflow
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.data import DataLoader, TensorDataset

import mlflow_rnnmod
from lightning_callbacks import ModuleDecomposition
from lightning_callbacks.batches import split
from lightning_callbacks.readers import Settings
from lightning_callbacks.readers.translator import PreparedTranslator
from mlflow_rnnmod.decomposition import Pairs
from mlflow_rnnmod.networks import TranslatorSpec
from tests.callbacks.training import equal, fit, states
from tests.translators import LANGUAGES, PAD, plain_ids, sentences, word_encoder

CODES = tuple(LANGUAGES)
SPEC = {"starts": [3, 4, 5], "end": 2}
ENCODER = word_encoder()


class Model(pl.LightningModule):
    """Trained for one step only: what it says does not matter, who says it does."""

    def __init__(self, lengths: bool = False, units: int = 8) -> None:
        super().__init__()
        self.lengths = lengths
        self.embedding = nn.Embedding(45, 6, padding_idx=0)
        self.reader = nn.LSTM(6, units, batch_first=True, bidirectional=True)
        self.to_h, self.to_c = nn.Linear(2 * units, units), nn.Linear(2 * units, units)
        self.writer = nn.LSTM(6, units, batch_first=True)
        self.out = nn.Linear(units, 45)

    def forward(self, source, *rest):
        lengths = rest[0] if self.lengths else (source != 0).sum(1).cpu()
        x = pack_padded_sequence(
            self.embedding(source), lengths, batch_first=True, enforce_sorted=False
        )
        _, (h, c) = self.reader(x)
        h, c = (torch.cat([part[0], part[1]], dim=1) for part in (h, c))
        first = torch.tanh(self.to_h(h))[None], torch.tanh(self.to_c(c))[None]
        return self.out(self.writer(self.embedding(rest[-1]), first)[0])

    def training_step(self, batch, _):
        *inputs, target = batch
        logits, wanted = self(*inputs, target[:, :-1]), target[:, 1:]
        return nn.functional.cross_entropy(logits[wanted != 0], wanted[wanted != 0])

    def validation_step(self, batch, _):
        pass

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


def loader(count: int = 40, seed: int = 0, lengths: bool = False, codes=CODES) -> DataLoader:
    """Each sentence once into each language, one after the other."""
    texts, targets = sentences(count, seed)
    rows = ENCODER([text for text in texts for _ in codes])
    ids = [ENCODER.ids(targets[code]) for code in codes]
    told = [
        torch.tensor([SPEC["starts"][CODES.index(code)], *ids[k][i], SPEC["end"]])
        for i in range(count)
        for k, code in enumerate(codes)
    ]
    right = nn.utils.rnn.pad_sequence(told, batch_first=True, padding_value=PAD)
    parts = (rows.values, rows.lengths, right) if lengths else (rows.values, right)
    return DataLoader(TensorDataset(*parts), 32)


def callback(**options) -> ModuleDecomposition:
    options = {
        "labels": CODES,
        "tokenizer": ENCODER.json,
        "network_spec": SPEC,
        "removal": 0.25,
        "strict": True,
        **options,
    }
    return ModuleDecomposition(**options)


@pytest.mark.parametrize("lengths", [False, True])
def test_an_encoder_decoder_is_taken_apart_and_logged(tracking_uri, lengths):
    torch.manual_seed(0)
    modules, model = callback(registered_model_prefix="digits"), Model(lengths)
    data = loader(lengths=lengths), loader(20, 1, lengths)
    fit(modules, model, data, max_epochs=3)
    found = modules.decomposition
    assert [module.label for module in found.modules] == list(CODES)
    assert found.metric == "bleu" and found.figures["modules"] == 3
    assert all(module.trunk.kept == 6 for module in found.modules)
    assert found.parent.tokenizer.digest == ENCODER.digest
    texts = sentences(5, 2)[0]
    composite = mlflow_rnnmod.compose([modules.logged.uris[code] for code in CODES])
    assert composite.predict(texts) == mlflow_rnnmod.compose(found.modules).predict(texts)
    assert mlflow.MlflowClient().get_registered_model("digits.fr").name == "digits.fr"
    # The network that was taken apart is the model.
    rows = ENCODER(texts)
    tokens = torch.tensor([[4, 7, 8]] * 5)
    model.eval()
    inputs = (rows.values, rows.lengths, tokens) if lengths else (rows.values, tokens)
    torch.testing.assert_close(
        found.parent.network(rows, tokens), model(*inputs), atol=1e-5, rtol=1e-5
    )


def test_training_is_as_it_would_be_without(tracking_uri):
    ends = []
    for callbacks in ([callback()], []):
        pl.seed_everything(1)
        model = Model()
        trainer = pl.Trainer(
            max_epochs=1,
            callbacks=callbacks,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            accelerator="cpu",
        )
        trainer.fit(model, loader(), loader(20, 1))
        ends.append(states(model))
    assert equal(*ends)


def test_rows_become_sentences_of_the_language_they_start_with(calls):
    fit(callback(), Model(), (loader(6), loader(3, 1)))
    train = calls.decompose[0].train
    assert isinstance(train, Pairs) and len(train) == 18
    texts, targets = sentences(6, 0)
    ids = plain_ids(train.sources)
    for code in CODES:
        known = train.known(code).nonzero()[:, 0].tolist()
        found = {
            (ENCODER.decode([ids[i]])[0], ENCODER.decode([plain_ids(train.targets[code])[i]])[0])
            for i in known
        }
        assert found == set(zip(texts, targets[code], strict=True))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("side", "given", "expected"),
    [
        ("right", [[7, 8, 0, 0], [9, 7, 9, 0]], [[7, 8, 0], [9, 7, 9]]),
        ("left", [[0, 0, 7, 8], [0, 9, 7, 9]], [[0, 7, 8], [9, 7, 9]]),
    ],
)
def test_sources_keep_their_padding_on_its_side(side, given, expected, known):
    config = SimpleNamespace(starts=(3, 4), targets=("de", "fr"), pad_index=0, side=side, end=2)
    reading = SimpleNamespace(config=config, spec=TranslatorSpec((3, 4), 2))
    lengths = (torch.tensor([2, 3]),) if known else ()
    batch = split((torch.tensor(given), *lengths, torch.tensor([[4, 5, 6, 2], [3, 6, 2, 0]])))
    prepared = PreparedTranslator(SimpleNamespace(settings=Settings()), None, reading, None)
    pairs = prepared.collected(iter([batch]), "data")
    assert pairs.sources.values.tolist() == expected
    assert pairs.sources.lengths.tolist() == [2, 3]
    assert plain_ids(pairs.targets["de"]) == [[], [6]]
    assert plain_ids(pairs.targets["fr"]) == [[5, 6], []]


def test_a_report_of_ones_own(calls):
    report = Pairs(ENCODER(["one"]), {}, {})
    fit(callback(report_data=report), Model(), (loader(6), loader(3, 1)))
    assert calls.decompose[0].report is report


def test_one_language_will_do(calls):
    one = callback(labels=["fr"], network_spec={"starts": [4], "end": 2})
    fit(one, Model(), (loader(6, codes=("fr",)), loader(3, 1, codes=("fr",))))
    assert calls.decompose[0].parent.labels == ("fr",)


def test_a_second_tokenizer(calls):
    writer = word_encoder()
    fit(callback(target_tokenizer=writer.json), Model(), (loader(6), loader(3, 1)))
    assert calls.decompose[0].parent.target_tokenizer.digest == writer.digest


def test_a_forward_of_ones_own(calls):
    def forward(model, batch):
        return model(batch[0], batch[1])  # for the last token, too

    fit(callback(forward=forward), Model(), (loader(6), loader(3, 1)))
    assert calls.decompose[0].parent.network.architecture == "translator"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels": ["de"]}, "labels=.'de'. with 3 start tokens"),
        ({"labels": ["de", "de", "fr"]}, "'de'. more than once"),
        ({"network_spec": {"starts": [3, 4, 5]}}, "missing .'end'."),
        ({"network_spec": {**SPEC, "encoder": "lstm"}}, "'lstm' is no submodule"),
        ({"network_spec": None, "target_tokenizer": ENCODER.json}, "target_tokenizer is given"),
        ({"network_spec": {"starts": [3, 4, 6], "end": 2}}, "starts with token 5"),
    ],
)
def test_what_does_not_fit_is_said(calls, options, words):
    modules = callback(**options)
    with pytest.raises((MisconfigurationException, ValueError), match=words):
        fit(modules, Model(), (loader(6), loader(3, 1)))


def test_attention_is_refused_before_the_first_step(calls):
    class Attending(Model):
        def forward(self, source, tokens):
            logits = super().forward(source, tokens)
            return logits + self.embedding(source).mean((1, 2))[:, None, None] * logits

    with pytest.raises(MisconfigurationException, match="Attention, states of the encoder"):
        fit(callback(), Attending(), (loader(6), loader(3, 1)))
