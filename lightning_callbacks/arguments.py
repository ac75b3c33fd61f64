"""What can be told to be wrong before any data is seen: arguments, and the shape of the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_callbacks._lightning import is_overridden
from mlflow_rnnmod.decomposition import DecompositionConfig, Pairs
from mlflow_rnnmod.networks import Rows, TextEncoder
from mlflow_rnnmod.networks.recurrent.spec import NetworkSpec
from mlflow_rnnmod.networks.recurrent.structure import find_parts
from mlflow_rnnmod.networks.translator.parts import find_translator_parts
from mlflow_rnnmod.networks.translator.spec import TranslatorSpec

SHARDED = ("FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy")


@dataclass(frozen=True)
class Checked:
    """Arguments in the form in which they are used.

    Args:
        config: the decomposition's settings.
        spec: what the user says of the network.
        tokenizer: a tokenizer's JSON.
        target_tokenizer: of a translator that writes with another one.
    """

    config: DecompositionConfig
    spec: NetworkSpec | TranslatorSpec | None
    tokenizer: str | None
    target_tokenizer: str | None = None


def check_arguments(
    labels: Any,
    tokenizer: Any,
    functions: Mapping[str, Any],
    network_spec: Any,
    weights: Any,
    config: Any,
    settings: Mapping[str, Any],
    config_of_settings: Callable[[], DecompositionConfig],
    report_data: Any,
    registered_model_prefix: Any,
    max_rows: Any,
    target_tokenizer: Any = None,
) -> Checked:
    """Check the callback's arguments.

    Raises:
        ValueError: naming every argument that does not fit, its value and what is accepted.
    """
    problems: list[str] = []
    text = _read_tokenizer("tokenizer", tokenizer, problems)
    target_text = _read_tokenizer("target_tokenizer", target_tokenizer, problems)
    for name, function in functions.items():
        if function is not None and not callable(function):
            problems.append(f"{name}={function!r}, expected a function or None")
    spec = _read_spec(network_spec, problems)
    problems += _label_problems(labels, spec)
    if target_text is not None and not (isinstance(spec, TranslatorSpec) and text is not None):
        problems.append(
            "target_tokenizer is given; expected it with tokenizer= and a TranslatorSpec alone"
        )
    if weights not in ("last", "best"):
        problems.append(f"weights={weights!r}, expected 'last' or 'best'")
    found = _read_config(config, settings, config_of_settings, problems)
    if not _is_report_data(report_data):
        problems.append(
            f"report_data={report_data!r:.100}, expected a dataloader, Rows, 'test' (the test "
            "dataloader) or None"
        )
    prefix = registered_model_prefix
    if prefix is not None and (
        not isinstance(prefix, str) or not prefix.strip() or set("/:") & set(prefix)
    ):
        problems.append(
            f"registered_model_prefix={prefix!r}, expected a name without '/' and ':', or None"
        )
    if not isinstance(max_rows, int) or isinstance(max_rows, bool) or max_rows < 1:
        problems.append(f"max_rows={max_rows!r}, expected a positive whole number")
    if problems:
        raise ValueError("; ".join(problems))
    return Checked(found, spec, text, target_text)


def _label_problems(labels: Any, spec: NetworkSpec | TranslatorSpec | None) -> list[str]:
    least = 2
    if isinstance(spec, TranslatorSpec):
        least = 1
        if labels is not None and hasattr(labels, "__len__") and len(labels) != len(spec.starts):
            return [
                f"labels={labels!r:.200} with {len(spec.starts)} start tokens; expected a language "
                "for each"
            ]
    if labels is None:
        return []
    if isinstance(labels, str) or not isinstance(labels, Sequence):
        return [f"labels={labels!r:.200}, expected a list of texts, in the order of the outputs"]
    wrong = [label for label in labels if not isinstance(label, str)]
    if wrong:
        return [f"labels holds {wrong[0]!r}, a {type(wrong[0]).__name__}; expected texts"]
    twice = sorted({label for label in labels if list(labels).count(label) > 1})
    if len(labels) < least or twice:
        extra = f" ({twice!r} more than once)" if twice else ""
        many = "at least two, all different" if least > 1 else "languages, all different"
        return [f"labels={list(labels)!r:.200}, expected {many}{extra}"]
    return []


def _read_tokenizer(name: str, tokenizer: Any, problems: list[str]) -> str | None:
    """A tokenizer's JSON, from a tokenizer, its JSON or the path of a file with it."""
    if tokenizer is None:
        return None
    tokenizer = getattr(tokenizer, "backend_tokenizer", tokenizer)  # as `transformers` wraps it
    try:
        if isinstance(tokenizer, Path) or (
            isinstance(tokenizer, str) and not tokenizer.lstrip().startswith("{")
        ):
            tokenizer = Path(tokenizer).read_text(encoding="utf-8")
        return TextEncoder(tokenizer).json
    except (OSError, TypeError, ValueError) as error:
        problems.append(f"{name}: {error}")
        return None


