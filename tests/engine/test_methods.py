"""Directions and limits of single methods."""

from __future__ import annotations

import functools

import pytest
import torch

from contract_methods import Parts, known, spec_of
from engine import catalog, run
from engine.contracts import Budget, Policy
from engine.learn.inputs import policy_inputs
from engine.methods.dsrm_hrl import fairness
from engine.metrics import summary
from engine.options import BadInput
from engine.recorder import MemoryRecorder
from small import small_spec


@functools.cache
def measured(name: str, purifier: str = "identity", **options: object) -> dict[str, float]:
    """Metrics on the small world after 1,200 episodes where the method learns."""
    parts = Parts(spec_of(name, options, purifier=purifier))
    policy = parts.learn(MemoryRecorder(), episodes=1200)
    return summary(parts.play(policy), parts.data.train.items, parts.data.truth)


def test_references_stand_in_their_known_order() -> None:
    random, popular, greedy = measured("random"), measured("popular"), measured("greedy")
    balanced, oracle = measured("balanced"), measured("oracle")
    assert popular["ad"] > 0.9
    assert balanced["ad"] == 0.0
    assert balanced["len"] > max(random["len"], popular["len"], greedy["len"])
    assert greedy["r_each"] > random["r_each"]
    assert oracle["r_cum"] > max(m["r_cum"] for m in (random, popular, greedy, balanced))
    assert oracle["ad"] <= 0.34  # quotas of 2, 3 or 4 of 6 are the ones below the bound


def test_popular_is_penalised_at_every_step_as_long_as_heads_last() -> None:
    parts, policy, _ = known("popular", {})
    sessions = parts.play(policy)
    heads = (parts.data.train.items.head[sessions.slates.clamp_min(0)]).all(2)
    assert torch.equal(sessions.penalised & sessions.alive, heads & sessions.alive)
    assert (sessions.penalised & sessions.alive).sum() == sessions.user_steps


def test_fixed_weights_takes_the_best_of_its_grid() -> None:
    _parts, policy, recorder = known("fixed_weights", {})
    rewards, weights = recorder.history["grid_r_cum"], recorder.history["omega_fair"]
    best = max(rewards, key=lambda place: rewards[place])
    assert policy.state_dict()["omega_fair"] == weights[best]


def test_a_larger_constant_weight_shows_fewer_heads() -> None:
    shares = [measured("fixed_weights", omega_fair=omega)["ad_session"] for omega in (-4.0, 0.0)]
    assert shares[0] > shares[1]


def test_the_workers_scores_are_equation_6() -> None:
    """Ψ/τ = (ω_acc·(κ·cos(f(ŝ), e_i) + b_i) − ω_fair·log pop_i) / τ, although it is one product."""
    parts, policy, _ = known("dsrm_hrl", {})
    worker = policy.worker  # type: ignore[attr-defined]
    obs = parts.test.reset(torch.arange(20), 1)
    state = parts.view(obs)
    inputs = policy_inputs(parts.view, state, obs, 6, 8)
    accuracy, fair = torch.linspace(0.5, 2, 20), torch.linspace(-1, 1, 20)
    psi = accuracy[:, None] * worker.scorer(inputs, state) - fair[:, None] * worker.scorer.level
    wanted = psi * worker.log_sharpness.exp()
    assert torch.allclose(worker.scores(inputs, state, accuracy, fair), wanted, atol=1e-4)


def test_dsrm_hrl_learns_to_balance_and_to_please() -> None:
    ours, random, popular = measured("dsrm_hrl"), measured("random"), measured("popular")
    assert ours["ad"] < 0.15
    assert ours["len"] > max(random["len"], popular["len"])
    assert ours["r_cum"] > max(random["r_cum"], popular["r_cum"])


def test_the_paper_s_letter_learns_too() -> None:
    """constraint=weight: Eq. 6 alone."""
    ours, popular = measured("dsrm_hrl", constraint="weight"), measured("popular")
    assert ours["r_cum"] > popular["r_cum"]
    assert ours["ad"] < popular["ad"]


