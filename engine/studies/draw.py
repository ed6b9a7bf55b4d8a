"""What the charts of all studies have in common: colours that colour-blind readers can tell apart, fonts, panels."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt
import pandas as pd
from PIL import Image

from engine.statistics import Spread
from engine.studies.tables import Column

INK, MUTED, GRID = "#22282B", "#5B666B", "#E4E8EA"
BLUE, VERMILION, GREEN, ORANGE, SKY, PINK = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"  # Okabe–Ito
FONT = "Helvetica Neue, Helvetica, Arial, Liberation Sans, sans-serif"
PNG_LIMIT = 150_000  # bytes of a picture in the repository

METHODS = {
    "a2c": "A2C", "td3": "TD3", "bcq": "BCQ", "mofir": "MOFIR", "dorl": "DORL", "dnair": "DNaIR", "sac4ir": "SAC4IR",
    "dsrm_hrl": "DSRM-HRL",
}  # fmt: skip
METHOD_COLOURS = {
    "A2C": ORANGE, "TD3": SKY, "BCQ": GREEN, "MOFIR": "#B8A900", "DORL": PINK, "DNaIR": VERMILION, "SAC4IR": "#000000",
    "DSRM-HRL": BLUE,
}  # fmt: skip
PURIFIERS = {"identity": "raw (identity)", "rce": "RCE", "tce": "TCE", "bod": "BOD"}
PURIFIER_COLOURS = {"identity": VERMILION, "projection": ORANGE, "regression": SKY, "diffusion": BLUE}


def method_title(name: str) -> str:
    """A method's name for people."""
    return METHODS.get(name, name.replace("_", " "))


def purifier_title(name: str) -> str:
    """A purifier's name for people."""
    return PURIFIERS.get(name, name)


def axis_title(column: Column) -> list[str]:
    """Heading and unit, one line each."""
    return [column.heading, column.unit or " "]


def dots(
    rows: Sequence[tuple[str, Spread | None, str]],
    column: Column,
    *,
    names: bool,
    width: int = 150,
    step: int = 26,
    domain: tuple[float, float] | None = None,
    interval: bool = True,
) -> Any:
    """One panel: a row for each (title, spread, colour), a dot at the mean, a line over the interval (or ± std), its number.

    names: whether the rows' titles are written at the left.
    """
    found = [(place, title, own, colour) for place, (title, own, colour) in enumerate(rows) if own is not None]
    frame = pd.DataFrame(
        [
            {
                "row": title,
                "mean": own.mean,
                "low": own.low if interval else own.mean - own.std,
                "high": own.high if interval else own.mean + own.std,
                "text": column.text(own.mean),
                "colour": colour,
                "seeds": own.n,
            }
            for _, title, own, colour in found
        ],
        columns=["row", "mean", "low", "high", "text", "colour", "seeds"],
    )
    order = [title for title, _, _ in rows]
    axis = alt.Axis(labels=names, ticks=False, domain=False, labelLimit=240, labelPadding=8, grid=True, gridColor=GRID)
    y = alt.Y("row:N", sort=order, title=None, axis=axis, scale=alt.Scale(domain=order))
    scale = alt.Scale(zero=False, padding=14) if domain is None else alt.Scale(domain=list(domain), nice=False)
    x_axis = alt.Axis(tickCount=3, grid=False, labelFlush=False)
    x = alt.X("mean:Q", title=axis_title(column), scale=scale, axis=x_axis)
    base = alt.Chart(frame).encode(y=y, color=alt.Color("colour:N", scale=None))
    tooltip = ["row:N", *(alt.Tooltip(f"{name}:Q", format=f".{column.digits}f") for name in ("mean", "low", "high")), "seeds:Q"]
    return layered(
        base.mark_rule(strokeWidth=2.5).encode(
            x=alt.X("low:Q", title=axis_title(column), scale=scale, axis=x_axis), x2="high:Q"
        ),
        base.mark_point(filled=True, size=75, opacity=1).encode(x=x, tooltip=tooltip),
        base.mark_text(dy=-10, fontSize=11, fontWeight=600).encode(x=x, text="text:N", color=alt.value(INK)),
    ).properties(width=width, height=alt.Step(step))


def domain(spreads: Iterable[Spread | None]) -> tuple[float, float]:
    """An axis that holds the intervals of all `spreads`, with room at both ends."""
    known = [own for own in spreads if own is not None]
    low, high = min(own.low for own in known), max(own.high for own in known)
    room = 0.14 * (high - low) or 0.05 * abs(high) or 1.0
    return (max(low - room, 0.0) if low >= 0 else low - room, high + room)


def layered(*layers: alt.Chart) -> Any:
    """`alt.layer` of plain charts."""
    return alt.layer(*layers)


