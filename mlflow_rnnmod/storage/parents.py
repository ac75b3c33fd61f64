"""Files of a parent: ``network.json``, ``weights.safetensors``; for text ``tokenizer.json``.

A translator that writes with another tokenizer than it reads with has ``target_tokenizer.json``;
for files of images there is ``image.json``, their preparation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.inputs import ImagePreparation
from mlflow_rnnmod.networks import Parent, TextEncoder
from mlflow_rnnmod.networks.architectures import FIRST, architecture_of
from mlflow_rnnmod.storage.bounds import TOKENIZER_BYTES, check_types
from mlflow_rnnmod.storage.files import (
    by_version,
    check_digest,
    raise_ours,
    read_bytes,
    read_document,
    read_tensors,
    write_document,
    write_tensors,
)

DOCUMENT = "network.json"
WEIGHTS = "weights.safetensors"
TOKENIZER = "tokenizer.json"
TARGET_TOKENIZER = "target_tokenizer.json"
IMAGE = "image.json"
_TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def write_parent(parent: Parent, directory: Path) -> None:
    """Write a parent's files.

    Args:
        parent: the parent; where it was logged is not written, as the files don't depend on it.
        directory: made where it is missing; ``parents/<digest>`` inside other models.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    files = {WEIGHTS: write_tensors(directory / WEIGHTS, parent.network.state_dict())}
    content: dict[str, Any] = {
        "digest": parent.digest,
        "network": parent.network.config.to_dict(),
        "tokenizer": None,
        "files": files,
    }
    if parent.network.architecture != FIRST:  # what older readers take for granted
        content["architecture"] = parent.network.architecture
    if parent.vocabulary is not None:
        content["vocabulary"] = parent.vocabulary
    for name, file, tokenizer in (
        ("tokenizer", TOKENIZER, parent.tokenizer),
        ("target_tokenizer", TARGET_TOKENIZER, parent.target_tokenizer),
    ):
        if tokenizer is not None:
            # The canonical JSON itself, so that the file's digest is the tokenizer's.
            (directory / file).write_bytes(tokenizer.json.encode())
            files[file] = tokenizer.digest
            content[name] = {
                "digest": tokenizer.digest,
                "pad_index": tokenizer.pad_index,
                "side": tokenizer.side,
            }
    if parent.image is not None:
        (directory / IMAGE).write_bytes(parent.image.json.encode())
        files[IMAGE] = parent.image.digest
        content["image"] = {"digest": parent.image.digest}
    write_document(directory / DOCUMENT, "parent", content, format_of(parent))


def format_of(parent: Parent) -> int:
    """The format version that it takes to say what this parent is."""
    return parent.network.config.format


def read_parent(directory: Path, digest: str | None = None) -> Parent:
    """The parent whose files are in ``directory``.

    Args:
        directory: where :func:`write_parent` wrote.
        digest: which parent it should be.

    Returns:
        The parent, on the CPU, in evaluation mode.

    Raises:
        ValueError: if a file is missing, truncated or altered, or it is another parent than
            ``digest``; the file and both digests are named.
    """
    directory = Path(directory)
    path = directory / DOCUMENT
    body = read_document(path, "parent")
    if digest is not None and body.get("digest") != digest:
        raise ValueError(
            f"{path} is another parent:\nexpected digest: {digest}\nfound: {body.get('digest')}."
        )
    parent = by_version({1: lambda found: _read_1(found, directory)}, body, path)
    if parent.digest != body["digest"]:
        raise ValueError(
            f"{directory} does not hold the parent it names:\nexpected digest: {body['digest']}\n"
            f"found in weights and structure: {parent.digest}."
        )
    return parent


def _read_1(body: dict[str, Any], directory: Path) -> Parent:
    path = directory / DOCUMENT
    check_types(body, {"network": dict, "files": dict, "digest": str})
    digest = check_digest(body["files"][WEIGHTS], "files", path)
    network = architecture_of(body.get("architecture", FIRST)).build(body["network"])
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    try:
        weights = read_tensors(directory / WEIGHTS, digest, shapes)
        _check_types_of(weights, directory / WEIGHTS)
        network.load_state_dict(weights, strict=True, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{directory / WEIGHTS} does not fit {path}: {error}") from error
    tokenizer = _tokenizer(body["tokenizer"], directory / TOKENIZER)
    target = _tokenizer(body.get("target_tokenizer"), directory / TARGET_TOKENIZER)
    image, vocabulary = _preparation(body.get("image"), directory / IMAGE), body.get("vocabulary")
    check_types({"vocabulary": vocabulary}, {"vocabulary": (str, type(None))})
    try:
        return Parent(
            network, tokenizer, target_tokenizer=target, image=image, vocabulary=vocabulary
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _check_types_of(weights: Mapping[str, Tensor], path: Path) -> None:
    """Raises unless all weights can be reckoned with together."""
    found = sorted({str(tensor.dtype) for tensor in weights.values()})
    if len(found) != 1 or next(iter(weights.values())).dtype not in _TYPES:
        raise ValueError(
            f"{path} holds weights of types {', '.join(found)}; expected one for all, of "
            f"{', '.join(map(str, _TYPES))}"
        )


def _preparation(found: dict[str, Any] | None, path: Path) -> ImagePreparation | None:
    if found is None:
        return None
    digest = check_digest(found["digest"], "image.digest", path)
    try:
        return ImagePreparation.from_json(read_bytes(path, digest).decode())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _tokenizer(found: dict[str, Any] | None, path: Path) -> TextEncoder | None:
    if found is None:
        return None
    check_types(found, {"pad_index": int, "side": str})
    if found["side"] not in ("left", "right"):
        raise ValueError(f"side={found['side']!r:.60}; expected 'left' or 'right'")
    digest = check_digest(found["digest"], "tokenizer.digest", path)
    data = read_bytes(path, digest, TOKENIZER_BYTES)
    try:
        encoder = TextEncoder(data.decode(), found["pad_index"], found["side"])
        encoder.try_out()
    except BaseException as error:
        raise_ours(error, str(path))
    return encoder
