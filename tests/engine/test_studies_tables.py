"""The studies of all methods: table2, table4, figure7, pareto, from made-up results and from small real runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import run
from engine.__main__ import main
from engine.methods import METHODS
from engine.options import BadInput
from engine.recorder import MemoryRecorder
from engine.statistics import Estimate
from engine.studies import compared, figure7, pareto, running, sensitivity, specs, study, table2, table3, table4
from engine.studies.ask import Ask, Run, Runs, asked, digest
from engine.studies.compared import OURS
from engine.studies.tables import Column, Row, Table, csv_text, latex, markdown
from small import SMALL

SEEDS = (11, 15, 19)
QUICK = {"purifier": {"training_steps": 20, "parts": 500, "hidden": 8}}
SETS = [
    f"{section}.{name}={value}"
    for section, values in {**SMALL, **QUICK}.items()
    for name, value in values.items()
]  # fmt: skip
FEW = ["study.episodes=60", "study.evaluation_episodes=30"]


def made_up(ask: Ask, folder: Path, **more: float) -> Runs:
    """Results for every run. more: method → what it gets beyond 10 in R_cum and the like; AD falls by a hundredth of it."""
    found = {}
    for place, spec in enumerate(ask.module.specs(ask)):
        gain = more.get(spec.method, 0.0)
        luck = 0.01 * SEEDS.index(spec.seed)
        own = folder / str(place)
        own.mkdir(parents=True)
        points = [(0, 5.0, 0.9), (30, 5.0 + gain, 0.5), (60, 10 + gain + luck, 0.2)]
        lines = [json.dumps({"step": step, "len": high, "r_cum": high, "ad": low}) for step, high, low in points]
        (own / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        metrics = {
            "len": 20 + gain + luck, "r_each": 0.5 + gain / 100, "r_cum": 10 + gain + luck, "ad": 0.5 - gain / 100 - luck / 100,
            "utility": 0.4 + gain / 100 + luck / 100, "user_steps": 1000,
            "seconds": {"pretrain": 5.0, "purifier": 7.0, "train": 10.0 + gain, "evaluate": 1.0, "total": 20.0},
            "cached": {"pretrain": [], "purifier": []}, "resumed": False,
        }  # fmt: skip
        found[digest(spec)] = Run(spec, metrics, own, "abc")
    return found


def told(ask: Ask, runs: Runs, measured: Any = None) -> list[str]:
    return list(ask.module.read(ask, runs, measured).findings)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts take longer than all else; the pages' test draws them."""
    for module in (table2, table4, figure7, pareto, sensitivity):
        monkeypatch.setattr(module, "_chart", lambda *parts: None)


# Which methods


def test_a_study_takes_the_methods_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(METHODS, "a2c")
    monkeypatch.setitem(METHODS, "td3", METHODS["dsrm_hrl"])
    assert "A2C" in compared.missing()
    assert "TD3" not in compared.missing()
    assert compared.told_missing()[0].startswith("Not built yet, and so not compared: A2C")
    for name in ("table2", "table4", "figure7", "pareto"):
        methods = {spec.method for spec in specs(name, seeds=(1,))}
        assert {"td3", "dsrm_hrl"} <= methods, name
        assert "a2c" not in methods
    for name in compared.PAPERS:
        monkeypatch.setitem(METHODS, name, METHODS["dsrm_hrl"])
    assert compared.told_missing() == []


def test_every_reference_is_in_the_tables_and_learns_nothing() -> None:
    arms = compared.arms(None)
    assert {arm.method for arm in arms} >= set(compared.REFERENCES)
    assert not any(compared.learner(name) for name in compared.REFERENCES)
    assert [compared.learner(arm.method) for arm in arms] == sorted((compared.learner(a.method) for a in arms), reverse=True)
    assert [arm.title for arm in arms if arm.method == "balanced"] == ["balanced, raw states", "balanced, purified states"]
    assert not [arm for arm in compared.arms(None, references=False) if arm.method in compared.REFERENCES]


