"""`engine train` for 20,000 episodes on the default world in a new process and with an empty cache: stages and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

from engine import catalog

EPISODES = 20_000


def measure(threads: int) -> dict[str, Any]:
    """Seconds of each stage and the peak memory, of every method that learns."""
    learned = [name for name in catalog.TABLES["methods"] if catalog.find("methods", name).LEARNS]
    return {method: _train(method, threads) for method in learned} | {"episodes": EPISODES}


def _train(method: str, threads: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        argv = [sys.executable, "-m", "engine", "train", "--method", method, "--episodes", str(EPISODES)]
        argv += ["--threads", str(threads), "--out", os.path.join(folder, "run"), "--json"]
        env = {**os.environ, "RUNS_DIR": folder}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.strip().splitlines()[-1])
    kept = ("len", "r_each", "r_cum", "ad", "utility", "user_steps", "updates", "peak_rss_mb")
    seconds = {name: round(value, 1) for name, value in result["seconds"].items()}
    return {"seconds": seconds, **{name: round(result[name], 3) for name in kept}}
