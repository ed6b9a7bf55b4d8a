"""The connection: which file or server, the rules SQLite needs, retries, and errors in words.

Reads open a deferred transaction; writes open `BEGIN IMMEDIATE`, so that a writer waits for its turn at the beginning
instead of failing in the middle. Every error that a user can mend leaves as BadInput or Unavailable, one sentence.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, select, table, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from engine.options import BadInput
from runs_db import models

DEFAULT_URL = "sqlite:///runs/runs.sqlite"
DEFAULT_FOLDER = "runs"

T = TypeVar("T")


class Unavailable(Exception):
    """The database or the disk cannot be used at the moment. The message is one sentence."""


class Database:
    """A database and the folder that belongs to it. Cheap to make, safe to share between threads; it opens on first use.

    url: RUNS_DB_URL when None. folder: RUNS_DIR when None. busy: seconds SQLite waits for another writer. patience: for
    how many more seconds a write is tried again when the database is locked or its server is away.
    """

    def __init__(
        self, url: str | None = None, folder: Path | str | None = None, *, busy: float = 30.0, patience: float = 0.0
    ) -> None:
        self.busy, self.patience = busy, patience
        self.url = _absolute(url or os.environ.get("RUNS_DB_URL") or DEFAULT_URL)
        self.folder = Path(folder or os.environ.get("RUNS_DIR") or DEFAULT_FOLDER).absolute()
        self.engine = _engine(self.url, busy)
        self._writes = self.engine.execution_options(immediate=True)

    @property
    def file(self) -> Path | None:
        """The SQLite file, None for a server."""
        return _file(self.url)

    @property
    def place(self) -> str:
        """Where the database is, for messages: no password."""
        return str(self.file) if self.file else self.url.render_as_string()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for reading; all reads inside see one moment. Raises BadInput or Unavailable."""
        try:
            with self.engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise explain(error, self.place) from error

    def write(self, work: Callable[[Connection], T]) -> T:
        """The result of `work` in one write transaction; `work` may be called again, so it must only use its connection.

        Raises BadInput or Unavailable.
        """
        deadline = time.monotonic() + self.patience
        pause = 0.05
        while True:
            try:
                with self._writes.begin() as connection:
                    return work(connection)
            except DBAPIError as error:
                if not _passing(error) or time.monotonic() + pause > deadline:
                    raise explain(error, self.place) from error
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, 1.0)

    def version(self) -> str | None:
        """The schema version, None where there are no tables yet."""
        try:
            if self.file and not self.file.exists():
                return None
        except OSError as error:
            raise BadInput(f"the database at {self.place} cannot be opened: {error.strerror or error}") from None
        with self.read() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            return connection.execute(select(text("version_num")).select_from(table("alembic_version"))).scalar()

    def check(self) -> None:
        """Raises BadInput, naming the command that mends it, unless the schema is the one this code knows."""
        version = self.version()
        if version == models.VERSIONS[-1]:
            return
        if version is None:
            raise BadInput(f"there is no runs database at {self.place} yet: `python -m runs_db migrate` makes one")
        if version in models.VERSIONS:
            raise BadInput(
                f"the database at {self.place} has the old schema {version}: stop what uses it, then "
                f"`python -m runs_db migrate` brings it to {models.VERSIONS[-1]} and keeps its runs"
            )
        raise BadInput(
            f"the database at {self.place} has schema {version}, which this version does not know (it knows up to "
            f"{models.VERSIONS[-1]}): update the code, or set RUNS_DB_URL to another database"
        )

    def close(self) -> None:
        """Give all connections back. A later use opens new ones."""
        self.engine.dispose()


def upsert(connection: Connection, into: Any) -> Any:
    """An INSERT that knows ON CONFLICT, in the database's own dialect."""
    return postgresql.insert(into) if connection.dialect.name == "postgresql" else sqlite.insert(into)


def sound_wal(version: tuple[int, ...]) -> bool:
    """Whether this SQLite is free of the race that can corrupt a database when the write-ahead log is reset."""
    return version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)