def lines(
    frame: pd.DataFrame, column: Column, x: str, x_title: str, *, log: bool = False, width: int = 220, height: int = 150,
    colours: dict[str, str] | None = None, mark: float | None = None, legend: bool = False,
    ticks: Sequence[float] | None = None, points: bool = True,
) -> Any:  # fmt: skip
    """One panel: columns `x`, series, mean, low, high. A line and a band for each series.

    colours: series → colour. mark: an x that is pointed out by a dotted line. legend: whether the series are named beside it.
    ticks: of x; none: every x that there is. points: whether each value has a dot.
    """
    colours = colours or {}
    names = list(dict.fromkeys(frame["series"]))
    palette = alt.Scale(domain=names, range=[colours.get(name, BLUE) for name in names])
    key = alt.Legend(title=None, orient="right", symbolType="stroke", symbolStrokeWidth=3, symbolSize=160, symbolOpacity=1)
    color = alt.Color("series:N", scale=palette, legend=key if legend else None)
    ticks = sorted(set(frame[x])) if ticks is None else list(ticks)
    x_scale = alt.Scale(type="log", nice=False, padding=12) if log else alt.Scale(nice=False, padding=12)
    x_axis = alt.Axis(values=ticks, grid=False, format="d", labelOverlap="greedy")
    at = alt.X(f"{x}:Q", title=x_title, scale=x_scale, axis=x_axis)
    y_scale = alt.Scale(zero=False, nice=True)
    y_axis = alt.Axis(tickCount=4, grid=True, gridColor=GRID, domain=False, ticks=False, format="~f", labelFlush=True)
    y = alt.Y("mean:Q", title=None, scale=y_scale, axis=y_axis)
    numbers = [alt.Tooltip(f"{name}:Q", format=f".{column.digits}f") for name in ("mean", "low", "high")]
    base = alt.Chart(frame).encode(x=at, color=color)
    layers = [
        base.mark_area(opacity=0.18).encode(y=alt.Y("low:Q", title=None, scale=y_scale, axis=y_axis), y2="high:Q"),
        base.mark_line(strokeWidth=2.4).encode(y=y),
        base.mark_point(filled=True, size=42, opacity=1 if points else 0).encode(y=y, tooltip=["series:N", f"{x}:Q", *numbers]),
    ]
    if mark is not None:
        dotted = alt.Chart(pd.DataFrame({"at": [mark]})).mark_rule(strokeDash=[3, 3], color=MUTED).encode(x="at:Q")
        layers.insert(0, dotted)
    title = alt.Title(column.heading, subtitle=column.unit or " ", anchor="start", offset=6)
    return layered(*layers).properties(width=width, height=height, title=title)


def row(panels: Sequence[Any], title: str | None = None, *, spacing: int = 26) -> Any:
    """Panels side by side, their frames in line, each with its own colours."""
    made = alt.hconcat(*panels, spacing=spacing, bounds="flush").resolve_scale(color="independent")
    return made if title is None else made.properties(title=alt.Title(title, anchor="start", offset=8))


def finished(chart: Any, title: str, subtitle: str | Sequence[str]) -> alt.TopLevelMixin:
    """A chart with its title and everything that readers of all studies' charts are used to."""
    shown = alt.Title(
        title, subtitle=[subtitle] if isinstance(subtitle, str) else list(subtitle), anchor="start", frame="bounds",
        fontSize=16, subtitleFontSize=12, offset=16, subtitlePadding=5,
    )  # fmt: skip
    made: alt.TopLevelMixin = (
        chart.properties(title=shown, background="white", padding=14)
        .configure(font=FONT)
        .configure_view(stroke=None)
        .configure_axis(
            labelFontSize=11, titleFontSize=12, labelColor=INK, titleColor=INK, titleFontWeight="normal", tickColor=MUTED,
            domainColor=MUTED,
        )
        .configure_title(color=INK, frame="group", subtitleColor=MUTED, fontSize=13, subtitleFontSize=11)
        .configure_legend(labelFontSize=12, titleFontSize=12, labelColor=INK, titleColor=INK)
        .configure_header(labelFontSize=13, titleFontSize=13, labelColor=INK)
    )  # fmt: skip
    return made


def png(chart: alt.TopLevelMixin) -> bytes:
    """The picture in 200 colours, twice the size in pixels where that stays below PNG_LIMIT, else as large as it may be."""
    picture = b""
    with alt.data_transformers.enable("default", max_rows=None):
        for scale in (2.0, 1.6, 1.3, 1.0):
            drawn, out = io.BytesIO(), io.BytesIO()
            chart.save(drawn, format="png", scale_factor=scale)
            drawn.seek(0)
            image = Image.open(drawn).convert("RGB").quantize(200, dither=Image.Dither.NONE)
            image.save(out, format="png", optimize=True)
            picture = out.getvalue()
            if len(picture) < PNG_LIMIT:
                break
    return picture


def html(chart: alt.TopLevelMixin) -> str:
    """A page around the chart that holds the libraries which draw it: it asks no other machine for anything."""
    actions = {"export": True, "source": False, "compiled": False, "editor": False}  # the editor is a page elsewhere
    with alt.data_transformers.enable("default", max_rows=None):
        text: str = chart.to_html(inline=True, embed_options={"actions": actions})
    return text
