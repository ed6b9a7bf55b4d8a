"""How a log of real interactions becomes a train and a test world that share no row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from engine.contracts import Data, Dataset, Items
from engine.data.heads import head_items


def by_time(
    name: str,
    user: np.ndarray,
    item: np.ndarray,
    reward: np.ndarray,
    time: np.ndarray,
    randomised: np.ndarray | None,
    tags: Sequence[Sequence[str]],
    titles: Sequence[str],
    fingerprint: str,
    sources: Mapping[str, str],
    repairs: Mapping[str, int],
) -> Data:
    """Train: the earlier half of each user's rows (one more where odd); test: the later half, each in the order of time,
    ties in the order given.

    Where some rows' exposure was random, those rows are halved by time over all users: the earlier half joins training (it
    may debias), the later half alone is the test log; never both. ids (N,) must run from 0.
    """
    order = _by_user_and_time(user, time)
    user, item, reward, time = user[order], item[order], reward.astype(np.float32)[order], time[order]
    randomised = None if randomised is None else randomised[order]
    del order  # logs may have tens of millions of rows
    in_train = earlier_half(user)
    in_test = ~in_train
    if randomised is not None and randomised.any():
        early = np.zeros(len(user), dtype=bool)
        place = np.flatnonzero(randomised)
        early[place[np.argsort(time[place], kind="stable")][: (len(place) + 1) // 2]] = True
        in_train = np.where(randomised, early, in_train)
        in_test = randomised & ~early
    users = int(user.max()) + 1
    exposures = torch.bincount(torch.from_numpy(item[in_train]), minlength=len(titles))
    items = Items(exposures, head_items(exposures), *memberships(tags), tuple(titles))

    def log(rows: np.ndarray) -> Dataset:
        return Dataset(
            torch.from_numpy(user[rows]),
            torch.from_numpy(item[rows]),
            torch.from_numpy(reward[rows]),
            torch.from_numpy(time[rows]),
            None if randomised is None else torch.from_numpy(randomised[rows]),
            users,
            items,
        )

    train = log(in_train)
    first = train.select(torch.from_numpy(earlier_half(user[in_train])))
    return Data(
        name=name,
        train=train,
        test=log(in_test),
        train_start=first,
        test_start=replace(train),
        shared_users=True,
        fingerprint=fingerprint,
        sources=dict(sources),
        repairs=dict(repairs),
    )


def _by_user_and_time(user: np.ndarray, time: np.ndarray) -> np.ndarray:
    """int64 (N,) a stable order."""
    first, span = int(time.min()), int(time.max()) - int(time.min()) + 1
    if (int(user.max()) + 1) * span > np.iinfo(np.int64).max:
        return np.lexsort((time, user))
    # One whole number a row, sorted by its digits: eight times as fast.
    return torch.from_numpy(user.astype(np.int64) * span + (time - first)).sort(stable=True).indices.numpy()


def memberships(tags: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """`tags`, `main_tag` and `tag_names` of Items from each item's own tags, the main one first."""
    names = sorted({tag for row in tags for tag in row})
    column = {tag: place for place, tag in enumerate(names)}
    membership = torch.zeros(len(tags), max(len(names), 1), dtype=torch.bool)
    main = torch.full((len(tags),), max(len(names), 1), dtype=torch.int64)
    for row, own in enumerate(tags):
        for tag in reversed(own):
            membership[row, column[tag]] = True
            main[row] = column[tag]
    return membership, main, (*(names or ["none"]), "none")


def earlier_half(user: np.ndarray) -> np.ndarray:
    """bool (N,) for rows sorted by user, then time."""
    first = np.r_[0, np.flatnonzero(np.diff(user)) + 1] if len(user) else np.zeros(0, dtype=int)
    length = np.diff(np.r_[first, len(user)])
    rank = np.arange(len(user)) - np.repeat(first, length)
    return rank < np.repeat((length + 1) // 2, length)
