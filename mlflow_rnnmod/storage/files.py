"""Files that say what they are, which format they have, and whether they are as written.

Two kinds of file hold everything: JSON documents, which carry their own digest and the digests of
the files beside them, and safetensors. Nothing is pickled, and reading runs no foreign code.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit, urlunsplit

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mlflow_rnnmod._digest import canonical_json, digest_text
from mlflow_rnnmod.storage import bounds

FORMAT = 5
"""The newest format version. What the first could say is written in it still, for older readers.

2: other kinds of answer than one label; masks for single steps and gates.
3: graphs of more than dense layers, with places behind units.
4: composites alone: all their modules in one JSON file and one of tensors.
5: trunks whose kernels guess removed channels from all of their places; names of vocabularies.
"""


T = TypeVar("T")
_FIELDS = (KeyError, TypeError, AttributeError, IndexError)
_OTHERS = (RuntimeError, ArithmeticError, AssertionError, MemoryError, OSError)
_DIGEST = re.compile(r"[0-9a-f]{64}")


def write_document(path: Path, kind: str, content: Mapping[str, Any], version: int = 1) -> str:
    """Write ``content`` as a JSON document: sorted keys, UTF-8, with kind, format and digest."""
    try:
        # Through JSON and back, so that what is digested is what a reader will see.
        body = json.loads(json.dumps({**content, "kind": kind, "format": version}, allow_nan=False))
        body["sha256"] = digest_text(canonical_json(body))
        data = json.dumps(body, sort_keys=True, indent=1, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path.name} can't be written, its content is not JSON: {error}"
        ) from error
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def read_document(path: Path, kind: str, sha256: str | None = None) -> dict[str, Any]:
    """The document that :func:`write_document` wrote, checked against its digest.

    ``sha256``: what the whole file's digest should be, where another file says so.
    """
    data = read_bytes(path, sha256, bounds.DOCUMENT_BYTES)
    try:
        body = bounds.parse_json(data)
        if not isinstance(body, dict):
            raise ValueError(f"it holds a {type(body).__name__}")
    except ValueError as error:
        raise ValueError(
            f"{path} is truncated or altered: expected a JSON document that holds its own SHA-256, "
            f"found {len(data)} bytes with SHA-256 {hashlib.sha256(data).hexdigest()} ({error})."
        ) from error
    if body.get("kind") != kind:
        raise ValueError(f"{path} has kind {body.get('kind')!r}; expected {kind!r}.")
    version = body.get("format")
    if type(version) is not int or version < 1:
        raise ValueError(f"{path} has format {version!r}; expected a number from 1 to {FORMAT}.")
    if version > FORMAT:
        raise ValueError(
            f"{path} has format {version}, and the newest that this version of mlflow_rnnmod reads "
            f"is {FORMAT}. Upgrade it: pip install --upgrade mlflow-rnnmod."
        )
    expected = body.pop("sha256", None)
    found = digest_text(canonical_json(body))
    if found != expected:
        raise ValueError(
            f"{path} is altered:\nexpected SHA-256 of its content: {expected}\nfound: {found}."
        )
    return body


def by_version(
    readers: Mapping[int, Callable[[dict[str, Any]], T]], body: dict[str, Any], path: Path
) -> T:
    """What the reader for the document's format, or else the latest before it, makes of it."""
    try:
        return readers[max(version for version in readers if version <= body["format"])](body)
    except BaseException as error:
        raise_ours(error, f"{path} (format {body['format']})")


def raise_ours(error: BaseException, where: str) -> NoReturn:
    """Raise what reading a file has raised, as a ``ValueError`` that names the file.

    Whatever a file holds, that is all that reading it may come to: fields that are missing or of
    another type, numbers too large for whoever takes them, and the panics of libraries in Rust,
    which are no ``Exception``. Interruptions, and what is not of reading, stay what they are.
    """
    if isinstance(error, ValueError) and where.partition(" (")[0] in str(error):
        raise error
    if isinstance(error, ValueError):
        raise ValueError(f"{where}: {error}") from error
    if isinstance(error, _FIELDS):
        raise ValueError(f"{where} lacks a field or has one of another type: {error!r}.") from error
    if isinstance(error, _OTHERS) or type(error) is Exception or is_panic(error):
        raise ValueError(f"{where} can't be read: {error!r:.500}.") from error
    raise error


