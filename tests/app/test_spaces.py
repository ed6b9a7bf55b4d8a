"""Users in three spaces from a run that was really trained: the same users, planes that stand still, scores that move."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import pytest

from app import spaces
from app.charts import colours
from app.charts import spaces as charts
from app.replay import Theatre
from app.spaces import Spaces
from engine.report import MEASURES, QUICK
from filled import spec

DIFFUSED = {"purifier": "diffusion", "settings": {"purifier": {"target": "observed"}}}


@pytest.fixture(scope="module")
def theatre_of_1(trained: Path) -> Theatre:
    return Theatre(trained / "1", 1)


@pytest.fixture(scope="module")
def of(theatre_of_1: Theatre) -> Spaces:
    return Spaces(theatre_of_1, 50)


@pytest.fixture(scope="module")
def plain(trained: Path) -> Spaces:
    return Spaces(Theatre(trained / "2", 1), 50)


@pytest.fixture
def frame(of: Spaces) -> pd.DataFrame:
    return spaces.frame(of.about, of.flat())


def test_what_is_shown_is_what_the_policy_is_told(of: Spaces, theatre_of_1: Theatre) -> None:
    played = theatre_of_1.trained.play(of.people.users[:7], states=True).notes
    assert np.allclose(played["raw"][0], of.state("raw")[:7], atol=1e-5)
    assert np.allclose(played["state"][0], of.state("purified")[:7], atol=1e-4)
    assert np.allclose(of.state("purified"), of.state("purified", 4)), "S = 4 is what it was trained with"
    truth = theatre_of_1.trained.data.truth
    assert truth is not None
    assert np.allclose(of.state("clean"), truth.preference[of.people.users])


def test_the_planes_stand_still_while_points_move(of: Spaces) -> None:
    """A moving axis would look like moving users."""
    all_steps, none = of.flat(), of.flat(0)
    assert np.array_equal(all_steps["raw"], none["raw"])
    assert np.array_equal(all_steps["clean"], none["clean"])
    assert not np.allclose(all_steps["purified"], none["purified"])
    state = of.state("purified").numpy()
    axes = np.linalg.svd(state - state.mean(0), full_matrices=False)[2][:2].T
    expected = np.abs((of.state("purified", 0).numpy() - state.mean(0)) @ axes)
    assert np.allclose(np.abs(none["purified"]), expected, atol=1e-4), "step 0 on the plane of all steps"
    left, right, low, high = of.domains()["purified"]
    for steps in (0, 4):
        x, y = of.flat(steps)["purified"].T
        assert left < x.min()
        assert x.max() < right
        assert low < y.min()
        assert y.max() < high


def test_states_are_worked_out_once(of: Spaces, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine import maps

    first = of.state("purified", 2)
    monkeypatch.setattr(maps, "states", None)
    assert of.state("purified", 2) is first


def test_the_stops_are_worked_out_ahead(theatre_of_1: Theatre, plain: Spaces, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine import maps

    of = Spaces(theatre_of_1, 20)
    thread = of.look_ahead()
    assert thread is not None
    thread.join(30)
    monkeypatch.setattr(maps, "states", None)
    assert [of.state("purified", steps).shape for steps in range(5)] == [(20, 8)] * 5
    assert of.look_ahead() is None, "once"
    assert plain.look_ahead() is None


def test_maps_are_turned_and_never_bent() -> None:
    rng = np.random.default_rng(0)
    like = rng.normal(size=(60, 2)) * [3, 1]
    turn = np.array([[0.0, 1.0], [1.0, 0.0]])  # mirrored
    found = spaces.turned(like @ turn, like)
    assert np.allclose(like @ turn @ found, like)
    turned = spaces.alike({"purified": like, "raw": like @ turn + 5})
    assert np.allclose(turned["raw"], like - like.mean(0))
    noisy = rng.normal(size=(60, 2))
    moved = noisy @ spaces.turned(noisy, like)
    assert np.allclose(np.linalg.norm(moved[0] - moved[1]), np.linalg.norm(noisy[0] - noisy[1]))


def test_scores_are_those_of_the_report(of: Spaces) -> None:
    scores = {space: of.scores(space) for space in of.spaces}
    assert all(list(own) == [name for name in MEASURES if name in QUICK] for own in scores.values())
    assert scores["clean"]["neighbourhood_overlap"] == pytest.approx(1, abs=0.01)
    assert scores["raw"]["popularity_r2"] > scores["purified"]["popularity_r2"]  # type: ignore[operator]
    assert of.scores("purified", 0) != of.scores("purified", 4)
    assert of.scores("purified") == of.scores("purified", 4)
    assert list(of.scores("raw", slow=True)) == [spaces.SLOW]


def test_where_the_truth_is_not_known_there_is_no_clean(theatre_of_1: Theatre) -> None:
    trained = theatre_of_1.trained
    blind = Theatre.__new__(Theatre)
    blind.threads = 1
    blind.trained = replace(trained, data=replace(trained.data, truth=None))
    of = Spaces(blind, 50)
    assert of.spaces == ["raw", "purified"]
    assert spaces.colourings(of.about) == ["Popularity", "Interest", "Activity"]
    found = of.scores("raw")
    assert found["popularity_r2"] is not None
    assert found["silhouette_interest"] is not None
    assert found["preference_r2"] is None
    assert found["neighbourhood_overlap"] is None
    assert set(of.flat()) == {"raw", "purified"}


def test_only_diffusion_has_steps(of: Spaces, plain: Spaces) -> None:
    assert (of.most, plain.most) == (4, None)
    assert np.array_equal(plain.flat()["raw"], plain.flat()["purified"]), "identity changes nothing, and it shows"
    assert spaces.step_title("diffusion", 0, 4) == "Encoded, not denoised (step 0 of 4)"
    assert spaces.step_title("diffusion", 3, 4) == "Purified, step 3 of 4"
    assert spaces.step_title("diffusion", None, 4) == "Purified, all 4 steps"
    assert spaces.step_title("identity", None, None) == "Not purified"
    assert spaces.step_title("projection", None, None) == "Purified by projection"


@pytest.mark.parametrize(("most", "count"), [(1, 2), (10, 11), (20, 21), (500, 21)])
def test_an_animation_begins_at_0_and_ends_at_all(most: int, count: int) -> None:
    found = spaces.stops(most)
    assert (found[0], found[-1], len(found)) == (0, most, count)
    assert found == sorted(set(found))


def test_views_are_capped() -> None:
    assert spaces.sizes(60) == [60]
    assert spaces.sizes(1411) == [300, 1000, 1411]
    assert spaces.sizes(50_000) == [300, 1000, 2000, 3000]


def test_every_kind_has_one_colour_and_the_rest_none_of_its_own() -> None:
    interest = np.array([f"interest {number}" for number in range(24) for _ in range(30 - number)])
    own = spaces.frequent(interest)
    assert own == [f"interest {number}" for number in range(20)]
    about = pd.DataFrame({"kind": np.where(np.isin(interest, own), interest, "others")})
    hue = spaces.hue("Interest", about)
    assert hue.names == (*own, "others")
    scale = hue.channel(about, 8).to_dict()["scale"]
    assert len(set(scale["range"])) == 21
    assert scale["range"][-1] == colours.MUTED


def test_activity_is_what_tells_users_apart(of: Spaces) -> None:
    assert spaces.hue("Activity", of.about).field == "rate", "all have the same number of interactions"
    assert spaces.hue("Activity", of.about.assign(count=range(50))).field == "count"
    assert spaces.hue("Conformity", of.about).field == "conformity"


def test_scores_are_told_with_the_better_in_bold() -> None:
    table = spaces.score_rows(
        {
            "Raw": {"popularity_r2": 0.9, "preference_r2": 0.2, "silhouette_interest": 0.1001},
            "Purified": {"popularity_r2": -0.01, "preference_r2": 0.1, "silhouette_interest": 0.1002},
            "Clean": {"popularity_r2": -0.5, "preference_r2": None},
        },
        ["popularity_r2", "preference_r2", "silhouette_interest"],
    )
    assert table["Raw"].tolist() == ["0.900", "**0.200**", "0.100"]
    assert table["Purified"].tolist() == ["**−0.010**", "0.100", "0.100"], "no bold where they are printed alike"
    assert table["Clean"].tolist() == ["−0.500", "–", "–"]


def test_the_twin_has_the_same_users_and_if_possible_the_same_seed() -> None:
    specs = {
        1: spec("dsrm_hrl"),
        2: spec("balanced", **DIFFUSED),
        3: spec("balanced", seed=15, **DIFFUSED),
        4: spec("balanced", purifier="diffusion", settings={"purifier": {"target": "observed"}, "dataset": {"users": 61}}),
    }
    assert spaces.twin(1, specs) == 2
    assert spaces.twin(1, {1: specs[1], 3: specs[3]}) == 3
    assert spaces.twin(1, {1: specs[1], 4: specs[4]}) is None, "other users"
    assert spaces.trap(specs[2])
    assert not spaces.trap(specs[1])
    assert not spaces.trap(spec("a2c"))


# Charts


def drawn(frame: pd.DataFrame, **more: Any) -> dict[str, Any]:
    panes = [charts.Pane(space, space.title(), (0, 1, 0, 1)) for space in ("raw", "purified", "clean")]
    hue = charts.Hue("popularity", "popularity")
    spec: dict[str, Any] = charts.linked(frame, panes, hue, [alt.Tooltip("user:Q")], **more).to_dict(validate=True)
    return spec


def test_one_area_marks_the_same_users_in_all_pictures(frame: pd.DataFrame) -> None:
    spec = drawn(frame)
    (brush,) = spec["params"]
    assert (brush["name"], brush["select"]["type"]) == ("picked", "interval")
    dots = [pane["layer"][0] for pane in spec["hconcat"]]
    assert brush["views"] == [layer["name"] for layer in dots], "drawn in the dots of every pane"
    assert len({layer["data"]["name"] for layer in dots}) == 1, "all pictures show the same rows"
    assert [layer["encoding"]["x"]["field"] for layer in dots] == ["raw_x", "purified_x", "clean_x"]
    assert {layer["encoding"]["opacity"]["condition"]["param"] for layer in dots} == {"picked"}


def test_a_step_changes_nothing_but_the_data(of: Spaces) -> None:
    """So that the browser moves the points of the chart that is there, and an area stays marked."""
    specs = []
    for steps in (1, 3):
        panes = [charts.Pane(space, f"step {steps}", of.domains()[space]) for space in of.spaces]
        table = spaces.frame(of.about, of.flat(steps))
        spec = charts.linked(table, panes, spaces.hue("Popularity", table), []).to_dict()
        names = {name: f"data {place}" for place, name in enumerate(spec.pop("datasets"))}
        text = json.dumps(spec)
        for name, stable in names.items():
            text = text.replace(name, stable)
        specs.append(text)
    assert specs[0] == specs[1]


def test_stacked_pictures_take_the_width_there_is(frame: pd.DataFrame) -> None:
    row, column = drawn(frame, side=168), drawn(frame, side=None)
    assert [pane["width"] for pane in row["hconcat"]] == [168] * 3
    assert not any("width" in pane for pane in column["vconcat"])


def test_two_pictures_take_the_room_of_three() -> None:
    assert charts.fitted(340, 3) == 340
    assert 2 * charts.fitted(340, 2) <= 3 * 340
    assert charts.fitted(340, 2) > 340


@pytest.mark.parametrize("background", ["#FCFBF8", "#11181C"])
def test_colours_of_interests_stand_on_light_and_dark(background: str) -> None:
    from test_charts import luminance

    assert len(set(colours.INTERESTS)) == len(colours.INTERESTS)
    for colour in colours.INTERESTS:
        high, low = sorted((luminance(colour), luminance(background)), reverse=True)
        assert (high + 0.05) / (low + 0.05) > 2.3, (colour, background)
