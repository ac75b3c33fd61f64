"""A module's parts as they are written and read: its trunk, heads, contract and likelihood."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod._digest import digest_tensors
from mlflow_rnnmod.decomposition.module import Calibration, Contract, Head, Module
from mlflow_rnnmod.inputs import Likelihood, density_of
from mlflow_rnnmod.networks import Parent, Trunk
from mlflow_rnnmod.networks.groups import columns_read
from mlflow_rnnmod.storage.files import pack_bits, unpack_bits

_TABLE, _STEP = "likelihood.", "step_likelihood."
_WINDOW, _SHIFT = "windows.", "shifts."


def tensors_of(module: Module) -> dict[str, Tensor]:
    """A module's tensors by their names in its file."""
    tensors = {}
    for name, mask in module.trunk.keep.items():
        mask = mask.cpu()
        tensors[f"keep.{name}"] = pack_bits(mask.flatten())
        if not mask.all():
            tensors[f"fold.{name}"] = module.trunk.fold[name].cpu()[~mask]
            # Only a removed unit's guess has weights, and only for kept ones; half precision is
            # what a trunk itself keeps them in.
            if name in module.trunk.mix:
                mix = module.trunk.mix[name].cpu()[~mask][:, mask]
                tensors[f"mix.{name}"] = mix.to(torch.float16)
    for name, kernel in module.trunk.windows.items():
        columns = _columns(module.parent, module.trunk.keep, name)
        tensors[f"{_WINDOW}{name}"] = kernel.cpu()[:, columns].to(torch.float16)
        tensors[f"{_SHIFT}{name}"] = module.trunk.shifts[name].cpu()
    if module.head.weight is not None:
        tensors["head.weight"] = module.head.weight
    if module.open_head.weight is not None:
        tensors["open_head.weight"] = module.open_head.weight
    if module.likelihood is not None:
        tensors.update({f"{_TABLE}{k}": t for k, t in module.likelihood.tensors.items()})
        step = module.likelihood.step
        if step is not None:
            tensors.update({f"{_STEP}{k}": t for k, t in step.tensors.items()})
    return tensors


def likelihood_body(found: Likelihood | None) -> dict[str, Any]:
    """What a document says of a likelihood: nothing where there is none, as older versions did.

    Older releases pass it over. Its space has the version of its normaliser, its format one too.
    """
    if found is None:
        return {}
    body: dict[str, Any] = {"format": 1, "space": found.space, "facts": dict(found.facts)}
    if found.step is not None:
        body["step"] = {"space": found.step.space, "facts": dict(found.step.facts)}
    return {"likelihood": body}


def read_likelihood(
    body: dict[str, Any] | None, tensors: dict[str, Tensor], path: Path
) -> Likelihood | None:
    """A likelihood as :func:`likelihood_body` said it; ``None`` where there is none."""
    if body is None:
        return None
    if body["format"] != 1:
        raise ValueError(
            f"{path} has a likelihood of format {body['format']!r}, and the newest that this "
            "version of mlflow_rnnmod reads is 1. Upgrade it: pip install --upgrade mlflow-rnnmod."
        )

    def tables(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}

    step, said = None, body.get("step")
    if said is not None:
        step = Likelihood(said["space"], said["facts"], tables(_STEP))
    found = Likelihood(body["space"], body["facts"], tables(_TABLE), step)
    try:
        density_of(found.space).check(found)
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path}: {error}") from error
    return found


def _columns(parent: Parent, keep: Mapping[str, Tensor], name: str) -> Tensor:
    """Which columns of a parent's weight read kept units."""
    return columns_read(parent.network.groups, keep, {name: weight_of(parent, name)})[name]


def weight_of(parent: Parent, name: str) -> Tensor:
    """A parent's weight that reads its units."""
    groups = parent.network.groups.values()
    if not any(reader.tensor == name for group in groups for reader in group.readers):
        raise ValueError(f"a window is of {name!r:.100}, which its parent {parent.digest} has not")
    found: Tensor = parent.network.state_dict()[name]
    return found


