"""The recorder of a claimed run, in this process: batches, heartbeats, fences, checkpoints, and disks that are full."""

from __future__ import annotations

import argparse
import math
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

import toy
from bench import Bench, until
from engine import checkpoint
from engine.options import Diverged
from runs_db import identity, models, queue, trainer
from runs_db.database import Database, Unavailable
from runs_db.progress import Overall
from runs_db.recorder import DatabaseRecorder, Fenced


@pytest.fixture
def run(bench: Bench) -> int:
    """A run that this process has claimed and begun, at epoch 1."""
    run = bench.store.enqueue(toy.spec(steps=40, pause=0.0))
    _take(bench, run)
    return run


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Trainers install handlers; give back those of pytest."""
    before = [(name, signal.getsignal(name)) for name in (signal.SIGTERM, signal.SIGINT)]
    yield
    for name, handler in before:
        signal.signal(name, handler)


def _take(bench: Bench, run: int) -> int:
    claim = queue.claim(bench.database, 1, identity.mine(), threads=9, slots=9)
    assert claim is not None
    assert claim.run == run
    assert queue.begin(bench.database, run, claim.epoch, identity.mine())
    return claim.epoch


def _recorder(bench: Bench, run: int, epoch: int = 1, **options: Any) -> DatabaseRecorder:
    settings: dict[str, Any] = {"every": 0.0, "beat": 0.05, "checkpoints": toy.PlainCheckpoints()}
    return DatabaseRecorder(bench.database, run, epoch, bench.store.folder(run), **(settings | options))


def _train(bench: Bench, database: Database, run: int, epoch: int, every: float = 0.0) -> None:
    """A whole attempt in this process, from the claim on."""
    claim = queue.claim(bench.database, 1, identity.mine(), threads=9, slots=9)
    assert claim == queue.Claim(run, epoch, 1, claim.attempts if claim else 0)
    args = argparse.Namespace(run=run, epoch=epoch, lease=30.0, grace=3.0, beat=0.05, every=every)
    assert trainer.train(database, args, toy.run, checkpoint) == 0


def test_points_are_batched(bench: Bench, run: int) -> None:
    """One commit a beat, however many points; nothing is lost, the last of equal (name, step) counts."""
    commits = []
    with _recorder(bench, run, beat=0.3) as recorder:
        event.listen(bench.database.engine, "commit", lambda connection: commits.append(1))
        for step in range(1000):
            recorder.scalars(step, {"a": 0.0, "b": step})
            recorder.scalars(step, {"a": step})
            recorder.progress("train", step, 1000)
        until(lambda: bench.store.last_values([run], ["a"]) == {run: {"a": 999.0}})
    assert len(commits) <= 2
    frame = bench.store.series([run], ["a", "b"])
    assert frame.value.tolist() == [*range(1000), *range(1000)]
    assert bench.store.series([run], ["a"], after_step=997).step.tolist() == [998, 999]
    found = bench.store.get(run)
    assert (found.stage, found.stage_done, found.stage_total) == ("train", 999, 1000)
    assert found.seconds > 0.2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_end_the_run(bench: Bench, run: int, value: float) -> None:
    recorder = _recorder(bench, run)
    with pytest.raises(Diverged, match=f"loss became {value} at step 7"):
        recorder.scalars(7, {"len": 1.0, "loss": value})
    recorder.flush()
    assert bench.store.metric_names([run]) == []


def test_heartbeat_in_a_long_step(bench: Bench, run: int) -> None:
    """While the run computes without a call, the lease is renewed and a stop is noticed; when it is overdue, it is told."""
    overdue: list[str] = []
    with _recorder(bench, run, lease=2.0, grace=0.2, on_overdue=overdue.append) as recorder:
        bench.set(run, lease_until=0.0)
        until(lambda: queue.active(bench.database)[0].lease_left > 1.0)
        assert not recorder.stop_requested()
        bench.store.request_stop(run)
        until(lambda: recorder.asked == "stop")
        until(lambda: overdue)
        assert recorder.stop_requested()
    assert set(overdue) == {"stop"}


def test_a_fenced_recorder_writes_nothing_more(bench: Bench, run: int) -> None:
    told = threading.Event()
    with _recorder(bench, run, on_fenced=told.set) as recorder:
        recorder.scalars(1, {"a": 1.0})
        recorder.checkpoint({"step": 1})
        bench.set(run, epoch=2)
        assert told.wait(5.0)
        for call in (
            lambda: recorder.scalars(2, {"a": 2.0}),
            lambda: recorder.progress("train", 2, 3),
            lambda: recorder.checkpoint({"step": 2}),
            recorder.stop_requested,
            recorder.flush,
            recorder.restore,
        ):
            with pytest.raises(Fenced):
                call()
    assert bench.store.last_values([run], ["a"]) == {run: {"a": 1.0}}
    assert toy.PlainCheckpoints().newest(bench.store.folder(run) / "checkpoints") == {
        "state": {"step": 1},
        "sent": {"a": [1, 1.0]},
    }


def test_metrics_are_committed_before_the_checkpoint(bench: Bench, run: int) -> None:
    seen = []

    class Look(toy.PlainCheckpoints):
        def save(self, folder: Path, state: dict[str, Any]) -> None:
            seen.append(bench.steps(run))

    recorder = _recorder(bench, run, checkpoints=Look())
    for step in (1, 2, 3):
        recorder.scalars(step, {"value": 0.5})
        recorder.checkpoint({})
    assert seen == [1, 2, 3]


def test_checkpoints_keep_their_distance(bench: Bench, run: int) -> None:
    kept = []

    class Count(toy.PlainCheckpoints):
        def save(self, folder: Path, state: dict[str, Any]) -> None:
            kept.append(1)

    recorder = _recorder(bench, run, every=60.0, checkpoints=Count())
    for _ in range(5):
        recorder.checkpoint({})
    assert kept == []
    recorder.ask("signal")
    recorder.checkpoint({})
    assert kept == [1], "asked to stop, it keeps one at once"


def test_last_values_survive(bench: Bench, run: int) -> None:
    """What a run counts as metrics, it can ask for after it was interrupted."""
    recorder = _recorder(bench, run)
    assert recorder.last("episodes") is None
    for step in (5, 10, 7):
        recorder.scalars(step, {"episodes": float(step)})
    recorder.checkpoint({"step": 10})
    recorder.scalars(12, {"episodes": 12.0, "new": 1.0})
    again = _recorder(bench, run)
    assert again.restore() == {"step": 10}
    assert (again.last("episodes"), again.last("new")) == (10.0, None)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "no checksum"])
@pytest.mark.parametrize("files", [1, 2])
def test_damaged_checkpoints(bench: Bench, run: int, damage: str, files: int) -> None:
    """One damaged: the one before serves, and points after it are dropped. Both: the run begins anew. The curve is exact."""
    recorder = _recorder(bench, run, checkpoints=checkpoint)
    value = 11
    for step in range(1, 21):
        value = toy.after(value)
        recorder.scalars(step, {"value": value / 2**64})
        if step in (10, 15):
            recorder.checkpoint({"step": step, "value": value})
    recorder.flush()
    for path in sorted((bench.store.folder(run) / "checkpoints").glob("*.pt"))[-files:]:
        content = bytearray(path.read_bytes())
        if damage == "flipped":
            content[len(content) // 2] ^= 1
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else content)
        if damage == "no checksum":
            path.with_name(path.name + ".sha256").unlink()
    assert queue.finish(bench.database, run, 1, models.QUEUED) == "queued"
    again = _recorder(bench, run, _take(bench, run), checkpoints=checkpoint)
    state = again.restore()
    assert (state or {"step": 0})["step"] == (10 if files == 1 else 0)
    assert bench.curve(run) == toy.curve(10 if files == 1 else 0)
    assert queue.finish(bench.database, run, 2, models.QUEUED) == "queued"
    _train(bench, bench.database, run, 3)
    assert (bench.state(run), bench.curve(run)) == ("done", toy.curve(40))


def test_a_database_that_is_locked_for_a_while(bench: Bench, run: int) -> None:
    """The run goes on without waiting, and everything arrives once the lock is gone."""
    if bench.database.file is None:
        pytest.skip("SQLite's lock")
    database = Database(f"sqlite:///{bench.database.file}", bench.database.folder, busy=0.1, patience=30.0)
    recorder = DatabaseRecorder(database, run, 1, bench.store.folder(run), beat=0.05, every=60.0)
    with recorder:
        with bench.database._writes.begin():
            began = time.monotonic()
            for step in range(1, 21):
                recorder.scalars(step, {"value": 0.5})
                recorder.progress("train", step, 20)
                time.sleep(0.02)
            assert time.monotonic() - began < 0.8
        until(lambda: bench.steps(run) == 20)
    database.close()


def test_a_database_that_stays_locked(bench: Bench, run: int) -> None:
    if bench.database.file is None:
        pytest.skip("SQLite's lock")
    database = Database(f"sqlite:///{bench.database.file}", bench.database.folder, busy=0.1)
    with DatabaseRecorder(database, run, 1, bench.store.folder(run), beat=0.05) as recorder:
        with bench.database._writes.begin(), pytest.raises(Unavailable, match="locked by another program"):
            until(recorder.stop_requested)
        until(lambda: recorder._failure is None)
        recorder.scalars(1, {"value": 0.5})
    database.close()


def test_disk_full_in_a_commit(bench: Bench) -> None:
    """The run fails and says why; what was committed before is there, and the database is whole."""
    if bench.database.file is None:
        pytest.skip("SQLite's limit")
    run = bench.store.enqueue(toy.spec(steps=20_000, pause=0.0))
    with bench.database.read() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar_one()
    database = Database(f"sqlite:///{bench.database.file}", bench.database.folder)
    event.listen(database.engine, "connect", lambda raw, record: raw.execute(f"PRAGMA max_page_count={pages + 20}"))
    _train(bench, database, run, 1, every=60.0)
    found = bench.store.get(run)
    assert found.state == "failed"
    assert "the disk is full" in found.error
    assert 0 < bench.steps(run) < 20_000
    assert bench.curve(run) == toy.curve(bench.steps(run))
    with bench.database.read() as connection:
        assert connection.execute(text("PRAGMA integrity_check")).scalar_one() == "ok"
    database.close()


def test_disk_full_in_a_checkpoint(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run fails and says why, the checkpoint before it is intact, and the run goes on from it when there is room."""
    run = bench.store.enqueue(toy.spec(steps=40, pause=0.0))
    kept = checkpoint.write_whole
    calls = []

    def full(path: Path, content: bytes) -> None:
        calls.append(path)
        if len(calls) > 21:
            raise OSError(28, "No space left on device", path.name)
        kept(path, content)

    monkeypatch.setattr(checkpoint, "write_whole", full)
    _train(bench, bench.database, run, 1)
    found = bench.store.get(run)
    assert (found.state, found.error) == ("failed", "the disk is full: 000011.pt could not be written")
    assert bench.curve(run) == toy.curve(11)
    monkeypatch.undo()
    bench.store.resume(run)
    _train(bench, bench.database, run, 2)
    assert (bench.state(run), bench.curve(run)) == ("done", toy.curve(40))