def test_runs_are_shared_with_table3() -> None:
    other = {digest(spec) for spec in specs("table3")}
    for name, count in (("table2", 3), ("table4", 6), ("figure7", 3), ("pareto", 3)):
        mine = [spec for spec in specs(name) if spec.method == "dsrm_hrl"]
        assert sum(digest(spec) in other for spec in mine) >= count, name


# Table 2


def test_the_papers_numbers_are_those_of_its_tables() -> None:
    published = compared.printed()
    assert set(published) == {(dataset, length) for dataset in ("KuaiRec", "KuaiRand-Pure") for length in (30, 50)}
    for own in published.values():
        assert list(own) == ["A2C", "TD3", "BCQ", "MOFIR", "DORL", "DNaIR", "SAC4IR", OURS]
        assert all(set(row) == set(compared.MEASURES) for row in own.values())
    for (dataset, length), own in published.items():  # the paper prints its own method in Table 3 too
        for name, cell in own[OURS].items():
            again = table3.printed(length)[dataset]["+ DSRM"][name]
            assert (cell.mean, cell.std) == (again.mean, again.std)
    assert published["KuaiRand-Pure", 50]["SAC4IR"]["len"].mean == 28.433
    seconds = {line["method"]: float(line["seconds"]) for line in compared.rows("table4")}
    assert seconds == {
        "A2C": 7512.144, "SAC4IR": 6754.545, "DNaIR": 5934.623, "HRL": 8462.525, "+ RCE": 29919.296, OURS: 15909.175,
    }  # fmt: skip


def test_table2_has_both_lengths() -> None:
    made = specs("table2", seeds=(1,))
    assert {spec.settings["world"]["max_len"] for spec in made} == {30, 50}
    assert len({digest(spec) for spec in made}) == len(made) == 2 * len(compared.arms(None))
    with pytest.raises(BadInput, match=r"world.max_len is what this study varies: use study.max_lens"):
        specs("table2", sets=["world.max_len=20"])
    with pytest.raises(BadInput, match=r"study.max_lens = '30,x' is not legal"):
        specs("table2", sets=["study.max_lens=30,x"])
    with pytest.raises(BadInput, match=r"study.methods = 'a2d' is not legal \(did you mean a2c\?\)"):
        specs("table2", sets=["study.methods=a2d"])


@pytest.mark.usefixtures("no_pictures")
def test_table2_says_who_wins(tmp_path: Path) -> None:
    ask = asked("table2", sets=["study.methods=a2c,dsrm_hrl,balanced,oracle"])
    good = told(ask, made_up(ask, tmp_path / "good", dsrm_hrl=2.0, balanced=1.0, oracle=3.0))
    text = " ".join(good)
    assert f"At Max Len 30 the best means among methods that learn: {OURS} in Len, R_each, R_cum, AD and Utility." in text
    assert f"At Max Len 50, seed by seed, {OURS} is in R_cum better than A2C; in AD better than A2C" in text
    assert f"the best learner in R_cum, {OURS}, beats the best rule without learning, balanced, " in text
    assert "agree on who is above whom in R_cum in 2 of these comparisons" in text
    assert "here 2 come out alike, 0 the other way round, and in 0 the seeds do not tell" in text
    bad = " ".join(told(ask, made_up(ask, tmp_path / "bad", a2c=1.0, balanced=2.0, oracle=3.0)))
    assert "A2C in Len, R_each, R_cum, AD and Utility" in bad
    assert f"{OURS} is in R_cum worse than A2C" in bad
    assert "A2C, loses to the best rule without learning, balanced, " in bad
    assert "here 0 come out alike, 2 the other way round" in bad
    same = " ".join(told(ask, made_up(ask, tmp_path / "same")))
    assert f"{OURS} is in R_cum not told apart from A2C" in same
    assert "in 2 the seeds do not tell" in same


