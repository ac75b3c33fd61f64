"""Markdown that no label can break: escaping, tables, code, a length to keep to, links to MLflow.

A fresh browser opens MLflow's pages in another mode than the one that shows models; the query at
the end of each link opens the right one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import unescape
from urllib.parse import quote

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+\-.!|~^:$])")
# Line breaks end a table row; other control characters, and those that turn the direction of
# writing, would only confuse whoever reads the label.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: object, longest: int = 120) -> str:
    r"""``text`` on one line, without control characters, cut to ``longest`` characters.

    Example:
        >>> plain("two\nlines"), plain("x" * 200, 5), plain("")
        ('two lines', 'xxxx…', '(empty)')
    """
    line = _CONTROL.sub(" ", str(text)).strip() or "(empty)"
    return line if len(line) <= longest else line[: longest - 1] + "…"


def escape(text: object, longest: int = 120) -> str:
    r"""``text`` as Markdown that shows it as it is, in a paragraph or a table's cell.

    Example:
        >>> print(escape("a|b <b>*c*</b>"))
        a\|b &lt;b&gt;\*c\*&lt;/b&gt;
    """
    line = plain(text, longest).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", line)


_WRITTEN = re.compile(
    r"(?P<code>^(?P<fence>`{3,}).*?^(?P=fence)$|(?P<ticks>`+)[^\n]*?(?P=ticks))"
    r"|(?P<room> ?(?:&(?:nbsp|emsp);)+ ?)"
    r"|(?P<entity>&#?\w+;)"
    r"|\\(?P<mark>[!-/:-@\[-`{-~])",
    re.MULTILINE | re.DOTALL,
)


def as_text(markdown: str) -> str:
    r"""Markdown as text: what was escaped as it is, room as a space; code stays.

    Example:
        >>> print(as_text(r"| label&emsp; | a\|b &lt;b&gt; | `x\-y &lt;` |"))
        | label | a|b <b> | `x\-y &lt;` |
    """

    def plainly(found: re.Match[str]) -> str:
        if found["code"]:
            return found["code"]
        return " " if found["room"] else found["mark"] or unescape(found["entity"])

    return _WRITTEN.sub(plainly, markdown)


def link(text: object, target: str) -> str:
    """A link to ``target`` (used as it is) that shows ``text``."""
    return f"[{escape(text)}]({target})"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], right: str = "") -> str:
    """A table from cells that are Markdown already.

    ``right``: for each column ``r`` to align it on the right, anything else for the left.
    """
    marks = [
        "---:" if position < len(right) and right[position] == "r" else "---"
        for position in range(len(header))
    ]
    lines = [header, marks, *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def fenced(code: str) -> str:
    """A block of Python whose fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall("`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}python\n{code}\n{fence}"


def inline(code: object) -> str:
    """``code`` in backticks, on one line."""
    line = plain(code)
    return f"`{line}`" if "`" not in line else f"`` {line} ``"


def fit(sections: Sequence[str], longest: int) -> str:
    r"""Sections one below the other, as many from the first on as ``longest`` characters hold.

    Whole sections are left out, never a part of one, so that no table or code block is torn. What
    follows a table stands off from it: MLflow's descriptions leave no room below one.

    Example:
        >>> fit(["# A", table(["x"], [["1"]]), "## B"], 100)
        '# A\n\n| x |\n| --- |\n| 1 |\n\n&nbsp;\n\n## B\n'
    """
    text = ""
    for section in sections:
        room = "&nbsp;\n\n" if text.rstrip().endswith("|") else ""
        more = f"{text}\n{room}{section}\n" if text else f"{section}\n"
        if len(more) > longest:
            break
        text = more
    return text


WORKFLOW = "?workflowType=machine_learning"
"""What makes MLflow's pages open in *Model training*."""


def model_page(experiment_id: str, model_id: str) -> str:
    """The page of a LoggedModel.

    Example:
        >>> model_page("1", "m-2")
        '#/experiments/1/models/m-2?workflowType=machine_learning'
    """
    return f"#/experiments/{experiment_id}/models/{model_id}{WORKFLOW}"


def models_page(experiment_id: str) -> str:
    """The list of an experiment's LoggedModels."""
    return f"#/experiments/{experiment_id}/models{WORKFLOW}"


def run_page(experiment_id: str, run_id: str) -> str:
    """The page of a run."""
    return f"#/experiments/{experiment_id}/runs/{run_id}{WORKFLOW}"


def artifact_page(experiment_id: str, run_id: str, path: str) -> str:
    """An artifact of a run, opened."""
    return f"#/experiments/{experiment_id}/runs/{run_id}/artifacts/{path}{WORKFLOW}"


def artifacts_page(experiment_id: str, model_id: str) -> str:
    """The artifacts of a LoggedModel."""
    return f"#/experiments/{experiment_id}/models/{model_id}/artifacts{WORKFLOW}"


def registered_page(name: str, version: str | None = None) -> str:
    """The page of a registered model, or of a version of it."""
    page = f"#/models/{quote(name, safe='')}"
    return f"{page}/versions/{version}{WORKFLOW}" if version else page + WORKFLOW
