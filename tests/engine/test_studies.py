"""Studies: their tables and sentences, and each of them through the real command line on a tiny world."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import catalog
from engine.__main__ import main
from engine.contracts import Data
from engine.options import BadInput
from engine.recorder import FolderRecorder
from engine.statistics import Change, Spread, spread
from engine.studies import figure2, figure3, figure4, figure6, running, specs, table3, words
from engine.studies.ask import Run, Runs, asked, digest
from engine.studies.draw import PNG_LIMIT
from engine.studies.tables import COLUMNS, Column, Row, Table, csv_text, latex, markdown
from small import SMALL
from test_cli import wait_for
from test_structure import ROOT

WORLD = {**SMALL, "purifier": {"training_steps": 60, "parts": 2500, "hidden": 16}}
SETS = [f"--set={section}.{name}={value}" for section, values in WORLD.items() for name, value in values.items()]
TINY = ["--seeds=11", *SETS, "--set=study.episodes=60", "--set=study.evaluation_episodes=40"]
RAW = [text for text in TINY if "=purifier." not in text]  # for runs that do not purify
LOG_ONLY = [text for text in SETS if text.startswith("--set=dataset.")]


def study(
    name: str, out: Path, capsys: pytest.CaptureFixture[str], *more: str, tiny: list[str] = TINY
) -> tuple[dict[str, Any], str]:
    """The JSON object of a study that must succeed, and its page."""
    status = main(["study", name, f"--out={out}", "--json", *tiny, *more])
    printed, err = capsys.readouterr()
    assert status == 0, err
    made = json.loads(printed.strip().splitlines()[-1])
    stem = f"{name}-synthetic"
    assert {f"{stem}.{end}" for end in ("md", "png", "html", "csv", "tex")} <= {path.name for path in out.iterdir()}
    picture = (out / f"{stem}.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert 5_000 < len(picture) < PNG_LIMIT
    interactive = (out / f"{stem}.html").read_text()
    assert re.findall(r"<script[^>]*>", interactive) == ['<script type="text/javascript">'] * 2  # none is fetched
    assert not re.search(r"<link\b|@import", interactive)
    assert len(interactive) < 2_000_000
    page = (out / f"{stem}.md").read_text()
    assert f"![{''}" in page
    assert f"({stem}.png)" in page
    assert f"`{stem}.html`" in page
    assert f"({stem}.html)" not in page  # it is not kept beside the page
    assert "\n\n\n" not in page
    for sentence in made["findings"]:
        assert f"- {sentence}" in page
    assert 2 <= len(made["findings"]) <= 5
    assert "nan" not in page.lower().split("## what it says")[1]
    return made, page


# Tables


TABLE = Table(
    "",
    "A table",
    "Method",
    [COLUMNS["len"], Column("ad", "AD", -1, 3, span=True), Column("note", "R_cum²")],
    [
        Row("+ one", {"len": Spread(12.345, 0.4, 12.0, 12.7, 3), "ad": Spread(0.5, 0.1, -0.25, 0.6, 3), "note": "a_b|c"}),
        Row("two", {"len": Spread(9.0, 0.0, 9.0, 9.0, 1), "ad": Spread(0.25, 0.0, 0.25, 0.25, 1), "note": None}),
        Row("top", {"len": Spread(30.0, 0.0, 30.0, 30.0, 3), "ad": None, "note": -0.00001}, reference=True),
    ],
)


def test_markdown_of_a_table() -> None:
    assert markdown(TABLE) == (
        "| Method | Len ↑ | AD ↓ | R_cum² |\n"
        "|---|---:|---:|---:|\n"
        "| + one | **12.35 ± 0.40** | 0.500 \\[−0.250, 0.600\\] | a\\_b\\|c |\n"
        "| two | 9.00 | **0.250** | – |\n"
        "| top | 30.00 ± 0.00 | – | 0.000 |"
    )


def test_latex_of_a_table() -> None:
    assert latex(TABLE) == (
        "% A table\n"
        "\\begin{tabular}{lccc}\n"
        "\\toprule\n"
        "Method & Len $\\uparrow$ & AD $\\downarrow$ & R\\_cum$^2$ \\\\\n"
        "\\midrule\n"
        "+ one & \\textbf{12.35 $\\pm$ 0.40} & 0.500 {[}$-$0.250, 0.600{]} & a\\_b|c \\\\\n"
        "two & 9.00 & \\textbf{0.250} & -- \\\\\n"
        "top & 30.00 $\\pm$ 0.00 & -- & 0.000 \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
    )


def test_csv_of_a_table_is_exact_and_harmless() -> None:
    assert csv_text(TABLE) == (
        "method,len_mean,len_std,len_low,len_high,len_n,ad_mean,ad_std,ad_low,ad_high,ad_n,note\n"
        "'+ one,12.345,0.4,12.0,12.7,3,0.5,0.1,-0.25,0.6,3,a_b|c\n"
        "two,9.0,0.0,9.0,9.0,1,0.25,0.0,0.25,0.25,1,\n"
        "top,30.0,0.0,30.0,30.0,3,,,,,,-1e-05\n"
    )


# Sentences change when the numbers do


def test_figure2_reads_counts_and_rates() -> None:
    told = figure2.findings(0.93, 0.99, 0.3, 0.55)
    assert "more than the 0.85" in told[0]
    assert "says nothing of what popularity does" in told[1]
    assert "popular items are received better" in told[2]
    told = figure2.findings(0.60, 0.10, 0.2, -0.45)
    assert "not the more than 0.85" in told[0]
    assert "popular items collect more than exposure alone brings" in told[1]
    assert "popular items are received worse" in told[2]
    assert "next to nothing" in figure2.findings(0.9, 0.9, 0.004, 0.06)[2]


def moved(len_: float, ad: float, half: float = 0.05) -> dict[str, Change | None]:
    return {"len": Change(len_, len_ - half, len_ + half, 3), "ad": Change(ad, ad - half, ad + half, 3), "utility": None}


def test_figure3_says_for_whom_the_papers_claim_held() -> None:
    better, mixed, nothing = moved(1.0, -0.2), moved(1.0, 0.2), moved(0.01, 0.01)
    told = figure3.findings({"a2c": better, "dsrm_hrl": mixed}, {"a2c": nothing}, 3)
    assert told[0].startswith("A2C: diffusion in place of raw states moved Len by +1.00 [+0.95, +1.05] and AD by −0.200")
    assert told[0].endswith("better in Len and AD.")
    assert told[1].endswith("better in Len, worse in AD.")
    assert "held for A2C and not for 1 other" in told[2]
    assert told[3].endswith("A2C the seeds tell no measure apart.")
    assert "held for none of 2" in figure3.findings({"a2c": mixed, "dsrm_hrl": nothing}, {}, 3)[2]
    assert "Nothing was compared" in figure3.findings({}, {}, 3)[0]


def scores(raw: float, pure: float, silhouette: float) -> dict[str, dict[str, Spread | None]]:
    def row(popularity: float, interest: float, by_popularity: float) -> dict[str, Spread | None]:
        values = {"popularity_r2": popularity, "category_accuracy": interest, "silhouette_popularity": by_popularity}
        found: dict[str, Spread | None] = {name: spread([value]) for name, value in values.items()}
        return {**found, "popularity_r2_nonlinear": None, "preference_r2": None, "silhouette_interest": None}

    return {"raw": row(raw, 0.3, silhouette), "purified": row(pure, 0.4, 0.0), "clean": row(0.0, 0.5, 0.0)}


def test_figure4_says_what_moved_and_whether_there_are_clusters() -> None:
    told = figure4.findings(scores(0.8, 0.1, 0.2))
    assert "falls: R² 0.80 raw, 0.10 purified" in told[0]
    assert "tell more of the main interest" in told[1]
    assert "50 % of the way" in told[1]
    assert "raw states cluster by popularity, as the paper's picture has it" in told[2]
    told = figure4.findings(scores(0.2, 0.7, -0.01))
    assert "rises" in told[0]
    assert "do not cluster by popularity, unlike" in told[2]


def curve(values: dict[int, float], preference: float = 0.0) -> figure6.Curve:
    """Steps → measures of 3 seeds that agree to a hundredth; `preference` is lost from the smallest S to the largest."""
    last = max(values)
    return {
        steps: {
            name: {seed: (value if name == "r_cum" else preference * (steps == last)) + 0.01 * place * (steps == last)
                   for place, seed in enumerate((11, 15, 19))}
            for name in (*figure6.RESULTS, *figure6.STATES)
        }
        for steps, value in values.items()
    }  # fmt: skip


def test_figure6_says_whether_many_steps_do_harm() -> None:
    harm = figure6.about_retrained(curve({5: 9.0, 10: 9.5, 500: 6.0}, preference=-0.3), 10)
    assert harm[0].endswith("between 6.01 and 9.50, best at S = 10.")
    assert "From S = 10 to S = 500: R_cum by −3.49" in harm[1]
    assert "Many steps do harm here, as the paper reports. The states lose preference with it" in harm[1]
    assert "it need not be over-smoothing" in figure6.about_retrained(curve({10: 9.5, 500: 6.0}), 10)[1]
    assert "was not measured here" in figure6.about_retrained(curve({10: 9.5, 500: 9.9}), 10)[1]
    assert "No S beyond the default" in figure6.about_retrained(curve({2: 9.0, 10: 9.5}), 10)[1]


def test_figure6_says_what_the_steps_are_worth() -> None:
    told = figure6.about_stopped({figure6.WITH: curve({0: 8.0, 5: 9.0, 10: 8.9}), figure6.WITHOUT: curve({0: 8.0, 10: 7.0})})
    assert "With the condition, all the steps are worth more than none" in told[0]
    assert "best at k = 5 (9.00)" in told[0]
    assert "Without the condition, all the steps are worse than none" in told[1]
    same = figure6.about_stopped({figure6.WITH: curve({0: 8.0, 10: 7.99})})
    assert "not told apart from none" in same[0]


def found_rows(**r_cum: float) -> table3.Found:
    names = {"flat": "FLAT", "hrl": "HRL", "dsrm": "+ DSRM", "balanced": "balanced, raw states", "oracle": "oracle"}
    return {
        names[short]: {
            name: {seed: value + 0.01 * place for place, seed in enumerate((11, 15, 19))} for name in ("len", "r_cum", "ad")
        } | {"utility": {11: None}}
        for short, value in r_cum.items()
    }  # fmt: skip


def test_table3_compares_with_the_paper_and_with_rules() -> None:
    published = table3.printed(30)
    good = found_rows(flat=5.0, hrl=6.0, dsrm=7.0, balanced=4.0, oracle=9.0)
    told = table3.findings(good, published)
    assert told[0].startswith("Purified states (+ DSRM against HRL) moved Len by +1.00")
    assert told[0].endswith("The paper has R_cum higher with it on both of its data sets; here too.")
    spreads = {title: {name: spread(list(own[name].values())) for name in own} for title, own in good.items()}
    told = table3.against_references(good, spreads)
    assert (
        "The best of the paper's rows in R_cum, + DSRM, beats the best rule without learning, balanced, raw states" in told[0]
    )
    assert "is +2.00 R_cum from it" in told[1]
    bad = found_rows(flat=8.0, hrl=6.0, dsrm=5.0, balanced=9.0)
    told = table3.findings(bad, published)
    assert "here it is the other way round" in told[0]
    assert "here it is the other way round" in told[1]
    spreads = {title: {name: spread(list(own[name].values())) for name in own} for title, own in bad.items()}
    assert "FLAT, loses to" in table3.against_references(bad, spreads)[0]


def test_table3_exchanges_one_part_of_the_whole_at_a_time() -> None:
    rows = found_rows(dsrm=7.0) | {"Eq. 6 to the letter": found_rows(dsrm=5.0)["+ DSRM"]}
    (told,) = table3.exchanged(rows)
    assert told.startswith("Eq. 6 to the letter in place of + DSRM moved Len by −2.00")
    assert told.endswith(": better in AD, worse in Len and R_cum.")  # 5 is a smaller AD than 7
    assert table3.exchanged(found_rows(hrl=6.0)) == []
    made = {arm.title: spec for arm, spec in zip(table3.arms(asked("table3")), specs("table3", seeds=(1,)), strict=True)}
    whole = made["+ DSRM"]
    for arm in table3.VARIANTS:
        exchanges = {
            f"{part}.{name}": value
            for layer in (arm.settings, arm.defaults)
            for part, own in layer.items()
            for name, value in own.items()
        }
        differs = {
            f"{part}.{name}": value
            for part, own in made[arm.title].settings.items()
            for name, value in own.items()
            if whole.settings[part].get(name) != value
        }
        if arm.purifier == whole.purifier:
            assert differs == exchanges, arm.title
        else:
            assert (made[arm.title].purifier, made[arm.title].settings["method"]) == (arm.purifier, whole.settings["method"])


def test_words_of_changes() -> None:
    up = Change(0.5, 0.4, 0.6, 3)
    assert (words.verdict(up, COLUMNS["len"]), words.verdict(up, COLUMNS["ad"])) == (1, -1)
    assert words.verdict(replace(up, low=-0.1), COLUMNS["len"]) == 0
    assert words.verdict(replace(up, n=1), COLUMNS["len"]) == 0
    assert words.changed(Change(-0.5, -0.5, -0.5, 1), COLUMNS["len"]) == "Len by −0.50"
    assert words.graded({"Len": 1, "R_cum": 1, "AD": -1, "Utility": 0}) == (
        "better in Len and R_cum, worse in AD; Utility not told apart"
    )


def test_the_papers_numbers_are_those_of_its_table() -> None:
    cell = table3.printed(30)["KuaiRec"]["+ DSRM"]["len"]
    assert (cell.mean, cell.std) == (26.6, 0.816)
    assert table3.printed(50)["KuaiRand-Pure"]["FLAT"]["ad"].mean == 0.136
    assert table3.printed(40) == {}
    assert set(table3.printed(30)["KuaiRec"]) == {arm.title for arm in table3.ROWS}


def test_interests_without_the_truth_are_tags_that_stand_out(data: Data) -> None:
    users = torch.arange(data.test.users)
    own = figure4.interests(replace(data, truth=None), users)[0]
    assert len(own.unique()) > 3
    truth = figure4.interests(data, users)[0]
    same = (own == truth).float().mean()
    shuffled = (own == truth.roll(1)).float().mean()
    assert same > shuffled + 0.1  # tags of responses follow the true interest


# What is asked


def test_runs_of_a_study() -> None:
    found = specs("table3", seeds=(1, 2), budget="full")
    assert {spec.episodes for spec in found if spec.method == "dsrm_hrl"} == {20_000}
    assert {spec.seed for spec in found} == {1, 2}
    assert found[0].settings["dataset"]["items"] == 3327
    quick = specs("table3", seeds=(1,), sets=["method.users=64", "world.max_len=20"])
    assert len({digest(spec) for spec in quick}) == len(quick)
    assert quick[0].settings["dataset"]["items"] < 3327
    by_method = {spec.method: spec for spec in quick}
    assert by_method["dsrm_hrl"].settings["method"]["users"] == 64
    assert "users" not in by_method["random"].settings["method"]  # an option of learners alone
    assert {spec.settings["world"]["max_len"] for spec in quick} == {20}


def test_studies_share_runs() -> None:
    both = [{digest(spec) for spec in specs(name)} for name in ("table3", "figure3", "figure6")]
    assert len(both[0] & both[1] & both[2]) == 3  # DSRM-HRL with defaults, three seeds
    assert len(both[0] & both[1]) == 9  # and behind raw states, and behind the regression


def test_steps_of_figure6() -> None:
    steps = [spec.settings["purifier"]["steps"] for spec in specs("figure6", seeds=(1,), budget="full")]
    assert steps == [5, 10, 30, 50, 100, 200, 500]
    assert [spec.settings["purifier"]["steps"] for spec in specs("figure6", seeds=(1,), sets=["study.steps=3"])] == [3, 10]


def test_methods_and_purifiers_that_are_not_built_are_left_out() -> None:
    pairs = {(spec.method, spec.purifier) for spec in specs("figure3", seeds=(1,))}
    methods = [name for name in figure3.METHODS_COMPARED if name in catalog.TABLES["methods"]]
    assert pairs == {(method, purifier) for method in methods for purifier in figure3.PURIFIERS_COMPARED}
    wanted = {arm.purifier for arm in (*table3.ROWS, *table3.VARIANTS)}
    built = {purifier for purifier in wanted if purifier in catalog.TABLES["purifiers"]}
    assert {spec.purifier for spec in specs("table3", seeds=(1,)) if spec.method == "dsrm_hrl"} == built


# Pages from made-up results


def made_up(ask: Any, tmp_path: Path) -> Runs:
    """Results for all runs of an ask; DSRM-HRL gets more the more steps it has."""
    metrics = {"len": 20.0, "r_each": 0.5, "r_cum": 10.0, "ad": 0.1, "utility": 0.4, "seconds": {"total": 100.0}}
    found = {}
    for spec in ask.module.specs(ask):
        luck = 0.01 * (spec.seed % 7)
        own = metrics | {"len": 20.0 + luck + len(spec.purifier), "r_cum": 10 + luck}
        found[digest(spec)] = Run(spec, own, tmp_path, "abc" if spec.seed == 11 else "def")
    return found


def test_a_page_names_the_code_that_made_older_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.studies import study as whole

    ask = asked("table3", seeds=(11, 15), budget="full")
    runs = made_up(ask, tmp_path)
    monkeypatch.setattr(running, "complete", lambda specs, jobs, say: runs)
    monkeypatch.setattr(running, "commit", lambda: "abc")
    made = whole.run_study(ask, 2, tmp_path, "the command", lambda text: None)
    page = (tmp_path / "table3-synthetic.md").read_text()
    assert "| Command | `the command` |" in page
    assert f"| Commit | `abc`; runs: {len(runs) // 2} at `def` |" in page
    assert f"| Runs | {len(runs)} ({len(runs) * 100 / 60:.0f} min of one core) |" in page
    assert "20,000 training sessions" in page
    assert "The paper's Table 3, Max Len 30, as printed" in page
    assert "26.600 ± 0.816" in page
    assert (tmp_path / "table3-synthetic-paper.tex").read_text().count(r"\textbf") >= 8
    assert made["tables"]["table3"]["FLAT"]["len"]["n"] == 2


# Through the command line


def test_figure2_and_figure4_need_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, page = study("figure2", tmp_path, capsys, tiny=LOG_ONLY)
    assert made["runs"] == 0
    assert "rates" in page
    values = made["tables"]["figure2"]
    assert values["rates, rewards dealt out at random"]["r2"] < 0.05 < values["counts, rewards dealt out at random"]["r2"]
    sets = [text for text in SETS if "world." not in text]
    made, page = study("figure4", tmp_path, capsys, tiny=["--seeds=11,15", *sets])
    assert made["runs"] == 0
    values = made["tables"]["figure4"]
    assert values["purified"]["popularity_r2"]["mean"] < values["raw"]["popularity_r2"]["mean"]
    assert values["clean"]["neighbourhood_overlap"]["mean"] == 1


def test_studies_with_runs_share_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other through real processes; what one has run, the next takes."""
    rows = "--set=study.rows=HRL;+ DSRM;random"
    made, page = study("table3", tmp_path, capsys, rows)
    assert made["runs"] == 3
    assert "The paper has no Table 3 for Max Len 8" in page
    assert made["tables"]["table3"]["HRL"]["len"]["mean"] > 1
    two = ["--set=study.methods=dsrm_hrl", "--set=study.purifiers=identity,diffusion"]
    start = subprocess.Popen

    def guarded(argv: list[str], **options: Any) -> Any:  # scikit-learn may ask the machine how many cores it has
        return pytest.fail("a finished run was run again") if "engine" in argv else start(argv, **options)

    monkeypatch.setattr(subprocess, "Popen", guarded)
    monkeypatch.setattr(running, "commit", lambda: "abc")
    again, _ = study("figure3", tmp_path, capsys, *two)
    name = {"HRL": "DSRM-HRL, raw (identity)", "+ DSRM": "DSRM-HRL, diffusion"}
    for row, other in name.items():
        assert again["tables"]["figure3"][other]["len"] == made["tables"]["table3"][row]["len"]
    made, page = study("figure6", tmp_path, capsys, "--set=study.steps=10")
    stopped = made["tables"]["stopped"]
    assert list(stopped) == [str(k) for k in range(11)]
    assert stopped["0"]["r_cum without"] == stopped["0"]["r_cum with the condition"]  # no step, nothing to be told
    assert stopped["10"]["r_cum without"] != stopped["10"]["r_cum with the condition"]
    assert stopped["10"]["r_cum with the condition"]["mean"] == pytest.approx(made["tables"]["figure6"]["10"]["r_cum"]["mean"])