@pytest.mark.usefixtures("no_pictures")
def test_tables_of_table2(tmp_path: Path) -> None:
    ask = asked("table2", sets=["study.methods=a2c,dsrm_hrl,random"])
    report = table2.read(ask, made_up(ask, tmp_path, dsrm_hrl=2.0), None)
    tables = {table.name: table for table in report.tables}
    assert list(tables) == ["", "references", "iqm", "paper", "differences", "improvement"]
    assert [row.title for row in tables[""].rows] == ["A2C", OURS]
    assert [row.title for row in tables["references"].rows] == ["random"]
    assert tables[""].best(tables[""].columns[0]) == {OURS}
    middle = tables["iqm"].rows[1].cells["r_cum_50"]
    assert isinstance(middle, Estimate)
    assert (middle.value, middle.n) == (pytest.approx(12.01), 3)
    beside = {row.title: row.cells for row in tables["paper"].rows}
    assert beside["TD3, Max Len 30"]["len here"] is None or "td3" in METHODS
    assert beside[f"{OURS}, Max Len 50"]["r_cum KuaiRec"].mean == 30.419  # type: ignore[union-attr]
    assert beside[f"{OURS}, Max Len 50"]["r_cum here"].mean == pytest.approx(12.01)  # type: ignore[union-attr]
    gap = {row.title: row.cells for row in tables["differences"].rows}["A2C, Max Len 30"]["r_cum"]
    assert isinstance(gap, Estimate)
    assert (gap.value, gap.low, gap.high) == pytest.approx((2.0, 2.0, 2.0))
    for row in tables["improvement"].rows:  # higher for what should be high, lower for AD
        assert {name: own.value for name, own in row.cells.items() if isinstance(own, Estimate)} == dict.fromkeys(
            table2.NAMES, 1
        )


def test_estimates_in_tables() -> None:
    cells = {"p": Estimate(0.5, 0.25, 1.0, 3)}
    table = Table("", "c", "Row", [Column("p", "P", 1, 2)], [Row("a", cells), Row("b", {"p": Estimate(0.75, 0.75, 0.75, 1)})])
    assert "| a | 0.50 \\[0.25, 1.00\\] |" in markdown(table)
    assert "| b | **0.75** |" in markdown(table)
    assert "0.50 {[}0.25, 1.00{]}" in latex(table)
    assert csv_text(table) == "row,p_value,p_low,p_high,p_n\na,0.5,0.25,1.0,3\nb,0.75,0.75,0.75,1\n"


# Table 4


@pytest.mark.usefixtures("no_pictures")
def test_table4_counts_stage_one_where_it_was_computed(tmp_path: Path) -> None:
    ask = asked("table4", sets=["study.methods=a2c,dsrm_hrl"])
    runs = dict(made_up(ask, tmp_path, dsrm_hrl=5.0))
    for name, own in runs.items():  # one seed's encoder and purifier are computed, the others' come from the cache
        cached = {"pretrain": ["vectors-observed"], "purifier": [f"view-{own.spec.purifier}"]}
        seconds = {**own.metrics["seconds"], "purifier": 7.0 if own.spec.method == "dsrm_hrl" else 0.5}
        if own.spec.seed != 11 or own.spec.method == "a2c":
            seconds = {**seconds, "pretrain": 0.1}
            runs[name] = Run(own.spec, {**own.metrics, "cached": cached, "seconds": seconds}, own.folder, "abc")
        else:
            runs[name] = Run(own.spec, {**own.metrics, "seconds": seconds}, own.folder, "abc")
    report = table4.read(ask, runs, None)
    rows = {row.title: row.cells for row in report.tables[0].rows}
    assert rows[OURS]["pretrain"].mean == 5.0  # type: ignore[union-attr]
    assert rows[OURS]["whole"] == pytest.approx(5 + 7 + 15 + 1)
    assert rows[OURS]["cached"] == "encoder and worlds 2 of 3; purifier 2 of 3"
    assert rows[OURS]["per_step"] == pytest.approx(1e6 * 15 / 1000)
    assert rows[OURS]["paper"] == 15909.175
    assert rows["A2C"]["pretrain"].mean == 5.0  # type: ignore[union-attr]
    assert rows["A2C"]["purifier"] is None  # no run of it was computed
    assert rows["A2C"]["whole"] is None
    assert "From the cache 5 of 6 runs took the encoder and worlds and 5 of 6 runs took the purifier." in report.findings
    assert table4.findings({"A2C": 10.0, OURS: 25.0}, {"A2C": 2.0, OURS: 4.0})[1] == f"{OURS} takes 2.5 times A2C (paper 2.0)."
    assert "A2C takes the least, 10 s" in table4.findings({"A2C": 10.0, OURS: 25.0}, {})[0]
    assert "A2C takes the least" not in table4.findings({"A2C": 30.0, OURS: 25.0}, {})[0]


