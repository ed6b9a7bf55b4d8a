"""A stop ends within 5 s whatever the run is doing, and leaves no process; leaving the worker loses nothing."""

from __future__ import annotations

import os
import signal
import time

import pytest

import toy
from bench import Bench, toys, until
from runs_db import queue

LIMIT = 5.0


def _stop(bench: Bench, run: int, worker: object | None) -> float:
    """Seconds from the request until the run has ended and none of its processes is left."""
    began = time.monotonic()
    bench.store.request_stop(run)

    def over() -> bool:
        if worker is not None:
            worker.turn()  # type: ignore[attr-defined]
        return bench.finished(run) and not toys(bench.database.folder)

    until(over, LIMIT)
    return time.monotonic() - began


def test_stop_while_queued(bench: Bench) -> None:
    run = bench.store.enqueue(toy.spec())
    assert bench.store.request_stop(run) == "stopped"
    bench.worker().turn()
    assert (bench.state(run), bench.store.get(run).epoch) == ("stopped", 0)


def test_stop_while_starting(bench: Bench) -> None:
    run = bench.store.enqueue(toy.spec())
    worker = bench.worker()
    worker.turn()
    assert bench.state(run) == "starting"
    assert _stop(bench, run, worker) < LIMIT
    found = bench.store.get(run)
    assert (found.state, found.error) == ("stopped", "")
    assert bench.curve(run) == {}


def test_stop_while_running(bench: Bench) -> None:
    """It answers by itself, keeps a checkpoint, and goes on from it when resumed."""
    run = bench.store.enqueue(toy.spec(steps=150, pause=0.005))
    worker = bench.worker()
    bench.drive(worker, lambda: bench.steps(run) > 20)
    assert _stop(bench, run, worker) < LIMIT
    found = bench.store.get(run)
    assert (found.state, found.error, found.stop_requested) == ("stopped", "", "")
    stopped_at = bench.steps(run)
    bench.store.resume(run)
    bench.drive(worker, lambda: bench.finished(run))
    assert (bench.state(run), bench.curve(run)) == ("done", toy.curve(150))
    assert f"from step {stopped_at}" in bench.store.log_tail(run)


@pytest.mark.parametrize("watched", [True, False], ids=["worker", "no worker"])
def test_stop_in_a_long_step(bench: Bench, watched: bool) -> None:
    """With no worker left the heartbeat of the trainer enforces the stop itself."""
    run = bench.store.enqueue(toy.spec(fault="sleep", at=20, times=9))
    worker = bench.worker()
    bench.drive(worker, lambda: bench.steps(run) == 20)
    assert _stop(bench, run, worker if watched else None) < LIMIT
    assert bench.state(run) == "stopped"
    assert "by force" in bench.store.get(run).error
    assert bench.curve(run) == toy.curve(20)


def test_stop_of_one_that_is_deaf_to_signals(bench: Bench) -> None:
    """It ignores SIGTERM, so does its child, and its own heartbeat is of no help."""
    run = bench.store.enqueue(toy.spec(fault="deaf", at=10))
    worker = bench.worker()
    bench.drive(worker, lambda: len(toys(bench.database.folder)) == 2)
    assert _stop(bench, run, worker) < LIMIT
    assert bench.state(run) == "stopped"


def test_children_end_with_their_run(bench: Bench) -> None:
    run = bench.store.enqueue(toy.spec(steps=20, fault="child", at=10))
    other = bench.store.enqueue(toy.spec(steps=30, fault="child kill", at=20))
    worker = bench.worker()
    bench.drive(worker, lambda: bench.finished(run) and bench.finished(other))
    bench.drive(worker, lambda: not toys(bench.database.folder), LIMIT)
    assert (bench.state(run), bench.state(other)) == ("done", "done")


def test_a_signal_alone_sends_the_run_back(bench: Bench) -> None:
    """Nobody asked the run to end, only its process: it goes back to the queue and no attempt is counted."""
    run = bench.store.enqueue(toy.spec(steps=100, pause=0.005))
    worker = bench.worker(attempts=1)
    process = bench.drive(worker, lambda: bench.process(run))
    bench.drive(worker, lambda: bench.steps(run) > 20)
    os.kill(process.pid, signal.SIGTERM)
    bench.drive(worker, lambda: bench.finished(run))
    assert (bench.state(run), bench.store.get(run).epoch) == ("done", 2)
    assert bench.curve(run) == toy.curve(100)


def test_ctrl_c_puts_runs_back(bench: Bench) -> None:
    runs = [bench.store.enqueue(toy.spec(seed, steps=200, pause=0.005)) for seed in (1, 2)]
    first = bench.worker_process()
    until(lambda: all(bench.steps(run) > 20 for run in runs))
    began = time.monotonic()
    first.send_signal(signal.SIGINT)
    assert first.wait(LIMIT) == 0
    assert time.monotonic() - began < LIMIT
    assert not toys(bench.database.folder)
    assert [bench.state(run) for run in runs] == ["queued", "queued"]
    assert bench.store.workers() == []
    steps = [bench.steps(run) for run in runs]
    second = bench.worker(attempts=1)
    bench.drive(second, lambda: all(bench.finished(run) for run in runs))
    for run, seed, before in zip(runs, (1, 2), steps, strict=True):
        assert (bench.state(run), bench.curve(run)) == ("done", toy.curve(200, seed))
        assert f"from step {before}" in bench.store.log_tail(run)


def test_ctrl_c_twice_leaves_runs_alone(bench: Bench) -> None:
    run = bench.store.enqueue(toy.spec(fault="deaf", at=10))
    first = bench.worker_process("--grace", "60")
    until(lambda: len(toys(bench.database.folder)) == 3)
    first.send_signal(signal.SIGINT)
    until(lambda: bench.state(run) == "stopping")
    first.send_signal(signal.SIGINT)
    assert first.wait(LIMIT) == 0
    assert bench.process(run) is not None
    assert len(toys(bench.database.folder)) == 2


def test_a_stop_is_not_weakened(bench: Bench) -> None:
    """Stop, then Ctrl-C: the run stays stopped."""
    run = bench.store.enqueue(toy.spec(fault="sleep", at=5, times=9))
    worker = bench.worker()
    bench.drive(worker, lambda: bench.process(run))
    queue.ask(bench.database, run, queue.REQUEUE)
    bench.store.request_stop(run)
    queue.ask(bench.database, run, queue.REQUEUE)
    bench.drive(worker, lambda: bench.state(run) != "stopping", LIMIT)
    assert bench.state(run) == "stopped"
