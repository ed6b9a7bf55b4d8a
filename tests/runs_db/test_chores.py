"""Chores: never done twice at once, a crash is seen and can be tried again, and they take their share of the machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

import toy
from bench import Bench, toys, until
from engine.options import BadInput
from runs_db import chores, executors, files, identity, models, queue
from runs_db.database import Database
from runs_db.store import Store
from runs_db.worker import Worker

WRITE = """
import hashlib, pathlib, sys, time
folder = pathlib.Path(sys.argv[-1])
with (folder / "done").open("a") as file:
    file.write("x")
(folder / "maps.pt.sha256").write_text(hashlib.sha256(b"map").hexdigest())
(folder / "maps.pt").write_bytes(b"map")
"""
SLEEP = "import pathlib, sys, time; (pathlib.Path(sys.argv[-1]) / 'here').write_text('x'); time.sleep(60)"
FAIL = "import sys; print('error: a map needs 10 test users', file=sys.stderr); sys.exit(2)"


def finished(bench: Bench) -> int:
    """A done run with a folder."""
    run = bench.store.enqueue(toy.spec())
    bench.set(run, state=models.DONE)
    bench.store.folder(run).mkdir(parents=True, exist_ok=True)
    return run


def worker(bench: Bench, code: str, **options: Any) -> Worker:
    """A worker in this process whose chores are a few lines of Python."""
    local = executors.Local(bench.database, toy.COMMAND, toy.OPTIONS, {chores.MAPS: (sys.executable, "-c", code)})
    settings = {"slots": 4, "threads": 8, "lease": 30.0, "grace": 1.5, "tell": lambda words: None}
    return Worker(bench.database, local, **(settings | options))


def state(bench: Bench, run: int) -> str:
    found = bench.store.chore(run)
    return "none" if found is None else found.state


def process_of(bench: Bench, run: int) -> psutil.Process:
    found = bench.store.chore(run)
    assert found is not None
    assert found.process is not None
    return psutil.Process(found.process.pid)


def test_the_engine_and_the_queue_mean_the_same_file() -> None:
    from engine import maps

    assert files.MAPS == maps.FILE


def test_a_chore_is_asked_for_and_done(bench: Bench) -> None:
    run = finished(bench)
    assert bench.store.chore(run) is None
    assert bench.store.ask_chore(run) == "queued"
    assert bench.store.ask_chore(run) == "queued", "asking twice asks once"
    mine = worker(bench, WRITE)
    bench.drive(mine, lambda: state(bench, run) == "done")
    assert (bench.store.folder(run) / "done").read_text() == "x"
    assert bench.drive(mine, mine.turn), "nothing is left to do"
    assert bench.store.ask_chore(run) == "queued", "it can be asked for again, should the file be lost"
    bench.drive(mine, lambda: state(bench, run) == "done")
    assert (bench.store.folder(run) / "done").read_text() == "xx"


def test_only_done_runs_have_chores(bench: Bench) -> None:
    run = bench.store.enqueue(toy.spec())
    with pytest.raises(BadInput, match=f"run {run} is queued: it must be done first"):
        bench.store.ask_chore(run)
    with pytest.raises(BadInput, match="run 99 does not exist"):
        bench.store.ask_chore(99)
    with pytest.raises(BadInput, match="chore = 'dishes' is not legal"):
        bench.store.ask_chore(run, "dishes")


def _claim_all(place: tuple[str, str], ready: Any, results: Any) -> None:
    database = Database(*place)
    ready.wait()
    taken = []
    while chore := chores.claim(database, 1, identity.mine(), threads=10**6, slots=10**6):
        taken.append((chore.run, chore.epoch))
    results.put(taken)


def test_no_chore_is_claimed_twice(bench: Bench) -> None:
    """6 processes race for 40 rows."""
    ids = [finished(bench) for _ in range(40)]
    for run in ids:
        bench.store.ask_chore(run)
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(6), context.Queue()
    place = (bench.database.url.render_as_string(hide_password=False), str(bench.database.folder))
    claimers = [context.Process(target=_claim_all, args=(place, ready, results), daemon=True) for _ in range(6)]
    for claimer in claimers:
        claimer.start()
    taken = [results.get(timeout=60) for _ in claimers]
    for claimer in claimers:
        claimer.join()
    assert sorted(run for part in taken for run, _ in part) == ids
    assert {epoch for part in taken for _, epoch in part} == {1}


def test_chores_and_runs_share_the_machine(bench: Bench) -> None:
    me, db = identity.mine(), bench.database
    for run in [finished(bench), finished(bench)]:
        bench.store.ask_chore(run)
    waiting = bench.store.enqueue(toy.spec(threads=1))
    wide = bench.store.enqueue(toy.spec(threads=2))
    assert chores.claim(db, 1, me, threads=2, slots=1) is not None
    assert queue.claim(db, 1, me, threads=2, slots=1) is None, "the chore has the only slot"
    assert queue.claim(db, 1, me, threads=2, slots=2) == queue.Claim(waiting, 1, 1, 1)
    assert chores.claim(db, 1, me, threads=2, slots=9) is None, "no thread is left"
    assert chores.claim(db, 1, me, threads=9, slots=2) is None, "no slot is left"
    assert queue.finish(db, waiting, 1, "stopped") == "stopped"
    assert queue.claim(db, 1, me, threads=2, slots=9) is None, "a wide run and a chore are three threads"
    (running,) = [chore for chore in chores.open_ones(db) if chore.state == "running"]
    assert chores.end(db, running, models.DONE)
    assert queue.claim(db, 1, me, threads=2, slots=9) == queue.Claim(wide, 1, 2, 1)


def test_a_failure_says_why_and_can_be_tried_again(bench: Bench) -> None:
    run = finished(bench)
    bench.store.ask_chore(run)
    bench.drive(worker(bench, FAIL), lambda: state(bench, run) == "failed")
    found = bench.store.chore(run)
    assert found is not None
    assert found.error == "a map needs 10 test users"
    assert bench.store.chore_tail(run) == "error: a map needs 10 test users"
    assert bench.store.ask_chore(run) == "queued"
    again = bench.store.chore(run)
    assert again is not None
    assert again.error == ""
    bench.drive(worker(bench, WRITE), lambda: state(bench, run) == "done")


def test_a_kill_is_seen(bench: Bench) -> None:
    run = finished(bench)
    bench.store.ask_chore(run)
    mine = worker(bench, SLEEP)
    bench.drive(mine, lambda: (bench.store.folder(run) / "here").exists())
    process_of(bench, run).kill()
    bench.drive(mine, lambda: state(bench, run) == "failed")
    found = bench.store.chore(run)
    assert found is not None
    assert "ended by SIGKILL" in found.error


@pytest.mark.parametrize(("left", "ended"), [(True, "done"), (False, "failed")])
def test_a_worker_that_died_is_replaced(bench: Bench, left: bool, ended: str) -> None:
    """The process goes on without its worker; the next one cannot know its exit status, and looks for what it left."""
    run = finished(bench)
    bench.store.ask_chore(run)
    first = worker(bench, SLEEP)
    bench.drive(first, lambda: (bench.store.folder(run) / "here").exists())
    bench.database.write(
        lambda connection: connection.execute(models.workers.update().values(pid=2**22 + 1, pid_started="gone"))
    )
    second = worker(bench, SLEEP)
    second.turn()
    found = bench.store.chore(run)
    assert found is not None
    assert (found.state, found.worker) == ("running", second.id)
    folder = bench.store.folder(run)
    if left:
        import hashlib

        (folder / files.MAPS).write_bytes(b"map")
        (folder / f"{files.MAPS}.sha256").write_text(hashlib.sha256(b"map").hexdigest())
    process_of(bench, run).kill()
    bench.drive(second, lambda: state(bench, run) == ended)


def test_a_worker_leaves_the_chores_of_another_alone(bench: Bench) -> None:
    """Only the parent of a process is told how it ended."""
    run = finished(bench)
    bench.store.ask_chore(run)
    first, second = worker(bench, FAIL), worker(bench, FAIL)
    first.turn()
    process = process_of(bench, run)
    until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
    second.turn()
    assert state(bench, run) == "running"
    first.turn()
    found = bench.store.chore(run)
    assert found is not None
    assert found.error == "a map needs 10 test users"


def test_another_machine_is_given_up_when_its_lease_is_over(bench: Bench) -> None:
    run, me = finished(bench), identity.mine()
    bench.store.ask_chore(run)
    elsewhere = replace(me, boot_id="another machine", host="there")
    mine = worker(bench, WRITE)
    assert chores.claim(bench.database, mine.id + 7, elsewhere, threads=8, slots=4, lease=0.2) is not None
    mine.turn()
    assert state(bench, run) == "running"
    time.sleep(0.3)
    mine.turn()
    found = bench.store.chore(run)
    assert found is not None
    assert (found.state, found.error) == ("failed", "its machine there was not heard of")


def test_leaving_sends_chores_back(bench: Bench) -> None:
    run = finished(bench)
    bench.store.ask_chore(run)
    mine = worker(bench, SLEEP)
    bench.drive(mine, lambda: (bench.store.folder(run) / "here").exists())
    process = process_of(bench, run)
    mine.leave()
    mine.serve()
    assert state(bench, run) == "queued"
    until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


def test_a_deleted_run_takes_its_chore_along(bench: Bench) -> None:
    run = finished(bench)
    bench.store.ask_chore(run)
    mine = worker(bench, SLEEP)
    bench.drive(mine, lambda: (bench.store.folder(run) / "here").exists())
    process = process_of(bench, run)
    bench.store.delete([run])
    assert bench.store.chore(run) is None
    mine.turn()
    until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
    bench.drive(mine, lambda: not toys(bench.database.folder))


def test_a_chore_that_takes_too_long_is_ended(bench: Bench) -> None:
    run = finished(bench)
    bench.store.ask_chore(run)
    mine = worker(bench, SLEEP)
    mine.keeper._longest = 0.2
    bench.drive(mine, lambda: state(bench, run) == "failed")
    found = bench.store.chore(run)
    assert found is not None
    assert "took longer than" in found.error
    bench.drive(mine, lambda: not toys(bench.database.folder))


def test_a_fence_keeps_late_writers_out(bench: Bench) -> None:
    run, me, db = finished(bench), identity.mine(), bench.database
    bench.store.ask_chore(run)
    first = chores.claim(db, 1, me, threads=8, slots=4)
    assert first is not None
    assert chores.end(db, first, models.FAILED, "died")
    assert not chores.end(db, first, models.DONE), "it has ended"
    bench.store.ask_chore(run)
    assert chores.claim(db, 1, me, threads=8, slots=4) is not None
    assert not chores.end(db, first, models.DONE), "this is another attempt"
    assert not chores.started(db, first, me)
    assert state(bench, run) == "running"


def test_a_real_worker_process_does_it_once_for_two_workers(bench: Bench) -> None:
    """Two workers in processes of their own, killed without mercy afterwards."""
    run = finished(bench)
    ones = [bench.worker_process(), bench.worker_process()]
    until(lambda: len(bench.store.workers()) == 2)
    bench.store.ask_chore(run)
    until(lambda: state(bench, run) == "failed", 60)  # the folder holds no run: what `engine map` says reaches the row
    found = bench.store.chore(run)
    assert found is not None
    assert found.epoch == 1
    assert "it must be a finished run's folder" in found.error
    for one in ones:
        os.kill(one.pid, signal.SIGKILL)


def test_a_whole_file_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    from engine import checkpoint

    path = tmp_path / "maps.pt"
    assert not files.whole(path)
    checkpoint.write_tensors(path, {"a": 1})
    assert files.whole(path)
    path.write_bytes(path.read_bytes()[:-1])
    assert not files.whole(path)


def test_deleting_a_run_elsewhere_does_not_disturb_chores(store: Store) -> None:
    run, other = store.enqueue_all([toy.spec(1), toy.spec(2)])
    store.database.write(lambda connection: connection.execute(models.runs.update().values(state=models.DONE)))
    store.ask_chore(run)
    store.ask_chore(other)
    store.delete([other])
    assert [chore.run for chore in chores.open_ones(store.database)] == [run]
