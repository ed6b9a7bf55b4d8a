"""Pieces of views that several of them show."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from app.charts import compare
from app.charts.style import legend, style
from app.measures import MEASURES
from app.results import Group


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