def test_seconds_of_resumed_or_older_runs_are_left_out(tmp_path: Path) -> None:
    ask = asked("table4", sets=["study.methods=dsrm_hrl"])
    runs = list(made_up(ask, tmp_path).values())
    runs[0] = Run(runs[0].spec, {**runs[0].metrics, "resumed": True}, tmp_path, "abc")
    runs[1] = Run(runs[1].spec, {name: v for name, v in runs[1].metrics.items() if name != "cached"}, tmp_path, "abc")
    found = table4.timed(runs, "pretrain")
    assert (found.seconds, found.cached, found.unknown) == ([5.0], 0, 2)


# Figure 7


def test_numbers_of_a_curve() -> None:
    assert figure7.on_axis([[0, 1.0], [50, 2.0], [100, 2.0]])[[0, 10, 20, 30, 40]].tolist() == [1, 1.5, 2, 2, 2]
    assert figure7.apart({1: np.array([1.0, 2.0]), 2: np.array([3.0, 6.0])}) == 1.5
    assert figure7.roughness(np.array([0.0, 1.0, 2.0, 5.0])) == 0
    assert figure7.roughness(np.array([0.0, 2.0, 1.0])) == pytest.approx((3 - 1) / 2)


def curves(apart: float, rough: float) -> dict[str, dict[int, Any]]:
    base = np.linspace(0, 1, 5) + rough * np.array([0, 1, -1, 1, 0])
    return {name: {1: base, 2: base + apart} for name in figure7.MEASURES}


def test_figure7_says_who_is_steady() -> None:
    good = figure7.findings({OURS: curves(0.1, 0.0), "A2C": curves(0.5, 1.0)})
    assert all(sentence.endswith(": as the paper reports.") for sentence in good)
    assert f"in Len {OURS}'s (0.050); in AD {OURS}'s (0.050)" in good[0]
    bad = figure7.findings({OURS: curves(0.5, 1.0), "A2C": curves(0.1, 0.0)})
    assert all(sentence.endswith(": not as the paper reports.") for sentence in bad)
    assert f"in Len A2C's (0.050), with {OURS} at place 2 of 2 (0.250)" in bad[0]
    mixed = curves(0.1, 0.0) | {"ad": curves(0.9, 0.0)["ad"]}
    assert figure7.findings({OURS: mixed, "A2C": curves(0.5, 1.0)})[0].endswith("half as the paper reports.")
    assert "nothing to compare" in figure7.findings({OURS: curves(0.1, 0.0)})[0]


@pytest.mark.usefixtures("no_pictures")
def test_figure7_reads_what_the_runs_recorded(tmp_path: Path) -> None:
    ask = asked("figure7", sets=["study.methods=a2c,dsrm_hrl", "study.episodes=60"])
    runs = made_up(ask, tmp_path, dsrm_hrl=2.0)
    measured = json.loads(json.dumps(figure7.measure(ask, runs, running.kept)))
    assert measured["A2C"]["len"]["15"] == [[0, 5.0], [30, 5.0], [60, 10.01]]
    report = figure7.read(ask, runs, measured)
    cells = report.tables[0].rows[1].cells
    assert cells["len_end"].mean == pytest.approx(12.01)  # type: ignore[union-attr]
    assert cells["len_apart"] > 0  # type: ignore[operator]
    measured["A2C"]["len"]["15"] = []
    assert "Without a learning curve, and so left out: A2C." in figure7.read(ask, runs, measured).findings


# Pareto


