"""Figure 7: learning curves of all methods, and how far their seeds lie apart"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from engine.options import option
from engine.recorder import read_metrics
from engine.spec import RunSpec
from engine.statistics import spread
from engine.studies import compared, draw
from engine.studies.ask import Ask, Kept, Report, Runs, StudyConfig, digest
from engine.studies.compared import OURS
from engine.studies.tables import COLUMNS, Cell, Column, Row, Table

TITLE = "Figure 7. How steadily do methods learn?"
QUESTION = (
    "The paper shows learning curves of Len and AD and finds DSRM-HRL smoother and with less variance than the others. Curves "
    "here are of the greedy policy with training users that training leaves out, at equal shares of the budget, interpolated "
    "between the points where each run was measured. Two numbers sum a curve up: how far seeds lie apart, and how much one "
    "seed goes up and down from point to point."
)
MEASURES = ("len", "r_cum", "ad")
CLAIM = ("len", "ad")  # the paper's panels
POINTS = 41  # of the common axis

Curves = Mapping[str, Mapping[str, Mapping[int, NDArray[np.float64]]]]  # title → measure → seed → (POINTS,)


@dataclass(frozen=True)
class Config(StudyConfig):
    """`study.*` of `figure7`."""

    methods: str | None = option(None, "methods, separated by commas; none: the paper's that there are")


def specs(ask: Ask) -> list[RunSpec]:
    """Methods × seeds."""
    return ask.specs(compared.arms(ask.config.methods, references=False))


def measure(ask: Ask, runs: Runs, kept: Kept) -> Any:
    """{title: {measure: {seed: [[step, value], …]}}} as the runs recorded it; seeds are text."""
    found: dict[str, dict[str, dict[str, list[list[float]]]]] = {}
    for arm in compared.arms(ask.config.methods, references=False):
        for spec in ask.repeated(arm):
            history = read_metrics(runs[digest(spec)].folder)
            for name in MEASURES:
                points = [[float(step), value] for step, value in sorted(history.get(name, {}).items())]
                found.setdefault(arm.title, {}).setdefault(name, {})[str(spec.seed)] = points
    return found


def read(ask: Ask, runs: Runs, measured: Any) -> Report:
    """Curves, where they end, how far seeds lie apart, how much each goes up and down."""
    with_curve = {title: own for title, own in measured.items() if all(points for points in own["len"].values())}
    curves = {
        title: {name: {int(seed): on_axis(points) for seed, points in seeds.items()} for name, seeds in own.items()}
        for title, own in with_curve.items()
    }
    columns, rows = [], []
    for name in MEASURES:
        own = COLUMNS[name]
        columns += [
            Column(f"{name}_end", f"{own.title} at the end", own.better, 3),
            Column(f"{name}_apart", f"{own.title}, seeds apart", -1 if len(ask.seeds) > 1 else 0, 3),
            Column(f"{name}_rough", f"{own.title}, up and down", -1, 3),
        ]
    for title, found in curves.items():
        cells: dict[str, Cell] = {}
        for name in MEASURES:
            cells[f"{name}_end"] = spread([float(curve[-1]) for curve in found[name].values()])
            cells[f"{name}_apart"] = apart(found[name]) if len(found[name]) > 1 else None
            cells[f"{name}_rough"] = spread([roughness(curve) for curve in found[name].values()])
        rows.append(Row(title, cells))
    bare = [title for title in measured if title not in with_curve]
    missing = [f"Without a learning curve, and so left out: {', '.join(bare)}."] if bare else []
    return Report(
        [*compared.told_missing(), *missing, *findings(curves)],
        [Table("", f"Learning curves, {ask.episodes:,} sessions, Max Len {ask.max_len}", "Method", columns, rows)],
        _chart(curves, ask.episodes),
        "Learning curves of Len, R_cum and AD for every method, and below them the standard deviation over seeds",
        [
            "At the end: mean ± standard deviation (ddof 0) over seeds at the last point. Seeds apart: the standard deviation "
            "over seeds, averaged along the curve. Up and down: what a curve moves from point to point beyond its way from "
            "start to end, a point; 0 for a curve that only rises or only falls. Deviations over few seeds are themselves "
            "rough numbers."
        ],
    )


def on_axis(points: list[list[float]]) -> NDArray[np.float64]:
    """(POINTS,) a curve of (step, value) at equal shares of its last step."""
    steps, values = np.array(points, np.float64).T
    return np.interp(np.linspace(0, steps[-1], POINTS), steps, values)


def apart(seeds: Mapping[int, NDArray[np.float64]]) -> float:
    """The standard deviation over seeds (ddof 0), averaged along the curve."""
    return float(np.stack(list(seeds.values())).std(0).mean())


def roughness(curve: NDArray[np.float64]) -> float:
    """(Σ|y_t − y_{t−1}| − |y_T − y_0|) / T: 0 for a monotone curve."""
    return float((np.abs(np.diff(curve)).sum() - abs(curve[-1] - curve[0])) / (len(curve) - 1))


def findings(curves: Curves) -> list[str]:
    """Whether DSRM-HRL's seeds lie closest and its curves are smoothest, as the paper has it."""
    others = [title for title in curves if title != OURS]
    if OURS not in curves or not others:
        return ["There is nothing to compare DSRM-HRL's curve with."]
    told = []
    for what, key in (("seeds lie closest together", apart), ("curves go up and down the least", _rough)):
        held = []
        for name in CLAIM:
            values = {title: key(own[name]) for title, own in curves.items() if len(own[name]) > (key is apart)}
            if OURS not in values:
                continue
            least = min(values, key=lambda title: (values[title], title != OURS))
            place = 1 + sum(value < values[OURS] for value in values.values())
            held.append((name, place, len(values), least, values))
        if not held:
            continue
        parts = [
            f"in {COLUMNS[name].title} {least}'s ({values[least]:.3f})"
            + ("" if least == OURS else f", with {OURS} at place {place} of {count} ({values[OURS]:.3f})")
            for name, place, count, least, values in held
        ]
        first = [place == 1 for _, place, _, _, _ in held]
        verdict = (
            "as the paper reports"
            if all(first)
            else "not as the paper reports"
            if not any(first)
            else "half as the paper reports"
        )
        told.append(f"Whose {what}: {'; '.join(parts)}: {verdict}.")
    return told


