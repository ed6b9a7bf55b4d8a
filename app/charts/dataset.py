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
    """Predicted against observed response rates of held-out rows in tenths, with 95 % intervals; dashed: a model that knows
    how sure it is.

    rows: part (train or test), predicted, observed, low, high, rows.
    """
    top = float(max(rows["predicted"].max(), rows["high"].max(), 0.05)) * 1.05
    scale = alt.Scale(domain=[0, min(top, 1.0)], nice=False)
    axis = alt.Axis(format=".1f", tickCount=5)
    x = alt.X("predicted:Q", title="Predicted rate", scale=scale, axis=axis)
    y = alt.Y("observed:Q", title="Observed rate", scale=scale, axis=axis)
    ends = alt.Chart(pd.DataFrame({"predicted": [0.0, 1.0], "observed": [0.0, 1.0]}))
    level = ends.mark_line(color=colours.INK, strokeDash=[4, 4], strokeWidth=1.5, clip=True).encode(x=x, y=y)
    base = alt.Chart(rows).encode(x=x, color=_part(rows))
    reach = base.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q", title="Observed rate", scale=scale), y2="high:Q")
    line, dots = base.mark_line(strokeWidth=2).encode(y=y), base.mark_circle(size=60, opacity=1).encode(y=y, tooltip=_tooltip())
    return layered(level, reach, line, dots).properties(height=height)


def by_popularity(rows: pd.DataFrame, title: str = "Response rate", height: int = 260) -> alt.LayerChart:
    """Response rates by popularity: dots for what was observed, with 95 % intervals where there are any; lines for what a
    fitted world answers to the same.

    rows: part, popularity (exposures in the training log), predicted, observed, and where known low, high, rows, items.
    """
    intervals = "low" in rows
    columns = ["predicted", "observed", *(["high"] if intervals else [])]
    scale = alt.Scale(domain=[0, min(float(rows[columns].to_numpy().max()) * 1.1, 1.0)], nice=False)
    most = float(rows["popularity"].max())
    x = alt.X(
        "popularity:Q", title="Training exposures of the item",
        scale=alt.Scale(type="symlog", domain=[0, most * 1.1], nice=False),
        axis=alt.Axis(values=decades(most), grid=False, labelExpr=THOUSANDS, labelFlush=False, labelOverlap=False),
    )  # fmt: skip
    axis = alt.Axis(format=".1f", tickCount=5)
    base = alt.Chart(rows).encode(x=x, color=_part(rows))
    line = base.mark_line(strokeWidth=2).encode(y=alt.Y("predicted:Q", title=title, scale=scale, axis=axis))
    dots = base.mark_circle(size=60, opacity=1).encode(
        y=alt.Y("observed:Q", title=title, scale=scale, axis=axis), tooltip=_tooltip("popularity", intervals)
    )
    if not intervals:
        return layered(line, dots).properties(height=height)
    reach = base.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q", title=title, scale=scale), y2="high:Q")
    return layered(line, reach, dots).properties(height=height)


def shares(rows: pd.DataFrame, height: int = 260) -> alt.LayerChart:
    """How many users have which share of popular items among their positives: dots for the log, steps for simulated answers.

    rows: part, low, high, real, simulated (shares of the users).
    """
    top = float(rows[["real", "simulated"]].to_numpy().max()) * 1.1
    scale = alt.Scale(domain=[0, max(top, 1e-3)], nice=False)
    middle = rows.assign(middle=(rows["low"] + rows["high"]) / 2)
    x = alt.X(
        "middle:Q", title="Head items among a user's positives", scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(format=".0%", tickCount=5, grid=False, labelFlush=False),
    )  # fmt: skip
    axis = alt.Axis(format=".0%", tickCount=4)
    tooltip = [
        alt.Tooltip("part:N", title="world"), alt.Tooltip("low:Q", title="from", format=".0%"),
        alt.Tooltip("high:Q", title="to", format=".0%"), alt.Tooltip("real:Q", title="in the log", format=".1%"),
        alt.Tooltip("simulated:Q", format=".1%"),
    ]  # fmt: skip
    base = alt.Chart(middle).encode(x=x, color=_part(rows))
    steps = base.mark_line(strokeWidth=2, interpolate="step").encode(
        y=alt.Y("simulated:Q", title="Users", scale=scale, axis=axis)
    )
    dots = base.mark_circle(size=60, opacity=1).encode(
        y=alt.Y("real:Q", title="Users", scale=scale, axis=axis), tooltip=tooltip
    )
    return layered(steps, dots).properties(height=height)


def _part(rows: pd.DataFrame) -> alt.Color:
    there = {part: colour for part, colour in PARTS.items() if part in set(rows["part"])}
    return alt.Color(
        "part:N", scale=alt.Scale(domain=list(there), range=list(there.values())),
        legend=alt.Legend(orient="top", title=None, labelExpr="datum.label + ' world'", offset=4),
    )  # fmt: skip


def _tooltip(first: str = "", intervals: bool = True) -> list[alt.Tooltip]:
    told = [alt.Tooltip("part:N", title="world")]
    if first:
        told.append(alt.Tooltip(f"{first}:Q", title="exposures of an item", format=",.0f"))
    told += [alt.Tooltip("predicted:Q", format=".3f"), alt.Tooltip("observed:Q", format=".3f")]
    if intervals:
        told += [alt.Tooltip(f"{end}:Q", title=f"95 % {end}", format=".3f") for end in ("low", "high")]
        told.append(alt.Tooltip("rows:Q", title="held-out rows", format=",.0f"))
    return told
