"""What making a model emitted, and what training one in its place would have: what reuse saved."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Emissions:
    """What something took, as it was measured.

    Args:
        grams: of CO2e.
        kilowatt_hours: of energy.
        seconds: of time.
        country: whose mix of power counts, as a code of three letters.
    """

    grams: float
    kilowatt_hours: float
    seconds: float
    country: str


@dataclass(frozen=True)
class Saved:
    """What making a composite took, beside what was not done for it.

    Args:
        making: taking apart, composing: what was done.
        training: of networks, which is what reuse does without; ``None`` where it was not measured.
    """

    making: Emissions
    training: Emissions | None = None

    def params(self) -> dict[str, str]:
        """What lists of models show."""
        found = {"co2e_grams": f"{self.making.grams:.4g}"}
        if self.training is not None:
            found["co2e_grams_saved"] = f"{self.training.grams - self.making.grams:.4g}"
        return found

    def words(self) -> str:
        """In a sentence or two, Markdown.

        Example:
            >>> made, trained = Emissions(0.5, 0.001, 2.0, "DEU"), Emissions(50, 0.1, 300.0, "DEU")
            >>> print(Saved(made, trained).words())
            Making it emitted **0.5 g CO2e** (0.001 kWh, 2 s); training instead, 50 g (0.1 kWh, \
300 s): reuse saved **49.5 g**. Measured by codecarbon, offline, with the power of DEU.
        """
        told = f"Making it emitted **{self.making.grams:.3g} g CO2e** ({_energy(self.making)})"
        if self.training is not None:
            saved = self.training.grams - self.making.grams
            told += f"; training instead, {self.training.grams:.3g} g ({_energy(self.training)}): "
            told += f"reuse saved **{saved:.3g} g**" if saved > 0 else "reuse saved nothing"
        return f"{told}. Measured by codecarbon, offline, with the power of {self.making.country}."


def _energy(found: Emissions) -> str:
    return f"{found.kilowatt_hours:.3g} kWh, {found.seconds:.0f} s"
