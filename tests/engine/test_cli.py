"""The command line's contract: exit states, one JSON value on the last line, one sentence for bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from engine import catalog, run
from engine.__main__ import main
from engine.methods import METHODS
from engine.recorder import FolderRecorder, Progress, read_metrics
from small import SMALL, small_spec
from test_structure import ROOT

SETS = [f"--set={section}.{name}={value}" for section, values in SMALL.items() for name, value in values.items()]
STAGES = [(name, "training") for name in METHODS if catalog.find("methods", name).LEARNS] + [
    ("bcq", "states of the log"),
    ("dorl", "world model"),
    ("dsrm_hrl", "item vectors"),
    ("dsrm_hrl", "diffusion"),
]
QUICK = [*SETS, "--set=method.users=40", "--evaluation-episodes=60", "--device=cpu"]


def call(*argv: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, Any, str]:
    """Exit status, the JSON value on the last line of stdout (or None), and stderr."""
    status = main(list(argv))
    out, err = capsys.readouterr()
    lines = out.strip().splitlines()
    return status, json.loads(lines[-1]) if lines and "--json" in argv else None, err


def test_progress_tells_what_is_left_only_where_it_can_be_known() -> None:
    ticker = Progress(every=0.0)
    assert ticker.line("waiting", 0, 1) == "waiting …"
    assert ticker.line("waiting", 0, 1) == "waiting: 0 s so far"
    assert ticker.line("waiting", 0.5, 1) == "waiting: 50 %, about 0 s left"
    assert ticker.line("waiting", 1, 1) == "waiting: done in 0.0 s"
    assert ticker.line("more", 1, 3) == "more …"


@pytest.mark.parametrize(
    ("what", "some"), [("methods", "dsrm_hrl"), ("purifiers", "diffusion"), ("datasets", "ml-100k"), ("studies", "table3")]
)
def test_list_describes_every_option(what: str, some: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, rows, _ = call("list", what, "--json", capsys=capsys)
    assert status == 0
    row = next(row for row in rows if row["name"] == some)
    assert row["summary"]
    assert all({"default", "doc", "range"} <= set(field) for field in row["config"].values())
    assert main(["list", what]) == 0
    assert some in capsys.readouterr().out


def test_train_then_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    argv = ["train", "--purifier=identity", "--episodes=80", f"--out={out}", "--json", *QUICK]
    status, trained, err = call(*argv, capsys=capsys)
    assert status == 0
    assert {"len", "r_each", "r_cum", "ad", "gini", "coverage", "utility", "episodes", "user_steps", "updates"} <= set(trained)
    assert {"total", "pretrain", "purifier", "train", "evaluate"} <= set(trained["seconds"])
    assert trained["episodes"] == 80
    assert trained["peak_rss_mb"] > 50
    assert "training" in err
    assert read_metrics(out)["train_len"]
    status, again, _ = call("evaluate", f"--run={out}", "--episodes=60", "--json", capsys=capsys)
    assert status == 0
    assert again["r_cum"] == pytest.approx(trained["r_cum"], rel=1e-6)
    status, moved, _ = call("evaluate", f"--run={out}", "--episodes=60", "--lam=2", "--seed=1", "--json", capsys=capsys)
    assert status == 0
    assert moved["evaluation_episodes"] == 60
    assert call("evaluate", f"--run={out}", "--steps=1", capsys=capsys)[0] == 2
    assert call(*argv, capsys=capsys)[0] == 2  # the folder is taken


def test_purify_report_and_inspect(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["purify-report", "--purifier=identity", "--seeds=11,15", "--json", *SETS]
    status, table, _ = call(*argv, capsys=capsys)
    assert status == 0
    assert list(table) == ["raw", "projection", "regression", "purified", "clean"]
    assert set(table["raw"]["preference_r2"]) == {"mean", "low", "high"}
    status, row, _ = call("data", "inspect", "synthetic", "--json", "--set=dataset.users=20", capsys=capsys)
    assert status == 0
    assert row["items"] == 3327
    assert 0 <= row["popularity_reward_r2_rates"] <= 1


def test_purify_report_where_the_truth_is_not_known(
    ml100k_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ml-100k").symlink_to(ml100k_source.absolute())
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    quick = ["--set=state.width=6", "--set=state.epochs=2", "--set=purifier.training_steps=50", "--set=purifier.parts=2000"]
    status, table, _ = call("purify-report", "--dataset=ml-100k", *quick, "--json", capsys=capsys)
    assert status == 0
    assert table["raw"]["preference_r2"] is None
    assert table["raw"]["popularity_r2"] > table["purified"]["popularity_r2"]


BAD = [
    (["train", "--method=nosuch"], "method 'nosuch' is unknown"),
    (["train", "--purifier=nosuch"], "purifier 'nosuch' is unknown"),
    (["train", "--dataset=nosuch"], "dataset 'nosuch' is unknown"),
    (["train", "--dataset=nosuch.csv"], "there is no such file"),
    (["train", "--slate=5000"], "world.slate"),
    (["train", "--set=method.lam=-1"], "method.lam = -1 is not legal: it must be a number from 0 to 100"),
    (["train", "--set=method.typo=1"], "method.typo is not an option"),
    (["train", "--set=typo"], "--set 'typo' is not legal"),
    (["train", "--seed=x"], "invalid int value: 'x'"),
    (["train", "--episodes=0"], "episodes = 0 is not legal"),
    (["train", "--episode=5"], "unrecognized arguments: --episode=5"),  # prefixes are not guessed
    (["train", "--resume=nowhere"], "--resume 'nowhere' is not legal"),
    (["train", "--out=/proc/nowhere"], "cannot be written"),
    (["evaluate", "--run=nowhere"], "run = 'nowhere' is not legal"),
    (["evaluate", "--run=.", "--episodes=0"], "--episodes 0 is not legal"),
    (["purify-report", "--seeds=a,b"], "--seeds 'a,b' is not legal"),
    (["data", "fetch", "nosuch"], "invalid choice: 'nosuch'"),
    (["data", "inspect", "nosuch"], "dataset 'nosuch' is unknown"),
    (["study", "table4x"], "study 'table4x' is unknown (did you mean table4?); known: figure2, figure3, figure4, figure6"),
    (["study", "table3", "--budget=huge"], "budget 'huge' is unknown; known: quick, full"),
    (["study", "table3", "--seeds=a"], "--seeds 'a' is not legal"),
    (["study", "table3", "--jobs=0"], "--jobs 0 is not legal"),
    (["study", "table3", "--dataset=nosuch"], "dataset 'nosuch' is unknown"),
    (["study", "table3", "--out=/proc/nowhere"], "cannot be written"),
    (["study", "table3", "--set=study.rows=FLOT"], "study.rows = 'FLOT' is not legal (did you mean FLAT?); known: FLAT, HRL"),
    (["study", "table3", "--set=study.episodes=0"], "study.episodes = 0 is not legal: it must be a whole number from 1"),
    (["study", "table3", "--set=method.typo=1"], "method.typo is not an option of any run of table3"),
    (["study", "figure2", "--set=method.lam=1"], "method.lam is not an option of any run of figure2"),
    (["study", "figure2", "--set=study.episodes=9"], "study.episodes is not an option; known: none"),
    (["study", "figure3", "--set=study.methods=a2d"], "study.methods = 'a2d' is not legal (did you mean a2c?)"),
    (
        ["study", "figure4", "--set=study.projection=tsne"],
        "study.projection = 'tsne' is not legal: it must be one of pca, umap",
    ),
    (["study", "figure4", "--set=study.purifier=nosuch"], "purifier 'nosuch' is unknown"),
    (["study", "figure6", "--set=purifier.steps=3"], "purifier.steps is what this study varies: use study.steps"),
    (["study", "figure6", "--set=study.steps=x"], "study.steps = 'x' is not legal"),
    (["nosuch"], "invalid choice: 'nosuch'"),
    ([], "required"),
]


@pytest.mark.parametrize(("argv", "message"), BAD, ids=[" ".join(argv) or "nothing" for argv, _ in BAD])
def test_bad_input_is_one_line_and_exit_2(
    argv: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = call(*argv, capsys=capsys)
    last = err.strip().splitlines()[-1]
    assert status == 2
    assert message in last
    assert last.startswith("error: ")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("user,item,time\na,x,1\n", "column reward is missing"),
        ("user,item,reward,time\na,x,good,1\nb,y,1,1\n", "reward in line 2 is 'good': it must be a number"),
        ("user,item,reward,time\na,x,nan,1\nb,y,nan,1\n", "column reward holds no value at all"),
    ],
)
def test_a_log_that_cannot_be_used(text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log.csv").write_text(text)
    status, _, err = call("train", f"--dataset={tmp_path / 'log.csv'}", f"--out={tmp_path / 'run'}", capsys=capsys)
    assert status == 2
    assert message in err.strip().splitlines()[-1]


def test_a_log_of_ones_own_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"u{u},i{(u * 7 + k * 11) % 97},{(u + k) % 2},{k}" for u in range(40) for k in range(20)]
    (tmp_path / "log.csv").write_text("user,item,reward,time\n" + "\n".join(rows))
    argv = ["train", f"--dataset={tmp_path / 'log.csv'}", "--purifier=identity", "--episodes=60", "--slate=4", "--max-len=10"]
    status, metrics, _ = call(*argv, f"--out={tmp_path / 'run'}", "--json", capsys=capsys)
    assert status == 0
    assert "utility" not in metrics
    assert metrics["world"]["test"]["auc"] is not None


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    """A training in a process of its own, on one of SMALL's worlds."""
    argv = [sys.executable, "-m", "engine", "train", "--purifier=identity", f"--out={folder}", *QUICK, *more]
    return subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ.copy())