def read_windows(
    tensors: Mapping[str, Tensor], parent: Parent, keep: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What a trunk adds to kernels of its parent and to the biases beside them."""
    windows, shifts, problems = {}, {}, []
    names = windows_of(tensors)
    for name in sorted(
        {k.removeprefix(_SHIFT) for k in tensors if k.startswith(_SHIFT)} ^ {*names}
    ):
        problems.append(f"{name!r:.100} has a window or a shift, expected both")
    for name in names if not problems else ():
        weight, columns = weight_of(parent, name), _columns(parent, keep, name)
        shape = (len(weight), int(columns.sum()), *weight.shape[2:])
        found, shift = tensors[f"{_WINDOW}{name}"], tensors[f"{_SHIFT}{name}"]
        for what, tensor, dtype, expected in (
            (_WINDOW, found, torch.float16, shape),
            (_SHIFT, shift, torch.float32, shape[:1]),
        ):
            if tensor.dtype != dtype or tuple(tensor.shape) != expected:
                problems.append(
                    f"{what}{name} is {tensor.dtype} of shape {tuple(tensor.shape)}, expected "
                    f"{dtype} of {expected}"
                )
        if not problems:
            windows[name] = torch.zeros(weight.shape)
            windows[name][:, columns] = found.float()
            shifts[name] = shift
    if problems:
        raise ValueError("What is added to weights does not fit: " + "; ".join(problems) + ".")
    return windows, shifts


def windows_bytes(tensors: Mapping[str, Tensor], parent: Parent) -> int:
    """Bytes that windows take, when they are laid out as their weights."""
    return sum(4 * weight_of(parent, name).numel() for name in windows_of(tensors))


def windows_of(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the weights that a module's file has windows of."""
    return [name.removeprefix(_WINDOW) for name in tensors if name.startswith(_WINDOW)]


def read_trunk(
    body: dict[str, Any], tensors: dict[str, Tensor], path: Path, parent: Parent
) -> Trunk:
    """A trunk, which must have the digest that the document names."""
    keep, fold, mix = {}, {}, {}
    for name, sizes in body["units"]:
        shape = torch.Size([sizes] if isinstance(sizes, int) else sizes)
        keep[name] = unpack_bits(tensors[f"keep.{name}"], shape.numel()).view(shape)
        fold[name] = torch.zeros(shape)
        if not keep[name].all():
            fold[name][~keep[name]] = tensors[f"fold.{name}"]
        if f"mix.{name}" in tensors:
            mix[name] = torch.zeros(shape * 2)
            inside = ~keep[name][:, None] & keep[name]
            mix[name][inside] = tensors[f"mix.{name}"].float().flatten()
    added = read_windows(tensors, parent, keep)
    trunk = Trunk(keep, fold, mix, body["variant"], body["gates"], *added)
    if trunk.digest != body["digest"]:
        raise ValueError(
            f"What is beside {path} does not hold the trunk that it names:\n"
            f"expected digest: {body['digest']}\nfound: {trunk.digest}."
        )
    return trunk


def sizes_of(mask: Tensor) -> int | list[int]:
    """A mask's units; where it has them, its steps and gates before."""
    return len(mask) if mask.ndim == 1 else list(mask.shape)


def contract_of(body: dict[str, Any]) -> Contract:
    """The contract that a document has."""
    found = body["contract"]
    size = found["input_size"]
    size = tuple(size) if isinstance(size, list) else size
    return Contract(**{**found, "labels": tuple(found["labels"]), "input_size": size})


def head_body(head: Head) -> dict[str, Any]:
    """What a document says of a head; its weight is among the tensors."""
    return {"bias": head.bias, "calibration": asdict(head.calibration)}


def read_head(body: dict[str, Any], weight: Tensor | None) -> Head:
    """A head as :func:`head_body` said it."""
    return Head(weight, body["bias"], Calibration(**body["calibration"]))


def knowledge(module: Module) -> str:
    """SHA-256 over what a module answers by: its parent, its own tensors and numbers, its contract.

    Where it came from, what it was measured at, and how it was made are not in it.
    """
    structure = {
        "parent": module.parent.digest,
        "tokenizers": module.parent.tokenizers,
        "trunk": module.trunk.digest,
        "head": head_body(module.head),
        "open_head": head_body(module.open_head),
        "energy": asdict(module.energy),
        "contract": module.contract.to_dict(),
        **likelihood_body(module.likelihood),
    }
    return digest_tensors(tensors_of(module), structure)