def is_panic(error: BaseException) -> bool:
    """Whether it is what an extension in Rust raises where it gives up: no ``Exception``."""
    return type(error).__name__ == "PanicException"


def read_bytes(path: Path, sha256: str | None = None, most: int | None = None) -> bytes:
    """A file's bytes, checked.

    ``most``: bytes that it may have at the most.
    """
    data = bounds.read_regular(path, most)
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256:
        raise ValueError(
            f"{path} is truncated or altered:\nexpected SHA-256: {sha256}\n"
            f"found: {found} ({len(data)} bytes)."
        )
    return data


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors as safetensors; gives the file's SHA-256."""
    # Cloned: safetensors refuses tensors that share memory, as tied weights do.
    data = save({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()})
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def read_tensors(
    path: Path,
    sha256: str,
    expected: Mapping[str, Any] | None = None,
    most: int | None = None,
) -> dict[str, Tensor]:
    """The tensors of a safetensors file with this SHA-256, on the CPU.

    ``expected``: shapes by name, which its header has to say before anything is allocated;
    ``most``: bytes that its tensors may take at the most; by default what ``expected`` says.
    """
    if expected is not None and most is None:
        most = 8 * sum(torch.Size(shape).numel() for shape in expected.values())
    data = read_bytes(path, sha256, None if most is None else most + bounds.HEADER_BYTES)
    try:
        shapes = bounds.tensor_shapes(data)
        if expected is not None:
            _compare(shapes, expected)
        tensors = load(data)
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"{name} holds NaN or infinity; expected finite numbers")
    except BaseException as error:
        if isinstance(error, SafetensorError):
            raise ValueError(f"{path} is not a safetensors file: {error}.") from error
        raise_ours(error, str(path))
    return tensors


def _compare(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, Any]) -> None:
    """Names and shapes that a header has with those that are needed; all differences at once."""
    missing, more = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    problems = [f"lacks {', '.join(missing[:20])}"] * bool(missing)
    problems += [f"has {', '.join(more[:5])}, which nobody reads"] * bool(more)
    problems += [
        f"{name} has shape {found[name]}, expected {tuple(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != tuple(shape)
    ][:5]
    if problems:
        raise ValueError(f"it does not fit: {'; '.join(problems)}")


def check_digest(value: Any, name: str, path: Path) -> str:
    """``value`` where it is a SHA-256 in hexadecimal: digests name folders."""
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise ValueError(f"{path}: {name}={value!r}; expected 64 hexadecimal characters.")
    return value


def pack_bits(mask: Tensor) -> Tensor:
    """A bool tensor of one dimension as uint8, eight bits a byte, the first in the lowest bit.

    Example:
        >>> pack_bits(torch.tensor([True, False, True] + [False] * 5 + [True])).tolist()
        [5, 1]
    """
    padded = torch.zeros(-(-len(mask) // 8) * 8, dtype=torch.uint8)
    padded[: len(mask)] = mask
    return (padded.view(-1, 8) << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8)


def unpack_bits(packed: Tensor, size: int) -> Tensor:
    """The bool tensor of ``size`` elements that :func:`pack_bits` packed.

    Example:
        >>> unpack_bits(torch.tensor([5, 1], dtype=torch.uint8), 9).nonzero()[:, 0].tolist()
        [0, 2, 8]
    """
    if packed.dtype != torch.uint8 or packed.shape != (-(-size // 8),):
        raise ValueError(
            f"a mask of {size} units is stored as {packed.dtype} of shape {tuple(packed.shape)}; "
            f"expected torch.uint8 of shape {(-(-size // 8),)}."
        )
    bits = (packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
    return bits.reshape(-1)[:size].bool()


def without_credentials(uri: str | None) -> str | None:
    """``uri`` without a user's name and password, which have no place in an artifact.

    Example:
        >>> without_credentials("https://me:secret@models.example:5000/mlflow")
        'https://models.example:5000/mlflow'
    """
    if uri is None or "@" not in uri:
        return uri
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def clean_origin(origin: Mapping[str, Any]) -> dict[str, Any]:
    """A module's origin as it is stored: JSON types, addresses without credentials."""
    return {
        name: without_credentials(value) if name.endswith("uri") else value
        for name, value in origin.items()
    }
