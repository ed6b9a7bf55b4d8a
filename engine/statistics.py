"""From seeds to numbers that tables print: means, deviations and bootstrap intervals. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 10_000


@dataclass(frozen=True)
class Spread:
    """Of n values: mean, standard deviation (ddof 0, as the paper prints it) and the 95 % bootstrap interval of the mean."""

    mean: float
    std: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Change:
    """Mean of n differences with Student's 95 % interval, which is honest for few seeds where a bootstrap is not."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def told(self) -> bool:
        """Whether it is told from no change: there are several values and the interval leaves 0 out."""
        return self.n > 1 and (self.low > 0 or self.high < 0)


def spread(values: Sequence[float | None]) -> Spread | None:
    """Of the values that are known; None where none is. One value is its own interval.

    The interval holds the middle 95 % of the means of 10,000 resamples, always drawn by the same seed: equal values give
    equal intervals. With few seeds such an interval is narrower than it should be; n says how few they were.
    """
    known = np.array([value for value in values if value is not None], np.float64)
    if not len(known):
        return None
    if not np.isfinite(known).all():
        raise ValueError(f"values must be finite but are {known.tolist()}")
    means = np.random.default_rng(0).choice(known, (RESAMPLES, len(known))).mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Spread(float(known.mean()), float(known.std()), float(low), float(high), len(known))


def change(before: Mapping[int, float | None], after: Mapping[int, float | None]) -> Change | None:
    """Of after − before, seed by seed, over the seeds that have both: what the seeds share cancels out."""
    from scipy.special import stdtrit

    pairs = ((before[seed], after[seed]) for seed in before if seed in after)
    found = np.array([b - a for a, b in pairs if a is not None and b is not None], np.float64)
    if not len(found):
        return None
    half = 0.0
    if len(found) > 1:
        half = float(stdtrit(len(found) - 1, 0.975) * found.std(ddof=1) / np.sqrt(len(found)))
    mean = float(found.mean())
    return Change(mean, mean - half, mean + half, len(found))


def interval(values: Sequence[float | None]) -> dict[str, Any]:
    """`spread` as the command line prints it: {"mean", "low", "high"}, None where nothing is known."""
    found = spread(values)
    if found is None:
        return {"mean": None, "low": None, "high": None}
    return {"mean": found.mean, "low": found.low, "high": found.high}
