"""How finished runs compare: one small panel a measure, one bar a group."""

from __future__ import annotations

import textwrap

import altair as alt
import pandas as pd

from app.charts import colours
from app.charts.style import Style, layered
from app.measures import Measure


def bars(frame: pd.DataFrame, measure: Measure, style: Style, height: int = 190) -> alt.LayerChart:
    """Bars of `mean` by `series` with the mean above, and ± `std` as a line where `n` > 1. Columns: series, mean, std, n."""
    rows = zip(frame["mean"], frame["std"], frame["n"], strict=True)
    shown = frame.assign(
        text=[measure.text(mean) for mean in frame["mean"]],
        told=[measure.text(mean, std if n > 1 else None) for mean, std, n in rows],
        low=frame["mean"] - frame["std"],
        high=frame["mean"] + frame["std"],
    )
    top = float(max(shown["high"].max(), 1e-9)) * 1.18
    x = alt.X("series:N", sort=list(style.names), title=None, axis=None, scale=alt.Scale(paddingInner=0.35, paddingOuter=0.25))
    y = alt.Y("mean:Q", title=None, scale=alt.Scale(domain=[0, top]), axis=alt.Axis(tickCount=4, grid=True, domain=False))
    tooltip = [
        alt.Tooltip("series:N", title=" "),
        alt.Tooltip("told:N", title=measure.title),
        alt.Tooltip("n:Q", title="seeds"),
    ]
    base = alt.Chart(shown).encode(x=x)
    drawn = base.mark_bar(cornerRadiusEnd=3).encode(y=y, color=style.colour(), tooltip=tooltip)
    labels = base.mark_text(dy=-9, fontSize=13, fontWeight=600, color=colours.INK).encode(
        y=alt.Y("high:Q"), text="text:N", tooltip=tooltip
    )
    layers = [drawn, labels]
    several = shown[shown["n"] > 1]
    if len(several):
        spread = (
            alt.Chart(several).mark_rule(strokeWidth=2, color=colours.INK).encode(x=x, y="low:Q", y2="high:Q", tooltip=tooltip)
        )
        layers.insert(1, spread)
    title = alt.Title(
        measure.arrow,
        subtitle=textwrap.wrap(measure.unit, 22),
        anchor="start",
        fontSize=15,
        subtitleFontSize=12,
        subtitleColor=colours.INK,
        offset=8,
    )
    return layered(*layers).properties(height=height, title=title)
