"""The real trainer with a real method: what was killed and resumed equals what was not."""

from __future__ import annotations

import os
import signal

from bench import Bench
from engine import spec
from engine.run import load_run
from runs_db import executors

SMALL = {
    "dataset": {"users": 40, "train_users": 60, "items": 120, "log_length": 20, "start": 5, "categories": 5},
    "world": {"slate": 4, "max_len": 10},
    "state": {"width": 8, "epochs": 1},
}


def test_killed_and_resumed_equals_undisturbed(bench: Bench) -> None:
    wanted = spec.make(method="a2c", episodes=1500, evaluation_episodes=20, settings=SMALL)
    killed, twin = bench.store.enqueue_all([wanted, wanted])
    worker = bench.worker(command=executors.TRAINER, slots=1)
    process = bench.drive(worker, lambda: bench.process(killed), 60)

    def halfway() -> bool:
        kept = any((bench.store.folder(killed) / "checkpoints").glob("*.pt"))
        return kept and len(bench.store.series([killed], ["train_len"])) > 5

    bench.drive(worker, halfway, 60)
    os.kill(process.pid, signal.SIGKILL)
    bench.drive(worker, lambda: bench.finished(killed) and bench.finished(twin), 90)
    one, other = bench.store.get(killed), bench.store.get(twin)
    assert (one.state, one.epoch, other.state, other.epoch) == ("done", 2, "done", 1)
    names = bench.store.metric_names([killed])
    assert names == bench.store.metric_names([twin])
    curves = [bench.store.series([run], names).drop(columns="run") for run in (killed, twin)]
    assert len(curves[0]) > 50
    assert curves[0].equals(curves[1])
    assert bench.store.episodes(killed).equals(bench.store.episodes(twin))
    assert one.summary is not None
    assert other.summary is not None
    assert all(one.summary[name] == other.summary[name] for name in ("len", "ad", "r_cum", "gini", "episodes", "updates"))
    assert (one.group_key, bench.store.expected_seconds(wanted) is None) == (other.group_key, False)
    assert load_run(bench.store.folder(killed), lam=None).spec == wanted


def test_maps_of_a_real_run_are_drawn_by_the_worker(bench: Bench) -> None:
    """From asking to the file, by the command that workers start; a worker that was killed meanwhile loses nothing."""
    from engine import maps

    wanted = spec.make(method="random", evaluation_episodes=20, settings=SMALL)
    run = bench.store.enqueue(wanted)
    worker = bench.worker(command=executors.TRAINER, slots=1)
    bench.drive(worker, lambda: bench.finished(run), 60)
    assert bench.state(run) == "done", bench.store.get(run).error
    assert bench.store.ask_chore(run) == "queued"
    bench.drive(worker, lambda: "umap" in bench.store.chore_tail(run), 60)
    chore = bench.store.chore(run)
    assert chore is not None
    assert chore.process is not None
    os.kill(chore.process.pid, signal.SIGKILL)
    bench.drive(worker, lambda: not (found := bench.store.chore(run)) or found.state == "failed", 10)
    assert maps.read(bench.store.folder(run)) is None
    assert bench.store.ask_chore(run) == "queued", "it can be tried again"

    def over() -> bool:
        found = bench.store.chore(run)
        assert found is not None
        assert found.state != "failed", found.error
        return found.state == "done"

    bench.drive(worker, over, 120)
    kept = maps.read(bench.store.folder(run))
    assert kept is not None
    assert kept[1]["umap"]["clean"].shape == (len(kept[0]), 2)
