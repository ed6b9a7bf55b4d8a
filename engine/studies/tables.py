"""A table once, written as Markdown, CSV and LaTeX. Pure functions."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.statistics import Estimate, Spread

Cell = Spread | Estimate | float | str | None


@dataclass(frozen=True)
class Column:
    """better: 1 higher, −1 lower, 0 neither. span: whether an interval is printed in place of ± std."""

    name: str
    title: str
    better: int = 0
    digits: int = 3
    unit: str = ""
    span: bool = False

    @property
    def heading(self) -> str:
        """`Len ↑`."""
        return self.title + {1: " ↑", -1: " ↓", 0: ""}[self.better]

    def text(self, cell: Cell) -> str:
        """As people read it: `12.30 ± 0.40`, `12.30 [11.90, 12.70]`, `–` where unknown."""
        if isinstance(cell, str):
            return cell
        if isinstance(cell, Estimate):
            more = f" [{self._number(cell.low)}, {self._number(cell.high)}]" if cell.n > 1 else ""
            return self._number(cell.value) + more
        if isinstance(cell, Spread):
            if cell.n < 2:
                return self.text(cell.mean)
            more = f" [{self._number(cell.low)}, {self._number(cell.high)}]" if self.span else f" ± {self._number(cell.std)}"
            return self._number(cell.mean) + more
        return "–" if cell is None or math.isnan(cell) else self._number(cell)

    def _number(self, value: float) -> str:
        text = f"{value:.{self.digits}f}"
        return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


@dataclass(frozen=True)
class Row:
    """reference: not in the contest for the best value of a column."""

    title: str
    cells: Mapping[str, Cell]
    reference: bool = False


@dataclass(frozen=True)
class Table:
    """name: what its files are called, empty for a study's main table. corner: heading of the rows' titles."""

    name: str
    caption: str
    corner: str
    columns: Sequence[Column]
    rows: Sequence[Row]

    def best(self, column: Column) -> set[str]:
        """Titles of the rows with the column's best mean, several where they are printed alike; none without a contest."""
        means = {row.title: _mean(row.cells.get(column.name)) for row in self.rows if not row.reference}
        known = {title: mean for title, mean in means.items() if mean is not None}
        if not column.better or len(known) < 2:
            return set()
        top = column.text(max(known.values(), key=lambda mean: column.better * mean))
        return {title for title, mean in known.items() if column.text(mean) == top}


COLUMNS = {
    column.name: column
    for column in (
        Column("len", "Len", 1, 2, "steps per session"),
        Column("r_each", "R_each", 1, 3, "mean response"),
        Column("r_cum", "R_cum", 1, 2, "responses per session"),
        Column("ad", "AD", -1, 3, "0 = balanced exposure"),
        Column("utility", "Utility", 1, 3, "genuine preference"),
        Column("popularity_r2", "Popularity R²", -1, 3, "linear probe"),
        Column("popularity_r2_nonlinear", "Popularity R², non-linear", -1, 3, "gradient boosting"),
        Column("preference_r2", "Preference R²", 1, 3, "linear probe"),
        Column("category_accuracy", "Interest accuracy", 1, 3, "linear probe"),
        Column("retrieval", "Retrieval", 1, 3, "genuine preference of the top 10"),
        Column("silhouette_interest", "Silhouette, interest", 1, 3),
        Column("silhouette_popularity", "Silhouette, popularity", -1, 3),
        Column("neighbourhood_overlap", "Neighbours shared with clean", 1, 3),
    )
}


def markdown(table: Table) -> str:
    """A table for GitHub; the best values are bold."""
    best = {column.name: table.best(column) for column in table.columns}
    lines = ["| " + " | ".join([table.corner, *(column.heading for column in table.columns)]) + " |"]
    lines.append("|" + "---|" + "---:|" * len(table.columns))
    for row in table.rows:
        cells = [_plain(row.title)]
        for column in table.columns:
            text = _plain(column.text(row.cells.get(column.name)))
            cells.append(f"**{text}**" if row.title in best[column.name] else text)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def csv_text(table: Table) -> str:
    """Full precision; where cells are spreads or estimates, a column of its own for mean, deviation, interval and count."""
    header, parts = [table.corner.lower() or "row"], []
    for column in table.columns:
        kinds = {type(row.cells.get(column.name)) for row in table.rows}
        names = [""]
        if Spread in kinds:
            names = ["mean", "std", "low", "high", "n"]
        elif Estimate in kinds:
            names = ["value", "low", "high", "n"]
        header += [f"{column.name}_{name}".rstrip("_") for name in names]
        parts.append(names)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(harmless, header))
    for row in table.rows:
        line: list[Any] = [row.title]
        for column, names in zip(table.columns, parts, strict=True):
            cell = row.cells.get(column.name)
            if names == [""]:
                line.append(cell)
            else:
                whole = isinstance(cell, Spread if "mean" in names else Estimate)
                line += [getattr(cell, name) if whole else _mean(cell) if name == names[0] else None for name in names]
        writer.writerow(map(harmless, line))
    return out.getvalue()


def latex(table: Table) -> str:
    """A tabular in the style of booktabs (`\\usepackage{booktabs}`); the best values are bold."""
    best = {column.name: table.best(column) for column in table.columns}
    lines = [f"% {_one_line(table.caption)}", r"\begin{tabular}{l" + "c" * len(table.columns) + "}", r"\toprule"]
    lines.append(" & ".join(map(tex, [table.corner, *(column.heading for column in table.columns)])) + r" \\")
    lines.append(r"\midrule")
    for row in table.rows:
        cells = [tex(row.title)]
        for column in table.columns:
            text = tex(column.text(row.cells.get(column.name)))
            cells.append(rf"\textbf{{{text}}}" if row.title in best[column.name] else text)
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def tex(text: str) -> str:
    """Text for LaTeX."""
    return "".join(_TEX.get(letter, letter) for letter in text)


def harmless(value: Any) -> Any:
    """A cell of a CSV file; a text that a spreadsheet would take for a formula gets a ' in front."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, list | tuple):
        value = " ".join(map(str, value))
    if isinstance(value, str) and value.lstrip(" ")[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return value


def listed(parts: Iterable[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    parts = list(parts)
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {last} {parts[-1]}" if parts else ""


def _mean(cell: Cell) -> float | None:
    if isinstance(cell, Spread):
        return cell.mean
    if isinstance(cell, Estimate):
        return cell.value
    return cell if isinstance(cell, float) and not math.isnan(cell) else None


def _plain(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|" else letter for letter in text).replace("\n", " ")


def _one_line(text: str) -> str:
    return " ".join(text.split())


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": "$-$", "–": "--", "²": "$^2$", "≥": r"$\ge$",
    "→": r"$\to$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "λ": r"$\lambda$", "ω": r"$\omega$", "×": r"$\times$",
    "[": "{[}", "]": "{]}",
}  # fmt: skip