def by_lam(**values: tuple[float, float]) -> pareto.ByLam:
    """λ → (R_cum, AD) of two seeds that differ by a hundredth in R_cum."""
    return {
        float(lam.removeprefix("l")): {
            "r_cum": {11: r, 15: r + 0.01}, "ad": {11: ad, 15: ad}, "utility": {11: None, 15: None},
        }
        for lam, (r, ad) in values.items()
    }  # fmt: skip


def test_a_frontier_over_lam() -> None:
    falling = by_lam(l0=(3.0, 0.5), l1=(2.0, 0.2), l2=(1.0, 0.0))
    assert pareto.steps_up(falling) == (0, 4)
    assert pareto.steps_up(by_lam(l0=(3.0, 0.0), l1=(2.0, 0.2), l2=(1.0, 0.2))) == (2, 4)
    assert pareto.volumes(falling, "r_cum")[11] == pytest.approx(3 * 0.5 + 2 * 0.3 + 1 * 0.2)
    assert pareto.volumes(falling, "utility") == {}
    told = pareto.about_lam(falling, {})
    assert told[0].startswith("One run, told λ: AD falls between λ = 0 and 2, AD by −0.500")
    assert told[0].endswith("over all seeds it rises in 0 of 4 steps of the grid.")
    assert "AD rises between" in pareto.about_lam(by_lam(l0=(3.0, 0.0), l1=(2.0, 0.2)), {})[0]


def test_pareto_compares_the_same_lams_and_says_which_is_larger() -> None:
    small = by_lam(l0=(2.0, 0.5), l2=(1.0, 0.0))
    large = by_lam(l0=(4.0, 0.5), l1=(100.0, 0.0), l2=(2.0, 0.0))  # λ = 1 is nobody's but its own
    (told,) = pareto.about_frontiers(large, small, ["r_cum"])
    assert "One run, told 2 λs, covers more than 2 runs trained for one each" in told
    assert "by +1.500" in told
    (told,) = pareto.about_frontiers(small, {lam: large[lam] for lam in (0.0, 2.0)}, ["r_cum"])
    assert "covers less than" in told


def test_pareto_names_the_methods_that_nothing_beats() -> None:
    def at(r: float, ad: float) -> dict[str, dict[int, float | None]]:
        return {"r_cum": {11: r}, "ad": {11: ad}, "utility": {11: None}}

    found = {"A2C": at(5.0, 0.5), "TD3": at(4.0, 0.6), OURS: at(3.0, 0.0), "oracle": at(99.0, 0.0)}
    assert pareto.about_methods(found, ["r_cum"]) == [
        f"By means, no other is as good in R_cum and AD as A2C and {OURS} (of 3)."
    ]


def test_pareto_marks_every_method_apart() -> None:
    titles = [arm.title for arm in compared.arms(None)]
    assert len(titles) == 15
    assert len(set(pareto.marks(titles).values())) == len(titles)


def test_what_pareto_refuses_and_runs() -> None:
    made = specs("pareto", seeds=(1,), sets=["study.trained=0.1,2"])
    apart = [spec.settings["method"]["lam"] for spec in made if spec.settings["method"].get("conditioned") is False]
    assert apart == [0.1, 2.0]
    with pytest.raises(BadInput, match=r"study.lams = 3 is not legal: it must be from 0 to method.lam_max = 2"):
        specs("pareto", sets=["study.lams=0,3"])
    assert specs("pareto", seeds=(1,), sets=["study.lams=0,3", "method.lam_max=4"])
    with pytest.raises(BadInput, match=r"study.trained = 'a' is not legal: it must be numbers"):
        specs("pareto", sets=["study.trained=a"])
    with pytest.raises(BadInput, match=r"method.lam is what this study varies"):
        specs("pareto", sets=["method.lam=1"])


