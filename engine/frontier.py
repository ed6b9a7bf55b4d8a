"""Pareto frontiers of two or more objectives, all maximised: which points are on it, and how much it dominates."""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import NDArray

from engine.statistics import Spread, spread

Points = Sequence[Sequence[float]] | NDArray[np.float64]


def nondominated(points: Points) -> NDArray[np.bool_]:
    """bool (n,): no other point is at least as good in every objective and better in one. Equal points are all kept."""
    values = _checked(points)
    return moocore.is_nondominated(values, maximise=True, keep_weakly=True) if len(values) else np.zeros(0, bool)


def hypervolume(points: Points, reference: Sequence[float]) -> float:
    """Volume that the points (n,m) dominate above `reference` (m,), 0 for none (Zitzler & Thiele 1999). Points below the
    reference in some objective add nothing."""
    values = _checked(points)
    return float(moocore.hypervolume(values, ref=np.asarray(reference, np.float64), maximise=True)) if len(values) else 0.0


def hypervolume_over_seeds(frontiers: Sequence[Points], reference: Sequence[float]) -> Spread | None:
    """Of one set of points a seed: the mean of their hypervolumes, its deviation, and the bootstrap interval over seeds.
    None without seeds. Volumes of sets of different sizes are not comparable: more points can only dominate more."""
    return spread([hypervolume(points, reference) for points in frontiers])


def _checked(points: Points) -> NDArray[np.float64]:
    values = np.asarray(points, np.float64)
    if values.size and not np.isfinite(values).all():
        raise ValueError(f"points must be finite but are {values.tolist()}")
    return values
