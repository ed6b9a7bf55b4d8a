"""What the paper printed and what was measured here, beside each other; and measures over diffusion steps."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from app.charts import colours
from app.charts.style import layered
from app.measures import Measure

HERE, PAPER = "here", "paper"
SHADES = {HERE: "#129A94", PAPER: "#B0813A"}
LABEL = {HERE: "measured here", PAPER: "as printed, on other data"}


def dots(frame: pd.DataFrame, rows: Sequence[str], measure: Measure) -> alt.LayerChart:
    """A dot for each mean with its interval. Columns: row, where (here or paper), mean, low, high, told, n. rows: all, also
    those without a value, which stay empty."""
    sides = [side for side in (PAPER, HERE) if side in set(frame["where"])]
    y = alt.Y("row:N", sort=list(rows), title=None, scale=alt.Scale(domain=list(rows)),
              axis=alt.Axis(labelLimit=170, labelOverlap=False, grid=True, tickSize=0, domain=False))  # fmt: skip
    x = alt.X("mean:Q", title=measure.unit, scale=alt.Scale(zero=False, nice=True), axis=alt.Axis(tickCount=5, grid=False))
    offset = alt.YOffset("where:N", sort=sides, scale=alt.Scale(domain=sides))
    label = " : ".join(f"datum.value == '{side}' ? '{LABEL[side]}'" for side in sides) + " : ''"
    key = alt.Legend(orient="top", title=None, labelExpr=label, offset=4, labelLimit=260, direction="horizontal")
    shades = alt.Scale(domain=sides, range=[SHADES[side] for side in sides])
    colour = alt.Color("where:N", scale=shades, legend=key if len(sides) > 1 else None)
    tooltip = [
        alt.Tooltip("row:N", title=" "), alt.Tooltip("where:N", title="where"), alt.Tooltip("told:N", title=measure.title),
        alt.Tooltip("n:Q", title="seeds"),
    ]  # fmt: skip
    base = alt.Chart(frame).encode(y=y, yOffset=offset, color=colour, tooltip=tooltip)
    spans = base.transform_filter("isValid(datum.low) && datum.n > 1").mark_rule(strokeWidth=2, opacity=0.7)
    points = base.mark_point(filled=True, size=70, opacity=1).encode(x=x)
    heading = alt.Title(measure.arrow, anchor="start", fontSize=15, offset=6)
    chart = layered(spans.encode(x=alt.X("low:Q"), x2="high:Q"), points)
    return chart.properties(height=27 * len(rows) + 125, title=heading)


def over_steps(frame: pd.DataFrame, measure: Measure) -> alt.LayerChart:
    """A measure over the number of diffusion steps, which runs over decades. Columns: steps, mean, low, high, told, n."""
    values = sorted(frame["steps"].unique().tolist())
    x = alt.X("steps:Q", title="Diffusion steps S (log scale)", scale=alt.Scale(type="log", nice=False),
              axis=alt.Axis(values=values, grid=False, format="d"))  # fmt: skip
    y = alt.Y("mean:Q", title=None, scale=alt.Scale(zero=measure.name == "ad"), axis=alt.Axis(tickCount=5))
    tooltip = [alt.Tooltip("steps:Q", title="S"), alt.Tooltip("told:N", title=measure.title), alt.Tooltip("n:Q", title="seeds")]
    base = alt.Chart(frame).encode(x=x)
    shade = colours.METHODS["dsrm_hrl"]
    spans = base.transform_filter("datum.n > 1").mark_rule(strokeWidth=2, color=shade, opacity=0.6)
    line = base.mark_line(strokeWidth=2.2, color=shade).encode(y=y)
    points = base.mark_point(filled=True, size=80, color=shade, opacity=1).encode(y=y, tooltip=tooltip)
    heading = alt.Title(
        measure.arrow,
        subtitle=measure.unit,
        anchor="start",
        fontSize=15,
        subtitleFontSize=12,
        subtitleColor=colours.INK,
        offset=8,
    )
    return layered(spans.encode(y=alt.Y("low:Q"), y2="high:Q"), line, points).properties(height=270, title=heading)
