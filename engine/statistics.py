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

    @property
    def told_from_zero(self) -> bool:
        """Whether there are several values and the interval leaves 0 out."""
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


def change(before: Mapping[int, float | None], after: Mapping[int, float | None]) -> Spread | None:
    """Of after − before, seed by seed, over the seeds that have both: what the seeds share cancels out."""
    pairs = ((before[seed], after[seed]) for seed in before if seed in after)
    return spread([b - a for a, b in pairs if a is not None and b is not None])


def interval(values: Sequence[float | None]) -> dict[str, Any]:
    """`spread` as the command line prints it: {"mean", "low", "high"}, None where nothing is known."""
    found = spread(values)
    if found is None:
        return {"mean": None, "low": None, "high": None}
    return {"mean": found.mean, "low": found.low, "high": found.high}
