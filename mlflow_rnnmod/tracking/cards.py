"""The card that was logged with a model; it needs neither torch nor the model's other files."""

from __future__ import annotations

from pathlib import Path

from mlflow.exceptions import MlflowException

from mlflow_rnnmod.tracking import download
from mlflow_rnnmod.tracking.searching import near_names

CARD = "card/README.md"


@near_names()
def logged_card(uri: str) -> str:
    """The card that was logged with a model, figures and all; or else one that is made of it.

    ``uri``: of the model, or its folder. Its card alone is fetched; the model where it has none.
    """
    file = Path(uri, CARD)
    if file.is_file():
        return file.read_text(encoding="utf-8")
    if uri.startswith(("models:/", "runs:/")):
        try:
            with download.quiet_downloads():
                return _fetched(uri).decode("utf-8")
        except (MlflowException, OSError, ValueError):
            pass  # no card, or no model: reading the model tells which
    from mlflow_rnnmod.tracking import fetch, shelf

    return shelf.card_of(fetch.load(uri), uri)


def _fetched(uri: str) -> bytes:
    if uri.startswith("models:/"):
        return download.content(uri, CARD)
    # Models of a run are not among its files: MLflow's own way finds them.
    with download.downloaded(f"{uri.rstrip('/')}/{CARD}") as file:
        return file.read_bytes()
