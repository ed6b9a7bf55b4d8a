"""Rows of the Runs view and of its export. Pure functions from runs and groups to DataFrames."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from app import results, words
from app.measures import MEASURES, OUTCOMES, TABLED

if TYPE_CHECKING:
    from app.results import Group
    from engine.spec import RunSpec
    from runs_db.store import Run

IMPORTED = "imported"


def run_rows(runs: Sequence[Run], now: float | None = None) -> pd.DataFrame:
    """One row a run, in the order given. Columns that are empty for every run are left out, but for the first five."""
    moment = time.time() if now is None else now
    rows = []
    for run in runs:
        row: dict[str, Any] = {
            "Run": run.id,
            "State": [run.state, *([IMPORTED] if run.imported else [])],
            "Method": words.label_title(run.label),
            "Data": words.dataset_title(run.dataset),
            "Seed": run.seed,
            "Name": run.name or None,
            "Progress": progress(run),
            "Left": words.duration(run.eta_seconds) if run.active and run.eta_seconds is not None else None,
        }
        row |= {MEASURES[name].arrow: results.result(run, name) for name in OUTCOMES}
        row |= {
            "Took": words.duration(run.seconds) if run.seconds else None,
            "Tags": list(run.tags) or None,
            "Notes": run.notes.replace("\n", " ")[:80] or None,
            "When": words.ago(run.ended_at or run.started_at or run.created_at, moment),
        }
        rows.append(row)
    return _without_empty(pd.DataFrame(rows), keep=5)


def progress(run: Run) -> float | None:
    """Percent of an active run; None for others, whose state says enough."""
    return 100 * (run.progress or 0.0) if run.active else None


def group_rows(groups: Sequence[Group]) -> pd.DataFrame:
    """One row a group: how many of its seeds are in which state, mean ± standard deviation of the measures."""
    rows = []
    for group in groups:
        states: dict[str, int] = {}
        for run in group.runs:
            states[run.state] = states.get(run.state, 0) + 1
        row: dict[str, Any] = {
            "Experiment": group.name,
            "Data": words.dataset_title(group.first.dataset),
            "Runs": len(group.runs),
            "Seeds": ", ".join(map(str, group.seeds)),
            "States": [f"{many} {state}" if len(states) > 1 or many > 1 else state for state, many in states.items()],
        }
        for name in TABLED:
            found = group.spread(name)
            told = None if found is None else MEASURES[name].text(found.mean, found.std if found.n > 1 else None)
            row[MEASURES[name].arrow] = told
        rows.append(row)
    return _without_empty(pd.DataFrame(rows), keep=5)


def export(runs: Sequence[Run], specs: Mapping[int, RunSpec]) -> pd.DataFrame:
    """Everything about runs for other programs: raw numbers, all results, and the settings that are not the same in all."""
    differ = {
        name: own
        for name, own in results.differences({run.id: specs[run.id] for run in runs if run.id in specs}).items()
        if name not in ("dataset", "method", "purifier", "seed")
    }
    rows = []
    for run in runs:
        row: dict[str, Any] = {
            "run": run.id,
            "state": run.state,
            "name": run.name,
            "dataset": run.dataset,
            "method": run.method,
            "purifier": run.purifier,
            "seed": run.seed,
            "experiment": run.group_key,
        }
        numbers = {
            name: value
            for name, value in (run.summary or {}).items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        row |= numbers
        row |= {"worked_seconds": round(run.seconds, 2), "error": run.error, "tags": list(run.tags), "notes": run.notes}
        row |= {"imported": run.imported, "created_at": run.created_at, "ended_at": run.ended_at}
        rows.append({**row, **{name: own.get(run.id) for name, own in differ.items()}})
    return pd.DataFrame(rows)


def difference_rows(runs: Sequence[Run], specs: Mapping[int, RunSpec]) -> pd.DataFrame:
    """One row a setting that is not the same in all runs, one column a run."""
    found = results.differences({run.id: specs[run.id] for run in runs if run.id in specs})
    rows = []
    for name, own in found.items():
        rows.append({"Setting": name, **{f"Run {run.id}": words.short(own[run.id]) if run.id in own else "" for run in runs}})
    return pd.DataFrame(rows, columns=["Setting", *(f"Run {run.id}" for run in runs)])


def setting_rows(spec: RunSpec, changed: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """All settings of a spec; those that are not at their default are marked."""
    rows = []
    for name, value in results.flat(spec).items():
        section, dot, option = name.partition(".")
        rows.append({"Setting": name, "Value": words.short(value), "Changed": bool(dot) and option in changed.get(section, {})})
    return pd.DataFrame(rows)


def _without_empty(frame: pd.DataFrame, keep: int) -> pd.DataFrame:
    columns = [name for place, name in enumerate(frame.columns) if place < keep or frame[name].notna().any()]
    return frame[columns]
