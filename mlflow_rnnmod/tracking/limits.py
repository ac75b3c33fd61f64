"""How long one input of a served model may be: a single text of a megabyte must not take a minute.

What a parent cuts by itself (a fixed number of steps, or its tokenizer's truncation) is no matter:
only what would be run counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlflow.exceptions import MlflowException

from mlflow_rnnmod.inputs import Input
from mlflow_rnnmod.networks import Parent

MOST = 10_000
"""Tokens, or steps, of one input, where a model does not say otherwise."""
WAYS = ("refuse", "cut")
# Characters for a token: beyond, a text is not even given to the tokenizer.
_CHARACTERS = 16


class Limit:
    """How many tokens or steps one input may have, and what is done with longer ones.

    Args:
        config: ``max_tokens``, a positive number, or ``None`` for no limit; ``too_long``,
            ``"refuse"`` or ``"cut"``.

    Raises:
        MlflowException: if one of them does not fit.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.most, way = config["max_tokens"], config["too_long"]
        if self.most is not None and (type(self.most) is not int or self.most < 1):
            raise MlflowException.invalid_parameter_value(
                f"model_config['max_tokens'] is {self.most!r}; expected a positive number of "
                "tokens (steps) of one input, or None for any."
            )
        if way not in WAYS:
            raise MlflowException.invalid_parameter_value(
                f"model_config['too_long'] is {way!r}; expected one of {WAYS}."
            )
        self.cuts = way == "cut"

    def bounded(self, inputs: list[Any], reads: Input, parents: Sequence[Parent]) -> list[Any]:
        """Checked inputs, none of them longer than the limit.

        Args:
            inputs: as tables and lists have been read.
            reads: their kind.
            parents: that are going to read them.

        Raises:
            ValueError: naming the first that is too long, where they are not to be cut.
        """
        if self.most is None or all(reads.length(x) <= self.most for x in inputs):
            return inputs
        return [self._one(x, row, reads, parents) for row, x in enumerate(inputs)]

    def _one(self, value: Any, row: int, reads: Input, parents: Sequence[Parent]) -> Any:
        if self.most is None or reads.length(value) <= self.most:
            return value
        if all(p.tokenizer for p in parents) and reads.length(value) > _CHARACTERS * self.most:
            if not self.cuts:
                raise self._too_long(f"{reads.length(value)} characters", row, reads)
            value = reads.cut(value, _CHARACTERS * self.most)
        for parent in parents:
            steps = reads.length(value, parent.tokenizer)
            if min(steps, parent.network.config.steps or steps) > self.most:
                if not self.cuts:
                    raise self._too_long(f"{steps} tokens or steps", row, reads)
                value = reads.cut(value, self.most, parent.tokenizer)
        return value

    def _too_long(self, found: str, row: int, reads: Input) -> ValueError:
        return ValueError(
            f"{reads.column} in row {row} has {found}; this model reads at most {self.most} tokens "
            "(steps) of one input. Cut it, or load the model with model_config={'max_tokens': N}, "
            "or {'too_long': 'cut'} to have only its beginning read."
        )
