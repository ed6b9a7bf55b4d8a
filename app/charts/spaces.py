"""The same users in several spaces: scatter plots in one chart, with one selection for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from app.charts import colours
from app.charts.style import layered

BRUSH = "picked"
SIDE = 340  # pixels of a picture beside two others on a wide screen
OTHERS = "others"
Domain = tuple[float, float, float, float]  # least and largest x, least and largest y


@dataclass(frozen=True)
class Pane:
    """One picture. space: its columns in the frame are `{space}_x` and `{space}_y`; title: what stands above it."""

    space: str
    title: str
    domain: Domain


@dataclass(frozen=True)
class Hue:
    """What the colour of a dot says. field: a column; names: the kinds, in the order of the legend, where it holds kinds;
    empty for an amount."""

    field: str
    title: str
    names: tuple[str, ...] = ()

    def channel(self, frame: pd.DataFrame, columns: int) -> alt.Color:
        """Kinds get a colour each, amounts shades from blue to orange between their tenths."""
        if self.names:
            range_ = [colours.MUTED if name == OTHERS else colours.INTERESTS[at] for at, name in enumerate(self.names)]
            legend = alt.Legend(orient="bottom", columns=columns, title=None, symbolLimit=0, symbolOpacity=1, labelLimit=130,
                                labelFontSize=12, rowPadding=3, columnPadding=12)  # fmt: skip
            return alt.Color(f"{self.field}:N", scale=alt.Scale(domain=list(self.names), range=range_), legend=legend)
        low, high = (round(float(frame[self.field].quantile(share)), 3) for share in (0.1, 0.9))
        scale = alt.Scale(
            domain=[low, max(high, low + 1e-3)], range=[colours.TAIL, colours.HEAD], clamp=True, interpolate="rgb"
        )
        legend = alt.Legend(orient="bottom", title=self.title, titleOrient="left", gradientLength=220, gradientThickness=10,
                            direction="horizontal", titleLimit=320)  # fmt: skip
        return alt.Color(f"{self.field}:Q", scale=scale, legend=legend)


def columns(side: int | None) -> int:
    """How many kinds a line of the legend holds."""
    return 8 if side == SIDE else 4


def fitted(side: int, panes: int) -> int:
    """Pixels of a picture when there are fewer than three beside each other."""
    return side * 3 // max(panes, 2)


def linked(
    frame: pd.DataFrame, panes: Sequence[Pane], hue: Hue, tooltip: Sequence[alt.Tooltip], *, side: int | None = SIDE
) -> alt.HConcatChart | alt.VConcatChart:
    """A scatter plot for each pane; an area drawn in one of them marks the same users in all.

    frame: one row a user. side: pixels of one of three pictures in a row; None stacks them, as wide as there is room.

    Nothing but the data differs between two steps of a purifier, so that the browser moves the points of the chart that is
    there, and an area stays marked.
    """
    colour = hue.channel(frame, columns(side))
    size = 30 if len(frame) <= 1000 and side in (SIDE, None) else 18
    drawn = [_pane(frame, pane, colour, size, tooltip) for pane in panes]
    if side is None:
        column = alt.vconcat(*[chart.properties(height=300) for chart in drawn], spacing=34)
        return column.properties(params=[_brush(column.vconcat)], autosize="pad")
    side = fitted(side, len(panes))
    row = alt.hconcat(*[chart.properties(width=side, height=side) for chart in drawn], spacing=16)
    return row.properties(params=[_brush(row.hconcat)], autosize="pad")


def _brush(panes: Sequence[Any]) -> alt.TopLevelSelectionParameter:
    """The one selection of all panes, drawn in their dots. Named here and not in a pane, whose title is no place to draw in;
    Altair numbers the names of views when it puts charts beside each other."""
    area = alt.IntervalSelectionConfig(type="interval", mark=alt.BrushConfig(fill=colours.MUTED, fillOpacity=0.12))
    return alt.TopLevelSelectionParameter(name=BRUSH, select=area, views=[pane.layer[0].name for pane in panes])


def _pane(frame: pd.DataFrame, pane: Pane, colour: alt.Color, size: int, tooltip: Sequence[alt.Tooltip]) -> alt.LayerChart:
    left, right, low, high = pane.domain
    x = alt.X(f"{pane.space}_x:Q", axis=None, scale=alt.Scale(domain=[left, right], nice=False, zero=False))
    y = alt.Y(f"{pane.space}_y:Q", axis=None, scale=alt.Scale(domain=[low, high], nice=False, zero=False))
    seen = alt.condition(alt.selection_interval(name=BRUSH), alt.value(0.75), alt.value(0.07))
    dots = alt.Chart(frame, name=f"dots_{pane.space}").mark_circle(size=size, clip=True)
    dots = dots.encode(x=x, y=y, color=colour, opacity=seen, tooltip=list(tooltip))
    title = alt.Chart(pd.DataFrame({"title": [pane.title]}), name=f"title_{pane.space}").mark_text(
        align="left", baseline="bottom", fontSize=14, fontWeight=600, color=colours.INK
    )
    return layered(dots, title.encode(x=alt.value(0), y=alt.value(-6), text="title:N"))
