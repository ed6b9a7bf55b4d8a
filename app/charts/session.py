"""One session: patience, responses and exposure over its slates, and the way of the user's state on a map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import altair as alt
import pandas as pd

from app.charts import colours
from app.charts.style import layered

LABELS = 46  # pixels left of the plots, the same for all, so that their steps stand in one line


def _x(length: int, *, last: bool = False) -> alt.X:
    axis = alt.Axis(title="Slate", values=_ticks(length), labelAngle=0, grid=False, titlePadding=4) if last else None
    return alt.X(
        "step:O",
        scale=alt.Scale(type="band", domain=list(range(1, length + 1)), paddingInner=0.25, paddingOuter=0.2),
        axis=axis,
    )


def _ticks(length: int) -> list[int]:
    every = 1 if length <= 12 else 2 if length <= 24 else 5
    return list(range(1, length + 1)) if every == 1 else [1, *range(every, length + 1, every)]


def _y(title: str) -> alt.Axis:
    return alt.Axis(title=title, minExtent=LABELS, maxExtent=LABELS, tickCount=3, labelFlush=False, domain=False)


def _now(now: int, length: int) -> alt.Chart:
    """A light column behind the slate that is on the stage. One panel has it: the others stay as they are while stepping,
    and the browser need not draw them again."""
    mark = alt.Chart(pd.DataFrame({"step": [now]})).mark_bar(opacity=0.28, color=colours.MUTED, cornerRadius=2)
    return mark.encode(x=_x(length), y=alt.value(0), y2=alt.value("height"))


_TOOLTIP = [
    alt.Tooltip("step:O", title="slate"),
    alt.Tooltip("reward:Q", title="mean response", format=".2f"),
    alt.Tooltip("cost:Q", title="patience lost", format=".1f"),
    alt.Tooltip("temper:Q", title="patience left", format=".1f"),
    alt.Tooltip("heads:Q", title="head items"),
]


def patience(steps: pd.DataFrame, max_len: int, now: int, length: int) -> alt.LayerChart:
    """Patience after each of the steps (see app.replay.Session); a mark where a slate broke the bound on exposure."""
    shown = steps.assign(left=steps["temper"].clip(lower=0))
    y = alt.Y("left:Q", scale=alt.Scale(domain=[0, max_len], nice=False), axis=_y("Patience"))
    base = alt.Chart(shown)
    area = base.mark_area(opacity=0.25, color=colours.PURIFIED, line={"color": colours.PURIFIED, "strokeWidth": 2})
    broken = base.transform_filter("datum.penalised").mark_point(
        shape="triangle-down", size=70, filled=True, color=colours.WARNING, opacity=1
    )
    points = base.mark_point(filled=True, size=30, color=colours.PURIFIED)
    x = _x(length)
    return layered(
        _now(now, length),
        area.encode(x=x, y=y, tooltip=_TOOLTIP),
        points.encode(x=x, y=y, tooltip=_TOOLTIP),
        broken.encode(x=x, y=y, tooltip=_TOOLTIP),
    ).properties(height=120)


def answers(steps: pd.DataFrame, length: int) -> alt.Chart:
    """The mean response to every slate."""
    y = alt.Y("reward:Q", scale=alt.Scale(domain=[0, 1]), axis=_y("Response"))
    bars = alt.Chart(steps).mark_bar(color=colours.YES).encode(x=_x(length), y=y, tooltip=_TOOLTIP)
    return bars.properties(height=80)


def weights(chosen: Mapping[str, Sequence[float]], length: int) -> alt.Chart:
    """What the manager chose at every step: ω_acc, and ω_fair where it has one."""
    names = {"omega_acc": "ω_acc", "omega_fair": "ω_fair"}
    rows = [
        {"step": step, "weight": names[name], "value": value}
        for name, values in chosen.items()
        for step, value in enumerate(values, 1)
    ]
    scale = alt.Scale(domain=list(names.values()), range=[colours.PURIFIED, colours.RAW])
    tooltip = [alt.Tooltip("step:O", title="slate"), alt.Tooltip("weight:N"), alt.Tooltip("value:Q", format=".3f")]
    lines = alt.Chart(pd.DataFrame(rows)).mark_line(point=alt.OverlayMarkDef(size=24), strokeWidth=1.6)
    y = alt.Y("value:Q", scale=alt.Scale(zero=False, nice=True), axis=_y(", ".join(names[name] for name in chosen)))
    drawn = lines.encode(x=_x(length), y=y, color=alt.Color("weight:N", scale=scale, legend=None), tooltip=tooltip)
    return drawn.properties(height=80)


def exposure(steps: pd.DataFrame, slate: int, ad_bound: float, length: int) -> alt.LayerChart:
    """Head and tail items of every slate, between the bounds inside which a slate costs nothing extra."""
    parts = pd.concat(
        [
            steps[["step"]].assign(kind="head", items=steps["heads"], order=0),
            steps[["step"]].assign(kind="tail", items=slate - steps["heads"], order=1),
        ]
    )
    x = _x(length, last=True)
    y = alt.Y("items:Q", scale=alt.Scale(domain=[0, slate]), axis=_y("Items"))
    kinds = alt.Scale(domain=["head", "tail"], range=[colours.HEAD, colours.TAIL])
    tooltip = [alt.Tooltip("step:O", title="slate"), alt.Tooltip("kind:N", title="group"), alt.Tooltip("items:Q")]
    bars = alt.Chart(parts).mark_bar().encode(
        x=x, y=y, color=alt.Color("kind:N", scale=kinds, legend=None, sort=["head", "tail"]),
        order=alt.Order("order:Q"), tooltip=tooltip,
    )  # fmt: skip
    layers: list[alt.Chart] = [bars]
    bounds = allowed_heads(slate, ad_bound)
    if bounds:
        rule = alt.Chart(pd.DataFrame({"items": bounds})).mark_rule(strokeDash=[4, 3], strokeWidth=1.4, color="#F4F1EA")
        layers.append(rule.encode(y="items:Q"))
    return layered(*layers).properties(height=125)


def allowed_heads(slate: int, ad_bound: float) -> list[float]:
    """Between which numbers of head items a slate costs nothing extra: where to draw the two bounds, half a head outside."""
    fine = [heads for heads in range(slate + 1) if abs(2 * heads - slate) < ad_bound * slate - 1e-9]
    return [min(fine) - 0.5, max(fine) + 0.5] if fine else []


def state_map(people: pd.DataFrame, path: pd.DataFrame, now: int, title: str, colour: str, height: int = 230) -> alt.LayerChart:
    """The crowd as dots, from niche to popular taste; the user's way up to `now`. people: x, y, taste; path: x, y, step."""
    both = pd.concat([people[["x", "y"]], path[["x", "y"]]])
    pad = 0.06 * (both.max() - both.min()).clip(lower=1e-6)
    low, high = both.min() - pad, both.max() + pad
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[low["x"], high["x"]], nice=False))
    y = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[low["y"], high["y"]], nice=False))
    low_taste, high_taste = float(people["taste"].quantile(0.1)), float(people["taste"].quantile(0.9))
    scale = alt.Scale(domain=[low_taste, max(high_taste, low_taste + 1e-6)], range=[colours.TAIL, colours.HEAD], clamp=True)
    shade = alt.Color("taste:Q", legend=None, scale=scale)
    about = [alt.Tooltip("user:Q", title="user"), alt.Tooltip("taste:Q", title="taste for the popular", format=".2f")]
    dots = alt.Chart(people).mark_circle(size=26, opacity=0.55).encode(x=x, y=y, color=shade, tooltip=about)
    so_far = path[path["step"] <= now]
    tooltip = [alt.Tooltip("step:Q", title="slate")]
    way = alt.Chart(so_far).mark_line(color=colour, strokeWidth=2, opacity=0.9).encode(x=x, y=y, order="step:Q")
    halo = alt.Chart(so_far.tail(1)).mark_point(size=190, filled=True, color="#FFFFFF", opacity=0.9).encode(x=x, y=y)
    here = (
        alt.Chart(so_far.tail(1)).mark_point(size=110, filled=True, color=colour, opacity=1).encode(x=x, y=y, tooltip=tooltip)
    )
    begin = alt.Chart(path.head(1)).mark_point(size=70, color=colour, strokeWidth=2).encode(x=x, y=y, tooltip=tooltip)
    heading = alt.Title(title, anchor="start", fontSize=13, offset=4)
    return layered(dots, way, begin, halo, here).properties(height=height, title=heading)