def test_a_result_that_is_not_finite(bench: Bench) -> None:
    run = bench.store.enqueue(toy.spec(steps=3))

    def broken(*args: Any) -> toy.Result:
        return toy.Result({"len": 1.0, "ad": math.nan, "world": {"test": {"auc": math.inf}}})

    claim = queue.claim(bench.database, 1, identity.mine(), threads=9, slots=9)
    assert claim is not None
    args = argparse.Namespace(run=run, epoch=1, lease=30.0, grace=3.0, beat=0.05, every=0.0)
    assert trainer.train(bench.database, args, broken, toy.PlainCheckpoints()) == 0
    found = bench.store.get(run)
    assert (found.state, found.error) == ("diverged", "the result is not finite: ad is nan, world.test.auc is inf")


def test_progress_of_the_whole() -> None:
    """Stages weigh what they took last time; the time left is the stage's own pace and, for later stages, their weights."""
    moment = [0.0]
    overall = Overall({"pretrain": 10, "train": 80, "evaluate": 10}, clock=lambda: moment[0])
    assert overall.standing("pretrain", 0, 5) == queue.Standing("pretrain", 0, 5, 0.0, None)
    moment[0] = 5.0
    standing = overall.standing("pretrain", 2.5, 5)
    assert standing.progress == pytest.approx(0.05)
    assert standing.eta_seconds == pytest.approx(5 + 90)
    assert overall.standing("train", 600, 1000).progress == pytest.approx(0.1 + 0.8 * 0.6), "a resumed stage begins anywhere"
    moment[0] = 13.0
    standing = overall.standing("train", 700, 1000)
    assert standing.eta_seconds == pytest.approx(24 + 10)
    assert overall.standing("another", 1, 2).progress == pytest.approx(0.1 + 0.8 * 0.7)
    assert overall.standing("pretrain", 0, 5).progress == pytest.approx(0.1 + 0.8 * 0.7), "never back"
    assert overall.standing("evaluate", 5, 5).progress == pytest.approx(0.999)
    assert overall.taken() == {"pretrain": 5.0, "train": 8.0, "another": 0.0, "evaluate": 0.0}
