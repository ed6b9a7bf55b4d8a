"""Greedy decisions for users who are each at a step of their own, as functions of tensors alone.

A world's sessions walk together, so `Obs` counts steps in plain numbers. The users of a service do not, nor do those of an
environment that starts a new session wherever one ended. `observe` makes of four tables what policies decide by, and a policy's
`rank(moment)` the slates; nothing in between depends on values of tensors, so that it can be traced (engine/export.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.contracts import Obs, StateView
from engine.learn.inputs import RECENT_SLATES, policy_inputs


@dataclass(frozen=True)
class Rules:
    """What a policy assumes of a world: items in a slate, steps of the longest session, whether a session may show an item
    twice, the most interactions that a state is made of, and int64 (A,) the items that its catalogue lacks, if any."""

    slate: int
    max_len: int
    repeats: bool
    history: int
    absent: Tensor | None = None


@dataclass(frozen=True)
class Moment:
    """What B users' slates are decided by.

    obs: what is seen; `session` of its last columns are the sessions' (−1 where there is none), its `step` means nothing. state
    (B,D). inputs (B,F): as `policy_inputs`. decided (B,F): the inputs when a policy that decides every c steps last decided.
    blocked bool (B,I): what may not be shown, or None. lam (B,): λ, NaN for the policy's own.
    """

    obs: Obs
    state: Tensor
    inputs: Tensor
    decided: Tensor
    blocked: Tensor | None
    lam: Tensor

    def open(self, scores: Tensor, order: Tensor | None = None) -> Tensor:
        """(B,I) scores with −∞ where an item may not be shown; columns are the items `order` (I,), by id if None."""
        if self.blocked is None:
            return scores
        return scores.masked_fill(self.blocked if order is None else self.blocked[:, order], -torch.inf)

    def best(self, scores: Tensor, count: int, order: Tensor | None = None) -> Tensor:
        """int64 (B,count): the items that scores (B,I) rank first, of those that may be shown."""
        place = self.open(scores, order).topk(count, dim=1).indices
        return place if order is None else order[place]


class Ranker(Protocol):
    """A policy whose greedy slates are a function of a `Moment`."""

    def rank(self, moment: Moment) -> Tensor:
        """int64 (B,K): what `act` answers without a generator."""


def observe(
    states: StateView,
    rules: Rules,
    history: Tensor,
    rewards: Tensor,
    shown: Tensor,
    clicks: Tensor,
    lam: Tensor | None = None,
    decides_every: int = 1,
) -> Moment:
    """The moment of B users.

    history int64 (B,H'), rewards (B,H'): what was known when the session began and how the user responded; shown int64 (B,S),
    clicks (B,S): what the session has shown since. Both oldest first; −1, anywhere, is nothing. The session's step is the
    number of items shown over the slate's size. lam (B,): λ for policies that are told one.
    """
    if not shown.shape[1]:
        shown, clicks = F.pad(shown, (0, 1), value=-1), F.pad(clicks, (0, 1))
    obs = _seen(history, rewards, shown, clicks, rules.history)
    state = states(obs)
    inputs = _inputs(states, rules, state, shown, clicks)
    decided = inputs
    if decides_every > 1:
        then = _cut(shown, rules.slate * decides_every)
        before = _seen(history, rewards, then, clicks * (then >= 0), rules.history)
        decided = _inputs(states, rules, states(before), then, before.rewards[:, history.shape[1] :])
    absent = None if rules.absent is None else rules.absent.expand(shown.shape[0], -1)
    closed = [part for part in (absent, None if rules.repeats else shown) if part is not None]
    blocked = _blocked(torch.cat(closed, 1), len(states.items)) if closed else None
    return Moment(obs, state, inputs, decided, blocked, torch.full_like(state[:, 0], torch.nan) if lam is None else lam)


def observed(states: StateView, rules: Rules, obs: Obs) -> Moment:
    """The moment of a world's observation: what its policies are told, to the bit."""
    state = states(obs)
    inputs = policy_inputs(states, state, obs, rules.slate, rules.max_len)
    closed = obs.closed(rules.repeats)
    if closed is None and not rules.repeats:
        closed = obs.shown
    blocked = None if closed is None else _blocked(closed, len(states.items))
    return Moment(obs, state, inputs, inputs, blocked, torch.full_like(state[:, 0], torch.nan))


def _blocked(shown: Tensor, items: int) -> Tensor:
    """bool (B,items): the items of shown (B,n), where −1 is none."""
    blocked = torch.zeros(shown.shape[0], items + 1, dtype=torch.bool, device=shown.device)
    return blocked.scatter(1, shown.masked_fill(shown < 0, items), True)[:, :items]


def _seen(history: Tensor, rewards: Tensor, shown: Tensor, clicks: Tensor, window: int) -> Obs:
    """What an observation of the last `window` interactions shows, the log's columns before the session's."""
    in_session = (shown >= 0).sum(1, keepdim=True)
    log = (history >= 0) & (_recency(history) <= window - in_session)
    session = (shown >= 0) & (_recency(shown) <= window)
    items = torch.cat([history.masked_fill(~log, -1), shown.masked_fill(~session, -1)], 1)
    answers = torch.cat([rewards * log, clicks * session], 1)
    return Obs(
        torch.arange(shown.shape[0], device=shown.device), 0, items, answers, shown.shape[1], shown,
        torch.zeros_like(in_session[:, 0], dtype=torch.bool),
    )  # fmt: skip


def _inputs(states: StateView, rules: Rules, state: Tensor, shown: Tensor, clicks: Tensor) -> Tensor:
    """(B,F) what `policy_inputs` is for sessions that walk together."""
    there = shown >= 0
    count = there.sum(1, keepdim=True).to(state)
    standard = (state - states.centre) / states.spread
    last = RECENT_SLATES * rules.slate
    weight = (there & (_recency(shown) <= last)).to(state)
    directions = F.normalize(states.items, dim=1)
    recent = F.embedding_bag(shown.clamp_min(0), directions, per_sample_weights=weight, mode="sum") / last
    kept = (there & (_recency(shown) <= rules.history)).to(state)
    rate = (clicks * kept).sum(1, keepdim=True) / kept.sum(1, keepdim=True).clamp_min(1)
    return torch.cat([standard, recent, count / rules.slate / rules.max_len, rate], 1)


def _recency(items: Tensor) -> Tensor:
    """int64 (B,n): 1 for the last item of each row, 2 for the one before; meaningless where there is none."""
    return (items >= 0).flip(1).cumsum(1).flip(1)


def _cut(shown: Tensor, every: int) -> Tensor:
    """Each row without what came after its last whole number of `every` items."""
    place = (shown >= 0).cumsum(1)
    whole = torch.div(place[:, -1:], every, rounding_mode="floor") * every
    return shown.masked_fill(place > whole, -1)
