"""Frontiers and hypervolumes of points one can work out by hand."""

from __future__ import annotations

import pytest

from engine.frontier import hypervolume, hypervolume_over_seeds, nondominated


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


def test_the_interval_of_a_hypervolume_is_that_of_its_seeds() -> None:
    seeds = [[[3, 1], [1, 3]], [[2, 2]], [[1, 1]]]  # 5, 4 and 1
    found = hypervolume_over_seeds(seeds, [0, 0])
    assert found is not None
    assert (found.mean, found.n) == (pytest.approx(10 / 3), 3)
    means = sorted((a + b + c) / 3 for a in (5, 4, 1) for b in (5, 4, 1) for c in (5, 4, 1))  # all 27 resamples
    assert means[0] <= found.low <= means[1]
    assert means[-2] <= found.high <= means[-1]
    assert hypervolume_over_seeds([], [0, 0]) is None
    better = hypervolume_over_seeds([[[4, 2], [2, 4]], [[3, 3]], [[2, 2]]], [0, 0])
    assert better is not None
    assert better.mean > found.mean
