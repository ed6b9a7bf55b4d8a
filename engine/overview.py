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

    row: the numbers that `data inspect` prints. fingerprint: of the data. fitted: whether worlds on it are fitted to its logs.
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
    users = data.train.users if data.shared_users else data.train.users + data.test.users
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
        "repairs": dict(data.repairs),
    }
    return Overview(
        row=row,
        fingerprint=data.fingerprint,
        fitted=data.responses is None,
        exposures=exposures.double().numpy(),
        plays=plays.numpy(),
        rate=rate.numpy(),
        head=items.head.numpy(),
        titles=items.titles,
        lengths=lengths[there].numpy(),
        liking=(liked[there] / lengths[there]).numpy(),
        lorenz=lorenz(exposures).numpy(),
    )


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
