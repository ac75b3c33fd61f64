"""Plans of composites over URIs: from each module's ``module.json`` alone, fetched in parallel."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from rich.table import Table

from mlflow_rnnmod import download, fetch, parents
from mlflow_rnnmod.composition.plan import Entry, Plan, entry_of, make_plan
from mlflow_rnnmod.storage.modules import DOCUMENT, read_entry
from mlflow_rnnmod.verbs import Source, _flat, modules_of

_THREADS = 8


class ShownPlan(Plan):
    """A plan that rich prints as a table."""

    def __rich__(self) -> Table:
        """The table."""
        table = Table("plan", "", show_header=False, title="Composite")
        for name, value in self.rows():
            table.add_row(name, value, style="bold red" if name == "problem" else None)
        return table


def plan(
    things: Source | Iterable[Any], batch_size: int = 64, steps: int | None = None
) -> ShownPlan:
    """What composing some modules would give, without loading a weight.

    Args:
        things: as for :func:`mlflow_rnnmod.compose`.
        batch_size: rows to estimate the cost for.
        steps: of an input; by default what the parents are fixed to, or 16.

    Returns:
        problems (all at once), parents, trunks, parameters, bytes, cost and accuracy to expect. It
        prints as a table, and ``to_json()`` gives it as JSON.

    Raises:
        MlflowException: if something is no module.
        ValueError: if ``batch_size`` or ``steps`` is not positive.
    """
    found = list(_flat(things))
    with download.quiet_downloads(), ThreadPoolExecutor(_THREADS) as pool:
        results = list(pool.map(_entries, found))
    entries = [entry for entries, _, _ in results for entry in entries]
    problems = [problem for _, problem, _ in results if problem]
    references: dict[str, dict[str, Any]] = {}
    for reference in (r for _, _, given in results for r in given):
        if reference["bundled"] or reference["digest"] not in references:
            references[reference["digest"]] = reference
    problems += [problem for r in references.values() if (problem := _missing(r))]
    made = make_plan(entries, batch_size, steps, problems)
    return ShownPlan(**{name: getattr(made, name) for name in Plan.__dataclass_fields__})


def _entries(thing: Any) -> tuple[list[Entry], str | None, list[dict[str, Any]]]:
    """A thing's modules, or what is wrong with it, and references to parents to look for."""
    if not isinstance(thing, str):
        return [entry_of(module) for module in modules_of(thing)], None, []
    try:
        with _document(thing) as folder:
            if folder is not None:
                entry, reference = read_entry(folder, thing)
                return [entry], None, [reference]
        return [entry_of(module) for module in modules_of(thing)], None, []
    except (MlflowException, ValueError, OSError) as error:
        return [], f"{thing}: {str(error).splitlines()[0]}", []


class _document:  # noqa: N801
    """A folder with the ``module.json`` of a URI; None where the URI holds no single module."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._opened: Any = None

    def __enter__(self) -> Path | None:
        local = Path(self.uri) / download.DATA
        if local.is_dir():
            return local if (local / DOCUMENT).is_file() else None
        logged = fetch._logged_model(fetch._origin(self.uri))
        place = self.uri.rstrip("/") if logged is None else logged.artifact_location
        self._opened = download.downloaded(f"{place}/{download.DATA}/{DOCUMENT}")
        try:
            return self._opened.__enter__().parent
        except Exception:  # whatever a store raises where there is no such file: a composite, say
            self._opened = None
            return None

    def __exit__(self, *error: object) -> None:
        if self._opened is not None:
            self._opened.__exit__(None, None, None)


def _missing(reference: dict[str, Any]) -> str | None:
    """What is wrong where a parent is nowhere to be found; nothing is loaded."""
    digest, model_id = reference["digest"], reference.get("model_id")
    cache = parents.cache_folder()
    here = parents._kept.get(digest, reference.get("tokenizer")) is not None
    if reference.get("bundled") or here or (cache is not None and (cache / digest).is_dir()):
        return None
    client = MlflowClient()
    try:
        if model_id and client.get_logged_model(model_id) is not None:
            return None
    except MlflowException:  # deleted, or of another server
        pass
    try:
        if parents.logged_parents(client, digest):
            return None
    except MlflowException:
        pass
    return f"parent {digest[:12]} (model {model_id}) is neither here nor on {download.server()}"
