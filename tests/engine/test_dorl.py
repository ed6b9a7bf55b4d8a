"""DORL plays in a world learnt from the log alone; what its rewards are made of; and which way its weights push."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from contract_methods import Parts, spec_of
from engine.contracts import Dataset, Items, Sessions
from engine.factors import Factors
from engine.learn.ensemble import Ensemble, fit_ensemble
from engine.learn.log_entropy import LogEntropy
from engine.learn.rollout import play
from engine.methods import dorl
from engine.methods.dorl import Config, shaped_rewards
from engine.metrics import summary
from engine.recorder import MemoryRecorder
from engine.world.responses import Fitted, Generated
from engine.world.simulator import Simulator

CURVE = ("len", "r_each", "r_cum", "ad")  # what is measured in the train world for display


def test_nobody_of_the_train_world_answers_but_for_the_learning_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real responses turned to noise: all that is learnt must be equal."""
    parts = Parts(spec_of("dorl", {}))
    honest, spoilt = MemoryRecorder(), MemoryRecorder()
    policy = parts.learn(honest)
    stepped: list[bool] = []
    step = Simulator.step

    def watched(self: Simulator, slate: Tensor) -> Any:
        stepped.append(isinstance(self.responses, Ensemble))
        return step(self, slate)

    monkeypatch.setattr(Simulator, "step", watched)
    monkeypatch.setattr(Generated, "session", lambda self, users: Fair(users))
    again = parts.learn(spoilt)
    monkeypatch.undo()
    assert 0 < sum(stepped) < len(stepped)
    assert spoilt.history["r_cum"] != honest.history["r_cum"]
    kept = {name: points for name, points in honest.history.items() if name not in CURVE}
    assert kept == {name: points for name, points in spoilt.history.items() if name not in CURVE}
    assert torch.equal(parts.play(again).slates, parts.play(policy).slates)


class Fair:
    """Users who answer by a coin."""

    def __init__(self, users: Tensor) -> None:
        self.users = users

    def probability(self, slate: Tensor) -> Tensor:
        return torch.full(slate.shape, 0.5)

    def observe(self, slate: Tensor, clicks: Tensor) -> None:
        pass

    def keep(self, rows: Tensor) -> None:
        pass


def test_an_imagined_world_leaves_the_real_one_alone() -> None:
    parts = Parts(spec_of("random", {}))
    ensemble = fit_ensemble(parts.data.train, members=2, width=4, epochs=1, decay=8.0, generator=torch.Generator())
    world, users, slates = parts.train, torch.arange(30), torch.arange(6 * 8).reshape(8, 1, 6).expand(-1, 30, -1)
    before = play(world, users, 5, lambda obs: (slates[obs.step, : len(obs)], {}))
    other = world.imagined(ensemble)
    world.reset(users, 5)
    within = play(other, users, 5, lambda obs: (slates[obs.step, : len(obs)], {}))
    for t in range(3):
        world.step(slates[t])  # the real session is where it was
    assert other.max_len == world.max_len
    assert not torch.equal(within.clicks, before.clicks)
    after = play(world, users, 5, lambda obs: (slates[obs.step, : len(obs)], {}))
    assert torch.equal(after.clicks, before.clicks)


def factors(seed: int, users: int = 4, items: int = 5, width: int = 3) -> Factors:
    g = torch.Generator().manual_seed(seed)
    return Factors(
        torch.randn(users, width, generator=g), torch.randn(items, width, generator=g), torch.randn(users, generator=g),
        torch.randn(items, generator=g), torch.tensor(0.3), torch.zeros(users), torch.zeros(items),
    )  # fmt: skip


def test_an_ensemble_answers_with_the_mean_of_its_members() -> None:
    members = [factors(1), factors(2), factors(3)]
    ensemble = Ensemble(members, torch.ones(3, 5, 4))
    users, slate = torch.tensor([3, 0]), torch.tensor([[1, 4], [2, 2]])
    each = torch.stack([Fitted(m).session(users).probability(slate) for m in members])
    assert torch.allclose(ensemble.probabilities(users, slate), each, atol=1e-6)
    session = ensemble.session(users)
    assert torch.allclose(session.probability(slate), each.mean(0), atol=1e-6)
    assert torch.allclose(session.everything().gather(1, slate), each.mean(0), atol=1e-6)
    session.keep(torch.tensor([False, True]))
    assert torch.allclose(session.probability(slate[1:]), each.mean(0)[1:], atol=1e-6)
    everything = torch.stack([Fitted(m).session(torch.arange(4)).everything() for m in members]).mean(0)
    assert ensemble.lowest(torch.arange(4)) == pytest.approx(everything.min().item())


