"""Tuning: equal trials from a grid, judged without the test world, kept and gone on with."""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine import catalog, run
from engine.__main__ import main
from engine.methods import a2c
from engine.options import BadInput, describe
from engine.spec import RunSpec
from engine.studies import ask, tune
from small import small_spec


def spec(**method: Any) -> RunSpec:
    settings = {"method": {"users": 40, "batch": 128, "hidden": 16, **method}}
    return small_spec(method="a2c", purifier="identity", episodes=80, settings=settings)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a trial that nobody will finish fails here, instead of waiting for ever."""
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        assert sum(waited) <= 10, "nobody runs the trial that is waited for"
        time.sleep(seconds)

    monkeypatch.setattr(tune, "time", SimpleNamespace(sleep=sleep, perf_counter=time.perf_counter))


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/tuning.db"


def test_points_are_distinct_and_begin_with_the_defaults(storage: str) -> None:
    found = tune.tune(spec(), 4, storage, lambda _: None)
    points = [json.dumps(row["settings"], sort_keys=True) for row in found["trials"]]
    assert len(points) == len(set(points)) == 4
    options = describe(a2c.Config)
    assert (
        found["trials"][0]["settings"]
        == {name: options[name]["default"] for name in a2c.SEARCH}
        == found["default"]["settings"]
    )
    assert found["winner"]["r_cum"] == max(row["r_cum"] for row in found["trials"])
    assert all(row["settings"][name] in found["grid"][name] for row in found["trials"] for name in found["grid"])


def test_finalists_are_trained_with_more_seeds_and_their_mean_decides(
    storage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The best by one seed is the worst of the three by the others: it must not win."""
    asked: list[tuple[int, str]] = []

    def measure(self: Any, settings: Any, watch: Any) -> dict[str, float]:
        seed, place = self.spec.seed, [point["settings"] for point in first["trials"]].index(settings) if first else len(asked)
        asked.append((seed, json.dumps(settings, sort_keys=True)))
        r_cum = float(place) if seed == 11 else -3.0 * place
        return {"r_cum": r_cum, "r_each": 0.5, "len": 3.0, "ad": 0.1}

    first: dict[str, Any] = {}
    monkeypatch.setattr(tune._Bench, "measure", measure)
    first |= tune.tune(spec(), 5, storage, lambda _: None)
    assert first["winner"] == first["trials"][4]
    assert "over_seeds" not in first["winner"]
    found = tune.tune(spec(), 5, storage, lambda _: None, [15, 11, 19])
    assert found["final_seeds"] == [15, 19]
    assert [row.get("over_seeds") for row in found["trials"]] == [None, None, -10 / 3, -15 / 3, -20 / 3]
    assert found["winner"]["settings"] == first["trials"][2]["settings"]
    assert len(asked) == 5 + 3 * 2
    assert len(found["trials"]) == 5
    assert tune.tune(spec(), 5, storage, lambda _: None, [15, 19])["winner"] == found["winner"]
    assert len(asked) == 5 + 3 * 2, "what is kept is not tried again"
    text = tune.page(found, tmp_path)[0].read_text()
    assert "The best 3 were trained with seeds 15, 19 too" in text
    assert "R_cum over seeds" in text
    assert f"Best: {tune.shown(first['trials'][2]['settings'])}." in text


@pytest.mark.parametrize("name", [name for name in catalog.TABLES["methods"] if catalog.find("methods", name).LEARNS])
def test_every_learned_method_has_a_grid_with_its_defaults_in_it(name: str) -> None:
    grid = tune.grid_of(small_spec(method=name))
    defaults = describe(catalog.find("methods", name).Config)
    assert all(defaults[option]["default"] in values for option, values in grid.items())
    assert math.prod(map(len, grid.values())) == 27  # as many points for everyone


