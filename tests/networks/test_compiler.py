"""Nothing here needs PyTorch's compiler, which takes as long to import as PyTorch itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import mlflow_rnnmod
from mlflow_rnnmod.networks.recurrent.layers import build_embedding

# Subjects written, read, moved and cut down; those over steps come from Lightning's own imports,
# which load the compiler.
SCRIPT = """
import sys, tempfile
import torch
from mlflow_rnnmod.networks import Trunk
from mlflow_rnnmod.networks.protocol import fastest, moved
from mlflow_rnnmod.storage import read_parent, write_parent
from tests.contract.graphs import GraphSuite
from tests.contract.recurrent import RecurrentSuite
from tests.contract.translation import TranslatorSuite

def check(where):
    if "torch._dynamo" in sys.modules:
        raise SystemExit(f"{where} has loaded the compiler")

check("importing")
parents = {}
for suite in (RecurrentSuite(), TranslatorSuite(), GraphSuite()):
    parents.update({f"{suite.name}: {name}": make() for name, make in suite.parents().items()})
for name, parent in parents.items():
    with tempfile.TemporaryDirectory() as folder:
        write_parent(parent, folder)
        network = read_parent(folder).network
    moved(network, "cpu")
    keep = {n: torch.arange(units) % 2 == 0 for n, units in network.units.items()}
    keep = {n: k | (len(k) == 1) for n, k in keep.items()}
    if network.config.answer.scored:
        fastest(network, Trunk(keep))
    else:
        network.writer(Trunk(keep))
    check(name)
"""


@pytest.mark.slow
def test_networks_of_all_kinds_do_without_the_compiler(tmp_path):
    root = Path(mlflow_rnnmod.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_an_embedding_starts_as_pytorchs_own():
    found = []
    for build in (nn.Embedding, build_embedding):
        torch.manual_seed(0)
        found.append((build(7, 5), torch.rand(3)))
    (own, after), (mine, also) = found
    assert torch.equal(own.weight, mine.weight) and torch.equal(after, also)
    assert mine.weight.requires_grad and mine.padding_idx is None
    with torch.device("meta"):
        assert build_embedding(7, 5).weight.is_meta
