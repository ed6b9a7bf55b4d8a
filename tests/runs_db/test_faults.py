"""Whatever is killed, frozen or cut off: every step once, every value as if nothing had happened, one terminal state."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

import toy
from bench import Bench, toys, until
from runs_db import identity, models, queue
from runs_db.recorder import DatabaseRecorder, Fenced


def test_undisturbed_run(bench: Bench) -> None:
    run = bench.store.enqueue(toy.spec(steps=60))
    worker = bench.worker()
    bench.drive(worker, lambda: bench.finished(run))
    found = bench.store.get(run)
    assert (found.state, found.progress, found.epoch, found.error) == ("done", 1.0, 1, "")
    assert found.summary is not None
    assert found.summary["len"] == toy.curve(60)[60]
    assert "spec" not in found.summary
    assert bench.curve(run) == toy.curve(60)
    assert bench.store.episodes(run).user.tolist() == [1, 3]
    assert bench.store.episodes(run).ad.isna().tolist() == [True, False]
    assert "from step 0" in bench.store.log_tail(run)
    assert found.summary["stages"].keys() == {"train"}
    assert bench.drive(worker, lambda: not toys(bench.database.folder)) is True


def test_kill_trainer_at_random_moments(bench: Bench) -> None:
    run = bench.store.enqueue(toy.spec(steps=150, pause=0.005))
    worker = bench.worker(attempts=20)
    lucky = random.Random(1)
    for _ in range(4):
        process = bench.drive(worker, lambda: bench.process(run))
        aim = bench.steps(run) + lucky.randint(1, 25)
        bench.drive(worker, lambda aim=aim: bench.steps(run) >= min(aim, 140) or bench.finished(run))
        os.kill(process.pid, signal.SIGKILL)
        bench.drive(worker, lambda process=process: bench.process(run) != process)
    bench.drive(worker, lambda: bench.finished(run))
    assert bench.state(run) == "done"
    assert bench.store.get(run).epoch == 5
    assert bench.curve(run) == toy.curve(150)


def test_kill_between_commit_and_checkpoint(bench: Bench) -> None:
    run = bench.store.enqueue(toy.spec(steps=80, fault="kill between", at=40, times=2))
    bench.drive(bench.worker(), lambda: bench.finished(run))
    assert bench.state(run) == "done"
    assert bench.store.get(run).epoch == 3
    assert bench.curve(run) == toy.curve(80)


def test_negative_control_checkpoint_first(bench: Bench) -> None:
    """The wrong order loses points for good. If this suite could not see that, it could not see anything."""
    run = bench.store.enqueue(toy.spec(steps=80, fault="checkpoint first", at=40))
    bench.drive(bench.worker(), lambda: bench.finished(run))
    assert bench.state(run) == "done"
    assert bench.curve(run) != toy.curve(80)
    assert 40 in set(toy.curve(80)) - set(bench.curve(run))


def test_kill_worker(bench: Bench) -> None:
    """The run goes on; a new worker adopts it, and can still stop it."""
    run = bench.store.enqueue(toy.spec(steps=100_000, pause=0.01))
    first = bench.worker_process()
    process = until(lambda: bench.process(run))
    first.kill()
    first.wait()
    before = bench.steps(run)
    until(lambda: bench.steps(run) > before + 5)
    second = bench.worker()
    bench.drive(second, lambda: queue.active(bench.database)[0].worker == second.id)
    assert bench.process(run) == process
    assert [worker.id for worker in bench.store.workers()] == [second.id]
    bench.store.request_stop(run)
    bench.drive(second, lambda: bench.finished(run), 5.0)
    found = bench.store.get(run)
    assert (found.state, found.epoch) == ("stopped", 1)
    assert bench.curve(run) == toy.curve(bench.steps(run))


def test_kill_worker_and_trainer(bench: Bench) -> None:
    run = bench.store.enqueue(toy.spec(steps=120, pause=0.005))
    first = bench.worker_process()
    process = until(lambda: bench.process(run))
    until(lambda: bench.steps(run) > 20)
    first.kill()
    os.kill(process.pid, signal.SIGKILL)
    first.wait()
    bench.drive(bench.worker(), lambda: bench.finished(run))
    found = bench.store.get(run)
    assert (found.state, found.epoch) == ("done", 2)
    assert bench.curve(run) == toy.curve(120)


def test_kill_worker_before_the_trainer_reports(bench: Bench) -> None:
    """A claim whose worker has died goes back; a trainer that reports late for it is turned away."""
    run = bench.store.enqueue(toy.spec())
    worker = bench.worker()
    gone = replace(worker.me, pid=2**22 + 1)
    assert queue.claim(bench.database, 99, gone, threads=8, slots=4)
    bench.drive(worker, lambda: bench.store.get(run).epoch == 2)
    assert queue.begin(bench.database, run, 1, worker.me) is None
    bench.drive(worker, lambda: bench.finished(run))
    assert bench.curve(run) == toy.curve(100)


def test_frozen_past_its_lease_is_fenced(bench: Bench) -> None:
    """SIGSTOP, another machine takes the run over when the lease ends, SIGCONT: the zombie leaves and has changed nothing."""
    run = bench.store.enqueue(toy.spec(steps=200, pause=0.005))
    here = bench.worker(lease=1.0)
    process = bench.drive(here, lambda: bench.process(run))
    bench.drive(here, lambda: bench.steps(run) > 20)
    bench.freeze(process)
    bench.set(run, boot_id="another machine")  # so that only the lease can tell
    there = bench.worker(lease=1.0)
    bench.drive(there, lambda: bench.store.get(run).epoch == 2, 10.0)
    bench.drive(there, lambda: bench.steps(run) > 30)
    os.kill(process.pid, signal.SIGCONT)
    bench.drive(there, lambda: here.executor.alive(process) is False)
    assert "status 3" in here.executor.ending(process)
    bench.drive(there, lambda: bench.finished(run))
    found = bench.store.get(run)
    assert (found.state, found.epoch) == ("done", 2)
    assert bench.curve(run) == toy.curve(200)


def test_frozen_on_this_machine_is_ended(bench: Bench) -> None:
    """Where the process can be seen, it is ended before the run goes on elsewhere."""
    run = bench.store.enqueue(toy.spec(steps=100, pause=0.005))
    worker = bench.worker(lease=0.8)
    process = bench.drive(worker, lambda: bench.process(run))
    bench.freeze(process)
    bench.drive(worker, lambda: bench.finished(run))
    assert (bench.state(run), bench.store.get(run).epoch) == ("done", 2)
    assert bench.curve(run) == toy.curve(100)


def test_reboot(bench: Bench) -> None:
    """After a reboot the pid may belong to anybody: the run waits for its lease, nobody is signalled, and it goes on."""
    run = bench.store.enqueue(toy.spec(steps=60))
    worker = bench.worker()
    innocent = subprocess.Popen(["sleep", "60"], start_new_session=True)
    bench.processes.append(innocent)
    assert queue.claim(bench.database, worker.id, worker.me, threads=8, slots=4)
    before = replace(worker.me, boot_id="an earlier boot", pid=innocent.pid)
    assert queue.begin(bench.database, run, 1, before, 30.0)
    worker.turn()
    assert bench.store.get(run).epoch == 1
    bench.set(run, lease_until=time.time() - 1)
    bench.drive(worker, lambda: bench.finished(run))
    assert (bench.state(run), bench.store.get(run).epoch) == ("done", 2)
    assert innocent.poll() is None
    assert bench.curve(run) == toy.curve(60)


def test_reused_pid_is_not_signalled(bench: Bench) -> None:
    """Same boot, same pid, another start time: the trainer is dead, and whoever has its pid now is left alone."""
    run = bench.store.enqueue(toy.spec(steps=20))
    worker = bench.worker()
    innocent = subprocess.Popen(["sleep", "60"], start_new_session=True)
    bench.processes.append(innocent)
    assert queue.claim(bench.database, worker.id, worker.me, threads=8, slots=4)
    assert queue.begin(bench.database, run, 1, replace(worker.me, pid=innocent.pid, started="1"), 30.0)
    bench.drive(worker, lambda: bench.finished(run))
    assert (bench.state(run), bench.store.get(run).epoch) == ("done", 2)
    assert innocent.poll() is None


def test_a_zombie_is_dead() -> None:
    """A process that nobody has waited for keeps its pid and start time, but does not run."""
    child = subprocess.Popen(["true"])
    process = identity.of(child.pid)
    assert process is not None
    until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)
    assert identity.alive(process) is False
    assert not identity.taken(process)
    child.wait()
    assert identity.of(child.pid) is None
    assert identity.alive(process) is False
    assert identity.alive(identity.mine()) is True


def test_crash_loop_is_capped(bench: Bench) -> None:
    run = bench.store.enqueue(toy.spec(fault="exit", at=5, times=99))
    bench.drive(bench.worker(attempts=3), lambda: bench.finished(run))
    found = bench.store.get(run)
    assert (found.state, found.epoch) == ("failed", 3)
    assert "status 7" in found.error
    assert "3 times" in found.error


def test_broken_launcher_is_capped(bench: Bench) -> None:
    run = bench.store.enqueue(toy.spec())
    bench.drive(bench.worker(command=("false",)), lambda: bench.finished(run))
    assert bench.state(run) == "failed"
    other = bench.store.enqueue(toy.spec())
    bench.drive(bench.worker(command=("no-such-program",)), lambda: bench.finished(other))
    assert "could not be started" in bench.store.get(other).error


@pytest.mark.parametrize(
    ("fault", "state", "words"),
    [
        ("nan", "diverged", "loss became nan at step 20"),
        ("raise", "failed", "RuntimeError: the toy broke"),
        ("bad", "failed", "toy.at = 5 is not legal: it must be 4"),
        ("disk full", "failed", "the disk is full: policy.pt could not be written"),
    ],
)
def test_ends_that_are_not_tried_again(bench: Bench, fault: str, state: str, words: str) -> None:
    run = bench.store.enqueue(toy.spec(fault=fault, at=20, times=99))
    bench.drive(bench.worker(), lambda: bench.finished(run))
    found = bench.store.get(run)
    assert (found.state, found.epoch, found.error) == (state, 1, words)
    assert set(bench.curve(run).items()) <= set(toy.curve(100).items())
    assert ("Traceback" in bench.store.log_tail(run)) == (fault in ("raise", "disk full"))


def test_resume_goes_on_from_the_checkpoint(bench: Bench) -> None:
    run = bench.store.enqueue(toy.spec(steps=60, fault="raise", at=30))
    worker = bench.worker()
    bench.drive(worker, lambda: bench.finished(run))
    bench.store.resume(run)
    bench.drive(worker, lambda: bench.finished(run))
    assert bench.state(run) == "done"
    assert bench.curve(run) == toy.curve(60)


def test_finished_rows_are_immutable(bench: Bench, tmp_path: Path) -> None:
    run = bench.store.enqueue(toy.spec(steps=10))
    bench.drive(bench.worker(), lambda: bench.finished(run))
    before = (bench.store.get(run), bench.curve(run))
    assert queue.record(bench.database, run, 1, {("value", 3): 0.0}, queue.Standing()) is None
    assert queue.finish(bench.database, run, 1, models.FAILED, error="no") is None
    assert queue.rewind(bench.database, run, 1, {}) is None
    assert queue.begin(bench.database, run, 1, bench.worker().me) is None
    assert queue.ask(bench.database, run, queue.STOP) is None
    late = DatabaseRecorder(bench.database, run, 1, tmp_path, checkpoints=toy.PlainCheckpoints(), every=0.0)
    late.scalars(5, {"value": 9.0})
    with pytest.raises(Fenced):
        late.checkpoint({})
    assert not (tmp_path / "checkpoints").exists()
    assert (bench.store.get(run), bench.curve(run)) == before
    bench.store.set_notes(run, "notes may change")
    bench.store.set_tags(run, ["kept"])
    bench.store.set_name(run, "best")
    after = bench.store.get(run)
    assert (after.notes, after.tags, after.name, after.state) == ("notes may change", ("kept",), "best", "done")
