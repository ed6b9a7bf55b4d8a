"""A run that takes milliseconds and cannot be resumed wrongly without showing it, with faults to order.

Every step's value depends on the one before. `curve(steps)` is what an uninterrupted run writes. Started as a script this
file is a trainer, or with `worker` as first word a worker, whose runs are toys.

Options (in `spec.settings["toy"]`): steps; pause, seconds a step; fault and at, the step where it happens; times, how many
attempts have it (default 1).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.options import BadInput, Stopped
from engine.spec import RunSpec
from runs_db import trainer
from runs_db.database import Database
from runs_db.executors import Local
from runs_db.recorder import DatabaseRecorder
from runs_db.worker import Worker

COMMAND = (sys.executable, str(Path(__file__).resolve()))
OPTIONS = ("--beat", "0.1", "--every", "0.1", "--grace", "1.5")


def spec(seed: int = 11, threads: int = 1, **toy: Any) -> RunSpec:
    """A spec whose run is a toy."""
    settings = {"toy": {"steps": 100, "pause": 0.002, **toy}}
    return RunSpec("synthetic", "toy", "identity", seed, toy.get("steps", 100), None, 10, "cpu", threads, settings)


def after(value: int) -> int:
    """The next value of the recursion."""
    return (value * 6364136223846793005 + 1442695040888963407) % 2**64


def curve(steps: int, seed: int = 11) -> dict[int, float]:
    """Step → value of a run that nothing has disturbed."""
    values, value = {}, seed
    for step in range(1, steps + 1):
        value = after(value)
        values[step] = value / 2**64
    return values


@dataclass(frozen=True)
class Result:
    metrics: dict[str, Any]
    episodes: dict[str, list[float]] = field(default_factory=dict)


class PlainCheckpoints:
    """Like `engine.checkpoint`, in JSON and without torch, which takes longer to import than a toy to run."""

    def __init__(self) -> None:
        self.kill_before_next = False

    def save(self, folder: Path, state: dict[str, Any]) -> None:
        if self.kill_before_next:
            die()
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / ".state.tmp"
        with temporary.open("w") as file:
            file.write(json.dumps(state))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / "state.json")

    def newest(self, folder: Path) -> dict[str, Any] | None:
        path = folder / "state.json"
        return json.loads(path.read_text()) if path.exists() else None


checkpoints = PlainCheckpoints()


def run(spec: RunSpec, recorder: DatabaseRecorder, folder: Path) -> Result:
    """Count, with the fault that was ordered."""
    options = {"fault": "", "at": -1, "times": 1, **spec.settings["toy"]}
    kept = recorder.restore() or {"step": 0, "value": spec.seed}
    step, value = kept["step"], kept["value"]
    print(f"from step {step}", flush=True)
    while step < options["steps"]:
        step, value = step + 1, after(value)
        recorder.scalars(step, {"value": value / 2**64})
        recorder.progress("train", step, options["steps"])
        if step == options["at"] and _due(folder, options["times"]):
            _fault(options["fault"], recorder, step, value)
        recorder.checkpoint({"step": step, "value": value})
        if recorder.stop_requested():
            raise Stopped
        time.sleep(options["pause"])
    metrics = {"len": value / 2**64, "episodes": step, "user_steps": 3 * step, "seconds": {"total": 1.0, "train": 1.0}}
    users = {"user": [3.0, 1.0], "len": [5.0, 6.0], "r_cum": [1.0, 2.0], "r_each": [0.2, 0.4], "ad": [0.1, math.nan]}
    return Result({**metrics, "spec": {}}, users)


def die() -> None:
    """kill -9, here and now."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def _due(folder: Path, times: int) -> bool:
    with (folder / "faults").open("a+") as file:
        file.seek(0)
        done = len(file.read())
        file.write("x" if done < times else "")
        return done < times


def _fault(name: str, recorder: DatabaseRecorder, step: int, value: int) -> None:
    if name == "kill":
        die()
    elif name == "kill between":
        recorder.every = recorder._pause = 0.0
        checkpoints.kill_before_next = True
    elif name == "checkpoint first":
        with recorder._writing:  # nothing is committed in between
            recorder.scalars(step, {"value": value / 2**64})
            state = {"state": {"step": step, "value": value}, "sent": dict(recorder._sent)}
            checkpoints.save(recorder.folder / "checkpoints", state)
            die()
    elif name == "sleep":
        time.sleep(60)
    elif name == "deaf":
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        recorder._on_overdue = lambda asked: None
        child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
        subprocess.Popen([sys.executable, "-c", child])
        time.sleep(60)
    elif name in ("child", "child kill"):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        if name == "child kill":
            die()
    elif name == "nan":
        recorder.scalars(step, {"loss": math.nan})
    elif name == "raise":
        raise RuntimeError("the toy broke\nwith a second line")
    elif name == "bad":
        raise BadInput("toy.at = 5 is not legal: it must be 4")
    elif name == "exit":
        os._exit(7)
    elif name == "disk full":
        raise OSError(28, "No space left on device", "policy.pt")
    else:
        raise ValueError(name)


def work(argv: list[str]) -> int:
    """A worker process whose runs are toys."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--lease", type=float, default=30.0)
    parser.add_argument("--grace", type=float, default=1.5)
    args = parser.parse_args(argv)
    database = Database()
    options = (*OPTIONS, "--lease", str(args.lease))
    worker = Worker(
        database, Local(database, COMMAND, options), slots=4, threads=8, lease=args.lease, grace=args.grace, poll=0.05
    )
    worker.listen()
    worker.serve(once=args.once)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        sys.exit(work(sys.argv[2:]))
    trainer._end(trainer.main(run=run, checkpoints=checkpoints))
