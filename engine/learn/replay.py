"""Replay: the last sessions that were played, from which off-policy methods draw user-steps to learn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.contracts import Sessions


class Replay:
    """Keeps the last `capacity` sessions of at most `max_len` steps, whole, as one `Sessions` in a ring.

    Whole sessions cost no more than user-steps would, and what had been shown before a step need not be stored again:
    `rollout.shown_before(replay.sessions, step, row, position)` tells it.
    """

    def __init__(self, capacity: int, max_len: int) -> None:
        self.capacity, self.max_len = capacity, max_len
        self._kept: dict[str, Tensor] = {}  # users (C,), all else (T,C,…)
        self._next = 0
        self._where = torch.zeros(0, 2, dtype=torch.int64)

    def add(self, sessions: Sessions) -> None:
        """Keep sessions (T,B,…), the oldest making room. Of more than `capacity`, the last."""
        new = {f.name: getattr(sessions, f.name) for f in fields(Sessions) if f.name != "notes"}
        new |= {f"notes.{name}": value for name, value in sessions.notes.items()}
        count, excess = min(len(sessions.users), self.capacity), max(0, len(sessions.users) - self.capacity)
        device = sessions.users.device
        places = (self._next + torch.arange(count, device=device)) % self.capacity
        for name, value in new.items():
            if name not in self._kept:
                shape = (self.capacity,) if name == "users" else (self.max_len, self.capacity, *value.shape[2:])
                self._kept[name] = torch.zeros(shape, dtype=value.dtype, device=device)
            if name == "users":
                self._kept[name][places] = value[excess:]
            else:
                missing = self.max_len - len(value)
                grown = F.pad(value, (0, 0) * (value.dim() - 1) + (0, missing), value=-1 if name == "slates" else 0)
                self._kept[name][:, places] = grown[:, excess:]
        self._next = (self._next + count) % self.capacity
        self._where = self._kept["alive"].nonzero()

    def __len__(self) -> int:
        """User-steps that can be drawn."""
        return len(self._where)

    @property
    def sessions(self) -> Sessions:
        """All that is kept, in no particular order of sessions."""
        own = {name: value for name, value in self._kept.items() if not name.startswith("notes.")}
        notes = {name.removeprefix("notes."): value for name, value in self._kept.items() if name.startswith("notes.")}
        return Sessions(**own, notes=notes)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Steps and rows (count,) of user-steps, each equally likely, with replacement."""
        drawn = torch.randint(len(self._where), (count,), generator=generator).to(self._where.device)
        step, row = self._where[drawn].unbind(1)
        return step, row

    def following(self, step: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        """The step after each user-step (n,), and whether the user was still there (bool): where not, the session ended
        for good and nothing may be bootstrapped. The step given for those is the same one, so that it can be looked up."""
        after = (step + 1).clamp_max(self.max_len - 1)
        stays = (step + 1 < self.max_len) & self._kept["alive"][after, row]
        return torch.where(stays, after, step), stays

    def state_dict(self) -> dict[str, object]:
        """All that `load_state_dict` needs."""
        return {"kept": dict(self._kept), "next": self._next}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Take over what another replay of the same size kept."""
        self._kept = dict(state["kept"])  # type: ignore[call-overload]
        self._next = int(state["next"])  # type: ignore[call-overload]
        if self._kept:
            self._where = self._kept["alive"].nonzero()
