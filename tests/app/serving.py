"""`python -m app` in a process of its own, on a free port, with a database of its own."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Lab:
    """A running lab. said: lines of stdout so far; warned: lines of stderr."""

    process: subprocess.Popen[str]
    port: int
    folder: Path
    said: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)
    lines: queue.Queue[str] = field(default_factory=queue.Queue)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def ready(self, timeout: float = 40.0) -> str:
        """The first line of stdout."""
        return self.lines.get(timeout=timeout)

    def healthy(self) -> bool:
        """Whether it answers."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.url}/_stcore/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def handshake(self, host: str) -> int:
        """The status that a websocket gets which says that it came for `host`."""
        lines = [
            "GET /_stcore/stream HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade",
            "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", "",
        ]  # fmt: skip
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as wire:
            wire.sendall("\r\n".join(lines).encode())
            return int(wire.recv(64).split()[1])

    def child(self, word: str) -> psutil.Process:
        """The child process with a word in its command."""
        for found in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):
                if word in " ".join(found.cmdline()):
                    return found
        raise LookupError(word)

    def stop(self, name: signal.Signals = signal.SIGINT, timeout: float = 15.0) -> float:
        """Send a signal, wait for the end; the seconds it took."""
        began = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(name)
        self.process.wait(timeout)
        return time.monotonic() - began


@contextlib.contextmanager
def lab(folder: Path, *options: str, port: int | None = None, **environment: str) -> Iterator[Lab]:
    """Start it; at the end nothing of it is left, whatever happened."""
    port = port or free_port()
    env = {
        **os.environ,
        "RUNS_DIR": str(folder),
        "RUNS_DB_URL": f"sqlite:///{folder / 'runs.sqlite'}",
        "DATA_DIR": str(folder / "data"),
        "STREAMLIT_SERVER_PORT": "",
        **environment,
    }
    env = {name: value for name, value in env.items() if value}
    command = [sys.executable, "-m", "app", "--port", str(port), *options]
    process = subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    running = Lab(process, port, folder)

    def read(stream: object, into: list[str], tell: bool) -> None:
        for line in stream:  # type: ignore[attr-defined]
            into.append(line.rstrip("\n"))
            if tell:
                running.lines.put(line.rstrip("\n"))
        if tell:
            running.lines.put("")

    readers = [
        threading.Thread(target=read, args=(process.stdout, running.said, True), daemon=True),
        threading.Thread(target=read, args=(process.stderr, running.warned, False), daemon=True),
    ]
    for reader in readers:
        reader.start()
    family: list[psutil.Process] = []
    try:
        yield running
    finally:
        if process.poll() is None:
            family = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
        for left in family:
            if left.is_running() and left.status() != psutil.STATUS_ZOMBIE:
                left.kill()
        for reader in readers:
            reader.join(5)
