"""Pieces of views that several of them show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st

from app import launching, state, words
from app.charts import compare
from app.charts.style import legend, style
from app.measures import MEASURES
from app.results import Group

if TYPE_CHECKING:
    from engine.spec import RunSpec


def comparison(groups: Sequence[Group], measures: Sequence[str], key: str) -> None:
    """One small panel of bars for each measure that any of the groups has, under one legend."""
    of = style([group.name for group in groups], [g.first.method for g in groups], [g.first.purifier for g in groups])
    st.altair_chart(legend(of), width="stretch")
    found = {name: [(group.name, own) for group in groups if (own := group.spread(name)) is not None] for name in measures}
    shown = {name: rows for name, rows in found.items() if rows}
    if not shown:
        return
    grid = st.grid(len(shown), min_column_width=150)
    for name, rows in shown.items():
        frame = pd.DataFrame([{"series": title, "mean": own.mean, "std": own.std, "n": own.n} for title, own in rows])
        chart = compare.bars(frame, MEASURES[name], of)
        grid.altair_chart(chart, width="stretch", key=f"{key}_{name}", alt=MEASURES[name].axis)


def expectation(made: Sequence[RunSpec], seconds: Mapping[str, float | None]) -> str:
    """How long runs will take over the slots of this machine's workers, in words. seconds: group → of one run."""
    found = launching.expected(made, seconds)
    if not made or (found.unknown and not found.seconds):
        return "–" if not made else "unknown"
    slots = sum(worker.slots for worker in state.store().workers()) or 1
    whole = words.duration(found.seconds / min(slots, len(made)))
    return f"over {whole}" if found.unknown else whole
