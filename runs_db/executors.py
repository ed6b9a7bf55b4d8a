"""Launchers: where the process of a claimed run is started. A launcher is three functions: start, alive, stop.

`Local` starts it on this machine, in a session of its own, so that the end of the worker, of the app or of a terminal ends
no run. A launcher for a cluster would place the same command; the database stays the truth either way.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

from runs_db import chores, files, identity
from runs_db.chores import Chore
from runs_db.database import Database
from runs_db.identity import Identity
from runs_db.queue import Claim

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS")
TRAINER = (sys.executable, "-m", "runs_db.trainer")
CHORES = {chores.MAPS: (sys.executable, "-m", "engine", "map", "--run")}  # each followed by the folder of a run


class Executor(Protocol):
    """Starts, watches and stops the processes of runs."""

    def start(self, claim: Claim) -> Identity:
        """Begin a claimed run. Raises OSError, Unavailable or BadInput if that cannot be done."""

    def start_chore(self, chore: Chore) -> Identity:
        """Begin a claimed chore. Raises OSError, Unavailable or BadInput if that cannot be done."""

    def alive(self, process: Identity) -> bool | None:
        """Whether the process runs; None if this place cannot know."""

    def stop(self, process: Identity, *, force: bool = False) -> None:
        """Ask the process and all it started to end; with `force`, end them. Does not wait."""

    def ending(self, process: Identity) -> str:
        """How a process ended, in words."""

    def status(self, process: Identity) -> int | None:
        """The exit status of a process that ended; None if this place was not told."""

    def tidy(self) -> None:
        """Called often: take leave of processes that have ended, and end what they left behind."""


class Local:
    """Subprocesses of this machine. command: what is started, followed by `--run ID --epoch E` and `options`.
    chores: what is started for each kind of chore, followed by a folder."""

    def __init__(
        self,
        database: Database,
        command: Sequence[str] = TRAINER,
        options: Sequence[str] = (),
        chores: Mapping[str, Sequence[str]] = CHORES,
    ) -> None:
        self._database, self._command, self._options, self._chores = database, list(command), list(options), dict(chores)
        self._children: dict[int, tuple[Identity, subprocess.Popen[bytes]]] = {}
        self._codes: dict[Identity, int] = {}

    def start(self, claim: Claim) -> Identity:
        folder = files.make_run_folder(self._database.folder, claim.run)
        argv = [*self._command, "--run", str(claim.run), "--epoch", str(claim.epoch), *self._options]
        return self._begin(argv, folder / files.LOG, "ab", claim.threads)

    def start_chore(self, chore: Chore) -> Identity:
        folder = files.run_folder(self._database.folder, chore.run)
        return self._begin([*self._chores[chore.kind], str(folder)], folder / chores.log_name(chore.kind), "wb", 1)

    def _begin(self, argv: list[str], log: Path, mode: Literal["ab", "wb"], threads: int) -> Identity:
        with log.open(mode) as output:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment(threads),
                start_new_session=True,
            )
        process = identity.of(child.pid)
        assert process is not None, "a child keeps its pid until it is waited for"
        self._children[child.pid] = (process, child)
        return process

    def alive(self, process: Identity) -> bool | None:
        self._reap(process)
        known, _ = self._children.get(process.pid, (None, None))
        # Of its own children the parent is told the end, and how they ended, by the kernel; /proc may be a moment ahead.
        return True if known == process else identity.alive(process)

    def stop(self, process: Identity, *, force: bool = False) -> None:
        # While any process of a group lives, the kernel gives its leader's pid to nobody else; so if the pid is taken, the
        # group is gone.
        if identity.taken(process):
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL if force else signal.SIGTERM)

    def ending(self, process: Identity) -> str:
        code = self._codes.get(process)
        if code is None:
            return "its process was found dead"
        if code < 0:
            why = " (out of memory?)" if code == -signal.SIGKILL else ""
            return f"its process was ended by {signal.Signals(-code).name}{why}"
        return f"its process left with status {code} before the run had ended"

    def status(self, process: Identity) -> int | None:
        return self._codes.get(process)

    def tidy(self) -> None:
        for process, _ in list(self._children.values()):
            self._reap(process)

    def _reap(self, process: Identity) -> None:
        known, child = self._children.get(process.pid, (None, None))
        if child is None or known != process or child.poll() is None:
            return
        del self._children[process.pid]
        self._codes[process] = child.returncode
        self.stop(process, force=True)

    def _environment(self, threads: int) -> dict[str, str]:
        code = str(Path(__file__).resolve().parents[1])
        paths = [code, *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            **os.environ,
            **dict.fromkeys(THREAD_VARIABLES, str(threads)),
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONUNBUFFERED": "1",
            "RUNS_DB_URL": self._database.url.render_as_string(hide_password=False),
            "RUNS_DIR": str(self._database.folder),
        }
