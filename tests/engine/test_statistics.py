"""Means, deviations and intervals over seeds."""

from __future__ import annotations

import numpy as np
import pytest

from engine.statistics import Spread, change, interval, spread


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
