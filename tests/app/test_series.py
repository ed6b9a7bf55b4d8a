"""Smoothing, other x-axes, and bands over seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from app import series


def points(**runs: list[tuple[float, float]]) -> pd.DataFrame:
    """run, x, value; `r1=[(x, value), …]`."""
    return pd.DataFrame(
        [(int(name[1:]), x, value) for name, own in runs.items() for x, value in own], columns=["run", "x", "value"]
    )


def test_smoothing_keeps_a_constant_and_begins_where_the_curve_begins() -> None:
    assert series.smooth(np.full(5, 3.0), 0.9).tolist() == pytest.approx([3.0] * 5)
    rough = np.array([0.0, 10.0, 0.0, 10.0, 0.0])
    smooth = series.smooth(rough, 0.8)
    assert smooth[0] == 0.0
    assert smooth[1:].std() < rough[1:].std()
    assert series.smooth(rough, 0.0) is rough
    assert series.smooth(rough, 0.5).tolist() == pytest.approx([0.0, 20 / 3, 20 / 7, 100 / 15, 100 / 31])  # by hand


def test_smoothing_never_mixes_runs() -> None:
    frame = points(r1=[(0, 0.0), (1, 0.0)], r2=[(0, 5.0), (1, 5.0)]).assign(name="len")
    assert series.smoothed(frame, 0.9)["value"].tolist() == pytest.approx([0, 0, 5, 5])


def test_seeds_that_share_their_steps_are_taken_point_by_point() -> None:
    found = series.band(points(r1=[(0, 1.0), (10, 3.0)], r2=[(0, 3.0), (10, 5.0)]), "std")
    assert found["x"].tolist() == [0, 10]
    assert found["mean"].tolist() == [2, 4]
    assert found["low"].tolist() == [1, 3]
    assert found["n"].tolist() == [2, 2]


def test_a_seed_counts_only_where_it_has_been() -> None:
    found = series.band(points(r1=[(0, 1.0), (10, 1.0), (20, 1.0)], r2=[(0, 3.0), (10, 3.0)]), "range")
    assert found["n"].tolist() == [2, 2, 1]
    assert found["mean"].tolist() == [2, 2, 1]
    assert found["low"].tolist() == [1, 1, 1]
    assert found["high"].tolist() == [3, 3, 1]


def test_other_steps_are_interpolated() -> None:
    found = series.band(points(r1=[(0, 0.0), (10, 10.0)], r2=[(0, 0.0), (4, 4.0), (10, 10.0)]), "std")
    assert found["mean"].tolist() == pytest.approx(found["x"].tolist())
    assert (found["high"] - found["low"]).max() == pytest.approx(0)


def test_the_interval_is_students() -> None:
    found = series.band(points(r1=[(0, 1.0)], r2=[(0, 2.0)], r3=[(0, 6.0)]), "interval")
    half = 4.302653 * 2.645751 / 3**0.5  # t(0.975, 2) · s / √n, s with ddof 1
    assert found["high"][0] - 3 == pytest.approx(half, rel=1e-5)
    alone = series.band(points(r1=[(0, 1.0)]), "interval")
    assert alone["low"][0] == alone["high"][0] == 1.0


def test_user_steps_come_from_the_runs_own_count() -> None:
    values = pd.DataFrame({"run": [1, 1, 2], "name": "len", "step": [0, 100, 100], "value": [1.0, 2.0, 3.0]})
    clock = pd.DataFrame({"run": [1, 1], "name": "user_steps", "step": [50, 100], "value": [600.0, 1300.0]})
    found = series.on_axis(values, "user_steps", clock)
    assert found["x"].tolist() == [0.0, 1300.0], "run 2 has no clock"
    assert series.on_axis(values, "episodes", clock)["x"].tolist() == [0, 100, 100]


def test_nothing_gives_nothing() -> None:
    assert not len(series.band(points(), "std"))
    assert not len(series.bands(points(), {}, "std"))
