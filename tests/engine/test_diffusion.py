"""The diffusion purifier: its processes, the trap in the paper's loss, and what the debiased target changes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from engine import catalog, run
from engine.contracts import Data
from engine.options import BadInput
from engine.purify.diffusion import Bridge, Config, Noise
from engine.purify.interest import draw_samples
from engine.report import purify_report
from engine.state.stage import Stage
from small import small_spec


def test_alpha_bar_is_the_running_product_of_alpha() -> None:
    process = Noise(Config(steps=7, target="observed"))
    assert torch.allclose(process.alpha.cumprod(0), process.alpha_bar, atol=1e-6)
    assert process.alpha_bar[0] == 1
    assert process.alpha_bar[-1] == pytest.approx(0.7)


def test_noise_has_the_marginals_of_eq_2() -> None:
    process = Noise(Config(steps=10, target="observed"))
    generator = torch.Generator().manual_seed(0)
    clean = torch.full((200_000, 1), 2.0)
    x = process.corrupt(clean, clean, torch.full((200_000,), 6), torch.randn(200_000, 1, generator=generator))
    bar = process.alpha_bar[6].item()
    assert x.mean().item() == pytest.approx(2 * math.sqrt(bar), abs=0.01)
    assert x.var().item() == pytest.approx(1 - bar, abs=0.01)


def test_eq_3_walks_the_marginals_back() -> None:
    """With the true noise as prediction, one step of Eq. 3 from level k has level k−1's mean and variance."""
    process = Noise(Config(steps=10, target="observed"))
    generator = torch.Generator().manual_seed(0)
    clean = torch.full((200_000, 1), 2.0)
    noise = torch.randn(200_000, 1, generator=generator)
    x = process.corrupt(clean, clean, torch.full((200_000,), 8), noise)
    back = process.reverse(x, clean, 8, 7, torch.randn(200_000, 1, generator=generator))
    bar = process.alpha_bar[7].item()
    assert back.mean().item() == pytest.approx(2 * math.sqrt(bar), abs=0.01)
    assert back.var().item() == pytest.approx(1 - bar, abs=0.01)
    quiet = process.reverse(x, clean, 8, 7, None)
    assert torch.allclose(quiet, process.corrupt(clean, clean, torch.full((200_000,), 7), noise), atol=1e-4)


def test_epsilon_and_clean_are_two_names_of_one_prediction() -> None:
    process = Noise(Config(steps=10, target="observed"))
    x, clean = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.ones(5, 3)
    assert torch.allclose(process.clean(x, process.epsilon(x, clean, 4), 4), clean, atol=1e-5)


def test_bridge_begins_at_the_encoding_and_ends_at_the_target() -> None:
    process = Bridge(Config(steps=10, kappa=1.0))
    clean, encoded, noise = torch.zeros(4, 2), torch.ones(4, 2), torch.full((4, 2), 9.0)
    assert torch.equal(process.corrupt(clean, encoded, torch.full((4,), 10), noise), encoded)
    assert torch.equal(process.corrupt(clean, encoded, torch.full((4,), 0), noise), clean)
    assert torch.equal(process.reverse(encoded, clean, 1, 0, None), clean)


def test_bridge_walks_its_marginals_back() -> None:
    process = Bridge(Config(steps=10, kappa=1.5))
    generator = torch.Generator().manual_seed(0)
    clean, encoded = torch.zeros(200_000, 1), torch.ones(200_000, 1)
    x = process.corrupt(clean, encoded, torch.full((200_000,), 8), torch.randn(200_000, 1, generator=generator))
    back = process.reverse(x, clean, 8, 7, torch.randn(200_000, 1, generator=generator))
    assert back.mean().item() == pytest.approx(0.7, abs=0.01)
    assert back.var().item() == pytest.approx(1.5**2 * 0.7 * 0.3, rel=0.02)


def test_bridge_walks_its_marginals_back_in_strides_too() -> None:
    process = Bridge(Config(steps=10, kappa=1.5))
    generator = torch.Generator().manual_seed(0)
    clean, encoded = torch.zeros(200_000, 1), torch.ones(200_000, 1)
    x = process.corrupt(clean, encoded, torch.full((200_000,), 8), torch.randn(200_000, 1, generator=generator))
    back = process.reverse(x, clean, 8, 3, torch.randn(200_000, 1, generator=generator))
    assert back.mean().item() == pytest.approx(0.3, abs=0.01)
    assert back.var().item() == pytest.approx(1.5**2 * 0.3 * 0.7, rel=0.02)


