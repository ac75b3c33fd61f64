"""Reading a user's encoder-decoder into ours: parts by name or type, habits by trying them.

Nothing of the user's network is stored but its weights; both networks must say the same of each
next token of a real batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from torch import Tensor, nn

from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.guard import perturbed, tolerance, undisturbed
from mlflow_rnnmod.networks.recurrent.structure import linear, recurrent_layers
from mlflow_rnnmod.networks.recurrent.submodules import uncovered
from mlflow_rnnmod.networks.spec import UnreadableNetwork
from mlflow_rnnmod.networks.translator.config import TranslatorConfig
from mlflow_rnnmod.networks.translator.network import Translator
from mlflow_rnnmod.networks.translator.parts import (
    TranslatorParts,
    find_translator_parts,
    translator_weights,
)
from mlflow_rnnmod.networks.translator.spec import (
    BridgeLayers,
    HandedOn,
    TranslatorReading,
    TranslatorSpec,
)

_HABITS = ("bridge_layers", "bridge_activation", "bridge_from", "directions", "packed")


@dataclass(frozen=True)
class _Trial:
    """One setting: the structure and spec it makes, and how far its answers are off."""

    config: TranslatorConfig
    spec: TranslatorSpec
    difference: float
    agrees: bool

    def in_words(self) -> str:
        habits = {name: getattr(self.spec, name) for name in _HABITS}
        shown = ", ".join(
            f"{name}={value!r}" for name, value in habits.items() if value is not None
        )
        return f"{shown}: off by {self.difference:.3g}"


def read_translator(
    module: nn.Module,
    rows: Rows,
    tokens: Tensor,
    forward: Callable[[], Any],
    targets: Sequence[str],
    spec: TranslatorSpec,
) -> tuple[Translator, TranslatorReading]:
    """Read an encoder-decoder.

    Covered are an encoder and a decoder of one kind of cell (``nn.RNN``, ``nn.LSTM``, ``nn.GRU``)
    of one or more layers, the encoder perhaps bidirectional; the decoder starts from the encoder's
    final states, through dense layers with tanh or without, or as they are; its first token says
    the language. Not covered are attention, an encoder's states that are read again at each step,
    and dense layers between decoder and output.

    Args:
        module: the user's network; it is left as it was.
        rows: sources of a real batch, of different lengths, with lengths where the network is
            given some.
        tokens: int64 ``(rows, steps)``: what the decoder is told, the start tokens first.
        forward: runs ``module`` on that batch, and gives logits of the next tokens, ``(rows, steps,
            tokens)``, ``(rows, tokens, steps)``, ``(steps, rows, tokens)`` or flattened ``(rows x
            steps, tokens)``; their log-softmax will do.
        targets: codes of the languages, as many as ``spec`` has start tokens.
        spec: what is known of the network, and its tokens.

    Returns:
        our translator, on the device of ``module``, with copies of its weights; and what was found.

    Raises:
        UnreadableNetwork: a ``ValueError``, if a part is missing, ambiguous or not covered, or no
            setting, or more than one, reproduces the user's answers.
    """
    if len(targets) != len(spec.starts):
        raise UnreadableNetwork(
            f"targets has {len(targets)} languages, {list(targets)!r:.200}, and the spec "
            f"{len(spec.starts)} start tokens; expected one for each"
        )
    with undisturbed(module):
        parts = find_translator_parts(module, spec)
        like = linear(module, parts.output).weight
        rows, tokens = rows.to(like.device), tokens.to(like.device)
        settings = list(_settings(module, parts, rows, tuple(targets), spec))
        wanted = _answers(forward(), tokens, like)
        trials = [_try(module, parts, *setting, rows, tokens, wanted) for setting in settings]
        winners = [trial for trial in trials if trial.agrees]
        if len(winners) > 1:
            with perturbed(module):
                again = _answers(forward(), tokens, like)
                winners = [
                    trial
                    for trial in winners
                    if _try(module, parts, trial.config, trial.spec, rows, tokens, again).agrees
                ] or winners
        if not winners:
            raise UnreadableNetwork(_no_winner(module, parts, trials))
        if len(winners) > 1:
            raise UnreadableNetwork(
                f"{len(winners)} settings reproduce the answers of {type(module).__name__} to this "
                "batch: "
                + "; ".join(trial.in_words() for trial in winners)
                + ". Say more in the TranslatorSpec, or read it with rows of different lengths."
            )
        winner = winners[0]
        translator = translator_weights(module, parts, winner.config, winner.spec)
    extra = uncovered(module, parts.names)
    notes = []
    if spec.packed is None and not _has_padding(rows, winner.config.pad_index):
        notes.append(
            "No source of the batch is padded: it is taken for granted that padding would be "
            "skipped, as by pack_padded_sequence; TranslatorSpec(packed=False) says otherwise."
        )
    if extra:
        notes.append("Not read, as the answers do not depend on it: " + ", ".join(extra) + ".")
    reading = TranslatorReading(
        spec=winner.spec,
        config=winner.config,
        tried=tuple(trial.in_words() for trial in trials),
        difference=winner.difference,
        notes=tuple(notes),
    )
    return translator, reading


def read_translator_weights(module: nn.Module, reading: TranslatorReading) -> Translator:
    """Our translator with the weights that ``module`` has now, by a reading made before."""
    with undisturbed(module):
        parts = find_translator_parts(module, reading.spec)
        return translator_weights(module, parts, reading.config, reading.spec)


def check_translator_parity(
    module: nn.Module,
    translator: Translator,
    rows: Rows,
    tokens: Tensor,
    forward: Callable[[], Any],
) -> float:
    """Whether both networks say the same of each next token of a batch."""
    with undisturbed(module):
        like = translator.output.weight
        wanted = _answers(forward(), tokens, like)
        found = _compare(translator, rows.to(like.device), tokens.to(like.device), wanted)
    if not found[1]:
        raise UnreadableNetwork(
            f"{type(module).__name__} and the translator that was read from it differ by "
            f"{found[0]:.3g} in the log-likelihood of a token"
        )
    return found[0]


def _settings(
    module: nn.Module,
    parts: TranslatorParts,
    rows: Rows,
    targets: tuple[str, ...],
    spec: TranslatorSpec,
) -> Iterator[tuple[TranslatorConfig, TranslatorSpec]]:
    """Structures that the sizes allow, with the habits that make them."""
    encoder = tuple(
        (layer.hidden_size,) * (2 if layer.bidirectional else 1)
        for layer in recurrent_layers(module, parts.encoder)
        for _ in range(layer.num_layers)
    )
    layers = recurrent_layers(module, parts.decoder)
    decoder = tuple(layer.hidden_size for layer in layers for _ in range(layer.num_layers))
    source, target = (
        module.get_submodule(name) for name in (parts.source_embedding, parts.target_embedding)
    )
    assert isinstance(source, nn.Embedding) and isinstance(target, nn.Embedding)
    pad = spec.pad_index if spec.pad_index is not None else (source.padding_idx or 0)
    problems: set[str] = set()
    count = 0
    for habits in _habits(parts, layers[0].mode == "LSTM", encoder, decoder, rows, pad, spec):
        linear_bridge = bool(parts.bridge) or habits["directions"] != "concatenate"
        try:
            config = TranslatorConfig(
                cell=layers[0].mode.lower(),  # type: ignore[arg-type]
                source_size=source.num_embeddings,
                source_embedding=source.embedding_dim,
                target_size=target.num_embeddings,
                target_embedding=target.embedding_dim,
                encoder=encoder,
                decoder=decoder,
                targets=targets,
                starts=spec.starts,
                end=spec.end,
                pad_index=pad,
                bridge="linear" if linear_bridge else "state",
                bridge_activation=habits["bridge_activation"],
                bridge_from=habits["bridge_from"],
                side=spec.padding,
                packed=habits["packed"],
                steps=spec.steps,
                length_factor=spec.length_factor,
                length_extra=spec.length_extra,
            )
            _check_sizes(module, parts, config)
        except ValueError as error:
            problems.add(str(error))
            continue
        count += 1
        if not parts.bridge:
            habits = {**habits, "bridge_layers": None}
        named = {
            name: getattr(parts, name)
            for name in ("source_embedding", "encoder", "bridge", "target_embedding", "decoder")
        }
        yield config, replace(spec, **named, output=parts.output, pad_index=pad, **habits)
    if not count:
        raise UnreadableNetwork(
            f"The sizes of {type(module).__name__} do not fit a translator: "
            + "; ".join(sorted(problems))
        )


def _habits(
    parts: TranslatorParts,
    lstm: bool,
    encoder: tuple[tuple[int, ...], ...],
    decoder: tuple[int, ...],
    rows: Rows,
    pad_index: int,
    spec: TranslatorSpec,
) -> Iterator[dict[str, Any]]:
    def open_to(name: str, values: Sequence[Any]) -> Sequence[Any]:
        given = getattr(spec, name)
        return values if given is None else (given,)

    two_ways = any(len(layer) > 1 for layer in encoder)
    several = len(encoder) == len(decoder) > 1
    joined: Sequence[HandedOn | None] = ("concatenate",)
    if parts.bridge:
        joined = (None,)
    elif two_ways:
        joined = ("concatenate", "sum", "mean", "forward", "backward")
    packed: Sequence[bool] = (True, False) if spec.padding == "right" else (False,)
    if not _has_padding(rows, pad_index):  # then it is all the same
        packed = packed[:1]
    for layers, activation, whose, directions, packs in product(
        open_to("bridge_layers", _bridge_layers(len(parts.bridge), lstm, len(decoder))),
        open_to("bridge_activation", ("tanh", "identity") if parts.bridge else ("identity",)),
        open_to("bridge_from", ("last", "each") if several else ("last",)),
        joined if parts.bridge else open_to("directions", joined),
        open_to("packed", packed),
    ):
        yield {
            "bridge_layers": layers,
            "bridge_activation": activation,
            "bridge_from": whose,
            "directions": directions,
            "packed": packs,
        }


def _has_padding(rows: Rows, pad_index: int) -> bool:
    if rows.lengths is not None:
        return bool((rows.lengths < rows.values.shape[1]).any())
    return bool((rows.values == pad_index).any())


def _bridge_layers(count: int, lstm: bool, layers: int) -> list[BridgeLayers | None]:
    """What so many dense layers may be for, where each has a purpose of its own."""
    if count == 0:
        return [None]
    states = 2 if lstm else 1
    found: list[BridgeLayers | None] = []
    if count == 1:
        found += ["shared", "hidden_only"] if lstm else ["shared"]
    if lstm and count == 2:
        found.append("by_state")
    if count == layers > 1:
        found.append("by_layer")
    if count == states * layers and layers > 1 and lstm:
        found += ["states_first", "each"]
    return found


def _check_sizes(module: nn.Module, parts: TranslatorParts, config: TranslatorConfig) -> None:
    """Whether dense layers and directions lead from the encoder's states to the decoder's."""
    for i, units in enumerate(config.decoder):
        size = config.bridge_size(i)
        for name in parts.bridge:
            shape = tuple(linear(module, name).weight.shape)
            if shape[1] != size or shape[0] not in config.decoder:
                raise ValueError(
                    f"{name} leads from {shape[1]} to {shape[0]} units, expected from {size} to "
                    f"{units}"
                )
        if not parts.bridge and config.bridge == "linear" and size != 2 * units:
            raise ValueError(f"both directions have {size} units, the decoder's layer {units}")


def _try(
    module: nn.Module,
    parts: TranslatorParts,
    config: TranslatorConfig,
    spec: TranslatorSpec,
    rows: Rows,
    tokens: Tensor,
    wanted: Tensor,
) -> _Trial:
    try:
        translator = translator_weights(module, parts, config, spec)
    except RuntimeError:  # a dense layer of another decoder layer's size
        return _Trial(config, spec, float("inf"), False)
    return _Trial(config, spec, *_compare(translator, rows, tokens, wanted))


def _compare(
    translator: Translator, rows: Rows, tokens: Tensor, wanted: Tensor
) -> tuple[float, bool]:
    """The largest difference of log-likelihoods at tokens that are no padding, and if it is small.

    Rows are read as the network reads them: with the lengths that they come with.
    """
    found = translator(translator.prepare(rows), tokens).log_softmax(dim=-1)
    real = tokens != translator.config.pad_index
    real[:, 0] = True
    difference = (found - wanted).abs()[real]
    steps = rows.values.shape[1] + tokens.shape[1]
    most = tolerance(found.dtype, wanted[real], max(translator.config.decoder), steps)
    return float(difference.max()), bool((difference <= most).all())


def _answers(given: Any, tokens: Tensor, like: Tensor) -> Tensor:
    """The user's answers as log-likelihoods ``(rows, steps, tokens)``."""
    if isinstance(given, tuple | list) and given and isinstance(given[0], Tensor):
        given = given[0]
    if not isinstance(given, Tensor):
        raise UnreadableNetwork(
            f"forward gives a {type(given).__name__}; expected logits of the next tokens"
        )
    rows, steps, size = *tokens.shape, len(like)
    shape = tuple(given.shape)
    if shape == (rows, steps, size):
        found = given
    elif shape == (rows, size, steps):
        found = given.transpose(1, 2)
    elif shape == (steps, rows, size):
        found = given.transpose(0, 1)
    elif shape == (rows * steps, size):
        found = given.view(rows, steps, size)
    else:
        raise UnreadableNetwork(
            f"forward gives logits of shape {shape}; expected {(rows, steps, size)}: for each row "
            "and each token that is given, of which the first is the start token"
        )
    return found.detach().to(like).log_softmax(dim=-1)


def _no_winner(module: nn.Module, parts: TranslatorParts, trials: Sequence[_Trial]) -> str:
    best = sorted(trials, key=lambda trial: trial.difference)[:8]
    extra = uncovered(module, parts.names)
    return (
        f"No setting reproduces the answers of {type(module).__name__}. Tried, the closest first: "
        + "; ".join(trial.in_words() for trial in best)
        + (f". Submodules with weights that are not used: {', '.join(extra)}" if extra else "")
        + ". Attention, states of the encoder that are read again at each step, and dense layers "
        "between decoder and output are not covered."
    )
