"""The loop that off-policy methods share: play, remember, take gradient steps from what is remembered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.contracts import Budget, Obs, Policy, Recorder, World
from engine.learn.curve import Curve
from engine.learn.replay import Replay
from engine.learn.rollout import draw_users, held_out_users, play
from engine.options import Config, Diverged, Stopped, option


@dataclass(frozen=True)
class ReplayConfig(Config):
    """What every method that learns from replay can set; methods add their own fields."""

    users: int = option(128, "users in parallel", low=1, high=65_536)
    batch: int = option(256, "user-steps in one gradient step", low=1, high=1_000_000, source="authors' codes: 64 to 256")
    updates: int = option(16, "gradient steps after each batch of sessions", low=1, high=100_000)
    replay: int = option(2048, "sessions that replay keeps", low=1, high=10_000_000)
    warm_up: int = option(128, "sessions played before the first gradient step", low=0, high=10_000_000)


class Learner(Protocol):
    """What a method brings. `act` must choose as the method is evaluated; `explore` as it learns."""

    def act(self, obs: Obs, *, generator: torch.Generator | None = None) -> Tensor: ...

    def state_dict(self) -> dict[str, Any]: ...

    def explore(self, obs: Obs, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Slates (B,K) and what replay must remember of the moment (B,…)."""

    def update(self, replay: Replay, generator: torch.Generator) -> Mapping[str, Tensor]:
        """One gradient step; losses and the like as scalars. Must not leave the device for them."""

    def training_state(self) -> dict[str, Any]:
        """All that a later attempt needs to go on: networks, targets, optimisers, counters."""

    def load_training_state(self, state: Mapping[str, Any]) -> None: ...


def learn(
    name: str,
    learner: Learner,
    world: World,
    config: ReplayConfig,
    budget: Budget,
    recorder: Recorder,
    generator: torch.Generator,
) -> Policy:
    """Until the budget is spent: `config.users` sessions, then `config.updates` gradient steps. Returns the learner.

    Raises Stopped after keeping a checkpoint when the recorder asks to stop, and Diverged where losses are not finite.
    """
    replay = Replay(config.replay, world.max_len)
    curve, held_out = Curve(world, recorder), held_out_users(world)
    count = {"episodes": 0, "user_steps": 0, "updates": 0}

    kept = recorder.restore()
    if kept is not None:
        learner.load_training_state(kept["learner"])
        replay.load_state_dict(kept["replay"])
        generator.set_state(kept["generator"])
        count, curve.next = kept["count"], kept["next"]

    while (done := budget.done(count["episodes"], count["user_steps"])) < 1:
        curve.measure(count["episodes"], done, learner)
        recorder.progress("training", done, 1)
        users = draw_users(world, min(config.users, budget.left(count["episodes"])), held_out, generator)
        luck = 1 + int(torch.randint(1 << 40, (1,), generator=generator))
        sessions = play(world, users, luck, lambda obs: learner.explore(obs, generator))
        replay.add(sessions)
        count["episodes"] += len(users)
        count["user_steps"] += sessions.user_steps
        losses: dict[str, float] = {}
        if count["episodes"] >= config.warm_up:
            found = [learner.update(replay, generator) for _ in range(config.updates)]
            count["updates"] += len(found)
            losses = {key: float(torch.stack([each[key] for each in found]).mean()) for key in found[0]}
        if any(not abs(value) < float("inf") for value in losses.values()):
            raise Diverged(f"{name}'s losses are not finite after {count['episodes']} episodes")
        curve.trained(count["episodes"], sessions, {**losses, **count})
        recorder.checkpoint(
            {
                "learner": learner.training_state(),
                "replay": replay.state_dict(),
                "generator": generator.get_state(),
                "count": dict(count),
                "next": curve.next,
            }
        )
        if recorder.stop_requested():
            raise Stopped(f"stopped after {count['episodes']} episodes")
    curve.measure(count["episodes"], 1.0, learner)
    recorder.progress("training", 1, 1)
    return learner
