"""Sessions of a trained policy with distinct users, to first exit, under fixed luck: where every table's numbers are from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields

import torch
from torch import Tensor

from engine.contracts import Obs, Policy, Sessions
from engine.learn.rollout import play
from engine.world.simulator import Simulator

BLOCK = 1024  # users at once


def sessions_of(
    world: Simulator,
    policy: Policy,
    users: Tensor,
    *,
    luck: int = 0,
    watch: Callable[[float], None] = lambda _: None,
    note: Callable[[Obs], Mapping[str, Tensor]] = lambda _: {},
) -> Sessions:
    """One session of `policy` with each of `users`, in blocks.

    A policy that has `reveal` (the oracle alone) is handed the world's click probabilities here and nowhere else. What a
    policy leaves in `noted` ({name: (B,…)}, the manager's choices) is recorded as the sessions' notes, with what
    `note` makes of each observation.
    """
    reveal = getattr(policy, "reveal", None)
    if reveal is not None:
        reveal(world.click_probabilities)

    def act(obs: Obs) -> tuple[Tensor, dict[str, Tensor]]:
        slate = policy.act(obs)
        return slate, {**getattr(policy, "noted", {}), **note(obs)}

    parts = []
    for done, block in enumerate(users.split(BLOCK)):
        watch(done * BLOCK / len(users))
        parts.append(play(world, block, luck, act))
    watch(1.0)
    return parts[0] if len(parts) == 1 else _joined(parts)


def evaluation_users(world: Simulator, episodes: int, luck: int) -> Tensor:
    """(n,) distinct users, drawn by `luck`: `episodes` of them, or all where there are fewer."""
    order = torch.randperm(world.users, generator=torch.Generator().manual_seed(luck))
    return order[:episodes].sort().values


def _joined(parts: list[Sessions]) -> Sessions:
    length = max(len(part.alive) for part in parts)

    def join(values: list[Tensor], empty: int = 0) -> Tensor:
        padded = []
        for value in values:
            missing = torch.full((length - len(value), *value.shape[1:]), empty, dtype=value.dtype, device=value.device)
            padded.append(torch.cat([value, missing]))
        return torch.cat(padded, 1)

    names = [field.name for field in fields(Sessions) if field.name not in ("users", "notes")]
    return Sessions(
        users=torch.cat([part.users for part in parts]),
        notes={name: join([part.notes[name] for part in parts]) for name in parts[0].notes},
        **{name: join([getattr(part, name) for part in parts], -1 if name == "slates" else 0) for name in names},
    )
