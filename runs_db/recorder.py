"""The recorder of a claimed run: batched, fenced writes; a heartbeat; metrics committed before the checkpoint after them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from engine.options import Diverged
from runs_db import queue
from runs_db.database import Database
from runs_db.progress import Overall

SIGNAL = "signal"  # asked to leave by a signal, with nothing said in the database


class Fenced(Exception):
    """Someone else owns the run by now. Leave at once, write nothing."""


class Checkpoints(Protocol):
    """Keeps states in a folder. `engine.checkpoint` is one."""

    def save(self, folder: Path, state: dict[str, Any]) -> Any: ...

    def newest(self, folder: Path) -> dict[str, Any] | None: ...


class DatabaseRecorder:
    """An `engine.contracts.Recorder` that writes to the database, as the owner of (run, epoch).

    One thread with its own connection commits what is waiting every `beat` seconds, renews the lease and learns whether
    a stop was asked for, however long a step of the run takes. The run itself never waits for the database, except in
    `checkpoint`. After a stop was asked for and `grace` seconds passed, `on_overdue` is called; when the run turns out to
    belong to someone else, `on_fenced`. Both are called from that thread, and are meant to end the process.
    """

    def __init__(
        self,
        database: Database,
        run: int,
        epoch: int,
        folder: Path,
        *,
        lease: float = queue.LEASE,
        beat: float = 1.0,
        every: float = 10.0,
        grace: float = 3.0,
        asked: str = "",
        shares: Mapping[str, float] | None = None,
        checkpoints: Checkpoints | None = None,
        on_fenced: Callable[[], None] = lambda: None,
        on_overdue: Callable[[str], None] = lambda asked: None,
    ) -> None:
        self.database, self.run, self.epoch, self.folder = database, run, epoch, folder
        self.lease, self.beat, self.every, self.grace = lease, beat, every, grace
        self._on_fenced, self._on_overdue = on_fenced, on_overdue
        self._checkpoints = checkpoints
        self._overall = Overall(shares)
        self._standing = queue.Standing()
        self._waiting: dict[tuple[str, int], float] = {}
        self._sent: dict[str, list[float]] = {}  # name → last step and value
        self._lock = threading.Lock()  # of what is waiting
        self._writing = threading.Lock()  # one batch at a time, so that batches arrive in order
        self._asked, self._asked_at = asked, time.monotonic()
        self._fenced = False
        self._failure: Exception | None = None
        self._counted = time.monotonic()
        self._kept, self._pause = time.monotonic(), every
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._live, name="heartbeat", daemon=True)

    def __enter__(self) -> DatabaseRecorder:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the heartbeat. What is waiting is not written: call `flush` first."""
        self._closed.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    @property
    def asked(self) -> str:
        """What was asked of this run: "", "stop", "requeue" or "signal"."""
        return self._asked

    def ask(self, what: str) -> None:
        """Ask for a stop from inside the process, as a signal handler does."""
        if not self._asked:
            self._asked, self._asked_at = what, time.monotonic()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._guard()
        numbers = {name: float(value) for name, value in values.items()}
        for name, value in numbers.items():
            if not math.isfinite(value):
                raise Diverged(f"{name} became {value} at step {step}")
        with self._lock:
            for name, value in numbers.items():
                self._waiting[name, step] = value
                if name not in self._sent or step >= self._sent[name][0]:
                    self._sent[name] = [step, value]

    def progress(self, stage: str, done: float, total: float) -> None:
        self._guard()
        self._standing = self._overall.standing(stage, done, total)

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Kept when asked to stop, or `every` seconds after the last (0: always); slow disks get more time in between.

        The order matters: were the checkpoint first, a crash between the two would lose the metrics for good.
        """
        self._guard()
        if time.monotonic() - self._kept < self._pause and not self._asked:
            return
        self.flush()
        began = time.monotonic()
        self._keeper().save(self.folder / "checkpoints", {"state": state, "sent": dict(self._sent)})
        self._kept = time.monotonic()
        self._pause = max(self.every, 10 * (self._kept - began)) if self.every else 0.0

    def restore(self) -> dict[str, Any] | None:
        """The state of the newest whole checkpoint. Metrics that an interrupted attempt wrote after it are dropped."""
        kept = self._keeper().newest(self.folder / "checkpoints")
        self._sent = dict(kept["sent"]) if kept else {}
        steps = {name: int(step) for name, (step, _) in self._sent.items()}
        if queue.rewind(self.database, self.run, self.epoch, steps) is None:
            self._fence()
        return kept["state"] if kept else None

    def last(self, name: str) -> float | None:
        """The value of a metric at its last step, earlier attempts included; None if there is none."""
        return self._sent[name][1] if name in self._sent else None

    def stages(self) -> dict[str, float]:
        """Stage → seconds that this attempt has spent in it."""
        return self._overall.taken()

    def stop_requested(self) -> bool:
        self._guard()
        return bool(self._asked)

    def flush(self) -> None:
        """Commit what is waiting, renew the lease, and learn what was asked. Raises Fenced, Unavailable or BadInput."""
        with self._writing:
            with self._lock:
                points, self._waiting = self._waiting, {}
            seconds, counted = self.worked()
            try:
                asked = queue.record(
                    self.database, self.run, self.epoch, points, self._standing, lease=self.lease, seconds=seconds
                )
            except BaseException:
                with self._lock:
                    self._waiting = {**points, **self._waiting}
                raise
            self._counted = counted
            if asked is None:
                self._fence()
            elif asked:
                self.ask(asked)
                self._asked = asked  # what the database says goes before a signal

    def worked(self) -> tuple[float, float]:
        """(seconds of work that are not yet in the database, the time at which that was true)."""
        moment = time.monotonic()
        return moment - self._counted, moment

    def _live(self) -> None:
        while not self._closed.wait(min(self.beat, 0.2) if self._asked else self.beat):
            try:
                self.flush()
                self._failure = None
            except Fenced:
                return
            except Exception as error:
                self._failure = error  # the run hears of it at its next call
            if self._asked and time.monotonic() - self._asked_at > self.grace and not self._closed.is_set():
                self._on_overdue(self._asked)

    def _guard(self) -> None:
        if self._fenced:
            raise Fenced
        if self._failure is not None:
            raise self._failure

    def _fence(self) -> None:
        self._fenced = True
        self._on_fenced()
        raise Fenced

    def _keeper(self) -> Checkpoints:
        if self._checkpoints is None:
            from engine import checkpoint  # imports torch, which takes longer than it takes to claim a run

            self._checkpoints = checkpoint
        return self._checkpoints