def _rough(seeds: Mapping[int, NDArray[np.float64]]) -> float:
    return float(np.mean([roughness(curve) for curve in seeds.values()]))


def _chart(curves: Curves, episodes: int) -> alt.TopLevelMixin:
    axis = np.linspace(0, episodes, POINTS)

    def frame(name: str, deviation: bool) -> pd.DataFrame:
        rows = []
        for title, own in curves.items():
            values = np.stack(list(own[name].values()))
            mean, std = values.mean(0), values.std(0)
            line = std if deviation else mean
            low, high = (std, std) if deviation else (mean - std, mean + std)
            rows += [
                {"series": title, "step": float(x), "mean": float(m), "low": float(a), "high": float(b)}
                for x, m, a, b in zip(axis, line, low, high, strict=True)
            ]
        return pd.DataFrame(rows, columns=["series", "step", "mean", "low", "high"])

    ticks = [0, episodes / 2, episodes]
    parts = []
    for deviation, title in (
        (False, "Mean over seeds, band ± one standard deviation"),
        (True, "Standard deviation over seeds"),
    ):
        panels = [
            draw.lines(
                frame(name, deviation), Column(name, COLUMNS[name].title, 0) if deviation else COLUMNS[name], "step",
                "training sessions", width=250, height=170, colours=draw.METHOD_COLOURS, legend=name == MEASURES[-1],
                ticks=ticks, points=False,
            )
            for name in MEASURES
        ]  # fmt: skip
        if not deviation or any(len(own["len"]) > 1 for own in curves.values()):
            parts.append(draw.row(panels, title, spacing=50))
    return draw.finished(
        alt.vconcat(*parts, spacing=28),
        "Learning curves of all methods",
        "The greedy policy with training users that training leaves out. Horizontal: sessions, as shares of the budget",
    )
