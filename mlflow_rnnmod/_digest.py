"""Digests: the names by which networks, tokenizers and trunks are found and checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def canonical_json(data: Any) -> str:
    """``data`` as JSON with sorted keys and no spaces: one text for one value."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_tensors(tensors: Mapping[str, Tensor], structure: Any) -> str:
    """SHA-256 over named tensors and a structure.

    ``tensors``: by name; hashed in the order of their names, each as name, dtype, shape and
    little-endian bytes.

    Example:
        >>> digest_tensors({"a": torch.zeros(1)}, {}) == digest_tensors({"a": torch.zeros(2)}, {})
        False
    """
    sha = hashlib.sha256(canonical_json(structure).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().to("cpu").contiguous()
        dtype = str(tensor.dtype).removeprefix("torch.")
        sha.update(canonical_json([name, dtype, list(tensor.shape)]).encode())
        # Viewed as bytes: NumPy knows no bfloat16. Every platform that PyTorch runs on and that
        # safetensors supports is little-endian.
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def digest_text(text: str) -> str:
    """SHA-256 of ``text`` in UTF-8, 64 hexadecimal characters."""
    return hashlib.sha256(text.encode()).hexdigest()


def short(digest: str) -> str:
    """The first twelve characters of a digest, for people."""
    return digest[:12]
