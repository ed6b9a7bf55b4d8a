"""What pages ask: filters, series, limits on what people type, deleting, pruning, estimates; and how many queries it takes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event, insert

import toy
from bench import Bench
from engine.options import BadInput
from runs_db import files, identity, models, queue, specs
from runs_db.store import Store


@contextmanager
def _queries(store: Store) -> Iterator[list[str]]:
    """The statements that are sent meanwhile."""
    sent: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        sent.append(statement)

    event.listen(store.database.engine, "before_cursor_execute", note)
    yield sent
    event.remove(store.database.engine, "before_cursor_execute", note)


def _finish(bench: Bench, run: int, seconds: float = 10.0, episodes: int = 100) -> None:
    """Make the next queued run done, as a trainer of this process would."""
    claim = queue.claim(bench.database, 1, identity.mine(), threads=10**6, slots=10**6)
    assert claim is not None
    assert claim.run == run
    summary = {"len": 5.0, "episodes": episodes, "user_steps": 4 * episodes, "seconds": {"total": seconds, "train": seconds}}
    assert queue.begin(bench.database, run, claim.epoch, identity.mine())
    assert queue.finish(bench.database, run, claim.epoch, "done", summary=summary) == "done"


def test_a_thousand_runs(store: Store) -> None:
    """Lists, counts, series and last values take as many statements for a thousand runs as for one, and stay quick."""
    ids = store.enqueue_all([toy.spec(seed) for seed in range(1000)], tags=["many"])
    points = {("len", step): float(step) for step in range(10)}
    store.database.write(lambda connection: [queue.write_points(connection, run, points) for run in ids] and None)
    with _queries(store) as sent:
        began = time.monotonic()
        found = store.runs(states=["queued"], tags=["many"], sort="-seed", limit=1000)
        assert len(found) == 1000
        assert store.counts()["queued"] == 1000
        assert store.last_values(ids, ["len"]) == {run: {"len": 9.0} for run in ids}
        assert store.metric_names(ids) == ["len"]
        assert len(store.series(ids[:20], ["len"])) == 200
        taken = time.monotonic() - began
    assert len([statement for statement in sent if not statement.startswith("BEGIN")]) == 5
    assert taken < 2.0, "a page must not wait; it takes 0.1 s when the machine is idle"
    assert [run.seed for run in found[:2]] == [999, 998]


def test_indexes_are_used(store: Store) -> None:
    """Filtering by state and reading a curve look up, they do not scan."""
    if store.database.file is None:
        pytest.skip("SQLite's EXPLAIN")
    with _queries(store) as sent:
        queue.claim(store.database, 1, identity.mine(), threads=1, slots=1)
        queue.active(store.database)
        store.series([1, 2], ["len"], after_step=5)
        store.last_values([1], ["len"])
    plans = []
    with store.database.engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        for statement in sent:
            if not statement.startswith(("BEGIN", "INSERT")):
                holes = ["x"] * statement.count("?")
                plans += [row[3] for row in raw.execute("EXPLAIN QUERY PLAN " + statement, holes)]
    assert not [plan for plan in plans if plan.startswith(("SCAN runs", "SCAN metrics", "SCAN waiting", "SCAN busy"))], plans


def test_filters_and_sorts(bench: Bench) -> None:
    store = bench.store
    first, second, third = store.enqueue_all([toy.spec(3), toy.spec(1), toy.spec(2)])
    store.set_tags(second, ["a_b", "50% off".replace("%", "")])
    store.set_tags(third, ["axb", "a_"])
    bench.set(third, method="other", dataset="elsewhere", progress=0.5)
    assert [run.id for run in store.runs()] == [third, second, first]
    assert [run.id for run in store.runs(sort="seed")] == [second, third, first]
    assert [run.id for run in store.runs(sort="-progress")] == [third, second, first]
    assert [run.id for run in store.runs(sort="progress", limit=1, offset=1)] == [first]
    assert [run.id for run in store.runs(tags=["a_b"])] == [second], "an underscore is no wildcard"
    assert [run.id for run in store.runs(tags=["a"])] == []
    assert [run.id for run in store.runs(methods=["other", "toy"], datasets=["elsewhere"])] == [third]
    assert [run.id for run in store.runs(ids=[first, third, 99], sort="id")] == [first, third]
    assert [run.id for run in store.runs(group=toy.spec(77).group(), sort="id")] == [first, second, third]
    assert [run.id for run in store.runs(groups=[toy.spec(77).group(), "none"], sort="id")] == [first, second, third]
    assert store.runs(groups=[]) == []
    assert store.runs(ids=[]) == []
    assert store.tags() == ["50 off", "a_", "a_b", "axb"]
    for values in ({"sort": "id; DROP TABLE runs"}, {"sort": "--id"}, {"states": ["asleep"]}):
        with pytest.raises(BadInput, match="is not legal"):
            store.runs(**values)
    with pytest.raises(BadInput, match="run 99 does not exist"):
        store.get(99)


@pytest.mark.parametrize("name", ["x" * 81, "a\nb", "a\x00b", "\u202eevil"])
def test_names_that_are_refused(store: Store, name: str) -> None:
    with pytest.raises(BadInput, match="name = "):
        store.enqueue(toy.spec(), name)
    assert store.runs() == []


@pytest.mark.parametrize("tag", ["", " ", "x" * 31, 'a"b', "a,b", "<b>", "a\nb", "=1+1"])
def test_tags_that_are_refused(store: Store, tag: str) -> None:
    run = store.enqueue(toy.spec(), tags=["fine", "λ-sweep", "fine"])
    assert store.get(run).tags == ("fine", "λ-sweep")
    with pytest.raises(BadInput, match="tag = "):
        store.set_tags(run, ["fine", tag])
    assert store.get(run).tags == ("fine", "λ-sweep")


def test_names_and_notes_are_data(store: Store) -> None:
    run = store.enqueue(toy.spec(), " Robert'); DROP TABLE runs;-- ")
    store.set_notes(run, "<script>\n'\"\tλ")
    found = store.get(run)
    assert (found.name, found.notes) == ("Robert'); DROP TABLE runs;--", "<script>\n'\"\tλ")
    for notes in ("x" * 4001, "\x1b[2J"):
        with pytest.raises(BadInput, match="notes"):
            store.set_notes(run, notes)
    with pytest.raises(BadInput, match="does not exist"):
        store.set_notes(99, "")


def test_spec_and_clone(store: Store) -> None:
    spec = toy.spec(5, steps=9)
    run = store.enqueue(spec, "one", ["t"])
    assert store.spec(run) == spec
    twin, sister = store.clone(run), store.clone(run, seed=6)
    assert store.specs([twin, sister]) == {twin: spec, sister: toy.spec(6, steps=9)}
    found = store.get(sister)
    assert (found.parent, found.name, found.tags, found.seed, found.state) == (run, "one", ("t",), 6, "queued")
    assert found.group_key == store.get(run).group_key == spec.group()
    for bad in (-1, True):
        with pytest.raises(BadInput, match="seed = "):
            store.clone(run, seed=bad)


def test_what_cannot_be_done_is_said(bench: Bench) -> None:
    run = bench.store.enqueue(toy.spec())
    with pytest.raises(BadInput, match="is queued, it cannot be resumed"):
        bench.store.resume(run)
    _finish(bench, run)
    for action, words in (
        (lambda: bench.store.resume(run), "is done, it cannot be resumed: clone it"),
        (lambda: bench.store.request_stop(run), "is done: only a run that is queued or running"),
        (lambda: bench.store.request_stop(99), "does not exist"),
        (lambda: bench.store.resume(99), "does not exist"),
        (lambda: bench.store.clone(99), "does not exist"),
        (lambda: bench.store.delete([run, 99]), "run 99 does not exist"),
    ):
        with pytest.raises(BadInput, match=words):
            action()
    assert bench.state(run) == "done"


def test_delete(bench: Bench) -> None:
    """All or none; metrics, rows and folder go; an active run is refused; an id never comes back."""
    keep, gone = bench.store.enqueue_all([toy.spec(1), toy.spec(2)])
    bench.database.write(lambda connection: queue.write_points(connection, gone, {("a", 1): 1.0}))
    bench.database.write(lambda connection: queue.write_episodes(connection, gone, {"user": [1.0]}))
    folder = files.make_run_folder(bench.database.folder, gone)
    (folder / "policy.pt").write_text("x")
    assert queue.claim(bench.database, 1, identity.mine(), threads=9, slots=9)
    with pytest.raises(BadInput, match=f"run {keep} is starting: stop it first"):
        bench.store.delete([keep, gone])
    assert bench.store.delete([gone]) == [gone]
    assert not folder.exists()
    assert bench.store.series([gone], ["a"]).empty
    assert bench.store.episodes(gone).empty
    assert [run.id for run in bench.store.runs()] == [keep]
    assert bench.store.enqueue(toy.spec(3)) > gone


def test_delete_never_leaves_its_folder(bench: Bench, tmp_path: Path) -> None:
    """A run's folder that is a link, or holds links: the links go, what they point to stays."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "data").write_text("x")
    linked, inside = bench.store.enqueue_all([toy.spec(1), toy.spec(2)])
    root = bench.database.folder
    (root / str(linked)).symlink_to(precious)
    files.make_run_folder(root, inside)
    (root / str(inside) / "link").symlink_to(precious)
    for ask in (bench.store.folder, bench.store.log_path, bench.store.log_tail):
        with pytest.raises(BadInput, match="is a link to somewhere else"):
            ask(linked)
    bench.store.delete([linked, inside])
    assert (precious / "data").read_text() == "x"
    assert list(root.iterdir()) == []


