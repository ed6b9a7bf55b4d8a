"""Charts as pure functions: what they encode, their words, and that all of them are sound Vega-Lite."""

from __future__ import annotations

import json
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import pytest

from app.charts import colours, compare, curves, session
from app.charts.style import Style, legend, style
from app.measures import MEASURES, curve_measure

TWO = style(["A2C + identity", "DSRM-HRL + diffusion"], ["a2c", "dsrm_hrl"], ["identity", "diffusion"])


def marks(spec: dict[str, Any]) -> list[str]:
    """The types of a chart's marks, layer by layer."""
    layers = spec.get("layer", [spec])
    return [layer["mark"]["type"] if isinstance(layer["mark"], dict) else layer["mark"] for layer in layers]


def texts(spec: Any) -> list[str]:
    """All titles anywhere in a chart."""
    found: list[str] = []
    if isinstance(spec, dict):
        for key, value in spec.items():
            if key in ("title", "text", "subtitle") and isinstance(value, str | list):
                found += [value] if isinstance(value, str) else [str(part) for part in value]
            found += texts(value) if key != "datasets" else []
    elif isinstance(spec, list):
        for value in spec:
            found += texts(value)
    return found


@pytest.fixture
def bands() -> pd.DataFrame:
    rows = [
        (name, x, level + x / 100, level + x / 100 - 0.1, level + x / 100 + 0.1, n)
        for name, level, n in (("A2C + identity", 0.2, 3), ("DSRM-HRL + diffusion", 0.5, 1))
        for x in (0, 50, 100)
    ]
    return pd.DataFrame(rows, columns=["series", "x", "mean", "low", "high", "n"])


@pytest.fixture
def steps() -> pd.DataFrame:
    return pd.DataFrame(
        {"step": [1, 2, 3], "reward": [0.5, 0.4, 0.1], "temper": [28.5, 26.9, 24.0], "cost": [1.5, 1.6, 2.9],
         "penalised": [False, False, True], "heads": [5, 5, 9]}
    )  # fmt: skip


def test_a_method_has_one_colour_wherever_it_appears() -> None:
    alone = style(["x"], ["a2c"], ["identity"])
    beside = style(["y", "x"], ["dsrm_hrl", "a2c"], ["diffusion", "identity"])
    assert alone.colours[0] == beside.colours[1] == colours.METHODS["a2c"]
    assert colours.of_method("never heard of") == colours.of_method("never heard of") in colours.SPARE


def test_runs_of_one_method_get_shades_and_dashes_that_differ() -> None:
    of = style(["a", "b", "c"], ["dsrm_hrl"] * 3, ["diffusion", "identity", "identity"])
    assert len(set(of.colours)) == 3
    assert of.dashes[0] == (1, 0)
    assert of.dashes[1] == of.dashes[2] != of.dashes[0]
    assert set(TWO.dashes) == {(1, 0)}, "no dashes where the colour is enough"


