"""Reading a user's network into a graph: its ``forward`` is followed, and checked on a real batch.

Nothing of the user's network is stored but its weights and what is done with them; both networks
must give the same answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from mlflow_rnnmod.answers import answer_of
from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.forms import answer_tensor, arrangements, shown, user_answers
from mlflow_rnnmod.networks.graph.calling import Call, find_call, padding_of, reads_padding
from mlflow_rnnmod.networks.graph.config import OUTPUTS_OVER_STEPS, GraphConfig
from mlflow_rnnmod.networks.graph.following import Followed, follow
from mlflow_rnnmod.networks.graph.network import GraphNetwork
from mlflow_rnnmod.networks.guard import perturbed, tolerance, undisturbed
from mlflow_rnnmod.networks.spec import NetworkSpec, UnreadableNetwork

SAID = frozenset({"kind", "output", "axes", "padding", "pad_index", "steps"})
"""What may be said of a network that is followed."""


@dataclass(frozen=True)
class GraphReading:
    """What reading a user's network found.

    Args:
        spec: with the kind of answer.
        config: structure of the network that was read.
        end: what answers end with, which was taken off: ``"logits"`` for nothing,
            ``"log_softmax"``, ``"softmax"`` or ``"sigmoid"``.
        outputs: numbers in an answer: one a label, or a single one for two labels.
        call: how the user calls the network.
        tried: what was tried, in words.
        difference: the largest difference between both networks' answers on the batch.
        notes: what a user should know about this reading.
    """

    spec: NetworkSpec
    config: GraphConfig
    end: str
    outputs: int
    call: Call = field(repr=False, compare=False)
    tried: tuple[str, ...] = ()
    difference: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def axes(self) -> str:
        """How answers are arranged."""
        return self.spec.axes or "rows_labels"


def read_graph(
    module: nn.Module,
    rows: Rows,
    forward: Callable[[], Any],
    labels: Sequence[str],
    spec: NetworkSpec | None = None,
) -> tuple[GraphNetwork, GraphReading]:
    """Read a user's dense network, and check that it was read right.

    Its ``forward`` is followed with stand-ins for the input. Batch norm is taken into the dense
    layers beside it, dropout is left out. Both networks must give the same answers, within
    :func:`~mlflow_rnnmod.networks.guard.tolerance`, with the weights and running statistics
    that it has, and with others near them.

    Args:
        module: the user's network: dense layers, activations, batch norm, sums and concatenations.
            It is left as it was, random states too.
        rows: a batch of float values ``(rows, features)``, or of any shape that the network
            flattens first.
        forward: runs ``module`` on that batch as the user does; gives logits, log-softmax, softmax
            or sigmoid ``(rows, labels)``, or ``(rows, 1)`` or ``(rows,)`` for two labels (the
            log-odds of the second, or its sigmoid). Of a tuple the first item is taken, of a
            mapping ``"logits"``. It is called several times.
        labels: names of the labels, in the order of the outputs.
        spec: ``kind`` and ``output`` may be given. Left out, a target for each output, or a
            sigmoid for each, means several labels a row.

    Returns:
        Our network, on the device of ``module``, with copies of its weights; and what was found.

    Example:
        >>> class Classifier(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.hidden, self.norm = nn.Linear(6, 8), nn.BatchNorm1d(8)
        ...         self.out = nn.Linear(8, 3)
        ...     def forward(self, x):
        ...         return self.out(self.norm(torch.relu(self.hidden(x))))
        >>> model, x = Classifier(), torch.randn(5, 6)
        >>> network, reading = read_graph(model, Rows(x), lambda: model(x), ("a", "b", "c"))
        >>> [node.op for node in reading.config.nodes], network.units
        (['linear', 'relu'], {'hidden.0': 8})
    """
    spec, labels = spec or NetworkSpec(), tuple(labels)
    _check_spec(spec)
    _check_rows(rows)
    _check_module(module)
    with undisturbed(module):
        call = find_call(module, rows, forward)
        followed = follow(module, call)
        outputs = followed.outputs
        answers = user_answers(forward, rows, outputs, NetworkSpec(axes=followed.axes))  # type: ignore[arg-type]
        kind = _kind(followed, answers[followed.axes], rows, spec)
        _check_outputs(outputs, labels, kind)
        padding = padding_of(module, rows, spec) if call.kind is not None else {}
        if followed.draft.fixed or isinstance(spec.steps, int):
            padding["steps"] = _steps(rows, spec)
        config = followed.config(labels, kind, **padding)
        reading = GraphReading(
            spec=NetworkSpec(kind=kind, axes=followed.axes, steps=spec.steps),  # type: ignore[arg-type]
            config=config,
            end=followed.end,
            outputs=outputs,
            call=call,
            notes=_notes(module, followed),
        )
        if call.kind is not None and config.steps is None and spec.steps != "any":
            reading = _with_steps(module, reading, rows)
        with perturbed(module):
            _check(module, _network(module, reading), rows, forward, reading)
        network = _network(module, reading)
        difference = _check(module, network, rows, forward, reading)
    return network, replace(reading, difference=difference)


def read_graph_weights(module: nn.Module, reading: GraphReading) -> GraphNetwork:
    """Our network with the weights that ``module`` has now, by a reading made before."""
    with undisturbed(module):
        return _network(module, reading)


def check_graph_parity(
    module: nn.Module,
    network: GraphNetwork,
    rows: Rows,
    forward: Callable[[], Any],
    reading: GraphReading,
) -> float:
    """Whether both networks answer a batch alike."""
    with undisturbed(module):
        return _check(module, network, rows, forward, reading)


def _network(module: nn.Module, reading: GraphReading) -> GraphNetwork:
    """The network with the weights that a user's has now."""
    followed = follow(module, reading.call)
    padding = {}
    if reading.call.kind is not None:
        padding = {key: getattr(reading.config, key) for key in ("pad_index", "side", "steps")}
    found = followed.config(reading.config.labels, reading.config.output, **padding)
    if found != reading.config or (followed.end, followed.outputs) != (
        reading.end,
        reading.outputs,
    ):
        raise UnreadableNetwork(
            f"The network {type(module).__name__} does other things now than when it was read:\n"
            f"then: {[node.op for node in reading.config.nodes]}, {reading.end}\n"
            f"now:  {[node.op for node in found.nodes]}, {followed.end}"
        )
    with torch.device("meta"):
        network = GraphNetwork(found)
    network.load_state_dict(followed.tensors(), assign=True)
    network.requires_grad_(False)
    return network


def _steps(rows: Rows, spec: NetworkSpec) -> int:
    """How many steps every input has, where that is fixed."""
    return spec.steps if isinstance(spec.steps, int) else rows.values.shape[1]


def _with_steps(module: nn.Module, reading: GraphReading, rows: Rows) -> GraphReading:
    """The reading with a fixed number of steps, where more padding would change an answer."""
    with perturbed(module):
        network = _network(module, reading)
        reads = reads_padding(module, network, reading.call, rows)
    if reads is None:
        return reading
    steps = rows.values.shape[1]
    shape = (reading.config.input_shape[0], steps)
    note = (
        f"{reads} Inputs will be padded or cut to {steps} steps, as in the batch that it was read "
        "with; NetworkSpec(steps=...) says otherwise."
    )
    config = replace(reading.config, steps=steps, input_shape=shape)
    return replace(reading, config=config, notes=(*reading.notes, note))


def _check(
    module: nn.Module,
    network: GraphNetwork,
    rows: Rows,
    forward: Callable[[], Any],
    reading: GraphReading,
) -> float:
    """The largest difference between both networks' answers; more than rounding raises."""
    config = reading.config
    given = arrangements(answer_tensor(forward()), len(rows), reading.outputs, reading.spec)
    wanted = given[reading.axes].to(network.like)
    rows = network.content(rows.to(network.device)).to(network.device)
    logits = network(rows)
    if reading.outputs == 1:
        logits = logits[..., 1:] - logits[..., :1]
    found = _ENDS[reading.end](logits)
    answered = network.answered(rows)
    if answered is not None:  # a user may answer up to the longest row, and anything at padding
        steps = min(found.shape[1], wanted.shape[1])
        answered = answered[:, :steps]
        found, wanted = (x[:, :steps] * answered[..., None] for x in (found, wanted))
    widest, long = config.widest, rows.values.shape[1] if reading.call.kind is not None else 1
    found, wanted = found.flatten(1), wanted.flatten(1)
    gaps = (found - wanted).abs().nan_to_num(torch.inf)
    # Numbers of a row are sums of the same values: small ones are what is left of large ones.
    size = wanted.abs().amax(dim=1, keepdim=True).clamp(min=_cancelled(module) / 40)
    allowed = tolerance(wanted.dtype, size, widest, max(config.depth, long))
    if bool((gaps <= allowed).all()):
        return float(gaps.max())
    at = int(gaps.amax(dim=1).argmax())
    hooked = [
        name or "the network itself"
        for name, part in module.named_modules()
        if part._forward_hooks or part._forward_pre_hooks
    ]
    hint = f"\nThere are hooks on {', '.join(hooked)}, which are not read." if hooked else ""
    raise UnreadableNetwork(
        f"The reading does not reproduce the network {type(module).__name__}: on {len(rows)} rows "
        f"it differs by {float(gaps.max()):.3g}, more than rounding explains. The row with the "
        f"largest difference:\nthe network gives: {shown(wanted[at])}\n"
        f"the reading gives: {shown(found[at])}{hint}"
    )


def _cancelled(module: nn.Module) -> float:
    """The largest value that a norm takes off again: what it was rounded by stays."""
    found = [0.0]
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
            assert part.running_var is not None
            scale = (part.running_var + part.eps).rsqrt()
            scale = scale if part.weight is None else scale * part.weight.abs()
            found.append(float((part.running_mean.abs() * scale).max()))
    return max(found)


_ENDS: dict[str, Callable[[Tensor], Tensor]] = {
    "logits": lambda logits: logits,
    "log_softmax": lambda logits: logits.log_softmax(dim=-1),
    "softmax": lambda logits: logits.softmax(dim=-1),
    "sigmoid": torch.sigmoid,
}


def _kind(followed: Followed, answers: Tensor, rows: Rows, spec: NetworkSpec) -> str:
    """What is answered: several labels where there is a target, or a sigmoid, for each output."""
    if spec.output is not None and spec.output != followed.end:
        raise UnreadableNetwork(
            f"output={spec.output!r}, but the network's answers end with {followed.end!r}"
        )
    if spec.kind is not None:
        if answer_of(spec.kind).stepwise != (answers.ndim == 3):
            each = "at each step" if answers.ndim == 3 else "for each row"
            raise UnreadableNetwork(
                f"kind={spec.kind!r}, but answers of shape {tuple(answers.shape)} are {each}"
            )
        return spec.kind
    if answers.ndim == 3:
        return "tags"
    if followed.outputs == 1 or "softmax" in followed.end:
        return "label"
    several = rows.targets is not None and rows.targets.shape == answers.shape
    return "multilabel" if several or followed.end == "sigmoid" else "label"


def _check_spec(spec: NetworkSpec) -> None:
    given = [name for name, value in spec.to_dict().items() if value is not None]
    wrong = [name for name in given if name not in SAID]
    if wrong:
        raise UnreadableNetwork(
            f"The network spec gives {', '.join(wrong)}, which are for recurrent networks; for "
            f"others {', '.join(sorted(SAID))} can be given"
        )
    if spec.kind not in (None, *OUTPUTS_OVER_STEPS):
        raise UnreadableNetwork(
            f"kind={spec.kind!r}; expected one of {OUTPUTS_OVER_STEPS}, the last for steps"
        )


def _check_rows(rows: Rows) -> None:
    values = rows.values
    if len(rows) == 0 or values.ndim < 2 or values.is_complex() or 0 in values.shape:
        raise UnreadableNetwork(
            f"values is {values.dtype} of shape {tuple(values.shape)}; expected numbers of shape "
            "(rows, features), or rows of any shape that the network flattens, and at least one"
        )


def _check_module(module: nn.Module) -> None:
    """Refuse submodules whose weights are not there, or not what they seem."""
    if isinstance(module, torch.jit.ScriptModule):
        raise UnreadableNetwork("The network is scripted; expected the module it was made from")
    for name, part in module.named_modules():
        words = f"{name or 'the network itself'} ({type(part).__name__})"
        own = part.parameters(recurse=False)
        if any(isinstance(weight, nn.parameter.UninitializedParameter) for weight in own):
            raise UnreadableNetwork(
                f"{words} is lazy and has no weights yet; run one batch through the network first"
            )
        if part._forward_pre_hooks and name:
            raise UnreadableNetwork(
                f"{words} has a hook that runs before it and may change its weights or input; "
                "expected none (torch.nn.utils.parametrizations, in the place of weight_norm and "
                "spectral_norm of torch.nn.utils, is read)"
            )


def _check_outputs(outputs: int, labels: Sequence[str], kind: str) -> None:
    answer = answer_of(kind)
    single = len(labels) == 2 and answer.rivals and not answer.stepwise
    if outputs != len(labels) and not (single and outputs == 1):
        raise UnreadableNetwork(
            f"labels don't match the answers: labels has {len(labels)} names, {list(labels)!r:.200}"
            f", the network {outputs} outputs; expected {len(labels)}"
            + (" (or 1, for two labels)" if single else "")
        )


def _notes(module: nn.Module, followed: Followed) -> tuple[str, ...]:
    def met(name: str) -> bool:
        return name in followed.read or any(
            name.startswith(f"{part}.") for part in followed.read if part
        )

    unread = [name for name, _ in module.named_parameters() if not met(name)]
    if not unread:
        return ()
    listed = ", ".join(unread[:20]) + (" and more" if len(unread) > 20 else "")
    return (f"Not read, as the answers do not depend on it: {listed}.",)
