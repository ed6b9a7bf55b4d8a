"""A world of three items where fairness costs exactly so much: slates of two, heads that please, a tail item that pleases less.

Two heads earn 1 at Fair 0, a head and the tail item earn (1 + p) / 2 at Fair 1, where everybody answers the tail item with
probability p. So balance is worth its price where λ > (1 − p) / 2, and not below.
"""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

from engine.contracts import Budget, Dataset, Items, Obs
from engine.methods import dsrm_hrl
from engine.methods.dsrm_hrl import DsrmHrlPolicy
from engine.recorder import MemoryRecorder
from engine.spec import WorldConfig
from engine.world.simulator import Simulator

USERS = 64


class Pleased:
    """Everyone answers item i with probability p_i."""

    def __init__(self, probability: Tensor) -> None:
        self.by_item, self.users = probability, USERS

    def to(self, device: torch.device) -> Pleased:
        return self

    def session(self, users: Tensor) -> Pleased:
        return self

    def probability(self, slate: Tensor) -> Tensor:
        return self.by_item[slate]

    def observe(self, slate: Tensor, clicks: Tensor) -> None:
        pass

    def keep(self, rows: Tensor) -> None:
        pass


class Blind:
    """A view to which all users and all items are alike."""

    items, bias, curve = torch.eye(3), torch.zeros(3), torch.zeros(3)
    centre, spread = torch.zeros(3), torch.ones(3)

    def __call__(self, obs: Obs, **_: object) -> Tensor:
        return torch.ones(len(obs), 3)

    def predict(self, state: Tensor) -> Tensor:
        return torch.zeros(len(state), 3)


@functools.cache
def learnt(tail: float, **options: object) -> tuple[Simulator, DsrmHrlPolicy]:
    """The world, and what was learnt in 200 rounds of one-step sessions."""
    torch.set_num_threads(1)
    items = Items(
        torch.tensor([9, 8, 1]), torch.tensor([True, True, False]), torch.zeros(3, 1).bool(), torch.zeros(3).long(), ("x",), ()
    )
    nothing = torch.zeros(0, dtype=torch.int64)
    start = Dataset(nothing, nothing, torch.zeros(0), nothing, None, USERS, items)
    rules = WorldConfig(responses="expected", slate=2, max_len=1)
    world = Simulator(items, Pleased(torch.tensor([1.0, 1.0, tail])), start, rules, 4)
    config = dsrm_hrl.Config(**{"users": 58, "batch": 58, "hidden": 16, **options})  # type: ignore[arg-type]
    policy = dsrm_hrl.train(
        world, Blind(), start, config, Budget(200 * 58), MemoryRecorder(), torch.Generator().manual_seed(0)
    )  # fmt: skip
    return world, policy


def shows_the_tail(world: Simulator, policy: DsrmHrlPolicy) -> bool:
    slates = policy.act(world.reset(torch.arange(USERS), 1))
    assert len(slates.sort(1).values.unique(dim=0)) == 1, "all users are alike"
    return bool((slates[0] == 2).any())


@pytest.mark.parametrize(("tail", "price"), [(0.0, 0.5), (0.6, 0.2)])
def test_a_manager_that_is_told_lam_pays_for_balance_up_to_its_price(tail: float, price: float) -> None:
    world, policy = learnt(tail)
    assert not shows_the_tail(world, policy.with_lam(0.7 * price))
    assert shows_the_tail(world, policy.with_lam(1.5 * price))


@pytest.mark.parametrize(("lam", "balanced"), [(0.35, False), (0.75, True)])
def test_a_manager_trained_for_one_lam_does_too(lam: float, balanced: bool) -> None:
    assert shows_the_tail(*learnt(0.0, conditioned=False, lam=lam)) == balanced


@pytest.mark.parametrize(("lam", "balanced"), [(0.35, False), (0.75, True)])
def test_so_does_a_single_policy(lam: float, balanced: bool) -> None:
    """FLAT: r + λ·Fair is its own reward."""
    assert shows_the_tail(*learnt(0.0, hierarchical=False, lam=lam)) == balanced