def test_lambda_moves_a_conditioned_policy_and_only_so_far() -> None:
    parts, policy, _ = known("dsrm_hrl", {})
    with pytest.raises(BadInput, match=r"lam = 3 is not legal: this policy met λ from 0 to method\.lam_max = 2"):
        policy.with_lam(3)  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match="not conditioned on it"):
        known("dsrm_hrl", {"conditioned": False, "manager_every": 3, "fair": "tail"})[1].with_lam(1)  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match="not conditioned on it"):
        known("dsrm_hrl", {"hierarchical": False})[1].with_lam(1)  # type: ignore[attr-defined]
    assert policy.with_lam(0.0).lam == 0.0  # type: ignore[attr-defined]
    assert parts.play(policy.with_lam(2.0)).user_steps > 0  # type: ignore[attr-defined]


def test_raising_lam_lowers_ad() -> None:
    """Where no rule of the world asks for balance: one run, told more and more."""
    settings = {"world": {"ad_bound": 1.1}, "method": {"users": 40, "batch": 128, "hidden": 16}}
    parts = Parts(small_spec(method="dsrm_hrl", purifier="identity", settings=settings))
    policy = parts.learn(MemoryRecorder(), episodes=1200)
    told = [parts.play(policy.with_lam(lam)) for lam in (0.0, 0.5, 2.0)]  # type: ignore[attr-defined]
    found = [summary(sessions, parts.data.train.items)["ad"] for sessions in told]
    assert found[0] > found[1] >= found[2] == 0.0


def test_the_manager_decides_every_c_steps() -> None:
    parts, policy, _ = known("dsrm_hrl", {"conditioned": False, "manager_every": 3, "fair": "tail"})
    notes = parts.play(policy).notes
    omega = notes["omega_acc"]
    there = parts.play(policy).alive
    assert torch.equal(omega[0][there[2]], omega[2][there[2]])
    assert not torch.equal(omega[2][there[3]], omega[3][there[3]])


def test_manager_and_worker_share_no_parameter() -> None:
    """Hierarchical gradient separation."""
    _, policy, _ = known("dsrm_hrl", {})
    manager = {id(p) for p in policy.manager.parameters()}  # type: ignore[attr-defined]
    assert manager.isdisjoint(id(p) for p in policy.worker.parameters())  # type: ignore[attr-defined]


@pytest.mark.parametrize(("kind", "best"), [("balance", 3), ("tail", 0)])
def test_fair_is_never_negative_and_best_where_it_says(kind: str, best: int) -> None:
    parts, policy, _ = known("random", {})
    sessions, items = parts.play(policy), parts.data.train.items
    fair = fairness(sessions, items, kind)
    assert fair.min() >= 0
    assert (fair[~sessions.alive] == 0).all()
    heads = items.head[sessions.slates.clamp_min(0)].sum(2)[sessions.alive]
    values = fair[sessions.alive]
    assert values[heads == best].min() > values[heads != best].max() - 1e-6


def test_fair_by_gini_prefers_spread_exposure() -> None:
    spread, popular = known("random", {}), known("popular", {})
    a, b = (fairness(p.play(q), p.data.train.items, "gini").max().item() for p, q, _ in (spread, popular))
    assert a > b >= 0


def test_heads_run_out_without_breaking_the_session() -> None:
    """A catalogue with too few heads for every quota: what is left decides."""
    spec = small_spec(
        method="balanced",
        settings={"dataset": {"items": 50}, "world": {"slate": 6, "max_len": 8}, "method": {"heads": 6}},
    )
    parts = Parts(spec)
    sessions = parts.play(parts.learn(MemoryRecorder()))
    shown = sessions.slates[:, 0][sessions.alive[:, 0]].flatten().tolist()
    assert len(shown) == len(set(shown))


def test_a_quota_larger_than_the_slate_is_refused() -> None:
    parts = Parts(spec_of("balanced", {"heads": 7}))
    with pytest.raises(BadInput, match=r"method\.heads = 7 is not legal"):
        parts.learn(MemoryRecorder())


def test_the_oracle_acts_only_when_shown_the_truth() -> None:
    parts = Parts(spec_of("oracle", {}))
    policy: Policy = catalog.find("methods", "oracle").train(
        parts.train, parts.view, parts.data.train, parts.spec.config("method"), Budget(0), MemoryRecorder(), torch.Generator()
    )
    with pytest.raises(RuntimeError, match="was not shown the truth"):
        policy.act(parts.test.reset(torch.arange(3), 0))


def test_a_spec_for_a_gpu_that_is_not_there_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(BadInput, match="device = 'cuda' is not legal"):
        run.device_of(small_spec(device="cuda"))
