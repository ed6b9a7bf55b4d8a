"""Recorders that need no database: a folder for runs from the command line, and one that keeps everything in memory."""

from __future__ import annotations

import copy
import json
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine import checkpoint


class MemoryRecorder:
    """Keeps scalars in `history` as {name: {step: value}}; nothing touches the disk. For tests and benchmarks."""

    def __init__(self) -> None:
        self.history: dict[str, dict[int, float]] = {}
        self.kept: dict[str, Any] | None = None
        self.stages: list[str] = []

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.history.setdefault(name, {})[step] = float(value)

    def progress(self, stage: str, done: float, total: float) -> None:
        if stage not in self.stages:
            self.stages.append(stage)

    def checkpoint(self, state: dict[str, Any]) -> None:
        self.kept = copy.deepcopy(state)

    def restore(self) -> dict[str, Any] | None:
        return self.kept

    def stop_requested(self) -> bool:
        return False


class FolderRecorder(MemoryRecorder):
    """A run's folder: `metrics.jsonl` (one line a step), checkpoints, progress with ETA on stderr; SIGINT/SIGTERM stop it."""

    def __init__(self, folder: Path, *, every: float = 10.0, quiet: bool = False) -> None:
        super().__init__()
        self.folder, self.every, self.quiet = folder, every, quiet
        folder.mkdir(parents=True, exist_ok=True)
        self._stop = threading.Event()
        self._last = time.monotonic()
        self._ticker = Progress()
        self._lines: list[str] = []

    def listen(self) -> None:
        """Let Ctrl-C and SIGTERM ask for a stop instead of tearing the run down."""
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda *_: self._stop.set())

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        super().scalars(step, values)
        self._lines.append(json.dumps({"step": step, **{k: float(v) for k, v in values.items()}}))

    def flush(self) -> None:
        """Write the lines that are waiting."""
        if self._lines:
            with (self.folder / "metrics.jsonl").open("a") as file:
                file.write("\n".join(self._lines) + "\n")
            self._lines.clear()

    def progress(self, stage: str, done: float, total: float) -> None:
        super().progress(stage, done, total)
        line = self._ticker.line(stage, done, total)
        if line and not self.quiet:
            print(line, file=sys.stderr, flush=True)

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Kept when asked to stop or `every` seconds after the last. Metrics go to disk first (docs/jobs.md, invariant 4)."""
        if time.monotonic() - self._last < self.every and not self._stop.is_set():
            return
        self.flush()
        checkpoint.save(self.folder / "checkpoints", state)
        self._last = time.monotonic()

    def restore(self) -> dict[str, Any] | None:
        return checkpoint.newest(self.folder / "checkpoints")

    def stop_requested(self) -> bool:
        return self._stop.is_set()


def read_metrics(folder: Path) -> dict[str, dict[int, float]]:
    """{name: {step: value}} of a run's folder; a repeated (name, step) keeps the last."""
    history: dict[str, dict[int, float]] = {}
    file = folder / "metrics.jsonl"
    for line in file.read_text().splitlines() if file.exists() else []:
        values = json.loads(line)
        step = values.pop("step")
        for name, value in values.items():
            history.setdefault(name, {})[step] = value
    return history


class Progress:
    """Turns many calls into few lines: a stage, how far it is, and the time it still needs."""

    def __init__(self, every: float = 2.0) -> None:
        self.every, self._stage, self._began, self._next = every, "", 0.0, 0.0

    def line(self, stage: str, done: float, total: float) -> str | None:
        """A line for people, or None when the last one was less than `every` seconds ago."""
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._began, self._next = stage, now, now + self.every
            return f"{stage} …"
        if now < self._next and done < total:
            return None
        self._next = now + self.every
        seconds = now - self._began
        if done >= total:
            self._next = float("inf")
            return f"{stage}: done in {seconds:.1f} s"
        if done <= 0:  # as while another process does the work
            return f"{stage}: {seconds:.0f} s so far"
        return f"{stage}: {100 * done / total:.0f} %, about {seconds * (total - done) / done:.0f} s left"
