"""The schema: made once by many, refused in words when it is old, new, absent or no database at all."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

import runs_db
import toy
from engine.options import BadInput
from runs_db import models
from runs_db.database import Database, Unavailable, sound_wal
from runs_db.migrate import migrate
from runs_db.store import Store


def _first_start(place: str, ready: Any, results: Any) -> None:
    database = Database(f"sqlite:///{place}/deep/runs.sqlite", place)
    ready.wait()
    try:
        changed = migrate(database)
        results.put((changed, Store(f"sqlite:///{place}/deep/runs.sqlite", place).enqueue(toy.spec())))
    except Exception as error:
        results.put((repr(error), 0))


def test_concurrent_first_start(tmp_path: Path) -> None:
    """Six processes find no database at the same moment: one makes it, all use it."""
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(6), context.Queue()
    starters = [context.Process(target=_first_start, args=(str(tmp_path), ready, results), daemon=True) for _ in range(6)]
    for starter in starters:
        starter.start()
    found = [results.get(timeout=60) for _ in starters]
    for starter in starters:
        starter.join()
    assert sorted(changed for changed, _ in found) == [False] * 5 + [True]
    assert sorted(run for _, run in found) == list(range(1, 7))


def test_migrations_make_the_models(store: Store) -> None:
    assert ScriptDirectory(str(Path(runs_db.__file__).parent / "migrations")).get_heads() == [models.VERSIONS[-1]]
    with store.database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), models.metadata) == []
    if store.database.file:
        with store.database.read() as connection:
            tables = dict(connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'table'")).all())
        assert "AUTOINCREMENT" in tables["runs"]
        assert "WITHOUT ROWID" in tables["metrics"]
        assert "ON DELETE CASCADE" in tables["metrics"]


def test_no_database_yet(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no runs database at .*: `python -m runs_db migrate` makes one"):
        Store(f"sqlite:///{tmp_path}/none.sqlite", tmp_path)
    assert list(tmp_path.iterdir()) == [], "looking makes no file"


def test_old_schema_is_refused_then_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another migration appears: programs refuse the old file in words; `migrate` brings it up to date and keeps the rows,
    although SQLite can only change the table by replacing it, and metrics hang on its rows."""
    url = f"sqlite:///{tmp_path}/runs.sqlite"
    migrate(Database(url, tmp_path))
    store = Store(url, tmp_path)
    run = store.enqueue(toy.spec(), "kept")
    with store.database._writes.begin() as connection:
        connection.execute(text("INSERT INTO metric_names VALUES (1, 'a')"))
        connection.execute(text(f"INSERT INTO metrics VALUES ({run}, 1, 1, 0.5)"))
    store.database.close()
    copy = tmp_path / "code" / "migrations"
    shutil.copytree(Path(runs_db.__file__).parent / "migrations", copy)
    (copy / "versions" / "0003_more.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\nrevision = '0003'\ndown_revision = '0002'\n"
        "def upgrade():\n    with op.batch_alter_table('runs', recreate='always') as batch:\n"
        "        batch.add_column(sa.Column('more', sa.Integer))\n"
    )
    monkeypatch.setattr(models, "VERSIONS", (*models.VERSIONS, "0003"))
    monkeypatch.setattr("runs_db.migrate.__file__", str(copy.parent / "migrate.py"))
    with pytest.raises(BadInput, match=r"has the old schema 0002: .*`python -m runs_db migrate` brings it to 0003"):
        Store(url, tmp_path)
    assert migrate(Database(url, tmp_path)) is True
    assert migrate(Database(url, tmp_path)) is False
    after = Store(url, tmp_path)
    assert after.get(run).name == "kept"
    assert after.last_values([run], ["a"]) == {run: {"a": 0.5}}


def test_a_file_of_the_first_version_gets_chores_and_keeps_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/runs.sqlite"
    with monkeypatch.context() as patch:
        patch.setattr(models, "VERSIONS", ("0001",))
        migrate(Database(url, tmp_path))
        run = Store(url, tmp_path).enqueue(toy.spec(), "old")
    with pytest.raises(BadInput, match="has the old schema 0001"):
        Store(url, tmp_path)
    assert migrate(Database(url, tmp_path)) is True
    after = Store(url, tmp_path)
    assert after.get(run).name == "old"
    assert after.chore(run) is None


def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/runs.sqlite"
    migrate(Database(url, tmp_path))
    copy = tmp_path / "code" / "migrations"
    shutil.copytree(Path(runs_db.__file__).parent / "migrations", copy)
    (copy / "versions" / "0003_bad.py").write_text(
        "from alembic import op\nrevision = '0003'\ndown_revision = '0002'\n"
        "def upgrade():\n    op.drop_table('episodes')\n    raise RuntimeError('half way')\n"
    )
    with monkeypatch.context() as patch:
        patch.setattr(models, "VERSIONS", (*models.VERSIONS, "0003"))
        patch.setattr("runs_db.migrate.__file__", str(copy.parent / "migrate.py"))
        with pytest.raises(RuntimeError, match="half way"):
            migrate(Database(url, tmp_path))
    assert Store(url, tmp_path).episodes(1).empty


