"""Serve slates from an exported policy. Needs PyTorch, this file and the policy's; nothing else of Fairstate.

    python -m engine export --run runs/cli/… --out policy.pt2
    echo '[{"history": [[12, 1], [7, 0]], "shown": []}]' | python serve.py policy.pt2

Each line of stdin is a JSON list of users, each line of stdout the list of their slates. `history`: [item, response] pairs
known before the session, oldest first; `shown`: the same for what the session has shown since; `lam`, where it is told one.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from torch import Tensor


class Server:
    """An exported policy. `about` is what the file says of itself: inputs, catalogue, λ, the spec it was trained with."""

    def __init__(self, path: str) -> None:
        files = {"fairstate.json": ""}
        self.program = torch.export.load(path, extra_files=files).module()
        self.about: dict[str, Any] = json.loads(files["fairstate.json"])

    def slates(self, users: list[dict[str, Any]]) -> list[list[int]]:
        """A slate of item ids for each user. Raises ValueError where a user's interactions cannot be used."""
        history, rewards = self._table("history", [user.get("history", []) for user in users], self.about["history"])
        width = self.about["slate"] * self.about["max_len"]
        shown, responses = self._table("shown", [user.get("shown", []) for user in users], width)
        inputs = [history, rewards, shown, responses]
        if self.about["lam"] is not None:
            inputs.append(torch.tensor([self._lam(user.get("lam")) for user in users]))
        elif any("lam" in user for user in users):
            raise ValueError("lam is not legal: this policy is not conditioned on λ")
        return self.program(*inputs).tolist()

    def _table(self, name: str, rows: list[list[list[float]]], width: int) -> tuple[Tensor, Tensor]:
        """Items (B,width), right-aligned and −1 where there is none, and responses (B,width). A long history keeps its end."""
        items, responses = torch.full((len(rows), width), -1), torch.zeros(len(rows), width)
        known = self.about["candidates" if name == "shown" else "items"]
        for row, pairs in enumerate(rows):
            if name == "shown" and len(pairs) > width:
                raise ValueError(f"shown has {len(pairs)} items: a session of this policy has at most {width}")
            for place, (item, response) in enumerate(pairs[-width:], start=width - min(width, len(pairs))):
                if not (isinstance(item, int) and 0 <= item < known and 0 <= response <= 1):
                    raise ValueError(f"{name} holds [{item}, {response}]: items are 0 to {known - 1}, responses 0 to 1")
                items[row, place], responses[row, place] = item, response
        return items, responses

    def _lam(self, lam: float | None) -> float:
        low, high = self.about["lam"]["low"], self.about["lam"]["high"]
        if lam is not None and not (low <= lam < float("inf") and (high is None or lam <= high)):
            raise ValueError(f"lam = {lam} is not legal: it must be {low} {'or more' if high is None else f'to {high}'}")
        return float("nan") if lam is None else lam


if __name__ == "__main__":
    server = Server(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(server.slates(json.loads(line))), flush=True)