def test_members_doubt_most_what_the_log_shows_least() -> None:
    logs = Parts(spec_of("random", {})).data.train
    ensemble = fit_ensemble(logs, members=5, width=4, epochs=6, decay=8.0, generator=torch.Generator().manual_seed(1))
    users, items = torch.arange(300), torch.arange(360).expand(300, -1)
    doubt = ensemble.variances(users, items).amax(0)
    order = logs.items.popularity.argsort()
    assert doubt[:, order[:72]].mean() > 3 * doubt[:, order[-72:]].mean()
    never = replace(logs, item=torch.where(logs.item == 7, 8, logs.item))
    blank = fit_ensemble(never, members=1, width=1, epochs=1, decay=8.0, generator=torch.Generator().manual_seed(1))
    p = blank.probabilities(users, items)[0, :, 7]
    assert torch.allclose(blank.spread[0, 7], torch.ones(2))  # the prior's: the log says nothing
    expected = (p * (1 - p)).pow(2) * (1 + blank.factors[0].users[:, 0].pow(2))
    assert torch.allclose(blank.variances(users, items)[0, :, 7], expected)


def test_an_ensemble_predicts_and_depends_on_its_generator_alone() -> None:
    logs = Parts(spec_of("random", {})).data.train
    fits = [
        fit_ensemble(logs, members=2, width=4, epochs=4, decay=8.0, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    found = [fit.probabilities(logs.user, logs.item[:, None])[..., 0] for fit in fits]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert not torch.equal(found[0][0], found[0][1])
    mean = found[0].mean(0)
    assert mean[logs.reward > 0.5].mean() > mean[logs.reward < 0.5].mean() + 0.1


def small_log() -> Dataset:
    """Two users; items 0 and 1 are of tag 0, 2 of tag 1, 3 of tag 2, 4 of tag 3, which is in no log."""
    item = torch.tensor([0, 2, 1, 3, 0, 2, 2, 0])
    main = torch.tensor([0, 0, 1, 2, 3])
    items = Items(torch.bincount(item, minlength=5), torch.ones(5).bool(), torch.zeros(5, 4).bool(), main, ("",) * 5, ("",) * 5)
    user = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1])
    return Dataset(user, item, torch.ones(8), torch.arange(8), None, 2, items)


def test_log_entropy_golden_values() -> None:
    """Tags in order: 0 1 0 2 0 | 1 1 0. After 0: 1 and 2; after 1: 0, 1 and 0; after 2: 0. Of pairs in no order,
    {0,1} is followed by 0 and 2, {0,2} by 0, {1,1} by 0; no pair crosses users."""
    entropy, unit = LogEntropy(small_log(), 2), math.log(3)
    one, two = entropy.tables
    third = -(1 / 3 * math.log(1 / 3) + 2 / 3 * math.log(2 / 3))
    assert one.tolist() == pytest.approx([math.log(2) / unit, third / unit, 0.0, 1.0])
    pairs = two.reshape(4, 4)  # the smaller tag first; entropies in units of log 2 tags that follow pairs
    assert [pairs[0, 1].item(), pairs[0, 2].item(), pairs[1, 1].item()] == pytest.approx([1.0, 0.0, 0.0])
    assert (pairs[0, 0].item(), pairs[1, 2].item(), pairs[3, 3].item()) == (1.0, 1.0, 1.0)
    found = entropy(torch.tensor([[1, 2, 3, 4, -1], [3, 0, -1, 0, 0]]))
    k1 = [[one[0], one[1], one[2], 1.0, 1.0], [one[2], one[0], 1.0, one[0], one[0]]]
    k2 = [[1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 1.0, 1.0, 1.0]]
    assert torch.allclose(found, torch.tensor(k1) + torch.tensor(k2))
    assert torch.allclose(LogEntropy(small_log(), 1)(torch.tensor([[1, 2]])), torch.tensor([[one[0], one[1]]]))


