"""Utility against fairness: which runs may be compared, where they lie, what no other beats, and how much that is worth.

Pure functions over groups of runs; nothing here touches Streamlit, torch or the database.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from app import results, words
from app.measures import Measure
from engine.frontier import hypervolume, nondominated

if TYPE_CHECKING:
    from app.results import Group
    from engine.spec import RunSpec
    from runs_db.store import Run

AXES = ("fairness", "r_cum", "len", "r_each", "utility", "ad", "gini", "coverage", "entropy")  # what can be put on an axis
LEARNT = ("fairness", "r_cum", "len", "r_each", "ad")  # those that learning curves have, too
SEES_TRUTH = ("oracle",)  # methods that show what could be had, and so are in no contest
WORST = {"ad": 1.0, "gini": 1.0}  # the worst value that a measure can take; all others of AXES end at 0
RESAMPLES = 400
FRAMES = 30  # moments of a replay
PATH = 9  # λ values of a path
Values = Mapping[int, Mapping[str, float]]  # run → measure → value


@dataclass(frozen=True)
class Platform:
    """Runs that met the same test users under the same rules, so that their results may be compared."""

    key: str
    title: str
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Volume:
    """What a family of runs dominates. low, high: 95 % bootstrap interval over seeds, None where no group has two."""

    series: str
    value: float
    low: float | None
    high: float | None
    groups: int
    runs: int


def platforms(groups: Sequence[Group], specs: Mapping[int, RunSpec]) -> list[Platform]:
    """One for each dataset with its settings and rules of a session, in the order in which `groups` meets them.

    specs: of the first run of each group. Platforms of the same dataset and Max Len are told apart by what differs.
    """
    found: dict[str, tuple[dict[str, Any], list[Group]]] = {}
    for group in groups:
        rules = _rules(specs[group.first.id])
        key = hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:8]
        found.setdefault(key, (rules, []))[1].append(group)
    base = {
        key: f"{words.dataset_title(rules['dataset'])} · Max Len {rules['world.max_len']}" for key, (rules, _) in found.items()
    }
    made = []
    for key, (rules, own) in found.items():
        alike = [other for name, (other, _) in found.items() if base[name] == base[key]]
        differ = [name for name in rules if len({repr(other.get(name)) for other in alike}) > 1]
        told = [f"{name.partition('.')[2].replace('_', ' ')} {words.short(rules[name])}" for name in differ[:2]]
        told += [f"and {len(differ) - 2} more"] if len(differ) > 2 else []
        made.append(Platform(key, " · ".join([base[key], *told]), tuple(own)))
    return made


def _rules(spec: RunSpec) -> dict[str, Any]:
    """What decides whom a trained policy meets. The world that it trains in does not."""
    world = {f"world.{name}": value for name, value in spec.settings["world"].items() if name != "train"}
    data = {f"dataset.{name}": value for name, value in spec.settings["dataset"].items()}
    return {"dataset": spec.dataset, **data, **world}


def outcomes(runs: Iterable[Run]) -> dict[int, dict[str, float]]:
    """What finished runs were measured at, on test users."""
    found = {}
    for run in runs:
        known = {name: value for name in AXES if (value := results.result(run, name)) is not None}
        found[run.id] = with_fairness(known)
    return found


def with_fairness(values: Mapping[str, float]) -> dict[str, float]:
    """Adds 1 − AD where AD is known."""
    return {**values, **({"fairness": 1 - values["ad"]} if "ad" in values else {})}


def known(values: Values) -> list[str]:
    """The axes that any run has a value for."""
    return [name for name in AXES if any(name in own for own in values.values())]


def points(groups: Sequence[Group], values: Values, x: Measure, y: Measure) -> pd.DataFrame:
    """A mean of each group and, where it has several seeds, every seed of its own.

    Columns: series (label), name, kind (mean or seed), ids (run ids, separated by spaces), who, x, y, x_told, y_told, bound:
    of a method that sees the truth; front: whether no other mean, bounds aside, is at least as good in both and better in one.
    """
    rows: list[dict[str, Any]] = []
    for group in groups:
        runs = [run for run in group.runs if x.name in values.get(run.id, {}) and y.name in values.get(run.id, {})]
        if not runs:
            continue
        place = np.array([[values[run.id][x.name], values[run.id][y.name]] for run in runs])
        several = len(runs) > 1
        base = {"series": words.label_title(group.first.label), "name": group.name, "bound": group.first.method in SEES_TRUTH}
        mean, std = place.mean(0), place.std(0)
        seeds = sorted({run.seed for run in runs})
        who = f"mean of {len(runs)} runs, seeds {', '.join(map(str, seeds))}" if several else _who(runs[0])
        told = [own.text(at, by if several else None) for own, at, by in zip((x, y), mean, std, strict=True)]
        ids = " ".join(str(run.id) for run in runs)
        rows.append({**base, "kind": "mean", "ids": ids, "who": who, "x": mean[0], "y": mean[1], "told": told})
        for run, at in zip(runs, place, strict=True) if several else ():
            own = [x.text(at[0]), y.text(at[1])]
            rows.append({**base, "kind": "seed", "ids": str(run.id), "who": _who(run), "x": at[0], "y": at[1], "told": own})
    frame = pd.DataFrame(rows, columns=["series", "name", "bound", "kind", "ids", "who", "x", "y", "told"])
    frame["x_told"], frame["y_told"] = [told[0] for told in frame["told"]], [told[1] for told in frame["told"]]
    means = (frame["kind"] == "mean") & ~frame["bound"].astype(bool)
    frame["front"] = False
    frame.loc[means, "front"] = nondominated(_oriented(frame.loc[means, ["x", "y"]].to_numpy(float), x, y))
    return frame.drop(columns="told")


def _who(run: Run) -> str:
    return f"run {run.id}, seed {run.seed}"


def staircase(places: np.ndarray, x: Measure, y: Measure, box: Sequence[float]) -> pd.DataFrame:
    """x, y, order of the line below which (n,2) points dominate everything, out to the worst ends of box (x0, x1, y0, y1)."""
    if not len(places):
        return pd.DataFrame({"x": [], "y": [], "order": []})
    best = places[nondominated(_oriented(places, x, y))]
    best = best[np.argsort(x.better * best[:, 0])]  # from the worst in x to the best, and so from the best in y to the worst
    worst_x, worst_y = box[0] if x.better > 0 else box[1], box[2] if y.better > 0 else box[3]
    corners = [(worst_x, best[0, 1])]
    for (x0, y0), (_, y1) in pairwise(best):
        corners += [(x0, y0), (x0, y1)]
    corners += [(best[-1, 0], best[-1, 1]), (best[-1, 0], worst_y)]
    return pd.DataFrame(corners, columns=["x", "y"]).assign(order=range(len(corners)))


def stairs(frame: pd.DataFrame, x: Measure, y: Measure, box: Sequence[float]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The line of all means of `points`, and those of each series that has several means on its own line (column series)."""
    means = frame[(frame["kind"] == "mean") & ~frame["bound"]]
    own = []
    for series, part in means.groupby("series", sort=False):
        places = part[["x", "y"]].to_numpy(float)
        if len(np.unique(places[nondominated(_oriented(places, x, y))], axis=0)) > 1:
            own.append(staircase(places, x, y, box).assign(series=series))
    empty = pd.DataFrame({"x": [], "y": [], "order": [], "series": []})
    return staircase(means[["x", "y"]].to_numpy(float), x, y, box), pd.concat(own) if own else empty


