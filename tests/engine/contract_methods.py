"""What every method must do, row by row of the table."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine import catalog, run
from engine.contracts import Budget, Obs, Policy, Sessions
from engine.evaluate import evaluation_users, sessions_of
from engine.options import BadInput, Stopped
from engine.recorder import MemoryRecorder
from engine.run import Result
from engine.spec import RunSpec
from engine.state.stage import Stage
from engine.world.simulator import Simulator
from small import small_spec

VARIANTS: dict[str, list[dict[str, Any]]] = {  # beside each method's defaults
    "dsrm_hrl": [
        {"constraint": "weight"},
        {"hierarchical": False},
        {"conditioned": False, "manager_every": 3, "fair": "tail"},
        {"fair": "gini", "worker_gamma": 0.9},
    ],
    "a2c": [{"credit": "slate"}],
    "dnair": [{"explore": "epsilon"}],
    "balanced": [{"heads": 1}],
    "mofir": [{"omega": 0.95}],
    "sac4ir": [{"reward": "click_through"}],
    "bcq": [
        {"threshold": 0.05, "n_step": 1, "target_every": 7},
        {"kind": "continuous", "candidates": 7, "target_candidates": 3},
    ],
    "dorl": [{"window": 1, "members": 2, "entropy_weight": 2.0}],
}
ROWS = [(name, variant) for name in catalog.TABLES["methods"] for variant in [{}, *VARIANTS.get(name, [])]]
IDS = [name + "".join(f" {key}={value}" for key, value in variant.items()) for name, variant in ROWS]
SMALL_BATCHES: dict[str, dict[str, Any]] = {
    "a2c": {"users": 40, "batch": 128, "hidden": 16},
    "bcq": {"users": 40, "batch": 128, "hidden": 16},
    "dorl": {"users": 40, "batch": 128, "hidden": 16, "members": 3, "width": 4, "epochs": 3},
    "dnair": {"users": 40, "batch": 64, "hidden": 16, "updates": 4, "warm_up": 40},
    "sac4ir": {"users": 40, "batch": 64, "hidden": 16, "updates": 4, "warm_up": 40},
    "td3": {"users": 40, "batch": 64, "updates": 4, "warm_up": 40, "replay": 64, "hidden": 16},
    "mofir": {"users": 40, "batch": 64, "updates": 4, "warm_up": 40, "replay": 64, "hidden": 16},
    "dsrm_hrl": {"users": 40, "batch": 128, "hidden": 16},
}
PREPARES = {"bcq": "stopped while making the states of the log", "dorl": "stopped while fitting the world model"}
PLAYS_NOTHING = {"bcq"}  # learns from the log alone: no sessions of its own to report on
every_method = pytest.mark.parametrize(("name", "variant"), ROWS, ids=IDS)
LEARNERS = [place for place, (name, _) in enumerate(ROWS) if catalog.find("methods", name).LEARNS]
every_learner = pytest.mark.parametrize(
    ("name", "variant"), [ROWS[place] for place in LEARNERS], ids=[IDS[place] for place in LEARNERS]
)


def spec_of(name: str, variant: Mapping[str, Any], **changes: Any) -> RunSpec:
    settings = {"method": {**SMALL_BATCHES.get(name, {}), **variant}}
    return small_spec(method=name, purifier=changes.pop("purifier", "identity"), settings=settings, **changes)


class Parts:
    """A world, states and logs to train in."""

    def __init__(self, spec: RunSpec) -> None:
        torch.set_num_threads(1)
        self.spec, self.data = spec, run.load_data(spec)
        self.view = run.purify(spec, Stage(self.data, spec.config("state"), spec.seed))
        self.choosing = run.choosing(self.view, self.data)
        self.train: Simulator = run.make_world(spec, self.data, "train")[0]
        self.test: Simulator = run.make_world(spec, self.data, "test")[0]

    def learn(self, recorder: MemoryRecorder, seed: int | None = None, episodes: int | None = None) -> Policy:
        spec, module = self.spec, catalog.find("methods", self.spec.method)
        generator = torch.Generator().manual_seed(spec.seed if seed is None else seed)
        budget = Budget(spec.episodes if episodes is None else episodes)
        policy: Policy = module.train(
            self.train, self.choosing, self.data.lessons(), spec.config("method"), budget, recorder, generator
        )
        return policy

    def play(self, policy: Policy) -> Sessions:
        return sessions_of(self.test, policy, evaluation_users(self.test, 60, 0))


@functools.cache
def trained(name: str, variant: tuple[tuple[str, Any], ...]) -> tuple[Parts, Policy, MemoryRecorder]:
    parts, recorder = Parts(spec_of(name, dict(variant))), MemoryRecorder()
    return parts, parts.learn(recorder), recorder


def known(name: str, variant: Mapping[str, Any]) -> tuple[Parts, Policy, MemoryRecorder]:
    return trained(name, tuple(variant.items()))


@every_method
def test_no_item_comes_twice_in_a_session(name: str, variant: dict[str, Any]) -> None:
    parts, policy, _ = known(name, variant)
    sessions = parts.play(policy)
    assert sessions.slates.shape[2] == 6
    for user in range(60):
        shown = sessions.slates[:, user][sessions.alive[:, user]].flatten().tolist()
        assert len(shown) == len(set(shown))
        assert 0 <= min(shown) <= max(shown) < 360


@every_method
def test_drawn_slates_keep_the_rules_too(name: str, variant: dict[str, Any]) -> None:
    parts, policy, _ = known(name, variant)
    generator = torch.Generator().manual_seed(4)
    if hasattr(policy, "reveal"):
        policy.reveal(parts.test.click_probabilities)
    obs = parts.test.reset(torch.arange(20), 1)
    for _ in range(5):
        slate = policy.act(obs, generator=generator)
        assert slate.shape == (20, 6)
        assert slate.dtype == torch.int64
        assert not (obs.shown.unsqueeze(2) == slate.unsqueeze(1)).any()
        assert all(len(set(row)) == 6 for row in slate.tolist())
        obs = parts.test.step(slate).obs


@every_method
def test_losses_and_curves_are_finite(name: str, variant: dict[str, Any]) -> None:
    _, _, recorder = known(name, variant)
    for scalar, points in recorder.history.items():
        assert all(value == value and abs(value) < 1e9 for value in points.values()), scalar
    if catalog.find("methods", name).LEARNS:
        assert {"len", "r_each", "r_cum", "ad", "episodes", "user_steps"} <= set(recorder.history)
        assert ("train_len" in recorder.history) == (name not in PLAYS_NOTHING)
        assert max(recorder.history["episodes"].values()) == 120


@every_method
def test_equal_seeds_give_equal_curves_and_others_do_not(name: str, variant: dict[str, Any]) -> None:
    parts, policy, recorder = known(name, variant)
    again, other = MemoryRecorder(), MemoryRecorder()
    assert torch.equal(parts.play(parts.learn(again)).slates, parts.play(policy).slates)
    assert again.history == recorder.history
    if catalog.find("methods", name).LEARNS:
        parts.learn(other, seed=99)
        assert other.history != recorder.history


class Interrupted(MemoryRecorder):
    """Asks to stop after some checkpoints."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def checkpoint(self, state: dict[str, Any]) -> None:
        super().checkpoint(state)
        self.after -= 1

    def stop_requested(self) -> bool:
        return self.after <= 0


