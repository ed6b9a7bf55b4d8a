"""Replay: what goes in comes out, in the right order of time, and the oldest makes room."""

from __future__ import annotations

import torch

from engine.contracts import Sessions
from engine.learn.replay import Replay
from engine.learn.rollout import shown_before


def sessions(first: int, lengths: list[int], slate: int = 2) -> Sessions:
    """Sessions whose slate at step t of user u is [10u + 2t, 10u + 2t + 1] and whose note is u + t/10."""
    users, longest = torch.arange(first, first + len(lengths)), max(lengths)
    step = torch.arange(longest)[:, None]
    alive = step < torch.tensor(lengths)
    slates = torch.where(alive[..., None], 10 * users[None, :, None] + 2 * step[..., None] + torch.arange(slate), -1)
    zeros = torch.zeros(alive.shape)
    note = (users + step / 10) * alive
    return Sessions(users, alive, slates, torch.zeros(slates.shape), note, zeros, alive & False, {"mark": note})


def test_user_steps_come_out_with_what_followed_them() -> None:
    replay = Replay(capacity=3, max_len=4)
    replay.add(sessions(0, [2, 4, 1]))
    assert len(replay) == 7
    step, row = replay.draw(500, torch.Generator().manual_seed(0))
    kept = replay.sessions
    assert {(int(kept.users[r]), int(t)) for t, r in zip(step, row, strict=True)} == {
        (0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (1, 3), (2, 0)
    }  # fmt: skip
    after, stays = replay.following(step, row)
    lengths = torch.tensor([2, 4, 1])[row]
    assert torch.equal(stays, step + 1 < lengths)
    assert torch.equal(after, torch.where(stays, step + 1, step))
    assert torch.allclose(kept.notes["mark"][step, row], row + step / 10)


def test_the_oldest_sessions_make_room() -> None:
    replay = Replay(capacity=3, max_len=4)
    replay.add(sessions(0, [2, 2]))
    replay.add(sessions(2, [3, 1]))
    assert sorted(replay.sessions.users.tolist()) == [1, 2, 3]
    assert len(replay) == 6
    replay.add(sessions(4, [1]))
    assert sorted(replay.sessions.users.tolist()) == [2, 3, 4]
    replay.add(sessions(5, [1, 2, 3, 4]))  # more than fit
    kept = replay.sessions
    assert sorted(kept.users.tolist()) == [6, 7, 8]
    assert torch.equal(kept.slates[0, :, 0], 10 * kept.users)
    other = Replay(capacity=3, max_len=4)
    other.load_state_dict(replay.state_dict())
    a, b = (each.draw(50, torch.Generator().manual_seed(1)) for each in (replay, other))
    assert torch.equal(torch.stack(a), torch.stack(b))


def test_what_was_shown_before_is_told_from_what_was_not() -> None:
    replay = Replay(capacity=2, max_len=4)
    replay.add(sessions(0, [2, 4]))
    blocked = shown_before(replay.sessions, torch.tensor([0, 1, 3]), torch.tensor([0, 0, 1]), torch.arange(20))
    assert [row.nonzero()[:, 0].tolist() for row in blocked] == [[], [0, 1], [10, 11, 12, 13, 14, 15]]
