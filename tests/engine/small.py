"""Small worlds that engine tests share: a synthetic platform, and users who answer as they are told to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine import catalog, spec
from engine.spec import RunSpec

SMALL = {
    "dataset": {"users": 60, "train_users": 300, "items": 360, "log_length": 40, "start": 12, "categories": 8},
    "world": {"slate": 6, "max_len": 8},
    "state": {"width": 8, "history": 60, "epochs": 6},
}
QUICK = {
    "regression": {"training_steps": 150, "parts": 4000, "hidden": 32},
    "diffusion": {"training_steps": 150, "parts": 4000, "hidden": 32, "steps": 4},
}


def small_spec(**changes: Any) -> RunSpec:
    """A spec on a small synthetic world; `settings` are merged over SMALL."""
    settings = {section: dict(values) for section, values in SMALL.items()}
    purifier = changes.get("purifier") or catalog.default_purifier(str(changes.get("method", "dsrm_hrl")))
    settings["purifier"] = dict(QUICK.get(str(purifier), {}))
    for section, values in dict(changes.pop("settings", {})).items():
        settings.setdefault(section, {}).update(values)
    defaults = {"episodes": 120, "evaluation_episodes": 60, "seed": 11, "device": "cpu"}
    return spec.make(**{**defaults, **changes, "settings": settings})


class Answers:
    """A response model in which everyone answers item i with probability p_i, whatever was shown before."""

    def __init__(self, probability: Tensor, users: int = 4) -> None:
        self.by_item, self.users = probability, users

    def to(self, device: torch.device) -> Answers:
        return self

    def session(self, users: Tensor) -> Answers:
        return self

    def probability(self, slate: Tensor) -> Tensor:
        return self.by_item[slate]

    def observe(self, slate: Tensor, clicks: Tensor) -> None:
        pass

    def keep(self, rows: Tensor) -> None:
        pass
