"""Back to the version that an alias named before."""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from mlflow_rnnmod.operating.promotion import Promotion, try_version
from mlflow_rnnmod.tracking import fetch
from mlflow_rnnmod.tracking.aliases import BEFORE, Alias
from mlflow_rnnmod.tracking.searching import name_is
from mlflow_rnnmod.tracking.servers import asks


@asks()
def rollback(target: str, to: str | int | None = None, *, dry_run: bool = False) -> Promotion:
    """Point an alias at the version that it named before, once that has been loaded.

    Args:
        target: the alias, ``models:/<name>@<alias>``.
        to: the version; by default the one that :func:`~mlflow_rnnmod.promote` moved the alias
            from.
        dry_run: say which it would be, and leave the alias.

    Returns:
        Versions; rolled back again, it goes back further.

    Raises:
        MlflowException: if there is no such alias or version, nobody wrote down what was before, or
            the version does not load and answer in a process of its own.

    Example::

        mlflow_rnnmod.rollback("models:/names@champion")
    """
    if to is not None and not (str(to).isascii() and str(to).isdigit()):
        raise MlflowException.invalid_parameter_value(
            f"to={to!r}; expected the number of a version, or nothing for the one before."
        )
    alias, client = Alias.of(target), MlflowClient()
    now = alias.version(client)
    if now is None:
        raise MlflowException(
            f"target={target!r}: there is no such alias.", error_code=RESOURCE_DOES_NOT_EXIST
        )
    version = str(to) if to is not None else _before(client, alias, now)
    if version == now:
        raise MlflowException.invalid_parameter_value(
            f"{alias.uri} points at version {version} already."
        )
    uri = f"models:/{alias.name}/{version}"
    thing = fetch.load(uri)
    if not dry_run:
        try_version(uri, thing)
        alias.move(client, version, now)
    return Promotion(alias, None if dry_run else version, now, None, version if dry_run else None)


def _before(client: MlflowClient, alias: Alias, version: str) -> str:
    tag = BEFORE + alias.alias
    found: str | None = client.get_model_version(alias.name, version).tags.get(tag)
    if found is not None:
        return found
    others = client.search_model_versions(name_is(alias.name))
    told = ", ".join(sorted((str(v.version) for v in others if str(v.version) != version), key=int))
    raise MlflowException(
        f"Version {version} of {alias.name!r} does not say which version {alias.alias!r} named "
        f"before (tag {tag}: promote writes it); expected to=VERSION, one of {told or 'none'}.",
        error_code=RESOURCE_DOES_NOT_EXIST,
    )
