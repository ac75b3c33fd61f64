"""Small translators for tests: random ones, and one that has learned a toy language pair.

Everything is drawn from seeds of its own: the process's random state is neither read nor moved.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.nn import functional as F

from mlflow_rnnmod.decomposition.module import Energy, Head, Module, make_contract
from mlflow_rnnmod.decomposition.pairs import Pairs, forced_sample, padded
from mlflow_rnnmod.decomposition.statistics import ActivationStatistics
from mlflow_rnnmod.decomposition.watching import collect
from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks import Parent, TextEncoder, Translator, TranslatorConfig, Trunk
from mlflow_rnnmod.networks.translator.forcing import forced_tokens

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LANGUAGES = {
    "de": ("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"),
    "fr": ("zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf"),
    "it": ("nulla", "uno", "due", "tre", "quattro", "cinque", "sei", "sette", "otto", "nove"),
}
PAD, UNKNOWN, END = 0, 1, 2


def word_encoder(languages: tuple[str, ...] = tuple(LANGUAGES), source: bool = True) -> TextEncoder:
    """A tokenizer of whole words, of digits in English and some languages.

    Ids: 0 padding, 1 unknown, 2 the end, then a start token for each language, then words.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers

    special = ["[PAD]", "[UNK]", "[END]", *(f"[{code}]" for code in languages)]
    found = [*WORDS] if source else []
    for code in languages:
        found += LANGUAGES[code]
    tokens = dict.fromkeys([*special, *found])
    words = Tokenizer(
        models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]")
    )
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.add_special_tokens(special)
    return TextEncoder(words, pad_index=PAD)


def sentences(count: int, seed: int, longest: int = 4) -> tuple[list[str], dict[str, list[str]]]:
    """English digits, and each language's: French ones from the last to the first."""
    draw = torch.Generator().manual_seed(seed)
    sources: list[str] = []
    targets: dict[str, list[str]] = {code: [] for code in LANGUAGES}
    for _ in range(count):
        length = int(torch.randint(1, longest + 1, (1,), generator=draw))
        digits = torch.randint(10, (length,), generator=draw).tolist()
        sources.append(" ".join(WORDS[d] for d in digits))
        for code, words in LANGUAGES.items():
            order = digits[::-1] if code == "fr" else digits
            targets[code].append(" ".join(words[d] for d in order))
    return sources, targets


def tiny_translator(
    cell: str = "gru",
    languages: tuple[str, ...] = tuple(LANGUAGES),
    encoder: tuple[tuple[int, ...], ...] = ((6, 6),),
    decoder: tuple[int, ...] = (10,),
    seed: int = 0,
    text: bool = True,
    joint: bool = True,
    scale: float = 3.0,
    **changes: Any,
) -> Parent:
    """A parent with random weights that translates digits, as text or (without ``text``) as ids."""
    reader = word_encoder(languages)
    writer = reader if joint else word_encoder(languages, source=False)
    sizes = [encoder_.tokenizer.get_vocab_size() for encoder_ in (reader, writer)]
    config = TranslatorConfig(
        **{
            "cell": cell,
            "source_size": sizes[0],
            "source_embedding": 7,
            "target_size": sizes[1],
            "target_embedding": 6,
            "encoder": encoder,
            "decoder": decoder,
            "targets": languages,
            "starts": tuple(range(3, 3 + len(languages))),
            "end": END,
            "pad_index": PAD,
            **changes,
        }
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        translator = Translator(config)
    with torch.no_grad():
        for name, weight in translator.named_parameters():
            weight.mul_(0.0 if "bias" in name and scale != 1.0 else scale)
        translator.output.weight.mul_(scale)
        translator.output.bias[END] += 1.0
    if not text:
        return Parent.of_translator(translator)
    return Parent.of_translator(translator, reader, None if joint else writer)


def tiny_pairs(parent: Parent, count: int = 12, seed: int = 0) -> Pairs:
    """Random sentences with their right translations; without texts where the parent has none."""
    sources, targets = sentences(count, seed)
    mine = {code: targets[code] for code in parent.labels}
    if parent.tokenizer is not None:
        return Pairs.from_texts(parent, sources, mine)
    reader = word_encoder(parent.labels)
    ids = {code: padded(reader.ids(texts), PAD) for code, texts in mine.items()}
    return Pairs(reader(sources), ids)


def translator_module(
    parent: Parent,
    label: str | None = None,
    removal: float = 0.3,
    seed: int = 0,
    **trunk: Any,
) -> Module:
    """The module of a language (default: the first) without random units of the decoder."""
    label = parent.labels[0] if label is None else label
    draw = torch.Generator().manual_seed(1000 * seed + parent.labels.index(label))
    keep, fold = {}, {}
    for name, units in parent.network.units.items():
        keep[name] = torch.rand(units, generator=draw) >= removal
        keep[name][int(torch.randint(units, (1,), generator=draw))] = True
        fold[name] = torch.randn(units, generator=draw) * 0.3
    found = Trunk(keep, fold, **trunk)
    return Module(
        parent=parent,
        trunk=found,
        head=Head(),
        open_head=Head(),
        energy=Energy(),
        contract=make_contract(parent, label, found),
        figures={"bleu": 0.31, "parent_bleu": 0.32, "agreement": 0.9, "support": 25.0},
        made={
            "rule": "random",
            "removal": removal,
            "repairs": ["fold"],
            "rows": {"figures": "25 of 50 validation sentences"},
            "bleu": "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0",
        },
    )


def translator_modules(parent: Parent, removal: float = 0.3, seed: int = 0) -> tuple[Module, ...]:
    """A module for each language."""
    return tuple(translator_module(parent, code, removal, seed) for code in parent.labels)


@cache
def trained_translator(cell: str = "gru", units: int = 40, steps: int = 500) -> Parent:
    """A parent that has learned to translate digits: seconds of training, once a process."""
    parent = tiny_translator(cell, encoder=((units // 2,) * 2,), decoder=(units,), scale=1.0)
    translator = parent.network.requires_grad_(True)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        with torch.no_grad():
            translator.output.bias[END] -= 1.0
        optimizer = torch.optim.Adam(translator.parameters(), lr=8e-3)
        pairs = tiny_pairs(parent, 2000, seed=7)
        for _ in range(steps):
            index = torch.randint(len(pairs), (64,))
            states = translator.encode(pairs.sources[index])
            loss = torch.zeros(())
            for code, rows in pairs.targets.items():
                given, wanted, valid = told_rows(translator, code, rows[index])
                logits = translator.force(states, given).logits
                loss = loss + F.cross_entropy(logits[valid], wanted[valid])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    translator.requires_grad_(False)
    return Parent.of_translator(translator, parent.tokenizer)


def plain_ids(rows: Rows) -> list[list[int]]:
    """Token ids of each row without padding."""
    assert rows.lengths is not None
    return [v[:n].tolist() for v, n in zip(rows.values, rows.lengths.tolist(), strict=True)]


def told_rows(translator, code: str, rows: Rows):
    """What a decoder is told, should answer, and where, of translations into one language."""
    starts = torch.full((len(rows),), translator.config.start_of(code))
    return forced_tokens(translator.config, starts, rows)


def told(translator, code: str, ids: list[list[int]]):
    """The same of token ids."""
    return told_rows(translator, code, padded(ids, 0))


def collect_translations(translator, pairs: Pairs, **options) -> ActivationStatistics:
    """Statistics of a decoder on right translations."""
    return collect(translator, forced_sample(pairs, translator.labels), **options)
