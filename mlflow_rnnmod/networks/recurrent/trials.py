"""Settings tried against a user's network, and what to say when none or several fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.forms import Arrangements, shown
from mlflow_rnnmod.networks.guard import tolerance
from mlflow_rnnmod.networks.recurrent.candidates import Setting
from mlflow_rnnmod.networks.recurrent.network import RecurrentNetwork
from mlflow_rnnmod.networks.recurrent.structure import Parts
from mlflow_rnnmod.networks.recurrent.submodules import refused_kinds, uncovered
from mlflow_rnnmod.networks.recurrent.weights import copy_network

# The setting that fits these rows of the batch is then checked on all of them.
_TRIAL_ROWS = 32
_SHOWN = 20
_OTHER_ACTIVATIONS = {
    "ELU",
    "GELU",
    "Hardtanh",
    "LeakyReLU",
    "Mish",
    "PReLU",
    "ReLU6",
    "SELU",
    "SiLU",
    "Sigmoid",
}


@dataclass(frozen=True)
class Trial:
    """A setting with its answers and how far they are from the user's.

    Args:
        setting: what was tried.
        answers: of the reading, ``(rows, outputs)`` or ``(rows, steps, outputs)``.
        wanted: the user's, of the same shape.
        gaps: their distances, zero at steps that are not answered.
        difference: the largest of them.
        agrees: whether rounding explains all of them.
    """

    setting: Setting
    answers: Tensor
    wanted: Tensor
    gaps: Tensor
    difference: float
    agrees: bool


def in_words(trials: list[Trial]) -> list[str]:
    """Settings in words, with their largest differences; only habits that differ are named."""
    habits = [trial.setting.habits() for trial in trials]
    varied = [name for name in habits[0] if len({str(found[name]) for found in habits}) > 1]
    lines = []
    for trial, found in zip(trials, habits, strict=True):
        words = ", ".join(f"{name}={found[name]!r}" for name in varied or _said(found))
        lines.append(f"{words}: differs by {trial.difference:.3g}")
    return lines


def _said(habits: dict[str, object]) -> list[str]:
    """Habits that are worth a word: not those that every plain network has."""
    plain = {"kind": "label", "axes": "rows_labels", "feed": "steps", "output_steps": None}
    return [name for name, value in habits.items() if plain.get(name, ...) != value]


def try_all(
    module: nn.Module, parts: Parts, open_settings: list[Setting], rows: Rows, found: Arrangements
) -> list[Trial]:
    """All settings tried on ``rows`` against the user's answers, the nearest one first."""
    networks: dict[str, RecurrentNetwork] = {}
    outputs: dict[Any, list[Tensor]] = {}  # of the last layer's directions
    trials = []
    for setting in open_settings:
        config = setting.config
        network = networks.get(setting.directions)
        if network is None:
            network = copy_network(module, parts, config, setting.directions)
            networks[setting.directions] = network
        network.config = config
        known = (config.packed, config.feed, config.output_steps)  # nothing else changes them
        if known not in outputs:
            layers = network.states(rows).layers
            outputs[known] = [layers[name] for name in config.inputs_of(len(config.recurrent))]
        answers = _finish(network, outputs[known], rows)
        trials.append(_judge(network, setting, answers, rows, found[setting.axes]))
    return sorted(trials, key=lambda trial: trial.difference)


def _finish(network: RecurrentNetwork, last: list[Tensor], rows: Rows) -> Tensor:
    """Logits from the outputs of the last recurrent layer."""
    lengths, steps = network.spans(rows)
    valid = network.valid(lengths, steps)
    readout = network.read(last, torch.cat(last, dim=-1), lengths, valid)
    for index in range(len(network.hidden)):
        readout = network.dense_output(index, readout)
    return network.logits(readout)


def try_setting(
    network: RecurrentNetwork, setting: Setting, rows: Rows, found: Arrangements
) -> Trial:
    """One setting tried; ``network`` must have its structure."""
    return _judge(network, setting, network(rows), rows, found[setting.axes])


def _judge(
    network: RecurrentNetwork, setting: Setting, answers: Tensor, rows: Rows, wanted: Tensor
) -> Trial:
    """How near logits come to the user's answers, at the steps that are answered."""
    if setting.output == "log_softmax":
        answers = answers.log_softmax(dim=-1)
    elif setting.output == "sigmoid":
        answers = answers.sigmoid()
    elif wanted.shape[-1] == 1:
        answers = answers[..., 1:] - answers[..., :1]
    if setting.config.answer.stepwise:
        # Unpacked to the longest row only, there are no answers behind it.
        missing = answers.shape[1] - wanted.shape[1]
        wanted = torch.nn.functional.pad(wanted, (0, 0, 0, missing), value=torch.nan)
    gaps = (answers - wanted).abs().nan_to_num(torch.inf)
    answered = network.answered(rows)
    if answered is not None:
        gaps = torch.where(answered[..., None], gaps, 0.0)
    units = sum(sum(layer) for layer in setting.config.recurrent)
    size = torch.where(wanted.isfinite(), wanted, 0.0)
    allowed = tolerance(wanted.dtype, size, units, rows.values.shape[1])
    agrees = bool((gaps <= allowed).all())
    return Trial(setting, answers, wanted, gaps, float(gaps.max()), agrees)