@pytest.mark.parametrize("process", ["bridge", "noise"])
def test_0_steps_is_the_encoded_history_and_more_steps_go_on_from_there(process: str, stage: Stage, data: Data) -> None:
    spec = small_spec(method="random", purifier="diffusion", settings={"purifier": {"process": process}})
    view = catalog.find("purifiers", "diffusion").fit(stage, spec.config("purifier"), stage.generator(100))
    world, _ = run.make_world(spec, data, "test")
    obs = world.reset(torch.arange(30), 0)
    fold_in = stage.evidence.fold_in(obs.history, obs.rewards)[:, : stage.evidence.width]
    assert torch.allclose(view(obs, steps=0), fold_in, atol=1e-4)
    moved = [(view(obs, steps=k) - fold_in).norm(dim=1).mean().item() for k in range(5)]
    assert moved[0] < moved[1] < moved[4]
    view.inference_steps = 2
    assert torch.equal(view(obs), view(obs, steps=2))


def test_several_samples_need_a_generator(stage: Stage, data: Data) -> None:
    spec = small_spec(method="random", purifier="diffusion")
    view = catalog.find("purifiers", "diffusion").fit(stage, spec.config("purifier"), stage.generator(100))
    world, _ = run.make_world(spec, data, "test")
    with pytest.raises(BadInput, match="samples = 2 is not legal without a generator"):
        view(world.reset(torch.arange(3), 0), samples=2)


@torch.no_grad()
def test_draws_differ_as_much_as_predictions_miss(stage: Stage) -> None:
    """On parts of histories of training users: the spread of draws is that of the target around their mean."""
    spec = small_spec(method="random", purifier="diffusion", settings={"purifier": {"training_steps": 600}})
    view = catalog.find("purifiers", "diffusion").fit(stage, spec.config("purifier"), stage.generator(100))
    samples = draw_samples(stage, 2048, torch.Generator().manual_seed(3))
    draws = view.chains(samples.encoded, samples.features, None, 32, torch.Generator().manual_seed(4))
    off = (samples.target - draws.mean(1)).pow(2).mean().item()
    assert draws.var(1).mean().item() == pytest.approx(off, rel=0.15)
    assert spread_without_doubt(view, samples) < 0.6 * off, "draws without doubt agree with each other"


@torch.no_grad()
def spread_without_doubt(view: Any, samples: Any) -> float:
    """Of draws of the same view."""
    view.doubt = None
    draws = view.chains(samples.encoded, samples.features, None, 32, torch.Generator().manual_seed(4))
    return float(draws.var(1).mean())


@torch.no_grad()
def test_short_histories_leave_more_doubt(stage: Stage) -> None:
    spec = small_spec(method="random", purifier="diffusion", settings={"purifier": {"training_steps": 600}})
    view = catalog.find("purifiers", "diffusion").fit(stage, spec.config("purifier"), stage.generator(100))
    samples = draw_samples(stage, 4096, torch.Generator().manual_seed(3))
    spread = view.chains(samples.encoded, samples.features, None, 16, torch.Generator().manual_seed(4)).var(1).mean(1)
    count = samples.features[:, -4]  # log(1 + interactions), standardised
    few, many = count <= count.quantile(0.25), count >= count.quantile(0.75)
    assert spread[few].mean() > 1.5 * spread[many].mean()


WIDE = {
    "dataset": {"users": 300, "train_users": 1500, "items": 500, "log_length": 60, "start": 20},
    "state": {"width": 12, "epochs": 12},
}


def test_the_trap_target_observed_returns_its_input() -> None:
    """Eq. 7 to the letter: nothing that can be measured changes (docs/purification.md)."""
    trap = {"target": "observed", "training_steps": 1500, "hidden": 64}
    table = purify_report(small_spec(method="random", purifier="diffusion", settings={**WIDE, "purifier": trap}), None)
    for name in ("preference_r2", "category_accuracy", "popularity_r2", "popularity_r2_nonlinear"):
        assert abs(table["purified"][name] - table["raw"][name]) <= 0.02, name
    assert table["raw"]["popularity_r2"] > 0.7


def test_a_debiased_target_takes_popularity_out_and_keeps_preference() -> None:
    good = {"training_steps": 1000, "hidden": 64, "parts": 20_000}
    table = purify_report(small_spec(method="random", purifier="diffusion", settings={**WIDE, "purifier": good}), None)
    raw, purified = table["raw"], table["purified"]
    assert purified["popularity_r2"] <= raw["popularity_r2"] / 2
    assert purified["popularity_r2_nonlinear"] <= raw["popularity_r2_nonlinear"] / 2
    assert purified["preference_r2"] >= raw["preference_r2"] - 0.02
    assert purified["retrieval"] > raw["retrieval"]
    assert table["projection"]["popularity_r2"] < 0.1


def test_identity_equals_raw_exactly() -> None:
    table = purify_report(small_spec(method="random", purifier="identity"), None)
    assert table["purified"] == table["raw"]


def test_several_seeds_give_intervals() -> None:
    table = purify_report(small_spec(method="random", purifier="identity"), [11, 15])
    value = table["raw"]["popularity_r2"]
    assert value["low"] <= value["mean"] <= value["high"]
    assert value["low"] < value["high"]