@every_learner
def test_a_stopped_run_goes_on_to_the_same_end(name: str, variant: dict[str, Any]) -> None:
    parts, policy, recorder = known(name, variant)
    first = Interrupted(after=2)
    with pytest.raises(Stopped):
        parts.learn(first)
    assert first.kept is not None
    assert first.kept["count"]["episodes"] < 120
    second = MemoryRecorder()
    second.kept = first.kept
    resumed = parts.learn(second)
    joined = {scalar: {**first.history.get(scalar, {}), **points} for scalar, points in second.history.items()}
    assert joined == recorder.history
    assert torch.equal(parts.play(resumed).slates, parts.play(policy).slates)


@every_learner
def test_a_stop_is_heard_before_training_too(name: str, variant: dict[str, Any]) -> None:
    """Once somebody has asked, nothing is prepared to the end, and at most one round is played."""
    recorder = Interrupted(after=0)
    with pytest.raises(Stopped, match=PREPARES.get(name, "stopped after")):
        known(name, variant)[0].learn(recorder)
    assert recorder.kept is None or recorder.kept["count"]["episodes"] <= 40


@every_method
def test_a_kept_policy_acts_the_same(name: str, variant: dict[str, Any], tmp_path: Path) -> None:
    from engine import checkpoint

    parts, policy, _ = known(name, variant)
    checkpoint.write_tensors(tmp_path / "policy.pt", policy.state_dict())
    state = checkpoint.read_tensors(tmp_path / "policy.pt")
    assert state is not None
    loaded = catalog.find("methods", name).load_policy(state, parts.view, parts.data.train.items, parts.spec.config("method"))
    assert torch.equal(parts.play(loaded).slates, parts.play(policy).slates)