def test_what_is_tried_already_is_not_tried_again(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tune.tune(spec(), 2, storage, lambda _: None)
    counted: list[Any] = []
    measure = tune._Bench.measure
    monkeypatch.setattr(tune._Bench, "measure", lambda self, *args: counted.append(args) or measure(self, *args))
    assert tune.tune(spec(), 2, storage, lambda _: None) == first
    assert not counted
    more = tune.tune(spec(), 3, storage, lambda _: None)
    assert len(counted) == 1
    assert more["trials"][:2] == first["trials"]
    assert len({json.dumps(row["settings"]) for row in more["trials"]}) == 3
    usual = describe(a2c.Config)["learning_rate"]["default"]
    other = next(value for value in a2c.SEARCH["learning_rate"] if value != usual)
    assert tune.tune(spec(learning_rate=other), 3, storage, lambda _: None) == more  # what the grid sets decides nothing
    assert len(counted) == 1
    assert len(tune.tune(spec(users=41), 1, storage, lambda _: None)["trials"]) == 1  # other settings, other study


def test_equal_specs_find_the_same(tmp_path: Path) -> None:
    found = [tune.tune(spec(), 2, f"sqlite:///{tmp_path}/{name}.db", lambda _: None)["trials"] for name in "ab"]
    a, b = ([{key: row[key] for key in row if key != "seconds"} for row in rows] for rows in found)
    assert a == b


BEGINS = """
import sys
from engine import spec
from engine.studies import tune

print("ready", flush=True)
for line in sys.stdin:
    tune._study(spec.make(method="a2c"), {"gamma": (0.5, 0.9)}, line.strip())
    print("done", flush=True)
"""


def test_several_may_begin_at_once_on_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNS_DIR", str(tmp_path))
    pipe = subprocess.PIPE
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(subprocess.Popen([sys.executable, "-c", BEGINS], stdin=pipe, stdout=pipe, text=True))
            for _ in range(3)
        ]
        said = []
        for turn in range(6):
            said += [one.stdout.readline() for one in started if one.stdout]
            for one in started:
                assert one.stdin is not None
                print(f"sqlite:///{tmp_path}/{turn}.db", file=one.stdin, flush=True)
        said += [one.stdout.readline() for one in started if one.stdout]
        for one in started:
            assert one.stdin is not None
            one.stdin.close()
    assert said == ["ready\n"] * 3 + ["done\n"] * 18


def test_the_test_world_is_never_made(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    make_world = run.make_world
    monkeypatch.setattr(
        run, "make_world", lambda spec, data, part, *rest: made.append(part) or make_world(spec, data, part, *rest)
    )
    tune.tune(spec(), 1, storage, lambda _: None)
    assert made == ["train"]


def points_of(found: dict[str, Any]) -> list[str]:
    return sorted(json.dumps(row["settings"], sort_keys=True) for row in found["trials"])


@pytest.mark.parametrize("how", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_trial_is_tried_again_and_no_other_point(
    how: type[BaseException], storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "BEAT", 1)  # SystemExit leaves the trial running, as a kill does, until it has not beaten for 2 s

    def torn(self: Any, *_: Any) -> Any:
        raise how

    with monkeypatch.context() as patch:
        patch.setattr(tune._Bench, "measure", torn)
        with pytest.raises(how):
            tune.tune(spec(), 2, storage, lambda _: None)
    undisturbed = tune.tune(spec(), 2, f"sqlite:///{tmp_path}/other.db", lambda _: None)
    assert points_of(tune.tune(spec(), 2, storage, lambda _: None)) == points_of(undisturbed)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--method", "popular"], "method = 'popular' is not legal: it has nothing to tune; it must be one of "),
        (["--method", "a2c", "--trials", "0"], "--trials 0 is not legal: it must be 1 or more"),
        (["--method", "a2c", "--evaluation-episodes", "60"], "unrecognized arguments: --evaluation-episodes 60"),
        (["--method", "a2c", "--grid", "gamma"], "--grid 'gamma' is not legal: it must be OPTION=VALUE,VALUE,…"),
        (["--method", "a2c", "--grid", "gamma= ,"], "--grid 'gamma= ,' is not legal: it must be OPTION=VALUE,VALUE,…"),
        (["--method", "a2c", "--grid", "gama=0.5"], "method.gama is not an option"),
        (["--method", "a2c", "--grid", "gamma=0.5,2"], "method.gamma = 2 is not legal: it must be a number from 0 to 1"),
        (["--method", "a2c", "--grid", "gamma=0", "--grid", "gamma=1"], "gamma was given before"),
        (["--method", "a2c", "--storage", "nowhere"], "--storage 'nowhere' is not legal: "),
        (["--method", "a2c", "--storage", "sqlite:////no/such/folder/x.db"], "unable to open database file; it must be a URL"),
    ],
)
def test_bad_input_is_told_in_one_sentence(argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", *argv]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_whoever_cannot_be_tuned_is_told_who_can(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "--method", "popular"]) == 2
    named = capsys.readouterr().err.split("one of ")[1].strip().split(", ")
    assert set(named) == {name for name in catalog.TABLES["methods"] if catalog.find("methods", name).LEARNS}


def test_the_runs_database_is_not_touched(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "runs.db")) as database:
        database.execute("CREATE TABLE runs (id INTEGER)")
    before = (tmp_path / "runs.db").read_bytes()
    with pytest.raises(BadInput, match="it is the runs database"):
        tune.tune(spec(), 1, f"sqlite:///{tmp_path}/runs.db", lambda _: None)
    assert (tmp_path / "runs.db").read_bytes() == before


