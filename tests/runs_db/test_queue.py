"""Claims, fences and transitions, without processes to run."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from typing import Any

import pytest

import toy
from bench import Bench
from runs_db import identity, models, queue
from runs_db.database import Database
from runs_db.queue import Standing
from runs_db.store import Store

ROWS, CLAIMERS = 300, 8


def _claim_all(place: tuple[str, str], ready: Any, results: Any) -> None:
    database = Database(*place)
    me = identity.mine()
    ready.wait()
    taken = []
    while claim := queue.claim(database, 1, me, threads=10**6, slots=10**6):
        taken.append((claim.run, claim.epoch))
    results.put(taken)


def test_no_run_is_claimed_twice(store: Store) -> None:
    """8 processes race for 300 rows."""
    ids = store.enqueue_all([toy.spec(seed) for seed in range(ROWS)])
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(CLAIMERS), context.Queue()
    place = (store.database.url.render_as_string(hide_password=False), str(store.database.folder))
    claimers = [context.Process(target=_claim_all, args=(place, ready, results), daemon=True) for _ in range(CLAIMERS)]
    for claimer in claimers:
        claimer.start()
    taken = [results.get(timeout=60) for _ in claimers]
    for claimer in claimers:
        claimer.join()
    assert sorted(run for part in taken for run, _ in part) == ids
    assert {epoch for part in taken for _, epoch in part} == {1}
    assert sum(bool(part) for part in taken) > 1


def test_threads_are_not_oversubscribed(bench: Bench) -> None:
    """Whoever claims on this machine, the threads of what is active and of the new run fit the budget."""
    me, db = identity.mine(), bench.database
    first, wide, narrow = bench.store.enqueue_all([toy.spec(threads=2), toy.spec(threads=3), toy.spec(threads=1)])
    assert queue.claim(db, 1, me, threads=4, slots=9) == queue.Claim(first, 1, 2, 1)
    assert queue.claim(db, 2, me, threads=4, slots=9) is None, "the wide run does not fit, and is not overtaken"
    elsewhere = replace(me, boot_id="another machine")
    assert queue.claim(db, 3, elsewhere, threads=2, slots=9) == queue.Claim(wide, 1, 3, 1), "too wide, so it runs alone"
    assert queue.claim(db, 3, elsewhere, threads=2, slots=9) is None
    assert queue.claim(db, 1, me, threads=4, slots=1) is None, "no slot"
    assert queue.claim(db, 1, me, threads=4, slots=2) == queue.Claim(narrow, 1, 1, 1)


def test_every_write_is_fenced(bench: Bench) -> None:
    me, db = identity.mine(), bench.database
    run = bench.store.enqueue(toy.spec())
    assert queue.begin(db, run, 1, me) is None, "nobody claimed it"
    assert queue.claim(db, 1, me, threads=9, slots=9)
    assert queue.begin(db, run, 2, me) is None, "another epoch"
    begun = queue.begin(db, run, 1, me)
    assert begun is not None
    assert begun.stop_requested == ""
    assert queue.begin(db, run, 1, me) is None, "only once"
    assert queue.record(db, run, 1, {("a", 1): 1.0}, Standing()) == ""
    (active,) = queue.active(db)
    assert queue.lost(db, replace(active, epoch=7), "no") is None
    assert queue.lost(db, active, "no", expired=True) is None, "its lease is not over"
    assert queue.lost(db, active, "gone") == "queued"
    for outcome in (
        queue.record(db, run, 1, {("a", 1): 9.0, ("b", 1): 9.0}, Standing()),
        queue.rewind(db, run, 1, {}),
        queue.finish(db, run, 1, "done", summary={"len": 1.0}, table={"user": [1.0]}),
        queue.lost(db, active, "again"),
    ):
        assert outcome is None
    assert bench.state(run) == "queued"
    assert bench.store.last_values([run], ["a", "b"]) == {run: {"a": 1.0}}
    assert bench.store.episodes(run).empty


def test_a_report_between_look_and_verdict_is_seen(bench: Bench) -> None:
    """A supervisor decides that a claim's worker is dead, while the trainer reports: the run is not taken away."""
    me, db = identity.mine(), bench.database
    run = bench.store.enqueue(toy.spec())
    assert queue.claim(db, 1, replace(me, pid=1), threads=9, slots=9)
    (active,) = queue.active(db)
    assert queue.begin(db, run, 1, me)
    assert queue.lost(db, active, "its worker died") is None
    assert bench.state(run) == "running"