@pytest.fixture
def own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNS_DIR", str(tmp_path / "runs"))
    return tmp_path / "runs" / "studies"


def free(place: Path) -> bool:
    """Whether no process holds the run's lock."""
    with place.with_suffix(".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_a_stopped_study_goes_on_where_it_was(tmp_path: Path, own_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = [*RAW, "--set=study.rows=HRL", "--set=method.users=40", "--set=study.episodes=6000"]
    argv = ["study", "table3", f"--out={tmp_path / 'out'}", *sets]
    process = subprocess.Popen([sys.executable, "-m", "engine", *argv], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    (spec,) = specs("table3", seeds=(11,), sets=[text.removeprefix("--set=") for text in sets if text.startswith("--set=")])
    place = own_runs / digest(spec)
    log = place / running.LOG
    wait_for(lambda: log.exists() and "training:" in log.read_text())
    assert not free(place)
    assert (place / running.COMMIT).read_text() == running.commit()  # of the code that began, whatever is there when it ends
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    wait_for(lambda: free(place), 5)
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - sent < 8  # 5 on a machine that does nothing else
    assert process.returncode == 1
    assert "stopped: what is finished is kept; the same command goes on from there" in err
    assert "Traceback" not in err
    assert free(place)
    kept = FolderRecorder(place).restore()
    assert kept is not None
    assert 0 < kept["count"]["episodes"] < 6000
    metrics = place / "metrics.jsonl"
    before = len(metrics.read_text().splitlines())
    assert not (place / "result.json").exists()
    assert main(argv) == 0
    assert json.loads((place / "result.json").read_text())["episodes"] == 6000
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()[before:]]
    assert min(steps) >= kept["count"]["episodes"]  # it did not begin anew
    assert "| Runs | 1 (" in (tmp_path / "out" / "table3-synthetic.md").read_text()
    capsys.readouterr()


def fake(tmp_path: Path, script: str) -> str:
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "status", "said"),
    [
        (
            "echo some line >&2; echo failed: loss is not finite >&2; exit 1",
            1,
            "random + identity, seed 11: failed: loss is not",
        ),
        ("echo error: the log is broken >&2; exit 2", 2, "error: random + identity, seed 11: the log is broken"),
        ("kill -9 $$", 1, "its process was ended by signal 9"),
        ("exit 0", 1, "it left no result"),
    ],
)
def test_a_failed_run_fails_the_study_and_is_named(
    script: str, status: int, said: str, tmp_path: Path, own_runs: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "executable", fake(tmp_path, script))
    argv = ["study", "table3", f"--out={tmp_path / 'out'}", *RAW, "--set=study.rows=random"]
    assert main(argv) == status
    err = capsys.readouterr().err
    assert said in err.strip().splitlines()[-1]
    assert "Traceback" not in err
    assert not list((tmp_path / "out").glob("*"))


