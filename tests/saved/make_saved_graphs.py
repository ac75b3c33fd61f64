"""Wrote the convolutional models beside it, with the code that came before formats 4, 5 and 6.

Do not run it again; see ``make_saved.py``, whose helpers it uses. It ran from a clone of each of
its commits, whose test helpers it uses, too::

    PYTHONPATH=. python tests/saved/make_saved_graphs.py <folder>

Pixels are labelled with their parent's own answers, a tenth of them changed. Those of format 5 have
windows.
"""

# What is imported here need not be there any more.
# ruff: noqa: I001

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.saved.make_saved import calls_of, clear, described, params_of, plain, save, served

FORMATS = {"4c4db4d": 3, "c10b67a": 4, "4b91215": 5}
"""By the commit that wrote it."""


def rows_of(parent: Any, count: int, seed: int) -> Any:
    """Random pixels with the parent's own answers as targets, a tenth of them changed."""
    from mlflow_rnnmod import Rows

    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(count, *parent.input_size, generator=draw).double()
    with torch.no_grad():
        targets = parent.network(Rows(values)).argmax(dim=-1)
    other = torch.randint(len(parent.labels), targets.shape, generator=draw)
    changed = torch.rand(targets.shape, generator=draw) < 0.1
    return Rows(values, targets=torch.where(changed, other, targets))


def parent_of(name: str) -> Any:
    """A small random convolutional parent, of the test's."""
    from tests.contract import graphs

    readout = {"PLAIN": "reshape_0", "RESIDUAL": "mean_0"}[name]
    return graphs.graph_parent(getattr(graphs, name), readout, shape=graphs.IMAGE)


def taken_apart(name: str) -> tuple[Any, ...]:
    """The modules of a parent."""
    from mlflow_rnnmod import DecompositionConfig, decompose

    parent, config = parent_of(name), DecompositionConfig(removal=0.3)
    train, validation = (rows_of(parent, count, seed) for count, seed in ((240, 1), (120, 2)))
    return tuple(decompose(parent, train, validation, config=config).modules)


def inputs_for(parent: Any) -> list[Any]:
    """Some pixels as plain data."""
    values = rows_of(parent, 9, 77).values
    return [(each * 1000).round().div(1000).tolist() for each in values]


def of_composite(composite: Any, folder: Path) -> dict[str, Any]:
    """All that is kept of a composite, or of the composite of one module."""
    inputs = clear(composite, inputs_for(composite.modules[0].parent))
    assert len(inputs) > 5, len(inputs)
    calls = calls_of(composite, inputs)
    asked = params_of(composite.output, list(composite.labels), calls)
    return {
        "input": composite.input_kind,
        "column": None,
        "output": composite.output,
        "labels": list(composite.labels),
        "score": composite.score,
        "modules": [described(module) for module in composite.modules],
        "inputs": inputs,
        "calls": calls,
        "served": served(folder, np.array(inputs, np.float32), asked),
    }


@torch.no_grad()
def of_parent(parent: Any, folder: Path) -> dict[str, Any]:
    """All that is kept of a parent."""
    from mlflow_rnnmod import Rows

    inputs = inputs_for(parent)
    rows = Rows(torch.tensor(inputs, dtype=torch.float64))
    return {
        "input": parent.input_kind,
        "column": None,
        "output": "label",
        "labels": list(parent.labels),
        "digest": parent.digest,
        "tokenizers": parent.tokenizers,
        "inputs": inputs,
        "values": plain(rows.values),
        "lengths": plain(rows.lengths),
        "served": served(folder, np.array(inputs, np.float32), [{}, {"scores": True}]),
        "logits": plain(parent.network(rows)),
    }


def main(root: Path) -> None:
    """Write what the commit can write into ``root``."""
    import mlflow_rnnmod

    clone = Path(mlflow_rnnmod.__file__).parent
    command = ["git", "-C", str(clone), "describe", "--always", "--dirty", "--abbrev=7"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if found not in FORMATS:
        raise SystemExit(f"The code is of commit {found}; expected one of {list(FORMATS)}.")
    version = FORMATS[found]
    flattened, residual = taken_apart("PLAIN"), taken_apart("RESIDUAL")
    assert version < 5 or all(module.trunk.windows for module in residual)
    things = {
        "parent_format3": residual[0].parent,
        f"module_format{version}": residual[2],
        f"label_format{version}": mlflow_rnnmod.compose([*residual[:2], flattened[2]]),
    }
    for name in {4: list(things)[:2], 5: list(things)[:1]}.get(version, []):
        del things[name]  # nothing newer is in them
    for name, thing in things.items():
        kind = {"label": "composite"}.get(name.partition("_")[0], name.partition("_")[0])
        folder = root / name / "model"
        shutil.rmtree(root / name, ignore_errors=True)
        save(thing, folder, **({"standalone": True} if kind == "module" else {}))
        shutil.rmtree(folder / "card", ignore_errors=True)
        if kind == "parent":
            kept = of_parent(thing, folder)
        else:
            kept = of_composite(
                mlflow_rnnmod.compose([thing]) if kind == "module" else thing, folder
            )
        content = json.dumps({"kind": kind, **kept}, ensure_ascii=False, allow_nan=False)
        (root / name / "answers.json").write_text(content + "\n", encoding="utf-8")
        print(name, len(kept["inputs"]), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]).absolute())
