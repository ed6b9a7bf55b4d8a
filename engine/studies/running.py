"""Runs of a study as processes of their own, kept under RUNS_DIR/studies so that studies share them and go on later.

RUNS_DIR/studies/<digest of the spec>/ is a run's folder as `engine train` makes it. A run with a result is never run again,
one without goes on from its newest checkpoint. Each folder has a lock that the run's process holds too: two studies never
work on one run, also not when the first was killed and its run goes on alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from engine import checkpoint
from engine.options import BadInput
from engine.run import RESULT, SPEC
from engine.spec import RunSpec
from engine.studies.ask import Run, digest

ROOT = Path(__file__).parents[2]
LOG, COMMIT = "run.log", "commit.txt"
EVERY = 15.0  # seconds between two lines of progress
GRACE = 3.0  # seconds that a run has to keep a checkpoint when it is stopped

Say = Callable[[str], None]


class RunFailed(Exception):
    """A run of a study failed; the message names it and says why."""


@dataclass
class _Child:
    spec: RunSpec
    folder: Path
    process: subprocess.Popen[bytes]
    began: float


def folder() -> Path:
    """`studies/` under RUNS_DIR (default `runs/`)."""
    return Path(os.environ.get("RUNS_DIR", "runs")) / "studies"


def title(spec: RunSpec) -> str:
    """A run for people."""
    return f"{spec.label()}, seed {spec.seed}"


def commit() -> str:
    """The code's commit, `-changed` where engine/ differs from it, `unknown` outside git."""

    def git(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(ROOT), *argv], capture_output=True, text=True, check=False)

    try:
        head = git("rev-parse", "--short=10", "HEAD")
        if head.returncode != 0:
            return "unknown"
        changed = git("status", "--porcelain", "--", "engine", "requirements.txt").stdout.strip()
    except OSError:  # there is no git
        return "unknown"
    return head.stdout.strip() + ("-changed" if changed else "")


def complete(specs: Sequence[RunSpec], jobs: int, say: Say) -> dict[str, Run]:
    """The finished runs of all specs, by digest; those that are not finished are run, `jobs` at a time.

    Raises RunFailed, or BadInput where a run refused its input; the other runs are stopped first, as they are on Ctrl-C.
    """
    waiting = {digest(spec): spec for spec in specs}
    found = {name: _finished(spec) for name, spec in waiting.items()}
    runs = {name: run for name, run in found.items() if run is not None}
    waiting = {name: spec for name, spec in waiting.items() if name not in runs}
    total = len(runs) + len(waiting)
    if total:
        say(f"{len(runs)} of {total} runs are there already" if runs else f"{total} runs to do, {jobs} at a time")
    children: dict[str, _Child] = {}
    told = time.monotonic()
    try:
        while waiting or children:
            for name, child in list(children.items()):
                if child.process.poll() is None:
                    continue
                del children[name]
                runs[name] = _result(child)
                say(f"{len(runs)} of {total} runs done: {title(child.spec)}{_left(waiting, children, runs, jobs)}")
            for name, spec in list(waiting.items()):
                if len(children) >= jobs:
                    break
                started = _start(spec)
                if started is None:
                    continue  # another study is at it
                del waiting[name]
                if isinstance(started, Run):
                    runs[name] = started
                else:
                    children[name] = started
            if time.monotonic() - told > EVERY and (waiting or children):
                told = time.monotonic()
                doing = [f"{title(child.spec)}: {_last_line(child.folder)}" for child in children.values()]
                doing = doing or ["waiting for another study that is at the same run"]
                say(f"{len(runs)} of {total} runs done{_left(waiting, children, runs, jobs)} · " + " · ".join(doing))
            if waiting or children:
                time.sleep(0.1)
    finally:
        _stop(list(children.values()))
    return {digest(spec): runs[digest(spec)] for spec in specs}


