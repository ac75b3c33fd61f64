"""Text, and the tokenizer that a parent was trained with, which makes token ids of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from mlflow_rnnmod._digest import canonical_json, digest_text
from mlflow_rnnmod._locks import cached_property
from mlflow_rnnmod.inputs.base import Reader, is_missing, listed
from mlflow_rnnmod.inputs.likelihood import Density
from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.inputs.tokenizers import check_growth, check_tokenizer
from mlflow_rnnmod.inputs.tokens import Tokens
from mlflow_rnnmod.inputs.wording import text_density


class Text(Tokens):
    """Text, through the parent's own tokenizer; in a network it is token ids.

    Example:
        >>> Text().check(["one two", None], 5)
        ['one two', '']
    """

    name = column = "text"
    column_type = "string"
    split = True

    def check(self, inputs: Any, size: int) -> Any:
        """Plain texts, or lists of words; see :func:`plain_texts`."""
        return plain_texts(inputs)

    def read(self, value: Any, where: str, size: int, expected: str | None = None) -> str:
        """A string; a missing one is empty."""
        if isinstance(value, str):
            return _encodable(value)
        if is_missing(value):
            return ""
        raise TypeError(
            f"{where} is the {type(value).__name__} {value!r:.60}; expected "
            f"{expected or self.name}."
        )

    def read_cell(self, cell: Any, row: int, size: int) -> list[str]:
        """As many texts as the cell holds: MLflow makes one such cell of a list of texts."""
        if not isinstance(cell, str) and hasattr(cell, "tolist"):
            cell = cell.tolist()
        if isinstance(cell, list | tuple):
            # An empty list among others is a text without words, and not no text.
            return [text for item in cell for text in self.read_cell(item, row, size) or [""]]
        return [self.read(cell, f"{self.column} in row {row}", size)]

    def is_blank(self, value: Any) -> bool:
        """Nothing but white space, or no word.

        Example:
            >>> Text().is_blank("  "), Text().is_blank([]), Text().is_blank(["a", ""])
            (True, True, False)
        """
        return not value.strip() if isinstance(value, str) else all(not w.strip() for w in value)

    def length(self, value: Any, tokenizer: Any = None) -> int:
        """Tokens; without a tokenizer characters, which a text has more of."""
        if tokenizer is not None:
            return int(tokenizer([value]).lengths.max())
        return len(value) if isinstance(value, str) else sum(map(len, value))

    def cut(self, value: Any, steps: int, tokenizer: Any = None) -> Any:
        """The text up to a token, or without a tokenizer a character; of words, the first ones."""
        if tokenizer is None or not isinstance(value, str):
            return value[:steps]
        return value[: tokenizer.tokenizer.encode(value).offsets[steps - 1][1]]

    def of_batch(self, values: Tensor) -> None:
        """Batches hold no text."""

    def padded(self, inputs: Sequence[Any], network: Reader, tokenizer: Any) -> Rows:
        """As the tokenizer has it."""
        rows: Rows = tokenizer(inputs)
        size, largest = (
            network.config.input_size,
            int(rows.values.max()) if rows.values.numel() else 0,
        )
        if largest >= size:
            raise ValueError(
                f"The tokenizer gives id {largest}, and the network has embeddings for 0 to "
                f"{size - 1}: it is not the tokenizer that the network was trained with, or one "
                "of both was altered."
            )
        return rows

    def density(self, config: Any, tokenizer: Any = None) -> Density | None:
        """N-grams of words, or of characters where the tokenizer goes by them."""
        return None if tokenizer is None else text_density(tokenizer)

    def common_size(self, parents: int) -> None:
        """Each parent has a tokenizer of its own."""

    def parsed(self, line: str) -> str:
        """The line itself."""
        return line

    def read_words(self, size: int) -> str:
        """One row, in words."""
        return f"text, through its own tokenizer of {size} tokens"

    def example(self, size: int) -> str:
        """A list with one made-up input, as Python."""
        return '["some text"]'


class TextEncoder:
    """A ``tokenizers.Tokenizer`` held by its JSON, with a digest to compare by.

    Truncation, padding and lower-casing are the tokenizer's own settings; nothing is added here.
    Where it does not pad, rows are padded to the longest one.

    Args:
        tokenizer: a ``tokenizers.Tokenizer`` or the JSON that its ``to_str`` gives.
        pad_index: id of the padding token.
        side: where padding goes when the tokenizer does not pad by itself.

    Raises:
        TypeError: if it is neither; a Python callable can't be stored and read elsewhere.
        ValueError: if the JSON is not a tokenizer's.
    """

    reads: ClassVar[str] = "text"
    """Name of the input that goes in."""

    def __init__(self, tokenizer: Any, pad_index: int = 0, side: str = "right") -> None:
        if hasattr(tokenizer, "to_str"):
            tokenizer = tokenizer.to_str()
        if not isinstance(tokenizer, str):
            raise TypeError(
                f"tokenizer is a {type(tokenizer).__name__}; expected a tokenizers.Tokenizer or "
                "its JSON. A Python function can't be stored with the model: build the same rule "
                "with the tokenizers library, or decompose without a tokenizer and give token ids."
            )
        try:
            data = json.loads(tokenizer)
            assert isinstance(data, dict)
        except (ValueError, AssertionError, RecursionError) as error:
            raise ValueError(f"tokenizer is not a tokenizer's JSON: {tokenizer[:60]!r}.") from error
        check_tokenizer(data)
        self.json = canonical_json(data)
        self.pad_index = pad_index
        self.side = side

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the tokenizer's canonical JSON."""
        return digest_text(self.json)

    @cached_property
    def unknown(self) -> int | None:
        """Id of the tokenizer's unknown token, where it has one."""
        name = getattr(self.tokenizer.model, "unk_token", None)
        return self.tokenizer.token_to_id(name) if isinstance(name, str) else None

    @cached_property
    def tokenizer(self) -> Any:
        """The ``tokenizers.Tokenizer`` itself (the library is imported here, when first needed)."""
        from tokenizers import Tokenizer

        try:
            return Tokenizer.from_str(self.json)
        except BaseException as error:  # the library raises bare Exception, and panics
            if isinstance(error, Exception) or _is_panic(error):
                raise ValueError(
                    f"tokenizer can't be read by the tokenizers library: {error}"
                ) from error
            raise

    def try_out(self) -> None:
        """Read a text, to find out now what would otherwise be found out later.

        Raises:
            ValueError: if the tokenizer can't read it, or makes too much of it.
        """
        check_growth(json.loads(self.json))
        rows = self(["A text, with 1 number.", ""])
        self.decode(rows.values.tolist())

    def __call__(self, texts: Sequence[Any]) -> Rows:
        """Token ids of some texts.

        Args:
            texts: strings; ``None`` and NaN count as empty. A text that is split into words already
                is a list or tuple of strings; the tokenizer reads each by itself.

        Returns:
            :class:`Rows` without targets; at least one step, even where all texts are empty.

        Example:
            >>> from tokenizers import Tokenizer, models, pre_tokenizers
            >>> letters = Tokenizer(models.WordLevel({"[PAD]": 0, "?": 1, "a": 2}, unk_token="?"))
            >>> letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
            >>> TextEncoder(letters)(["aba", ""]).values.tolist()
            [[2, 1, 2], [0, 0, 0]]
        """
        encodings = self._encodings(plain_texts(texts))
        ids = [encoding.ids for encoding in encodings]
        lengths = [sum(encoding.attention_mask) for encoding in encodings]
        steps = max([1, *map(len, ids)])
        values = torch.full((len(ids), steps), self.pad_index, dtype=torch.int64)
        for row, found in enumerate(ids):
            if found and self.side == "right":
                values[row, : len(found)] = torch.tensor(found)
            elif found:
                values[row, steps - len(found) :] = torch.tensor(found)
        return Rows(values, torch.tensor(lengths, dtype=torch.int64))

    def encodings(self, texts: Sequence[Any]) -> list[Any]:
        """The ``tokenizers.Encoding`` of each text, as :meth:`__call__` reads it."""
        return self._encodings(plain_texts(texts))

    def _encodings(self, texts: Sequence[str | list[str]], special: bool = True) -> list[Any]:
        """Encodings of texts and lists of words; the library wants a batch of one kind."""
        encode = partial(self._encode, special=special)
        split = [i for i, text in enumerate(texts) if not isinstance(text, str)]
        if not split:
            return encode(texts)
        whole = [i for i, text in enumerate(texts) if isinstance(text, str)]
        found = encode([texts[i] for i in whole])
        found += encode([texts[i] for i in split], is_pretokenized=True)
        order = sorted(range(len(texts)), key=[*whole, *split].__getitem__)
        return [found[place] for place in order]

    def _encode(
        self, texts: Sequence[Any], special: bool, is_pretokenized: bool = False
    ) -> list[Any]:
        how = {"add_special_tokens": special, "is_pretokenized": is_pretokenized}
        try:
            return list(self.tokenizer.encode_batch(texts, **how))
        except BaseException as error:
            if not isinstance(error, Exception) and not _is_panic(error):
                raise
            for text in texts:  # which one it is, the library does not say
                try:
                    self.tokenizer.encode(text, **how)
                except BaseException as one:
                    if not isinstance(one, Exception) and not _is_panic(one):
                        raise
                    raise ValueError(
                        f"The tokenizer can't read the text {text!r:.80}: {one}"
                    ) from one
            raise ValueError(f"The tokenizer can't read these texts: {error}") from error

    def ids(self, texts: Sequence[Any]) -> list[list[int]]:
        """Token ids of some texts without special tokens and padding, as a translation has them.

        Raises:
            TypeError: if anything else than text is among them, with the first one's position.
        """
        encodings = self._encodings(plain_texts(texts), special=False)
        return [
            [token for token, seen in zip(e.ids, e.attention_mask, strict=True) if seen]
            for e in encodings
        ]

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Texts from token ids, as the tokenizer's own decoder writes them; no special tokens.

        Example:
            >>> from tokenizers import Tokenizer, models
            >>> words = Tokenizer(models.WordLevel({"[PAD]": 0, "ein": 1, "Haus": 2}))
            >>> TextEncoder(words).decode([[1, 2], []])
            ['ein Haus', '']
        """
        return list(self.tokenizer.decode_batch([list(row) for row in ids]))


def _is_panic(error: BaseException) -> bool:
    """Whether the library gave up, in Rust: that is no ``Exception``."""
    return type(error).__name__ == "PanicException"


def plain_texts(texts: Any) -> list[Any]:
    """``texts`` as strings, ``None`` and NaN as empty ones; texts of words as lists of strings.

    Example:
        >>> plain_texts(["one two", None, ("one", "two")])
        ['one two', '', ['one', 'two']]
    """
    if isinstance(texts, str | bytes):
        raise TypeError(f"texts is the single text {texts!r}; expected a list of texts.")
    plain: list[Any] = []
    one = Text()
    for position, text in listed(texts, "texts"):
        if not isinstance(text, str) and hasattr(text, "tolist"):  # as pandas and Spark have them
            text = text.tolist()
        if isinstance(text, list | tuple) and all(isinstance(word, str) for word in text):
            plain.append([_encodable(word) for word in text])
        else:
            plain.append(one.read(text, f"texts[{position}]", 0, "text, or a list of words"))
    return plain


def _encodable(text: str) -> str:
    """``text`` with halves of surrogate pairs, which broken data has, as unknown characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
