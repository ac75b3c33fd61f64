"""Arguments of a decomposition, checked once and brought into the form in which they are used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_callbacks.readers import READERS, Settings, read_spec, reader_of_spec
from lightning_callbacks.sources import listed_labels
from mlflow_rnnmod.decomposition import DecompositionConfig
from mlflow_rnnmod.inputs import ImagePreparation
from mlflow_rnnmod.inputs.tokenizers import vocabulary_name
from mlflow_rnnmod.networks import TextEncoder


def check_arguments(
    given: Settings,
    config: Any,
    settings: Mapping[str, Any],
    config_of_settings: Callable[[], DecompositionConfig],
) -> Settings:
    """Check arguments, and bring them into the form in which they are used."""
    problems: list[str] = []
    given = replace(given, labels=listed_labels(given.labels))
    text = _read_tokenizer("tokenizer", given.tokenizer, problems)
    target_text = _read_tokenizer("target_tokenizer", given.target_tokenizer, problems)
    image = _read_image(given.image, problems)
    vocabulary = _read_vocabulary(given.vocabulary, given.tokenizer, problems)
    for name in ("split_batch", "forward"):
        function = getattr(given, name)
        if function is not None and not callable(function):
            problems.append(f"{name}={function!r}, expected a function or None")
    spec = _read_spec(given.spec, problems)
    reader = reader_of_spec(spec)
    problems += reader.problems_of_arguments(given.labels, text, target_text, spec)
    if image is not None and not reader.sees:
        problems.append(f"image={image!r:.200}, expected None with a {reader.spec.__name__}")
    found = _read_config(config, settings, config_of_settings, problems)
    if not _is_report_data(given.report_data, reader.rows):
        problems.append(
            f"report_data={given.report_data!r:.100}, expected a dataloader, "
            f"{reader.rows.__name__}, 'test' (the test dataloader) or None"
        )
    prefix = given.registered_model_prefix
    if prefix is not None and (
        not isinstance(prefix, str) or not prefix.strip() or set("/:") & set(prefix)
    ):
        problems.append(
            f"registered_model_prefix={prefix!r}, expected a name without '/' and ':', or None"
        )
    apart = given.experiment
    if apart is not None and (not isinstance(apart, str) or not apart.strip()):
        problems.append(f"experiment={apart!r}, expected the name of an experiment, or None")
    limit = given.max_rows
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        problems.append(f"max_rows={limit!r}, expected a positive whole number")
    if problems:
        raise ValueError("; ".join(problems))
    given = replace(given, tokenizer=text, target_tokenizer=target_text, image=image)
    given = replace(given, vocabulary=vocabulary)
    return replace(given, spec=spec, config=found)


def _read_tokenizer(name: str, tokenizer: Any, problems: list[str]) -> str | None:
    """A tokenizer's JSON, from a tokenizer, its JSON or the path of a file with it."""
    if tokenizer is None:
        return None
    tokenizer = getattr(tokenizer, "backend_tokenizer", tokenizer)  # as `transformers` wraps it
    try:
        if isinstance(tokenizer, Path) or (
            isinstance(tokenizer, str) and not tokenizer.lstrip().startswith("{")
        ):
            tokenizer = _read_file(Path(tokenizer))
        return TextEncoder(tokenizer).json
    except (OSError, TypeError, ValueError) as error:
        problems.append(f"{name}: {error}")
        return None


def _read_file(path: Path) -> str:
    """What a tokenizer's file holds."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(
            f"there is no file {str(path)!r:.200} that can be read ({error.strerror or error}); "
            "expected the path of a tokenizer.json, a tokenizers.Tokenizer, or a fast tokenizer of "
            "transformers. Nothing is downloaded: of a name on a hub give "
            "transformers.AutoTokenizer.from_pretrained(name)"
        ) from error


def _read_vocabulary(given: Any, tokenizer: Any, problems: list[str]) -> str | None:
    if given is None:
        return None
    if tokenizer is not None:
        problems.append("vocabulary is given together with tokenizer, which says it; expected one")
    try:
        return vocabulary_name(given)
    except ValueError as error:
        problems.append(str(error))
        return None


def _read_image(given: Any, problems: list[str]) -> ImagePreparation | None:
    try:
        return None if given is None else ImagePreparation.of(given)
    except (TypeError, ValueError) as error:
        problems.append(f"image={given!r:.200}: {error}")
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


def _is_report_data(data: Any, rows: type) -> bool:
    if data is None or isinstance(data, rows):
        return True
    return data == "test" if isinstance(data, str) else hasattr(data, "__iter__")