def wait_for(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_within_5_s_and_resume_reaches_the_uninterrupted_end(name: signal.Signals, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(folder, "--episodes=100000")
    progress = process.stderr
    assert progress is not None
    for line in progress:  # "training: … %, about … s left" says that it is at work
        if line.startswith("training:"):
            break
    sent = time.monotonic()
    process.send_signal(name)
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - sent < 5
    assert process.returncode == 1
    assert f"go on with: python -m engine train --resume {folder}" in err
    kept = FolderRecorder(folder).restore()
    assert kept is not None
    # Shorten the rest: the same spec but for the budget, resumed, against one that was never stopped.
    done = kept["count"]["episodes"]
    spec = json.loads((folder / run.SPEC).read_text())
    spec["episodes"] = done + 80
    (folder / run.SPEC).write_text(json.dumps(spec))
    assert main(["train", f"--resume={folder}"]) == 0
    whole = tmp_path / "whole"
    settings = {"method": {"users": 40}}
    straight = small_spec(method="dsrm_hrl", purifier="identity", episodes=done + 80, settings=settings)
    run.run(straight, FolderRecorder(whole, quiet=True), whole)
    a, b = (json.loads((place / run.RESULT).read_text()) for place in (folder, whole))
    assert a["r_cum"] == b["r_cum"]
    assert a["episodes"] == b["episodes"]
    assert (folder / run.POLICY).read_bytes() == (whole / run.POLICY).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("method", "stage"), STAGES)
def test_every_method_stops_within_5_s_whatever_it_is_at(method: str, stage: str, tmp_path: Path) -> None:
    """At its real size: networks, batches and catalogue of the defaults."""
    argv = [sys.executable, "-m", "engine", "train", f"--method={method}", "--device=cpu", f"--out={tmp_path / 'run'}"]
    environment = {**os.environ, "RUNS_DIR": str(tmp_path)}  # nothing is known yet
    process = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    began = next(line for line in process.stderr if line.startswith(stage))
    time.sleep(1)  # until it is in the middle of it
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - sent < 5
    assert process.returncode == 1, began + err
    assert "go on with: python -m engine train --resume" in err


def test_killed_at_a_random_moment_the_curve_is_that_of_an_uninterrupted_run(tmp_path: Path) -> None:
    """kill -9; what was flushed is a prefix, and resuming rewrites the same points."""
    folder = tmp_path / "run"
    process = start(folder, "--episodes=30000")

    def far_enough() -> bool:  # for more than 50 points, on however busy a machine
        kept = FolderRecorder(folder).restore()
        return kept is not None and kept["count"]["episodes"] > 50 * 40

    try:
        wait_for(far_enough, 90)
    finally:
        process.kill()
        process.communicate()
    spec = json.loads((folder / run.SPEC).read_text())
    kept = FolderRecorder(folder).restore()
    assert kept is not None
    spec["episodes"] = kept["count"]["episodes"] + 40
    (folder / run.SPEC).write_text(json.dumps(spec))
    assert main(["train", f"--resume={folder}"]) == 0
    whole = tmp_path / "whole"
    recorder = FolderRecorder(whole, quiet=True)
    run.run(run.from_json(json.dumps(spec)), recorder, whole)
    recorder.flush()
    budget_bound = {"len", "r_each", "r_cum", "ad"}  # greedy points lie at shares of the budget, which was shortened
    a, b = ({k: v for k, v in read_metrics(place).items() if k not in budget_bound} for place in (folder, whole))
    assert a == b
    assert len(a["train_len"]) > 50
