"""The package as models name it, and its code beside a model where pip can't get it: an archive.

Parents, composites and modules that stand alone carry the archive. A module by reference brings a
file of a few lines that finds the package, or the archive of its parent's model.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import sys
import zipfile
from functools import lru_cache
from pathlib import Path

from mlflow_rnnmod.tracking import _borrowed

FLAVOR_NAME = "rnnmod"
DISTRIBUTION = "mlflow-rnnmod"
PACKAGE = Path(__file__).parent.parent
CODE = "code"
ARCHIVE = _borrowed.ARCHIVE
TAG = "rnnmod.code"
"""Tag of a parent's model: SHA-256 of the archive that it carries."""
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the same sources are the same archive


def version() -> str:
    """The package's version, as it is installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:  # loaded from an artifact's code, or from a working copy
        return "0+unknown"


@lru_cache(maxsize=1)
def archive() -> bytes:
    """This package's sources, and nothing else, as a ZIP archive; the same each time."""
    if not PACKAGE.is_dir():  # imported from an archive: that is it
        return PACKAGE.parent.read_bytes()
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w") as file:
        for path in sorted(PACKAGE.rglob("*.py")):
            name = f"{PACKAGE.name}/{path.relative_to(PACKAGE).as_posix()}"
            info = zipfile.ZipInfo(name, _LONG_AGO)
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, path.read_bytes(), compresslevel=9)
    return found.getvalue()


@lru_cache(maxsize=1)
def archive_digest() -> str:
    """SHA-256 of :func:`archive`."""
    return hashlib.sha256(archive()).hexdigest()


def leave_path() -> None:
    """Take archives of this package off ``sys.path`` that it does not run from.

    MLflow puts one there for each model that it loads, and every later import of anything, and
    every question for a package's version, would look through all of them.
    """
    own = str(PACKAGE.parent)
    sys.path[:] = [each for each in sys.path if each == own or not each.endswith(ARCHIVE)]


def carry(path: Path) -> str:
    """Put this package beside a model.

    Args:
        path: the model's folder, where code of the user's own may be in ``code`` already.

    Returns:
        what the model names as its code, below ``path``: the archive itself, or the folder with
        the user's code, to which the sources are added.
    """
    if (path / CODE).is_dir():
        if not (path / CODE / PACKAGE.name).exists():
            with zipfile.ZipFile(io.BytesIO(archive())) as file:
                file.extractall(path / CODE)
        return CODE
    (path / ARCHIVE).parent.mkdir()
    (path / ARCHIVE).write_bytes(archive())
    return ARCHIVE


def borrow(path: Path, parent: str, server: str | None) -> str:
    """Put the file beside a module that finds this package, or its parent's archive.

    ``parent``: model id of its parent, whose archive is this package's; gives what the model names
    as its code, below ``path``.
    """
    lines = inspect.getsource(_borrowed).splitlines()
    known = {"PARENT": parent, "SHA256": archive_digest(), "SERVER": server or "its server"}
    for name, value in known.items():
        lines[lines.index(f'{name} = ""')] = f"{name} = {value!r}"
    folder = path / CODE / PACKAGE.name
    if folder.exists():  # the user's own code brings the package
        return CODE
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return CODE
