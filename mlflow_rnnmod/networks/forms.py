"""A user's answers to a batch: where rows, steps and labels are in them, and what kind they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.answers import answer_of
from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.spec import NetworkSpec, UnreadableNetwork

_FORM = ("axes", "kind", "output", "feed", "output_steps", "steps", "end_label")
Arrangements = Mapping[str, Tensor]
"""Answers by the axes they may have (:class:`~.spec.NetworkSpec`): ``(rows, outputs)``, or
``(rows, steps, outputs)``."""


def user_answers(
    forward: Callable[[], Any], rows: Rows, outputs: int, spec: NetworkSpec
) -> Arrangements:
    """What the user's network answers, asked for twice to see that it is steady."""
    first, second = (answer_tensor(forward()) for _ in range(2))
    found = arrangements(first, len(rows), outputs, spec)
    if first.shape != second.shape or not _steady(first, second):
        pair = [
            next(iter(arrangements(x, len(rows), outputs, spec).values())) for x in (first, second)
        ]
        one, other = (shown(x[0] if x.ndim == 2 else x[0, 0]) for x in pair)
        raise UnreadableNetwork(
            "The network answers the same batch differently each time, in evaluation mode too:\n"
            f"first:  {one}\nsecond: {other}\n"
            "Expected the same answers; random initial states or functional dropout do this."
        )
    finite = torch.isfinite(next(iter(found.values())))
    # At steps that are padding anything may stand.
    bad = ~finite.all(dim=-1) if finite.ndim == 2 else ~finite.all(dim=-1).any(dim=-1)
    if bool(bad.any()):
        raise UnreadableNetwork(
            f"The network's own answers hold NaN or infinity, in {int(bad.sum())} of "
            f"{len(rows)} rows; there is nothing to compare with."
        )
    return found


def answer_tensor(output: Any) -> Tensor:
    """The tensor in what a forward gave: itself, its ``logits``, or the first of a tuple."""
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
    return output.detach()


def arrangements(answers: Tensor, rows: int, outputs: int, spec: NetworkSpec) -> Arrangements:
    """All ways in which a tensor may hold ``outputs`` numbers for each row, or row and step."""
    found: dict[str, Tensor] = {}
    if answers.is_floating_point():
        found = _arrangements(answers, rows, outputs)
    fitting = {axes: x for axes, x in found.items() if spec.axes in (None, axes)}
    if not fitting:
        given = "" if spec.axes is None else f", arranged as {spec.axes!r}"
        raise UnreadableNetwork(
            f"forward gave {answers.dtype} of shape {tuple(answers.shape)}; expected floats of "
            f"shape {(rows, outputs)}, one row of outputs for each row of the batch, or for "
            f"answers at each step {(rows, 'steps', outputs)} or {(rows, outputs, 'steps')}{given}."
        )
    return fitting


def _arrangements(answers: Tensor, rows: int, outputs: int) -> dict[str, Tensor]:
    shape, found = tuple(answers.shape), {}
    if shape == (rows, outputs):
        found["rows_labels"] = answers
    elif shape == (rows,) and outputs == 1:
        found["rows_labels"] = answers[:, None]
    elif len(shape) == 2 and outputs == 1 and rows in shape:
        if shape[0] == rows:
            found["rows_steps_labels"] = answers[..., None]
        if shape[1] == rows:
            found["steps_rows_labels"] = answers.T[..., None]
    elif len(shape) == 2 and shape[1] == outputs and shape[0] % rows == 0:
        found["flattened"] = answers.reshape(rows, -1, outputs)
    elif len(shape) == 3:
        if shape[0] == rows and shape[2] == outputs:
            found["rows_steps_labels"] = answers
        if shape[0] == rows and shape[1] == outputs:
            found["rows_labels_steps"] = answers.transpose(1, 2)
        if shape[1] == rows and shape[2] == outputs:
            found["steps_rows_labels"] = answers.transpose(0, 1)
    return found


@dataclass(frozen=True)
class Form:
    """One way to see answers: how they are arranged, what kind they are, and from what they come.

    Args:
        axes, kind, output, feed, output_steps: as in :class:`~.spec.NetworkSpec`.
    """

    axes: str
    kind: str
    output: str
    feed: str
    output_steps: int | None


