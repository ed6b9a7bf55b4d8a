"""Sessions that begin one by one: every row of a batch is at a step of its own, and starts again when its user has left.

The rules, the responses and the luck are the simulator's: a session here is, click by click, the session that
`Simulator.reset(users, luck)` would start with the same user and luck.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine import luck as counted
from engine.world.simulator import Simulator


@dataclass(frozen=True)
class Shown:
    """What one step did: clicks (B,K), their mean reward (B,), left bool (B,): the user has left now, penalised bool (B,): the
    slate broke the bound on exposure."""

    clicks: Tensor
    reward: Tensor
    left: Tensor
    penalised: Tensor


class Stream:
    """B rows of sessions in a world; `begin` starts some of them, `step` shows a slate in each."""

    def __init__(self, world: Simulator, users: Tensor, luck: Tensor) -> None:
        self.world = world
        rows, width = len(users), (world.max_len + 1) * world.slate
        self.users, self.key = users.clone(), counted.key(luck, users)
        self.steps = torch.zeros(rows, dtype=torch.int64)
        self._history, self._rewards = world.starts(users)
        self._shown, self._answers = torch.full((rows, width), -1), torch.zeros(rows, width)
        self._patience = torch.full((rows,), float(world.max_len))
        self._session = world.responses.session(users)

    def begin(self, rows: Tensor, users: Tensor, luck: Tensor) -> None:
        """Start a session with users (n,) under luck int64 (n,) in the n rows where bool rows (B,) is True."""
        self.users[rows], self.key[rows] = users, counted.key(luck, users)
        self._history[rows], self._rewards[rows] = self.world.starts(users)
        self.steps[rows], self._shown[rows], self._answers[rows] = 0, -1, 0.0
        self._patience[rows] = float(self.world.max_len)
        self._session.renew(rows, users)

    def step(self, slate: Tensor) -> Shown:
        """Show slates int64 (B,K), legal ones as in `Simulator.step`. Rows whose user has left mean nothing until `begin`."""
        world = self.world
        clicks = self._session.probability(slate)
        if world.sampled:
            clicks = (counted.uniform(self.key, self.steps, slate) < clicks).float()
        reward = clicks.mean(1)
        self._session.observe(slate, clicks)
        penalised, change = world.judge(slate, reward)
        self._patience = self._patience + change
        at = self.steps.clamp_max(world.max_len).unsqueeze(1) * world.slate + torch.arange(world.slate)
        self._shown.scatter_(1, at, slate)
        self._answers.scatter_(1, at, clicks)
        self.steps = self.steps + 1
        return Shown(clicks, reward, (self._patience < 1) | (self.steps >= world.max_len), penalised)

    def tables(self, rows: Tensor | slice = slice(None)) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """History, rewards, shown, responses of all or some rows: what `engine.learn.moment.observe` takes."""
        width = max(1, min(int(self.steps[rows].max()), self.world.max_len)) * self.world.slate
        return self._history[rows], self._rewards[rows], self._shown[rows, :width], self._answers[rows, :width]
