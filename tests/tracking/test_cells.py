"""Cells that hold lists: one row of a table is one answer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mlflow_rnnmod.tracking.columns import read_inputs


def test_a_single_cell_may_hold_all_texts():
    assert read_inputs(pd.DataFrame({"text": [["a", "b"]]}), "text") == ["a", "b"]
    assert read_inputs(pd.DataFrame({"text": [[["a"], [], ["b"]]]}), "text") == ["a", "", "b"]


@pytest.mark.parametrize("empty", [[], (), None, np.array([])])
def test_an_empty_list_among_others_stays_a_row(empty):
    assert read_inputs(pd.DataFrame({"text": [["a"], empty, ["b"]]}), "text") == ["a", "", "b"]
    assert read_inputs({"tokens": [[1, 2], empty, [3]]}, "tokens", 5) == [[1, 2], [], [3]]
