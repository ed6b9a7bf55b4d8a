"""Sessions of many users at once: played in a world by any way of acting, recorded in dense tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from engine.contracts import Obs, Sessions, World

Act = Callable[[Obs], tuple[Tensor, Mapping[str, Tensor]]]  # obs → slates (B,K) and notes (B,…)
DROP_AT = 0.8  # users who left are forgotten when fewer than this share is still there


def play(world: World, users: Tensor, luck: int, act: Act) -> Sessions:
    """One session for each of `users` (B,), to the first exit."""
    obs = world.reset(users, luck)
    count, device = len(users), obs.users.device
    shape = (world.max_len, count)
    alive = torch.zeros(shape, dtype=torch.bool, device=device)
    slates = torch.full((*shape, world.slate), -1, dtype=torch.int64, device=device)
    clicks = torch.zeros(*shape, world.slate, device=device)
    rewards, temper = torch.zeros(shape, device=device), torch.zeros(shape, device=device)
    penalised = torch.zeros(shape, dtype=torch.bool, device=device)
    notes: dict[str, Tensor] = {}
    rows, length = torch.arange(count, device=device), 0
    for step in range(world.max_len):
        there = ~obs.done
        share = there.float().mean().item()
        if share == 0:
            break
        if share < DROP_AT:
            rows, obs = rows[there], world.keep(there)
            there = ~obs.done
        slate, noted = act(obs)
        outcome = world.step(slate)
        everybody = share == 1 and len(rows) == count
        at: slice | Tensor = slice(None) if everybody else rows[there]
        there = slice(None) if everybody else there  # type: ignore[assignment]
        alive[step, at] = True
        slates[step, at] = slate[there]
        clicks[step, at] = outcome.clicks[there]
        rewards[step, at] = outcome.reward[there]
        temper[step, at] = outcome.temper[there]
        penalised[step, at] = outcome.penalised[there]
        for name, value in noted.items():
            if name not in notes:
                notes[name] = torch.zeros(*shape, *value.shape[1:], dtype=value.dtype, device=device)
            notes[name][step, at] = value[there]
        obs, length = outcome.obs, step + 1
    cut = slice(0, length)
    return Sessions(
        users.to(device), alive[cut], slates[cut], clicks[cut], rewards[cut], temper[cut], penalised[cut],
        {name: value[cut] for name, value in notes.items()},
    )  # fmt: skip


def shown_before(sessions: Sessions, step: Tensor, row: Tensor, position: Tensor) -> Tensor:
    """bool (n,I): what user `row` (n,) had been shown in this session before `step` (n,), item i in column position[i]."""
    length, _, slate = sessions.slates.shape
    items = len(position)
    columns = torch.cat([position, position.new_full((1,), items)])  # −1, no item, goes to a column that is cut off
    shown = columns[sessions.slates[:, row]].transpose(0, 1).reshape(len(row), length * slate)
    later = torch.arange(length * slate, device=shown.device) >= (step * slate).unsqueeze(1)
    blocked = torch.zeros(len(row), items + 1, dtype=torch.bool, device=shown.device)
    return blocked.scatter_(1, shown.masked_fill(later, items), True)[:, :items]


def draw_users(world: World, count: int, held_out: int, generator: torch.Generator) -> Tensor:
    """(B,) distinct users to train on: all but the last `held_out`, at most `count`."""
    pool = max(1, world.users - held_out)
    return torch.randperm(pool, generator=generator)[: min(count, pool)]


def held_out_users(world: World) -> int:
    """How many users of the train world learning curves are measured on, and training leaves out: at most 128 or a tenth."""
    return min(128, world.users // 10)
