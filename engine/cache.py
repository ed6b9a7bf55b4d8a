"""Results that are costly and depend on nothing but their key are computed once and kept as files.

The key holds the content of the data, every option used, the seed, threads, torch's version and the source text of the
modules that compute; whoever changes a line of those never meets an old result. Two processes that want the same thing do
not both compute it: one waits for the other.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from engine import checkpoint

SOURCES = (
    "candidates.py",
    "factors.py",
    "nets.py",
    "rows.py",
    "spec.py",
    "data",
    "state",
    "purify",
    "world/responses.py",
    "world/fidelity.py",
)  # what stage I and fitted worlds are made by

_taken: ContextVar[list[str] | None] = ContextVar("taken", default=None)


def folder() -> Path:
    """`cache/` under RUNS_DIR (default `runs/`)."""
    return Path(os.environ.get("RUNS_DIR", "runs")) / "cache"


@lru_cache(1)
def source_digest() -> str:
    """A digest of the code that makes cached results."""
    root, digest = Path(__file__).parent, hashlib.sha256()
    for name in SOURCES:
        path = root / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()


def fetch(
    kind: str, key: Mapping[str, Any], make: Callable[[], dict[str, Any]], wait: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """The kept result of `make` under `key`, made now if it is not there. `wait` is called while another process makes it
    and may raise to give up. Only tensors, numbers, text, and dicts and lists of them can be kept."""
    path = _path(kind, key)
    kept = checkpoint.read_tensors(path)
    if kept is not None:
        _note(kind)
        return kept
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_suffix(".lock"))
    while True:
        try:
            lock.acquire(timeout=0.5)
            break
        except Timeout:
            wait()
    try:
        kept = checkpoint.read_tensors(path)
        if kept is None:
            kept = make()
            checkpoint.write_tensors(path, kept)
        else:
            _note(kind)
        return kept
    finally:
        lock.release()


@contextmanager
def noted() -> Iterator[list[str]]:
    """The kinds of what `fetch` takes as it was kept, so long as the block lasts: whoever times the block should tell them."""
    taken: list[str] = []
    token = _taken.set(taken)
    try:
        yield taken
    finally:
        _taken.reset(token)


def _note(kind: str) -> None:
    taken = _taken.get()
    if taken is not None:
        taken.append(kind)


def peek(kind: str, key: Mapping[str, Any], threads: int | None = None) -> dict[str, Any] | None:
    """What `fetch` would return without computing anything, or None. threads: of the process that asked `fetch`, if not as
    many as this one's."""
    return checkpoint.read_tensors(_path(kind, key, threads))


def _path(kind: str, key: Mapping[str, Any], threads: int | None = None) -> Path:
    threads = threads or torch.get_num_threads()
    full = {**key, "kind": kind, "torch": str(torch.__version__), "threads": threads, "source": source_digest()}
    name = hashlib.sha256(json.dumps(full, sort_keys=True).encode()).hexdigest()[:24]
    return folder() / f"{kind}-{name}.pt"