def test_a_folder_of_an_earlier_database_is_no_checkpoint(store: Store) -> None:
    """Someone removed the database but not the folders: a new run 1 does not go on from the old one's state."""
    old = store.database.folder / "1" / "checkpoints"
    old.mkdir(parents=True)
    run = store.enqueue(toy.spec())
    assert run == 1
    assert not store.folder(run).exists()
    (aside,) = store.database.folder.iterdir()
    assert (aside / "checkpoints").is_dir()
    assert [waste.path for waste in store.waste()] == [aside]


def test_prune_finds_only_waste(bench: Bench, tmp_path: Path) -> None:
    done, stopped = bench.store.enqueue_all([toy.spec(1), toy.spec(2)])
    _finish(bench, done)
    bench.store.request_stop(stopped)
    root = bench.database.folder
    for name in (f"{done}/checkpoints", f"{stopped}/checkpoints", "77/checkpoints", "cache/a", "mine", "007"):
        (root / name).mkdir(parents=True)
        (root / name / "file").write_text("x" * 100)
    (root / "88").symlink_to(tmp_path)
    (root / "cache" / "old").write_text("x" * 50)
    os.utime(root / "cache" / "old", (0, 0))
    waste = bench.store.waste(cache_days=30)
    assert {item.path.relative_to(root).as_posix() for item in waste} == {f"{done}/checkpoints", "77", "cache/old"}
    assert files.remove_waste(root, waste) == 250
    assert bench.store.waste(cache_days=30) == []
    left = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert left == {f"{stopped}/checkpoints/file", "cache/a/file", "mine/file", "007/file"}
    with pytest.raises(BadInput, match="is not inside"):
        files.remove_waste(root, [files.Waste(tmp_path / "precious", "", 0)])


