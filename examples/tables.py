"""What the quickstart prints: headings, shares, and tables of them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from texts import Texts

from lightning_callbacks import ModuleDecomposition

console = Console()


def heading(text: str) -> None:
    """Begin a chapter."""
    console.print()
    console.rule(f"[bold]{text}", align="left")


def percent(share: float) -> str:
    """A share as it is printed."""
    return f"{100 * share:.1f} %"


def accuracy(answers: Sequence[str], texts: Texts, label: str | None = None) -> float:
    """Share of right answers, of all texts or of those of one label (its recall)."""
    pairs = [
        (answer, truth)
        for answer, truth in zip(answers, texts.labels, strict=True)
        if label in (None, truth)
    ]
    return sum(answer == truth for answer, truth in pairs) / len(pairs)


def show_comparison(title: str, rows: dict[str, Sequence[float]], columns: Sequence[str]) -> None:
    """A table of shares."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    for name, shares in rows.items():
        table.add_row(name, *map(percent, shares))
    console.print(table)


def show_modules(parent: ModuleDecomposition, limit: int = 12) -> None:
    """What the callback made of a parent, and where it is."""
    decomposition, logged = parent.decomposition, parent.logged
    figures = decomposition.figures
    table = Table(
        title=f"{len(decomposition.modules)} modules, figures from {decomposition.rows['figures']}",
        title_justify="left",
    )
    for column in ("label", "units", "weights", "precision", "recall", "agreement"):
        table.add_column(column, justify="left" if column == "label" else "right")
    table.add_column("registered as", overflow="fold")
    for module in decomposition.modules[:limit]:
        shown = module.figures
        table.add_row(
            module.label,
            f"{module.trunk.kept} of {module.trunk.total}",
            percent(shown["weights_kept"]),
            percent(shown["precision"]),
            percent(shown["recall"]),
            percent(shown["agreement"]),
            logged.uris[module.label],
        )
    console.print(table)
    if len(decomposition.modules) > limit:
        console.print(f"... and {len(decomposition.modules) - limit} more")
    console.print(
        f"The parent has {percent(figures['parent_accuracy'])} of these rows right, its modules "
        f"together {percent(figures['composed_accuracy'])}; taking it apart took "
        f"{decomposition.seconds:.1f} s."
    )
    console.print(f"their pages: {logged.page}", soft_wrap=True)


def show_answers(
    title: str, texts: Sequence[str], answers: Sequence[str], known: Sequence[float]
) -> None:
    """A table of texts, the label that each was given, and how familiar it is."""
    table = Table(title=title, title_justify="left")
    for column in ("text", "answer", "familiarity"):
        table.add_column(column)
    for text, answer, familiarity in zip(texts, answers, known, strict=True):
        table.add_row(text, str(answer), f"{familiarity:.3f}")
    console.print(table)
