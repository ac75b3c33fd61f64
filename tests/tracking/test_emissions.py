"""What reuse saved: measured by codecarbon where it is asked for, shown on a composite's page."""

from __future__ import annotations

import builtins
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

import mlflow_rnnmod
from mlflow_rnnmod import composition
from tests.builders import tiny_modules, tiny_parent

PAGE = "mlflow.note.content"


@pytest.fixture
def tracker(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """codecarbon as far as it is used: 5 g and 10 Wh for the first, half of it for the next."""
    made: list[dict[str, Any]] = []

    class Tracker:
        def __init__(self, **settings: Any) -> None:
            made.append(settings)
            self.share = 1 / len(made)

        def start(self) -> None:
            self.final_emissions_data = None

        def stop(self) -> float:
            self.final_emissions_data = SimpleNamespace(energy_consumed=0.01 * self.share)
            return 0.005 * self.share

    module = ModuleType("codecarbon")
    module.OfflineEmissionsTracker = Tracker  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "codecarbon", module)
    return made


def test_the_page_says_what_reuse_saved(tracker, tracking_uri):
    with mlflow_rnnmod.measured("DEU") as training:
        pass
    with mlflow_rnnmod.measured("DEU") as making:
        composite = composition.compose(tiny_modules(tiny_parent("text")))
    assert [each["country_iso_code"] for each in tracker] == ["DEU", "DEU"]
    assert not any(each["save_to_file"] for each in tracker)
    info = mlflow_rnnmod.log_model(composite, emissions=making, instead_of=training)
    model = MlflowClient().get_logged_model(info.model_id)
    assert (model.params["co2e_grams"], model.params["co2e_grams_saved"]) == ("2.5", "2.5")
    page = model.tags[PAGE]
    assert "Making it emitted **2.5 g CO2e** (0.005 kWh" in page
    assert "training instead, 5 g (0.01 kWh" in page and "reuse saved **2.5 g**" in page
    assert page.index("CO2e") < page.index("## Labels")
    info = mlflow_rnnmod.log_model(composite, emissions=training)
    model = MlflowClient().get_logged_model(info.model_id)
    assert "5 g CO2e" in model.tags[PAGE] and "reuse" not in model.tags[PAGE].split("## ")[0]
    assert "co2e_grams_saved" not in model.params


def test_off_by_default(tracking_uri):
    info = mlflow_rnnmod.log_model(composition.compose(tiny_modules(tiny_parent("text"))))
    model = MlflowClient().get_logged_model(info.model_id)
    assert "CO2e" not in model.tags[PAGE] and "co2e_grams" not in model.params


def test_what_does_not_fit_is_said(tracker, tracking_uri, monkeypatch):
    modules = tiny_modules(tiny_parent("text"))
    wrong = pytest.raises(MlflowException, match=r"country='Germany'; expected a code of three")
    with wrong, mlflow_rnnmod.measured("Germany"):
        pass
    early = pytest.raises(MlflowException, match=r"emissions is .*when it is over")
    with mlflow_rnnmod.measured("DEU") as making, early:
        mlflow_rnnmod.log_model(composition.compose(modules), emissions=making)
    with pytest.raises(MlflowException, match=r"the model is a Module; expected a composite"):
        mlflow_rnnmod.log_model(modules[0], emissions=making)
    with pytest.raises(MlflowException, match=r"emissions is None"):
        mlflow_rnnmod.log_model(composition.compose(modules), instead_of=making)
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "codecarbon":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    missing = pytest.raises(MlflowException, match=r"pip install 'mlflow-rnnmod\[codecarbon\]'")
    with missing, mlflow_rnnmod.measured("DEU"):
        pass


def test_an_error_inside_is_not_hidden(tracker):
    with pytest.raises(ZeroDivisionError), mlflow_rnnmod.measured("DEU") as making:
        raise ZeroDivisionError
    assert making.emissions is not None