def test_log_tail(bench: Bench) -> None:
    run = bench.store.enqueue(toy.spec())
    assert bench.store.log_tail(run) == ""
    log = files.make_run_folder(bench.database.folder, run) / "run.log"
    log.write_bytes(b"".join(b"line %d \xff\n" % line for line in range(100_000)))
    assert bench.store.log_tail(run, 2) == "line 99998 \ufffd\nline 99999 \ufffd"
    assert len(bench.store.log_tail(run, 10**9)) <= 65_536


def test_expected_time(bench: Bench) -> None:
    """From runs like it on this machine, else from the same method, else nothing."""
    store = bench.store
    assert store.expected_seconds(toy.spec()) is None
    runs = store.enqueue_all([toy.spec(1), toy.spec(2), toy.spec(3)])
    for run, seconds in zip(runs, (10.0, 20.0, 90.0), strict=True):
        _finish(bench, run, seconds)
    assert store.seconds_per_episode("toy", "identity", "synthetic") == 0.2
    assert store.expected_seconds(toy.spec(4, steps=500)) == pytest.approx(100.0)
    bench.set(runs[2], dataset="elsewhere")
    assert store.seconds_per_episode("toy", "identity", "synthetic") == pytest.approx(0.15)
    assert store.seconds_per_episode("toy", "diffusion", "synthetic") == 0.2, "by method alone"
    assert store.seconds_per_episode("other", "identity", "synthetic") is None
    for run in runs:
        bench.set(run, host="another machine")
    assert store.seconds_per_episode("toy", "identity", "synthetic") is None


def test_shares_of_stages(bench: Bench) -> None:
    """The longest of the recent runs, training scaled to the budget: what was cached last time may not be next time."""
    store = bench.store
    assert specs.stage_shares(store.database, toy.spec()) is None
    for stages in ({"data": 1.0, "training": 8.0}, {"data": 1.0, "diffusion": 5.0, "training": 9.0, "evaluation": 2.0}):
        run = store.enqueue(toy.spec())
        _finish(bench, run)
        summary = {"episodes": 100, "seconds": {"total": 9.0}, "stages": stages}
        bench.set(run, summary=json.dumps(summary))
    shares = specs.stage_shares(store.database, toy.spec(steps=200))
    assert shares == {"data": 1.0, "diffusion": 5.0, "training": 18.0, "evaluation": 2.0}
    assert list(shares or {}) == ["data", "diffusion", "training", "evaluation"]


def test_workers_that_are_alive(bench: Bench) -> None:
    worker = bench.worker()
    queue.sign_on(bench.database, identity.Identity("elsewhere", "another boot", 1, "1"), 8, 8)
    assert {info.host for info in bench.store.workers()} == {worker.me.host, "elsewhere"}
    stale = models.workers.update().values(heartbeat_at=0.0)
    bench.database.write(lambda connection: connection.execute(stale))
    assert [info.id for info in bench.store.workers()] == [worker.id], "its process can be seen"


def test_frozen(store: Store) -> None:
    run = store.get(store.enqueue(toy.spec()))
    with pytest.raises(AttributeError):
        run.state = "done"  # type: ignore[misc]


def test_foreign_keys_are_enforced(store: Store) -> None:
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        store.database.write(
            lambda connection: connection.execute(insert(models.metrics).values(run=99, name=99, step=1, value=1.0))
        )
