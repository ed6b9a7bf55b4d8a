"""A migrated database of its own for each test, pages drawn without a browser, and small runs that were really trained."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.views import VIEWS
from drawn import Page
from runs_db.database import Database
from runs_db.migrate import migrate
from runs_db.store import Store

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file without rows."""
    path = tmp_path_factory.mktemp("empty") / "runs.sqlite"
    database = Database(f"sqlite:///{path}", path.parent)
    migrate(database)
    database.close()
    return path


@pytest.fixture
def lab(tmp_path: Path, empty_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty database that the environment names, for pages and for the test alike."""
    (tmp_path / "runs").mkdir()
    shutil.copy(empty_file, tmp_path / "runs" / "runs.sqlite")
    monkeypatch.setenv("RUNS_DB_URL", f"sqlite:///{tmp_path / 'runs' / 'runs.sqlite'}")
    monkeypatch.setenv("RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    st.cache_resource.clear()
    st.cache_data.clear()
    store = Store()
    yield store
    store.database.close()


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    """Draw a view: `page("runs", run=["1", "2"])`. Fails if it shows an exception."""
    monkeypatch.chdir(ROOT)

    def draw(view: str = "home", **query: str | list[str]) -> AppTest:
        test = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=60).run()
        assert not test.exception
        if view != VIEWS[0].file:
            test.switch_page(f"views/{view}.py")
            for name, value in query.items():
                test.query_params[name] = value
            test.run()
        assert not test.exception, [str(error.value) for error in test.exception]
        return test

    return draw


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, empty_file: Path) -> Path:
    """A RUNS_DIR with three runs that were trained: 1 is dsrm_hrl behind diffusion, 2 balanced, 3 mofir. Same small world."""
    from engine.recorder import MemoryRecorder
    from engine.run import run
    from filled import add, spec

    folder = tmp_path_factory.mktemp("trained")
    shutil.copy(empty_file, folder / "runs.sqlite")
    before = {name: os.environ.get(name) for name in ("RUNS_DIR", "RUNS_DB_URL")}
    os.environ |= {"RUNS_DIR": str(folder), "RUNS_DB_URL": f"sqlite:///{folder / 'runs.sqlite'}"}
    try:
        store = Store()
        quick = {"training_steps": 60, "parts": 2000, "hidden": 16, "steps": 4}
        vector = {"method": {"users": 20, "warm_up": 20, "hidden": 32, "actor_rate": 3e-3}}
        sizes = {"world": {"slate": 6, "max_len": 8}, "state": {"width": 8, "history": 60, "epochs": 3}}
        for method, more in (("dsrm_hrl", {"purifier": quick}), ("balanced", {}), ("mofir", vector)):
            wanted = spec(method, episodes=120, evaluation_episodes=60, device="cpu", settings={**sizes, **more})
            number = add(store, wanted)
            result = run(wanted, MemoryRecorder(), store.folder(number))
            assert result.metrics["len"] > 0
        store.database.close()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    return folder


@pytest.fixture
def theatre(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The database of the trained runs, as `lab`."""
    monkeypatch.setenv("RUNS_DIR", str(trained))
    monkeypatch.setenv("RUNS_DB_URL", f"sqlite:///{trained / 'runs.sqlite'}")
    st.cache_resource.clear()
    st.cache_data.clear()
    store = Store()
    yield store
    store.database.close()
