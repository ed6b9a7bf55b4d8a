"""Frontiers and hypervolumes of points one can work out by hand."""

from __future__ import annotations

import pytest

from engine.frontier import hypervolume, nondominated


def test_the_frontier_keeps_what_nothing_beats() -> None:
    points = [[3, 1], [1, 3], [2, 2], [1, 1], [2, 1], [2, 2]]
    assert nondominated(points).tolist() == [True, True, True, False, False, True]
    assert nondominated([]).tolist() == []


def test_the_hypervolume_is_the_area_of_a_staircase() -> None:
    assert hypervolume([[3, 1], [1, 3], [2, 2]], [0, 0]) == pytest.approx(6)
    assert hypervolume([[3, 1], [1, 3], [2, 2], [1, 1]], [0, 0]) == pytest.approx(6)  # a dominated point adds nothing
    assert hypervolume([[3, -1]], [0, 0]) == 0
    assert hypervolume([], [0, 0]) == 0


def test_points_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="must be finite"):
        hypervolume([[float("nan"), 1.0]], [0, 0])
