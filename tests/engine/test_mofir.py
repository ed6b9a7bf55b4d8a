"""Directions and limits of MOFIR."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from contract_methods import Parts, known, spec_of
from engine.contracts import Budget
from engine.learn.offpolicy import learn
from engine.learn.replay import Replay
from engine.learn.rollout import play
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


def test_each_sample_is_learnt_from_at_the_weight_it_served_and_at_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rewards are [response, tail share], weights [1 − ω, ω] of the ω that actor and critic see in the last column."""
    parts, generator = Parts(spec_of("mofir", {})), torch.Generator().manual_seed(2)
    learner = Learner(parts.train, parts.view, Config(hidden=16, batch=50), generator)
    replay, taken = Replay(40, parts.train.max_len), []
    replay.add(play(parts.train, torch.arange(40), 1, lambda obs: learner.explore(obs, generator)))
    monkeypatch.setattr(learner.core, "update", lambda batch, _: taken.append(batch) or {})
    learner.update(replay, generator)
    (batch,), kept = taken, replay.sessions
    omega = batch.state[:, -1]
    assert torch.equal(batch.weights, torch.stack([1 - omega, omega], 1))
    assert torch.equal(batch.following[:, -1], omega)
    tails = (~parts.data.train.items.head)[kept.slates].float().mean(2)
    other = 0
    for row in range(50):
        moment = (kept.notes["inputs"] == batch.state[row, :-1]).all(2) & kept.alive
        step, user = moment.nonzero()[0].tolist()
        expected = [kept.rewards[step, user].item(), tails[step, user].item()]
        for place in (row, row + 50):
            assert torch.equal(batch.state[place, :-1], batch.state[row, :-1])
            assert torch.equal(batch.action[place], kept.notes["vectors"][step, user])
            assert batch.reward[place].tolist() == pytest.approx(expected)
        assert omega[row] == kept.notes["omega"][step, user]
        other += int(omega[row + 50] != omega[row])
    assert other == 50


def test_the_policy_answers_to_the_weight_it_is_told() -> None:
    """Another ω gives other vectors to the same users, once the actor's residual is not 0 any more."""
    parts, generator = Parts(spec_of("mofir", {})), torch.Generator().manual_seed(2)
    learner = Learner(parts.train, parts.view, Config(hidden=16), generator)
    last: Any = learner.actor.residual[-1]
    with torch.no_grad():
        last.weight.normal_(generator=generator)
    obs = parts.test.reset(torch.arange(20), 0)
    vectors = [learner.choose(obs, torch.full((20,), omega), None)[1]["vectors"] for omega in (0.0, 1.0)]
    assert (vectors[0] - vectors[1]).norm(dim=1).min() > 1e-3
