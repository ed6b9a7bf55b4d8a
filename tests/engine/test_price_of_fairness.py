"""A world of three items where fairness costs exactly so much: slates of two, heads that please, a tail item that pleases less.

Two heads earn 1 at Fair 0, a head and the tail item earn (1 + p) / 2 at Fair 1, where everybody answers the tail item with
probability p. So balance is worth its price where λ > (1 − p) / 2, and not below.
"""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

from engine.contracts import Budget, Dataset, Items, Obs, Sessions
from engine.methods import dsrm_hrl
from engine.methods.dsrm_hrl import DsrmHrlPolicy, credits_of_draws
from engine.options import build
from engine.recorder import MemoryRecorder
from engine.spec import WorldConfig
from engine.world.simulator import Simulator
from small import Answers

USERS = 64


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
    world = Simulator(items, Answers(torch.tensor([1.0, 1.0, tail]), USERS), start, rules, 4)
    config = build(dsrm_hrl.Config, {"users": 58, "batch": 58, "hidden": 16, **options}, "method")
    generator = torch.Generator().manual_seed(0)
    policy = dsrm_hrl.train(world, Blind(), start, config, Budget(200 * 58), MemoryRecorder(), generator)
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


@pytest.mark.parametrize(("lam", "balanced"), [(0.45, False), (0.55, True)])
def test_so_does_a_single_policy(lam: float, balanced: bool) -> None:
    """FLAT: r + λ·Fair is its own reward."""
    assert shows_the_tail(*learnt(0.0, hierarchical=False, lam=lam)) == balanced


def test_a_draw_of_a_single_policy_answers_for_its_own_click_and_for_fair() -> None:
    """Without expectations and without a future, (r + λ·Fair) / (1 + λ) less the other item's click."""
    lam, fair = 3.0, torch.tensor([[0.0, 1.0]])
    clicks = torch.tensor([[[1.0, 1.0], [1.0, 0.0]]])  # two heads; a head and the tail item
    alive, nothing = torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2)
    sessions = Sessions(torch.arange(2), alive, torch.tensor([[[0, 1], [0, 2]]]), clicks, clicks.mean(2), nothing, ~alive)
    reward = (sessions.rewards + lam * fair) / (1 + lam)
    found = credits_of_draws(sessions, reward, nothing, 1 / (1 + lam))
    assert torch.allclose(found, (lam * fair.unsqueeze(2) + clicks / 2) / (1 + lam))
