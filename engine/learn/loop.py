"""What every training loop does around its own turn: go on from a checkpoint, measure, count, keep, stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.contracts import Budget, Obs, Policy, Recorder, Sessions, World
from engine.learn.curve import Curve
from engine.learn.rollout import draw_users, held_out_users, play
from engine.options import Diverged, Stopped

Count = dict[str, int]  # episodes, user_steps and updates so far
Turn = Callable[[Count, int], tuple[Sessions | None, dict[str, float]]]
Explore = Callable[[Obs], tuple[Tensor, Mapping[str, Tensor]]]


class Kept(Protocol):
    """A part of a checkpoint: a network, an optimiser, a replay."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


class Learns(Protocol):
    """What a `Training` is made of."""

    def training_state(self) -> dict[str, Any]:
        """All that a later attempt needs to go on: networks, targets, optimisers, counters."""

    def load_training_state(self, state: Mapping[str, Any]) -> None: ...


class Training:
    """A learner as a checkpoint keeps it; its own `state_dict` is the finished policy's."""

    def __init__(self, learner: Learns) -> None:
        self.state_dict, self.load_state_dict = learner.training_state, learner.load_training_state


def until_spent(
    name: str,
    policy: Policy,
    kept: Mapping[str, Kept],
    turn: Turn,
    world: World,
    budget: Budget,
    recorder: Recorder,
    generator: torch.Generator,
) -> None:
    """Take turns until the budget is spent, with a point of `policy`'s curve where one is due and a checkpoint after each.

    kept: what a checkpoint holds beside the generator, the counts and the curve's place. turn: (counts, episodes left) → the
    sessions it played, if any, and its losses and the like; it adds to the counts.

    Raises Stopped after keeping a checkpoint when the recorder asks to stop, and Diverged where a turn's values are not finite.
    """
    curve, count = Curve(world, recorder), {"episodes": 0, "user_steps": 0, "updates": 0}
    found = recorder.restore()
    if found is not None:
        for part, thing in kept.items():
            thing.load_state_dict(found[part])
        generator.set_state(found["generator"])
        count, curve.next = found["count"], found["next"]
    while (done := budget.done(count["episodes"], count["user_steps"])) < 1:
        curve.measure(count["episodes"], done, policy)
        recorder.progress("training", done, 1)
        sessions, values = turn(count, budget.left(count["episodes"]))
        if not all(math.isfinite(value) for value in values.values()):
            raise Diverged(f"{name}'s losses are not finite after {count['episodes']} episodes")
        curve.trained(count["episodes"], sessions, {**values, **count})
        state = {part: thing.state_dict() for part, thing in kept.items()}
        recorder.checkpoint({**state, "generator": generator.get_state(), "count": dict(count), "next": curve.next})
        if recorder.stop_requested():
            raise Stopped(f"stopped after {count['episodes']} episodes")
    curve.measure(count["episodes"], 1.0, policy)
    recorder.progress("training", 1, 1)


def exploration(
    world: World, explore: Explore, users: int, count: Count, left: int, generator: torch.Generator, within: World | None = None
) -> Sessions:
    """One batch of sessions of an exploring policy with at most `users` training users, added to the counts.

    within: the world that is played in, where that is not the one whose users are drawn.
    """
    who = draw_users(world, min(users, left), held_out_users(world), generator)
    luck = 1 + int(torch.randint(1 << 40, (1,), generator=generator))
    sessions = play(within or world, who, luck, explore)
    count["episodes"] += len(who)
    count["user_steps"] += sessions.user_steps
    return sessions
