"""One attempt at one run, in a process of its own: `python -m runs_db.trainer --run ID --epoch E`.

Started by a launcher (`runs_db.executors`) after the run was claimed. It owns the claim from its first write on, needs no
parent, and always leaves through one of the states of `runs_db.queue`. Its output is the run's log.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import psutil

from engine.arguments import Parser, guarded, say
from engine.options import BadInput, Diverged, Stopped
from engine.spec import RunSpec
from runs_db import files, identity, models, queue
from runs_db.database import Database, Unavailable
from runs_db.recorder import SIGNAL, Checkpoints, DatabaseRecorder, Fenced
from runs_db.specs import stage_shares, stored_spec

if TYPE_CHECKING:
    from engine.contracts import Recorder

FENCED = 3  # exit status: the run belongs to someone else
PATIENCE = 600.0  # seconds for which a locked or restarting database is waited for


class Outcome(Protocol):
    """What a run gives: `engine.run.Result`."""

    @property
    def metrics(self) -> Mapping[str, Any]: ...

    @property
    def episodes(self) -> Mapping[str, Sequence[float]]: ...


Run = Callable[[RunSpec, "Recorder", Path], Outcome]


def main(argv: Sequence[str] | None = None, run: Run | None = None, checkpoints: Checkpoints | None = None) -> int:
    """Exit status 0 when the run ended in some state, 3 when it belongs to someone else. `run`: default `engine.run.run`."""
    parser = Parser(prog="python -m runs_db.trainer", description="One attempt at one claimed run. Started by the worker.")
    parser.add_argument("--run", type=int, required=True)
    parser.add_argument("--epoch", type=int, required=True)
    parser.add_argument("--lease", type=float, default=queue.LEASE, help="seconds a claim lasts without a sign of life")
    parser.add_argument("--grace", type=float, default=3.0, help="seconds to stop in before it is enforced")
    parser.add_argument("--beat", type=float, default=1.0, help="seconds between commits")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between checkpoints")
    args = parser.parse_args(argv)
    return train(Database(patience=PATIENCE), args, run, checkpoints)


def train(database: Database, args: argparse.Namespace, run: Run | None, checkpoints: Checkpoints | None) -> int:
    """Take the claimed run over, run it, and write how it ended."""
    begun = queue.begin(database, args.run, args.epoch, identity.mine(), args.lease)
    if begun is None:
        say(f"run {args.run} no longer waits for attempt {args.epoch}")
        return FENCED
    say(f"— {time.strftime('%Y-%m-%d %H:%M:%S')} run {args.run}, attempt {args.epoch}")
    seconds = 0.0
    try:
        folder = files.make_run_folder(database.folder, args.run)
        spec = stored_spec(begun.spec)
        recorder = DatabaseRecorder(
            database,
            args.run,
            args.epoch,
            folder,
            lease=args.lease,
            beat=args.beat,
            every=args.every,
            grace=args.grace,
            asked=begun.stop_requested,
            shares=stage_shares(database, spec),
            checkpoints=checkpoints,
            on_fenced=lambda: os._exit(FENCED),
            on_overdue=lambda asked: _leave_by_force(database, args.run, args.epoch, asked),
        )
    except (BadInput, Unavailable) as error:
        ending: dict[str, Any] = {"state": models.FAILED, "error": _sentence(error)}
    else:
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: recorder.ask(SIGNAL))
        with recorder:
            ending = _attempt(recorder, spec, folder, run)
        seconds = recorder.worked()[0]
    reached = queue.finish(database, args.run, args.epoch, seconds=seconds, **ending)
    say(f"run {args.run}: {reached or 'belongs to someone else'}{': ' if ending.get('error') else ''}{ending.get('error', '')}")
    return FENCED if reached is None else 0


def _attempt(recorder: DatabaseRecorder, spec: RunSpec, folder: Path, run: Run | None) -> dict[str, Any]:
    """Run, and put how it ended into the words of `queue.finish`."""
    try:
        if recorder.asked:
            raise Stopped
        result = (run or _engine_run(spec.threads))(spec, recorder, folder)
        recorder.flush()
        summary = {**result.metrics, "stages": recorder.stages()}
        summary.pop("spec", None)  # the run has it already
        broken = list(_not_finite(summary))
        if broken:
            raise Diverged(f"the result is not finite: {', '.join(broken)}")
        return {"state": models.DONE, "summary": summary, "table": result.episodes}
    except Fenced:
        os._exit(FENCED)
    except Stopped:
        # A signal without a word in the database means that the machine wants the process away, not that the run is unwanted.
        _flush(recorder)
        return {"state": models.STOPPED if recorder.asked in (queue.STOP, "") else models.QUEUED}
    except Diverged as error:
        _flush(recorder)
        return {"state": models.DIVERGED, "error": _sentence(error)}
    except (BadInput, Unavailable) as error:
        say(f"error: {error}")
        return {"state": models.FAILED, "error": _sentence(error)}
    except Exception as error:
        traceback.print_exc()
        _flush(recorder)
        return {"state": models.FAILED, "error": _sentence(error)}


def _engine_run(threads: int) -> Run:
    import torch

    from engine.run import run

    torch.set_num_threads(threads)
    return run


def _flush(recorder: DatabaseRecorder) -> None:
    try:
        recorder.flush()
    except Fenced:
        os._exit(FENCED)
    except (BadInput, Unavailable) as error:
        say(f"the last metrics could not be written: {error}")


def _leave_by_force(database: Database, run: int, epoch: int, asked: str) -> None:
    """Called from the heartbeat when the run does not come to a point where it can stop."""
    state = models.STOPPED if asked == queue.STOP else models.QUEUED
    try:
        queue.finish(database, run, epoch, state, error=queue.FORCED)
        say(f"run {run}: {state} by force")
    finally:
        _end(FENCED)


def _end(status: int) -> NoReturn:
    """End this process, whatever threads it has, and all that it started."""
    sys.stdout.flush()
    sys.stderr.flush()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()
    os._exit(status)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "the disk is full" + (f": {error.filename} could not be written" if error.filename else "")
    if isinstance(error, MemoryError):
        return "there was not enough memory"
    first = " ".join((str(error).strip().splitlines() or [""])[0].split())
    if isinstance(error, BadInput | Unavailable | Diverged):
        return first[:500]
    return f"{type(error).__name__}: {first}"[:500] if first else type(error).__name__


def _not_finite(values: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """What JSON could not hold: names and values, those of inner objects too."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _not_finite(value, f"{where}{name}.")
        elif isinstance(value, float) and not math.isfinite(value):
            yield f"{where}{name} is {value}"


if __name__ == "__main__":
    _end(guarded(main))
