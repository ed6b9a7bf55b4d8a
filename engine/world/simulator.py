"""A batched simulator of user sessions: slates in, clicks and patience out (KuaiSim's temper rule with a bound on exposure).

patience₀ = T0 = max_len
each step: patience += clip(r̄ − 2, −2, 0), r̄ the mean response to the slate; patience −= 1 where the slate's own
AD = |2·heads − K| / K reaches ad_bound. The user leaves when patience < 1.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from engine import luck as counted
from engine.contracts import Dataset, Items, Obs, Outcome
from engine.options import BadInput
from engine.rows import last_rows
from engine.spec import WorldConfig
from engine.world.responses import ResponseModel, ResponseSession


def least_uneven(ad_bound: float, slate: int) -> int:
    """The smallest |2·heads − K| of a slate of K items whose AD, |2·heads − K| / K, reaches ad_bound.

    Bounds with the same answer are the same rule: in a slate of ten AD moves in steps of 0.2, so 0.3 and 0.4 are. Heads are
    counted as whole numbers, for in float32 mirrored slates differ at the bound.
    """
    reached = math.ceil(ad_bound * slate - 1e-9)
    return reached + (reached - slate) % 2


class Simulator:
    """Sessions of B users who start together. All state is in tensors (B, …); nothing loops over users or items.

    `reset` starts sessions, `step` shows slates, `keep` goes on with some of the users. A user who left stays done, with
    reward 0. `luck` names the random numbers: equal luck, user, step and item give an equal draw under any policy.
    """

    def __init__(
        self, items: Items, responses: ResponseModel, start: Dataset, config: WorldConfig, history: int, device: str = "cpu"
    ) -> None:
        in_play = int(items.in_play().sum())
        if config.slate > in_play:
            raise BadInput(f"world.slate = {config.slate} is not legal: the catalogue has {in_play} items")
        if not config.repeats and config.slate * config.max_len > in_play:
            raise BadInput(
                f"world.slate × world.max_len = {config.slate * config.max_len} is not legal: without repeats a session needs "
                f"that many items and the catalogue has {in_play}"
            )
        self.device = torch.device(device)
        self.items = items.to(self.device)
        self.responses = responses.to(self.device)
        self.users, self.slate, self.max_len, self.repeats = start.users, config.slate, config.max_len, config.repeats
        self.history = history
        self.sampled = config.responses == "sampled"
        self.uneven = least_uneven(config.ad_bound, config.slate)
        self._start_items, self._start_rewards = (part.to(self.device) for part in last_rows(start, history))
        self._head = self.items.head.to(torch.uint8)
        self._gone = None if self.items.absent is None else ~self.items.in_play()

    def reset(self, users: Tensor, luck: int) -> Obs:
        """Start a session for each of users (B,)."""
        users = users.to(self.device)
        if not len(users) or int(users.min()) < 0 or int(users.max()) >= self.users:
            raise BadInput(
                f"users = {users.tolist()[:5]}… is not legal: they must be one or more ids from 0 to {self.users - 1}"
            )
        items, rewards = self.starts(users)
        count, known = items.shape
        width = self.history + self.max_len * self.slate
        self._shown = torch.full((count, width), -1, dtype=torch.int64, device=self.device)
        self._answers = torch.zeros(count, width, device=self.device)
        self._shown[:, self.history - known : self.history] = items
        self._answers[:, self.history - known : self.history] = rewards
        self._users, self._key, self._step = users, counted.key(luck, users), 0
        self._session: ResponseSession = self.responses.session(users)
        self._temper = torch.full((count,), float(self.max_len), device=self.device)
        self._done = torch.zeros(count, dtype=torch.bool, device=self.device)
        return self._observe()

    def step(self, slate: Tensor) -> Outcome:
        """Show slates int64 (B,K): distinct items in play (unless repeats are on, also distinct from all shown before)."""
        if slate.shape != (len(self._users), self.slate):
            raise BadInput(f"slate has shape {tuple(slate.shape)}: it must be ({len(self._users)}, {self.slate})")
        if self._step >= self.max_len:
            raise BadInput(f"the session is over: no user stays longer than world.max_len = {self.max_len} steps")
        if self._gone is not None and bool(self._gone[slate].any()):
            raise BadInput("slate holds an item that this world's catalogue lacks: obs.absent names those")
        probability = self._session.probability(slate)
        clicks = probability
        if self.sampled:
            clicks = (counted.uniform(self._key, self._step, slate) < probability).float()
        clicks = clicks * (~self._done).unsqueeze(1)
        reward = clicks.mean(1)
        self._session.observe(slate, clicks)
        penalised, change = self.judge(slate, reward)
        self._temper = torch.where(self._done, self._temper, self._temper + change)
        penalised &= ~self._done
        at = self.history + self._step * self.slate
        self._shown[:, at : at + self.slate] = slate
        self._answers[:, at : at + self.slate] = clicks
        self._step += 1
        self._done = self._done | (self._temper < 1)
        if self._step == self.max_len:
            self._done = torch.ones_like(self._done)
        return Outcome(self._observe(), clicks, reward, self._done, self._temper, penalised)

    def judge(self, slate: Tensor, reward: Tensor) -> tuple[Tensor, Tensor]:
        """bool (B,): slates (B,K) that break the bound on exposure; (B,): how patience changes, with mean responses (B,)."""
        heads = self._head[slate].sum(1, dtype=torch.int64)
        penalised = (2 * heads - self.slate).abs() >= self.uneven
        return penalised, (reward - 2).clamp(-2, 0) - penalised.float()

    def starts(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """What is known of users (B,) when a session begins: items (B,h), −1 where there is none, and responses (B,h)."""
        return self._start_items[users], self._start_rewards[users]

    def keep(self, rows: Tensor) -> Obs:
        """Go on with the users where bool rows (B,) is True, and forget the others."""
        self._session.keep(rows)
        for name in ("_shown", "_answers", "_users", "_key", "_temper", "_done"):
            setattr(self, name, getattr(self, name)[rows])
        return self._observe()

    def imagined(self, responses: ResponseModel) -> Simulator:
        """A world of the same rules, users and starts in which `responses` answers. Sessions of the two run apart."""
        other = copy.copy(self)
        other.responses = responses.to(self.device)
        return other

    def click_probabilities(self) -> Tensor:
        """(B,I) what each user of the running session would answer to each item now. For evaluation's oracle only: a test
        proves that no training asks."""
        return self._session.everything(len(self.items))

    def _observe(self) -> Obs:
        at = self._step * self.slate
        width = max(1, min(self.history, self._start_items.shape[1] + at))  # more would be empty for everybody
        window = slice(at + self.history - width, at + self.history)
        return Obs(
            self._users,
            self._step,
            self._shown[:, window],
            self._answers[:, window],
            min(at, self.history),
            self._shown[:, self.history : self.history + at],
            self._done,
            self.items.absent,
        )