def _read_spec(spec: Any, problems: list[str]) -> NetworkSpec | TranslatorSpec | None:
    if spec is None or isinstance(spec, NetworkSpec | TranslatorSpec):
        return spec
    try:
        if "starts" in spec:  # tokens that a translation starts with
            return TranslatorSpec.from_mapping(dict(spec))
        return NetworkSpec(**spec)
    except (TypeError, ValueError) as error:
        problems.append(
            f"network_spec={spec!r:.200}, expected a NetworkSpec, or a TranslatorSpec: {error}"
        )
        return None


def _read_config(
    config: Any,
    settings: Mapping[str, Any],
    config_of_settings: Callable[[], DecompositionConfig],
    problems: list[str],
) -> DecompositionConfig:
    try:
        given = config_of_settings()
        if config is None:
            return given
        found = config
        if not isinstance(config, DecompositionConfig):
            found = DecompositionConfig(**config)
    except (TypeError, ValueError) as error:
        problems.append(f"settings of the decomposition: {error}")
        return DecompositionConfig()
    if given != DecompositionConfig():  # the command line gives all of them, as their defaults
        problems.append(
            f"config={config!r} together with {sorted(settings)}; expected the settings in one or "
            "the other"
        )
    return found


def _is_report_data(data: Any) -> bool:
    if data is None or isinstance(data, Rows | Pairs):
        return True
    return data == "test" if isinstance(data, str) else hasattr(data, "__iter__")


def check_structure(
    trainer: Any, module: nn.Module, labels: Sequence[str] | None, weights: str, checked: Checked
) -> list[str]:
    """What is wrong with the trainer and the model, as far as it shows without data."""
    problems = []
    strategy = type(trainer.strategy).__name__
    if strategy in SHARDED:
        problems.append(
            f"strategy={strategy}; the model's weights are spread over devices, expected a "
            "strategy that keeps the model whole, such as ddp"
        )
    if weights == "best" and not trainer.fast_dev_run:
        checkpoint = trainer.checkpoint_callback
        if checkpoint is None or getattr(checkpoint, "monitor", "") is None:
            found = "none" if checkpoint is None else "one with monitor=None"
            problems.append(
                f"weights='best' with {found} as checkpoint callback; expected a ModelCheckpoint "
                "with monitor= and mode=, or weights='last'"
            )
    # The layers may be made after setup only.
    if is_overridden("configure_model", module):
        return problems
    if isinstance(checked.spec, TranslatorSpec):
        try:
            find_translator_parts(module, checked.spec)
        except ValueError as error:
            problems.append(str(error))
    else:
        problems += _unreadable(module, labels, checked.spec or NetworkSpec())
    return problems


def _unreadable(module: nn.Module, labels: Sequence[str] | None, spec: NetworkSpec) -> list[str]:
    """Why no reading of the model's submodules fits; empty where one does.

    Without a batch it is not known whether the inputs are token ids or features, nor, without
    labels, how many there are; one combination that fits is enough.
    """
    recurrent = next((part for part in module.modules() if isinstance(part, nn.RNNBase)), None)
    size = recurrent.input_size if recurrent is not None else 1
    tokens, features = torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1, size)
    has_embedding = any(isinstance(part, nn.Embedding) for part in module.modules())
    kinds = [tokens, features] if has_embedding else [features, tokens]
    if labels is not None:
        names = [list(labels)]
    else:
        dense = [part for part in module.modules() if isinstance(part, nn.Linear)]
        counts = sorted({max(part.out_features, 2) for part in dense}) or [2]
        names = [[str(i) for i in range(count)] for count in counts]
    first = ""
    for given in names:
        for values in kinds:
            try:
                find_parts(module, values, given, spec, steps_known=False)
            except ValueError as error:
                first = first or str(error)
            else:
                return []
    return [first]
