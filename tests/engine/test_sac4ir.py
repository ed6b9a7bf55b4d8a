"""SAC4IR: where a larger target entropy leads, and the authors' reward."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import pytest
import torch

from contract_methods import Parts, spec_of
from engine.contracts import Dataset, Items, Obs
from engine.learn import sac
from engine.learn.click_through import ClickThrough, reward
from engine.learn.replay import Replay
from engine.learn.rollout import play
from engine.methods.sac4ir import Config, Learner
from engine.recorder import MemoryRecorder


@functools.cache
def after(entropy: float, **options: Any) -> tuple[float, float, float, float]:
    """Entropy in nats, α and greedy R_cum at the end of 800 episodes, and the share of the catalogue that draws reach."""
    parts = Parts(spec_of("sac4ir", {"entropy": entropy, "updates": 8, "alpha_rate": 0.03, **options}))
    recorder = MemoryRecorder()
    policy = parts.learn(recorder, episodes=800)
    obs, generator = parts.test.reset(torch.arange(60), 0), torch.Generator().manual_seed(1)
    drawn = policy.act(obs, generator=generator)
    history = recorder.history
    last = [list(history[name].values())[-1] if name in history else 0.0 for name in ("entropy", "alpha", "r_cum")]
    return last[0], last[1], last[2], len(drawn.unique()) / 360


def test_a_larger_target_entropy_gives_a_flatter_policy_and_wider_coverage() -> None:
    sharp, flat = after(0.3), after(0.9)
    assert flat[0] > sharp[0] + 0.5
    assert flat[1] > sharp[1]
    assert flat[3] > sharp[3]


def test_it_learns_more_than_its_start_knows() -> None:
    """With a step size for few gradient steps: the default is for twenty times as many."""
    assert after(0.5, learning_rate=1e-3)[2] > after(0.5, warm_up=10_000)[2] + 0.1


def small_log() -> Dataset:
    """User 0 is shown 0 1 2 1 and answers all but the 2; user 1 is shown 0 2 and answers both."""
    item, reward_ = torch.tensor([0, 1, 2, 1, 0, 2]), torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    popularity = torch.bincount(item, minlength=4)
    items = Items(popularity, popularity > 1, torch.zeros(4, 1).bool(), torch.zeros(4).long(), ("",) * 2, ("",) * 4)
    return Dataset(torch.tensor([0, 0, 0, 0, 1, 1]), item, reward_, torch.arange(6), None, 2, items)


def test_rates_of_pairs_golden_values() -> None:
    """After an answered 0: 1 twice, both answered; 2 twice, once answered. After an answered 1: 2 once, not answered; 1 once,
    answered. Nothing follows the 2 that was passed, and no pair crosses users."""
    found = ClickThrough(small_log(), torch.device("cpu"))
    first, second = torch.arange(4).repeat_interleave(4), torch.arange(4).repeat(4)
    rates = found.rate(first, second).view(4, 4)
    expected = torch.zeros(4, 4)
    expected[0, 1], expected[0, 2], expected[1, 1] = 2 / 3, 1 / 3, 1 / 2
    assert torch.allclose(rates, expected)
    assert found.rate(torch.tensor([-1]), torch.tensor([1])).item() == 0


def test_click_through_is_from_the_items_that_were_answered_last() -> None:
    found = ClickThrough(small_log(), torch.device("cpu"))
    history = torch.tensor([[-1, 0, 2, 1, 3], [0, 0, 0, 1, 3]])
    rewards = torch.tensor([[0.0, 1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.5, 0.0]])
    none, users = torch.zeros(2, 0, dtype=torch.int64), torch.arange(2)
    obs = Obs(users, 0, history, rewards, 0, none, torch.zeros(2).bool())
    through = found.of(obs, torch.tensor([[1, 2], [1, 2]]))
    assert torch.allclose(through, torch.tensor([[2 / 3, 1 / 3], [2 * 2 / 3 + 0.5 * 1 / 2, 2 / 3]]) / 10)
    long = torch.tensor([[0] * 30]), torch.tensor([[1.0] * 30])
    obs = Obs(torch.zeros(1).long(), 0, *long, 0, none[:1], torch.zeros(1).bool())
    assert found.of(obs, torch.tensor([[1]])).item() == pytest.approx(2 / 3)  # ten of them


def test_what_is_passed_costs_twice_and_a_repeat_one() -> None:
    through, clicks = torch.tensor([0.3, 0.3, 0.3, 0.3]), torch.tensor([1.0, 0.0, 1.0, 0.5])
    assert reward(through, clicks, None).tolist() == pytest.approx([0.3, -0.6, 0.3, -0.15])
    repeated = torch.tensor([False, False, True, False])
    assert reward(through, clicks, repeated).tolist() == pytest.approx([0.3, -0.6, -1.0, -0.15])


@pytest.mark.parametrize("repeats", [False, True])
def test_replay_rewards_are_those_of_the_moment(repeats: bool) -> None:
    spec = spec_of("sac4ir", {"reward": "click_through"})
    settings = {section: dict(values) for section, values in spec.settings.items()}
    settings["world"]["repeats"] = repeats
    parts, generator = Parts(replace(spec, settings=settings)), torch.Generator().manual_seed(1)
    config = Config(reward="click_through", hidden=16, sharpness=30.0)
    learner = Learner(parts.train, parts.view, parts.data.train, config, generator)
    sessions = play(parts.train, torch.arange(30), 1, lambda obs: learner.explore(obs, generator))
    step, row = sessions.alive.nonzero(as_tuple=True)
    found = learner._rewards(sessions, step, row)
    clicks, through = sessions.clicks[step, row], sessions.notes["through"][step, row]
    again = torch.zeros_like(clicks, dtype=torch.bool)
    for place, (t, b) in enumerate(zip(step.tolist(), row.tolist(), strict=True)):
        before = set(sessions.slates[:t, b].flatten().tolist())
        again[place] = torch.tensor([item in before for item in sessions.slates[t, b].tolist()])
    assert again.any() == repeats
    assert through.max() > 0
    assert torch.allclose(found, torch.where(again, -1.0, torch.where(clicks > 0, through, -2 * through)))


def test_the_authors_reward_turns_from_what_is_often_passed_after_what_was_answered() -> None:
    """Few items are answered two times in three, so that click-through is mostly a cost, and one that the log's favourites,
    which follow everything, have most of."""
    levels = {}
    for kind in ("response", "click_through"):
        parts = Parts(spec_of("sac4ir", {"reward": kind, "updates": 8, "learning_rate": 3e-3, "entropy": 0.5}))
        sessions = parts.play(parts.learn(MemoryRecorder(), episodes=600))
        level = parts.data.train.items.log_popularity()
        levels[kind] = level[sessions.slates[sessions.alive]].mean().item()
    assert levels["click_through"] < levels["response"] - 0.3


def test_the_smaller_critic_counts_in_targets_and_for_the_actor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second critics are raised by 5: whoever asked for the larger ones would see it."""
    parts, generator = Parts(spec_of("sac4ir", {})), torch.Generator().manual_seed(1)
    learner = Learner(parts.train, parts.view, parts.data.train, Config(hidden=16, batch=50), generator)
    replay, seen = Replay(40, parts.train.max_len), []
    replay.add(play(parts.train, torch.arange(40), 1, lambda obs: learner.explore(obs, generator)))
    with torch.no_grad():
        for critics in (learner.critics, learner.targets):
            critics[1].lift.add_(5.0)
    soft_value = sac.soft_value
    monkeypatch.setattr(sac, "soft_value", lambda *args: seen.append(args) or soft_value(*args))
    learner.update(replay, generator)
    assert len(seen) == 2  # V(s′) for the critics, and minus the actor's loss
    for values, log_pi, alpha in seen:
        assert values.shape == log_pi.shape == (50, 360)
        assert values.max() < 3
        assert alpha.item() == pytest.approx(0.05)
