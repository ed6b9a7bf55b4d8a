"""Directions and limits of TD3 over item vectors."""

from __future__ import annotations

import pytest
import torch

from contract_methods import Parts, known, spec_of
from engine.contracts import Budget
from engine.learn.offpolicy import learn
from engine.learn.replay import Replay
from engine.learn.rollout import play
from engine.learn.vectors import VectorActor, perturbed
from engine.methods.td3 import Config, Learner
from engine.recorder import MemoryRecorder


def test_an_untrained_actor_ranks_as_predicted_clicks_do() -> None:
    parts = Parts(spec_of("td3", {}))
    actor = VectorActor(parts.view, 0, 16, torch.Generator().manual_seed(0))
    state = parts.view(parts.test.reset(torch.arange(40), 0))
    standard = (state - parts.view.centre) / parts.view.spread
    sight = torch.cat([standard, torch.zeros(40, actor.residual[0].in_features - standard.shape[1])], 1)
    chosen = (actor(sight) @ actor.points.T).topk(6).indices
    predicted = parts.view.predict(state).topk(36).indices  # the best tenth
    assert (chosen.unsqueeze(2) == predicted.unsqueeze(1)).any(2).float().mean() > 0.8


def test_sigma_is_the_tangent_of_the_angle_it_turns_a_vector_by() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(2000, 64, generator=generator), dim=1)
    turned = perturbed(vectors, 0.5, generator)
    cosine = (vectors * turned).sum(1)
    assert torch.allclose(turned.norm(dim=1), torch.ones(2000))
    assert ((1 - cosine**2).sqrt() / cosine).mean().item() == pytest.approx(0.5, abs=0.05)


def test_replay_keeps_the_vector_that_was_executed() -> None:
    """The slate follows from the noted vector, not from the actor's own."""
    parts, policy, _ = known("td3", {})
    obs = parts.test.reset(torch.arange(20), 0)
    slates, notes = policy.choose(obs, torch.Generator().manual_seed(5))  # type: ignore[attr-defined]
    assert torch.equal(slates, policy.actor.slates(notes["vectors"], obs, 6, False))  # type: ignore[attr-defined]
    assert not torch.equal(slates, policy.act(obs))


def test_the_core_is_td3_with_the_options_that_are_set() -> None:
    """Twin critics, target noise in the options' units whatever the width, a delayed actor."""
    parts, generator = Parts(spec_of("td3", {})), torch.Generator().manual_seed(1)
    config = Config(hidden=16, target_noise=0.3, noise_clip=2.0, delay=3, gamma=0.7, tau=0.01)
    learner = Learner(parts.train, parts.view, config, generator)
    steps, width = learner.core.steps, parts.view.items.shape[1] + 1
    assert (steps.noise * width**0.5, steps.clip / steps.noise) == (pytest.approx(0.3), pytest.approx(2.0))
    assert (steps.delay, steps.gamma, steps.tau) == (3, 0.7, 0.01)
    sight = torch.zeros(5, learner.actor.residual[0].in_features)
    assert learner.core.critics(sight, learner.actor(sight)).shape == (2, 5, 1)


def test_the_critics_are_told_what_was_executed_and_what_came_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, generator = Parts(spec_of("td3", {})), torch.Generator().manual_seed(1)
    learner = Learner(parts.train, parts.view, Config(hidden=16, batch=50), generator)
    replay, taken = Replay(40, parts.train.max_len), []
    replay.add(play(parts.train, torch.arange(40), 1, lambda obs: learner.explore(obs, generator)))
    monkeypatch.setattr(learner.core, "update", lambda batch, _: taken.append(batch) or {})
    learner.update(replay, generator)
    (batch,), kept = taken, replay.sessions
    sight, vectors = kept.notes["sight"], kept.notes["vectors"]
    for row in range(50):
        (step, user) = ((sight == batch.state[row]).all(2) & kept.alive).nonzero()[0].tolist()
        there = step + 1 < parts.train.max_len and bool(kept.alive[step + 1, user])
        assert torch.equal(batch.action[row], vectors[step, user])
        assert batch.reward[row].item() == kept.rewards[step, user].item()
        assert bool(batch.stays[row]) == there
        assert not there or torch.equal(batch.following[row], sight[step + 1, user])


def test_it_learns_from_a_spoilt_start() -> None:
    """An actor turned in a random direction: r_cum on held-out users rises by far."""
    parts, recorder, generator = Parts(spec_of("td3", {})), MemoryRecorder(), torch.Generator().manual_seed(2)
    config = Config(users=40, updates=32, hidden=64, replay=1024, batch=128, actor_rate=1e-3)
    learner = Learner(parts.train, parts.view, config, generator)
    with torch.no_grad():
        learner.actor.residual[-1].bias.normal_(generator=generator)
    learn("td3", learner, parts.train, config, Budget(1200), recorder, generator)
    points = list(recorder.history["r_cum"].values())
    assert sum(points[-5:]) / 5 > points[0] + 0.6
