"""Stage I (paper §4.4): from the training log to what purifiers are fitted on. Nothing here sees the truth or the test log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from engine import cache
from engine.contracts import Data, Dataset, Items, Obs
from engine.factors import Factors, Reweigh, factorise
from engine.rows import last_rows
from engine.spec import StateConfig
from engine.state.encoder import Evidence, evidence_parts

Watch = Callable[[str, float], None]  # told (what is being done, share done); may raise Stopped
OBSERVED, DISENTANGLED = 1, 2  # purposes of generators


class Stage:
    """Item vectors of a training log, each made when first asked for, and cached by the content of log, options and seed."""

    def __init__(self, data: Data, config: StateConfig, seed: int, watch: Watch = lambda *_: None) -> None:
        self.log: Dataset = data.train
        self.start: Dataset = data.train_start
        self.items: Items = data.train.items
        self.config, self.seed, self.watch = config, seed, watch
        self.key = {"data": data.fingerprint, "state": asdict(config), "seed": seed}

    def generator(self, purpose: int) -> torch.Generator:
        """A generator of its own for each purpose, so that fitting one part never moves another."""
        return torch.Generator().manual_seed(self.seed * 1000 + purpose)

    @cached_property
    def observed(self) -> Factors:
        """Plain vectors learnt from the observed clicks: the space of the paper's s_t, popularity and all."""
        return self._factors("observed", OBSERVED, disentangle=False)

    @cached_property
    def disentangled(self) -> Factors:
        """Vectors beside which conformity, popularity, activity and appeal have factors of their own."""
        return self._factors("disentangled", DISENTANGLED, disentangle=True)

    @cached_property
    def evidence(self) -> Evidence:
        """The encoder of what a history says of the long-run interest."""
        return Evidence(evidence_parts(self.disentangled, self.items.log_popularity()))

    def reweighed(self, name: str, reweigh: Reweigh) -> Factors:
        """Plain vectors as `observed`, from the same start and in the same batches, whose rows `reweigh` weighs. Not cached."""
        return self._learn(name, OBSERVED, disentangle=False, reweigh=reweigh)

    def _learn(self, name: str, purpose: int, *, disentangle: bool, reweigh: Reweigh | None = None) -> Factors:
        return factorise(
            self.log,
            width=self.config.width,
            epochs=self.config.epochs,
            learning_rate=self.config.learning_rate,
            decay=self.config.decay,
            generator=self.generator(purpose),
            disentangle=disentangle,
            reweigh=reweigh,
            watch=lambda done: self.watch(f"item vectors, {name}", done),
        )

    def _factors(self, name: str, purpose: int, *, disentangle: bool) -> Factors:
        def make() -> dict[str, Any]:
            factors = self._learn(name, purpose, disentangle=disentangle)
            return {field.name: getattr(factors, field.name) for field in fields(factors)}

        kept = cache.fetch(f"vectors-{name}", self.key, make, lambda: self.watch(f"waiting for item vectors, {name}", 0.0))
        return Factors(**kept)

    def starts(self) -> tuple[Obs, Tensor]:
        """What is known of every training user when a session starts, and bool (users,): who has any history."""
        items, rewards = last_rows(self.start, self.config.history)
        users = torch.arange(self.log.users)
        nothing = torch.zeros(0, dtype=torch.bool)
        obs = Obs(users, 0, items, rewards, 0, nothing, nothing)
        return obs, (items >= 0).any(1)
