"""Fitting the diffusion purifier on the default world, and purifying 1,024 states with 10 steps, one sample and eight."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from typing import Any

import torch

from engine import catalog, run, spec
from engine.state.stage import Stage


def measure(threads: int) -> dict[str, Any]:
    """Seconds to fit (vectors apart), milliseconds to purify."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RUNS_DIR"] = folder
        wanted = spec.make(threads=threads)
        data = run.load_data(wanted)
        stage = Stage(data, wanted.config("state"), wanted.seed)
        began = time.perf_counter()
        _ = stage.observed, stage.disentangled
        vectors = time.perf_counter() - began
        began = time.perf_counter()
        view = catalog.find("purifiers", "diffusion").fit(stage, wanted.config("purifier"), stage.generator(100))
        fitted = time.perf_counter() - began
    world, _ = run.make_world(wanted, data, "train")
    obs = world.reset(torch.arange(1024), 0)
    generator = torch.Generator().manual_seed(0)
    milliseconds = {}
    for samples in (1, 8):
        times = []
        for _ in range(9):
            began = time.perf_counter()
            view(obs, samples=samples, generator=generator if samples > 1 else None)
            times.append(1000 * (time.perf_counter() - began))
        milliseconds[f"samples_{samples}"] = round(statistics.median(times), 1)
    return {"vectors_seconds": round(vectors, 1), "fit_seconds": round(fitted, 1), "purify_1024_ms": milliseconds, "steps": 10}
