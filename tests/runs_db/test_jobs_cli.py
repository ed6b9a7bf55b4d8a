"""`python -m runs_db`: exit status, one line for bad input, one JSON value as the last line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import toy
from bench import Bench, environment
from engine import spec, studies
from engine.arguments import guarded
from runs_db.__main__ import main
from runs_db.database import Database
from runs_db.store import Store

Call = Callable[..., "Answer"]
TOY = ("--method", "toy", "--purifier", "toy", "--dataset", "toy")


@dataclass
class Answer:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out.splitlines()[-1])


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], toy_parts: None) -> Call:
    def call(*argv: object) -> Answer:
        capsys.readouterr()
        status = guarded(lambda: main([str(word) for word in argv]))
        return Answer(status, *capsys.readouterr())

    return call


def test_enqueue(store: Store, call: Call, tmp_path: Path) -> None:
    answer = call("enqueue", *TOY, "--seed", 7, "--set", "method.strength=0.25", "--name", "mine", "--tag", "a", "--json")
    assert (answer.status, answer.json) == (0, {"id": 1, "ids": [1]})
    found = store.get(1)
    assert (found.name, found.tags, found.seed, found.state) == ("mine", ("a",), 7, "queued")
    assert store.spec(1).settings["method"] == {"strength": 0.25}
    file = tmp_path / "spec.json"
    file.write_text(store.spec(1).to_json())
    assert call("enqueue", "--spec", file, "--json").json == {"id": 2, "ids": [2]}
    assert store.spec(2) == store.spec(1)
    short = {"dataset": "toy", "method": "toy", "purifier": "toy"}
    file.write_text(json.dumps([{**short, "seed": seed} for seed in (1, 2)]))
    assert call("enqueue", "--spec", file, "--json").json == {"id": 3, "ids": [3, 4]}
    assert store.spec(4) == spec.make("toy", "toy", "toy", seed=2)


def test_enqueue_all_runs_of_a_study(store: Store, call: Call) -> None:
    answer = call("enqueue", "--study", "table3", "--seeds", "7,8", "--set", "world.max_len=20", "--json")
    assert (answer.status, len(answer.json["ids"])) == (0, len(studies.specs("table3", seeds=(7, 8))))
    first = store.spec(answer.json["id"])
    assert (first.seed, first.settings["world"]["max_len"], first.settings["method"]["hierarchical"]) == (7, 20, False)


def test_first_enqueue_makes_the_database(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNS_DIR", str(tmp_path))
    monkeypatch.setenv("RUNS_DB_URL", f"sqlite:///{tmp_path}/new/runs.sqlite")
    assert call("list").status == 2
    assert call("enqueue", *TOY).out == "run 1 is queued\n"
    assert call("list", "--json").json[0]["id"] == 1
    assert "already up to date" in call("migrate").out


def test_list_and_show(store: Store, call: Call) -> None:
    assert (call("list", "--json").json, call("list").err) == ([], "no runs; `python -m runs_db enqueue` queues one\n")
    store.enqueue_all([toy.spec(1), toy.spec(2)], "both", ["t"])
    assert [run["seed"] for run in call("list", "--json").json] == [2, 1]
    assert [run["seed"] for run in call("list", "--json", "--sort", "seed", "--limit", 1, "--tag", "t").json] == [1]
    assert call("list", "--state", "done", "--json").json == []
    lines = call("list").out.splitlines()
    assert lines[0].split() == ["id", "state", "progress", "run", "dataset", "seed", "name"]
    assert lines[1].split() == ["2", "queued", "toy", "+", "identity", "synthetic", "2", "both"]
    shown = call("show", 1, "--json").json
    assert (shown["id"], shown["spec"]["settings"]["toy"]["steps"], shown["tags"]) == (1, 100, ["t"])
    assert "queued" in call("show", 1).out


def test_stop_resume_clone_delete(store: Store, call: Call) -> None:
    run = store.enqueue(toy.spec())
    assert call("stop", run, "--json").json == {str(run): "stopped"}
    assert call("resume", run, "--json").json == {str(run): "queued"}
    assert call("clone", run, "--seed", 3, "--json").json == {"id": run + 1, "parent": run}
    assert call("delete", run, run + 1, "--json").json == {"deleted": [run, run + 1]}
    assert store.runs() == []


def test_prune_asks_first(store: Store, call: Call) -> None:
    orphan = store.database.folder / "9"
    orphan.mkdir()
    (orphan / "file").write_text("x" * 10)
    answer = call("prune")
    assert "add --yes" in answer.out
    assert orphan.exists()
    answer = call("prune", "--yes", "--json")
    assert (answer.json["removed"], answer.json["bytes"]) == (True, 10)
    assert not orphan.exists()
    assert call("prune").out == "nothing to remove\n"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("", "COMMAND"),
        ("sing", "invalid choice: 'sing'"),
        ("list --sort size", "sort = 'size' is not legal; known: id, name"),
        ("list --state asleep", "state = 'asleep' is not legal; known: queued"),
        ("list --limit 0", "--limit 0 is not legal: it must be 1 or more"),
        ("list --lim 3", "unrecognized arguments: --lim 3"),
        ("show x", "invalid int value: 'x'"),
        ("show 9", "run 9 does not exist"),
        ("stop 9", "run 9 does not exist"),
        ("resume 1", "run 1 is queued, it cannot be resumed"),
        ("clone 1 --seed -1", "seed = -1 is not legal: it must be a whole number, 0 or more"),
        ("delete 1 9", "run 9 does not exist"),
        ("prune --days -1", "--days -1 is not legal"),
        ("worker --slots 0", "--slots 0 is not legal: it must be 1 or more"),
        ("import nowhere", "nowhere is not a folder"),
        ("enqueue --method nope", "method 'nope' is unknown"),
        ("enqueue --method toy --purifier toy --dataset toy --set method.strength=2", "method.strength = 2"),
        ("enqueue --method toy --purifier toy --dataset toy --tag a,b", "tag = 'a,b' is not legal"),
        ("enqueue --spec nowhere.json", "--spec nowhere.json cannot be read: No such file or directory"),
        ("enqueue --spec a --study b", "--spec and --study exclude each other"),
        ("enqueue --study nosuch", "study 'nosuch' is unknown; known: figure2"),
        ("enqueue --study figure2", "--study figure2 has no runs to queue"),
        ("enqueue --study table3 --seeds 1,1", "each given once"),
    ],
)
def test_bad_input_is_one_line(store: Store, call: Call, argv: str, words: str) -> None:
    store.enqueue(toy.spec())
    answer = call(*argv.split())
    assert answer.status == 2
    assert answer.out == ""
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1
    assert words in answer.err
    assert len(store.runs()) == 1


@pytest.mark.parametrize("text", ["", "[]", "3", '{"method": 1}', '{"metod": "toy"}', '[{"method": "toy", "x": 1}]', "[1]"])
def test_specs_that_are_none(store: Store, call: Call, tmp_path: Path, text: str) -> None:
    (tmp_path / "spec.json").write_text(text)
    answer = call("enqueue", "--spec", tmp_path / "spec.json")
    assert (answer.status, answer.err.count("\n")) == (2, 1)
    assert store.runs() == []


def test_a_locked_database_is_one_line(store: Store, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    if store.database.file is None:
        pytest.skip("SQLite's lock")
    run = store.enqueue(toy.spec())
    monkeypatch.setattr(Database.__init__, "__kwdefaults__", {"busy": 0.1, "patience": 0.0})
    monkeypatch.setattr(Store.__init__, "__kwdefaults__", {"busy": 0.1})
    with store.database._writes.begin():
        answer = call("stop", run)
    assert (answer.status, answer.err.count("\n")) == (1, 1)
    assert "locked by another program" in answer.err


def test_as_a_program(bench: Bench, tmp_path: Path) -> None:
    """Exit status and streams of the real thing, and a worker that empties the queue: it fails runs it cannot make."""
    program = [sys.executable, "-m", "runs_db"]
    settings: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 60}
    settings |= {"env": environment(), "cwd": tmp_path}
    bad = subprocess.run([*program, "show", "99"], **settings)
    assert (bad.returncode, bad.stdout, bad.stderr) == (2, "", "error: run 99 does not exist\n")
    run = bench.store.enqueue(spec.RunSpec("nowhere", "nothing", "identity", 1, 1, None, 1, "cpu", 1, {}))
    worker = subprocess.run([*program, "worker", "--once", "--slots", "1"], **settings)
    assert (worker.returncode, worker.stdout) == (0, "")
    assert f"run {run}: started" in worker.stderr
    assert f"run {run}: failed" in worker.stderr
    assert "Traceback" not in worker.stderr
    listed = subprocess.run([*program, "list", "--json"], **settings)
    (found,) = json.loads(listed.stdout.splitlines()[-1])
    assert (found["state"], found["epoch"]) == ("failed", 1)
    assert found["error"]
