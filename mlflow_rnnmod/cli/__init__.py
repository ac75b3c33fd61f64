"""``rnnmod``: modules and composites from the command line.

Heavy imports are inside the commands, so that ``rnnmod --help`` answers at once.
"""

from __future__ import annotations

import click

from mlflow_rnnmod.cli import asking, finding, gating, making, minding, moving
from mlflow_rnnmod.cli.base import Commands


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--tracking-uri",
    metavar="URI",
    help="MLflow's tracking server or database; by default $MLFLOW_TRACKING_URI.",
)
@click.version_option(package_name="mlflow-rnnmod")
def main(tracking_uri: str | None) -> None:
    """Trained networks as modules: list, look at, compose, replace, promote, ask them.

    Exit codes: 0; 1 something is wrong; 2 wrong arguments; 3 refused by the gate; 4 a server does
    not answer; 5 check, drift or watch --once found something.
    """
    if tracking_uri is not None:
        from mlflow_rnnmod.cli.base import use_server

        use_server(tracking_uri)


for _command in (
    finding.list_models,
    finding.search,
    finding.show,
    finding.open_page,
    finding.where_used,
    making.plan,
    making.compose,
    making.add,
    making.remove,
    making.select,
    gating.replace,
    gating.promote,
    gating.rollback,
    gating.evaluate,
    gating.diff,
    minding.check,
    minding.drift,
    minding.watch,
    moving.push,
    moving.decompose,
    making.export,
    asking.predict,
):
    main.add_command(_command)
