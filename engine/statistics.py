"""From seeds to numbers that tables print: means, deviations, interquartile means, probabilities of improvement, intervals.

Pure functions. Scores of several tasks are arrays (R,T): R runs (seeds) of each of T tasks. Their intervals are percentiles of
a stratified bootstrap (Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice"): runs are
drawn again within each task, tasks are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 10_000
BLOCK = 2_000_000  # numbers resampled at once


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


@dataclass(frozen=True)
class Estimate:
    """A number that is not a plain mean, worked out from n runs, with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


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


def iqm(scores: ArrayLike) -> Estimate:
    """Interquartile mean of scores (R,T) or (R,), one task: the mean of all R·T scores without the lowest and the highest
    quarter, each rounded down to whole scores (Agarwal et al. 2021, §4.3). With 3 scores or fewer it is their mean.

    Raises ValueError where scores are not finite or there are none.
    """
    values = _scores(scores)
    runs, tasks = values.shape
    generator = np.random.default_rng(0)
    found = []
    for count in _blocks(runs * tasks):
        drawn = values[generator.integers(runs, size=(count, runs, tasks)), np.arange(tasks)]
        found.append(_middle(drawn.reshape(count, -1)))
    low, high = np.quantile(np.concatenate(found), (0.025, 0.975))
    return Estimate(float(_middle(values.reshape(1, -1))[0]), float(low), float(high), runs)


def improvement(first: ArrayLike, second: ArrayLike) -> Estimate:
    """P(X > Y): how likely a run of `first` (R,T) scores above one of `second` (S,T) on the same task, ties counting half,
    averaged over tasks (Agarwal et al. 2021, §4.3; the Mann–Whitney U of a task over R·S). n: the smaller of R and S.

    1/2 says that neither is better. Raises ValueError as `iqm`, and where tasks differ.
    """
    x, y = _scores(first), _scores(second)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"both must have the same tasks but have {x.shape[1]} and {y.shape[1]}")
    wins = (np.sign(x[:, None] - y[None]) + 1) / 2  # (R,S,T)
    generator = np.random.default_rng(0)
    found = []
    for count in _blocks(wins.size):
        total = np.zeros(count)
        for task in range(wins.shape[2]):
            mine = generator.integers(len(x), size=(count, len(x), 1))
            other = generator.integers(len(y), size=(count, 1, len(y)))
            total += wins[mine, other, task].mean((1, 2))
        found.append(total / wins.shape[2])
    low, high = np.quantile(np.concatenate(found), (0.025, 0.975))
    return Estimate(float(wins.mean()), float(low), float(high), min(len(x), len(y)))


def _middle(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(B,n) → (B,) means without the lowest and highest ⌊n/4⌋."""
    count = values.shape[1]
    return np.sort(values, 1)[:, count // 4 : count - count // 4].mean(1)


def _scores(values: ArrayLike) -> NDArray[np.float64]:
    """(R,T)."""
    found = np.asarray(values, np.float64)
    found = found[:, None] if found.ndim == 1 else found
    if found.ndim != 2 or not found.size:
        raise ValueError(f"scores must be (runs, tasks), at least one of each, but have the shape {found.shape}")
    if not np.isfinite(found).all():
        raise ValueError(f"scores must be finite but are {found.tolist()}")
    return found


def _blocks(size: int) -> list[int]:
    """RESAMPLES in parts small enough for memory, where one resample holds `size` numbers."""
    most = max(BLOCK // size, 1)
    return [min(most, RESAMPLES - start) for start in range(0, RESAMPLES, most)]
