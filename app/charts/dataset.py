"""A dataset in pictures: popularity against response in counts and in rates, concentration, users, and fitted worlds."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from app.charts import colours
from app.charts.curves import THOUSANDS
from app.charts.style import layered

MOST_ITEMS = 3000  # points of a scatter
BINS = 24
COUNTS = ("plays", "Responses")  # a column of items, and its axis
RATES = ("rate", "Response rate")
PARTS = {"train": "#4C8FD6", "test": "#E07A3F"}  # of a dataset's two worlds


def sample(items: pd.DataFrame, most: int = MOST_ITEMS) -> pd.DataFrame:
    """At most `most` of the items, evenly spread over their exposures."""
    if len(items) <= most:
        return items
    order = items.sort_values("exposures", kind="stable")
    return order.iloc[np.linspace(0, len(order) - 1, most).round().astype(int)]


def scatter(items: pd.DataFrame, line: tuple[float, float], axis: tuple[str, str], height: int = 300) -> alt.LayerChart:
    """Items by exposures and COUNTS or RATES, with the least-squares line a + b·exposures over all items.

    items: title, exposures (1 or more), plays, rate, kind (head or tail). Exposures run over decades, so the axes do too: a
    straight line is curved there.
    """
    name, title = axis
    counts = name == COUNTS[0]
    most = float(items["exposures"].max())
    x = alt.X(
        "exposures:Q", title="Exposures of an item", scale=alt.Scale(type="symlog", domain=[0, most * 1.05], nice=False),
        axis=alt.Axis(values=decades(most), grid=False, labelExpr=THOUSANDS, labelFlush=False, labelOverlap=False),
    )  # fmt: skip
    top = max(float(items[name].max()), 1e-9)
    kind = alt.Scale(type="symlog", domain=[0, top * 1.05], nice=False) if counts else alt.Scale(domain=[0, 1])
    about = (
        alt.Axis(values=decades(top), labelExpr=THOUSANDS, labelOverlap=False)
        if counts
        else alt.Axis(tickCount=5, format=".1f")
    )
    y = alt.Y(f"{name}:Q", title=title, scale=kind, axis=about)
    colour = alt.Color(
        "kind:N", scale=alt.Scale(domain=["head", "tail"], range=[colours.HEAD, colours.TAIL]),
        legend=alt.Legend(orient="top", title=None, labelExpr="datum.label + ' items'", symbolOpacity=1, offset=4),
    )  # fmt: skip
    tooltip = [
        alt.Tooltip("title:N", title=" "), alt.Tooltip("exposures:Q", title="exposures", format=",.0f"),
        alt.Tooltip("plays:Q", title="responses", format=",.1f"), alt.Tooltip("rate:Q", title="rate", format=".3f"),
    ]  # fmt: skip
    dots = alt.Chart(items).mark_circle(size=22, opacity=0.5).encode(x=x, y=y, color=colour, tooltip=tooltip)
    at = np.geomspace(max(float(items["exposures"].min()), 1), max(most, 1), 80)
    fitted = pd.DataFrame({"exposures": at, name: line[0] + line[1] * at})
    fitted = fitted[fitted[name].between(0, top if counts else 1)]
    drawn = alt.Chart(fitted).mark_line(color=colours.INK, strokeWidth=2.4, strokeDash=[5, 3])
    return layered(dots, drawn.encode(x=x, y=alt.Y(f"{name}:Q", title=title, scale=kind, axis=about))).properties(height=height)


def decades(most: float) -> list[float]:
    """0, 1, 10, … up to `most`: where to write numbers on an axis that runs over decades."""
    ticks = [0.0, 1.0]
    while ticks[-1] * 10 <= most:
        ticks.append(ticks[-1] * 10)
    return ticks


def lorenz(shares: np.ndarray, head_from: float = 0.8, height: int = 230) -> alt.LayerChart:
    """Share of all exposure that the least shown part of the catalogue takes; dashed: if all items were shown alike."""
    at = np.linspace(0, 1, len(shares))
    frame = pd.DataFrame({"catalogue": at, "exposure": shares})
    percent = alt.Axis(format=".0%", tickCount=5, labelFlush=False)
    x = alt.X("catalogue:Q", title="Catalogue, least shown first", scale=alt.Scale(domain=[0, 1], nice=False), axis=percent)
    y = alt.Y("exposure:Q", title="Share of exposure", scale=alt.Scale(domain=[0, 1]), axis=percent)
    tooltip = [
        alt.Tooltip("catalogue:Q", title="the least shown", format=".0%"),
        alt.Tooltip("exposure:Q", title="take", format=".1%"),
    ]
    even = alt.Chart(pd.DataFrame({"catalogue": [0.0, 1.0], "exposure": [0.0, 1.0]}))
    level = even.mark_line(color=colours.INK, strokeDash=[4, 4], strokeWidth=1.5).encode(x=x, y=y)
    area = alt.Chart(frame).mark_area(color=colours.TAIL, opacity=0.18).encode(x=x, y=y)
    line = alt.Chart(frame).mark_line(color=colours.TAIL, strokeWidth=2.4).encode(x=x, y=y, tooltip=tooltip)
    top = alt.Chart(frame[frame["catalogue"] >= head_from - 1e-9])
    head = top.mark_line(color=colours.HEAD, strokeWidth=3.2).encode(x=x, y=y, tooltip=tooltip)
    return layered(area, level, line, head).properties(height=height)


def histogram(values: ArrayLike, title: str, limits: tuple[float, float] | None = None, height: int = 230) -> alt.Chart:
    """How many users have which value, in BINS bins (one a value where they are few whole numbers)."""
    column = np.asarray(values, dtype=float)
    low, high = limits or (float(column.min()), float(column.max()))
    whole = limits is None and high - low < BINS
    edges = np.arange(low - 0.5, high + 1) if whole else np.linspace(low, max(high, low + 1e-9), BINS + 1)
    users, _ = np.histogram(column, edges)
    frame = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "users": users, "none": 0})
    digits = ".2f" if limits else ",.0f"
    tooltip = [
        alt.Tooltip("low:Q", title="from", format=digits), alt.Tooltip("high:Q", title="to", format=digits),
        alt.Tooltip("users:Q", title="users", format=",.0f"),
    ]  # fmt: skip
    axis = alt.Axis(grid=False, tickCount=6, format=".1f" if limits else ",.0f")
    x = alt.X("low:Q", title=title, scale=alt.Scale(nice=False, zero=False), axis=axis)
    y = alt.Y("users:Q", title="Users", axis=alt.Axis(tickCount=4, labelExpr=THOUSANDS))
    bars = alt.Chart(frame).mark_bar(color=colours.PURIFIED, opacity=0.85, binSpacing=1)
    return bars.encode(x=x, x2="high:Q", y=y, y2="none:Q", tooltip=tooltip).properties(height=height)


def calibration(rows: pd.DataFrame, height: int = 260) -> alt.LayerChart:
    """Predicted against observed response rates of held-out rows in tenths; dashed: a model that knows how sure it is.

    rows: part (train or test), predicted, observed, share.
    """
    top = float(max(rows["predicted"].max(), rows["observed"].max(), 0.05)) * 1.05
    scale = alt.Scale(domain=[0, min(top, 1.0)], nice=False)
    axis = alt.Axis(format=".1f", tickCount=5)
    x = alt.X("predicted:Q", title="Predicted rate", scale=scale, axis=axis)
    y = alt.Y("observed:Q", title="Observed rate", scale=scale, axis=axis)
    colour = alt.Color(
        "part:N", scale=alt.Scale(domain=list(PARTS), range=list(PARTS.values())),
        legend=alt.Legend(orient="top", title=None, labelExpr="datum.label + ' world'", offset=4),
    )  # fmt: skip
    tooltip = [
        alt.Tooltip("part:N", title="world"), alt.Tooltip("predicted:Q", format=".3f"), alt.Tooltip("observed:Q", format=".3f"),
        alt.Tooltip("share:Q", title="of the rows", format=".0%"),
    ]  # fmt: skip
    ends = alt.Chart(pd.DataFrame({"predicted": [0.0, 1.0], "observed": [0.0, 1.0]}))
    level = ends.mark_line(color=colours.INK, strokeDash=[4, 4], strokeWidth=1.5, clip=True).encode(x=x, y=y)
    base = alt.Chart(rows).encode(x=x, y=y, color=colour)
    line, dots = base.mark_line(strokeWidth=2), base.mark_circle(size=70, opacity=1).encode(tooltip=tooltip)
    return layered(level, line, dots).properties(height=height)
