"""A log of 20 million rows, 100,000 users and 50,000 items, read from CSV and from Parquet in new processes; then one pass of
what stage I and fitted worlds learn from it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROWS, USERS, ITEMS = 20_000_000, 100_000, 50_000
PART = 1_000_000  # rows made at a time
READ = """
import json, sys, time
from engine.data import table
from engine.memory import peak_mb
clock, cpu = time.perf_counter(), time.process_time()
data = table.load(table.Config(path=sys.argv[1]))
told = {"seconds": round(time.perf_counter() - clock, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
told |= {"peak_rss_mb": round(peak_mb())}
told |= {"rows": len(data.train) + len(data.test), "users": data.train.users, "items": len(data.train.items)}
print(json.dumps(told | {"fingerprint": data.fingerprint}))
"""
LEARN = """
import json, sys, time
import torch
from engine.data import table
from engine.factors import factorise
from engine.memory import peak_mb
from engine.rows import last_rows
torch.set_num_threads(int(sys.argv[2]))
log, told = table.load(table.Config(path=sys.argv[1])), {}
def timed(name, work):
    clock = time.perf_counter()
    work()
    told[name] = round(time.perf_counter() - clock, 1)
def one_pass(**how):
    factorise(log.train, epochs=1, learning_rate=0.02, generator=torch.Generator().manual_seed(0), **how)
timed("histories_seconds", lambda: last_rows(log.train_start, 400))
timed("observed_vectors_seconds_a_pass", lambda: one_pass(width=24, decay=20.0))
timed("disentangled_vectors_seconds_a_pass", lambda: one_pass(width=24, decay=20.0, disentangle=True))
timed("responses_seconds_a_pass", lambda: one_pass(width=8, decay=8.0, biases=True))
print(json.dumps(told | {"peak_rss_mb": round(peak_mb())}))
"""


def measure(threads: int) -> dict[str, Any]:
    """Seconds and peak memory of reading (splitting included), and seconds of one pass of learning, of some tens that a run
    makes: 12 for each kind of vectors, 9 · 15 for a world's responses."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {kind: Path(folder) / f"log.{kind}" for kind in ("csv", "parquet")}
        _write(paths)
        read = {kind: _child(READ, path) for kind, path in paths.items()}
        learned = _child(LEARN, paths["parquet"], str(threads))
    return {**read, "learn": learned}


def _child(code: str, *arguments: object) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _write(paths: dict[str, Path]) -> None:
    """The same rows as CSV and as Parquet: popularity falls as a power, users are named by text, times in no order."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    generator = np.random.default_rng(0)
    names = pa.array([f"u{user:06d}" for user in range(USERS)])
    kinds = pa.schema([("user", pa.string()), ("item", pa.int64()), ("reward", pa.int64()), ("time", pa.int64())])
    plain = csv.WriteOptions(quoting_style="none")
    with (
        csv.CSVWriter(paths["csv"], kinds, write_options=plain) as lines,
        parquet.ParquetWriter(paths["parquet"], kinds) as rows,
    ):
        for _ in range(ROWS // PART):
            user = pa.array(generator.integers(USERS, size=PART))
            item = (generator.pareto(1.2, PART) * 500).astype(np.int64) % ITEMS
            reward = (generator.random(PART) < 0.3).astype(np.int64)
            moment = 1_700_000_000 + generator.integers(10_000_000, size=PART)
            part = pa.table([names.take(user), pa.array(item), pa.array(reward), pa.array(moment)], schema=kinds)
            lines.write(part)
            rows.write(part)
