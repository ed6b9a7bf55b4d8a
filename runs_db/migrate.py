"""The only place that makes or changes tables: one process at a time, in one transaction, all or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from filelock import FileLock, Timeout
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from engine.options import BadInput
from runs_db import models
from runs_db.database import Database, Unavailable, _engine, explain

ADVISORY_LOCK = 7_253_001  # any number that no other program takes on this PostgreSQL server


def migrate(database: Database, *, wait: float = 60.0) -> bool:
    """Bring the schema to the newest version; True if there was something to do. Safe to call from many processes at once.

    Raises BadInput for a database of a newer version or a path that cannot be used, Unavailable after `wait` seconds.
    """
    try:
        with _alone(database, wait):
            version = database.version()
            if version == models.VERSIONS[-1]:
                return False
            if version is not None:
                _refuse_unknown(database, version)
            engine = _engine(database.url, database.busy, create=True, foreign_keys=False)
            try:
                # Foreign keys are off: SQLite's ALTER copies a table and drops the old one, which would cascade.
                with engine.execution_options(immediate=True).begin() as connection:
                    _upgrade(connection)
            finally:
                engine.dispose()
            return True
    except DBAPIError as error:
        raise explain(error, database.place) from error


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, models.VERSIONS[-1])


def _refuse_unknown(database: Database, version: str) -> None:
    if version not in models.VERSIONS:
        database.check()


@contextmanager
def _alone(database: Database, wait: float) -> Iterator[None]:
    """One process migrates; the others wait, then find the work done."""
    if database.file is None:
        with database.engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ADVISORY_LOCK})
            connection.commit()
            try:
                yield
            finally:
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": ADVISORY_LOCK})
                connection.commit()
        return
    try:
        database.file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{database.file}.lock", timeout=wait)
        with lock:
            yield
    except Timeout:
        raise Unavailable(f"another program has been changing the database at {database.place} for {wait:.0f} s") from None
    except OSError as error:
        raise BadInput(f"the database at {database.place} cannot be made: {error.strerror or error}") from None