def luminance(colour: str) -> float:
    """Relative luminance of `#RRGGBB`, as WCAG defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("background", ["#FCFBF8", "#11181C"])
def test_colours_stand_on_light_and_dark(background: str) -> None:
    for colour in [*colours.METHODS.values(), *colours.SPARE, colours.HEAD, colours.TAIL, colours.INK, colours.WARNING]:
        high, low = sorted((luminance(colour), luminance(background)), reverse=True)
        assert (high + 0.05) / (low + 0.05) > 2.3, (colour, background)


def test_a_curve_has_a_band_only_where_there_are_several_seeds(bands: pd.DataFrame) -> None:
    several = curves.curve(bands, MEASURES["len"], TWO, "Episodes").to_dict()
    assert "area" in marks(several)
    one = curves.curve(bands.assign(n=1), MEASURES["len"], TWO, "Episodes").to_dict()
    assert "area" not in marks(one)


def test_a_curve_says_what_it_shows(bands: pd.DataFrame) -> None:
    said = texts(curves.curve(bands, MEASURES["ad"], TWO, "Episodes (training sessions)").to_dict())
    assert {"AD ↓", "0 = balanced", "Episodes (training sessions)"} <= set(said)


def test_single_seeds_replace_the_mean_when_asked_for(bands: pd.DataFrame) -> None:
    singles = pd.DataFrame({"series": "A2C + identity", "run": [1, 1], "seed": 11, "x": [0, 50], "value": [0.1, 0.2]})
    spec = curves.curve(bands, MEASURES["len"], TWO, "Episodes", singles=singles, mean=False).to_dict()
    assert "area" not in marks(spec)
    assert "line" in marks(spec)
    assert any("seed" in text for text in texts(spec))


def test_methods_that_do_not_learn_are_level_lines(bands: pd.DataFrame) -> None:
    level = pd.DataFrame({"series": ["A2C + identity"], "value": [0.4]})
    assert "rule" in marks(curves.curve(bands, MEASURES["len"], TWO, "Episodes", references=level).to_dict())


def test_ad_starts_at_zero_and_len_does_not(bands: pd.DataFrame) -> None:
    def zero(name: str) -> bool:
        line = curves.curve(bands, curve_measure(name), TWO, "Episodes").to_dict()["layer"][1]
        return bool(line["encoding"]["y"]["scale"]["zero"])

    assert zero("ad")
    assert zero("train_ad")
    assert not zero("len")


def test_a_live_curve_has_a_still_axis(bands: pd.DataFrame) -> None:
    spec = curves.curve(bands, MEASURES["len"], TWO, "Episodes", x_max=3000).to_dict()
    assert spec["layer"][0]["encoding"]["x"]["scale"]["domain"] == [0, 3000]


def test_bars_print_rounded_values_and_an_error_bar_only_for_several_seeds() -> None:
    frame = pd.DataFrame({"series": TWO.names, "mean": [12.3456789, 19.0], "std": [0.0, 0.5], "n": [1, 3]})
    spec = compare.bars(frame, MEASURES["len"], TWO).to_dict()
    rows = [row for rows in spec["datasets"].values() for row in rows]
    assert {row["text"] for row in rows if "text" in row} == {"12.35", "19.00"}
    assert {row["told"] for row in rows} == {"12.35", "19.00 ± 0.50"}
    assert "rule" in marks(spec)
    assert "rule" not in marks(compare.bars(frame.assign(n=1), MEASURES["len"], TWO).to_dict())
    assert spec["layer"][0]["encoding"]["y"]["scale"]["domain"][0] == 0, "bars begin at zero"


def test_the_legend_names_every_series_and_fits() -> None:
    names = [f"DSRM-HRL + diffusion · λ {value}" for value in range(7)]
    of: Style = style(names, ["dsrm_hrl"] * 7, ["diffusion"] * 7)
    spec = legend(of).to_dict()
    assert spec["encoding"]["color"]["scale"]["domain"] == names
    columns = spec["encoding"]["color"]["legend"]["columns"]
    assert columns == 2
    assert spec["height"] >= 21 * 4, "room for four rows"


def test_patience_marks_slates_that_broke_the_bound(steps: pd.DataFrame) -> None:
    spec = session.patience(steps, 30, 2, 5).to_dict()
    assert spec["layer"][0]["mark"]["type"] == "bar", "the slate on the stage"
    broken = [layer for layer in spec["layer"] if layer["mark"].get("shape") == "triangle-down"]
    assert broken[0]["transform"] == [{"filter": "datum.penalised"}]
    assert spec["layer"][1]["encoding"]["y"]["scale"]["domain"] == [0, 30]
    assert spec["layer"][1]["encoding"]["x"]["scale"]["domain"] == [1, 2, 3, 4, 5], "as long as the longer of two sessions"


@pytest.mark.parametrize(
    ("slate", "bound", "allowed"), [(10, 0.3, [3.5, 6.5]), (10, 0.2, [4.5, 5.5]), (6, 0.3, [2.5, 3.5]), (5, 0.0, [])]
)
def test_the_bounds_are_those_of_the_simulator(slate: int, bound: float, allowed: list[float]) -> None:
    import math

    assert session.allowed_heads(slate, bound) == allowed
    uneven = math.ceil(bound * slate - 1e-9)  # engine.world.simulator's own rule
    fine = [heads for heads in range(slate + 1) if not abs(2 * heads - slate) >= uneven]
    assert [heads for heads in range(slate + 1) if allowed and allowed[0] < heads < allowed[1]] == fine


def test_exposure_stacks_heads_below_tails(steps: pd.DataFrame) -> None:
    spec = session.exposure(steps, 10, 0.3, 3).to_dict()
    rows = [row for rows in spec["datasets"].values() for row in rows if "kind" in row]
    assert {(row["kind"], row["step"]): row["items"] for row in rows}[("tail", 3)] == 1
    assert spec["layer"][0]["encoding"]["color"]["scale"] == {"domain": ["head", "tail"], "range": [colours.HEAD, colours.TAIL]}


def test_the_map_shows_the_way_up_to_now() -> None:
    people = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 2)), columns=["x", "y"]).assign(taste=0.5, user=range(50))
    path = pd.DataFrame({"x": [0.0, 1.0, 2.0], "y": [0.0, 1.0, 9.0], "step": [1, 2, 3]})
    spec = session.state_map(people, path, 2, "Observed state", colours.RAW).to_dict()
    way = next(layer for layer in spec["layer"] if layer["mark"]["type"] == "line")
    assert [row["step"] for row in spec["datasets"][way["data"]["name"]]] == [1, 2]
    assert spec["layer"][0]["encoding"]["y"]["scale"]["domain"][1] > 9, "the whole way fits, so that the map stands still"


def all_charts(bands: pd.DataFrame, steps: pd.DataFrame) -> list[alt.Chart | alt.LayerChart]:
    people = pd.DataFrame({"x": [0.0, 1.0], "y": [0.0, 1.0], "taste": [0.0, 0.0], "user": [1, 2]})
    path = pd.DataFrame({"x": [0.0], "y": [0.0], "step": [1]})
    bars = pd.DataFrame({"series": TWO.names, "mean": [0.0, 0.0], "std": [0.0, 0.0], "n": [1, 1]})
    return [
        legend(TWO), curves.curve(bands, MEASURES["len"], TWO, "x"), compare.bars(bars, MEASURES["ad"], TWO),
        session.patience(steps, 30, 1, 3), session.answers(steps, 3), session.exposure(steps, 10, 0.3, 3),
        session.weights({"omega_acc": [1.0, 1.1, 0.9], "omega_fair": [0.0, 0.2, 0.1]}, 3),
        session.state_map(people, path, 1, "t", colours.RAW),
    ]  # fmt: skip


def test_every_chart_is_sound_and_fetches_nothing(bands: pd.DataFrame, steps: pd.DataFrame) -> None:
    for chart in all_charts(bands, steps):
        text = json.dumps(chart.to_dict(validate=True))
        assert "http" not in text.replace("https://vega.github.io/schema", "")
        assert "NaN" not in text
