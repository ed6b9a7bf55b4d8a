"""Databases as the views meet them: runs put there by hand, in any state, without training anything."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from engine.spec import RunSpec, make
from runs_db import queue
from runs_db.models import DONE, now
from runs_db.store import Store, insert_run

HOSTILE = '=HYPERLINK("http://evil") <img src=x onerror=alert(1)> [x](http://evil) :red[x] $x$'


def spec(method: str = "a2c", seed: int = 11, **more: Any) -> RunSpec:
    """A spec whose world is small."""
    sizes = {"users": 60, "train_users": 300, "items": 400, "log_length": 40, "start": 12}
    settings = {section: dict(values) for section, values in more.pop("settings", {}).items()}
    settings["dataset"] = {**sizes, **settings.get("dataset", {})}
    return make(method=method, seed=seed, settings=settings, **{"episodes": 400, **more})


def result(level: float = 0.5, **more: Any) -> dict[str, Any]:
    """The summary of a done run."""
    return {
        "len": 10 + 10 * level, "r_each": 0.3 + 0.3 * level, "r_cum": 5 + 6 * level, "ad": 0.4 - 0.35 * level, "gini": 0.7,
        "coverage": 0.3, "entropy": 0.8, "utility": 0.2 + 0.1 * level, "episodes": 400, "user_steps": 5000, "updates": 40,
        "evaluation_episodes": 60, "seconds": {"total": 20.0, "train": 15.0}, **more,
    }  # fmt: skip


def add(
    store: Store,
    wanted: RunSpec,
    state: str = DONE,
    *,
    summary: Mapping[str, Any] | None = None,
    curve: int = 0,
    level: float = 0.5,
    **columns: Any,
) -> int:
    """A run in some state; a done one has results, and with `curve` that many points of a learning curve."""
    values: dict[str, Any] = {"state": state, **columns}
    if state != "queued":
        values = {"started_at": now() - 60, "seconds": 20.0, "host": "here", **values}
    if state in ("done", "failed", "stopped", "diverged"):
        values["ended_at"] = now()
    if state == DONE:
        values |= {"summary": json.dumps(summary or result(level)), "progress": 1.0}
    if "tags" in values:
        values["tags"] = json.dumps(list(values["tags"]))

    def work(connection: Connection) -> int:
        run = insert_run(connection, store.database.folder, wanted, values)
        if curve:
            points = {}
            for place in range(curve):
                step = place * 20
                share = place / max(curve - 1, 1)
                points["len", step] = 8 + 10 * level * share + math.sin(run + place)
                points["ad", step] = 0.5 - 0.4 * share * level
                points["r_each", step] = 0.3 + 0.2 * share
                points["r_cum", step] = 3 + 5 * share * level
                points["train_len", step] = 7 + 9 * level * share
                points["user_steps", step] = step * 12.0
                points["policy_loss", step] = 1 - share
            queue.write_points(connection, run, points)
        return run

    return store.database.write(work)


def many(store: Store, count: int, curve: int = 0) -> list[int]:
    """`count` done runs of several methods and seeds, a few of them failed, stopped or queued."""
    methods = ("a2c", "balanced", "dsrm_hrl", "greedy", "random")
    bases = {method: spec(method) for method in methods}
    states = {7: "failed", 11: "stopped", 13: "diverged"}
    ids = []
    for place in range(count):
        method = methods[place % len(methods)]
        budget = 400 + place // 15
        wanted = replace(bases[method], seed=11 + 4 * (place // 5 % 3), episodes=budget)
        state = states.get(place % 50, DONE)
        error = "Diverged: the loss became nan" if state == "diverged" else ""
        ids.append(add(store, wanted, state, level=place % 5 / 4, curve=curve, error=error, name=f"batch {place // 15}"))
    return ids
