"""Figure 2: popularity against reward, in counts as the paper plots it, and in rates"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import torch

from engine.options import Config as BaseConfig
from engine.overview import correlation, exposures_and_plays, whole_log
from engine.run import load_data
from engine.spec import RunSpec
from engine.studies import draw
from engine.studies.ask import Arm, Ask, Kept, Report, Runs
from engine.studies.tables import Column, Row, Table

TITLE = "Figure 2. Is a popular item a better one?"
QUESTION = (
    "The paper plots items' exposures against their positive responses, finds R² > 0.85, and concludes that popularity drives "
    "reward. Both axes count exposures, so this page asks three times: in counts; in counts again after the rewards were dealt "
    "out to the log's rows at random, which cuts any tie between item and reward; and in rates, reward per exposure."
)
PAPER_R2 = 0.85  # paper §3.1: "R² > 0.85"
CLEAR, SAME = 0.01, 0.05  # R² below which rates are called unrelated; difference below which two R² are called alike
MOST = 900  # points drawn
LOG = Arm("log", "random", "identity", {"world": {"slate": 1, "repeats": True}})  # no session is played, any size will do


@dataclass(frozen=True)
class Config(BaseConfig):
    """`study.*` of `figure2`: none; it makes no runs."""


def specs(ask: Ask) -> list[RunSpec]:
    """None: the log is all that is looked at."""
    ask.check_used([ask.spec(LOG, whole=True)])
    return []


def measure(ask: Ask, runs: Runs, kept: Kept) -> Any:
    """{"exposures", "reward" of every item that was shown, "dealt": the same rewards dealt out at random}."""
    spec = replace(ask.spec(LOG, whole=True), seed=0)

    def make() -> dict[str, list[float]]:
        data = load_data(spec)
        item, reward = whole_log(data)
        exposures, plays = exposures_and_plays(item, reward, len(data.train.items))
        order = torch.randperm(len(reward), generator=torch.Generator().manual_seed(0))
        dealt = exposures_and_plays(item, reward[order], len(data.train.items))[1]
        met = exposures > 0
        return {
            "exposures": exposures[met].tolist(),
            "reward": plays[met].double().round(decimals=4).tolist(),
            "dealt": dealt[met].double().round(decimals=4).tolist(),
        }

    return kept("log", {"spec": spec.to_json()}, make)


def read(ask: Ask, runs: Runs, measured: Any) -> Report:
    """R² in counts, in counts of dealt-out rewards, and in rates."""
    exposures, reward, dealt = (torch.tensor(measured[name], dtype=torch.float64) for name in ("exposures", "reward", "dealt"))
    rows = [
        ("counts", "reward summed over exposures", reward),
        ("counts, rewards dealt out at random", "no tie between item and reward is left", dealt),
        ("rates", "reward per exposure", reward / exposures),
        ("rates, rewards dealt out at random", "no tie between item and reward is left", dealt / exposures),
    ]
    shared = [correlation(exposures, y) ** 2 for _, _, y in rows]
    in_logs = [correlation(torch.log1p(exposures), y) ** 2 for _, _, y in rows]
    r = [_correlation(exposures, y) for _, _, y in rows]
    columns = (Column("meaning", "Reward is"), Column("r2", "R²"), Column("r", "r"), Column("r2_log", "R² with log exposures"))
    table = Table(
        "",
        f"Popularity and reward of {len(exposures):,} items",
        "Measured in",
        columns,
        [
            Row(title, {"meaning": meaning, "r2": own, "r": sign, "r2_log": logs})
            for (title, meaning, _), own, sign, logs in zip(rows, shared, r, in_logs, strict=True)
        ],
    )
    told = findings(shared[0], shared[1], shared[2], r[2])
    chart = _chart(exposures, reward, shared[0], shared[1], shared[2])
    return Report(told, [table], chart, f"Reward against exposures of items, in counts (R² {shared[0]:.2f}) and in rates "
                  f"(R² {shared[2]:.2f})")  # fmt: skip


def findings(counts: float, dealt: float, rates: float, r: float) -> list[str]:
    """Sentences on R² in counts, in counts of dealt-out rewards and in rates, and the correlation r in rates."""
    side = "more than the 0.85" if counts > PAPER_R2 else "not the more than 0.85"
    told = [f"In counts R² is {counts:.3f}, {side} that the paper reports of its data."]
    if dealt >= counts - SAME:
        told.append(
            f"That says nothing of what popularity does: with the same rewards dealt out at random R² is {dealt:.3f}. "
            "An item that is shown more often collects more, whatever it is."
        )
    else:
        told.append(
            f"With the same rewards dealt out at random it falls to {dealt:.3f}, so popular items collect more than exposure "
            "alone brings."
        )
    rate = f"In rates R² is {rates:.3f} (r = {r:.2f})".replace("-", "−")
    if rates < CLEAR:
        told.append(f"{rate}: how often an item was shown says next to nothing of how it is received.")
    elif r > 0:
        told.append(f"{rate}: popular items are received better, and this is what can mislead a policy.")
    else:
        told.append(f"{rate}: popular items are received worse.")
    return told


def _correlation(x: torch.Tensor, y: torch.Tensor) -> float:
    value = float(torch.corrcoef(torch.stack([x, y]))[0, 1])
    return value if np.isfinite(value) else 0.0


def _chart(exposures: torch.Tensor, reward: torch.Tensor, counts: float, dealt: float, rates: float) -> alt.TopLevelMixin:
    order = torch.randperm(len(exposures), generator=torch.Generator().manual_seed(0))[:MOST]
    frame = pd.DataFrame({"exposures": exposures[order].tolist(), "count": reward[order].tolist()})
    frame["rate"] = (frame["count"] / frame["exposures"]).round(4)
    panels = []
    for y, title, value, unit in (
        (
            "count",
            f"Counts: R² = {counts:.2f}",
            f"rewards dealt out at random: R² = {dealt:.2f}",
            "Positive responses (log scale)",
        ),
        ("rate", f"Rates: R² = {rates:.2f}", "what an exposure brings", "Positive responses per exposure"),
    ):
        whole = reward if y == "count" else reward / exposures
        slope, level = np.polyfit(exposures.numpy(), whole.numpy(), 1) if len(exposures) > 1 else (0.0, 0.0)
        at = np.geomspace(float(exposures.min()), float(exposures.max()), 80)
        line = pd.DataFrame({"exposures": at, y: slope * at + level})
        line = line[line[y] >= 0]
        scale = alt.Scale(type="symlog", nice=False) if y == "count" else alt.Scale(domain=[0, 1])
        values = [0, 1, 10, 100, 1000, 10_000, 100_000] if y == "count" else [0, 0.25, 0.5, 0.75, 1]
        label = "format(datum.value, ',')" if y == "count" else "format(datum.value, '.2f')"
        y_axis = alt.Axis(values=values, labelExpr=label, grid=True, gridColor=draw.GRID, domain=False, ticks=False)
        x_axis = alt.Axis(values=[1, 10, 100, 1000, 10_000, 100_000], labelExpr="format(datum.value, ',')", grid=False)
        x = alt.X("exposures:Q", title="Times shown (log scale)", scale=alt.Scale(type="log", nice=False), axis=x_axis)
        channel = alt.Y(f"{y}:Q", title=unit, scale=scale, axis=y_axis)
        points = alt.Chart(frame).mark_circle(size=16, opacity=0.4, color=draw.BLUE).encode(x=x, y=channel)
        points = points.encode(tooltip=["exposures:Q", "count:Q", "rate:Q"])
        fit = alt.Chart(line).mark_line(color=draw.VERMILION, strokeWidth=2.5, clip=True).encode(x=x, y=channel)
        heading = alt.Title(title, subtitle=value, anchor="start", offset=8)
        panels.append(alt.layer(points, fit).properties(width=330, height=270, title=heading))
    subtitle = "One dot an item" + (f", {MOST} of {len(exposures):,} drawn" if len(exposures) > MOST else "")
    return draw.finished(
        draw.row(panels, spacing=80), "Popularity and reward of the log", f"{subtitle}. Line: least squares on all items"
    )
