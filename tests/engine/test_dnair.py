"""DNaIR: its reward, and where a larger weight of novelty leads."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch

from contract_methods import Parts, spec_of
from engine.contracts import Dataset
from engine.learn import dqn
from engine.learn.replay import Replay
from engine.learn.rollout import play
from engine.methods.dnair import Config, Learner, novelty_of
from engine.metrics import summary
from engine.recorder import MemoryRecorder


@functools.cache
def shown(novelty: float, **options: object) -> tuple[float, dict[str, float]]:
    """Mean log-popularity of what is shown after 600 episodes, and the metrics."""
    parts = Parts(spec_of("dnair", {"novelty": novelty, **options}))
    sessions = parts.play(parts.learn(MemoryRecorder(), episodes=600))
    items = parts.data.train.items
    return items.log_popularity()[sessions.slates[sessions.alive]].mean().item(), summary(sessions, items)


def test_a_larger_weight_of_novelty_shows_less_popular_items() -> None:
    levels = [shown(novelty)[0] for novelty in (0.0, 0.03, 0.3)]
    assert levels[0] > levels[1] > levels[2]


def test_it_learns_more_than_its_start_knows() -> None:
    """The start is stage I's prediction; without gradient steps nothing is added to it."""
    start = shown(0.0, warm_up=10_000)[1]
    assert shown(0.0)[1]["r_cum"] > start["r_cum"]


def test_novelty_is_quality_over_the_logarithm_of_popularity() -> None:
    """Two items: one shown three times and answered twice, one never shown."""
    parts = Parts(spec_of("dnair", {}))
    log = parts.data.train
    items = replace(log.items, popularity=torch.tensor([3, 0]))
    reward = torch.tensor([1.0, 1.0, 0.0])
    logs = Dataset(torch.arange(3), torch.zeros(3).long(), reward, torch.arange(3), None, 3, items)
    found = novelty_of(items, logs).tolist()
    assert found == pytest.approx([0.6 / 0.3222193, 0.5 / 0.0413927], rel=1e-4)  # q 3/5 and 1/2; log10 of 2.1 and 1.1


def test_a_gradient_step_is_on_response_plus_novelty_and_the_best_that_may_still_be_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts, generator = Parts(spec_of("dnair", {})), torch.Generator().manual_seed(1)
    config = Config(hidden=16, batch=50, novelty=0.2, gamma=0.7)
    learner = Learner(parts.train, parts.view, parts.data.train, config, generator)
    replay, seen, blocked = Replay(40, parts.train.max_len), [], []
    replay.add(play(parts.train, torch.arange(40), 1, lambda obs: learner.explore(obs, generator)))
    targets, greedy_value = dqn.targets, dqn.greedy_value
    monkeypatch.setattr(dqn, "targets", lambda *args: seen.append(args) or targets(*args))
    monkeypatch.setattr(dqn, "greedy_value", lambda *args: blocked.append(args) or greedy_value(*args))
    with torch.no_grad():
        learner.target.lift.add_(5.0)  # so that the two can be told apart
    before = [p.clone() for p in learner.target.parameters()]
    state = generator.get_state()
    learner.update(replay, generator)
    step, row = replay.draw(50, generator.set_state(state))
    kept = replay.sessions
    reward, following, stays, gamma = seen[0]
    bonus = novelty_of(parts.data.train.items, parts.data.train)[kept.slates[step, row]]
    assert torch.allclose(reward, kept.clicks[step, row] + 0.2 * bonus)
    assert gamma == 0.7
    after, there = replay.following(step, row)
    assert torch.equal(stays, there)
    values, count, shown = blocked[0]
    assert count == 6
    # What the session has shown by then is not bootstrapped from, and it is the target network's word that counts.
    assert shown.sum(1).tolist() == (6 * after).tolist()
    assert torch.equal(following, greedy_value(values, count, shown))
    assert following.min() > 4
    assert any(not torch.equal(a, b) for a, b in zip(before, learner.target.parameters(), strict=True))
