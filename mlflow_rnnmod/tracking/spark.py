"""Scores inside Spark: a column of text has no room for them, and must not silently leave them out.

``mlflow.pyfunc.spark_udf`` takes the result type from the signature, which says what models answer
without params: a text. Of a table it then takes the first column, which are the labels.
"""

from __future__ import annotations

import sys
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException


class Scores(pd.DataFrame):
    """A table of scores that refuses to become a column of texts."""

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def map(self, func: Any, *args: Any, **kwargs: Any) -> pd.DataFrame:
        """As of any table; but ``str``, by which MLflow makes a column of texts, is refused.

        Raises:
            MlflowException: for ``str``.
        """
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
