"""Altered files, each in a process of its own: a seeded slice, or as many as is asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.fuzz import BAD

ROOT = Path(__file__).parents[2]


def fuzzed(tmp_path: Path, count: int, seed: int) -> dict[str, Any]:
    """In a process without threads, as each file's is forked from it."""
    file = tmp_path / "counts.json"
    arguments = ["--count", str(count), "--seed", str(seed), "--json", str(file)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.fuzz", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert file.is_file(), done.stderr[-2000:]
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def assert_all_is_well(found: dict[str, Any], count: int) -> None:
    assert found["bad"] == []
    assert sum(found["counts"].values()) == count
    assert not set(BAD) & set(found["counts"])
    assert found["counts"]["clear error"] > count / 2
    assert found["counts"].get("answered as before", 0) > 0


@pytest.mark.slow
def test_a_slice_of_altered_files(tmp_path: Path) -> None:
    assert_all_is_well(fuzzed(tmp_path, 200, 0), 200)


@pytest.mark.faults
def test_altered_files(tmp_path: Path) -> None:
    assert_all_is_well(fuzzed(tmp_path, 2000, 1), 2000)
