"""Folders of `engine train --out` become done runs; anything odd in them is refused or left out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import checkpoint, spec
from engine.options import BadInput
from engine.recorder import FolderRecorder
from runs_db.imports import import_folder
from runs_db.store import Store

pytestmark = pytest.mark.usefixtures("toy_parts")

RESULT = {"len": 4.5, "utility": None, "episodes": 100, "seconds": {"total": 12.0, "train": 10.0}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What `engine train --out` leaves."""
    folder = tmp_path / "made elsewhere"
    recorder = FolderRecorder(folder, quiet=True)
    for step in (1, 2, 2):
        recorder.scalars(step, {"len": step / 2, "loss": 1.0})
    recorder.flush()
    (folder / "spec.json").write_text(spec.make("toy", "toy", "toy", seed=3).to_json())
    (folder / "result.json").write_text(json.dumps({**RESULT, "spec": {}}))
    (folder / "episodes.csv").write_text(
        "user,len,r_cum,r_each,ad,head_share,utility\n5,4,1,0.25,0.1,0.5,\n2,6,3,0.5,0,1,0.5\n"
    )
    (folder / "run.log").write_text("all went well\n")
    checkpoint.write_tensors(folder / "policy.pt", {"a": [1]})
    (folder / "notes.pkl").write_bytes(b"\x80\x04.")
    (folder / "checkpoints").mkdir()
    return folder


def test_import(store: Store, folder: Path) -> None:
    made = import_folder(store, folder)
    assert not made.again
    found = store.get(made.run)
    assert (found.state, found.name, found.seed, found.seconds, found.imported) == ("done", "made elsewhere", 3, 12.0, True)
    assert found.summary == RESULT
    assert store.spec(made.run) == spec.make("toy", "toy", "toy", seed=3)
    assert store.series([made.run], ["len"]).value.tolist() == [0.5, 1.0]
    table = store.episodes(made.run)
    assert (table.user.tolist(), table.len.tolist(), table.utility.isna().tolist()) == ([2, 5], [6.0, 4.0], [False, True])
    copied = {path.name for path in store.folder(made.run).iterdir()}
    assert copied == {"spec.json", "result.json", "metrics.jsonl", "episodes.csv", "run.log", "policy.pt", "policy.pt.sha256"}
    assert checkpoint.read_tensors(store.folder(made.run) / "policy.pt") == {"a": [1]}
    assert store.log_tail(made.run) == "all went well"
    assert [path.name for path in store.database.folder.iterdir()] == [str(made.run)]


def test_importing_twice_gives_the_first(store: Store, folder: Path) -> None:
    first = import_folder(store, folder)
    again = import_folder(store, folder)
    assert (again.run, again.again) == (first.run, True)
    assert len(store.runs()) == 1
    store.delete([first.run])
    assert not import_folder(store, folder).again


def test_an_imported_run_is_finished(store: Store, folder: Path) -> None:
    run = import_folder(store, folder).run
    for action in (store.resume, store.request_stop):
        with pytest.raises(BadInput, match="is done"):
            action(run)
    assert store.seconds_per_episode("toy", "toy", "toy") is None, "its speed is not this machine's"


def _write(name: str, content: str | bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "spec.json").unlink(), "has no spec.json"),
        (lambda folder: (folder / "result.json").unlink(), "has no result.json"),
        (_write("spec.json", "{"), "spec.json: the spec is not JSON"),
        (_write("spec.json", '{"method": "nope"}'), "method 'nope' is unknown"),
        (_write("spec.json", b"\xff"), "spec.json cannot be read"),
        (_write("result.json", "[]"), "must be a JSON object"),
        (_write("result.json", '{"len": NaN}'), "NaN is not a number"),
        (_write("metrics.jsonl", "{"), "metrics.jsonl is not readable"),
        (_write("metrics.jsonl", '{"len": 1}'), "metrics.jsonl is not readable"),
        (_write("metrics.jsonl", '{"step": 1, "len": NaN}'), "len is nan at step 1"),
        (_write("metrics.jsonl", '{"step": 1, "len": "x"}'), "metrics.jsonl is not readable"),
        (_write("episodes.csv", "len\n1\n"), "has no column user"),
        (_write("episodes.csv", "user,len\n1,x\n"), "line 2: len = 'x' must be a number"),
        (_write("episodes.csv", "user,len\n1,2\n1,3\n"), "has a user twice"),
        (_write("episodes.csv", "user,len\n1.5,2\n"), "user = '1.5' must be a whole number"),
        (_write("policy.pt", "damaged"), "policy.pt is damaged"),
        (lambda folder: (folder / "states.pt").symlink_to(folder / "run.log"), "states.pt is not a regular file"),
        (lambda folder: os.mkfifo(folder / "states.pt"), "states.pt is not a regular file"),
    ],
)
def test_what_is_refused(store: Store, folder: Path, spoil: Callable[[Path], Any], words: str) -> None:
    spoil(folder)
    with pytest.raises(BadInput) as caught:
        import_folder(store, folder)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert store.runs() == []
    assert list(store.database.folder.iterdir()) == []
