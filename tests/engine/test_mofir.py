"""Directions and limits of MOFIR."""

from __future__ import annotations

import pytest
import torch

from contract_methods import Parts, known, spec_of
from engine.contracts import Budget
from engine.learn.offpolicy import learn
from engine.methods.mofir import Config, Learner, lam_range
from engine.options import BadInput
from engine.recorder import MemoryRecorder


def test_a_larger_weight_on_fairness_shows_fewer_heads() -> None:
    """One trained policy, three weights."""
    parts, generator = Parts(spec_of("mofir", {})), torch.Generator().manual_seed(1)
    config = Config(users=40, updates=32, hidden=64, replay=1024, batch=128, actor_rate=1e-3)
    learner = Learner(parts.train, parts.view, config, generator)
    learn("mofir", learner, parts.train, config, Budget(1200), MemoryRecorder(), generator)
    shares = []
    for lam in (0.0, 0.5, 1e6):
        sessions = parts.play(learner.with_lam(lam))
        heads = parts.data.train.items.head[sessions.slates.clamp_min(0)].float().mean(2)
        shares.append(heads[sessions.alive].mean().item())
    assert shares[0] > shares[1] > shares[2] + 0.05


def test_lambda_is_the_price_of_fairness_in_responses() -> None:
    _, policy, _ = known("mofir", {})
    assert policy.with_lam(0.0).omega == 0.0  # type: ignore[attr-defined]
    assert policy.with_lam(1.0).omega == 0.5  # type: ignore[attr-defined]
    assert policy.with_lam(3.0).omega == 0.75  # type: ignore[attr-defined]
    for lam in (-1.0, float("inf"), float("nan")):
        with pytest.raises(BadInput, match=f"lam = {lam} is not legal: it must be a number of 0 or more"):
            policy.with_lam(lam)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("omega", "default", "most"), [(0.1, 1 / 9, 9.0), (0.0, 0.0, 9.0), (0.95, 19.0, 19.0), (1.0, 1000.0, 1000.0)]
)
def test_sliders_reach_at_least_nine_and_the_weight_that_is_served(omega: float, default: float, most: float) -> None:
    moves = lam_range(Config(omega=omega))
    assert (moves.default, moves.most) == (pytest.approx(default), pytest.approx(most))


def test_a_session_serves_one_weight_and_sessions_differ() -> None:
    parts, generator = Parts(spec_of("mofir", {})), torch.Generator().manual_seed(2)
    learner = Learner(parts.train, parts.view, Config(hidden=16), generator)
    obs, served = parts.train.reset(torch.arange(30), 1), []
    for _ in range(3):
        slates, notes = learner.explore(obs, generator)
        served.append(notes["omega"])
        obs = parts.train.step(slates).obs
    assert torch.equal(served[0], served[1])
    assert torch.equal(served[0], served[2])
    assert len(served[0].unique()) == 30
