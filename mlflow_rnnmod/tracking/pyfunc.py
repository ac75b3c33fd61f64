"""Any parent, module or composite behind MLflow's ``python_function`` interface."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from torch import Tensor

from mlflow_rnnmod.answers import NONE_OF_THESE, PREDICTION, Form
from mlflow_rnnmod.composition import Composite, compose, whole_parent
from mlflow_rnnmod.composition.translation import TranslatingComposite
from mlflow_rnnmod.decomposition.module import Module
from mlflow_rnnmod.inputs import Input
from mlflow_rnnmod.networks import Parent
from mlflow_rnnmod.tracking.columns import read_inputs

MOST = 10_000
"""Tokens, or steps, of one input, where a model does not say otherwise."""
WAYS = ("refuse", "cut")
# Characters for a token: beyond, a text is not even given to the tokenizer.
_CHARACTERS = 16
DEFAULTS: dict[str, Any] = {
    "device": None,
    "batch_size": 256,
    "max_tokens": MOST,
    "too_long": "refuse",
    "blank": "reject",
}
"""What ``mlflow.pyfunc.load_model(..., model_config=...)`` can set; ``follow`` and ``every`` also
for what is to follow an alias (:mod:`~mlflow_rnnmod.tracking.follow`)."""


class RnnmodModel:
    """What ``mlflow.pyfunc.load_model`` wraps.

    Args:
        thing: parent, module or composite.
        model_config: ``device``, ``batch_size``, ``max_tokens`` and ``too_long`` (see
            :data:`DEFAULTS` and :class:`Limit`); ``blank``: ``"reject"``, where inputs that hold
            nothing (missing or blank text, no step) get ``reject_label``, or no label at all, or
            ``"answer"``, where they are asked like any other.
    """

    def __init__(self, thing: Any, model_config: Mapping[str, Any] | None = None) -> None:
        # Models that were saved before there was a choice go on answering what holds nothing.
        older = {"blank": "answer"} if model_config else {}
        config = {**DEFAULTS, **older, **(model_config or {})}
        if type(config["batch_size"]) is not int or config["batch_size"] < 1:
            raise MlflowException.invalid_parameter_value(
                f"model_config['batch_size'] is {config['batch_size']!r}; expected a positive "
                "number of rows."
            )
        self._batch_size: int = config["batch_size"]
        if config["blank"] not in ("reject", "answer"):
            raise MlflowException.invalid_parameter_value(
                f"model_config['blank'] is {config['blank']!r}; expected 'reject' (inputs that "
                "hold nothing get no label) or 'answer' (they are asked like any other)."
            )
        self._blank = config["blank"] == "reject"
        self._limit = Limit(config)
        self._thing = thing
        try:
            self._composite = _composite(thing, config["device"])
        except RuntimeError as error:  # torch, for a device that is not there
            raise MlflowException.invalid_parameter_value(
                f"model_config['device'] is {config['device']!r}: {error}"
            ) from error

    def get_raw_model(self) -> Any:
        """The parent, module or composite itself."""
        return self._thing

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """Labels, or scores.

        Args:
            data: a DataFrame with the column that the signature names; outside of MLflow also a
                dict of columns, a Series, or the plain list of inputs.
            params: ``scores`` (False), ``reject_below`` (none), ``reject_label``; for translations
                ``target`` (all languages) and ``beams`` (1).

        Returns:
            A 1-D array of labels, or of translations into one language; into several, a DataFrame
            with a column for each. Where each answer is a list of labels, a DataFrame with a column
            ``prediction`` of them. With ``scores`` a DataFrame with the column ``prediction`` and
            one for each label: a number each, or a list of them, one for each step. A module by
            itself answers its label where its score is at least 0.
        """
        params = params or {}
        composite, answer = self._composite, self._composite.answer
        words = answer.each_step and composite.input.split
        inputs = read_inputs(data, composite.input_kind, composite.input_size, words)
        try:
            inputs = self._limit.bounded(inputs, composite.input, self._parents)
            if answer.scored:
                return self._scored(inputs, params)
            return self._routed(inputs, params)
        except (ValueError, TypeError) as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error

    def _scored(self, inputs: list[Any], params: Mapping[str, Any]) -> Any:
        """Labels or scores of checked inputs, in batches."""
        reject_below, reject_label = params.get("reject_below"), params.get("reject_label")
        if reject_below is not None and math.isnan(reject_below):
            reject_below = None
        reject_label = NONE_OF_THESE if reject_label is None else reject_label
        answers: list[Any] = []
        tables: list[Tensor] = []
        for start in range(0, max(len(inputs), 1), self._batch_size):
            part, known = inputs[start : start + self._batch_size], None
            found = self._composite.scores(part)
            if self._composite.limit(reject_below) is not None and part:
                known = self._composite.known(part)
            said = self._composite.answers(found, reject_below, reject_label, known)
            answers += self._without_blank(part, said, reject_label)
            tables.append(found)
        if params.get("scores"):
            return in_spark(_table(answers, tables, self._composite.labels))
        return _formed(answers, self._composite.answer.form())

    def _routed(self, inputs: list[Any], params: Mapping[str, Any]) -> Any:
        """Translations of checked inputs into the language that is asked for, or into all."""
        composite, target, beams = self._composite, params.get("target"), params.get("beams")
        beams = 1 if beams is None else beams
        beams = beams.item() if isinstance(beams, np.generic) else beams
        found = cast(TranslatingComposite, composite).predict(
            inputs, target or None, beams, self._batch_size
        )
        found = self._without_blank(inputs, found)
        labels = (target,) if target else composite.labels
        return _formed(found, composite.answer.form(labels, composite.input_kind))

    def _without_blank(
        self, inputs: list[Any], answers: list[Any], reject_label: str = ""
    ) -> list[Any]:
        """Answers, where inputs that hold nothing get no label."""
        if not self._blank:
            return answers
        blank, nothing = self._composite.input.is_blank, self._composite.answer.nothing
        return [
            nothing(y, reject_label) if blank(x) else y
            for x, y in zip(inputs, answers, strict=True)
        ]

    @cached_property
    def _parents(self) -> list[Parent]:
        """Each once."""
        return list({m.parent.digest: m.parent for m in self._composite.modules}.values())


def _composite(thing: Any, device: str | None) -> Composite:
    """A parent or a module as a composite: a parent of all its modules, with nothing removed."""
    if isinstance(thing, Parent):
        thing = whole_parent(thing)
    if isinstance(thing, Module):
        thing = compose([thing])
    return thing if device is None else thing.to(device)


def _formed(answers: list[Any], form: Form) -> np.ndarray | pd.DataFrame:
    """Answers in an array, or in columns; each answer a dict of them where there are several."""
    if form.columns is None:
        return np.array(answers, dtype=object)
    several = len(form.columns) > 1
    columns = {name: [a[name] for a in answers] if several else answers for name in form.columns}
    return pd.DataFrame({name: pd.Series(c, dtype=object) for name, c in columns.items()})


def _table(answers: list[Any], tables: Sequence[Tensor], names: Sequence[str]) -> pd.DataFrame:
    """Answers, and a column of scores for each label: numbers, or lists with one for each step."""
    prediction = PREDICTION
    while prediction in names:
        prediction += "_"
    if tables[0].ndim == 2:
        table = pd.DataFrame(torch.cat(list(tables)).double().numpy(), columns=list(names))
    else:
        rows = [_steps(row) for scores in tables for row in scores]
        columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
        table = pd.DataFrame({name: pd.Series(c, dtype=object) for name, c in columns.items()})
    table.insert(0, prediction, pd.Series(answers, dtype=object))
    return table


def _steps(scores: Tensor) -> list[list[float]]:
    """For each label its scores at the steps that have some, from ``(steps, labels)``."""
    return scores[(~scores.isnan()).any(dim=1)].T.double().tolist()


class Scores(pd.DataFrame):
    """A table of scores that refuses to become a column of texts, as it would inside Spark.

    ``mlflow.pyfunc.spark_udf`` takes the result type from the signature, which says what models
    answer without params: a text. Of a table it then takes the first column, the labels, so that
    scores would be left out without a word.
    """

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def map(self, func: Any, *args: Any, **kwargs: Any) -> pd.DataFrame:
        """As of any table; but ``str``, by which MLflow makes a column of texts, is refused."""
        if func is str:
            fields = ", ".join(f"`{name}` double" for name in self.columns[1:4])
            more = ", ..." if len(self.columns) > 4 else ""
            raise MlflowException.invalid_parameter_value(
                "params={'scores': True} with a result type that is a text would leave the scores "
                f'out; give spark_udf a struct: result_type="{self.columns[0]} string, {fields}'
                f'{more}".'
            )
        return super().map(func, *args, **kwargs)


def in_spark(scores: pd.DataFrame) -> pd.DataFrame:
    """A table of scores; guarded where a Spark task is asking for it."""
    spark = sys.modules.get("pyspark")
    task = None if spark is None else spark.TaskContext.get()
    return scores if task is None else Scores(scores)


class Limit:
    """How many tokens or steps one input may have, and what is done with longer ones.

    Args:
        config: ``max_tokens``, a positive number, or ``None`` for no limit; ``too_long``,
            ``"refuse"`` or ``"cut"``.
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
        """Checked inputs, none of them longer than the limit."""
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
