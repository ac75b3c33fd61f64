"""Reading a user's network into ours: its parts by name or type, its habits by trying them.

Nothing of the user's network is stored but its weights; both networks must give the same answers
on a real batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mlflow_rnnmod.answers import answer_of
from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.forms import Arrangements, Form, find_forms, user_answers
from mlflow_rnnmod.networks.guard import perturbed, undisturbed
from mlflow_rnnmod.networks.recurrent.candidates import (
    Setting,
    look_at_padding,
    reads_padding,
    settings,
)
from mlflow_rnnmod.networks.recurrent.config import HiddenLayer, NetworkConfig
from mlflow_rnnmod.networks.recurrent.network import RecurrentNetwork
from mlflow_rnnmod.networks.recurrent.structure import (
    Parts,
    find_parts,
    linear,
    recurrent_layers,
    vector_size,
)
from mlflow_rnnmod.networks.recurrent.submodules import uncovered
from mlflow_rnnmod.networks.recurrent.trials import (
    Trial,
    content,
    in_words,
    many_winners,
    no_winner,
    spread,
    try_all,
    try_setting,
)
from mlflow_rnnmod.networks.recurrent.weights import cells_of, copy_network
from mlflow_rnnmod.networks.spec import AmbiguousNetwork, NetworkSpec, Reading, UnreadableNetwork


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
    as one. Exactly one must reproduce the user's answers, within :func:`~.guard.tolerance`.

    Args:
        module: the user's network: ``nn.RNN``, ``nn.LSTM`` or ``nn.GRU`` layers over token ids or
            float features, then dense layers. It is left as it was, random states too.
        rows: a batch, best with rows of different lengths. Float features without lengths have no
            padding: every step counts.
        forward: runs ``module`` on that batch as the user does; gives logits or log-softmax
            ``(rows, labels)``, or ``(rows, 1)`` or ``(rows,)`` for two labels (the log-odds of the
            second); for answers at each step ``(rows, steps, labels)`` or ``(rows, labels,
            steps)``. Of a tuple the first item is taken, of a mapping ``"logits"``. It is called
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
        base, narrow, embedding_pad = _structure(module, parts, rows, tuple(labels), spec)
        head = linear(module, parts.head)
        wanted = user_answers(forward, rows, head.out_features, spec)
        rows, wanted = rows.to(head.weight.device), _like(wanted, head.weight)
        reads = recurrent_layers(module, parts.recurrent)[0].input_size
        padding = look_at_padding(rows, embedding_pad, spec)
        longest = int(content(rows, padding.pad_index).max())
        vector = base.embedding_size or base.input_size
        forms = find_forms(wanted, rows, longest, vector, reads, spec)
        _check_head(forms, head.out_features, labels)
        padding = replace(padding, silent=_is_silent(module, parts, rows, padding.pad_index))
        base = replace(base, pad_index=padding.pad_index)
        open_settings = settings(base, spec, padding, narrow, forms, rows.values.shape[1])
        chosen = spread(rows, padding.pad_index)
        trials = try_all(module, parts, open_settings, rows[chosen], _some(wanted, chosen))
        winners = [trial for trial in trials if trial.agrees]
        told_apart: list[Trial] = []
        if len(winners) > 1:
            told_apart, _ = _try_perturbed(module, parts, winners, forward, rows, chosen, spec)
            winners = told_apart or winners
        if not winners:
            raise UnreadableNetwork(no_winner(module, parts, trials))
        if len(winners) > 1:
            raise AmbiguousNetwork(many_winners(winners, rows, padding.pad_index, trials))
        setting = winners[0].setting
        if len(trials) and not told_apart:
            # What is indifferent before training, as a norm is, must not be found out behind it.
            told_apart, nearest = _try_perturbed(
                module, parts, winners, forward, rows, chosen, spec
            )
            if not told_apart:
                raise UnreadableNetwork(no_winner(module, parts, nearest))
        network = copy_network(module, parts, setting.config, setting.directions)
        whole = try_setting(network, setting, rows, wanted)
        if not whole.agrees:
            raise UnreadableNetwork(no_winner(module, parts, [whole]))
        config, notes = _fix_steps(network, rows, spec)
        network.config = config
    if config.answer.ends and spec.kind is None and spec.end_label is None:
        notes.append(
            "The network answers with a list of labels, of which none was said to end it: where "
            "one does, say NetworkSpec(end_label=...)."
        )
    extra = uncovered(module, parts.names)
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
    setting = Setting(reading.config, str(spec.directions), str(spec.output), str(spec.axes))
    rows = _checked(rows)
    with undisturbed(module):
        outputs = linear(module, parts.head).out_features
        found = user_answers(forward, rows, outputs, spec)
        wanted = _like(found, network.output.weight)
        trial = try_setting(network, setting, rows.to(network.device), wanted)
        if not trial.agrees:
            raise UnreadableNetwork(no_winner(module, parts, [trial]))
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
    module: nn.Module, parts: Parts, rows: Rows, labels: tuple[str, ...], spec: NetworkSpec
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
        input_size = embedding_size = vector_size(module, parts, rows.values, spec)
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
    spec: NetworkSpec,
) -> tuple[list[Trial], list[Trial]]:
    """Those of the winners that also fit when the network's weights are others, and all trials."""
    with perturbed(module):
        first = winners[0].answers
        wanted = _like(user_answers(forward, rows, first.shape[-1], spec), first)
        candidates = [winner.setting for winner in winners]
        again = try_all(module, parts, candidates, rows[chosen], _some(wanted, chosen))
    fitting = {trial.setting for trial in again if trial.agrees}
    return [winner for winner in winners if winner.setting in fitting], again


def _like(found: Arrangements, tensor: Tensor) -> Arrangements:
    return {axes: answers.to(tensor) for axes, answers in found.items()}


def _some(found: Arrangements, chosen: Tensor) -> Arrangements:
    return {axes: answers[chosen] for axes, answers in found.items()}


def _check_head(forms: Sequence[Form], outputs: int, labels: Sequence[str]) -> None:
    """Raise unless there is an output for each of several labels."""
    if outputs != len(labels) and not any(answer_of(form.kind).rivals for form in forms):
        raise UnreadableNetwork(
            f"kind='multilabel' with {len(labels)} labels, {list(labels)!r:.200}, and a head of "
            f"{outputs} outputs; expected an output for each label"
        )


def _fix_steps(
    network: RecurrentNetwork, rows: Rows, spec: NetworkSpec
) -> tuple[NetworkConfig, list[str]]:
    """The structure with its number of steps, by the rule in :class:`~.spec.NetworkSpec`."""
    config, steps = network.config, rows.values.shape[1]
    if config.feed != "steps":
        return config, []
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
        end_label=config.end_label,
        steps="any" if config.steps is None else config.steps,
        **setting.habits(),  # type: ignore[arg-type]
    )


def _parts(spec: NetworkSpec) -> Parts:
    """The parts that a resolved spec names."""
    assert isinstance(spec.recurrent, tuple) and spec.hidden is not None and spec.head is not None
    return Parts(spec.embedding, spec.recurrent, spec.hidden, spec.head)
