"""Which submodules of a user's encoder-decoder are what, and their weights in our order."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mlflow_rnnmod.networks.recurrent.config import DIRECTIONS
from mlflow_rnnmod.networks.recurrent.structure import linear, recurrent_layers
from mlflow_rnnmod.networks.recurrent.submodules import (
    describe,
    listing,
    of_type,
    refused_kinds,
    walk,
)
from mlflow_rnnmod.networks.recurrent.weights import (
    cell_tensors,
    dense_weights,
    embedding_weight,
    own_network,
    stack_tensors,
)
from mlflow_rnnmod.networks.spec import UnreadableNetwork
from mlflow_rnnmod.networks.translator.config import TranslatorConfig
from mlflow_rnnmod.networks.translator.network import Translator
from mlflow_rnnmod.networks.translator.spec import TranslatorSpec

# A direction's share of what is handed on as it is, without dense layers.
_SHARES = {"sum": (1.0, 1.0), "mean": (0.5, 0.5), "forward": (1.0, 0.0), "backward": (0.0, 1.0)}


@dataclass(frozen=True)
class TranslatorParts:
    """Names of the submodules of an encoder-decoder."""

    source_embedding: str
    encoder: tuple[str, ...]
    bridge: tuple[str, ...]
    target_embedding: str
    decoder: tuple[str, ...]
    output: str

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (
            self.source_embedding,
            *self.encoder,
            *self.bridge,
            self.target_embedding,
            *self.decoder,
            self.output,
        )


def find_translator_parts(module: nn.Module, spec: TranslatorSpec) -> TranslatorParts:
    """The parts of an encoder-decoder: those that ``spec`` names, the others by type and order."""
    found, problems = list(walk(module)), []
    given = {
        nn.Embedding: [spec.source_embedding, spec.target_embedding],
        nn.RNNBase: [*(spec.encoder or ()), *(spec.decoder or ())],
        nn.Linear: [*(spec.bridge or ()), spec.output],
    }
    for kind, wanted in given.items():
        for name in wanted:
            part = None if name is None else dict(found).get(name)
            if name is not None and not isinstance(part, kind):
                problems.append(
                    f"{name!r} is {'no submodule' if part is None else type(part).__name__}, "
                    f"expected one of the {kind.__name__} submodules: "
                    f"{listing(of_type(found, kind))}"
                )
    if problems:
        raise _unreadable(module, problems)
    source, target = _embeddings(found, spec, problems)
    encoder, decoder = _recurrent(found, spec, problems)
    if problems:
        raise _unreadable(module, problems)
    for side, names in (("encoder", encoder), ("decoder", decoder)):
        for name, layer in zip(names, recurrent_layers(module, names), strict=True):
            if layer.proj_size:
                problems.append(f"{describe(name, layer)} has proj_size, which is not covered")
            if side == "decoder" and layer.bidirectional:
                problems.append(f"{describe(name, layer)} writes in both directions")
    kinds = {layer.mode for layer in recurrent_layers(module, (*encoder, *decoder))}
    if len(kinds) > 1:
        problems.append(f"encoder and decoder mix {sorted(kinds)}; expected one kind of cell")
    output, bridge = _dense(module, found, spec, target, decoder, problems)
    if problems:
        raise _unreadable(module, problems)
    return TranslatorParts(source, encoder, bridge, target, decoder, output)


def _unreadable(module: nn.Module, problems: list[str]) -> UnreadableNetwork:
    return UnreadableNetwork(
        f"The network {type(module).__name__} can't be read as a translator:\n- "
        + "\n- ".join([*problems, *refused_kinds(module)])
    )


def _embeddings(
    found: list[tuple[str, nn.Module]], spec: TranslatorSpec, problems: list[str]
) -> tuple[str, str]:
    names = [name for name, _ in of_type(found, nn.Embedding)]
    source, target = spec.source_embedding, spec.target_embedding
    if len(names) == 1:  # one for both languages
        return source or names[0], target or names[0]
    rest = [name for name in names if name not in (source, target)]
    if source is None and rest:
        source = rest.pop(0)
    if target is None and rest:
        target = rest.pop(0)
    if source is None or target is None or rest:
        problems.append(
            f"{len(names)} embeddings ({listing(of_type(found, nn.Embedding))}); expected one or "
            "two, or TranslatorSpec(source_embedding=, target_embedding=)"
        )
    return source or "", target or ""


def _recurrent(
    found: list[tuple[str, nn.Module]], spec: TranslatorSpec, problems: list[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    encoder, decoder = (
        (part,) if isinstance(part, str) else part for part in (spec.encoder, spec.decoder)
    )
    taken = [*(encoder or ()), *(decoder or ())]
    rest = [name for name, _ in of_type(found, nn.RNNBase) if name not in taken]
    if encoder is None and rest and (decoder is not None or len(rest) == 2):
        encoder = (rest.pop(0),)
    if decoder is None and rest and encoder is not None:
        decoder = (rest.pop(0),)
    if not encoder or not decoder or rest:
        problems.append(
            "the recurrent layers are "
            f"{listing(of_type(found, nn.RNNBase))}; expected one that reads and one that writes, "
            "or TranslatorSpec(encoder=, decoder=)"
        )
    return encoder or (), decoder or ()


def _dense(
    module: nn.Module,
    found: list[tuple[str, nn.Module]],
    spec: TranslatorSpec,
    target: str,
    decoder: tuple[str, ...],
    problems: list[str],
) -> tuple[str, tuple[str, ...]]:
    dense = [name for name, _ in of_type(found, nn.Linear)]
    output, bridge = spec.output, spec.bridge
    if not target or not decoder:
        return output or "", bridge or ()
    embedding = module.get_submodule(target)
    assert isinstance(embedding, nn.Embedding)
    tokens, units = embedding.num_embeddings, recurrent_layers(module, decoder)[-1].hidden_size
    if output is None:
        shape = (tokens, units)
        fitting = [n for n in dense if linear(module, n).weight.shape == shape]
        fitting = [n for n in fitting if n not in (bridge or ())]
        if len(fitting) != 1:
            problems.append(
                f"{len(fitting)} dense layers from {units} units to {tokens} tokens among "
                f"{listing(of_type(found, nn.Linear))}; expected one, or TranslatorSpec(output=)"
            )
            return "", ()
        output = fitting[0]
    if bridge is None:
        bridge = tuple(name for name in dense if name != output)
    return output, bridge


def translator_weights(
    module: nn.Module, parts: TranslatorParts, config: TranslatorConfig, spec: TranslatorSpec
) -> Translator:
    """Our translator with copies of the weights of a user's one.

    ``spec``: says what each dense layer of the bridge is for; gives in evaluation mode, without
    gradients, on the device of ``module``; no memory is shared.
    """
    embeddings = {
        "encoder.embedding.weight": parts.source_embedding,
        "embedding.weight": parts.target_embedding,
    }
    tensors = {
        ours: embedding_weight(module.get_submodule(name)) for ours, name in embeddings.items()
    }
    tensors |= stack_tensors(recurrent_layers(module, parts.encoder), "encoder.recurrent")
    index = 0
    for layer in recurrent_layers(module, parts.decoder):
        for k in range(layer.num_layers):
            for kind, tensor in cell_tensors(layer, k, DIRECTIONS[0]).items():
                tensors[f"decoder.{index}.{kind}_l0"] = tensor
            index += 1
    for ours, found in _bridge(module, parts, config, spec).items():
        tensors[f"bridge.{ours}.weight"], tensors[f"bridge.{ours}.bias"] = found
    tensors["output.weight"], tensors["output.bias"] = dense_weights(linear(module, parts.output))
    return own_network(lambda: Translator(config), tensors)


def _bridge(
    module: nn.Module, parts: TranslatorParts, config: TranslatorConfig, spec: TranslatorSpec
) -> dict[str, tuple[Tensor, Tensor]]:
    """Weights and bias of what leads to each layer's state, by our names (``"0.h"``)."""
    if config.bridge == "state":
        return {}
    states = ("h", "c") if config.cell == "lstm" else ("h",)
    layers = [dense_weights(linear(module, name)) for name in parts.bridge]
    count = len(config.decoder)
    like = linear(module, parts.output).weight
    found = {}
    for i, units in enumerate(config.decoder):
        for s, state in enumerate(states):
            if not layers:
                shares = _SHARES[str(spec.directions)]
                eye = torch.eye(units, dtype=like.dtype, device=like.device)
                weight = torch.cat([share * eye for share in shares], dim=1)
                found[f"{i}.{state}"] = (weight, weight.new_zeros(units))
                continue
            number = {
                "shared": 0,
                "hidden_only": 0,
                "by_state": s,
                "by_layer": i,
                "states_first": s * count + i,
                "each": i * len(states) + s,
            }[str(spec.bridge_layers)]
            weight, bias = layers[number]
            if spec.bridge_layers == "hidden_only" and state == "c":
                weight, bias = torch.zeros_like(weight), torch.zeros_like(bias)
            found[f"{i}.{state}"] = (weight, bias)
    return found
