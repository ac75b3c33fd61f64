"""A small proxy between a client and a server, at which single requests go wrong.

It speaks just enough HTTP to know where a request ends: one connection is one request, read whole,
then handed on and answered, unless its number is the one that something happens to.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

KINDS = (
    "reset before", "reset after", "cut", "delayed", "swallowed", "504 after", "503 before",
    "refused from here on", "silent from here on",
)  # fmt: skip
"""What can happen to a request; ``after`` it was served. ``cut``: half of the answer comes."""
DELAY = 3.0


class Proxy:
    """Hands on requests to a server; :attr:`fault` says which one goes wrong, and how.

    Args:
        backend: URI of the server.
    """

    def __init__(self, backend: str) -> None:
        parts = urlsplit(backend)
        self.backend = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.uri = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.lock = threading.Lock()
        self.requests = 0
        self.fault: tuple[str, int] | None = None
        self.down = ""
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, kind: str | None, at: int = 0) -> None:
        """Let request number ``at`` from now on go wrong; ``None`` for none."""
        with self.lock:
            self.requests, self.down = 0, ""
            self.fault = None if kind is None else (kind, at)

    def close(self) -> None:
        """Take no more connections."""
        self.socket.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(60)
            request = _message(client)
            if not request:
                return
            kind = self._kind()
            if kind in ("refused", "reset before"):
                _reset(client)
                return
            if kind == "silent":
                time.sleep(2 * DELAY)
                return
            if kind == "503 before":
                client.sendall(_answer(503, b"busy"))
                return
            if kind == "swallowed":
                client.sendall(_answer(200, b"{}"))
                return
            if kind == "delayed":
                time.sleep(DELAY)
            answer = self._ask(request)
            if kind == "reset after":
                _reset(client)
            elif kind == "504 after":
                client.sendall(_answer(504, b"late"))
            elif kind == "cut":
                client.sendall(answer[: len(answer) // 2])
            else:
                client.sendall(answer)

    def _kind(self) -> str:
        with self.lock:
            self.requests += 1
            if self.down:
                return self.down
            if self.fault is None or self.requests != self.fault[1]:
                return ""
            kind = self.fault[0]
            if kind.endswith("from here on"):
                self.down = kind.partition(" ")[0]
                return self.down
            return kind

    def _ask(self, request: bytes) -> bytes:
        with socket.create_connection(self.backend, timeout=60) as server:
            server.sendall(request)
            return _message(server)


def _message(stream: socket.socket) -> bytes:
    """A whole request or answer, with ``Connection: close`` in its head."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = stream.recv(65536)
        if not part:
            return b""
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    lines = [
        line
        for line in head.split(b"\r\n")
        if not line.lower().startswith((b"connection:", b"keep"))
    ]
    fields = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(b":") for line in lines[1:])
    }
    if b"chunked" in fields.get(b"transfer-encoding", b"").lower():
        while not body.endswith(b"0\r\n\r\n"):
            part = stream.recv(65536)
            if not part:
                break
            body += part
    else:
        size = int(fields.get(b"content-length", b"0"))
        while len(body) < size:
            part = stream.recv(65536)
            if not part:
                break
            body += part
    return b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n" + body


def _answer(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _reset(stream: socket.socket) -> None:
    """Close at once, by a reset instead of an end."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()


@contextlib.contextmanager
def proxy(backend: str) -> Iterator[Proxy]:
    """A proxy before a server."""
    made = Proxy(backend)
    try:
        yield made
    finally:
        made.close()
