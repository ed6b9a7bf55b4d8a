"""A database of its own for each test: SQLite, and also PostgreSQL where RUNS_DB_TEST_URL names a server to play with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from bench import Bench
from engine import catalog
from runs_db.database import Database
from runs_db.migrate import migrate
from runs_db.store import Store

SERVER = os.environ.get("RUNS_DB_TEST_URL")


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file without rows."""
    path = tmp_path_factory.mktemp("empty") / "runs.sqlite"
    database = Database(f"sqlite:///{path}", path.parent)
    migrate(database)
    database.close()
    return path


@pytest.fixture(params=["sqlite", "postgresql"] if SERVER else ["sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path, empty: Path) -> str:
    """The URL of an empty database."""
    if request.param == "postgresql":
        assert SERVER
        engine = create_engine(SERVER)
        with engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
        engine.dispose()
        migrate(Database(SERVER, tmp_path))
        return SERVER
    shutil.copy(empty, tmp_path / "runs.sqlite")
    return f"sqlite:///{tmp_path / 'runs.sqlite'}"


@pytest.fixture
def store(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store; RUNS_DB_URL and RUNS_DIR name it too."""
    monkeypatch.setenv("RUNS_DB_URL", url)
    monkeypatch.setenv("RUNS_DIR", str(tmp_path / "runs"))
    (tmp_path / "runs").mkdir()
    store = Store()
    yield store
    store.database.close()


@pytest.fixture
def bench(store: Store) -> Iterator[Bench]:
    bench = Bench(store)
    yield bench
    bench.close()


@pytest.fixture
def toy_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Method, purifier and dataset `toy`, known to the catalog of this process."""
    for rows in catalog.TABLES.values():
        monkeypatch.setitem(rows, "toy", "toy_parts")
