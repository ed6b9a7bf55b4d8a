"""`python -m app`: healthy, one line, one sentence for each failure, and nothing left behind."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path

import psutil
import pytest

from runs_db.store import Store
from serving import Lab, lab


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> object:
    with lab(tmp_path_factory.mktemp("served"), "--slots", "1") as found:
        found.ready()
        yield found


def test_it_says_where_it_is_in_one_line_and_answers(running: Lab) -> None:
    assert running.said == [f"Fairstate is at {running.url}"]
    assert running.healthy()
    assert (running.folder / "runs.sqlite").is_file(), "the database was made"
    deadline = time.monotonic() + 10
    store = Store(f"sqlite:///{running.folder / 'runs.sqlite'}", running.folder)
    while not store.workers() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [worker.slots for worker in store.workers()] == [1]


def test_it_listens_to_this_machine_alone_and_to_its_own_name(running: Lab) -> None:
    app = running.child("streamlit")
    listening = {entry.laddr.ip for entry in app.net_connections() if entry.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}
    assert running.handshake(f"127.0.0.1:{running.port}") == 101
    assert running.handshake("evil.example") == 403, "a page elsewhere cannot reach it through a name of its own"


def test_a_worker_that_dies_is_replaced_with_a_note(running: Lab) -> None:
    first = running.child("runs_db")
    first.kill()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if running.child("runs_db").pid != first.pid:
                break
        except LookupError:
            pass
        time.sleep(0.1)
    assert running.child("runs_db").pid != first.pid
    assert any("the worker died" in line and "a new one takes over" in line for line in running.warned)
    assert len(running.said) == 1


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_within_seconds_and_leaves_nothing(tmp_path: Path, name: signal.Signals) -> None:
    with lab(tmp_path) as found:
        found.ready()
        family = psutil.Process(found.process.pid).children(recursive=True)
        assert len(family) >= 2
        assert found.stop(name) < 6
        assert found.process.returncode == 0
        assert not [child for child in family if child.is_running()]
        assert not found.healthy()
        assert found.warned == []
    assert Store(f"sqlite:///{tmp_path / 'runs.sqlite'}", tmp_path).workers() == [], "the worker signed off"


def test_the_second_start_is_quick(tmp_path: Path) -> None:
    for _ in range(2):
        began = time.monotonic()
        with lab(tmp_path, "--no-worker") as found:
            found.ready()
            taken = time.monotonic() - began
            with pytest.raises(LookupError):
                found.child("runs_db")
    assert taken < 5


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with lab(tmp_path, port=port) as found:
            assert found.process.wait(20) == 2
    assert found.said == []
    assert found.warned == [
        f"error: --port {port} is in use: another program listens there; choose another, for example --port {port + 1}"
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--port", "none"), "error: --port none is not legal: it must be a whole number from 1 to 65535"),
        (("--slots", "0"), "error: --slots 0 is not legal: it must be 1 or more"),
        (("--sloots", "1"), "error: python -m app: unrecognized arguments: --sloots 1"),
    ],
)
def test_bad_options_are_one_sentence(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    with lab(tmp_path, *options) as found:
        assert found.process.wait(20) == 2
    assert found.warned == [said]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with lab(tmp_path, RUNS_DIR=str(tmp_path / "file" / "runs")) as found:
        assert found.process.wait(20) == 2
    assert len(found.warned) == 1
    assert found.warned[0].startswith(f"error: RUNS_DIR = '{tmp_path}/file/runs' cannot be written: ")


def test_a_database_of_the_future_is_one_sentence(tmp_path: Path) -> None:
    with lab(tmp_path, "--no-worker") as found:
        found.ready()
    store = Store(f"sqlite:///{tmp_path / 'runs.sqlite'}", tmp_path)
    with store.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    store.database.close()
    with lab(tmp_path) as found:
        assert found.process.wait(20) == 2
    assert len(found.warned) == 1
    assert "has schema 9999, which this version does not know" in found.warned[0]


def test_streamlit_dying_is_one_sentence_and_ends_all(tmp_path: Path) -> None:
    with lab(tmp_path) as found:
        found.ready()
        worker = found.child("runs_db")
        found.child("streamlit").kill()
        assert found.process.wait(15) == 1
        assert not worker.is_running()
    assert len(found.warned) == 1
    assert found.warned[0].startswith("error: Streamlit was ended by signal 9; what it said is in ")
