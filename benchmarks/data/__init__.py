"""The paper's data sets, read in place from a folder laid out as its README says."""

from benchmarks.data.classification import (
    TOXICITY_LABELS,
    load_brown,
    load_clinc,
    load_clinc_out_of_scope,
    load_math_qa,
    load_toxicity,
)
from benchmarks.data.images import NotInstalled, VectorData, load_fashion_mnist, load_images
from benchmarks.data.pictures import ImageData, load_pictures
from benchmarks.data.surnames import load_surnames
from benchmarks.data.texts import TextData
from benchmarks.data.tokenizers import (
    character_tokenizer,
    number_tokenizer,
    subword_tokenizer,
    token_tokenizer,
    word_tokenizer,
)
from benchmarks.data.translation import TATOEBA, TranslationData, load_tatoeba

__all__ = [
    "ImageData",
    "NotInstalled",
    "TATOEBA",
    "TOXICITY_LABELS",
    "TextData",
    "TranslationData",
    "VectorData",
    "character_tokenizer",
    "load_brown",
    "load_clinc",
    "load_clinc_out_of_scope",
    "load_fashion_mnist",
    "load_images",
    "load_math_qa",
    "load_surnames",
    "load_pictures",
    "load_tatoeba",
    "load_toxicity",
    "number_tokenizer",
    "subword_tokenizer",
    "token_tokenizer",
    "word_tokenizer",
]
