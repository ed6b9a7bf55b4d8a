"""What a dataset looks like: its numbers, and what charts of it need. Nothing is fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from engine.contracts import Data
from engine.metrics import gini, lorenz


@dataclass(frozen=True)
class Overview:
    """Of a dataset's whole log, training and test rows together.

    row: the numbers that `data inspect` prints. fingerprint: of the data. fitted: whether a world on it is fitted to its log.
    exposures, plays, rate float64 (I,): how often each item was shown, the responses it got, and their ratio (NaN where it was
    never shown); head bool (I,); titles (I). lengths int64 (U,) and liking float64 (U,): rows and mean reward of each user who
    has any. lorenz (101,): share of all exposure that the least shown 0, 1, … 100 % of the catalogue takes.
    """

    row: dict[str, Any]
    fingerprint: str
    fitted: bool
    exposures: np.ndarray
    plays: np.ndarray
    rate: np.ndarray
    head: np.ndarray
    titles: tuple[str, ...]
    lengths: np.ndarray
    liking: np.ndarray
    lorenz: np.ndarray


def overview(data: Data) -> Overview:
    """Count everything once."""
    items = data.train.items
    item, reward = whole_log(data)
    count = len(items)
    exposures, plays = exposures_and_plays(item, reward, count)
    met = exposures > 0
    rate = plays / exposures  # NaN where nothing was shown
    # People of the test log are others unless they are shared: then their ids go on where the training log's end.
    user = torch.cat([data.train.user, data.test.user + (0 if data.shared_users else data.train.users)])
    users = max(data.train.users, data.test.users) if data.shared_users else data.train.users + data.test.users
    lengths = torch.bincount(user, minlength=users)
    liked = torch.zeros(users, dtype=torch.float64).scatter_add_(0, user, reward.double())
    there = lengths > 0
    r_counts, r_rates = correlation(exposures[met], plays[met]), correlation(exposures[met], rate[met])
    row: dict[str, Any] = {
        "name": data.name,
        "users": users,
        "items": count,
        "interactions": len(item),
        "train_interactions": len(data.train),
        "test_interactions": len(data.test),
        "density": len(item) / (users * count),
        "mean_reward": float(reward.mean()),
        "randomised_share": None if data.train.randomised is None else float(data.train.randomised.float().mean()),
        "head_share": float(exposures[items.head].sum() / exposures.sum()),
        "gini": gini(exposures),
        "popularity_reward_r2_counts": r_counts**2,
        "popularity_reward_r2_rates": r_rates**2,
        "popularity_reward_r_rates": r_rates,
        "tags": int(items.tags.any(0).sum()),
        "environments": {part: environment(data, part) for part in ("train", "test")},
        "repairs": dict(data.repairs),
    }
    return Overview(
        row=row,
        fingerprint=data.fingerprint,
        fitted=any(part not in (data.responses or {}) for part in ("train", "test")),
        exposures=exposures.double().numpy(),
        plays=plays.numpy(),
        rate=rate.numpy(),
        head=items.head.numpy(),
        titles=items.titles,
        lengths=lengths[there].numpy(),
        liking=(liked[there] / lengths[there]).numpy(),
        lorenz=lorenz(exposures).numpy(),
    )


def environment(data: Data, part: str) -> dict[str, float]:
    """A line of the paper's Table 1: users, items and interactions of the `train` or `test` files, or of the log where the
    dataset has no files of that part, and the density of these."""
    log = data.train if part == "train" else data.test
    found = data.files.get(part)
    if found is None:
        found = {"users": len(log.user.unique()), "items": len(log.item.unique()), "interactions": len(log)}
    return {**found, "density": found["interactions"] / max(found["users"] * found["items"], 1)}


def whole_log(data: Data) -> tuple[Tensor, Tensor]:
    """Item (N,) and reward (N,) of every row, training and test."""
    return torch.cat([data.train.item, data.test.item]), torch.cat([data.train.reward, data.test.reward])


def exposures_and_plays(item: Tensor, reward: Tensor, items: int) -> tuple[Tensor, Tensor]:
    """How often each item was shown, int64 (I,), and the rewards it got in all, float64 (I,)."""
    return torch.bincount(item, minlength=items), torch.zeros(items, dtype=torch.float64).scatter_add_(0, item, reward.double())


def correlation(x: ArrayLike, y: ArrayLike) -> float:
    """Pearson's r of two columns (n,); 0 where one of them does not vary."""
    both = np.stack([np.asarray(column, dtype=np.float64) for column in (x, y)])
    varies = both.shape[1] > 1 and bool((both.std(1) > 0).all())
    return float(np.asarray(np.corrcoef(both))[0, 1]) if varies else 0.0
