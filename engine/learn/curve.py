"""Learning curves: how a policy fares, greedily, with training users that training leaves out."""

from __future__ import annotations

import torch

from engine.contracts import Policy, Recorder, Sessions, World
from engine.learn.rollout import held_out_users, play
from engine.metrics import summary

POINTS = 40  # points on a curve over the whole budget


class Curve:
    """Writes `len`, `r_each`, `r_cum`, `ad` (held-out training users, greedy) and the same with `train_` in front (the
    exploring policy's own sessions). The test world is never asked."""

    def __init__(self, world: World, recorder: Recorder) -> None:
        self.world, self.recorder = world, recorder
        count = held_out_users(world)
        self.users = torch.arange(world.users - count, world.users) if count else torch.arange(min(world.users, 128))
        self.next = 0.0

    def trained(self, step: int, sessions: Sessions | None, values: dict[str, float]) -> None:
        """Note one batch of training sessions, if there were any, and the losses that came of it."""
        measured = {} if sessions is None else summary(sessions, self.world.items)
        own = {f"train_{name}": measured[name] for name in ("len", "r_each", "r_cum", "ad") if name in measured}
        self.recorder.scalars(step, {**own, **values})

    def measure(self, step: int, done: float, policy: Policy) -> None:
        """A point of the curve, if one is due at share `done` of the budget."""
        if done < self.next:
            return
        self.next = (int(done * POINTS) + 1) / POINTS
        sessions = play(self.world, self.users, 0, lambda obs: (policy.act(obs), {}))
        measured = summary(sessions, self.world.items)
        self.recorder.scalars(step, {name: measured[name] for name in ("len", "r_each", "r_cum", "ad")})
