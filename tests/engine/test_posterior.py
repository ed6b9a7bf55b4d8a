"""What draws are worth: coverage measures that know a right region from a wrong one, and the report as a whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from engine import posterior, run
from engine.contracts import Obs
from engine.options import BadInput
from small import small_spec

QUICK = {"training_steps": 300, "parts": 6000, "hidden": 32, "steps": 4}


class Drawn:
    """A view whose draws are a Gaussian of known mean and spread."""

    def __init__(self, mean: Tensor, spread: Tensor) -> None:
        self.mean, self.spread, self.target_std = mean, spread, torch.ones(mean.shape[1])

    def __call__(self, obs: Obs, *, samples: int, generator: torch.Generator) -> Tensor:
        noise = torch.randn(len(obs), samples, self.mean.shape[1], generator=generator)
        return self.mean[obs.users].unsqueeze(1) + self.spread * noise


def covered(size: float) -> dict[str, float]:
    """Coverage of draws whose spread is `size` times that of the target."""
    generator = torch.Generator().manual_seed(0)
    mean, spread = torch.randn(1500, 6, generator=generator), torch.tensor([0.1, 0.5, 1.0, 1.0, 2.0, 3.0])
    target = mean + spread * torch.randn(1500, 6, generator=generator)
    nothing = torch.zeros(1500, 1)
    obs = Obs(torch.arange(1500), 0, nothing.long(), nothing, 0, nothing[:0], nothing[:0, 0])
    view: Any = Drawn(mean, size * spread)
    return posterior.coverage(view, obs, target, generator)


def test_a_right_region_covers_nine_in_ten() -> None:
    found = covered(1.0)
    assert found["interval"] == pytest.approx(0.9, abs=0.01)
    assert found["ellipsoid"] == pytest.approx(0.9, abs=0.015)
    assert found["spread"] == pytest.approx(found["error"], rel=0.06)


def test_draws_that_agree_too_much_cover_less_and_wide_ones_more() -> None:
    assert covered(0.5)["interval"] < 0.65
    assert covered(0.5)["ellipsoid"] < 0.4
    assert covered(2.0)["interval"] > 0.98


def test_the_report_knows_lengths_and_ways() -> None:
    spec = small_spec(method="random", purifier="diffusion", settings={"purifier": QUICK})
    found = posterior.posterior_report(spec, None)
    assert list(found["coverage"]) == ["1", "3", "5", "12"]
    assert list(found["sessions"]) == ["0", "3", "12"]
    assert set(found["slates"]["3"]) == set(found["sessions"]["3"]) == {"regression", "estimate", "draws", "noise"}
    assert found["sessions"]["3"]["regression"]["gain"] == 0
    assert found["coverage"]["1"]["spread"] > found["coverage"]["12"]["spread"], "more is known, less is in doubt"
    assert found["slates"]["12"]["estimate"]["liking"] > found["slates"]["1"]["estimate"]["liking"]
    for rows in found["slates"].values():
        assert rows["draws"]["interests"] > rows["estimate"]["interests"], "draws spread over interests"
    assert posterior.posterior_report(spec, None) == found, "equal seeds, equal report"
    several = posterior.posterior_report(spec, [11, 15])
    value = several["sessions"]["0"]["draws"]["gain"]
    assert value["low"] <= value["mean"] <= value["high"]


def test_it_needs_a_diffusion() -> None:
    for changes in ({"purifier": "regression"}, {"purifier": "diffusion", "settings": {"purifier": {"target": "observed"}}}):
        with pytest.raises(BadInput, match="draws are those of a diffusion with target=interest"):
            posterior.posterior_report(small_spec(method="random", **changes), None)


def test_balanced_slates_keep_their_rules() -> None:
    spec = small_spec(method="random", purifier="diffusion", settings={"purifier": QUICK})
    data = run.load_data(spec)
    world, _ = run.make_world(spec, data, "test")
    obs = world.reset(torch.arange(20), 0)
    head, view = data.train.items.head, Ranked(len(data.train.items))
    for _ in range(3):
        slate = posterior._balanced(view, torch.zeros(20, 2, 1), head, 6, obs.shown)  # type: ignore[arg-type]
        assert (head[slate].sum(1) == 3).all()
        assert all(len(set(row)) == 6 for row in slate.tolist())
        assert not (obs.shown.unsqueeze(2) == slate.unsqueeze(1)).any()
        obs = world.step(slate).obs


class Ranked:
    """Scores that prefer small ids."""

    def __init__(self, items: int) -> None:
        self.items = items

    def predict(self, state: Tensor) -> Tensor:
        return -torch.arange(self.items).float().expand(len(state), -1)


def test_the_last_known_rows_are_the_newest() -> None:
    data = run.load_data(small_spec(method="random"))
    kept = posterior.last_known(data.test_start, 3)
    assert (kept.lengths() == 3).all()
    whole = data.test_start
    assert torch.equal(kept.item.view(-1, 3), whole.item.view(-1, 12)[:, -3:])