def test_metrics_and_lease_are_one_transaction(bench: Bench) -> None:
    me, db = identity.mine(), bench.database
    run = bench.store.enqueue(toy.spec())
    assert queue.claim(db, 1, me, threads=9, slots=9)
    assert queue.begin(db, run, 1, me, lease=5.0)
    (before,) = queue.active(db)
    with pytest.raises(Exception, match=r"(?i)null|type"):
        queue.record(db, run, 1, {("a", 1): 1.0, ("a", 2): None}, Standing("train", 1, 2), lease=500.0)  # type: ignore[dict-item]
    (after,) = queue.active(db)
    assert after.lease_left <= before.lease_left
    assert bench.store.get(run).stage == ""
    assert bench.store.metric_names([run]) == []
    assert queue.record(db, run, 1, {("a", 1): 1.0, ("a", 2): 2.0}, Standing("train", 1, 2), lease=500.0) == ""
    (after,) = queue.active(db)
    assert after.lease_left > 400
    assert queue.record(db, run, 1, {("a", 2): 3.0}, Standing("train", 1, 2), seconds=1.5) == ""
    assert bench.store.series([run], ["a"]).value.tolist() == [1.0, 3.0]
    assert bench.store.get(run).seconds == 1.5


def test_attempts(bench: Bench) -> None:
    """Deaths are counted and capped; going back politely is free; resuming starts anew."""
    me, db = identity.mine(), bench.database
    run = bench.store.enqueue(toy.spec())

    def claim() -> queue.Active:
        assert queue.claim(db, 1, me, threads=9, slots=9)
        (active,) = queue.active(db)
        return active

    for _ in range(5):
        active = claim()
        assert queue.begin(db, run, active.epoch, me)
        assert queue.finish(db, run, active.epoch, "queued") == "queued"
    assert queue.lost(db, claim(), "died", attempts=2) == "queued"
    assert queue.lost(db, claim(), "died", attempts=2) == "failed"
    assert bench.store.get(run).error == "died; it happened 2 times, the log may say more"
    bench.store.resume(run)
    assert bench.store.get(run).error == ""
    assert queue.lost(db, claim(), "died", attempts=2) == "queued"


@pytest.mark.parametrize(("asked", "reached"), [("stop", "stopped"), ("requeue", "queued")])
def test_death_while_asked_to_leave(bench: Bench, asked: str, reached: str) -> None:
    me, db = identity.mine(), bench.database
    run = bench.store.enqueue(toy.spec())
    assert queue.claim(db, 1, me, threads=9, slots=9)
    assert queue.ask(db, run, asked) == "starting"
    begun = queue.begin(db, run, 1, me)
    assert begun is not None
    assert begun.stop_requested == asked
    assert bench.state(run) == "stopping"
    (active,) = queue.active(db)
    assert queue.lost(db, active, "killed", attempts=1) == reached
    found = bench.store.get(run)
    assert (found.stop_requested, found.ended_at is None) == ("", reached == "queued")


def test_a_finish_needs_a_state_to_finish_in(bench: Bench) -> None:
    with pytest.raises(ValueError, match="running"):
        queue.finish(bench.database, 1, 1, models.RUNNING)


def test_work_order(bench: Bench) -> None:
    """What has begun goes on before what is new."""
    me, db = identity.mine(), bench.database
    first, second = bench.store.enqueue_all([toy.spec(1), toy.spec(2)])
    assert queue.claim(db, 1, me, threads=9, slots=9)
    assert queue.finish(db, first, 1, "queued") == "queued"
    claims = [queue.claim(db, 1, me, threads=9, slots=9) for _ in range(3)]
    assert [claim.run if claim else None for claim in claims] == [first, second, None]
