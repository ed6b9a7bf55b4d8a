"""Learning curves before they are drawn: other x-axes, smoothing, and one band for several seeds. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

BANDS = {
    "std": "± standard deviation",
    "interval": "95 % interval of the mean",
    "range": "lowest to highest",
}
AXES = {"episodes": "Episodes (training sessions)", "user_steps": "User steps (slates shown in training)", "seconds": "Seconds"}
GRID = 160  # points of a band where seeds do not share their x


def smooth(values: np.ndarray, weight: float) -> np.ndarray:
    """(n,) exponential moving average, weight 0 (none) to below 1, corrected for its start as TensorBoard does."""
    if weight <= 0 or len(values) < 2:
        return values
    smoothed, running, mass = np.empty(len(values)), 0.0, 0.0
    for place, value in enumerate(values):
        running = weight * running + (1 - weight) * float(value)
        mass = weight * mass + (1 - weight)
        smoothed[place] = running / mass
    return smoothed


def on_axis(points: pd.DataFrame, axis: str, clock: pd.DataFrame) -> pd.DataFrame:
    """Columns run, name, x, value of points (run, name, step, value), x counted as `axis`.

    clock: the same columns for the metric that counts `axis`; steps between its points are interpolated, 0 is 0. Runs
    without a clock are left out.
    """
    if axis == "episodes":
        return points.rename(columns={"step": "x"})[["run", "name", "x", "value"]].astype({"x": float})
    parts = []
    for run, own in points.groupby("run", sort=False):
        ticks = clock[clock["run"] == run].sort_values("step")
        if len(ticks):
            at = np.interp(own["step"], np.r_[0, ticks["step"]], np.r_[0.0, ticks["value"]])
            parts.append(own.assign(x=at)[["run", "name", "x", "value"]])
    return pd.concat(parts) if parts else pd.DataFrame(columns=["run", "name", "x", "value"])


def smoothed(points: pd.DataFrame, weight: float) -> pd.DataFrame:
    """Points (run, name, x, value) with every run's own curve smoothed."""
    if weight <= 0 or not len(points):
        return points
    ordered = points.sort_values(["run", "name", "x"])
    groups = ordered.groupby(["run", "name"], sort=False)["value"]
    return ordered.assign(value=groups.transform(lambda own: smooth(own.to_numpy(float), weight)))


def band(points: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Columns x, mean, low, high, n over the runs of points (run, x, value), each counted only where it has been.

    Runs that share their x are taken point by point; others are interpolated to a common grid. Where one run is left, low
    and high equal the mean.
    """
    runs = [own.sort_values("x") for _, own in points.groupby("run", sort=False)]
    if not runs:
        return pd.DataFrame(columns=["x", "mean", "low", "high", "n"])
    every = np.unique(np.concatenate([own["x"].to_numpy(float) for own in runs]))
    shared = all(np.isin(own["x"].to_numpy(float), runs[0]["x"].to_numpy(float)).all() for own in runs)
    longest = max(runs, key=len)["x"].to_numpy(float)
    grid = longest if shared and len(longest) == len(every) else every
    if len(grid) > GRID and not shared:
        grid = np.linspace(every[0], every[-1], GRID)
    table = np.full((len(runs), len(grid)), np.nan)
    for row, own in enumerate(runs):
        x, y = own["x"].to_numpy(float), own["value"].to_numpy(float)
        inside = (grid >= x[0]) & (grid <= x[-1])
        table[row, inside] = np.interp(grid[inside], x, y)
    n = (~np.isnan(table)).sum(0)
    keep = n > 0
    table, grid, n = table[:, keep], grid[keep], n[keep]
    mean, std = np.nanmean(table, 0), np.nanstd(table, 0)
    if kind == "range":
        low, high = np.nanmin(table, 0), np.nanmax(table, 0)
    else:
        half = std if kind == "std" else _half_interval(std, n)
        low, high = mean - half, mean + half
    return pd.DataFrame({"x": grid, "mean": mean, "low": low, "high": high, "n": n})


def _half_interval(std: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Half the width of Student's 95 % interval of a mean, from standard deviations with ddof 0; 0 where n is 1."""
    from scipy.special import stdtrit

    several = np.maximum(n, 2)
    half = stdtrit(several - 1, 0.975) * std / np.sqrt(several - 1)
    return np.where(n > 1, half, 0.0)


def bands(points: pd.DataFrame, series: Mapping[int, str], kind: str) -> pd.DataFrame:
    """`band` of each series (run → its name) in one table with a column `series`."""
    parts = []
    for name in dict.fromkeys(series.values()):
        own = points[points["run"].map(series) == name]
        if len(own):
            parts.append(band(own, kind).assign(series=name))
    return pd.concat(parts) if parts else pd.DataFrame(columns=["x", "mean", "low", "high", "n", "series"])
