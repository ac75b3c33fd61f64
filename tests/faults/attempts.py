"""Faults while a decomposition is logged, and what is there afterwards.

Every request to a store is a place where something can go wrong: before it is served, or after it
was served and before its answer is there. Faults are put in by number, so that all places come up.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import resource
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

import mlflow_rnnmod
from mlflow_rnnmod.tracking.bulk import log_decomposition
from mlflow_rnnmod.tracking.parents import forget_parents
from tests.builders import tiny_decomposition, tiny_parent

PREFIX = "faults"
Served = Callable[[Path], contextlib.AbstractContextManager[str]]
"""Starts a server, given a folder for what it keeps; its URI."""
FILES = (LocalArtifactRepository, HttpArtifactRepository, S3ArtifactRepository)
"""Where files go: a folder, a server that hands them on, a bucket."""
REQUESTS = (
    "get_run", "search_logged_models", "create_logged_model", "finalize_logged_model",
    "log_inputs", "log_batch", "create_registered_model", "get_registered_model",
    "create_model_version", "get_logged_model", "set_logged_model_tags",
    "set_registered_model_alias", "log_artifacts", "log_outputs", "search_model_versions",
    "delete_model_version", "delete_registered_model", "delete_logged_model",
)  # fmt: skip
FAULTS = (
    "error before", "error after", "interrupted before", "interrupted after", "exit after",
    "gone before", "gone after", "memory after", "swallowed", "disk full",
)  # fmt: skip
"""What can happen at a request; after it, its answer is lost. Gone is gone for good."""


class Gone(ConnectionError):
    """The store does not answer any more."""


@contextlib.contextmanager
def faulty(kind: str, at: int) -> Iterator[Counter[str]]:
    """Requests of which number ``at`` goes wrong; counts them, and faults that came about."""
    seen: Counter[str] = Counter()
    what, _, when = kind.partition(" ")
    errors: dict[str, Callable[[], BaseException]] = {
        "error": lambda: MlflowException("reset"),
        "interrupted": KeyboardInterrupt,
        "exit": lambda: SystemExit(1),
        "gone": Gone,
        "memory": MemoryError,
        "disk": lambda: OSError(28, "No space left on device"),
    }
    gone, lock = False, threading.Lock()

    def wrapped(name: str, function: Callable[..., Any], files: bool) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal gone
            with lock:
                number = seen["requests"] = seen["requests"] + 1
            # Only files fill a disk; files are swallowed, and what makes a model ready.
            places = {"disk": files, "swallowed": files or name == "finalize_logged_model"}
            hit = number == at and places.get(what, True)
            seen["faults"] += hit
            if gone:
                raise Gone()
            if hit and what == "gone" and when == "before":
                gone = True
                raise Gone()
            if hit and what == "swallowed":
                return None
            if hit and what == "disk":
                _half(function, args)
                raise errors[what]()
            if hit and when == "before":
                raise errors[what]()
            found = function(*args, **kwargs)
            if hit and what == "gone":
                gone = True
            if hit and when == "after":
                raise errors[what]()
            return found

        return call

    with contextlib.ExitStack() as stack:
        for name in REQUESTS:
            function = getattr(MlflowClient, name)
            stack.enter_context(
                mock.patch.object(MlflowClient, name, wrapped(name, function, False))
            )
        for repository, name in itertools.product(FILES, ("log_artifacts", "_download_file")):
            patched = wrapped(name, getattr(repository, name), name == "log_artifacts")
            stack.enter_context(mock.patch.object(repository, name, patched))
        yield seen


def _half(log_artifacts: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Half of some files, as a full disk leaves them."""
    repository, folder = args[0], Path(args[1])
    with tempfile.TemporaryDirectory() as halves:
        for path in list(folder.rglob("*"))[::2]:
            if path.is_file():
                target = Path(halves) / path.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        log_artifacts(repository, halves)