@every_method
def test_a_policy_takes_the_lam_that_its_spec_tells(name: str, variant: dict[str, Any]) -> None:
    """Sliders ask the spec: `default` is what the policy serves anyway, `most` is taken, and whoever has no λ refuses it."""
    parts, policy, _ = known(name, variant)
    moves, tell = parts.spec.lam_range(), getattr(policy, "with_lam", None)
    if moves is None:
        if tell is not None:
            with pytest.raises(BadInput, match=r"lam = 0\.5 is not legal"):
                tell(0.5)
        return
    assert tell is not None
    assert 0 <= moves.default <= moves.most
    usual = parts.play(policy).slates
    assert torch.equal(parts.play(tell(moves.default)).slates, usual)
    for lam in (0.0, moves.most):
        assert parts.play(tell(lam)).user_steps > 0
    with pytest.raises(BadInput, match=r"lam = -0\.5 is not legal"):
        tell(-0.5)


@every_method
def test_a_users_session_does_not_depend_on_company(name: str, variant: dict[str, Any]) -> None:
    parts, policy, _ = known(name, variant)
    together = parts.play(policy)
    alone = sessions_of(parts.test, policy, torch.tensor([7]))
    row = int((together.users == 7).nonzero())
    length = len(alone.slates)
    assert torch.equal(alone.slates[:, 0], together.slates[:length, row])
    assert not together.alive[length:, row].any()


@every_learner
def test_user_steps_are_a_budget_too(name: str, variant: dict[str, Any]) -> None:
    parts, _, _ = known(name, variant)
    recorder = MemoryRecorder()
    module, spec = catalog.find("methods", name), parts.spec
    module.train(parts.train, parts.view, parts.data.train, spec.config("method"), Budget(0, 300), recorder, torch.Generator())
    steps = sorted(recorder.history["user_steps"].values())
    assert steps[-1] >= 300
    assert len(steps) == 1 or steps[-2] < 300


@pytest.mark.parametrize("name", list(catalog.TABLES["methods"]))
@pytest.mark.parametrize("purifier", ["regression", "diffusion"])
def test_any_method_runs_behind_any_purifier_to_a_result(name: str, purifier: str, tmp_path: Path) -> None:
    result = run.run(spec_of(name, {}, purifier=purifier, episodes=80), MemoryRecorder(), tmp_path)
    check_result(result, name)
    loaded = run.load_run(tmp_path)
    played = loaded.play(evaluation_users(loaded.world, 60, 0), states=True)
    assert played.rewards.sum(0).mean().item() == pytest.approx(result.metrics["r_cum"], rel=1e-5)
    width = loaded.view.items.shape[1]
    assert played.notes["state"].shape == played.notes["raw"].shape == (*played.alive.shape, width)


def check_result(result: Result, name: str) -> None:
    metrics = result.metrics
    assert {"len", "r_each", "r_cum", "ad", "gini", "coverage", "utility", "seconds", "peak_rss_mb", "spec"} <= set(metrics)
    assert 1 <= metrics["len"] <= 8
    assert 0 <= metrics["r_each"] <= 1
    assert 0 <= metrics["ad"] <= 1
    assert metrics["evaluation_episodes"] == 60
    assert metrics["episodes"] == (80 if catalog.find("methods", name).LEARNS else 0)
    assert {len(column) for column in result.episodes.values()} == {60}


class Probe:
    """Notes the observations that a policy is shown."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.seen = policy, 0

    def act(self, obs: Obs, *, generator: torch.Generator | None = None) -> Tensor:
        self.seen += len(obs)
        return self.policy.act(obs, generator=generator)

    def state_dict(self) -> dict[str, Any]:
        return {}


def test_users_who_left_are_not_asked_forever() -> None:
    """Finished sessions leave the batch: the policy sees few more observations than there are live user-steps."""
    parts, policy, _ = known("random", {})
    probe = Probe(policy)
    sessions = sessions_of(parts.test, probe, torch.arange(60))
    assert sessions.user_steps <= probe.seen <= 1.3 * sessions.user_steps
