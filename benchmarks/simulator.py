"""The simulator alone: 1,024 users, slates of 10 out of 3,327 items, satiation and influence on, sampled responses."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from engine import run, spec

USERS, REPEATS = 1024, 9


def measure(threads: int) -> dict[str, Any]:
    """User-steps a second over whole sessions of 30 steps, resets included: median of REPEATS, each of ten sessions."""
    wanted = spec.make(method="random", threads=threads)
    world, _ = run.make_world(wanted, run.load_data(wanted), "train")
    generator = torch.Generator().manual_seed(0)
    slates = [torch.rand(USERS, len(world.items), generator=generator).topk(10, 1).indices for _ in range(30)]
    users, speeds = torch.arange(USERS), []
    for _ in range(REPEATS):
        began = time.perf_counter()
        for luck in range(10):
            world.reset(users, luck)
            for slate in slates:
                world.step(slate)
        speeds.append(10 * 30 * USERS / (time.perf_counter() - began))
    return {"user_steps_per_second": round(statistics.median(speeds)), "users": USERS, "slate": 10, "items": len(world.items)}