class Trials:
    """Attempts at one store, one after the other.

    Args:
        uri: the store, asked directly for what is there.
        seed: of the faults.
    """

    def __init__(self, uri: str, seed: int) -> None:
        self.uri = uri
        self.random = random.Random(seed)
        self.decomposition = tiny_decomposition(tiny_parent("text"))
        self.counts: Counter[str] = Counter()
        self.bad: list[str] = []
        self.runs = 0
        self.loaded: set[str] = set()

    def one(self, kind: str, at: int) -> bool:
        """One fault; whether it came about: the attempt got that far, and it fits that request."""
        client = MlflowClient(self.uri)
        if self.runs % 6 == 0:  # a new run now and then, else the next attempt is in the same
            self.run_id = client.create_run("0").info.run_id
        self.runs += 1
        succeeded = False
        with faulty(kind, at) as seen:
            try:
                self.log(self.run_id)
                succeeded = True
            except BaseException as error:
                if not isinstance(error, Exception | KeyboardInterrupt | SystemExit):
                    self.bad.append(f"{kind} at {at}: raised {error!r}")
        self.counts[f"{kind}: {'succeeded' if succeeded else 'undone'}"] += 1
        self.check(f"{kind} at {at}")
        return bool(seen["faults"])

    def requests(self) -> int:
        """How many an attempt makes that nothing happens to, which is removed again."""
        with faulty("none", 0) as seen:
            self.log(None)
        self.empty()
        return seen["requests"]

    def log(self, run_id: str | None, uri: str | None = None) -> Any:
        return log_decomposition(
            self.decomposition,
            run_id=run_id,
            tracking_uri=uri or self.uri,
            registered_model_prefix=PREFIX,
        )

    def check(self, what: str) -> None:
        """No READY model and no version that does not load, of those not looked at yet."""
        for uri in self.promised():
            if uri in self.loaded:
                continue
            self.loaded.add(uri)
            forget_parents()
            try:
                mlflow_rnnmod.load_model(uri)
            except Exception as error:
                self.bad.append(f"{what}: {uri} does not load: {str(error)[:300]}")

    def promised(self) -> list[str]:
        """URIs of all that is READY, or a version."""
        client = MlflowClient(self.uri)
        found = [
            model.model_uri
            for model in client.search_logged_models(["0"], max_results=500)
            if model.status == LoggedModelStatus.READY
        ]
        versions = client.search_model_versions(max_results=500)
        found += [f"models:/{v.name}/{v.version}" for v in versions]
        return found

    def succeeds(self, what: str) -> None:
        """The next attempt, in the same run and in a new one; then all is removed again.

        All that was there before is loaded once more: nothing has taken its parent away.
        """
        self.loaded.clear()
        self.check(what)
        for run_id in (getattr(self, "run_id", None), None):
            try:
                logged = self.log(run_id)
                for uri in (*logged.uris.values(), logged.parent_uri):
                    forget_parents()
                    mlflow_rnnmod.load_model(uri)
                for name in logged.registered_names.values():
                    aliases = MlflowClient(self.uri).get_registered_model(name).aliases
                    if "champion" not in aliases:
                        self.bad.append(f"{what}: {name} has no champion")
                self.counts["next attempts that succeeded"] += 1
            except BaseException as error:
                self.bad.append(f"{what}: the next attempt raised {error!r:.300}")
        self.empty()

    def empty(self) -> None:
        """Remove all that was logged, so that checks stay short."""
        client = MlflowClient(self.uri)
        for model in client.search_registered_models(max_results=500):
            client.delete_registered_model(model.name)
        for model in client.search_logged_models(["0"], max_results=500):
            client.delete_logged_model(model.model_id)
        self.runs = 0
        self.loaded.clear()


def in_process(faults: int, seed: int, served: Served | None = None) -> dict[str, Any]:
    """So many faults at the requests to a database without a server between, or to a server."""
    with store(served) as uri:
        trials = Trials(uri, seed)
        done = 0
        places = list(itertools.product(FAULTS, range(1, trials.requests() + 1)))
        trials.random.shuffle(places)
        for kind, at in places:
            if done >= faults:
                break
            happened = trials.one(kind, at)
            done += happened
            if happened and done % 25 == 0:
                trials.succeeds(f"after {kind} at {at}")
        trials.succeeds("at last")
    return {"faults": done, "counts": dict(trials.counts), "bad": trials.bad}


@contextlib.contextmanager
def store(served: Served | None = None) -> Iterator[str]:
    """An empty store, made MLflow's own: a database with artifacts beside it, or a server."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    before = os.getcwd()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-"))
        os.environ["RNNMOD_CACHE"] = ""
        os.chdir(folder)
        stack.callback(os.chdir, before)
        if served is None:
            uri = f"sqlite:///{folder}/mlflow.db"
            SqlAlchemyStore(uri, f"{folder}/artifacts").engine.dispose()
        else:
            uri = stack.enter_context(served(Path(folder)))
        mlflow.set_tracking_uri(uri)
        yield uri


def forked(work: Callable[[], object]) -> int:
    """Exit status of a process that does some work; it opens its own connections."""
    child = os.fork()
    if child == 0:
        try:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, 2)
            work()
            os._exit(0)
        except BaseException:
            os._exit(3)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def kills(count: int, seed: int, served: Served | None = None) -> dict[str, Any]:
    """Processes that are killed at a request, and disks that are full (a limit on file size)."""
    random_ = random.Random(seed)
    counts: Counter[str] = Counter()
    bad: list[str] = []
    with store(served) as uri, tempfile.TemporaryDirectory() as told:
        file = Path(told, "told")
        forked(lambda: file.write_text(str(Trials(uri, seed).requests())))
        most = int(file.read_text())
        for number in range(count):
            at, full = random_.randrange(1, most + 1), random_.random() < 0.2

            def work(at: int = at, full: bool = full) -> None:
                trials = Trials(uri, seed)
                if full:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (at * 400, at * 400))
                    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                    trials.log(None)
                    return
                with killing(at):
                    trials.log(None)

            code = forked(work)
            counts["killed" if code == -signal.SIGKILL else f"exit {code}"] += 1
            last = number % 10 == 9 or number == count - 1

            def check(number: int = number, last: bool = last) -> None:
                trials = Trials(uri, seed)
                trials.check(f"kill {number}")
                if last:
                    trials.succeeds(f"after kill {number}")
                file.write_text("\n".join(trials.bad))

            file.unlink(missing_ok=True)
            if forked(check) != 0:
                bad.append(f"kill {number}: the check broke off")
            else:
                bad += [line for line in file.read_text().splitlines() if line]
            counts["next attempts"] += 2 * last
    return {"faults": count, "counts": dict(counts), "bad": bad}


@contextlib.contextmanager
def killing(at: int) -> Iterator[None]:
    """This process is killed at a request, before or after it was served."""
    with faulty("none", 0):
        count, lock = 0, threading.Lock()

        def killed(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal count
                with lock:
                    number = count = count + 1
                if number == at and at % 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                found = function(*args, **kwargs)
                if number == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return found

            return call

        with contextlib.ExitStack() as stack:
            for owner, names in (
                (MlflowClient, REQUESTS),
                *((repository, ("log_artifacts", "_download_file")) for repository in FILES),
            ):
                for name in names:
                    stack.enter_context(
                        mock.patch.object(owner, name, killed(getattr(owner, name)))
                    )
            yield
