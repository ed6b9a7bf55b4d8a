"""Utility against fairness: platforms, frontiers, hypervolumes, replays; the picture of them; and the view."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from app import pareto, replay, results
from app.charts import pareto as charts
from app.charts.style import style
from app.measures import MEASURES
from drawn import Page
from filled import add, many, result, spec
from runs_db.models import DONE
from runs_db.store import Store
from test_views import words

FAIR, CUM, AD = MEASURES["fairness"], MEASURES["r_cum"], MEASURES["ad"]
OF = style(["A2C + identity", "Balanced + identity"], ["a2c", "balanced"], ["identity", "identity"])


def outcome(ad: float, r_cum: float) -> dict[str, Any]:
    return {**result(), "ad": ad, "r_cum": r_cum}


def groups_of(store: Store) -> tuple[list[results.Group], pareto.Values]:
    runs = store.runs(states=[DONE], sort="id")
    return results.grouped(runs), pareto.outcomes(runs)


@pytest.fixture
def three(lab: Store) -> Store:
    """a2c with two seeds, fair and poor; balanced, unfair and rich; greedy, beaten by balanced in both; an oracle above all."""
    for seed, ad in ((11, 0.1), (15, 0.3)):
        add(lab, spec(seed=seed), summary=outcome(ad, 4.0))
    add(lab, spec("balanced"), summary=outcome(0.6, 8.0))
    add(lab, spec("greedy"), summary=outcome(0.7, 7.0))
    add(lab, spec("oracle"), summary=outcome(0.0, 9.0))
    return lab


def test_seeds_are_gathered_and_the_frontier_is_what_no_mean_beats(three: Store) -> None:
    frame = pareto.points(*groups_of(three), FAIR, CUM).set_index("who")
    mean = frame.loc["mean of 2 runs, seeds 11, 15"]
    assert (mean["x"], mean["y"], mean["ids"]) == (pytest.approx(0.8), 4.0, "1 2")
    assert mean["x_told"] == "0.800 ± 0.100"
    assert frame.loc["run 2, seed 15"]["x"] == pytest.approx(0.7)
    assert list(frame["kind"]) == ["mean", "seed", "seed", "mean", "mean", "mean"], "one seed is no point of its own"
    assert set(frame.loc[frame["front"], "name"]) == {"A2C + identity", "Balanced + identity"}, "the oracle is in no contest"


def test_a_measure_that_is_better_low_turns_the_frontier(three: Store) -> None:
    groups, values = groups_of(three)
    turned = pareto.points(groups, values, AD, CUM)
    assert set(turned.loc[turned["front"], "name"]) == {"A2C + identity", "Balanced + identity"}
    stairs, _ = pareto.stairs(turned, AD, CUM, (0.0, 1.0, 0.0, 9.0))
    assert stairs[["x", "y"]].to_numpy().tolist() == pytest.approx(np.array([[1, 8], [0.6, 8], [0.6, 4], [0.2, 4], [0.2, 0]]))


def test_the_stairs_go_to_the_worst_ends() -> None:
    places = np.array([[0.2, 5.0], [0.8, 3.0], [0.5, 2.0]])
    stairs = pareto.staircase(places, FAIR, CUM, (0.0, 1.0, 1.0, 6.0))
    assert stairs[["x", "y"]].to_numpy().tolist() == [[0, 5], [0.2, 5], [0.2, 3], [0.8, 3], [0.8, 1]]
    assert len(pareto.staircase(places[:0], FAIR, CUM, (0.0, 1.0, 1.0, 6.0))) == 0


def test_the_hypervolume_is_the_area_below_the_stairs_with_an_interval_over_seeds(three: Store) -> None:
    found = {own.series: own for own in pareto.volumes(*groups_of(three), FAIR, CUM)}
    assert found["A2C + identity"].value == pytest.approx(0.8 * 4)
    assert found["A2C + identity"].low == pytest.approx(0.7 * 4)
    assert found["A2C + identity"].high == pytest.approx(0.9 * 4)
    assert found["Balanced + identity"].low is None, "one seed tells no interval"
    turned = {own.series: own.value for own in pareto.volumes(*groups_of(three), AD, CUM)}
    assert turned == pytest.approx({name: own.value for name, own in found.items()}), "1 − AD above 0 is AD below 1"


def test_a_sweep_covers_more_than_its_best_point(lab: Store) -> None:
    for lam, ad, r_cum in ((0.0, 0.8, 9.0), (1.0, 0.1, 5.0)):
        settings = {"method": {"conditioned": False, "lam": lam}}
        add(lab, spec("dsrm_hrl", settings=settings), summary=outcome(ad, r_cum))
    groups, values = groups_of(lab)
    (own,) = pareto.volumes(groups, values, FAIR, CUM)
    assert own.value == pytest.approx(0.9 * 5 + 0.2 * 4)
    frame = pareto.points(groups, values, FAIR, CUM)
    assert set(pareto.stairs(frame, FAIR, CUM, pareto.box([frame]))[1]["series"]) == {"DSRM-HRL + diffusion"}
    frame[["x", "y"]] = 0.5
    assert len(pareto.stairs(frame, FAIR, CUM, pareto.box([frame]))[1]) == 0, "equal points make no line of their own"


def test_runs_that_met_others_are_on_another_platform(lab: Store) -> None:
    add(lab, spec())
    add(lab, spec("balanced"))
    add(lab, spec(settings={"world": {"max_len": 20}}))
    add(lab, spec(settings={"dataset": {"items": 500}}))
    groups, _ = groups_of(lab)
    found = pareto.platforms(groups, lab.specs([group.first.id for group in groups]))
    assert [len(own.groups) for own in found] == [2, 1, 1]
    assert [own.title for own in found] == [
        "Synthetic · Max Len 30 · items 400", "Synthetic · Max Len 20", "Synthetic · Max Len 30 · items 500",
    ]  # fmt: skip
    assert len({own.key for own in found}) == 3


def test_a_replay_shows_what_had_been_measured_by_then(lab: Store) -> None:
    rows = [(1, "ad", 0, 0.5), (1, "ad", 100, 0.3), (1, "r_cum", 0, 2.0), (1, "r_cum", 100, 6.0), (2, "ad", 50, 0.9)]
    curves = pd.DataFrame(rows, columns=["run", "name", "step", "value"])
    assert pareto.moments(curves, 3) == [0, 50, 100]
    moved = pareto.moved(curves, [0, 99, 100])
    assert moved[99][1] == {"ad": 0.5, "r_cum": 2.0, "fairness": 0.5}
    assert moved[100][1]["r_cum"] == 6.0
    assert moved[0][2]["ad"] == 0.9, "before its first point a run stands where it was measured first"
    assert pareto.moments(curves.iloc[:0]) == []


def test_the_picture_has_points_that_know_their_runs(three: Store) -> None:
    groups, values = groups_of(three)
    frame = pareto.points(groups, values, FAIR, CUM)
    of = style([*dict.fromkeys(frame["series"])], ["a2c", "balanced", "greedy", "oracle"], ["identity"] * 4)
    box = pareto.box([frame])
    path = pd.DataFrame({"series": "A2C + identity", "lam": [0.0, 1.0], "current": [False, True], "x": [0.5, 0.9], "y": [5, 4],
                         "x_told": "", "y_told": ""})  # fmt: skip
    chart = charts.scatter(frame, *pareto.stairs(frame, FAIR, CUM, box), of, FAIR, CUM, box, path=path).to_dict()
    assert [own["name"] for own in chart["params"]] == [charts.PICKED]
    assert chart["params"][0]["select"]["fields"] == ["ids"]
    rows = [row for rows in chart["datasets"].values() for row in rows]
    assert {"1 2", "1", "2", "3"} <= {row["ids"] for row in rows if "ids" in row}
    marks = [layer["mark"]["type"] for layer in chart["layer"]]
    assert marks.count("line") == 2, "the frontier and the path"
    now = next(layer for layer in chart["layer"] if layer.get("transform"))
    assert [row["lam"] for row in chart["datasets"][now["data"]["name"]]] == [1.0], "the present λ is the one that is named"
    assert "http" not in json.dumps(chart).replace("https://vega.github.io/schema", "")


@pytest.mark.parametrize(("x", "corner"), [(FAIR, "better ↗"), (AD, "↖ better")])
def test_the_corner_says_where_better_is(three: Store, x: Any, corner: str) -> None:
    groups, values = groups_of(three)
    frame = pareto.points(groups, values, x, CUM)
    none = frame.iloc[:0]
    chart = charts.scatter(frame, none, none, OF, x, CUM, pareto.box([frame])).to_dict()
    assert corner in {row["text"] for rows in chart["datasets"].values() for row in rows if "text" in row}


def test_hypervolumes_have_a_line_only_where_there_are_seeds() -> None:
    frame = pd.DataFrame({"series": OF.names, "value": [2.0, 1.0], "low": [1.5, np.nan], "high": [2.5, np.nan], "told": "",
                          "of": "", "label": ""})  # fmt: skip
    assert [layer["mark"]["type"] for layer in charts.volumes(frame, OF, "x").to_dict()["layer"]] == ["bar", "text", "rule"]
    alone = charts.volumes(frame.assign(low=np.nan, high=np.nan), OF, "x").to_dict()
    assert [layer["mark"]["type"] for layer in alone["layer"]] == ["bar", "text"]


# The view


def test_the_view_says_what_is_on_the_frontier_and_links_the_chosen(three: Store, page: Page) -> None:
    test = page("pareto", run=["3", "1"])
    assert "On the frontier: 2 of 4 experiments" in words(test)
    assert sorted(test.dataframe[0].value["Experiment"]) == ["A2C + identity", "Balanced + identity"]
    assert test.multiselect(key="pareto_runs").value == [3, 1]
    test.multiselect(key="pareto_runs").set_value([2]).run()
    assert test.query_params["run"] in ("2", ["2"])


def test_axes_and_platform_come_from_the_address(three: Store, page: Page) -> None:
    add(three, spec(settings={"world": {"max_len": 20}}))
    test = page("pareto", across="Utility", up="Len")
    assert list(test.dataframe[0].value.columns) == ["Experiment", "Utility ↑", "Len ↑"]
    other = next(key for key in test.selectbox(key="pareto_platform").options if "Max Len 20" in key)
    assert "1 experiment" in other


def test_training_is_replayed_frame_by_frame(lab: Store, page: Page) -> None:
    add(lab, spec(), curve=8, level=0.9)
    add(lab, spec("balanced"))
    test = page("pareto", measured="Training", episode="0")
    slider = test.select_slider(key="moment")
    assert slider.value == 0
    before = test.dataframe[0].value.to_numpy().tolist()
    slider.set_value(140).run()
    assert test.dataframe[0].value.to_numpy().tolist() != before
    test.button(key="pareto_play").click().run()
    assert test.select_slider(key="moment").value == 0, "from the end it plays from the beginning"
    test.run()
    assert test.select_slider(key="moment").value > 0, "a clock's tick goes on"


def test_methods_without_curves_say_so(lab: Store, page: Page) -> None:
    add(lab, spec("balanced"))
    assert "have no learning curves" in words(page("pareto", measured="Training"))


def test_a_policy_moves_along_its_own_path(theatre: Store, page: Page) -> None:
    test = page("pareto", along="1")
    assert not test.error
    done = test.session_state["_along"]
    at = sorted(lam for _, lam in done)
    assert at == sorted({0.5, *pareto.lams(2.0)})
    assert len({round(own["ad"], 6) for own in done.values()}) > 1, "λ changes what is shown"
    test.slider(key="lam.along.1").set_value(1.5).run()
    assert (replay.controls(theatre.spec(1)).lam_max, sorted(lam for _, lam in test.session_state["_along"])) == (
        2.0,
        sorted([*at, 1.5]),
    )


def test_a_policy_that_was_not_kept_is_told_and_the_rest_stays(lab: Store, page: Page) -> None:
    add(lab, spec("dsrm_hrl"))
    test = page("pareto", along="1")
    assert [str(error.value).startswith("run 1 has kept no policy") for error in test.error] == [True]
    assert "On the frontier: 1 of 1 experiment" in words(test)


def test_only_policies_that_have_learnt_many_lam_can_move(theatre: Store, page: Page) -> None:
    options = page("pareto").selectbox(key="pareto_along").options
    assert options[0] == "nobody"
    assert [option.split(" + ")[0] for option in sorted(options[1:])] == ["1 · DSRM-HRL", "3 · MOFIR"]


def test_mofir_moves_along_its_weights(theatre: Store, page: Page) -> None:
    test = page("pareto", along="3")
    assert not test.error
    slider = test.slider(key="lam.along.3")
    assert (slider.min, slider.max, slider.value) == (0.0, 9.0, 0.0)
    done = test.session_state["_along"]
    assert sorted(lam for _, lam in done) == sorted(pareto.lams(9.0))
    assert len({round(own["ad"], 6) for own in done.values()}) > 1, "ω changes what is shown"


def test_who_could_move_is_told_where_nobody_does(lab: Store, page: Page) -> None:
    add(lab, spec("a2c"))
    assert "With their default options these do: MOFIR and DSRM-HRL." in words(page("pareto"))


def test_a_thousand_runs_take_a_moment(lab: Store) -> None:
    some = many(lab, 15)
    rows = lab.runs(ids=some, states=[DONE])
    runs = [replace(rows[n % len(rows)], id=n, group_key=f"{rows[n % len(rows)].group_key}{n // 45}") for n in range(1000)]
    began = time.perf_counter()
    groups, values = results.grouped(runs), pareto.outcomes(runs)
    frame = pareto.points(groups, values, FAIR, CUM)
    pareto.volumes(groups, values, FAIR, CUM)
    assert time.perf_counter() - began < 2
    assert (frame["kind"] == "mean").sum() == len(groups) > 100
