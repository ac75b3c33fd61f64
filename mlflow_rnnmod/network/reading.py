"""Reading a user's network into ours: its parts by name or type, its habits by trying them.

Nothing of the user's network is stored but its weights; both networks must give the same answers
on a real batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mlflow_rnnmod.network.candidates import Setting, look_at_padding, reads_padding, settings
from mlflow_rnnmod.network.config import HiddenLayer, NetworkConfig
from mlflow_rnnmod.network.guard import perturbed, undisturbed
from mlflow_rnnmod.network.network import RecurrentNetwork
from mlflow_rnnmod.network.rows import Rows
from mlflow_rnnmod.network.spec import NetworkSpec, Reading, UnreadableNetwork
from mlflow_rnnmod.network.structure import Parts, find_parts, linear, recurrent_layers, uncovered
from mlflow_rnnmod.network.trials import (
    Trial,
    in_words,
    many_winners,
    no_winner,
    shown,
    spread,
    try_all,
    try_setting,
)
from mlflow_rnnmod.network.weights import cells_of, copy_network


def read_network(
    module: nn.Module,
    rows: Rows,
    forward: Callable[[], Any],
    labels: Sequence[str],
    spec: NetworkSpec | None = None,
) -> tuple[RecurrentNetwork, Reading]:
    """Read a user's network, and check that it was read right.

    Submodules that ``spec`` does not name are found by type; habits that it does not give, by
    trying all of them against ``forward``. Settings that are the same function on any input count
    as one. Exactly one must reproduce the user's answers, within :func:`~.tolerance.tolerance`.

    Args:
        module: the user's network: ``nn.RNN``, ``nn.LSTM`` or ``nn.GRU`` layers over token ids or
            float features, then dense layers. It is left as it was, random states too.
        rows: a batch, best with rows of different lengths. Float features without lengths have no
            padding: every step counts.
        forward: runs ``module`` on that batch as the user does; gives logits or log-softmax
            ``(rows, labels)``, or ``(rows, 1)`` or ``(rows,)`` for two labels (the log-odds of the
            second). Of a tuple the first item is taken, of a mapping ``"logits"``. It is called
            twice.
        labels: names of the labels, in the order of the outputs.
        spec: what is known of the network.

    Returns:
        Our network, on the device of ``module``, with copies of its weights; and what was found.

    Raises:
        UnreadableNetwork: a ``ValueError``, if a part is missing, ambiguous or not covered, or no
            setting, or more than one, reproduces the user's answers.

    Example:
        >>> class Classifier(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.embedding = nn.Embedding(30, 8, padding_idx=0)
        ...         self.lstm = nn.LSTM(8, 16, batch_first=True)
        ...         self.fc = nn.Linear(16, 3)
        ...     def forward(self, x):
        ...         return self.fc(self.lstm(self.embedding(x))[0][:, -1])
        >>> model, x = Classifier(), torch.tensor([[4, 5, 6, 7], [8, 9, 0, 0], [3, 0, 0, 0]])
        >>> network, reading = read_network(model, Rows(x), lambda: model(x), ("a", "b", "c"))
        >>> reading.spec.readout, reading.spec.recurrent, reading.config.steps
        ('last_step', ('lstm',), 4)
    """
    spec = spec or NetworkSpec()
    rows = _checked(rows)
    parts = find_parts(module, rows.values, labels, spec)
    with undisturbed(module):
        base, narrow, embedding_pad = _structure(module, parts, rows, tuple(labels))
        head = linear(module, parts.head)
        wanted = _user_answers(forward, rows, head.out_features)
        rows, wanted = rows.to(head.weight.device), wanted.to(head.weight)
        padding = look_at_padding(rows, embedding_pad, spec)
        padding = replace(padding, silent=_is_silent(module, parts, rows, padding.pad_index))
        base = replace(base, pad_index=padding.pad_index)
        open_settings = settings(base, spec, padding, narrow, _output(wanted, spec))
        chosen = spread(rows, padding.pad_index)
        trials = try_all(module, parts, open_settings, rows[chosen], wanted[chosen])
        winners = [trial for trial in trials if trial.agrees]
        if len(winners) > 1:
            told_apart = _try_perturbed(module, parts, winners, forward, rows, chosen)
            winners = told_apart or winners
        if not winners:
            raise UnreadableNetwork(no_winner(module, parts, trials, wanted[chosen]))
        if len(winners) > 1:
            raise UnreadableNetwork(many_winners(winners, rows, padding.pad_index, trials))
        setting = winners[0].setting
        network = copy_network(module, parts, setting.config, setting.directions)
        whole = try_setting(network, setting, rows, wanted)
        if not whole.agrees:
            raise UnreadableNetwork(no_winner(module, parts, [whole], wanted))
        config, notes = _fix_steps(network, rows, spec)
        network.config = config
    extra = uncovered(module, parts)
    if extra:
        notes.append("Not read, as the answers do not depend on it: " + ", ".join(extra) + ".")
    reading = Reading(
        spec=_resolved(parts, setting, config),
        config=config,
        tried=tuple(in_words(trials)),
        difference=whole.difference,
        notes=tuple(notes),
    )
    return network, reading


def read_weights(module: nn.Module, reading: Reading) -> RecurrentNetwork:
    """Our network with the weights that ``module`` has now, by a reading made before.

    Nothing is tried; :func:`check_parity` tells whether it still fits.

    Args:
        module: the network that was read, or a copy of it with other weights.
        reading: what :func:`read_network` found.
    """
    with undisturbed(module):
        return copy_network(
            module, _parts(reading.spec), reading.config, str(reading.spec.directions)
        )


def check_parity(
    module: nn.Module,
    network: RecurrentNetwork,
    rows: Rows,
    forward: Callable[[], Any],
    reading: Reading,
) -> float:
    """Whether both networks answer a batch alike.

    Args:
        module: the user's network.
        network: what was read from it.
        rows: a batch, padded as ``forward`` sees it.
        forward: runs ``module`` on that batch.
        reading: what :func:`read_network` found.

    Returns:
        The largest difference.

    Raises:
        UnreadableNetwork: a ``ValueError``, if it is more than rounding explains; both answers are
            shown.
    """
    parts, spec = _parts(reading.spec), reading.spec
    setting = Setting(reading.config, str(spec.directions), str(spec.output))
    rows = _checked(rows)
    with undisturbed(module):
        outputs = linear(module, parts.head).out_features
        wanted = _user_answers(forward, rows, outputs).to(network.device, network.dtype)
        trial = try_setting(network, setting, rows.to(network.device), wanted)
        if not trial.agrees:
            raise UnreadableNetwork(no_winner(module, parts, [trial], wanted))
    return trial.difference


def _checked(rows: Rows) -> Rows:
    values = rows.values
    whole = (
        not values.is_floating_point() and not values.is_complex() and values.dtype != torch.bool
    )
    if len(rows) == 0 or values.ndim != (2 if whole else 3) or values.shape[1] == 0:
        raise UnreadableNetwork(
            f"values is {values.dtype} of shape {tuple(values.shape)}; expected token ids of shape "
            "(rows, steps) or float features of shape (rows, steps, features), and at least one of "
            "each"
        )
    return Rows(values.to(torch.int64), rows.lengths, rows.targets) if whole else rows


def _structure(
    module: nn.Module, parts: Parts, rows: Rows, labels: tuple[str, ...]
) -> tuple[NetworkConfig, bool, int | None]:
    """The structure with habits still open; whether directions are joined; the embedding's pad."""
    cell, recurrent = cells_of(module, parts)
    dense = [linear(module, name) for name in (*parts.hidden, parts.head)]
    hidden = tuple(HiddenLayer(layer.out_features) for layer in dense[:-1])
    pad = None
    embedding_size: int | None
    if rows.values.is_floating_point():
        input_size, embedding_size = rows.values.shape[-1], None
    elif parts.embedding is None:
        input_size = embedding_size = recurrent_layers(module, parts.recurrent)[0].input_size
    else:
        embedding = module.get_submodule(parts.embedding)
        assert isinstance(embedding, nn.Embedding)
        input_size, embedding_size = embedding.num_embeddings, embedding.embedding_dim
        pad = embedding.padding_idx
    config = NetworkConfig(
        input="features" if embedding_size is None else "tokens",
        input_size=input_size,
        embedding_size=embedding_size,
        cell=cell,  # type: ignore[arg-type]
        recurrent=recurrent,
        labels=labels,
        hidden=hidden,
    )
    return config, dense[0].in_features < sum(recurrent[-1]), pad


def _user_answers(forward: Callable[[], Any], rows: Rows, outputs: int) -> Tensor:
    """The user's answers ``(rows, outputs)``, asked for twice to see that they are steady."""
    first, second = (_table(forward(), len(rows), outputs) for _ in range(2))
    if not bool(torch.isfinite(first).all()):
        raise UnreadableNetwork(
            f"The network's own answers hold NaN or infinity, in {_count_bad(first)} of "
            f"{len(first)} rows; there is nothing to compare with."
        )
    if not bool((first - second).abs().le(1e-3 * first.abs().clamp(min=1)).all()):
        raise UnreadableNetwork(
            "The network answers the same batch differently each time, in evaluation mode too:\n"
            f"first:  {shown(first[0])}\nsecond: {shown(second[0])}\n"
            "Expected the same answers; random initial states or functional dropout do this."
        )
    return first


def _is_silent(module: nn.Module, parts: Parts, rows: Rows, pad_index: int | None) -> bool:
    """Whether padding is a zero vector and the first recurrent layer has no biases."""
    if recurrent_layers(module, parts.recurrent)[0].bias:
        return False
    if parts.embedding is not None:
        embedding = module.get_submodule(parts.embedding)
        assert isinstance(embedding, nn.Embedding)
        return not bool(embedding.weight[pad_index or 0].any())
    if rows.lengths is None or not rows.values.is_floating_point():
        return False
    position = torch.arange(rows.values.shape[1], device=rows.values.device)
    return not bool(rows.values[position >= rows.lengths[:, None]].any())


def _try_perturbed(
    module: nn.Module,
    parts: Parts,
    winners: list[Trial],
    forward: Callable[[], Any],
    rows: Rows,
    chosen: Tensor,
) -> list[Trial]:
    """Those of the winners that also fit when the network's weights are others."""
    with perturbed(module):
        wanted = _user_answers(forward, rows, winners[0].answers.shape[1])[chosen]
        wanted = wanted.to(winners[0].answers)
        candidates = [winner.setting for winner in winners]
        again = try_all(module, parts, candidates, rows[chosen], wanted)
    fitting = {trial.setting for trial in again if trial.agrees}
    return [winner for winner in winners if winner.setting in fitting]


def _output(answers: Tensor, spec: NetworkSpec) -> str:
    """Whether answers are logits or their log-softmax, whose exponentials sum to one."""
    if spec.output is not None:
        return spec.output
    sums = torch.logsumexp(answers, dim=1)
    return "log_softmax" if answers.shape[1] > 1 and bool((sums.abs() < 1e-4).all()) else "logits"


def _count_bad(answers: Tensor) -> int:
    return int((~torch.isfinite(answers)).any(dim=1).sum())


def _table(output: Any, rows: int, outputs: int) -> Tensor:
    """The tensor in what a forward gave, as ``(rows, outputs)``."""
    if isinstance(output, Mapping):
        output = output.get("logits", output)
    elif isinstance(output, tuple | list) and output:
        output = output[0]
    elif not isinstance(output, Tensor) and hasattr(output, "logits"):
        output = output.logits
    if not isinstance(output, Tensor):
        raise UnreadableNetwork(
            f"forward gave a {type(output).__name__}; expected a tensor of logits, a tuple that "
            "starts with one or a mapping with 'logits'."
        )
    output = output.detach()
    if outputs == 1 and output.shape == (rows,):
        output = output[:, None]
    if output.shape != (rows, outputs) or not output.is_floating_point():
        steps = " A label for each step is not covered." if output.ndim == 3 else ""
        raise UnreadableNetwork(
            f"forward gave {output.dtype} of shape {tuple(output.shape)}; expected floats of shape "
            f"{(rows, outputs)}, one row of outputs for each row of the batch.{steps}"
        )
    return output


def _fix_steps(
    network: RecurrentNetwork, rows: Rows, spec: NetworkSpec
) -> tuple[NetworkConfig, list[str]]:
    """The structure with its number of steps, by the rule in :class:`~.spec.NetworkSpec`."""
    config, steps = network.config, rows.values.shape[1]
    if spec.steps is not None:
        return replace(config, steps=None if spec.steps == "any" else spec.steps), []
    padded = bool((network.lengths(rows) < steps).any())
    if not (padded and reads_padding(config)):
        return config, []
    note = (
        "The network reads its padding: an answer depends on how far a row is padded. Inputs will "
        f"be padded or cut to {steps} steps, as in the batch that it was read with; "
        "NetworkSpec(steps=...) says otherwise."
    )
    return replace(config, steps=steps), [note]


def _resolved(parts: Parts, setting: Setting, config: NetworkConfig) -> NetworkSpec:
    return NetworkSpec(
        embedding=parts.embedding,
        recurrent=parts.recurrent,
        hidden=parts.hidden,
        head=parts.head,
        pad_index=config.pad_index,
        steps="any" if config.steps is None else config.steps,
        **setting.habits(),  # type: ignore[arg-type]
    )


def _parts(spec: NetworkSpec) -> Parts:
    """The parts that a resolved spec names."""
    assert isinstance(spec.recurrent, tuple) and spec.hidden is not None and spec.head is not None
    return Parts(spec.embedding, spec.recurrent, spec.hidden, spec.head)
