"""RunSpecs in the database: reading them back, and what finished runs tell about how long one takes."""

from __future__ import annotations

import json
import statistics
from typing import Any

from sqlalchemy import select

from engine.spec import RunSpec, from_json
from runs_db.database import Database
from runs_db.identity import host
from runs_db.models import DONE, runs

RECENT = 10  # finished runs that an estimate looks at
TRAINING = "training"  # the stage whose length follows the budget


def stored_spec(text: str) -> RunSpec:
    """The spec of a row. It was checked when it was queued; one of another version of the code is checked again."""
    values = json.loads(text)
    try:
        return RunSpec(**values)
    except TypeError:
        return from_json(text)


def stage_shares(database: Database, spec: RunSpec) -> dict[str, float] | None:
    """Stage → seconds that it may take, in order, from finished runs like this one on this machine; None without any.

    The longest of the recent ones counts: a stage that was found in the cache last time may have to be worked out now.
    """
    found: dict[str, float] = {}
    summaries = [s for s in _finished(database, spec.method, spec.purifier, spec.dataset) if s.get("stages")]
    for summary in sorted(summaries, key=lambda summary: -len(summary["stages"])):
        for name, seconds in summary["stages"].items():
            scale = 1.0
            if name == TRAINING and spec.user_steps and summary.get("user_steps"):
                scale = spec.user_steps / summary["user_steps"]
            elif name == TRAINING and spec.episodes and summary.get("episodes"):
                scale = spec.episodes / summary["episodes"]
            found[name] = max(found.get(name, 0.0), scale * seconds)
    return found or None


def seconds_per_episode(database: Database, method: str, purifier: str, dataset: str) -> float | None:
    """Median over finished runs of this machine with the same method, purifier and dataset, else with the same method.

    None where there are none. A method without training sessions counts its evaluation sessions instead.
    """
    for match in ((method, purifier, dataset), (method, None, None)):
        found = [_total(summary) / _sessions(summary) for summary in _finished(database, *match) if _sessions(summary)]
        if found:
            return statistics.median(found)
    return None


def expected_seconds(database: Database, spec: RunSpec) -> float | None:
    """How long a run will take on this machine, judged by its finished runs; None where there are none."""
    each = seconds_per_episode(database, spec.method, spec.purifier, spec.dataset)
    if each is None:
        return None
    if spec.user_steps is None:
        return each * (spec.episodes or spec.evaluation_episodes)
    for match in ((spec.method, spec.purifier, spec.dataset), (spec.method, None, None)):
        found = [_total(s) / s["user_steps"] for s in _finished(database, *match) if s.get("user_steps")]
        if found:
            return spec.user_steps * statistics.median(found)
    return None


def _total(summary: dict[str, Any]) -> float:
    return float(summary["seconds"]["total"])


def _sessions(summary: dict[str, Any]) -> float:
    return summary.get("episodes") or summary.get("evaluation_episodes") or 0


def _finished(database: Database, method: str, purifier: str | None, dataset: str | None) -> list[dict[str, Any]]:
    """Summaries of the newest done runs of this machine, newest first; imported ones were made elsewhere."""
    wanted = select(runs.c.summary).where(runs.c.state == DONE, runs.c.method == method, runs.c.host == host())
    wanted = wanted.where(runs.c.source.is_(None), runs.c.summary.is_not(None))
    if purifier is not None:
        wanted = wanted.where(runs.c.purifier == purifier)
    if dataset is not None:
        wanted = wanted.where(runs.c.dataset == dataset)
    with database.read() as connection:
        texts = connection.execute(wanted.order_by(runs.c.id.desc()).limit(RECENT)).scalars().all()
    summaries = [json.loads(text) for text in texts]
    return [summary for summary in summaries if isinstance(summary.get("seconds"), dict) and "total" in summary["seconds"]]
