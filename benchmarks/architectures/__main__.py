"""``python -m benchmarks.architectures``: which architectures come apart, to ``mlflow.pyfunc``."""

from __future__ import annotations

import logging
import warnings

import click

from benchmarks.architectures import ARCHITECTURES
from benchmarks.architectures.trying import take_apart


@click.command()
@click.argument("names", nargs=-1)
def main(names: tuple[str, ...]) -> None:
    """Take architectures apart, all or those named, and print a line for each."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    chosen = {name: ARCHITECTURES[name] for name in names or ARCHITECTURES}
    apart = 0
    for name, architecture in chosen.items():
        try:
            found = take_apart(architecture)
        except Exception as error:  # noqa: BLE001  what fails is counted, and said
            line = str(error).splitlines()[0]
            click.echo(f"  {name}: {type(error).__name__}: {line:.160}")
            continue
        fits = found.same == 1.0
        apart += fits
        click.echo(
            f"{'+' if fits else '-'} {name}, {architecture.name}: {found.way}, "
            f"{100 * found.same:.0f} % of answers the same, {100 * found.kept:.0f} % of units kept"
        )
    click.echo(f"{apart} of {len(chosen)} come apart, to a model that mlflow.pyfunc loads.")


if __name__ == "__main__":
    main()
