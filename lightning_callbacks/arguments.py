"""Arguments of a decomposition, checked once and brought into the form in which they are used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning_callbacks.readers import READERS, ROWS, Settings, read_spec, reader_of_spec
from mlflow_rnnmod.decomposition import DecompositionConfig
from mlflow_rnnmod.networks import TextEncoder


def check_arguments(
    *,
    labels: Any,
    tokenizer: Any,
    target_tokenizer: Any,
    functions: Mapping[str, Any],
    network_spec: Any,
    config: Any,
    settings: Mapping[str, Any],
    config_of_settings: Callable[[], DecompositionConfig],
    report_data: Any,
    registered_model_prefix: Any,
    max_rows: Any,
) -> Settings:
    """Check arguments, and bring them into the form in which they are used.

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
    problems += reader_of_spec(spec).problems_of_arguments(labels, text, target_text, spec)
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
    return Settings(
        labels=labels,
        tokenizer=text,
        target_tokenizer=target_text,
        **functions,
        spec=spec,
        config=found,
        report_data=report_data,
        registered_model_prefix=prefix,
        max_rows=max_rows,
    )


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


def _read_spec(given: Any, problems: list[str]) -> Any:
    try:
        return read_spec(given)
    except (TypeError, ValueError) as error:
        names = dict.fromkeys(reader.spec.__name__ for reader in reversed(READERS))
        problems.append(f"network_spec={given!r:.200}, expected a {', or a '.join(names)}: {error}")
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
    if data is None or isinstance(data, ROWS):
        return True
    return data == "test" if isinstance(data, str) else hasattr(data, "__iter__")
