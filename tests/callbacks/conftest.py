"""Stand-ins for the parts of the callback's work that are slow and tested elsewhere."""

from types import SimpleNamespace

import pytest
import torch

from lightning_callbacks import decomposer
from tests.builders import tiny_decomposition


@pytest.fixture
def calls(monkeypatch):
    """Stand-ins for the slow parts; what they were given."""
    seen = SimpleNamespace(decompose=[], log=[], error=None, log_error=None)

    def decompose(parent, train, validation, report, config, progress, team=None):
        seen.decompose.append(SimpleNamespace(**locals()))
        torch.rand(5)
        if seen.error is not None:
            raise seen.error
        progress("watching", 1, 2)
        progress("watching", 2, 2)
        return tiny_decomposition(parent, config=config)

    def log_decomposition(decomposition, **options):
        if seen.log_error is not None:
            raise seen.log_error
        seen.log.append(SimpleNamespace(decomposition=decomposition, **options))
        return SimpleNamespace(parent_model_id="m-1")

    monkeypatch.setattr(decomposer, "decompose", decompose)
    monkeypatch.setattr(decomposer, "log_decomposition", log_decomposition)
    return seen