@pytest.mark.usefixtures("no_pictures")
def test_one_run_is_told_lam_and_says_what_it_took_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real runs, in this process. Told its own default λ, the run must do what it did in its evaluation."""
    monkeypatch.setenv("RUNS_DIR", str(tmp_path / "runs"))
    sets = [*SETS, *FEW, "study.methods=dsrm_hrl,random", "study.lams=0.5,2", "study.trained=2"]
    ask = asked("pareto", seeds=(11,), sets=sets)
    runs = {}
    for place, spec in enumerate(pareto.specs(ask)):
        result = run.run(spec, MemoryRecorder(), tmp_path / str(place))
        runs[digest(spec)] = Run(spec, result.metrics, tmp_path / str(place), "abc")
    ours, _, apart = (own.metrics for own in runs.values())
    assert ours["cached"] == {"pretrain": [], "purifier": []}
    assert ours["resumed"] is False
    assert apart["spec"]["settings"]["method"]["conditioned"] is False
    assert "vectors-observed" in apart["cached"]["pretrain"]
    assert apart["cached"]["purifier"] == ["view-diffusion"]
    measured = pareto.measure(ask, runs, lambda what, key, make: make())
    assert list(measured) == ["0.5", "2.0"]
    assert measured["0.5"]["r_cum"]["11"] == pytest.approx(ours["r_cum"])
    report = pareto.read(ask, runs, measured)
    volumes = {row.title: row.cells["r_cum"] for row in report.tables[2].rows}
    assert volumes[pareto.ONE].mean == pytest.approx(  # type: ignore[union-attr]
        measured["2.0"]["r_cum"]["11"] * (1 - measured["2.0"]["ad"]["11"])
    )
    assert volumes[pareto.EACH].mean == pytest.approx(apart["r_cum"] * (1 - apart["ad"]))  # type: ignore[union-attr]


# Sensitivity


def test_sensitivity_changes_one_thing_at_a_time() -> None:
    made = specs("sensitivity", seeds=(1,), sets=["study.methods=a2c,dsrm_hrl"])
    worlds = {}
    for spec in made:
        world, history = spec.settings["world"], spec.settings["state"]["history"]
        condition = (world["ad_bound"], world["slate"], world["head_share"], history)
        worlds.setdefault(condition, []).append((spec.method, spec.purifier))
    default = (0.3, 10, 0.2, 400)
    assert default in worlds
    assert all(sum(a != b for a, b in zip(own, default, strict=True)) <= 1 for own in worlds)
    assert {own[0] for own in worlds} == {0.1, 0.3, 0.5}, "with ten items 0.2 is the rule of 0.1, and 0.4 that of 0.3"
    assert {own[1] for own in worlds} == {6, 10}
    assert {own[2] for own in worlds} == {0.07, 0.2}
    assert {own[3] for own in worlds} == {15, 60, 240, 400}
    same = [("a2c", "identity"), ("dsrm_hrl", "diffusion"), ("dsrm_hrl", "identity")]
    assert all(sorted(own) == same for own in worlds.values())
    assert len(specs("sensitivity", seeds=(1,), sets=["study.methods=a2c", "study.vary=slate"])) == 2
    seven = asked("sensitivity", sets=["study.vary=ad_bound", "world.slate=7"])  # AD of a slate: 1/7, 3/7, 5/7, 1
    assert list(sensitivity.conditions(seven)) == ["defaults", "bound 0.1", "bound 0.5"]
    assert sensitivity.same(seven) == {"bound 0.2": "defaults", "bound 0.4": "defaults"}
    with pytest.raises(BadInput, match=r"study.vary = 'size' is not legal"):
        specs("sensitivity", sets=["study.vary=size"])


@pytest.mark.usefixtures("no_pictures")
def test_sensitivity_says_what_holds_where(tmp_path: Path) -> None:
    ask = asked("sensitivity", sets=["study.methods=a2c,dsrm_hrl", "study.vary=slate"])
    good = " ".join(told(ask, made_up(ask, tmp_path / "good", dsrm_hrl=1.0)))
    assert f"{OURS} earns most in 2 of 2 conditions." in good
    assert f"{OURS} is liked most in 2 of 2 conditions." in good
    assert f"{OURS} is balanced in 0 of 2 conditions; it does not with defaults (AD 0.490) and slate of 6 (AD 0.490)." in good
    unclear = "which the seeds do not tell apart, with defaults and slate of 6."
    assert f"{OURS} gains by purified states in 0 of 2 conditions; by the means no, {unclear}" in good
    once = asked("sensitivity", seeds=(11,), sets=["study.methods=a2c,dsrm_hrl", "study.vary=slate"])
    report = once.module.read(once, made_up(once, tmp_path / "once", dsrm_hrl=1.0), None)
    assert f"{OURS} earns most in 0 of 2 conditions; by the means yes, {unclear}" in " ".join(report.findings)
    cells = report.tables[0].rows[0].cells
    assert str(cells["earns most"]).startswith("yes by the means, not told apart: R_cum by +1.00")
    assert str(cells["gains by purified states"]).startswith("no by the means, not told apart: ")
    bounds = asked("sensitivity", seeds=(11,), sets=["study.methods=a2c", "study.vary=ad_bound"])
    notes = " ".join(bounds.module.read(bounds, made_up(bounds, tmp_path / "bounds"), None).notes)
    assert "bound 0.2 is the same rule as bound 0.1" in notes
    assert "bound 0.4 is the same rule as defaults" in notes
    bad = " ".join(told(ask, made_up(ask, tmp_path / "bad", a2c=1.0)))
    assert f"{OURS} earns most in 0 of 2 conditions; it does not with defaults (R_cum by −1.00 " in bad
    alone = asked("sensitivity", sets=["study.methods=a2c", "study.vary=slate"])
    assert told(alone, made_up(alone, tmp_path / "alone")) == [
        "Nothing was put to the test: dsrm_hrl is not among the methods."
    ]


# Pages


@pytest.mark.parametrize("name", ["table2", "table4", "figure7", "pareto", "sensitivity"])
def test_a_study_leaves_its_page_and_picture(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = {"table2": ["study.max_lens=30"], "sensitivity": ["study.vary=slate"]}.get(name, ["world.max_len=20"])
    methods = "a2c,dsrm_hrl" + (",random" if name in ("table2", "pareto") else "")
    ask = asked(name, sets=[f"study.methods={methods}", *more])
    runs = made_up(ask, tmp_path / "runs", dsrm_hrl=1.0)
    monkeypatch.setenv("RUNS_DIR", str(tmp_path / "kept"))
    monkeypatch.setattr(running, "complete", lambda specs, jobs, say: runs)
    monkeypatch.setattr(pareto, "evaluate_run", lambda folder, episodes, lam: {"r_cum": 9 - lam, "ad": 0.1, "utility": 0.3})
    made = study.run_study(ask, 2, tmp_path, "the command", lambda text: None)
    page = (tmp_path / f"{name}-synthetic.md").read_text()
    assert (tmp_path / f"{name}-synthetic.png").read_bytes().startswith(b"\x89PNG")
    for sentence in made["findings"]:
        assert f"- {sentence}" in page
    assert "nan" not in page.lower().split("## what it says")[1]
    assert "\n\n\n" not in page
    assert OURS in page.split("## What it says")[1]
    for table in made["tables"]:
        stem = f"{name}-synthetic" + (f"-{table}" if table != name else "")
        assert (tmp_path / f"{stem}.csv").read_text().count("\n") >= 2  # a heading and a row
        assert (tmp_path / f"{stem}.tex").is_file()


def test_table2_through_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNS_DIR", str(tmp_path / "runs"))
    sets = [f"--set={text}" for text in (*SETS, *FEW) if not text.startswith(("purifier.", "world.max_len"))]
    argv = ["study", "table2", f"--out={tmp_path}", "--json", "--seeds=11", *sets]
    status = main([*argv, "--set=study.methods=a2c", "--set=study.max_lens=8"])
    printed, err = capsys.readouterr()
    assert status == 0, err
    made = json.loads(printed.strip().splitlines()[-1])
    assert made["runs"] == 1
    assert 1 <= made["tables"]["table2"]["A2C"]["len_8"]["mean"] <= 8
    assert made["tables"]["iqm"]["A2C"]["len_8"]["value"] == made["tables"]["table2"]["A2C"]["len_8"]["mean"]
