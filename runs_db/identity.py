"""Which process is meant: (host, boot, pid, start time). A pid alone says nothing, for pids come back."""

from __future__ import annotations

import functools
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Identity:
    """boot_id names one boot of one machine and, on Linux, the pid namespace, so that containers are told apart."""

    host: str
    boot_id: str
    pid: int
    started: str


def mine() -> Identity:
    """The identity of this process."""
    identity = of(os.getpid())
    assert identity is not None
    return identity


def of(pid: int) -> Identity | None:
    """The identity of a process of this machine; a zombie still has one. None if there is no such process."""
    mark = _look(pid)
    return None if mark is None else Identity(host(), boot_id(), pid, mark[0])


def alive(identity: Identity) -> bool | None:
    """Whether the process runs; a zombie does not. None: it lived in another boot, on another machine, nobody here knows."""
    if identity.boot_id != boot_id():
        return None
    mark = _look(identity.pid)
    return mark is not None and mark[0] == identity.started and not mark[1]


def taken(identity: Identity) -> bool:
    """Whether the pid now belongs to some other process, which must not be signalled."""
    mark = _look(identity.pid)
    return mark is not None and mark[0] != identity.started


@functools.cache
def host() -> str:
    """The name of this machine."""
    return socket.gethostname()


@functools.cache
def boot_id() -> str:
    """A name for this boot of this machine."""
    if sys.platform == "linux":
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    if sys.platform == "darwin":
        asked = subprocess.run(["sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, check=False)
        if asked.returncode == 0 and asked.stdout.strip():
            return asked.stdout.strip()
    return f"{host()} {psutil.boot_time():.0f}"


def _look(pid: int) -> tuple[str, bool] | None:
    """(mark of the start time, is a zombie) of a pid."""
    if sys.platform == "linux":
        # Ticks since boot: unlike a time of day they stay the same when the clock is set.
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return fields[19], fields[0] in "ZX"
    try:
        process = psutil.Process(pid)
        return f"{process.create_time():.2f}", process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
