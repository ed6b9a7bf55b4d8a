"""BCQ learns from the log alone, and its threshold decides how near to the log it stays."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from contract_methods import Parts, spec_of
from engine import catalog
from engine.contracts import Budget, Obs, Policy, StateView
from engine.learn.bcq import Transitions, targets
from engine.learn.logged import logged_slates, logged_transitions
from engine.learn.vectors import Perturbation
from engine.methods import bcq
from engine.metrics import summary
from engine.options import BadInput
from engine.recorder import MemoryRecorder


class Watched:
    """A world that can be stepped while `measuring` alone."""

    def __init__(self, world: Any) -> None:
        self.world, self.measuring, self.steps = world, False, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.world, name)

    def step(self, slate: torch.Tensor) -> Any:
        assert self.measuring, "the evaluator was stepped in training"
        self.steps += 1
        return self.world.step(slate)


def test_training_steps_the_world_for_the_learning_curve_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.learn.curve import Curve

    parts = Parts(spec_of("bcq", {}))
    world = Watched(parts.train)
    measure = Curve.measure

    def measured(self: Curve, *args: Any) -> None:
        world.measuring = True
        measure(self, *args)
        world.measuring = False

    monkeypatch.setattr(Curve, "measure", measured)
    monkeypatch.setattr(parts, "train", world)
    recorder = MemoryRecorder()
    policy = parts.learn(recorder)
    assert world.steps > 0
    monkeypatch.setattr(Curve, "measure", lambda *_: None)
    world.steps = 0
    blind = parts.learn(MemoryRecorder())
    assert world.steps == 0
    assert torch.equal(parts.play(blind).slates, parts.play(policy).slates)


def test_other_responses_in_the_log_give_another_policy() -> None:
    parts = Parts(spec_of("bcq", {}))
    policy = parts.learn(MemoryRecorder(), episodes=400)
    logs = parts.data.train
    parts.data = replace(parts.data, train=replace(logs, reward=1 - logs.reward))
    assert not torch.equal(parts.play(parts.learn(MemoryRecorder(), episodes=400)).slates, parts.play(policy).slates)


def test_a_larger_threshold_moves_toward_the_log() -> None:
    """Shown items are more popular, and more like what the log shows, from no constraint to imitation."""
    level, heads = [], []
    for threshold in (0.0, 0.3, 1.0):
        parts = Parts(spec_of("bcq", {"threshold": threshold}))
        sessions = parts.play(parts.learn(MemoryRecorder(), episodes=1200))
        items = parts.data.train.items
        shown = sessions.slates[sessions.alive]
        level.append(items.log_popularity()[shown].mean().item())
        heads.append(items.head[shown].float().mean().item())
    assert level[0] < level[1] < level[2]
    assert heads[0] < heads[2]


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_learning_from_the_log_pays(kind: str) -> None:
    parts = Parts(spec_of("bcq", {"kind": kind}))
    items = parts.data.train.items
    ours = summary(parts.play(parts.learn(MemoryRecorder(), episodes=1200)), items)
    other = Parts(spec_of("random", {}))
    random = summary(other.play(other.learn(MemoryRecorder())), items)
    assert ours["r_each"] > random["r_each"] + 0.05


class Histories:
    """A view whose state of a user is [user, rows known, last item shown, sum of responses]."""

    items = torch.zeros(1, 4)

    def __call__(self, obs: Obs, **_: Any) -> torch.Tensor:
        known = (obs.history >= 0).sum(1)
        assert ((obs.history >= 0) | (obs.rewards == 0)).all()
        return torch.stack([obs.users, known, obs.history[:, -1], obs.rewards.sum(1)], 1).float()


@pytest.mark.parametrize("ahead", [1, 3])
def test_a_transition_is_the_history_before_and_after(ahead: int) -> None:
    logs = Parts(spec_of("bcq", {})).data.train
    states: StateView = Histories()  # type: ignore[assignment]
    found = logged_transitions(
        logs, states, users=290, count=500, history=1000, ahead=ahead, gamma=0.5, generator=torch.Generator().manual_seed(1)
    )
    assert len(found) == 500
    assert len({tuple(row) for row in found.inputs[:, :2].tolist()}) == 500
    assert found.discount.tolist() == pytest.approx([0.5**ahead] * 500)
    for row in range(500):
        user, rank = int(found.inputs[row, 0]), int(found.inputs[row, 1])
        own = (logs.user == user).nonzero()[:, 0]
        items, rewards = logs.item[own], logs.reward[own]
        assert user < 290
        assert int(found.action[row]) == int(items[rank])
        expected = sum(0.5**k * rewards[rank + k].item() for k in range(ahead))
        assert found.returns[row].item() == pytest.approx(expected)
        before = [user, rank, int(items[rank - 1]) if rank else -1, rewards[:rank].sum().item()]
        after = [user, rank + ahead, int(items[rank + ahead - 1]), rewards[: rank + ahead].sum().item()]
        assert found.inputs[row].tolist() == pytest.approx(before)
        assert found.following[row].tolist() == pytest.approx(after)


def test_a_history_is_never_longer_than_asked_for() -> None:
    logs = Parts(spec_of("bcq", {})).data.train
    found = logged_transitions(
        logs,
        Histories(),
        users=300,
        count=300,
        history=7,
        ahead=1,
        gamma=0.5,
        generator=torch.Generator(),  # type: ignore[arg-type]
    )
    assert found.inputs[:, 1].max() == found.following[:, 1].max() == 7


def test_more_steps_than_any_log_has_are_refused() -> None:
    parts = Parts(spec_of("bcq", {"n_step": 41}))
    with pytest.raises(BadInput, match=r"method\.n_step = 41 is not legal: no user of the training log"):
        parts.learn(MemoryRecorder())
    policy: Policy = catalog.find("methods", "bcq").train(
        parts.train, parts.view, parts.data.train, spec_of("bcq", {"n_step": 40}).config("method"), Budget(8),
        MemoryRecorder(), torch.Generator(),
    )  # fmt: skip
    assert parts.play(policy).user_steps > 0


def test_a_logged_slate_is_so_many_rows_in_a_row() -> None:
    logs = Parts(spec_of("bcq", {})).data.train
    states: StateView = Histories()  # type: ignore[assignment]
    found = logged_slates(
        logs, states, users=290, count=400, history=1000, slate=6, gamma=0.7, generator=torch.Generator().manual_seed(1)
    )
    assert found.action.shape == (400, 6)
    assert found.discount.tolist() == pytest.approx([0.7] * 400)
    for row in range(400):
        user, rank = int(found.inputs[row, 0]), int(found.inputs[row, 1])
        own = (logs.user == user).nonzero()[:, 0]
        slate = own[rank : rank + 6]
        assert user < 290
        assert found.action[row].tolist() == logs.item[slate].tolist()
        assert found.returns[row].item() == pytest.approx(logs.reward[slate].mean().item())
        before, after = logs.reward[own[:rank]].sum().item(), logs.reward[own[: rank + 6]].sum().item()
        assert found.inputs[row, 3].item() == pytest.approx(before)
        assert found.following[row].tolist() == pytest.approx([user, rank + 6, int(logs.item[slate[-1]]), after])


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_it_shows_more_of_what_the_log_pays_for(kind: str) -> None:
    """The same log, once answered where heads were shown, once where tail items were."""
    shares = []
    for paid in (True, False):
        options = {"kind": kind, "batch": 32, "gamma": 0.0, "vector_rate": 3e-3, "perturbation": 0.5, "tau": 0.05}
        parts = Parts(spec_of("bcq", {**options, "candidates": 30, "target_candidates": 2, "hidden": 32}))
        log = parts.data.train
        parts.data = replace(parts.data, train=replace(log, reward=(log.items.head[log.item] == paid).float()))
        sessions = parts.play(parts.learn(MemoryRecorder(), episodes=2000))
        shares.append(log.items.head[sessions.slates[sessions.alive]].float().mean().item())
    assert shares[0] > shares[1] + 0.05


def test_a_larger_reach_moves_the_vectors_further_from_what_the_imitation_draws() -> None:
    """Cosine of the chosen vector and the nearest unmoved candidate."""
    nearest = []
    for reach in (0.0, 0.1, 1.0):
        options = {"kind": "continuous", "perturbation": reach, "vector_rate": 3e-3}
        parts = Parts(spec_of("bcq", options))
        policy: Any = parts.learn(MemoryRecorder(), episodes=1200)
        sight = (parts.view(parts.test.reset(torch.arange(40), 0)) - policy.space.centre) / policy.space.spread
        many = sight.repeat_interleave(len(policy.latents), 0)
        with torch.no_grad():
            drawn = policy.core.imitation.decode(many, policy.latents.repeat(40, 1)).view(40, len(policy.latents), -1)
        best = policy.core.best(sight, policy.latents)
        nearest.append((drawn * best.unsqueeze(1)).sum(2).amax(1).mean().item())
    assert nearest[0] > 1 - 1e-5
    assert 1 - 1e-5 > nearest[1] > nearest[2]
    assert nearest[1] >= math.cos(math.atan(0.1))


def test_slates_longer_than_any_log_are_refused() -> None:
    parts = Parts(spec_of("bcq", {"kind": "continuous"}))
    parts.data = replace(parts.data, train=parts.data.train.select(parts.data.train.lengths().cumsum(0)[:20] - 1))
    with pytest.raises(BadInput, match=r"world\.slate = 6 is not legal: no user of the training log has that many"):
        parts.learn(MemoryRecorder())


def logged_moments(parts: Parts, slate: int | None) -> Transitions:
    options = {"users": 300, "count": 64, "history": 60, "gamma": 0.5, "generator": torch.Generator().manual_seed(1)}
    if slate is None:
        return logged_transitions(parts.data.train, parts.view, ahead=1, **options)  # type: ignore[arg-type]
    return logged_slates(parts.data.train, parts.view, slate=slate, **options)  # type: ignore[arg-type]


def test_heads_learn_within_the_threshold_and_the_target_is_copied_when_due(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, generator = Parts(spec_of("bcq", {})), torch.Generator().manual_seed(1)
    config = bcq.Config(threshold=0.4, target_every=3, hidden=16, learning_rate=1e-2, logits=0.0)
    learner = bcq.Discrete(parts.train, parts.view, parts.data.train, config, generator)
    with torch.no_grad():
        learner.target.q_bias.add_(1)  # so that the two can be told apart
    batch, seen = logged_moments(parts, None), []
    own, later = learner.target(batch.following)[0], learner.net(batch.following)
    monkeypatch.setattr(bcq, "targets", lambda *args: seen.append(args) or targets(*args))
    imitation = learner.net.g_bias.clone()
    copied = []
    for _ in range(4):
        learner.update(batch, generator)
        copied.append(torch.equal(learner.target.q_bias, learner.net.q_bias))
    assert copied == [False, False, True, False]
    assert not torch.equal(learner.net.g_bias, imitation)
    _, q, logits, target_q, threshold = seen[0]
    assert torch.equal(q, later[0])
    assert torch.equal(logits, later[1])
    assert torch.equal(target_q, own)
    assert threshold == 0.4


def test_the_core_is_told_logged_slates_as_vectors_and_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, generator = Parts(spec_of("bcq", {})), torch.Generator().manual_seed(1)
    config = bcq.Config(
        kind="continuous", hidden=16, candidates=9, target_candidates=4, pessimism=0.6, tau=0.02, vector_rate=2e-3, latent=3,
        perturbation=0.2,
    )  # fmt: skip
    learner = bcq.Continuous(parts.train, parts.view, config, generator)
    steps = learner.core.steps
    assert (steps.candidates, steps.pessimism, steps.tau, steps.rate) == (4, 0.6, 0.02, 2e-3)
    width = parts.view.items.shape[1] + 1
    assert learner.policy.latents.shape == (9, 3 * width)
    moved = learner.core.perturbation
    assert isinstance(moved, Perturbation)
    assert moved.reach == 0.2
    batch, seen = logged_moments(parts, 6), []
    monkeypatch.setattr(learner.core, "update", lambda told, _: seen.append(told) or {})
    learner.update(batch, generator)
    (told,), view = seen, parts.view
    assert torch.allclose(told.inputs, (batch.inputs - view.centre) / view.spread)
    assert torch.allclose(told.following, (batch.following - view.centre) / view.spread)
    assert not torch.allclose(told.inputs, told.following)
    mean = learner.space.points[batch.action].mean(1)
    assert torch.allclose(told.action, mean / mean.norm(dim=1, keepdim=True))
    assert torch.equal(told.returns, batch.returns)
    assert torch.equal(told.discount, batch.discount)


def test_an_untrained_vector_ranks_as_predicted_clicks_do() -> None:
    parts, generator = Parts(spec_of("bcq", {})), torch.Generator().manual_seed(1)
    learner = bcq.Continuous(parts.train, parts.view, bcq.Config(kind="continuous", hidden=16), generator)
    obs = parts.test.reset(torch.arange(40), 0)
    predicted = parts.view.predict(parts.view(obs)).topk(36).indices  # the best tenth
    assert (learner.policy.act(obs).unsqueeze(2) == predicted.unsqueeze(1)).any(2).float().mean() > 0.8
