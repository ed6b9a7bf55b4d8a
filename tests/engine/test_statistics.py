"""Means, deviations and intervals over seeds."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

from engine.statistics import Spread, change, improvement, interval, iqm, spread


def test_mean_and_deviation_are_those_that_the_paper_prints() -> None:
    found = spread([1.0, 2.0, 6.0])
    assert found is not None
    assert (found.mean, found.n) == (3.0, 3)
    assert found.std == pytest.approx(np.std([1, 2, 6]))  # ddof 0


def test_the_interval_is_the_percentile_bootstraps() -> None:
    values = np.random.default_rng(3).normal(5, 2, 40)
    found = spread(values.tolist())
    assert found is not None
    error = values.std() / np.sqrt(40)  # the bootstrap of a mean comes close to ± 1.96 standard errors
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)
    assert spread(values.tolist()) == found  # no luck of its own


def test_few_or_no_values() -> None:
    assert spread([]) is None
    assert spread([None]) is None
    assert spread([4.0, None]) == Spread(4.0, 0.0, 4.0, 4.0, 1)
    assert interval([None]) == {"mean": None, "low": None, "high": None}
    assert interval([4.0]) == {"mean": 4.0, "low": 4.0, "high": 4.0}
    with pytest.raises(ValueError, match="must be finite"):
        spread([1.0, float("nan")])


def test_changes_are_paired_by_seed() -> None:
    """Seeds differ by far more than what is compared; seed by seed the difference is plain."""
    before = {11: 1.0, 15: 5.0, 19: 9.0, 23: 3.0}
    found = change(before, {19: 9.5, 15: 5.6, 11: 1.4})
    assert found is not None
    assert (found.mean, found.n) == (pytest.approx(0.5), 3)
    assert found.high - found.mean == pytest.approx(4.3027 * 0.1 / np.sqrt(3), abs=1e-4)  # Student's t with 2 degrees
    assert found.told
    agreed = change(before, {11: 1.1, 15: 5.2, 19: 10.0})  # all seeds agree on the sign, and yet three are too few
    assert agreed is not None
    assert not agreed.told
    single = change({1: 0.0}, {1: 1.0})
    assert single is not None
    assert not single.told
    assert change(before, {4: 1.0}) is None


# Slow computations of the same by other means: every resample there is, one after the other


def slow_iqm(scores: list[float]) -> float:
    """Without the lowest and highest quarter, by removing them one by one."""
    left = sorted(scores)
    for _ in range(len(scores) // 4):
        left.remove(min(left))
        left.remove(max(left))
    return sum(left) / len(left)


def slow_improvement(first: list[list[float]], second: list[list[float]]) -> float:
    """first, second: task → runs."""
    total = 0.0
    for xs, ys in zip(first, second, strict=True):
        total += sum(1.0 if x > y else 0.5 if x == y else 0.0 for x in xs for y in ys) / (len(xs) * len(ys))
    return total / len(first)


def all_resamples(tasks: list[list[float]]) -> list[list[list[float]]]:
    """Every way to draw runs again within each task."""
    own = [[list(drawn) for drawn in product(runs, repeat=len(runs))] for runs in tasks]
    return [list(drawn) for drawn in product(*own)]


def quantiles(values: list[float]) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


TASKS = [[1.0, 2.0, 4.0], [30.0, 10.0, 20.0]]  # task → runs
WORSE = [[2.0, 1.0, 0.5], [10.0, 5.0, 25.0]]


def by_run(tasks: list[list[float]]) -> Any:
    return np.array(tasks).T


def test_the_interquartile_mean_and_its_stratified_interval() -> None:
    found = iqm(by_run(TASKS))
    assert found.value == 9  # of 6 scores one falls away at each end: (2 + 4 + 10 + 20) / 4
    assert found.n == 3
    every = [slow_iqm([score for runs in drawn for score in runs]) for drawn in all_resamples(TASKS)]
    assert len(every) == 27 * 27
    assert (found.low, found.high) == pytest.approx(quantiles(every), abs=0.3)  # 10,000 draws of 729 resamples
    eight = [5.0, 1.0, 100.0, 2.0, 3.0, 4.0, -50.0, 6.0]
    assert iqm(eight).value == pytest.approx(slow_iqm(eight)) == 3.5
    assert iqm([1.0, 2.0, 6.0]).value == 3.0  # nothing to leave out
    assert iqm(by_run(TASKS)) == found  # no luck of its own


def test_tasks_are_strata() -> None:
    """Each task keeps as many runs as it had: with runs that agree within tasks there is nothing to be unsure of."""
    agreed = iqm([[1.0, 9.0], [1.0, 9.0], [1.0, 9.0], [1.0, 9.0]])
    assert (agreed.value, agreed.low, agreed.high) == (5.0, 5.0, 5.0)


def test_the_interquartile_mean_is_not_moved_by_one_bad_run() -> None:
    usual = [10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0, 17.0]
    bad = [-1000.0, *usual[1:]]
    assert iqm(bad).value == iqm(usual).value
    assert abs(np.mean(bad) - np.mean(usual)) > 100
    assert iqm([value + 1 for value in usual]).value == iqm(usual).value + 1


def test_more_runs_narrow_the_interval() -> None:
    values = np.random.default_rng(1).normal(size=(40, 3))
    few, many = iqm(values[:5]), iqm(values)
    assert many.high - many.low < 0.7 * (few.high - few.low)
    assert many.low < many.value < many.high


def test_the_probability_of_improvement_and_its_interval() -> None:
    found = improvement(by_run(TASKS), by_run(WORSE))
    assert found.value == pytest.approx(slow_improvement(TASKS, WORSE))
    assert found.value == pytest.approx((7 / 9 + 6.5 / 9) / 2)
    drawn = np.random.default_rng(5)
    every = []
    first, second = all_resamples(TASKS), all_resamples(WORSE)
    for _ in range(6000):  # of 531,441
        every.append(slow_improvement(first[drawn.integers(len(first))], second[drawn.integers(len(second))]))
    assert (found.low, found.high) == pytest.approx(quantiles(every), abs=0.04)


def test_the_probability_of_improvement_has_the_right_ends() -> None:
    low, high = [[1.0], [2.0], [3.0]], [[4.0], [5.0]]
    assert [improvement(high, low).value, improvement(low, high).value, improvement(low, low).value] == [1, 0, 0.5]
    assert improvement([[1.0]], [[1.0]]).value == 0.5  # a tie is half
    assert improvement(high, low).n == 2
    forth, back = improvement(by_run(TASKS), by_run(WORSE)), improvement(by_run(WORSE), by_run(TASKS))
    assert forth.value + back.value == pytest.approx(1)
    # tasks weigh alike, and scores of one task are never compared with another's
    assert improvement([[10.0, 1.0]], [[5.0, 2.0]]).value == 0.5


@pytest.mark.parametrize("measure", [iqm, lambda scores: improvement(scores, [[1.0]])])
def test_scores_that_cannot_be_averaged_are_refused(measure: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match="must be finite"):
        measure([[float("nan")]])
    with pytest.raises(ValueError, match="at least one of each"):
        measure([])
    with pytest.raises(ValueError, match="same tasks"):
        improvement([[1.0, 2.0]], [[1.0]])
