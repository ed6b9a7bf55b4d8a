"""Measures over training: a line and a band for each series, single runs, and references that do not learn."""

from __future__ import annotations

import altair as alt
import pandas as pd

from app.charts.style import Style, layered
from app.measures import Measure

THOUSANDS = "datum.value >= 1000 ? format(datum.value / 1000, '~g') + 'k' : format(datum.value, '~g')"


def curve(
    bands: pd.DataFrame,
    measure: Measure,
    style: Style,
    x_title: str,
    *,
    singles: pd.DataFrame | None = None,
    references: pd.DataFrame | None = None,
    mean: bool = True,
    height: int = 260,
    x_max: float | None = None,
) -> alt.LayerChart:
    """bands: series, x, mean, low, high, n. singles: series, run, seed, x, value. references: series, value, drawn as level
    lines. mean: whether bands and their means are drawn, else singles alone. x_max: where the axis ends, for a curve that
    still grows."""
    from_zero = measure.name.removeprefix("train_") in ("ad", "fair", "heads")
    scale = alt.Scale(zero=from_zero, nice=True)
    y = alt.Y(
        "mean:Q",
        title=measure.unit or None,
        scale=scale,
        axis=alt.Axis(tickCount=5, labelFlush=False, labelExpr="format(datum.value, '.3~g')"),  # a tick's own format may round
    )
    x = alt.X(
        "x:Q",
        title=x_title,
        axis=alt.Axis(labelExpr=THOUSANDS, tickCount=6, grid=False, labelFlush=False),
        scale=alt.Scale(nice=False) if x_max is None else alt.Scale(domain=[0, x_max], nice=False),
    )
    shown = bands.assign(
        told=[
            measure.text(mean) if n < 2 else f"{measure.text(mean)} ({measure.text(low)} to {measure.text(high)})"
            for mean, low, high, n in zip(bands["mean"], bands["low"], bands["high"], bands["n"], strict=True)
        ]
    )
    base = alt.Chart(shown).encode(x=x, color=style.colour())
    near = alt.selection_point(name="near", on="pointerover", nearest=True, fields=["x"], empty=False, clear="pointerout")
    seen = alt.condition(near, alt.value(1), alt.value(0))
    at = alt.Tooltip("x:Q", title=x_title.split(" (")[0], format=",.0f")
    layers: list[alt.Chart] = []
    if mean:
        if (shown["n"] > 1).any():
            area = base.transform_filter("datum.n > 1").mark_area(opacity=0.16)
            layers.append(area.encode(y=alt.Y("low:Q", title=measure.unit or None), y2="high:Q", detail="series:N"))
        layers.append(base.mark_line(strokeWidth=2.4).encode(y=y, strokeDash=style.dash()))
        tooltip = [
            alt.Tooltip("series:N", title=" "),
            at,
            alt.Tooltip("told:N", title=measure.title),
            alt.Tooltip("n:Q", title="seeds"),
        ]
        layers.append(base.mark_point(filled=True, size=55).encode(y=y, tooltip=tooltip, opacity=seen).add_params(near))
    if singles is not None and len(singles):
        own = alt.Chart(singles).encode(
            x=x, y=alt.Y("value:Q", title=measure.unit or None, scale=scale), color=style.colour(), detail="run:N"
        )
        layers.append(own.mark_line(strokeWidth=1.6, opacity=0.8).encode(strokeDash=style.dash()))
        if not mean:
            tooltip = [
                alt.Tooltip("series:N", title=" "), alt.Tooltip("run:Q", title="run"), alt.Tooltip("seed:Q", title="seed"), at,
                alt.Tooltip("value:Q", title=measure.title, format=f".{measure.digits}f"),
            ]  # fmt: skip
            layers.append(own.mark_point(filled=True, size=45).encode(tooltip=tooltip, opacity=seen).add_params(near))
    if references is not None and len(references):
        level = alt.Chart(references).mark_rule(strokeDash=[2, 3], strokeWidth=2)
        reference_tip = [alt.Tooltip("series:N", title=" "), alt.Tooltip("value:Q", title="on test users", format=".3f")]
        layers.append(level.encode(y=alt.Y("value:Q"), color=style.colour(), tooltip=reference_tip))
    heading = alt.Title(measure.arrow, anchor="start", fontSize=15, offset=6)
    return layered(*layers).properties(height=height, title=heading)
