"""Large catalogues: what a step costs from three thousand to a million items, and a whole run with a million."""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine import spec
from engine.candidates import top_in_blocks
from engine.learn.slate import sample

SIZES = (3327, 10_728, 100_000, 1_000_000)
USERS, WIDTH, SLATE, REPEATS = 256, 24, 10, 5
CLUSTERS, DETAIL = 2000, 0.6  # made-up item vectors lie around so many centres
LISTS, PROBES = 2048, (16, 64)  # of the inverted file
RUN = {"items": 1_000_000, "train_users": 100_000, "users": 2000, "log_length": 50}


def measure(threads: int) -> dict[str, Any]:
    """µs a user-step at each size of the catalogue, and `run`: `engine train` of A2C with a million items and 100,000 users,
    nothing cached, 2,000 episodes."""
    return {"microseconds": {str(size): _costs(size, threads) for size in SIZES}, "run": _run(threads)}


def _costs(size: int, threads: int) -> dict[str, Any]:
    """`whole`: score all items, take the best ten. `blocks`: the same exactly, block by block. `choosing`: the best ten of
    the candidates, which is what a policy's step costs; `drawing`: ten draws from them. `ivf`: an inverted file of faiss with
    so many of its lists looked into, where faiss is installed: µs, recall of the exact ten, seconds to build."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(CLUSTERS, WIDTH, generator=generator)
    items = centres[torch.randint(CLUSTERS, (size,), generator=generator)]
    items = F.normalize(items + DETAIL * torch.randn(size, WIDTH, generator=generator), dim=1)
    bias = 0.3 * torch.randn(size, generator=generator)
    users = 3 * F.normalize(centres[:USERS] + DETAIL * torch.randn(USERS, WIDTH, generator=generator), dim=1)
    most = spec.StateConfig().candidates
    few, own = items[:most], bias[:most]
    return {
        "whole": _time(lambda: torch.addmm(bias, users, items.T).topk(SLATE, dim=1)),
        "blocks": _time(lambda: top_in_blocks(users, items, bias, SLATE)),
        "choosing": _time(lambda: torch.addmm(own, users, few.T).topk(SLATE, dim=1)),
        "drawing": _time(lambda: sample(torch.addmm(own, users, few.T), SLATE, None, generator)),
        "ivf": _ivf(users, items, bias, threads) if size >= SIZES[-2] and importlib.util.find_spec("faiss") else None,
    }


def _ivf(users: Tensor, items: Tensor, bias: Tensor, threads: int) -> dict[str, Any]:
    import faiss  # type: ignore[import-not-found,unused-ignore]

    faiss.omp_set_num_threads(threads)
    points = torch.cat([items, bias[:, None]], 1).numpy()
    queries = torch.cat([users, torch.ones(len(users), 1)], 1).numpy()
    began = time.perf_counter()
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(points.shape[1]), points.shape[1], LISTS, faiss.METRIC_INNER_PRODUCT)
    index.train(points[:: max(1, len(points) // 200_000)])
    index.add(points)
    found: dict[str, Any] = {"build_seconds": round(time.perf_counter() - began, 1)}
    exact = top_in_blocks(users, items, bias, SLATE)[1]
    for probes in PROBES:
        index.nprobe = probes
        listed = torch.from_numpy(index.search(queries, SLATE)[1])
        recall = (listed.unsqueeze(2) == exact.unsqueeze(1)).any(1).float().mean()
        found[str(probes)] = {"microseconds": _time(lambda: index.search(queries, SLATE)), "recall": round(float(recall), 3)}
    return found


def _time(work: Callable[[], Any]) -> float:
    """µs a user, the median of REPEATS."""
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return round(1e6 * statistics.median(times) / USERS, 1)


def _run(threads: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        argv = [sys.executable, "-m", "engine", "train", "--method", "a2c", "--episodes", "2000", "--threads", str(threads)]
        argv += [f"--set=dataset.{name}={value}" for name, value in RUN.items()]
        argv += ["--out", os.path.join(folder, "run"), "--json"]
        env = {**os.environ, "RUNS_DIR": folder}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.strip().splitlines()[-1])
    seconds = {name: round(value, 1) for name, value in result["seconds"].items()}
    return {**RUN, "seconds": seconds, "peak_rss_mb": round(result["peak_rss_mb"]), "candidates": result["candidates"]}