def find_forms(
    found: Arrangements, rows: Rows, longest: int, vector: int, reads: int, spec: NetworkSpec
) -> list[Form]:
    """All forms that the shapes allow and ``spec`` leaves open.

    Args:
        found: the user's answers by their axes.
        rows: the batch, with targets where they are known.
        longest: steps of its longest row; answers may end there.
        vector: length of what stands for one token or step.
        reads: length of what the first recurrent layer reads at each of its steps.
        spec: what is known.
    """
    forms, refused = [], []
    for axes, answers in found.items():
        for feed, output_steps in _feeds(answers, rows, longest, vector, reads, spec):
            kind = _kind(answers, feed, rows, spec)
            if answer_of(kind).stepwise != (answers.ndim == 3):
                each = "at each step" if answers.ndim == 3 else "for each row"
                refused.append(
                    f"kind={kind!r}, but answers of shape {tuple(answers.shape)} are {each}"
                )
                continue
            forms += [
                Form(axes, kind, output, feed, output_steps)
                for output in _outputs(answers, kind, spec)
            ]
    if not forms:
        raise UnreadableNetwork(_no_form(found, rows, vector, reads, spec, refused))
    return forms


def _no_form(
    found: Arrangements, rows: Rows, vector: int, reads: int, spec: NetworkSpec, refused: list[str]
) -> str:
    """Why no form of the answers fits."""
    given = {k: v for k, v in spec.to_dict().items() if v is not None and k in _FORM}
    said = f". The spec says {given}." if given else "."
    if refused:
        return "; ".join(dict.fromkeys(refused)) + said
    shapes = " or ".join(str(tuple(answers.shape)) for answers in found.values())
    return (
        f"Inputs of {rows.values.shape[1]} steps of {vector}, recurrent layers that read {reads} "
        f"at each of theirs, and answers of shape {shapes} don't fit together: expected an answer "
        "for each row, for each step of the input or, where the whole input is read at each step, "
        f"for each of those{said}"
    )


def _feeds(
    answers: Tensor, rows: Rows, longest: int, vector: int, reads: int, spec: NetworkSpec
) -> Iterator[tuple[str, int | None]]:
    """What the recurrent layers may read, with the steps that a repeated vector has."""
    steps = rows.values.shape[1]
    given = answers.shape[1] if answers.ndim == 3 else None
    if spec.feed in (None, "steps") and reads == vector and given in (None, steps, longest):
        yield "steps", None
        if spec.feed is None:
            return  # a single step is the same, flattened or not
    if reads != vector * steps or spec.steps not in (None, steps):
        return
    if spec.feed in (None, "flat") and spec.output_steps is None and given in (None, 1):
        yield "flat", None
        return
    count = spec.output_steps if given is None else given
    if spec.feed in (None, "repeat") and count and spec.output_steps in (None, count):
        yield "repeat", count


def _kind(answers: Tensor, feed: str, rows: Rows, spec: NetworkSpec) -> str:
    """What is answered: several labels where there is a target for each output."""
    if spec.kind is not None:
        return spec.kind
    if answers.ndim == 3:
        return "list" if feed == "repeat" or spec.end_label is not None else "tags"
    targets = rows.targets
    several = targets is not None and targets.shape == answers.shape and targets.shape[1] > 1
    return "multilabel" if several or spec.output == "sigmoid" else "label"


def _outputs(answers: Tensor, kind: str, spec: NetworkSpec) -> tuple[str, ...]:
    """Whether answers may be logits, their log-softmax or their sigmoid."""
    if spec.output is not None:
        return (spec.output,)
    if not answer_of(kind).rivals:
        inside = bool(((answers >= 0) & (answers <= 1)).all())
        return ("logits", "sigmoid") if inside else ("logits",)
    if answers.shape[-1] == 1:
        return ("logits",)
    normed = torch.logsumexp(answers, dim=-1).abs() < 1e-4
    if bool(normed.all()):
        return ("log_softmax",)
    # Steps that are padding may hold anything; the trials will tell.
    partly = answers.ndim == 3 and bool(normed.any())
    return ("log_softmax", "logits") if partly else ("logits",)


def _steady(first: Tensor, second: Tensor) -> bool:
    near = (first - second).abs().le(1e-3 * first.abs().clamp(min=1))
    same = (first == second) | (first.isnan() & second.isnan())
    return bool((near | same).all())


def shown(answers: Tensor) -> str:
    """A row of answers, for people."""
    numbers = ", ".join(f"{value:.6g}" for value in answers[:8].tolist())
    return f"[{numbers}{', ...' if len(answers) > 8 else ''}]"
