"""Logs as transitions: what a user's state was before a logged interaction and after it, for methods that learn from logs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engine.contracts import Dataset, Obs, StateView
from engine.learn.bcq import Transitions

BLOCK = 4096  # histories at once


def logged_transitions(
    logs: Dataset,
    states: StateView,
    *,
    users: int,
    count: int,
    history: int,
    ahead: int,
    gamma: float,
    generator: torch.Generator,
    watch: Callable[[float], None] = lambda share: None,
) -> Transitions:
    """At most `count` logged interactions, drawn without replacement from the rows of the first `users` users.

    inputs and following (n,D): states before a row and `ahead` rows later; returns: the discounted responses of those rows;
    discount γ^ahead. Rows with fewer than `ahead` rows left are no moment to learn from. Where a log ends nobody has left, so
    nothing ends a session. `history`: the longest history a state is made of. `watch` is told the share that is done, 0 to 1,
    every few thousand states.
    """
    rows = _moments(logs, users, count, ahead, generator)
    returns = torch.zeros(len(rows))
    for step in range(ahead):
        returns += gamma**step * logs.reward[rows + step]
    before, after = _around(logs, states, rows, ahead, history, watch)
    device = before.device
    discount = torch.full_like(returns, gamma**ahead)
    return Transitions(before, logs.item[rows].to(device), returns.to(device), after, discount.to(device))


def logged_slates(
    logs: Dataset,
    states: StateView,
    *,
    users: int,
    count: int,
    history: int,
    slate: int,
    gamma: float,
    generator: torch.Generator,
    watch: Callable[[float], None] = lambda share: None,
) -> Transitions:
    """The same with slates for actions: `slate` consecutive interactions of a user are one, from whichever row on.

    action: int64 (n,K), the items; returns: their mean response; discount γ; `following` is the state after all K rows.
    """
    rows = _moments(logs, users, count, slate, generator)
    at = rows[:, None] + torch.arange(slate)
    before, after = _around(logs, states, rows, slate, history, watch)
    returns = logs.reward[at].mean(1).to(before.device)
    return Transitions(before, logs.item[at].to(before.device), returns, after, torch.full_like(returns, gamma))


def _moments(logs: Dataset, users: int, count: int, ahead: int, generator: torch.Generator) -> Tensor:
    """At most `count` rows of the first `users` users, drawn without replacement from those that `ahead` rows begin with."""
    end = logs.lengths().cumsum(0)[logs.user]
    place = torch.arange(len(logs))
    whole = ((place + ahead <= end) & (logs.user < users)).nonzero()[:, 0]
    return whole[torch.randperm(len(whole), generator=generator)[:count]]


def _around(
    logs: Dataset, states: StateView, rows: Tensor, ahead: int, history: int, watch: Callable[[float], None]
) -> tuple[Tensor, Tensor]:
    """(n,D) the states before `rows` (n,), and those before the rows that come `ahead` rows later."""
    before = _states(logs, states, rows, logs.user[rows], history, lambda share: watch(share / 2))
    return before, _states(logs, states, rows + ahead, logs.user[rows], history, lambda share: watch((1 + share) / 2))


def _states(
    logs: Dataset, states: StateView, end: Tensor, user: Tensor, history: int, watch: Callable[[float], None]
) -> Tensor:
    """(n,D) the view of `user` (n,) who has been shown that user's rows before row `end` (n,)."""
    lengths = logs.lengths()
    first, width = lengths.cumsum(0) - lengths, min(history, int(lengths.max()))
    device, nothing = states.items.device, torch.zeros(0, dtype=torch.bool)
    back = torch.arange(-width, 0)
    parts: list[Tensor] = []
    for stop, who in zip(end.split(BLOCK), user.split(BLOCK), strict=True):
        watch(len(parts) * BLOCK / max(len(end), 1))
        at = stop[:, None] + back
        known = at >= first[who][:, None]
        at = at.clamp_min(0)
        items = torch.where(known, logs.item[at], -1).to(device)
        rewards = (logs.reward[at] * known).to(device)
        none = torch.zeros(len(who), 0, dtype=torch.int64, device=device)
        parts.append(states(Obs(who.to(device), 0, items, rewards, 0, none, nothing.to(device))))
    return torch.cat(parts)
