"""Rollouts with a sampling policy: encode histories, score 3,327 items, draw 10 without replacement, step, record."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from engine import catalog, run, spec
from engine.contracts import Obs
from engine.learn.rollout import Act, play
from engine.learn.slate import sample
from engine.state.stage import Stage

USERS, REPEATS = 1024, 9


def measure(threads: int) -> dict[str, Any]:
    """User-steps a second, median of REPEATS: of a policy that draws from predicted clicks, and of each method's own
    exploring policy behind its default purifier."""
    import os

    with tempfile.TemporaryDirectory() as folder:
        os.environ["RUNS_DIR"] = folder
        return _measure(threads)


def _measure(threads: int) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for method in ("a2c", "dsrm_hrl"):
        wanted = spec.make(method=method, threads=threads)
        data = run.load_data(wanted)
        view = run.purify(wanted, Stage(data, wanted.config("state"), wanted.seed))
        world, _ = run.make_world(wanted, data, "train")
        generator = torch.Generator().manual_seed(0)

        def predicted(obs: Obs) -> tuple[Tensor, dict[str, Tensor]]:
            return sample(view.predict(view(obs)), 10, obs.shown, generator), {}  # noqa: B023

        module, config = catalog.find("methods", method), wanted.config("method")
        if method == "a2c":
            results["predicted_clicks"] = _speed(world, predicted)
            net = module.ActorCritic(view, world.items, config, generator)
            policy = module.A2CPolicy(net, view, 10, 30, False)
            results[method] = _speed(world, lambda obs: policy.choose(obs, generator))  # noqa: B023
        else:
            policy = module.new_policy(view, world.items, config, 10, 30, False, generator)
            results[method] = _speed(world, lambda obs: policy.choose(obs, generator, generator))  # noqa: B023
            results["states"] = _states(world, view)
    return {"user_steps_per_second": results, "users": USERS, "slate": 10, "items": 3327}


def _speed(world: Any, act: Act) -> int:
    speeds = []
    for luck in range(REPEATS):
        began = time.perf_counter()
        steps = play(world, torch.arange(USERS), luck, act).user_steps
        speeds.append(steps / (time.perf_counter() - began))
    return round(statistics.median(speeds))


def _states(world: Any, view: Callable[[Obs], Tensor]) -> int:
    """States purified a second, at a session's start."""
    obs = world.reset(torch.arange(USERS), 0)
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        view(obs)
        times.append(time.perf_counter() - began)
    return round(USERS / statistics.median(times))