def spread(rows: Rows, pad_index: int | None) -> Tensor:
    """Positions of some rows, from the shortest to the longest."""
    if len(rows) <= _TRIAL_ROWS:
        return torch.arange(len(rows))
    order = torch.argsort(content(rows, pad_index), stable=True).cpu()
    return order[torch.linspace(0, len(rows) - 1, _TRIAL_ROWS).round().long()]


def content(rows: Rows, pad_index: int | None) -> Tensor:
    """Steps of each row that are not padding, as far as can be seen, int64 ``(rows,)``."""
    if rows.lengths is not None:
        return rows.lengths.to(rows.values.device)
    if pad_index is None:
        return torch.full((len(rows),), rows.values.shape[1], device=rows.values.device)
    return (rows.values != pad_index).sum(dim=1)


def _tried(trials: list[Trial]) -> str:
    lines = [f"- {line}" for line in in_words(trials)[:_SHOWN]]
    if len(trials) > _SHOWN:
        lines.append(f"- and {len(trials) - _SHOWN} more, further off")
    return "Tried:\n" + "\n".join(lines)


def no_winner(module: nn.Module, parts: Parts, trials: list[Trial]) -> str:
    """The message for when no setting fits: both networks' answers, reasons, what was tried."""
    if not trials:
        return "The network spec leaves nothing to try: its habits contradict one another."
    nearest = trials[0]
    outputs = nearest.gaps.shape[-1]
    at = int(nearest.gaps.reshape(-1, outputs).amax(dim=1).argmax())
    wanted, answers = (x.reshape(-1, outputs)[at] for x in (nearest.wanted, nearest.answers))
    where = "row" if nearest.gaps.ndim == 2 else "step"
    text = [
        f"The reading does not reproduce the network {type(module).__name__}; of {len(trials)} "
        f"settings tried on {len(nearest.gaps)} rows the nearest differs by "
        f"{nearest.difference:.3g}, more than rounding explains. Its {where} with the largest "
        "difference:",
        f"the network gives: {shown(wanted)}",
        f"the reading gives: {shown(answers)}",
    ]
    text += _hints(module, parts, trials)
    return "\n".join([*text, _tried(trials)])


def _hints(module: nn.Module, parts: Parts, trials: list[Trial]) -> list[str]:
    """What may be the reason that no setting fits."""
    hints = []
    extra = uncovered(module, parts.names)
    if extra:
        hints.append("Not covered: " + ", ".join(extra) + ".")
    hints += refused_kinds(module)
    several = any(not trial.setting.config.answer.rivals for trial in trials)
    if any(_are_probabilities(trial) for trial in trials):
        hints.append(
            "The network's answers are probabilities; expected logits or log-softmax. Give a "
            "forward that stops before the softmax or sigmoid."
        )
    elif not several and any(_are_sigmoids(trial) for trial in trials):
        hints.append(
            "The network's answers are a sigmoid for each label; where a row has any number of "
            "labels, say NetworkSpec(kind='multilabel')."
        )
    embedding = None if parts.embedding is None else module.get_submodule(parts.embedding)
    if isinstance(embedding, nn.Embedding) and embedding.padding_idx is None:
        hints.append(
            f"Token {trials[0].setting.config.pad_index} was taken for padding; if it is another "
            "one, say NetworkSpec(pad_index=...)."
        )
    kinds = sorted({type(part).__name__ for part in module.modules()} & _OTHER_ACTIVATIONS)
    if kinds and parts.hidden:
        hints.append(f"{', '.join(kinds)}: only relu, tanh and identity follow a dense layer here.")
    return hints


def _are_probabilities(trial: Trial) -> bool:
    answers, wanted = trial.answers, trial.wanted
    if trial.setting.output != "logits" or not trial.setting.config.answer.rivals:
        return False
    found = answers.sigmoid() if wanted.shape[-1] == 1 else answers.softmax(dim=-1)
    return _near(found, trial)


def _are_sigmoids(trial: Trial) -> bool:
    return trial.setting.output == "logits" and _near(trial.answers.sigmoid(), trial)


def _near(answers: Tensor, trial: Trial) -> bool:
    gaps = torch.where(trial.gaps > 0, (answers - trial.wanted).abs(), 0.0)
    return bool(gaps.max() <= 1e-5)


def many_winners(
    winners: list[Trial], rows: Rows, pad_index: int | None, trials: list[Trial]
) -> str:
    """The message for when several settings fit: which, and what would tell them apart."""
    habits = [winner.setting.habits() for winner in winners]
    differing = [name for name in habits[0] if len({str(found[name]) for found in habits}) > 1]
    lines = [
        f"{len(winners)} different settings reproduce the network on this batch of {len(rows)} "
        "rows, so it can't be told which one it is:",
        *(f"- {line}" for line in in_words(winners)[:_SHOWN]),
    ]
    lengths = content(rows, pad_index)
    others = [trial for trial in trials if not trial.agrees]
    if bool((lengths == lengths[0]).all()):
        lines.append(
            f"All rows of the batch have the same length, {int(lengths[0])} of "
            f"{rows.values.shape[1]} steps."
        )
    lines.append(
        "Give a batch with rows of different lengths, or say which it is: "
        f"NetworkSpec({', '.join(f'{name}=...' for name in differing)})."
    )
    if others:
        lines.append(_tried(others))
    return "\n".join(lines)
