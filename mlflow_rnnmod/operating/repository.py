"""``rnnmod:/`` URIs: composites that are made when they are asked for, and models that follow.

    rnnmod:/?modules=a.german@champion,more.irish/3&score=open
    rnnmod:/?recipe=/here/recipe.yml
    rnnmod:/?follow=models:/names@champion&every=5

MLflow loads this module while it is itself being imported: only the base class is imported up here.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from mlflow.entities import FileInfo
from mlflow.store.artifact.artifact_repo import ArtifactRepository

SCHEME = "rnnmod"
_KEYS = ("modules", "recipe", "follow", "every", "score", "reject_below")
# MLflow puts names of files behind the whole URI, where they land in what is asked for.
_FILE = re.compile(r"/(MLmodel|requirements\.txt|conda\.yaml|python_env\.yaml|constraints\.txt)$")


class ComposingRepository(ArtifactRepository):
    """Files of a model that is composed when they are first asked for."""

    def __init__(self, artifact_uri: str, *arguments: Any, **named: Any) -> None:
        super().__init__(artifact_uri, *arguments, **named)
        found = _FILE.search(artifact_uri)
        self._file = found[1] if found else ""
        self._asked = artifact_uri[: found.start()] if found else artifact_uri
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Refused: there is no place to write to."""
        raise _refused(self._asked)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Refused: there is no place to write to."""
        raise _refused(self._asked)

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Refused: there is nothing to delete."""
        raise _refused(self._asked)

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """Files and folders directly below ``path``; of a file, none."""
        root = self._made()
        folder = root / (path or self._file or ".")
        if not folder.is_dir():
            return []
        return [
            FileInfo(
                str(entry.relative_to(root)),
                entry.is_dir(),
                None if entry.is_dir() else entry.stat().st_size,
            )
            for entry in sorted(folder.iterdir())
        ]

    def _is_directory(self, artifact_path: str | None) -> bool:
        return (self._made() / (artifact_path or self._file or ".")).is_dir()

    def download_artifacts(self, artifact_path: str, dst_path: str | None = None) -> str:
        """A copy of the model, or of one file."""
        import shutil

        source = self._made() / (artifact_path or self._file or ".")
        target = Path(dst_path or tempfile.mkdtemp(prefix="rnnmod-"))
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
            return str(target)
        target = target / source.name if target.is_dir() else target
        shutil.copy(source, target)
        return str(target)

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        import shutil

        shutil.copy(self._made() / (remote_file_path or self._file), local_path)

    def _made(self) -> Path:
        if self._folder is None:
            folder = tempfile.TemporaryDirectory(prefix="rnnmod-")
            _write(self._asked, Path(folder.name) / "model")
            self._folder = folder
        return Path(self._folder.name) / "model"


def _write(uri: str, path: Path) -> None:
    """Compose what a URI asks for, and write it as a model."""
    from mlflow_rnnmod.operating.recipes import compose_asked
    from mlflow_rnnmod.tracking import fetch
    from mlflow_rnnmod.tracking.directory import model_directory
    from mlflow_rnnmod.tracking.pyfunc import DEFAULTS

    asked = read_uri(uri)
    if "follow" in asked:
        config = {**DEFAULTS, "follow": asked["follow"], "every": float(asked.get("every", 5))}
        model_directory(fetch.load(asked["follow"]), path, standalone=True, model_config=config)
        return
    model_directory(compose_asked(asked), path)


def read_uri(uri: str) -> dict[str, str]:
    """What a URI asks for, by key.

    Example:
        >>> read_uri("rnnmod:/?modules=a.x@champion,b.y/3&score=open")
        {'modules': 'a.x@champion,b.y/3', 'score': 'open'}
    """
    from difflib import get_close_matches

    from mlflow.exceptions import MlflowException

    query = urlsplit(uri).query
    found = parse_qs(query.replace("+", "%2B"), keep_blank_values=True)
    problems = []
    for key, values in found.items():
        if key not in _KEYS:
            near = get_close_matches(key, _KEYS, 1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            problems.append(f"{key!r} is unknown{hint}")
        elif len(values) > 1:
            problems.append(f"{key!r} is there {len(values)} times")
        elif not values[0].strip():
            problems.append(f"{key!r} is empty")
    for key in ("every", "reject_below"):
        if key in found and not re.fullmatch(r"-?\d+(\.\d*)?([eE][-+]?\d+)?", found[key][0]):
            problems.append(f"{key}={found[key][0]!r} is no number")
    if len({"modules", "recipe", "follow"} & set(found)) != 1:
        problems.append("expected one of modules=, recipe= and follow=")
    if problems:
        raise MlflowException.invalid_parameter_value(
            f"{uri}: {'; '.join(problems)}. Expected rnnmod:/?modules=NAME@ALIAS,NAME/VERSION"
        )
    return {key: values[0] for key, values in found.items()}


def _refused(uri: str) -> Exception:
    from mlflow.exceptions import MlflowException

    return MlflowException.invalid_parameter_value(
        f"{uri} is made when it is asked for; nothing can be written to it."
    )
