"""The Gymnasium environment: random directions, default sizes, sessions that start where one ends, by number of rows."""

from __future__ import annotations

import statistics
import time
from typing import Any

import engine  # noqa: F401  # makes fairstate/World-v0 known
from engine.options import BadInput

ROWS = {1: 300, 64: 100, 1024: 20}  # rows → steps in one repeat
REPEATS = 5


def measure(threads: int) -> dict[str, Any]:
    """User-steps a second of clock and of processor time, observations included: medians of REPEATS. Gymnasium is no
    requirement: without it, the reason."""
    try:
        from engine import environments
    except BadInput as error:
        return {"skipped": str(error)}
    clock, processor = {}, {}
    for rows, steps in ROWS.items():
        env = environments.WorldVectorEnv(rows, autoreset="same_step")
        env.action_space.seed(0)
        env.reset(seed=0)
        actions, speeds = [env.action_space.sample() for _ in range(8)], ([], [])
        for _ in range(REPEATS + 1):
            began = time.perf_counter(), time.process_time()
            for step in range(steps):
                env.step(actions[step % len(actions)])
            for speed, start, end in zip(speeds, began, (time.perf_counter(), time.process_time()), strict=True):
                speed.append(rows * steps / (end - start))
        # The first only fills the rows with sessions under way.
        clock[str(rows)], processor[str(rows)] = (round(statistics.median(speed[1:])) for speed in speeds)
    return {"user_steps_per_second": clock, "user_steps_per_processor_second": processor, "slate": 10, "items": 3327}
