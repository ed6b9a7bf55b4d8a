"""Soft actor–critic's core on small tasks whose soft-optimal policy is known by soft value iteration."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from engine.learn import dqn, sac

STATES, ACTIONS, GAMMA = 5, 4, 0.8


def task(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Deterministic: next state, reward (in −1…1) and whether the episode goes on, all (S,A)."""
    generator = torch.Generator().manual_seed(seed)
    following = torch.randint(STATES, (STATES, ACTIONS), generator=generator)
    reward = torch.rand(STATES, ACTIONS, generator=generator) * 2 - 1
    return following, reward, torch.rand(STATES, ACTIONS, generator=generator) < 0.7


def soft_optimum(following: Tensor, reward: Tensor, stays: Tensor, closed: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Q* and π* = softmax(Q*/α), both (S,A): V(s) = α·log Σ_a exp(Q(s,a)/α)."""
    q = torch.zeros(STATES, ACTIONS)
    for _ in range(300):
        value = alpha * (q.masked_fill(closed, -torch.inf) / alpha).logsumexp(1)
        q = reward + GAMMA * stays * value[following]
    return q, (q.masked_fill(closed, -torch.inf) / alpha).softmax(1)


def solved(
    parts: tuple[Tensor, Tensor, Tensor], closed: Tensor, alpha: float, wanted: float | None, steps: int
) -> tuple[Tensor, Tensor, float]:
    """Q, log π (S,A) and α after `steps` updates of twin tables over all states and actions; α is tuned if `wanted`."""
    following, reward, stays = parts
    critics = [torch.nn.Parameter(torch.full((STATES, ACTIONS), start)) for start in (0.0, 0.5)]
    logits = torch.nn.Parameter(torch.zeros(STATES, ACTIONS))
    log_alpha = torch.nn.Parameter(torch.tensor(math.log(alpha)))
    adam = torch.optim.Adam([*critics, logits], lr=0.05)
    tuner = torch.optim.Adam([log_alpha], lr=0.02)
    after = following.flatten()
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = 0.05 * (1 - step / steps)
        with torch.no_grad():
            log_pi = sac.log_policy(logits, closed)
            value = sac.soft_value(torch.minimum(*critics), log_pi, log_alpha.exp())
            y = dqn.targets(reward.flatten(), value[after], stays.flatten(), GAMMA)
        log_pi = sac.log_policy(logits, closed)
        loss = sum(((net.flatten() - y) ** 2).sum() for net in critics)
        loss = loss + ACTIONS * STATES * sac.policy_loss(torch.minimum(*critics), log_pi, log_alpha.exp())
        adam.zero_grad()
        loss.backward()
        adam.step()
        if wanted is not None:
            tuner.zero_grad()
            sac.temperature_loss(log_alpha, log_pi, wanted).backward()
            tuner.step()
    return torch.minimum(*critics).detach(), sac.log_policy(logits, closed).detach(), log_alpha.exp().item()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("alpha", [0.3, 1.0])
@pytest.mark.parametrize("closing", [False, True])
def test_the_soft_optimum_is_found(seed: int, alpha: float, closing: bool) -> None:
    parts = task(seed)
    closed = torch.zeros(STATES, ACTIONS, dtype=torch.bool)
    if closing:
        closed[torch.arange(STATES), torch.arange(STATES) % ACTIONS] = True
    best_q, best_pi = soft_optimum(*parts, closed, alpha)
    q, log_pi, _ = solved(parts, closed, alpha, None, 1200)
    assert (q - best_q).abs().max() < 0.03
    assert (log_pi.exp() - best_pi).abs().max() < 0.02
    assert log_pi.exp()[closed].sum() == 0


@pytest.mark.parametrize("wanted", [0.4, 0.8, 1.2])
@pytest.mark.parametrize("start", [0.02, 3.0])
def test_alpha_moves_to_where_entropy_is_what_was_asked(wanted: float, start: float) -> None:
    """From both sides; and the α that is found has that entropy at its own soft optimum. No episode ends here: where some
    actions end it, those that go on also earn the entropy to come, and no α at all makes the optimum nearly uniform."""
    following, reward, _ = task(3)
    parts = following, reward, torch.ones(STATES, ACTIONS, dtype=torch.bool)
    none = torch.zeros(STATES, ACTIONS, dtype=torch.bool)
    _, log_pi, alpha = solved(parts, none, start, wanted, 2000)
    assert sac.entropy(log_pi).mean().item() == pytest.approx(wanted, abs=0.05)
    _, best = soft_optimum(*parts, none, alpha)
    assert sac.entropy(best.log()).mean().item() == pytest.approx(wanted, abs=0.08)


def test_alpha_rises_where_entropy_is_too_small() -> None:
    log_alpha = torch.zeros((), requires_grad=True)
    sac.temperature_loss(log_alpha, torch.tensor([[0.0, sac.CLOSED]]), 0.5).backward()
    assert log_alpha.grad is not None
    assert log_alpha.grad.item() == -0.5  # descent raises it


def test_closed_actions_weigh_nothing_and_break_no_gradient() -> None:
    logits = torch.zeros(1, 3, requires_grad=True)
    log_pi = sac.log_policy(logits, torch.tensor([[False, True, False]]))
    assert sac.entropy(log_pi).item() == pytest.approx(math.log(2))
    sac.policy_loss(torch.tensor([[1.0, 9.0, 3.0]]), log_pi, torch.tensor(0.1)).backward()
    assert logits.grad is not None
    assert logits.grad.tolist()[0] == pytest.approx([0.5, 0.0, -0.5])
