"""Tables of HTML pages that sort by a click on a column and show what one types.

MLflow runs the scripts of an HTML file in a sandbox of its own; nothing is loaded, and without
scripts the tables are there all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mlflow_rnnmod.pages.markdown import plain
from mlflow_rnnmod.pages.wording import percent

STYLE = """
table.sortable th { cursor: pointer; user-select: none; }
table.sortable th::after { content: "\\2195"; color: #c3cad2; padding-left: 4px; }
table.sortable th.up::after { content: "\\2191"; color: #1d6fa5; }
table.sortable th.down::after { content: "\\2193"; color: #1d6fa5; }
table.sortable th:first-child, table.sortable td:first-child { position: sticky; left: 0;
  background: #fff; }
input.filter { font: inherit; padding: 5px 10px; margin: 6px 0 10px; width: 280px;
  border: 1px solid #c3cad2; border-radius: 6px; }
"""
SCRIPT = """
document.querySelectorAll("table.sortable").forEach(function (table) {
  var body = table.tBodies[0], heads = table.tHead.rows[0].cells;
  Array.prototype.forEach.call(heads, function (head, place) {
    head.addEventListener("click", function () {
      var up = !head.classList.contains("up");
      Array.prototype.forEach.call(heads, function (h) { h.classList.remove("up", "down"); });
      head.classList.add(up ? "up" : "down");
      Array.prototype.slice.call(body.rows).sort(function (a, b) {
        var x = a.cells[place].dataset.value, y = b.cells[place].dataset.value, found;
        if (x === "" || y === "") { return (x === "") - (y === ""); }
        found = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
        return up ? found : -found;
      }).forEach(function (row) { body.appendChild(row); });
    });
  });
  var filter = table.parentNode.parentNode.querySelector("input.filter");
  if (filter) { filter.addEventListener("input", function () {
    var wanted = filter.value.toLowerCase();
    Array.prototype.forEach.call(body.rows, function (row) {
      row.style.display = row.cells[0].textContent.toLowerCase().indexOf(wanted) < 0 ? "none" : "";
    });
  }); }
});
"""
FROM = 12
"""Rows from which on there is a field to filter by."""


class Cell:
    """A cell: what is shown, and what it is sorted by.

    Args:
        html: as it is shown.
        value: a number or a text; ``None`` where there is nothing, which sorts last.
        bar: a share from 0 to 1 to draw behind it.
    """

    def __init__(self, html: str, value: float | str | None, bar: float | None = None) -> None:
        self.html, self.value, self.bar = html, value, bar

    @classmethod
    def text(cls, words: object) -> Cell:
        """Words, escaped."""
        return cls(escape(plain(words)), plain(words).casefold())

    @classmethod
    def share(cls, share: float | None) -> Cell:
        """A share with a bar, or nothing."""
        if share is None or share != share:
            return cls("", None)
        return cls(percent(share), share, min(max(share, 0.0), 1.0))

    @classmethod
    def number(cls, number: float | None) -> Cell:
        """A number, or nothing."""
        if number is None or number != number:
            return cls("", None)
        return cls(f"{number:.0f}", number)

    def __str__(self) -> str:
        known = "" if self.value is None else escape(str(self.value), quote=True)
        if self.bar is None:
            return f'<td data-value="{known}">{self.html}</td>'
        full = 100 * self.bar
        colors = f"linear-gradient(90deg, #dcebf7 {full:.1f}%, transparent {full:.1f}%)"
        return (
            f'<td class="bar" data-value="{known}" style="background-image: {colors}">'
            f"{self.html}</td>"
        )


def sortable(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A table that sorts, with a field to filter its first column by where it is long."""
    heads = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(map(str, row))}</tr>" for row in rows)
    field = (
        f'<input class="filter" type="search" placeholder="Show only ... ({escape(header[0])})" '
        'aria-label="filter">'
        if len(rows) >= FROM
        else ""
    )
    return (
        f'<div>{field}<div class="wide"><table class="sortable"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></div>"
    )
