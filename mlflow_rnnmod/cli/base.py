"""What all commands share: errors in a sentence, exit codes, dead servers, options."""

from __future__ import annotations

import functools
import gc
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from mlflow_rnnmod.tracking import servers
from mlflow_rnnmod.tracking.servers import shown

WRONG = 1
"""Exit code where something is wrong; 2 is click's, for what was typed."""
REFUSED = 3
"""... where a label lost more than allowed, or has too few rows; nothing was changed."""
NO_ANSWER = 4
"""... where a server does not answer."""
FOUND = 5
"""... of ``check``, ``drift`` and ``watch --once``, where they found something."""
INTERRUPTED = 130
_CLOSED = 141  # as of a program that a closed pipe ended

# What MLflow says of an answer without a message of MLflow's own, as proxies and log-ins give it.
_REFUSED = re.compile(r"error code (401|403)\b")

F = TypeVar("F", bound=Callable[..., Any])


class Failure(click.ClickException):
    """An error in a sentence, with an exit code of its own."""

    def __init__(self, message: str, code: int = WRONG) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc]


def command(function: Callable[..., Any], silence: float | None = None) -> Callable[..., None]:
    """What a command is wrapped in: it says plainly what went wrong."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        with said_plainly():
            if not _is_offline(args, kwargs):
                check_servers(silence)
            with _quiet_downloads():
                function(*args, **kwargs)

    return wrapped


reading = functools.partial(command, silence=servers.BRIEF)
"""For a command that only looks: it is told sooner that a server stays silent."""


@contextmanager
def said_plainly() -> Iterator[None]:
    """What users can do something about is said in a sentence, without a traceback."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has gone, as head does; Python would complain about it while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(_CLOSED) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except Exception as error:
        raise _told(error) from error


def _told(error: Exception) -> Exception:
    """An error as one that click shows; what nobody can do anything about stays what it is."""
    from mlflow.exceptions import MlflowException

    # A server's errors begin with their code, a database's do not.
    text = re.sub(r"^[A-Z_]{6,}: ", "", str(error).strip())
    if type(error).__name__ == "PromotionRefused":
        return Failure(text, REFUSED)
    if isinstance(error, MlflowException) and (code := _REFUSED.search(text)):
        why = "it wants to know who you are" if code[1] == "401" else "you may not do this there"
        return Failure(f"No permission ({code[1]}): {why}. {text.splitlines()[0]}")
    if isinstance(error.__cause__, servers.NoAnswer):
        return Failure(text, NO_ANSWER)
    if isinstance(error, MlflowException) and "failed with exception" in text:
        return Failure(f"{_server_in(text)} does not answer: {text.splitlines()[0]}", NO_ANSWER)
    if type(error).__name__ == "MisconfigurationException":  # of either of Lightning's packages
        return Failure(text)
    if isinstance(error, MlflowException):
        from mlflow_rnnmod.tracking.searching import near_model

        return Failure((text or type(error).__name__) + near_model(text))
    if isinstance(error, ValueError | TypeError | OSError | ImportError):
        return Failure(text or type(error).__name__)
    return error


def _server_in(text: str) -> str:
    words = [word for word in text.split() if word.startswith(("http://", "https://"))]
    return shown(words[0]) if words else "The server"


def uncollected(function: Callable[..., Any]) -> Callable[..., None]:
    """For a short command: looking for garbage is a sixth of what importing MLflow takes."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        collects = gc.isenabled()
        gc.disable()
        try:
            function(*args, **kwargs)
        finally:
            if collects:
                gc.enable()

    return wrapped


def _is_offline(args: Any, kwargs: Any) -> bool:
    """Whether only folders are asked, for which no server has to be there."""
    given = [v for value in (*args, *kwargs.values()) for v in _texts(value)]
    named = any(text.startswith(("models:/", "runs:/", "rnnmod:/")) for text in given)
    return not named and any(Path(text).is_dir() for text in given if text)


def _texts(value: Any) -> list[str]:
    if isinstance(value, tuple):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) and len(value) < 4096 else []


def use_server(uri: str) -> None:
    """Make a server the one in use; MLflow is not imported for it."""
    if "mlflow" in sys.modules:
        import mlflow

        mlflow.set_tracking_uri(uri)
    else:
        os.environ["MLFLOW_TRACKING_URI"] = uri


def check_servers(silence: float | None = None) -> None:
    """Whether the servers in use are there, before anything waits for them.

    Raises:
        Failure: naming the one that is not.
    """
    # MLflow tries for minutes; what has answered once may still be slow for a moment.
    os.environ.setdefault(servers.RETRIES, servers.FEW)
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    for uri in servers.uris():
        check_server(uri, silence)
        parts = urlsplit(uri)
        if parts.scheme == "sqlite":
            file = Path(parts.path[1:])
            if not file.is_file():
                raise Failure(
                    f"There is no database {file}; expected a tracking server or database that is "
                    "there, by --tracking-uri or MLFLOW_TRACKING_URI."
                )


def check_server(uri: str, silence: float | None = None) -> None:
    """Whether one server is there.

    Raises:
        Failure: naming it, if it is not.
    """
    try:
        servers.check_http(uri, silence)
    except servers.NoAnswer as error:
        raise Failure(str(error), NO_ANSWER) from error


@contextmanager
def _quiet_downloads() -> Iterator[None]:
    """As the library's own, which would load torch."""
    name = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"
    if name in os.environ:
        yield
        return
    os.environ[name] = "false"
    try:
        yield
    finally:
        os.environ.pop(name, None)


class Commands(click.Group):
    """A group that suggests a command where one is spelled otherwise."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """As click's; an unknown name gets a suggestion."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            near = get_close_matches(args[0], self.list_commands(ctx), 2, 0.6)
            if near and "Did you mean" not in error.message:
                told = f"{error.message} Did you mean {' or '.join(near)}?"
                raise click.UsageError(told, ctx) from error
            raise


as_json = click.option("--json", "as_json", is_flag=True, help="As JSON.")
dry_run = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
in_experiment = click.option(
    "--experiment",
    metavar="NAME",
    help="Log to this experiment, not the current one.",
)
register = click.option("--register", metavar="NAME", help="Register the new model as NAME.")
name = click.option("--name", help="Name of the new model in its list.", default="composite")
save = click.option(
    "--save", metavar="FOLDER", help="Save the new model in FOLDER, instead of logging it."
)
rows = click.option(
    "--data",
    metavar="FILE",
    help="Rows with what is right: .jsonl, .json, .csv, .tsv or .parquet.",
)
target = click.option(
    "--target",
    metavar="COLUMN",
    help="What is right stands in COLUMN; by default in 'label', or the only other one.",
)


def max_drop(default: float | None) -> Callable[[F], F]:
    """The option of what a label may lose."""
    return click.option(
        "--max-drop",
        type=click.FloatRange(0, 100),
        default=default,
        show_default=default is not None,
        metavar="POINTS",
        help="Points of F1 that a label may lose.",
    )


min_rows = click.option(
    "--min-rows",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    metavar="N",
    help="Rows of each label below which nothing can be told of it.",
)


def use_experiment(wanted: str | None) -> None:
    """Make an experiment the one that is logged to; it is made where it is missing."""
    if wanted is not None:
        import mlflow

        mlflow.set_experiment(wanted)
