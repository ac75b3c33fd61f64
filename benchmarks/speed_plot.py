"""The README's plot: what a composite costs against how many modules it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

_LINES = {
    "loop": ("one module after the other", "#c2571a", "--"),
    "isolated": ("ours, units of its own for each module", "#1d6fa5", "-"),
    "shared": ("ours, modules that share a trunk", "#5aa9d6", "-"),
    "parent": ("the parent itself", "#616e7c", ":"),
}


def draw(points: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw milliseconds of a batch by number of modules.

    Args:
        points: ``modules`` and the milliseconds of each line.
        path: a PNG or SVG file.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure, axes = pyplot.subplots(figsize=(7.2, 3.8), dpi=150)
    counts = [point["modules"] for point in points]
    for name, (label, color, style) in _LINES.items():
        values = [point[name] for point in points]
        marker = None if name == "parent" else "o"
        axes.plot(counts, values, style, color=color, label=label, marker=marker, markersize=4)
    axes.set(xscale="log", yscale="log", xlabel="modules", ylabel="milliseconds, batch of 64")
    axes.set_xticks(counts, [f"{count:.0f}" for count in counts])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(True, which="major", color="#e7ebf0")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