def box(frames: Sequence[pd.DataFrame]) -> tuple[float, float, float, float]:
    """x0, x1, y0, y1 around all x and y of the frames, with some room."""
    found = []
    for name in ("x", "y"):
        every = np.concatenate([frame[name].to_numpy(float) for frame in frames])
        low, high = float(every.min()), float(every.max())
        room = 0.07 * (high - low) or 0.05 * abs(high) or 0.1
        found += [low - room, high + room]
    return found[0], found[1], found[2], found[3]


def volumes(groups: Sequence[Group], values: Values, x: Measure, y: Measure) -> list[Volume]:
    """Hypervolume of the group means of each series, largest first, above the worst values that the measures can take.

    The interval resamples the seeds of each group, always by the same draws. The values depend on no other run.
    """
    members: dict[str, list[np.ndarray]] = {}
    for group in groups:
        own = [values[run.id] for run in group.runs if run.id in values]
        places = [[value[x.name], value[y.name]] for value in own if x.name in value and y.name in value]
        if places:
            members.setdefault(words.label_title(group.first.label), []).append(_oriented(np.array(places), x, y))
    reference = [measure.better * WORST.get(measure.name, 0.0) for measure in (x, y)]
    found = []
    for series, arrays in members.items():
        value = hypervolume(np.stack([own.mean(0) for own in arrays]), reference)
        low = high = None
        if any(len(own) > 1 for own in arrays):
            draw = np.random.default_rng(0)
            means = np.stack([own[draw.integers(len(own), size=(RESAMPLES, len(own)))].mean(1) for own in arrays], 1)
            low, high = np.quantile([hypervolume(own, reference) for own in means], (0.025, 0.975))
        found.append(Volume(series, value, low, high, len(arrays), sum(map(len, arrays))))
    return sorted(found, key=lambda own: -own.value)


