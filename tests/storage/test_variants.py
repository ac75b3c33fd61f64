"""Files of modules with masks for single steps and gates, and of the first format."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from mlflow_rnnmod.networks import Parent, Trunk
from mlflow_rnnmod.storage import read_module, write_module
from tests.builders import tiny_module, tiny_parent
from tests.networks.recurrent.test_unrolled import KINDS, random_masks
from tests.storage.test_storage import edit


def never(digest: str, reference: dict) -> Parent:
    raise AssertionError("the parent is bundled")


def test_files_that_the_first_format_can_say_are_written_in_it(tmp_path):
    write_module(tiny_module(tiny_parent()), tmp_path, standalone=True)
    for path in (tmp_path / "module.json", next(tmp_path.glob("parents/*/network.json"))):
        assert json.loads(path.read_text())["format"] == 1
    tags = tiny_parent(output="tags", readout="all_steps")
    write_module(tiny_module(tags), tmp_path / "tags", standalone=True)
    assert json.loads((tmp_path / "tags" / "module.json").read_text())["format"] == 2
    path = next(tmp_path.glob("tags/parents/*/network.json"))
    assert json.loads(path.read_text())["format"] == 2


@pytest.mark.parametrize(
    ("kind", "most"), [(KINDS[0], 14), (KINDS[1], 14), (KINDS[2], 28)], ids=str
)
def test_modules_stay_small(tmp_path, kind, most):
    """An LSTM of 100 units over 15 steps: a few KB for a fifth removed."""
    names = [f"a_label_of_usual_length_{i}" for i in range(10)]
    parent = tiny_parent(labels=names, recurrent=((100,),)).known_as("m-" + "0" * 32, "sqlite:///x")
    trunk = random_masks(parent.network, kind, 15, removal=0.2)
    write_module(replace(tiny_module(parent), trunk=trunk), tmp_path)
    assert sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()) <= most * 1024


def test_masks_of_another_cell_are_refused(tmp_path):
    """Gates are told by the cell: four masks are no GRU's."""
    parent = tiny_parent(cell="gru")
    keep = {"recurrent.0.fwd": torch.eye(8)[:4].bool()}
    module = replace(tiny_module(parent), trunk=Trunk(keep, gates="separate"))
    write_module(module, tmp_path, standalone=True)
    with pytest.raises(ValueError, match="does not fit its parent.*has 4 gates; expected 3"):
        read_module(tmp_path, never)


def test_a_shape_that_is_not_the_masks_is_refused(tmp_path):
    parent = tiny_parent()
    torch.manual_seed(0)
    module = replace(tiny_module(parent), trunk=random_masks(parent.network, KINDS[1], 5))
    write_module(module, tmp_path, standalone=True)
    path = tmp_path / "module.json"
    edit(path, lambda body: body["trunk"].update(units=[["recurrent.0.fwd", [6, 8]]]))
    with pytest.raises(ValueError, match="a mask of 48 units is stored as"):
        read_module(tmp_path, never)