def test_newer_schema_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.sqlite"
    migrate(Database(url, tmp_path))
    with Database(url, tmp_path)._writes.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for attempt in (lambda: Store(url, tmp_path), lambda: migrate(Database(url, tmp_path))):
        with pytest.raises(BadInput, match="schema 9999, which this version does not know"):
            attempt()


def test_paths_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("this is a text, not a database, and long enough to have a header" * 20)
    (tmp_path / "folder").mkdir()
    for name, words in (("file", "is not a database"), ("folder", "cannot be opened"), ("file/under", "cannot be")):
        for attempt in (Store, lambda url, folder: migrate(Database(url, folder))):
            with pytest.raises(BadInput) as caught:
                attempt(f"sqlite:///{tmp_path}/{name}", tmp_path)
            assert "\n" not in str(caught.value)
            assert words in str(caught.value) or (attempt is Store and "no runs database" in str(caught.value))
    for url, words in (
        ("sqlite://", "must name a file"),
        ("mysql://x", "must begin with sqlite or postgresql"),
        ("rubbish", "is not a database URL"),
    ):
        with pytest.raises(BadInput, match=words):
            Database(url, tmp_path)


@contextmanager
def _somebody_else() -> Iterator[None]:
    """Root may read and write anything, so tests of permissions are done as nobody."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def _within_everyones_reach() -> str:
    """A folder that whoever the tests of permissions are done as can get to; TMPDIR may be root's alone."""
    with _somebody_else():
        for folder in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
            if os.access(folder, os.X_OK, effective_ids=True):
                return folder
    pytest.skip("no temporary folder can be reached without being root")


def test_missing_permission() -> None:
    with tempfile.TemporaryDirectory(dir=_within_everyones_reach()) as folder:
        url, file = f"sqlite:///{folder}/runs.sqlite", Path(folder, "runs.sqlite")
        migrate(Database(url, folder))
        Store(url, folder).counts()
        for folder_mode, file_mode, words in (
            (0o755, 0o444, "may not be written: file and folder must be writable"),
            (0o755, 0o000, "cannot be opened"),
            (0o000, 0o644, "cannot be opened"),
        ):
            file.chmod(file_mode)
            Path(folder).chmod(folder_mode)
            with _somebody_else(), pytest.raises(BadInput, match=words) as caught:
                Store(url, folder).enqueue(toy.spec())
            assert "\n" not in str(caught.value)
            Path(folder).chmod(0o755)


def test_locked_database_is_one_sentence(store: Store) -> None:
    if store.database.file is None:
        pytest.skip("SQLite's lock")
    impatient = Store(busy=0.1)
    with store.database._writes.begin(), pytest.raises(Unavailable, match="locked by another program") as caught:
        impatient.enqueue(toy.spec())
    assert "\n" not in str(caught.value)
    impatient.database.close()


def test_reads_do_not_lock(store: Store) -> None:
    """BEGIN IMMEDIATE is for writes only: a page can read while a run writes, and the other way round."""
    if store.database.file is None:
        pytest.skip("SQLite's lock")
    run = store.enqueue(toy.spec())
    impatient = Store(busy=0.1)
    with store.database._writes.begin():
        assert impatient.get(run).id == run
    with impatient.database.read() as connection:
        connection.execute(text("SELECT 1"))
        store.set_notes(run, "written meanwhile")
    impatient.database.close()


@pytest.mark.parametrize("version", ["3.44.6", "3.50.7", "3.51.3", "3.52.0"])
def test_sqlite_that_may_use_a_write_ahead_log(version: str) -> None:
    assert sound_wal(tuple(int(part) for part in version.split(".")))


@pytest.mark.parametrize("version", ["3.40.1", "3.44.5", "3.45.0", "3.50.6", "3.51.2"])
def test_sqlite_that_may_not(version: str) -> None:
    assert not sound_wal(tuple(int(part) for part in version.split(".")))


def test_settings_of_a_connection(store: Store) -> None:
    if store.database.file is None:
        pytest.skip("SQLite's settings")
    with store.database.read() as connection:

        def pragma(name: str) -> Any:
            return connection.execute(text(f"PRAGMA {name}")).scalar_one()

        sound = sound_wal(sqlite3.sqlite_version_info)
        found = [pragma(name) for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")]
        assert found == ["wal" if sound else "delete", 2 if sound else 3, 1, 30_000]