def _oriented(places: np.ndarray, x: Measure, y: Measure) -> np.ndarray:
    """(n,2) with both columns turned so that higher is better."""
    return places * np.array([x.better, y.better], float)


def moments(curves: pd.DataFrame, frames: int = FRAMES) -> list[int]:
    """Episodes at which a replay stops, from 0 to the last of curves (run, name, step, value)."""
    last = int(curves["step"].max()) if len(curves) else 0
    return sorted({round(last * place / (frames - 1)) for place in range(frames)}) if last else []


def moved(curves: pd.DataFrame, at: Sequence[int]) -> dict[int, dict[int, dict[str, float]]]:
    """Moment → run → measure → what its learning curve had measured last; before its first point, that point."""
    found: dict[int, dict[int, dict[str, float]]] = {moment: {} for moment in at}
    for _, own in curves.groupby(["run", "name"], sort=False):
        run, name = int(own["run"].iloc[0]), str(own["name"].iloc[0])
        steps, measured = own["step"].to_numpy(), own["value"].to_numpy(float)
        places = np.clip(np.searchsorted(steps, at, side="right") - 1, 0, None)
        for moment, place in zip(at, places, strict=True):
            found[moment].setdefault(run, {})[name] = float(measured[place])
    return {moment: {run: with_fairness(own) for run, own in runs.items()} for moment, runs in found.items()}


def trails(groups: Sequence[Group], replay: Mapping[int, Values], x: Measure, y: Measure) -> pd.DataFrame:
    """series, name, step, x, y: how the mean of each group moved over the moments of a replay."""
    rows = []
    for group in groups:
        for moment, values in replay.items():
            own = [values[run.id] for run in group.runs if run.id in values]
            own = [value for value in own if x.name in value and y.name in value]
            if own:
                place = [float(np.mean([value[name] for value in own])) for name in (x.name, y.name)]
                rows.append((words.label_title(group.first.label), group.name, moment, *place))
    return pd.DataFrame(rows, columns=["series", "name", "step", "x", "y"])


def lams(most: float, count: int = PATH) -> list[float]:
    """λ from 0 to the largest that a policy can be told, denser where small, where the best choice changes fastest."""
    return [round(most * (place / (count - 1)) ** 2, 4) for place in range(count)]