def test_a_password_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "--method", "a2c", "--storage", "postgresql://me:secret@localhost:1/x"]) == 2
    assert "secret" not in capsys.readouterr().err


def test_the_page_names_grid_winner_and_defaults(storage: str, tmp_path: Path) -> None:
    found = tune.tune(spec(), 3, storage, lambda _: None)
    page, table, _ = tune.page(found, tmp_path)
    text = page.read_text()
    assert f"Best: {tune.shown(found['winner']['settings'])}." in text
    assert text.count("(default)") == 1
    assert len(table.read_text().splitlines()) == 4


def test_a_grid_of_ones_own_takes_the_place_of_the_methods(storage: str, tmp_path: Path) -> None:
    grid = tune.parse_grid(spec(), ["method.gamma=0.5, 0.50,0.9", "credit=slate", "users=40,60"])
    assert grid == {"gamma": (0.5, 0.9), "credit": ("slate",), "users": (40, 60)}
    assert [type(values[0]) for values in grid.values()] == [float, str, int]
    found = tune.tune(spec(hidden=12), 9, storage, lambda _: None, own_grid=["gamma=0.5,0.9", "credit=slate"])
    points = [row["settings"] for row in found["trials"]]
    assert sorted(points, key=str) == [{"gamma": gamma, "credit": "slate"} for gamma in (0.5, 0.9)]
    assert {name: found["fixed"][name] for name in ("method.hidden", "method.users")} == {
        "method.hidden": 12,
        "method.users": 40,
    }
    assert not {"method.gamma", "method.learning_rate", "world.ad_bound"} & set(found["fixed"])
    text = tune.page(found, tmp_path)[0].read_text()
    assert "`method.hidden` 12" in text
    assert "Grid: `gamma` 0.5, 0.9; `credit` slate." in text


def test_studies_take_the_winners_of_their_dataset(storage: str, tmp_path: Path) -> None:
    """What was tuned comes before --set, and nobody is left at untuned defaults beside those who are tuned."""
    found = tune.tune(spec(), 3, storage, lambda _: None)
    found["winner"]["settings"] = {"learning_rate": 0.00123, "gamma": 0.77}
    tune.page(found, tmp_path)
    sets = [f"study.tuned={tmp_path}", "study.methods=a2c,greedy", "method.gamma=0.5"]
    asked = ask.asked("table2", sets=[*sets, "study.max_lens=30"])
    made = {one.method: one for one in asked.module.specs(asked)}
    assert made["a2c"].settings["method"]["learning_rate"] == 0.00123
    assert made["a2c"].settings["method"]["gamma"] == 0.5
    assert "learning_rate" not in made["greedy"].settings["method"]
    for folder, rate in (("", 0.01), ("flat", 0.02)):  # FLAT is another method than the whole, and tuned for itself
        tune.page({**found, "method": "dsrm_hrl", "winner": {"settings": {"worker_rate": rate}}}, tmp_path / folder)
    asked = ask.asked("table3", sets=[sets[0], "study.rows=FLAT;+ DSRM"])
    rates = {
        spec.settings["method"]["hierarchical"]: spec.settings["method"]["worker_rate"] for spec in asked.module.specs(asked)
    }
    assert rates == {False: 0.02, True: 0.01}
    arm = ask.Arm(
        "", "dsrm_hrl", "identity", {"method": {"conditioned": False}}, "flat", {"method": {"worker_rate": 0.5, "lam": 2.0}}
    )
    own = asked.spec(arm).settings["method"]
    assert (own["conditioned"], own["worker_rate"], own["lam"]) == (False, 0.02, 2.0)  # what was tuned goes before its defaults
    asked = ask.asked("table3", sets=[sets[0], "method.lam=1"])
    assert asked.spec(arm).settings["method"]["lam"] == 1.0  # and so does --set
    for dataset, methods in (("synthetic", "a2c,td3"), ("ml-100k", "a2c")):
        asked = ask.asked("table2", dataset=dataset, sets=[sets[0], f"study.methods={methods}"])
        with pytest.raises(
            BadInput, match=r"study.tuned = .* it holds no tuning-\w+-[\w-]+.json, which `python -m engine tune"
        ):
            asked.module.specs(asked)
