"""Two measures against each other: means and seeds, what no other beats, how points moved, and one policy's own path."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from app.charts import colours
from app.charts.style import Style, layered
from app.measures import Measure

PICKED = "picked"  # the name of the selection; its points carry `ids`
SIZES = {"mean": 150, "seed": 42}
CORNERS = {(1, 1): "↗", (-1, 1): "↖", (1, -1): "↘", (-1, -1): "↙"}


def scatter(
    points: pd.DataFrame,
    front: pd.DataFrame,
    fronts: pd.DataFrame,
    style: Style,
    x: Measure,
    y: Measure,
    box: Sequence[float],
    *,
    trail: pd.DataFrame | None = None,
    path: pd.DataFrame | None = None,
    height: int = 460,
) -> alt.LayerChart:
    """points: series, name, kind, ids, who, x, y, x_told, y_told, front. front, fronts: x, y, order (and series), drawn as
    stairs. trail: series, name, step, x, y. path: series, lam, current, x, y, x_told, y_told. box: x0, x1, y0, y1."""
    across = alt.X(
        "x:Q", title=x.axis, scale=alt.Scale(domain=list(box[:2]), nice=False), axis=alt.Axis(tickCount=6, labelFlush=False)
    )
    up = alt.Y("y:Q", title=y.axis, scale=alt.Scale(domain=list(box[2:]), nice=False), axis=alt.Axis(tickCount=6))
    layers = [_better(x, y)]
    if len(front):
        line = alt.Chart(front).mark_line(strokeWidth=5, opacity=0.28, color=colours.INK, clip=True, strokeJoin="round")
        layers.append(line.encode(x=across, y=up, order="order:Q"))
    if len(fronts):
        own = alt.Chart(fronts).mark_line(strokeWidth=1.6, opacity=0.75, clip=True)
        layers.append(own.encode(x=across, y=up, order="order:Q", color=style.colour(), detail="series:N"))
    if trail is not None and len(trail):
        ways = alt.Chart(trail).mark_line(strokeWidth=1.5, opacity=0.55, clip=True)
        layers.append(ways.encode(x=across, y=up, order="step:Q", color=style.colour(), detail="name:N"))
    picked = alt.selection_point(name=PICKED, fields=["ids"], on="click", empty=True)
    tooltip = [
        alt.Tooltip("name:N", title=" "), alt.Tooltip("who:N", title="what"), alt.Tooltip("x_told:N", title=x.title),
        alt.Tooltip("y_told:N", title=y.title),
    ]  # fmt: skip
    shown = points.assign(size=points["kind"].map(SIZES), seen=points["kind"].map({"mean": 1.0, "seed": 0.4}))
    rings = shown[shown["front"]]
    if len(rings):
        halo = alt.Chart(rings).mark_point(size=300, strokeWidth=2, filled=False, color=colours.INK, opacity=0.75)
        layers.append(halo.encode(x=across, y=up, tooltip=tooltip))
    dots = alt.Chart(shown.sort_values("kind", ascending=False)).mark_circle(cursor="pointer", clip=True)
    layers.append(
        dots.encode(
            x=across, y=up, color=style.colour(), tooltip=tooltip,
            size=alt.Size("size:Q", scale=None, legend=None),
            opacity=alt.condition(picked, alt.Opacity("seen:Q", scale=None, legend=None), alt.value(0.12)),
        ).add_params(picked)
    )  # fmt: skip
    if path is not None and len(path):
        layers += _path(path, across, up, style, x, y)
    return layered(*layers).properties(height=height)


def _better(x: Measure, y: Measure) -> alt.Chart:
    """A word in the corner where both are best, out of the points' way."""
    text = f"better {CORNERS[x.better, y.better]}" if x.better > 0 else f"{CORNERS[x.better, y.better]} better"
    mark = alt.Chart(pd.DataFrame({"text": [text]})).mark_text(
        align="right" if x.better > 0 else "left", baseline="bottom", fontSize=14, dy=-5, color=colours.INK, fontStyle="italic",
    )  # fmt: skip
    where = {True: alt.value("width"), False: alt.value(0)}[x.better > 0]
    return mark.encode(text="text:N", x=where, y=alt.value(0) if y.better > 0 else alt.value("height"))


def _path(path: pd.DataFrame, across: alt.X, up: alt.Y, style: Style, x: Measure, y: Measure) -> list[alt.Chart]:
    tooltip = [
        alt.Tooltip("lam:Q", title="λ", format=".3~g"), alt.Tooltip("x_told:N", title=x.title),
        alt.Tooltip("y_told:N", title=y.title),
    ]  # fmt: skip
    base = alt.Chart(path).encode(x=across, y=up, color=style.colour(), order="lam:Q")
    line = base.mark_line(strokeWidth=2, strokeDash=[5, 3], clip=True)
    knots = base.mark_point(size=46, filled=True, shape="diamond", opacity=0.9).encode(tooltip=tooltip)
    now = alt.Chart(path[path["current"]]).encode(x=across, y=up)
    mark = now.mark_point(size=330, shape="diamond", filled=True, strokeWidth=2, stroke=colours.INK)
    word = now.transform_calculate(text="'λ = ' + format(datum.lam, '.3~g')").mark_text(
        dy=-19, fontSize=14, fontWeight=600, color=colours.INK
    )
    return [line, knots, mark.encode(color=style.colour(), tooltip=tooltip), word.encode(text="text:N")]


def volumes(frame: pd.DataFrame, style: Style, unit: str) -> alt.LayerChart:
    """Bars of `value` by `series`, low to high as a line where there are several seeds. Columns: series, value, low, high,
    told."""
    y = alt.Y("series:N", sort=None, title=None, axis=None, scale=alt.Scale(paddingInner=0.55, paddingOuter=0.35))
    top = float(max(frame["value"].max(), frame["high"].fillna(0).max(), 1e-9)) * 1.02
    x = alt.X("value:Q", title=unit, scale=alt.Scale(domain=[0, top], nice=False), axis=alt.Axis(tickCount=4, grid=True))
    tooltip = [alt.Tooltip("series:N", title=" "), alt.Tooltip("told:N", title="hypervolume"), alt.Tooltip("of:N", title="of")]
    base = alt.Chart(frame).encode(y=y)
    bars = base.mark_bar(cornerRadiusEnd=3, height=12).encode(x=x, color=style.colour(), tooltip=tooltip)
    names = base.mark_text(align="left", baseline="bottom", dy=-9, fontSize=13, color=colours.INK, limit=300)
    words = names.encode(x=alt.value(0), text="label:N")
    layers = [bars, words]
    several = frame[frame["low"].notna()]
    if len(several):
        spread = alt.Chart(several).mark_rule(strokeWidth=2, color=colours.INK)
        layers.append(spread.encode(y=y, x="low:Q", x2="high:Q", tooltip=tooltip))
    return layered(*layers).properties(height=42 * len(frame) + 34)