def explain(error: DBAPIError, place: str) -> Exception:
    """What a database error means, as one sentence; `error` itself where it would be a bug of ours."""
    code = _sqlite_code(error)
    sentence = {
        sqlite3.SQLITE_BUSY: "is locked by another program; wait a moment and try again",
        sqlite3.SQLITE_LOCKED: "is locked by another program; wait a moment and try again",
        sqlite3.SQLITE_FULL: "cannot grow: the disk is full",
        sqlite3.SQLITE_IOERR: "cannot be read or written: the disk is full, failing or gone",
        sqlite3.SQLITE_CORRUPT: "is damaged: restore a copy of it",
    }.get(code or 0)
    if sentence:
        return Unavailable(f"the database at {place} {sentence}")
    sentence = {
        sqlite3.SQLITE_CANTOPEN: "cannot be opened: the file must exist, and file and folder must be readable and writable",
        sqlite3.SQLITE_READONLY: "may not be written: file and folder must be writable",
        sqlite3.SQLITE_PERM: "may not be opened: file and folder must be readable and writable",
        sqlite3.SQLITE_AUTH: "may not be opened: file and folder must be readable and writable",
        sqlite3.SQLITE_NOTADB: "is not a database: set RUNS_DB_URL to another file",
    }.get(code or 0)
    if sentence:
        return BadInput(f"the database at {place} {sentence}")
    if "no such table" in str(error.orig) or _sqlstate(error) == "42P01":
        return BadInput(f"the database at {place} has no such tables: `python -m runs_db migrate` makes them")
    if _sqlstate(error) == "53100":
        return Unavailable(f"the database at {place} cannot grow: the disk is full")
    if _passing(error):
        return Unavailable(f"the database at {place} cannot be reached: {str(error.orig).strip().splitlines()[0]}")
    return error


def _passing(error: DBAPIError) -> bool:
    """Whether trying again may help: locked, deadlocked, or the server is restarting."""
    if isinstance(error.orig, sqlite3.Error):
        return _sqlite_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    state = _sqlstate(error)
    unreachable = state is None and type(error.orig).__name__ == "OperationalError"
    return error.connection_invalidated or unreachable or state in ("40001", "40P01", "57P01", "57P02", "57P03", "53300")


def _sqlite_code(error: DBAPIError) -> int | None:
    code = getattr(error.orig, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


def _absolute(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise BadInput("RUNS_DB_URL is not a database URL: write sqlite:///PATH or postgresql://USER@HOST/NAME") from None
    kind = parsed.get_backend_name()
    if kind == "sqlite":
        if parsed.database in (None, "", ":memory:"):
            raise BadInput("RUNS_DB_URL must name a file: write sqlite:///PATH")
        return parsed.set(database=str(Path(str(parsed.database)).absolute()))
    if kind != "postgresql":
        raise BadInput(f"RUNS_DB_URL begins with {kind!r}, it must begin with sqlite or postgresql")
    return parsed


def _file(url: URL) -> Path | None:
    return Path(str(url.database)) if url.get_backend_name() == "sqlite" else None


def _engine(url: URL, busy: float, *, create: bool = False, foreign_keys: bool = True) -> Engine:
    """An engine that opens SQLite files by our rules; only with `create` may it make a file."""
    file = _file(url)
    if file is None:
        try:
            return create_engine(url, pool_pre_ping=True)
        except (ModuleNotFoundError, NoSuchModuleError):
            raise BadInput("a PostgreSQL database needs the driver psycopg: pip install 'psycopg[binary]'") from None
    address = f"file:{quote(str(file))}?mode={'rwc' if create else 'rw'}"

    def connect() -> sqlite3.Connection:
        # isolation_level None: the driver begins nothing by itself, `_begin` below does.
        return sqlite3.connect(address, uri=True, timeout=busy, isolation_level=None, check_same_thread=False)

    engine = create_engine(url, creator=connect)

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, record: Any) -> None:
        journal = "wal" if sound_wal(sqlite3.sqlite_version_info) else "delete"
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != journal:
            connection.execute(f"PRAGMA journal_mode={journal}")
        # A commit must be on the disk before the checkpoint that follows it; without a log that takes EXTRA.
        connection.execute(f"PRAGMA synchronous={'FULL' if journal == 'wal' else 'EXTRA'}")
        connection.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("immediate", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine
