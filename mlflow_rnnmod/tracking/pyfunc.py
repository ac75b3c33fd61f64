"""Any parent, module or composite behind MLflow's ``python_function`` interface."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from torch import Tensor

from mlflow_rnnmod.composition import NONE_OF_THESE, Answerer, compose
from mlflow_rnnmod.composition.steps import Observed
from mlflow_rnnmod.composition.translation import TranslatingComposite, whole_parent
from mlflow_rnnmod.decomposition.module import Module, all_margins
from mlflow_rnnmod.inputs import input_of
from mlflow_rnnmod.networks import Parent
from mlflow_rnnmod.tracking.columns import read_inputs
from mlflow_rnnmod.tracking.translated import translate

PREDICTION = "prediction"
"""Name of the column of answers, where those are lists of labels or come with scores."""

DEFAULTS: dict[str, Any] = {"device": None, "batch_size": 256}
"""What ``mlflow.pyfunc.load_model(..., model_config=...)`` can set."""


class Answers(Protocol):
    """What is asked of a composite here, and of a parent in its place."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the columns of :meth:`scores`."""

    @property
    def input_kind(self) -> str:
        """``"text"``, ``"tokens"`` or ``"features"``."""

    @property
    def output(self) -> str:
        """Kind of answer: ``"label"``, ``"multilabel"``, ``"tags"`` or ``"list"``."""

    def scores(self, inputs: Any) -> Tensor:
        """Float ``(inputs, labels)``, or ``(inputs, steps, labels)`` with NaN behind the last."""

    def answers(
        self, scores: Tensor, reject_below: float | None = None, reject_label: str = NONE_OF_THESE
    ) -> list[Any]:
        """A label, or a list of labels, for each row of scores."""


class ParentAnswers:
    """A parent that is asked like a composite; its scores are its log-odds.

    Args:
        parent: the parent.
        device: where it should run; the parent itself stays where it is.
    """

    def __init__(self, parent: Parent, device: str | None = None) -> None:
        self.parent = parent if device is None else parent.to(device)
        config = parent.network.config
        self._answerer = Answerer(
            labels=parent.labels,
            output=config.output,
            rivals=config.output != "multilabel",
            end_label=config.end_label,
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """The parent's labels."""
        return self.parent.labels

    @property
    def input_kind(self) -> str:
        """The parent's."""
        return self.parent.input_kind

    @property
    def output(self) -> str:
        """The parent's."""
        return self._answerer.output

    def answers(
        self, scores: Tensor, reject_below: float | None = None, reject_label: str = NONE_OF_THESE
    ) -> list[Any]:
        """The label with the largest log-odds, or ``reject_label`` where they are too small.

        At each step, where the parent answers each; of several labels those whose log-odds are at
        least 0.
        """
        return self._answerer(scores, reject_below, reject_label)

    @torch.no_grad()
    def scores(self, inputs: Any) -> Tensor:
        """Log-odds of each label, float ``(inputs, labels)``, or ``(inputs, steps, labels)``."""
        network = self.parent.network
        checked = self.parent.input.check(inputs, network.config.input_size)
        if len(checked) == 0:
            steps = (0,) if network.config.stepwise else ()
            return torch.zeros(0, *steps, len(self.labels))
        rows = self.parent.rows(checked)
        found = all_margins(network(rows.to(network.device)), self.output).cpu()
        observed = Observed.of(network, rows)
        if observed is None:
            return found
        found = observed.place(observed.pick(found[None])[0].T).permute(1, 2, 0)
        if self.output == "tags" and rows.lengths is not None:
            found[rows.lengths == 0] = torch.nan
        return found


class RnnmodModel:
    """What ``mlflow.pyfunc.load_model`` wraps.

    Args:
        thing: parent, module or composite.
        model_config: ``device`` and ``batch_size`` (see :data:`DEFAULTS`).

    Raises:
        MlflowException: if ``model_config`` does not fit.
    """

    def __init__(self, thing: Any, model_config: Mapping[str, Any] | None = None) -> None:
        config = {**DEFAULTS, **(model_config or {})}
        if type(config["batch_size"]) is not int or config["batch_size"] < 1:
            raise MlflowException.invalid_parameter_value(
                f"model_config['batch_size'] is {config['batch_size']!r}; expected a positive "
                "number of rows."
            )
        self._batch_size: int = config["batch_size"]
        self._thing = thing
        try:
            self._answers = _answers(thing, config["device"])
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

        Raises:
            MlflowException: if the data do not fit; the first value that does not is named.
        """
        params = params or {}
        if isinstance(self._answers, TranslatingComposite):
            inputs = read_inputs(data, self._answers.input_kind, self._size)
            return translate(self._answers, inputs, params, self._batch_size)
        reject_below = params.get("reject_below")
        if reject_below is not None and math.isnan(reject_below):
            reject_below = None
        reject_label = params.get("reject_label")
        reject_label = NONE_OF_THESE if reject_label is None else reject_label
        asked = bool(params.get("scores"))
        words = takes_words(self._answers)
        inputs = read_inputs(data, self._answers.input_kind, self._size, words)
        batches = [
            inputs[start : start + self._batch_size]
            for start in range(0, len(inputs), self._batch_size)
        ]
        answers: list[Any] = []
        tables: list[Tensor] = []
        try:
            for batch in batches or [[]]:
                found = self._answers.scores(batch)
                answers += self._answers.answers(found, reject_below, reject_label)
                tables.append(found)
        except (ValueError, TypeError) as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        if asked:
            return _table(answers, tables, self._answers.labels)
        if self._answers.output == "label":
            return np.array(answers, dtype=object)
        return pd.DataFrame({PREDICTION: pd.Series(answers, dtype=object)})

    @property
    def _size(self) -> int | None:
        """Size of the vocabulary or of one step's features; ``None`` where parents differ."""
        if isinstance(self._thing, Parent):
            return self._thing.network.config.input_size
        modules = (self._thing,) if isinstance(self._thing, Module) else self._thing.modules
        sizes = {module.contract.input_size for module in modules}
        return min(sizes)


def _answers(thing: Any, device: str | None) -> Answers:
    if isinstance(thing, Parent) and thing.translates:
        thing = whole_parent(thing)
    if isinstance(thing, Parent):
        return ParentAnswers(thing, device)
    if isinstance(thing, Module):
        thing = compose([thing])
    return thing if device is None else thing.to(device)


def takes_words(thing: Any) -> bool:
    """Whether texts can be given as words: where there is a label for each of them."""
    return input_of(thing.input_kind).split and thing.output == "tags"


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