def kept(what: str, key: Mapping[str, Any], make: Callable[[], Any]) -> Any:
    """The JSON value that `make` gives, kept on disk under `key` and the engine's source text."""
    text = json.dumps({"what": what, "code": _source(), **key}, sort_keys=True)
    path = folder() / "measured" / f"{what}-{sha256(text.encode()).hexdigest()[:20]}.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        value = json.dumps(make())
        checkpoint.write_whole(path, value.encode())
        return json.loads(value)


def _source() -> str:
    own = sha256()
    for file in sorted((ROOT / "engine").rglob("*.py")):
        own.update(file.read_bytes())
    return own.hexdigest()


def _finished(spec: RunSpec) -> Run | None:
    place = folder() / digest(spec)
    try:
        metrics = json.loads((place / RESULT).read_text())
    except (OSError, ValueError):
        return None
    try:
        made_by = (place / COMMIT).read_text().strip()
    except OSError:
        made_by = "unknown"
    return Run(spec, metrics, place, made_by)


def _start(spec: RunSpec) -> _Child | Run | None:
    """The run's process, or the run where it was finished meanwhile, or None where another process is at it."""
    place = folder() / digest(spec)
    with _locked(place) as lock:
        if lock is None:
            return None
        done = _finished(spec)
        if done is not None:
            return done
        checkpoint.write_whole(place / SPEC, spec.to_json().encode())
        checkpoint.write_whole(place / COMMIT, commit().encode())  # of the code that runs it, whatever is checked out later
        argv = [sys.executable, "-m", "engine", "train", "--resume", str(place)]
        path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH")) if part)
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(spec.threads)}
        with (place / LOG).open("ab") as log:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, env=environment, pass_fds=(lock,)
            )
    return _Child(spec, place, process, time.monotonic())


@contextmanager
def _locked(place: Path) -> Iterator[int | None]:
    """An open file that holds the run's lock, or None where another process has it. Whoever inherits it holds the lock."""
    place.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(place.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file
    finally:
        os.close(file)


def _result(child: _Child) -> Run:
    status = child.process.returncode
    if status == 0:
        done = _finished(child.spec)
        if done is not None:
            return done
    if status == 0:
        reason = "it left no result"
    elif status < 0:
        reason = f"its process was ended by signal {-status}"
    else:
        reason = _last_line(child.folder)
    if status == 2:
        raise BadInput(f"{title(child.spec)}: {reason.removeprefix('error: ')}")
    raise RunFailed(f"{title(child.spec)}: {reason}; its folder is {child.folder}")


def _stop(children: Sequence[_Child]) -> None:
    for child in children:
        if child.process.poll() is None:
            child.process.terminate()
    end = time.monotonic() + GRACE
    for child in children:
        try:
            child.process.wait(max(end - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()


def _last_line(place: Path) -> str:
    try:
        lines = (place / LOG).read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else "starting"


def _left(waiting: Mapping[str, RunSpec], children: Mapping[str, _Child], runs: Mapping[str, Run], jobs: int) -> str:
    """`, about 12 min left`, judged by finished runs like those that are left; empty where there are none."""
    known: dict[Any, list[float]] = {}
    for run in runs.values():
        for key in _kinds(run.spec):
            known.setdefault(key, []).append(float(run.metrics["seconds"]["total"]))

    def expected(spec: RunSpec) -> float:
        own = next((known[key] for key in _kinds(spec) if key in known), [])
        return sum(own) / len(own) if own else 0.0

    rest = [max(expected(child.spec) - (time.monotonic() - child.began), 1.0) for child in children.values()]
    rest += [expected(spec) for spec in waiting.values()]
    if not known or not rest:
        return ""
    seconds = max(sum(rest) / jobs, max(rest))
    return f", about {seconds / 60:.0f} min left" if seconds > 100 else f", about {seconds:.0f} s left"


def _kinds(spec: RunSpec) -> list[Any]:
    """From the runs most like this one to any."""
    return [spec.group(), (spec.method, spec.purifier), spec.method, None]
