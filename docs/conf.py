"""Settings of the documentation (Sphinx), and its pages that are made of other files.

The first page is the README, tutorials are the examples that it names, and the interface is what
the packages list in ``__all__``, read from their docstrings.
"""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "build" / "pages"
PACKAGES = ["mlflow_rnnmod", "lightning_callbacks"] + [
    f"mlflow_rnnmod.{name}"
    for name in ("networks", "inputs", "answers", "decomposition", "composition", "storage")
]
COPIED = {"README.md": "index", "CONTRIBUTING.md": "contributing", "CHANGELOG.md": "changes"}
NAVIGATION = """
```{{toctree}}
:hidden:
:caption: {caption}
{pages}
```
"""

sys.path.insert(0, str(ROOT))
project = "mlflow-rnnmod"
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_parser"]
html_theme = "furo"
html_title = project
html_copy_source = html_show_sphinx = False
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # they stand in the signature
napoleon_google_docstring, napoleon_numpy_docstring = True, False
maximum_signature_line_length = 88


def examples() -> list[str]:
    """Those that the README names, in its order; others are helpers of theirs."""
    named = re.findall(r"\(examples/(\w+)\.py\)", (ROOT / "README.md").read_text("utf-8"))
    return list(dict.fromkeys(named))


def copied(name: str) -> str:
    """A file of the repository's top, with links that fit from beside the other pages."""
    text = (ROOT / name).read_text("utf-8").replace("(docs/", "(")
    for other, page in COPIED.items():
        text = text.replace(f"({other})", f"({page}.md)")
    return re.sub(r"\(examples/(\w+)\.py\)", r"(tutorials/\1.md)", text)


def tutorial(name: str) -> str:
    """An example as a page: what it says of itself, then all of it."""
    code = (ROOT / "examples" / f"{name}.py").read_text("utf-8")
    title, _, rest = (ast.get_docstring(ast.parse(code)) or name).partition("\n")
    body = code.split('"""', 2)[2].strip()
    return f"# {title.rstrip('.')}\n{rest}\n\n`examples/{name}.py`:\n\n```python\n{body}\n```\n"


def interface(package: str, described: dict[int, str]) -> str:
    """A page with the docstrings of a package's public names, each ``described`` once."""
    public = importlib.import_module(package)
    parts = [f"# `{package}`\n\n{(public.__doc__ or '').strip()}\n"]
    for name in public.__all__:
        thing = getattr(public, name)
        first = described.setdefault(id(thing), f"{package}.{name}")
        parts.append(f"## {name}\n")
        if not callable(thing):
            values = thing if isinstance(thing, Mapping) else [thing]
            parts.append(", ".join(f"`{value!r}`" for value in values) + "\n")
        elif first != f"{package}.{name}":
            parts.append(f"{{py:obj}}`{first}`\n")
        else:
            kind = "class:: {}\n   :members:" if isinstance(thing, type) else "function:: {}"
            parts.append(f"```{{eval-rst}}\n.. auto{kind.format(first)}\n```\n")
    return "\n".join(parts)


def write_pages() -> None:
    """All pages, made and written by hand, into one folder."""
    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.copytree(ROOT / "docs", PAGES, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    packages = [name for name in PACKAGES if (ROOT / name.replace(".", "/")).is_dir()]
    packages = [name for name in packages if hasattr(importlib.import_module(name), "__all__")]
    made = {page: copied(name) for name, page in COPIED.items()}
    made |= {f"tutorials/{name}": tutorial(name) for name in examples()}
    described: dict[int, str] = {}
    made |= {f"interface/{name}": interface(name, described) for name in packages}
    written = ["architecture", "adding", "method", "decisions", "costs", "mlflow"]
    written += ["results", "results_apart", "results_dense", "results_images"]
    for caption, pages in {
        "In use": ["commands", "gate"],
        "How it works": written,
        "Tutorials": [page for page in made if page.startswith("tutorials/")],
        "Interface": [page for page in made if page.startswith("interface/")],
        "Working on it": ["contributing", "changes"],
    }.items():
        made["index"] += NAVIGATION.format(caption=caption, pages="\n".join(pages))
    for page, text in made.items():
        (PAGES / f"{page}.md").parent.mkdir(exist_ok=True)
        (PAGES / f"{page}.md").write_text(text, encoding="utf-8")


write_pages()