def test_a_failure_stops_the_other_runs(
    tmp_path: Path, own_runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second run fails while the first is at work: the first is told to stop, and killed where it does not."""
    monkeypatch.setattr(running, "GRACE", 0.5)
    first = f"if mkdir {tmp_path}/first 2>/dev/null; then echo $$ > {tmp_path}/pid; sleep 60 & wait; wait"
    script = f'trap "" TERM; {first}; else sleep 0.5; exit 1; fi'
    monkeypatch.setattr(sys, "executable", fake(tmp_path, script))
    argv = ["study", "table3", f"--out={tmp_path / 'out'}", *RAW, "--set=study.rows=random;popular"]
    began = time.monotonic()
    assert main(argv) == 1
    assert time.monotonic() - began < 15
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_run_that_another_study_is_at_is_waited_for(tmp_path: Path, own_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While somebody holds its lock no process is started; when they leave a result, it is taken."""
    (spec,) = specs("table3", seeds=(11,), sets=["study.rows=random"])
    place = own_runs / digest(spec)
    monkeypatch.setattr(subprocess, "Popen", lambda *argv, **options: pytest.fail("two processes at one run"))
    monkeypatch.setattr(running, "EVERY", 0.0)
    said = []
    place.mkdir(parents=True)
    lock = place.with_suffix(".lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)

    def say(text: str) -> None:
        said.append(text)
        if "waiting for another study" in text:
            (place / "result.json").write_text(json.dumps({"len": 3.0, "seconds": {"total": 1.0}}))
            lock.close()

    found = running.complete([spec], 1, say)
    assert found[digest(spec)].metrics["len"] == 3.0
    assert any("waiting for another study" in text for text in said)


def test_measurements_are_kept_until_the_code_or_the_key_changes(own_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def make() -> int:
        made.append(1)
        return len(made)

    assert [running.kept("thing", {"seed": 1}, make) for _ in range(2)] == [1, 1]
    assert running.kept("thing", {"seed": 2}, make) == 2
    monkeypatch.setattr(running, "_source", lambda: "other code")
    assert running.kept("thing", {"seed": 1}, make) == 3


def test_the_commit_is_told_or_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert running.commit() == "unknown"
    monkeypatch.setenv("PATH", "")
    assert running.commit() == "unknown"


def test_a_log_of_ones_own_has_a_plain_file_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"u{u},i{(u * 7 + k * 11) % 97},{(u + k) % 2},{k}" for u in range(40) for k in range(20)]
    log = tmp_path / "my log.csv"
    log.write_text("user,item,reward,time\n" + "\n".join(rows))
    assert main(["study", "figure2", f"--dataset={log}", f"--out={tmp_path / 'out'}", "--json"]) == 0
    made = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert Path(made["files"][0]).name == "figure2-my-log.md"
    assert "| Dataset | `my log.csv` |" in Path(made["files"][0]).read_text()


def test_unknown_names_are_refused_in_python_too() -> None:
    with pytest.raises(BadInput, match="seeds is empty"):
        specs("table3", seeds=())
    with pytest.raises(BadInput, match="section of options"):
        specs("table3", sets=["typo.x=1"])
    assert asdict(asked("figure6", sets=["study.steps=2"]).config)["steps"] == "2"
