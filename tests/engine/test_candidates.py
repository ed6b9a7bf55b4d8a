"""Large catalogues: exact top-K in blocks, the choice of candidates, and that policies keep to them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from contract_methods import LEARNERS, ROWS, Parts, spec_of
from engine import candidates, catalog, factors, run
from engine.contracts import Data
from engine.evaluate import sessions_of
from engine.factors import factorise
from engine.options import BadInput
from engine.recorder import MemoryRecorder
from engine.run import Trained
from engine.state.stage import Stage
from small import small_spec
from test_export import check

CHOSEN = {"state": {"candidates": 120}}
METHODS = [*[(ROWS[place][0], ROWS[place][1]) for place in LEARNERS if not ROWS[place][1]], ("bcq", {"kind": "continuous"})]
METHODS += [(name, {}) for name in catalog.TABLES["methods"] if not catalog.find("methods", name).LEARNS]


def narrow_spec(method: str = "random", **changes: Any) -> Any:
    return small_spec(method=method, settings=CHOSEN, **changes)


@pytest.fixture(scope="module")
def narrow() -> Data:
    return run.load_data(narrow_spec())


@pytest.mark.parametrize("count", [1, 7, 300])
@pytest.mark.parametrize("items", [5, 640, 1003])
def test_top_in_blocks_is_exact(items: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "BLOCK", 256)
    monkeypatch.setattr(candidates, "RUN", 8)
    monkeypatch.setattr(candidates, "USERS", 3)
    generator = torch.Generator().manual_seed(1)
    queries, vectors = torch.randn(7, 5, generator=generator), torch.randn(items, 5, generator=generator)
    bias = torch.randn(items, generator=generator)
    scores, ids = candidates.top_in_blocks(queries, vectors, bias, count)
    wanted = (queries @ vectors.T + bias).topk(min(count, items), dim=1)
    assert torch.allclose(scores, wanted.values, atol=1e-5)
    assert torch.equal(ids, wanted.indices)


def test_a_small_catalogue_stays_as_it_is(data: Data) -> None:
    assert candidates.narrowed(data, len(data.train.items)) is data
    assert data.choice("train") is data.train.items
    assert data.lessons() is data.train


def test_the_same_platform_under_other_ids(data: Data, narrow: Data) -> None:
    """What the log says of a title, how users answer to it, and the truth, are what they were."""
    assert narrow.candidates is not None
    order = narrow.candidates.order
    assert order.sort().values.tolist() == list(range(360))
    assert narrow.train.items.titles == tuple(data.train.items.titles[i] for i in order.tolist())
    for name in ("train", "test", "train_start", "test_start"):
        old, new = getattr(data, name), getattr(narrow, name)
        assert torch.equal(order[new.item], old.item)
        assert torch.equal(new.items.popularity, old.items.popularity[order])
        assert torch.equal(new.items.head, old.items.head[order])
    assert torch.equal(torch.bincount(narrow.train.item, minlength=360), narrow.train.items.popularity)
    users, items = torch.arange(5), torch.arange(360).expand(5, -1)
    assert data.truth is not None
    assert narrow.truth is not None
    assert torch.allclose(narrow.truth.genuine(users, items), data.truth.genuine(users, order.expand(5, -1)))
    worlds = [run.make_world(small_spec(method="random"), one, "test")[0] for one in (data, narrow)]
    answers = [world.responses.session(users).everything() for world in worlds]
    assert torch.allclose(answers[1], answers[0][:, order])
    assert narrow.fingerprint != data.fingerprint


def test_runs_know_a_dataset_by_its_choice(data: Data, narrow: Data) -> None:
    """Who only has counted it finds what was kept about it, and a policy is never shown another choice."""
    heads = int(data.train.items.head.sum())
    assert candidates.known(data.fingerprint, 360, heads, 120) == narrow.fingerprint
    assert candidates.known(data.fingerprint, 360, heads, 360) == data.fingerprint
    assert candidates.known(data.fingerprint, 360, heads + 1, 120) is None
    assert narrow.candidates is not None
    order = narrow.candidates.order.clone()
    order[[0, 1]] = order[[1, 0]]
    assert candidates.reordered(data, replace(narrow.candidates, order=order)).fingerprint != narrow.fingerprint


def test_candidates_have_the_catalogues_share_of_heads(data: Data, narrow: Data) -> None:
    share = data.train.items.head.float().mean()
    assert abs(narrow.choice("train").head.float().mean() - share) < 1 / 120
    assert len(narrow.choice("test")) == 120


def test_candidates_are_a_better_choice_than_chance_or_popularity(data: Data, narrow: Data) -> None:
    """By what test users would truly like best of them, heads and tails apart, beside the best of the whole catalogue."""
    assert narrow.candidates is not None
    assert data.truth is not None
    head, order = data.train.items.head, narrow.candidates.order[:120]
    liking = data.truth.genuine(torch.arange(60), torch.arange(360).expand(60, -1))
    noise = torch.rand(360, generator=torch.Generator().manual_seed(0))

    def kept(rank: torch.Tensor) -> list[float]:
        shares = []
        for group in (head, ~head):
            ids = group.nonzero()[:, 0]
            own = ids[rank[ids].topk(int(group[order].sum())).indices]
            shares.append(float(liking[:, own].topk(10).values.mean() / liking[:, ids].topk(10).values.mean()))
        return shares

    ours = kept(torch.zeros(360).index_fill(0, order, 1.0))
    popular, chance = kept(data.train.items.popularity.float()), kept(noise)
    for others in (popular, chance):
        assert all(own > other + 0.03 for own, other in zip(ours, others, strict=True)), (ours, others)


def test_the_choice_is_measured(data: Data, narrow: Data) -> None:
    """Everything chosen is everything found; what the data tells is what the choice has."""
    assert narrow.candidates is not None
    stage = Stage(data, candidates.StateConfig(), 0)
    view = candidates.identity.fit(stage, candidates.identity.Config(), stage.generator(100))
    obs, known = stage.starts()
    states = view(obs)[known]
    whole = candidates._measured(view, states, torch.ones(360, dtype=torch.bool))
    assert whole == {"recall_at_10": 1, "recall_at_100": 1, "kept_at_10": 1, "users": len(states)}
    scores = (view.predict(states) - view.offset).topk(10, dim=1)
    chosen = torch.zeros(360, dtype=torch.bool)
    chosen[narrow.candidates.order[:120]] = True
    assert abs(candidates._measured(view, states, chosen)["recall_at_10"] - chosen[scores.indices].float().mean()) < 1e-3
    assert 0.5 < narrow.candidates.measured["recall_at_10"] < 1


def test_the_choice_does_not_depend_on_the_runs_seed_or_states() -> None:
    one = run.load_data(small_spec(method="random", seed=11, settings=CHOSEN))
    other = run.load_data(small_spec(method="random", seed=19, settings={"state": {"candidates": 120, "width": 6}}))
    assert one.fingerprint == other.fingerprint
    assert one.candidates is not None
    assert other.candidates is not None
    assert torch.equal(one.candidates.order, other.candidates.order)


def test_another_head_share_chooses_anew() -> None:
    usual = run.load_data(narrow_spec())
    wide = run.load_data(small_spec(method="random", settings={**CHOSEN, "world": {"head_share": 0.4}}))
    assert wide.fingerprint != usual.fingerprint
    assert abs(wide.choice("train").head.float().mean() - 0.4) < 1 / 120


def test_too_few_candidates_for_a_session_are_refused() -> None:
    spec = small_spec(method="random", settings={"state": {"candidates": 100}, "world": {"slate": 10, "max_len": 12}})
    with pytest.raises(BadInput, match=r"120 is not legal: without repeats .* has 100"):
        run.load_data(spec)


def test_states_are_those_of_whole_histories(narrow: Data) -> None:
    """Histories hold items that are no candidates, and the state is made of them too."""
    spec = narrow_spec(purifier="identity")
    view = run.purify(spec, Stage(narrow, spec.config("state"), 11))
    told = run.choosing(view, narrow)
    obs, _ = Stage(narrow, spec.config("state"), 11).starts()
    assert int(obs.history.max()) >= 120
    assert torch.equal(told(obs), view(obs))
    assert torch.equal(told.predict(view(obs)), view.predict(view(obs))[:, :120])
    assert told.items.shape == (120, 8)


@pytest.mark.parametrize(("name", "variant"), METHODS, ids=[f"{name}{'' if not v else ' continuous'}" for name, v in METHODS])
def test_every_method_shows_candidates_alone(name: str, variant: dict[str, Any]) -> None:
    spec = spec_of(name, variant, episodes=40)
    settings = {**spec.settings, "state": {**spec.settings["state"], "candidates": 120}}
    parts = Parts(replace(spec, settings=settings))
    policy = parts.learn(MemoryRecorder())
    if hasattr(policy, "reveal"):
        policy.reveal(parts.test.click_probabilities)
    sessions = sessions_of(parts.test, policy, torch.arange(60))
    assert int(sessions.slates.max()) < 120
    for user in range(60):
        shown = sessions.slates[:, user][sessions.alive[:, user]].flatten().tolist()
        assert len(shown) == len(set(shown))
    if hasattr(policy, "rank") and name in ("dsrm_hrl", "td3"):
        check(Trained(parts.spec, parts.data, parts.test, parts.view, policy, parts.view.items))


def test_a_run_measures_its_candidates_and_the_whole_catalogue(tmp_path: Any) -> None:
    spec = narrow_spec("a2c", purifier="identity", episodes=40)
    found = run.run(spec, MemoryRecorder(), tmp_path).metrics
    assert found["candidates"]["items"] == 120
    assert 0 < found["candidates"]["recall_at_10"] <= 1
    assert found["coverage"] <= 120 / 360
    again = run.evaluate_run(tmp_path, episodes=60)
    assert again["r_cum"] == found["r_cum"]
    assert again["gini"] == found["gini"]


@pytest.mark.parametrize("disentangle", [False, True])
def test_lazy_adam_predicts_about_as_well(data: Data, disentangle: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond LARGE users or items a step moves only what its rows are about."""
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))
    held, rest = order[:2000], data.train.select(order[2000:].sort().values)

    def loss() -> float:
        found = factorise(
            rest, width=8, epochs=6, learning_rate=0.02, decay=20.0, generator=torch.Generator().manual_seed(1),
            disentangle=disentangle,
        )  # fmt: skip
        logit = found.logit(data.train.user[held], data.train.item[held])
        return float(torch.nn.functional.binary_cross_entropy_with_logits(logit, data.train.reward[held]))

    dense = loss()
    monkeypatch.setattr(factors, "LARGE", 100)
    lazy = loss()
    rate = data.train.reward.mean()
    blind = float(-(rate * rate.log() + (1 - rate) * (1 - rate).log()))
    assert lazy != dense
    assert dense < blind - 0.02
    assert lazy < dense + 0.1 * (blind - dense)
