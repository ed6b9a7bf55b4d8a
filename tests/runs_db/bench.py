"""Ways to start, watch and disturb runs in a test, and to wait without guessing how long."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import update

import toy
from runs_db import executors, identity, models, queue
from runs_db.database import Database, Unavailable
from runs_db.store import Store
from runs_db.worker import Worker


class Bench:
    """What fault tests need at hand: a worker in this process that starts toys, and ways to look and to disturb."""

    def __init__(self, store: Store) -> None:
        self.store, self.database = store, store.database
        self.processes: list[subprocess.Popen[bytes]] = []

    def worker(self, *, command: tuple[str, ...] = toy.COMMAND, lease: float = 30.0, **options: Any) -> Worker:
        """A worker to be driven by `drive`."""
        local = executors.Local(self.database, command, (*toy.OPTIONS, "--lease", str(lease)))
        settings: dict[str, Any] = {"slots": 4, "threads": 8, "lease": lease, "grace": 1.5, "tell": lambda words: None}
        return Worker(self.database, local, **(settings | options))

    def worker_process(self, *options: str) -> subprocess.Popen[bytes]:
        """A worker in a process of its own."""
        process = subprocess.Popen([*toy.COMMAND, "worker", *options], env=environment(), start_new_session=True)
        self.processes.append(process)
        return process

    def drive(self, worker: Worker, condition: Callable[[], Any], seconds: float = 20.0) -> Any:
        """Let the worker work until the condition holds; its value."""

        def step() -> Any:
            worker.turn()
            return condition()

        return until(step, seconds)

    def state(self, run: int) -> str:
        return self.store.get(run).state

    def finished(self, run: int) -> bool:
        return self.state(run) in models.FINISHED

    def process(self, run: int) -> identity.Identity | None:
        """The trainer of a run, once it has reported."""
        for active in queue.active(self.database):
            if active.run == run and active.state != models.STARTING:
                return active.process
        return None

    def steps(self, run: int) -> int:
        """How many steps are in the database."""
        return len(self.curve(run))

    def curve(self, run: int) -> dict[int, float]:
        """Step → value as it is in the database."""
        frame = self.store.series([run], ["value"])
        return dict(zip(frame.step.tolist(), frame.value.tolist(), strict=True))

    def set(self, run: int, **values: Any) -> None:
        """Change a row behind everyone's back."""
        self.database.write(
            lambda connection: connection.execute(update(models.runs).where(models.runs.c.id == run).values(values))
        )

    def freeze(self, process: identity.Identity) -> None:
        """SIGSTOP, but not in the middle of a commit: that would lock a SQLite file for everybody."""
        impatient = Database(self.database.url.render_as_string(hide_password=False), self.database.folder, busy=0.05)

        def frozen() -> bool:
            os.kill(process.pid, signal.SIGSTOP)
            until(lambda: stopped(process.pid), every=0.001)  # a thread inside the kernel may still take a lock before it stops
            try:
                impatient.write(lambda connection: connection.execute(update(models.runs).values(parent=models.runs.c.parent)))
            except Unavailable:
                os.kill(process.pid, signal.SIGCONT)
                return False
            return True

        until(frozen, every=0.03)
        impatient.close()

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        for process in toys(self.store.database.folder):
            process.kill()


def environment() -> dict[str, str]:
    """That of this process, with the code on the path."""
    paths = [str(Path(models.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def stopped(pid: int) -> bool:
    """Whether all threads of a process have stopped; elsewhere than on Linux, whether the process has."""
    tasks = Path(f"/proc/{pid}/task")
    if not tasks.is_dir():
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    return all(stat.read_text().rpartition(")")[2].split()[0] == "T" for stat in tasks.glob("*/stat"))


def toys(folder: Path) -> list[psutil.Process]:
    """Living processes that were started for this test, whoever their parents are."""
    found = []
    for process in psutil.process_iter():
        try:
            mine = process.environ().get("RUNS_DIR") == str(folder) and process.pid != os.getpid()
            if mine and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def until(condition: Callable[[], Any], seconds: float = 20.0, every: float = 0.02) -> Any:
    """The first true value of `condition`; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(every)
