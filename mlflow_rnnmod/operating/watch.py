"""Staleness: composites whose modules have newer versions by now, flagged, and put up to the gate.

A composite says of each module which version it holds (``rnnmod.uses.*``). Where the alias of that
module's registered model points elsewhere by now, the composite is stale: its version gets the tag
``rnnmod.stale``, which goes again when it is not any more. It takes a few requests, and neither
torch nor the models' files.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_rnnmod.tracking.aliases import Alias
from mlflow_rnnmod.tracking.searching import logged_models, registered_aliases, registered_versions
from mlflow_rnnmod.tracking.servers import asks
from mlflow_rnnmod.tracking.uses import USES

_logger = logging.getLogger(__name__)

STALE = "rnnmod.stale"
"""Tag of a version: its modules that have newer versions, as ``more.irish: 1 -> 2``."""
CHAMPION = "champion"


@dataclass(frozen=True)
class Stale:
    """A composite with modules that have newer versions.

    Args:
        alias: that names the composite's version.
        version: of the composite.
        modules: registered models of modules, with the version that the composite holds and the one
            that their alias names now.
    """

    alias: Alias
    version: str
    modules: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __str__(self) -> str:
        told = "; ".join(f"{name}: {old} -> {new}" for name, (old, new) in self.modules.items())
        return f"{self.alias.uri} (version {self.version}) holds older versions: {told}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        modules = [
            {"name": name, "holds": old, "now": new} for name, (old, new) in self.modules.items()
        ]
        return {"composite": self.alias.uri, "version": self.version, "modules": modules}


@asks()
def stale(
    targets: Sequence[str] = (), module_alias: str = CHAMPION, flag: bool = True
) -> list[Stale]:
    """Composites whose modules have newer versions.

    Args:
        targets: aliases of composites, ``models:/<name>@<alias>``; by default every registered
            composite that has an alias.
        module_alias: alias of the modules' registered models that says which version is the one.
        flag: tag the composites' versions, and take the tag off those that are not stale any more.

    Raises:
        MlflowException: if a target is no alias of a registered composite.
    """
    client = MlflowClient()
    wanted = [Alias.of(target) for target in targets]
    aliases = registered_aliases(client)
    versions = registered_versions(client)
    found, seen = [], set()
    for model in logged_models(client, kinds=["composite"]):
        held = [value for key, value in model.tags.items() if key.startswith(USES)]
        moved = {}
        for name, slash, number in (value.rpartition("/") for value in held):
            now = aliases.get(name, {}).get(module_alias)
            if slash and now is not None and now != number:
                moved[name] = (number, now)
        for version in versions.get(model.model_id, []):
            for alias in (Alias(version.name, name) for name in version.aliases):
                seen.add(alias)
                if moved and (not wanted or alias in wanted):
                    found.append(Stale(alias, str(version.version), moved))
            mine = [Alias(version.name, name) for name in version.aliases]
            if flag and mine and (not wanted or not set(mine).isdisjoint(wanted)):
                _flag(client, version, moved)
    missing = [alias.uri for alias in wanted if alias not in seen]
    if missing:
        raise MlflowException.invalid_parameter_value(
            f"{', '.join(missing)}: no such alias of a registered composite."
        )
    return found


def _flag(client: MlflowClient, version: Any, moved: dict[str, tuple[str, str]]) -> None:
    told = "; ".join(f"{name}: {old} -> {new}" for name, (old, new) in moved.items())
    present = version.tags.get(STALE)
    if told and told != present:
        client.set_model_version_tag(version.name, version.version, STALE, told[:4000])
    elif present is not None and not told:
        client.delete_model_version_tag(version.name, version.version, STALE)


def watch(
    look: Callable[[], None],
    every: float = 60.0,
    webhook: str | None = None,
    port: int | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Look again and again, at the latest after some seconds, and as soon as an alias moves.

    Args:
        look: called each time.
        every: seconds.
        webhook: address under which the registry's server reaches this process. Where the server
            has no webhooks, or refuses this one, it is asked every few seconds all the same.
        port: to listen on; by default the address's.
        stop: ends it.
    """
    wake, stop = threading.Event(), stop or threading.Event()
    with _listening(webhook, port, wake):
        while not stop.is_set():
            wake.clear()
            look()
            wake.wait(every)


@contextmanager
def _listening(webhook: str | None, port: int | None, wake: threading.Event) -> Iterator[None]:
    if webhook is None:
        yield
        return
    secret = secrets.token_hex(32)
    server = _server(port or urlsplit(webhook).port or 80, secret, wake)
    client, registered = MlflowClient(), None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        events: list[Any] = ["model_version_alias.created", "model_version_alias.deleted"]
        name = f"rnnmod-watch-{secret[:8]}"
        registered = client.create_webhook(name, webhook, events, secret=secret)
    except MlflowException as error:
        _logger.warning("The server has no webhook for this, it is asked instead: %s", error)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        if registered is not None:
            client.delete_webhook(registered.webhook_id)


def _server(port: int, secret: str, wake: threading.Event) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = min(int(self.headers.get("Content-Length") or 0), 10**6)
            body = self.rfile.read(size)
            genuine = is_signed(secret, dict(self.headers.items()), body)
            # Whatever it says: the registry itself is asked.
            if genuine:
                wake.set()
            self.send_response(200 if genuine else 403)
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    return ThreadingHTTPServer(("", port), Handler)


def is_signed(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """Whether the server that was told the secret sent this."""
    known = {name.lower(): value for name, value in headers.items()}
    parts = [known.get(f"x-mlflow-{name}", "") for name in ("delivery-id", "timestamp")]
    text = ".".join(parts).encode() + b"." + body
    right = base64.b64encode(hmac.new(secret.encode(), text, hashlib.sha256).digest()).decode()
    return hmac.compare_digest(known.get("x-mlflow-signature", ""), f"v1,{right}")
