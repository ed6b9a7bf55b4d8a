"""How findings are put into words: changes, and whether the seeds tell them from nothing. Pure functions."""

from __future__ import annotations

from engine.statistics import Change
from engine.studies.tables import Column

INTERVALS = (
    "Sentences give changes seed by seed with Student's 95 % interval, and call a change better or worse only where it leaves "
    "0 out; tables and pictures give bootstrap intervals where they give any, which are too narrow for few seeds."
)


def changed(found: Change | None, column: Column) -> str:
    """`Len by +1.20 [+0.90, +1.50]`: a change with its 95 % interval where there are several seeds."""
    if found is None:
        return f"{column.title} not at all known"
    text = f"{column.title} by {signed(found.mean, column.digits)}"
    return text if found.n < 2 else f"{text} [{signed(found.low, column.digits)}, {signed(found.high, column.digits)}]"


def verdict(found: Change | None, column: Column) -> int:
    """1 better, −1 worse, 0 not told apart from no change (or not known)."""
    if found is None or not found.told:
        return 0
    return column.better if found.mean > 0 else -column.better


def signed(value: float, digits: int) -> str:
    """`+1.20`, `−0.30`, `0.00`."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def grade(better: int) -> str:
    """A verdict in a word."""
    return {1: "better", -1: "worse", 0: "not told apart"}[better]


def graded(verdicts: dict[str, int]) -> str:
    """`better in Len and R_cum, worse in AD; Utility not told apart`."""
    parts = []
    for value in (1, -1):
        names = [name for name, own in verdicts.items() if own == value]
        if names:
            parts.append(f"{grade(value)} in {' and '.join(names) if len(names) < 3 else ', '.join(names)}")
    open_ = [name for name, own in verdicts.items() if own == 0]
    text = ", ".join(parts)
    if not parts:
        return "the seeds tell no measure apart"
    return text + (f"; {', '.join(open_)} not told apart" if open_ else "")
