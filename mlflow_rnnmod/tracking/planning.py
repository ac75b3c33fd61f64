"""Plans of composites over URIs: from each module's ``module.json`` alone, fetched in parallel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from rich.table import Table

from mlflow_rnnmod.composition.contracts import IncompatibleModules, find_problems
from mlflow_rnnmod.composition.plan import Entry, Plan, entry_of, make_plan
from mlflow_rnnmod.decomposition.module import Module
from mlflow_rnnmod.tracking import documents, download, parents
from mlflow_rnnmod.tracking.recipes import Recipe
from mlflow_rnnmod.tracking.servers import asks
from mlflow_rnnmod.tracking.sources import Source, flat, modules_in


class ShownPlan(Plan):
    """A plan that rich prints as a table."""

    def __rich__(self) -> Table:
        """The table."""
        table = Table("plan", "", show_header=False, title="Composite")
        for name, value in self.rows():
            table.add_row(name, value, style="bold red" if name == "problem" else None)
        return table


@asks(always=False)
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
    with download.quiet_downloads():
        found = survey(things)
    return _shown(make_plan(found.entries, batch_size, steps, found.problems))


def _shown(made: Plan) -> ShownPlan:
    return ShownPlan(**{name: getattr(made, name) for name in Plan.__dataclass_fields__})


@asks()
def plan_recipe(recipe: Recipe, batch_size: int = 64) -> ShownPlan:
    """As :func:`plan`, of a recipe: of some composites it takes single modules."""
    with download.quiet_downloads():
        found = survey(recipe.uris)
    there = (uri for uri in recipe.uris if uri not in found.failures)
    by_uri = dict(zip(there, found.parts, strict=True))
    entries, problems = list[Entry](), found.problems
    for wanted in recipe.modules:
        part = by_uri.get(wanted.uri)
        here = part.entries if isinstance(part, documents.Found) else ()
        taken = [e for e in here if wanted.label in (None, e.contract.label)]
        if here and not taken:
            problems.append(wanted.missing([e.contract.label for e in here]))
        entries += taken
    return _shown(make_plan(entries, batch_size, None, problems))


@dataclass(frozen=True)
class Survey:
    """What somebody named, looked at; weights under URIs are not read before :meth:`load`.

    Args:
        parts: in order, each thing's modules: loaded ones, or what was found under a URI.
        failures: what could not be found, or read, or is no module, by URI.
        missing: parents that are nowhere, in words.
    """

    parts: tuple[tuple[Module, ...] | documents.Found, ...]
    failures: Mapping[str, Exception]
    missing: tuple[str, ...]

    @property
    def entries(self) -> list[Entry]:
        """All modules, as a plan sees them."""
        found: list[Entry] = []
        for part in self.parts:
            if isinstance(part, documents.Found):
                found += part.entries
            else:
                found += [entry_of(module) for module in part]
        return found

    @property
    def modules(self) -> list[Module]:
        """Those that are loaded already."""
        loaded = [part for part in self.parts if isinstance(part, tuple)]
        return [module for part in loaded for module in part]

    @property
    def problems(self) -> list[str]:
        """What is wrong before anything is put together."""
        failed = [f"{uri}: {download.first_line(error)}" for uri, error in self.failures.items()]
        return [*failed, *self.missing]

    def check(self, beside: Sequence[Module] = ()) -> None:
        """Refuse what can't go together, beside some modules: what a plan tells, all at once."""
        if len(self.failures) == 1 and not self.missing and not self.entries:
            raise next(iter(self.failures.values()))  # which may say more than a line
        entries = [*map(entry_of, beside), *self.entries]
        unfit = find_problems((e.name, e.contract, e.parent) for e in entries) if entries else []
        if self.problems:
            codes = [getattr(error, "error_code", None) for error in self.failures.values()]
            code = next((ErrorCode.Value(c) for c in codes if c), RESOURCE_DOES_NOT_EXIST)
            told = str(IncompatibleModules([*self.problems, *unfit]))
            raise MlflowException(told, error_code=code)
        if unfit:
            raise IncompatibleModules(unfit)

    def load(self) -> list[Module]:
        """All modules, in order; files are fetched side by side, and each parent once."""

        def loaded(part: tuple[Module, ...] | documents.Found) -> tuple[Module, ...]:
            return part.load() if isinstance(part, documents.Found) else part

        with ThreadPoolExecutor(download.THREADS) as pool:
            return [module for part in pool.map(loaded, self.parts) for module in part]


def survey(things: Source | Iterable[Any]) -> Survey:
    """Look at what somebody named; the JSON files of modules are fetched side by side."""
    named = [x if isinstance(x, str) else modules_in(x) for x in flat(things)]
    uris = list(dict.fromkeys(x for x in named if isinstance(x, str)))
    with ThreadPoolExecutor(download.THREADS) as pool:
        found = dict(zip(uris, pool.map(_look, uris), strict=True))
        failures = {uri: x for uri, x in found.items() if isinstance(x, Exception)}
        given = [found[x] if isinstance(x, str) else x for x in named]
        parts = tuple(x for x in given if not isinstance(x, Exception))
        references: dict[tuple[str, str | None], Mapping[str, Any]] = {}
        here = {
            module.parent.digest for part in parts if isinstance(part, tuple) for module in part
        }
        for part in parts:
            for reference in getattr(part, "references", ()):
                if reference["digest"] not in here:
                    references[reference["digest"], reference["model_id"]] = reference
        missing = tuple(problem for problem in pool.map(_missing, references.values()) if problem)
    return Survey(parts, failures, missing)


def _look(uri: str) -> documents.Found | Exception:
    try:
        return documents.look(uri)
    except (MlflowException, ValueError, OSError) as error:
        return error


def _missing(reference: Mapping[str, Any]) -> str | None:
    """What is wrong where a parent is nowhere to be found; nothing is loaded."""
    digest, model_id = reference["digest"], parents.stored_id(reference)
    cache = parents.cache_folder()
    if parents.is_known(reference) or (cache is not None and (cache / digest).is_dir()):
        return None
    tried: list[str] = []
    for server in parents.servers(reference, tried):
        with parents.patience(server):
            client = MlflowClient(server)
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
    told = "".join(f"; {words}" for words in tried)
    return (
        f"parent {digest} (model id {model_id} on {reference.get('tracking_uri')}) is neither "
        f"here nor on {download.server()}; where it can still be read, "
        "mlflow_rnnmod.export(module, path) writes a module that needs no other files" + told
    )
