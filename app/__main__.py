"""`python -m app`: the database made or brought up to date, a worker and the app, until Ctrl-C stops all of them.

Both children run in sessions of their own, so that a Ctrl-C in the terminal reaches this process alone, which stops them
once and in order. What they print goes to RUNS_DIR/app.log; stdout gets one line, the address.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from engine.arguments import Parser, guarded, say
from engine.options import BadInput
from runs_db.database import Database, Unavailable
from runs_db.migrate import migrate

ROOT = Path(__file__).resolve().parents[1]
LOG, MOST_LOG = "app.log", 5_000_000
START = 60.0  # seconds that Streamlit may take to answer
GRACE = 6.0  # seconds that children may take to end: the worker sends its runs back first
RESTARTS, WINDOW = 5, 60.0  # a worker that dies so often within so many seconds is left alone


def main(argv: Sequence[str] | None = None) -> int:
    """0 after Ctrl-C or SIGTERM, 1 if the app could not go on, 2 for bad input; each failure is one sentence."""
    try:
        return _serve(_arguments(argv))
    except Unavailable as error:
        say(f"error: {error}")
        return 1


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m app", description="The app and a worker. RUNS_DB_URL, RUNS_DIR and DATA_DIR say where.")
    default = os.environ.get("STREAMLIT_SERVER_PORT", "8501")
    parser.add_argument("--port", default=default, help="where the app listens (default 8501)")
    parser.add_argument("--slots", type=int, help="runs at once (default: the machine's cores)")
    parser.add_argument("--no-worker", action="store_true", help="the app alone; start `python -m runs_db worker` elsewhere")
    args = parser.parse_args(argv)
    if not str(args.port).isdecimal() or not 1 <= int(args.port) <= 65_535:
        raise BadInput(f"--port {args.port} is not legal: it must be a whole number from 1 to 65535")
    args.port = int(args.port)
    if args.slots is not None and args.slots < 1:
        raise BadInput(f"--slots {args.slots} is not legal: it must be 1 or more")
    return args


def _serve(args: argparse.Namespace) -> int:
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, lambda *_: stop.set())
    address = os.environ.get("STREAMLIT_SERVER_ADDRESS", "127.0.0.1")
    _free(address, args.port)
    database = Database()
    _writable(database.folder)
    migrate(database)
    log = _log(database.folder)
    children = Children(database, log)
    try:
        children.start_app(args.port)
        if not args.no_worker:
            children.start_worker(args.slots)
        here = "127.0.0.1" if address in ("0.0.0.0", "::", "") else address
        url = f"http://{f'[{here}]' if ':' in here else here}:{args.port}"
        if not _healthy(url, children, stop):
            return 0 if stop.is_set() else 1
        print(f"Fairstate is at {url}", flush=True)
        while not stop.wait(0.3):
            if not children.app_lives():
                return 1
            children.mind_worker()
        return 0
    finally:
        children.end()
        log.close()


class Children:
    """The two processes. Their output goes to `log`."""

    def __init__(self, database: Database, log: IO[bytes]) -> None:
        self._log = log
        self._environment = {
            **os.environ,
            "RUNS_DB_URL": database.url.render_as_string(hide_password=False),
            "RUNS_DIR": str(database.folder),
            "DATA_DIR": str(Path(os.environ.get("DATA_DIR", "data")).absolute()),
        }
        self._app: subprocess.Popen[bytes] | None = None
        self._worker: subprocess.Popen[bytes] | None = None
        self._worker_command: list[str] = []
        self._deaths: list[float] = []

    def start_app(self, port: int) -> None:
        """Streamlit, in the repository's root, where its settings are."""
        command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "app" / "main.py"), "--server.port", str(port)]
        self._app = self._start(command)

    def start_worker(self, slots: int | None) -> None:
        """A worker of the queue."""
        self._worker_command = [sys.executable, "-m", "runs_db", "worker", *([] if slots is None else ["--slots", str(slots)])]
        self._worker = self._start(self._worker_command)

    def app_lives(self) -> bool:
        """Whether Streamlit runs; says so in a sentence if not."""
        assert self._app is not None
        code = self._app.poll()
        if code is None:
            return True
        how = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
        say(f"error: Streamlit {how}; what it said is in {self._log.name}")
        return False

    def mind_worker(self) -> None:
        """Start the worker again if it has died, unless it dies all the time."""
        if self._worker is None or self._worker.poll() is None:
            return
        now = time.monotonic()
        self._deaths = [*(moment for moment in self._deaths if now - moment < WINDOW), now]
        if len(self._deaths) >= RESTARTS:
            say(f"the worker has died {RESTARTS} times within a minute and is left alone; why is in {self._log.name}")
            self._worker = None
            return
        say(f"the worker died (status {self._worker.returncode}); a new one takes over, its runs go on")
        self._worker = self._start(self._worker_command)

    def end(self) -> None:
        """Ask both to end, and see to it that they do."""
        children = [child for child in (self._worker, self._app) if child is not None]
        for child in children:
            if child.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    child.terminate()
        deadline = time.monotonic() + GRACE
        for child in children:
            try:
                child.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _free(address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise BadInput(
                    f"--port {port} is in use: another program listens there; choose another, for example --port {port + 1}"
                ) from None
            raise BadInput(f"the app cannot listen on {address}, port {port}: {error.strerror or error}") from None


def _writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BadInput(
            f"RUNS_DIR = {str(folder)!r} cannot be written: {error.strerror or error}; it must be a folder you may write"
        ) from None


def _log(folder: Path) -> IO[bytes]:
    path = folder / LOG
    small = path.is_file() and path.stat().st_size < MOST_LOG
    return path.open("ab" if small else "wb")


def _healthy(url: str, children: Children, stop: threading.Event) -> bool:
    deadline = time.monotonic() + START
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while not stop.is_set() and children.app_lives():
        with contextlib.suppress(OSError, urllib.error.URLError), direct.open(f"{url}/_stcore/health", timeout=1) as answer:
            if answer.status == 200:
                return True
        if time.monotonic() > deadline:
            say(f"error: Streamlit did not answer within {START:.0f} s")
            return False
        stop.wait(0.1)
    return False


if __name__ == "__main__":
    sys.exit(guarded(main))
