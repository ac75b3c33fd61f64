"""Translation: an encoder-decoder taken apart into a module for each language it writes."""

from __future__ import annotations

import random
from collections.abc import Sequence

import mlflow
import pytorch_lightning as L
import torch
from pytorch_lightning.loggers import MLFlowLogger
from tables import console, heading
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence
from torch.utils.data import DataLoader, TensorDataset

import mlflow_rnnmod
from lightning_callbacks import ModuleDecomposition

PAD, END = 0, 2
CODES = ["de", "fr", "it"]
WORDS = {
    "en": ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    "de": ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"],
    "fr": ["zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf"],
    "it": ["nulla", "uno", "due", "tre", "quattro", "cinque", "sei", "sette", "otto", "nove"],
}


class DigitTranslator(L.LightningModule):
    """Reads a number in both directions, and writes it in the language of the first token."""

    def __init__(self, tokens: int, units: int = 40) -> None:
        super().__init__()
        self.source = nn.Embedding(tokens, 7, padding_idx=PAD)
        self.target = nn.Embedding(tokens, 7, padding_idx=PAD)
        self.encoder = nn.GRU(7, units // 2, batch_first=True, bidirectional=True)
        self.bridge = nn.Linear(units, units)
        self.decoder = nn.GRU(7, units, batch_first=True)
        self.output = nn.Linear(units, tokens)

    def forward(self, source: Tensor, tokens: Tensor) -> Tensor:
        """Logits of the token after each of ``tokens``, ``(rows, steps, tokens)``."""
        lengths = (source != PAD).sum(dim=1).cpu()
        packed = pack_padded_sequence(
            self.source(source), lengths, batch_first=True, enforce_sorted=False
        )
        _, state = self.encoder(packed)
        first = torch.tanh(self.bridge(torch.cat([state[0], state[1]], dim=1)))
        out, _ = self.decoder(self.target(tokens), first[None])
        return self.output(out)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy of each next token."""
        source, target = batch
        logits, wanted = self(source, target[:, :-1]), target[:, 1:]
        return nn.functional.cross_entropy(logits[wanted != PAD], wanted[wanted != PAD])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """The same of sentences it is not trained on."""
        self.log("val_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), 8e-3)


def numbers(count: int, seed: int) -> list[list[int]]:
    """Random numbers of one to four digits, to be read digit by digit."""
    draw = random.Random(seed)
    return [[draw.randrange(10) for _ in range(draw.randint(1, 4))] for _ in range(count)]


def write(number: Sequence[int], code: str) -> str:
    """A number in words; French, here, begins with the last digit.

    Example:
        >>> write([4, 2], "en"), write([4, 2], "fr")
        ('four two', 'deux quatre')
    """
    digits = number[::-1] if code == "fr" else number
    return " ".join(WORDS[code][digit] for digit in digits)


def build_tokenizer() -> Tokenizer:
    """One tokenizer of words for all languages; ids 0 to 2 are padding, unknown and end."""
    special = ["[PAD]", "[UNK]", "[END]", *(f"[{code}]" for code in CODES)]
    words = dict.fromkeys([*special, *(word for found in WORDS.values() for word in found)])
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(special)
    return tokenizer


def batches(tokenizer: Tokenizer, known: Sequence[Sequence[int]]) -> DataLoader:
    """Batches of sources and translations, from their start token to the end token."""
    sources, targets = [], []
    for number in known:
        for code in CODES:
            start = tokenizer.token_to_id(f"[{code}]")
            sources.append(torch.tensor(tokenizer.encode(write(number, "en")).ids))
            targets.append(torch.tensor([start, *tokenizer.encode(write(number, code)).ids, END]))
    data = TensorDataset(
        pad_sequence(sources, batch_first=True), pad_sequence(targets, batch_first=True)
    )
    return DataLoader(data, 192, shuffle=True)


def main(epochs: int = 16) -> dict[str, list]:
    """Train, take apart, and translate with all modules, and with some of them."""
    L.seed_everything(0, verbose=False)
    train, validation, test = numbers(2000, 0), numbers(200, 1), numbers(100, 2)
    tokenizer = build_tokenizer()
    modules = ModuleDecomposition(
        labels=CODES,
        tokenizer=tokenizer,
        # A translator must be told where translations start and end; the rest is found.
        network_spec={"starts": [tokenizer.token_to_id(f"[{code}]") for code in CODES], "end": END},
        registered_model_prefix="digits",
        strict=True,
    )
    trainer = L.Trainer(
        max_epochs=epochs,
        callbacks=[modules],
        logger=MLFlowLogger("examples", run_name="digits", tracking_uri=mlflow.get_tracking_uri()),
        log_every_n_steps=10,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(
        DigitTranslator(tokenizer.get_vocab_size()),
        batches(tokenizer, train),
        batches(tokenizer, validation),
    )
    figures = modules.decomposition.figures
    heading(f"digits: {len(modules.decomposition.modules)} modules, one for each language")
    for who in ("parent", "composed", "random"):
        console.print(f"BLEU {who}: {100 * figures[f'{who}_bleu']:.1f}")

    # As models:/digits.de/1 and so on, or by hand: they are registered.
    every = mlflow_rnnmod.compose(modules.logged.uris.values())
    asked = [write(number, "en") for number in test]
    answers = {
        "all": every.predict(asked),
        "it": every.predict(asked, target="it", beams=3),
        "de": mlflow_rnnmod.select(every, "de").predict(asked),
        "right": [{code: write(number, code) for code in CODES} for number in test],
    }
    for text, row in list(zip(asked, answers["all"], strict=True))[:3]:
        console.print(text, *(f"  {code}: {words}" for code, words in row.items()), sep="\n")
    return answers


if __name__ == "__main__":
    main()
