"""Measuring energy and CO2e with codecarbon (the extra ``codecarbon``), without a connection."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mlflow.exceptions import MlflowException

from mlflow_rnnmod.composition import Composite
from mlflow_rnnmod.pages.wording import Emissions, Saved

_COUNTRY = re.compile(r"[A-Z]{3}")


@dataclass
class Measurement:
    """What is being measured; ``emissions`` is there when it is over."""

    emissions: Emissions | None = None


@contextmanager
def measured(country: str) -> Iterator[Measurement]:
    """Measure the energy that what is inside takes, and its CO2e.

    Args:
        country: whose mix of power counts: a code of three letters, as ``"DEU"``. Nothing is asked
            of any server for it.

    Yields:
        a :class:`Measurement`, for ``log_model(composite, emissions=, instead_of=)``.

    Raises:
        MlflowException: if ``country`` is no such code, or codecarbon is not installed.

    Example::

        with mlflow_rnnmod.measured("DEU") as training:
            trainer.fit(model)
        with mlflow_rnnmod.measured("DEU") as making:
            composite = mlflow_rnnmod.compose(uris)
        mlflow_rnnmod.log_model(composite, emissions=making, instead_of=training)
    """
    if not isinstance(country, str) or not _COUNTRY.fullmatch(country):
        raise MlflowException.invalid_parameter_value(
            f"country={country!r}; expected a code of three capital letters, as 'DEU'."
        )
    try:
        from codecarbon import OfflineEmissionsTracker
    except ImportError as error:
        raise MlflowException.invalid_parameter_value(
            "codecarbon, which measures emissions, is not installed; expected it by "
            "pip install 'mlflow-rnnmod[codecarbon]'."
        ) from error
    tracker = OfflineEmissionsTracker(
        country_iso_code=country,
        measure_power_secs=1,
        save_to_file=False,
        log_level=logging.ERROR,
        allow_multiple_runs=True,
    )
    found = Measurement()
    tracker.start()
    started = time.perf_counter()
    try:
        yield found
    finally:
        seconds = time.perf_counter() - started
        kilograms = float(tracker.stop() or 0.0)
        energy = float(getattr(tracker.final_emissions_data, "energy_consumed", 0.0) or 0.0)
        found.emissions = Emissions(1000 * kilograms, energy, seconds, country)


def saved_of(
    thing: Any, emissions: Measurement | None, instead_of: Measurement | None
) -> Saved | None:
    """What was measured for a composite that is being logged."""
    if emissions is None and instead_of is None:
        return None
    found: list[Emissions | None] = []
    for name, given in (("emissions", emissions), ("instead_of", instead_of)):
        own = getattr(given, "emissions", None)
        if own is None and (given is not None or name == "emissions"):
            raise MlflowException.invalid_parameter_value(
                f"{name} is {given!r:.80}; expected what mlflow_rnnmod.measured gave, when it is "
                "over."
            )
        found.append(own)
    if not isinstance(thing, Composite):
        raise MlflowException.invalid_parameter_value(
            f"emissions is given, and the model is a {type(thing).__name__}; expected a composite, "
            "whose page says what reuse saved."
        )
    making, training = found
    assert making is not None
    return Saved(making, training)