def test_a_reward_is_the_prediction_less_doubt_plus_entropy() -> None:
    ensemble, entropy = Ensemble([factors(1), factors(2)], torch.rand(2, 5, 4)), LogEntropy(small_log(), 1)
    slates = torch.tensor([[[0, 3]], [[4, 1]]])
    one, there = torch.ones(2, 1), torch.ones(2, 1, dtype=torch.bool)
    sessions = Sessions(torch.tensor([2]), there, slates, torch.zeros(2, 1, 2), one, one, ~there)
    each = ensemble.probabilities(torch.tensor([2]), torch.tensor([[0, 3, 4, 1]]))[:, 0]
    doubt = ensemble.variances(torch.tensor([2]), torch.tensor([[0, 3, 4, 1]]))[:, 0].max(0).values
    mean = each.mean(0)
    h = torch.stack([entropy.tables[0][tag] for tag in (0, 2, 3, 0)])
    found = shaped_rewards(sessions, ensemble, entropy, 0.1, Config(uncertainty_weight=2.0, entropy_weight=0.7))
    expected = (mean - 2.0 * doubt + 0.7 * h - 0.1).clamp_min(0)
    assert torch.allclose(found[:, 0], expected.reshape(2, 2), atol=1e-6)
    none = shaped_rewards(sessions, ensemble, entropy, 0.1, Config(uncertainty_weight=1000.0, entropy_weight=0.0))
    assert not none.any()


def closed_feed(logs: Dataset) -> Dataset:
    """A log in which popular items are one tag and come in runs, and all others come in any order of tags: the closed loop
    that DORL's entropy is there to open."""
    items = logs.items
    tag = torch.where(items.head, 0, 1 + torch.arange(len(items)) % 7)
    rows = (2 * logs.user + (~items.head[logs.item]).long()).argsort(stable=True)
    return replace(logs.select(rows), items=replace(items, main_tag=tag))


def test_a_larger_entropy_weight_covers_more_of_the_catalogue() -> None:
    """Measured on drawn slates: sixty users' greedy ones are too few to cover anything."""
    coverage, heads = [], []
    for weight in (0.0, 5.0):
        parts = Parts(spec_of("dorl", {"entropy_weight": weight, "learning_rate": 3e-3, "batch": 32}))
        parts.data = replace(parts.data, train=closed_feed(parts.data.train))
        policy = parts.learn(MemoryRecorder(), episodes=1200)
        draw = partial(policy.act, generator=torch.Generator().manual_seed(1))
        sessions = play(parts.test, torch.arange(60), 1, lambda obs, draw=draw: (draw(obs), {}))
        items = parts.data.train.items
        coverage.append(summary(sessions, items)["coverage"])
        heads.append(items.head[sessions.slates[sessions.alive]].float().mean().item())
    assert coverage[1] > 1.2 * coverage[0]
    assert heads[1] < 0.5 * heads[0]


def test_other_responses_in_the_log_give_another_policy() -> None:
    parts = Parts(spec_of("dorl", {}))
    policy = parts.learn(MemoryRecorder())
    parts.data = replace(parts.data, train=replace(parts.data.train, reward=1 - parts.data.train.reward))
    assert not torch.equal(parts.play(parts.learn(MemoryRecorder())).slates, parts.play(policy).slates)


def test_it_learns_from_the_shaped_reward_in_the_learnt_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all doubt and no entropy there is nothing to be earned; without doubt there is."""
    earned = []
    for doubt in (1000.0, 0.0):
        options = {"uncertainty_weight": doubt, "entropy_weight": 0.0, "members": 3, "width": 4, "epochs": 2}
        parts, told = Parts(spec_of("dorl", options)), []
        monkeypatch.setattr(dorl, "learn", lambda *_, told=told, **more: told.append(more))
        parts.learn(MemoryRecorder())
        world = told[0]["within"]
        assert isinstance(world.responses, Ensemble)
        slates = torch.arange(6).expand(20, -1)
        sessions = play(world, torch.arange(20), 1, lambda obs, slates=slates: (slates[: len(obs)] + 6 * obs.step, {}))
        earned.append(told[0]["reward"](sessions)[sessions.alive].mean().item())
    assert earned[0] < 0.02 < earned[1]
