"""The simulator: the temper rule to the letter, luck by counting, and what an observation shows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engine import luck, run
from engine.contracts import Data, Dataset, Items
from engine.options import BadInput, build
from engine.spec import WorldConfig
from engine.world.simulator import Simulator, least_uneven
from small import Answers, small_spec


def catalogue(items: int = 100) -> Items:
    popularity = torch.arange(items, 0, -1)
    head = torch.arange(items) < items // 5
    return Items(
        popularity, head, torch.zeros(items, 1, dtype=torch.bool), torch.ones(items, dtype=torch.int64), ("a", "none"), ()
    )


def simulator(probability: float = 0.5, **world: object) -> Simulator:
    items = catalogue()
    nothing = torch.zeros(0, dtype=torch.int64)
    start = Dataset(nothing, nothing, torch.zeros(0), nothing, None, 4, items)
    rules = build(WorldConfig, {"responses": "expected", **world}, "world")
    return Simulator(items, Answers(torch.full((100,), probability)), start, rules, 40)


def slate(heads: int, users: int = 4, size: int = 10, offset: int = 0) -> Tensor:
    """`heads` head items, the rest tail, distinct."""
    return torch.tensor([*range(offset, offset + heads), *range(20 + offset, 20 + offset + size - heads)]).expand(users, -1)


def length(world: Simulator, heads: int) -> int:
    world.reset(torch.arange(4), 0)
    for step in range(1, 10_000):
        if bool(world.step(slate(heads)).done.all()):
            return step
    raise AssertionError("nobody ever left")


@pytest.mark.parametrize(
    ("heads", "response", "steps"),
    [
        # patience 30 falls by 2 − r̄, and by one more where |2·heads − 10| ≥ 3; the user leaves when it is below 1.
        (5, 0.0, 15), (5, 1.0, 30), (5, 0.5, 20), (4, 0.5, 20), (6, 0.5, 20),
        (3, 0.5, 12), (7, 0.5, 12), (10, 0.5, 12), (0, 0.5, 12),
    ],
)  # fmt: skip
def test_patience_follows_the_temper_rule(heads: int, response: float, steps: int) -> None:
    assert length(simulator(response, repeats=True), heads) == steps


@pytest.mark.parametrize(("bound", "free"), [(0.2, 5), (0.21, 6), (0.4, 6), (0.41, 7), (1.01, 10), (0.0, None)])
def test_the_bound_on_exposure_is_inclusive_and_counts_whole_heads(bound: float, free: int | None) -> None:
    world = simulator(ad_bound=bound, repeats=True)
    world.reset(torch.arange(4), 0)
    penalised = [bool(world.step(slate(heads)).penalised.all()) for heads in range(5, 11)]
    allowed = 0 if free is None else free - 4
    assert penalised == [False] * allowed + [True] * (6 - allowed)


def test_bounds_between_which_no_ad_lies_are_one_rule() -> None:
    rules = [least_uneven(bound, 10) for bound in (0.0, 0.1, 0.2, 0.21, 0.3, 0.4, 0.41, 0.5, 1.0)]
    assert rules == [0, 2, 2, 4, 4, 4, 6, 6, 10]
    assert [least_uneven(bound, 7) for bound in (0.1, 0.2, 0.3, 0.4, 0.43)] == [1, 3, 3, 3, 5]


def test_mirrored_slates_are_treated_alike() -> None:
    for bound in (0.1, 0.3, 0.5, 0.7, 0.9):
        for size in (3, 6, 7, 10):
            world = simulator(ad_bound=bound, slate=size, repeats=True)
            world.reset(torch.arange(4), 0)
            flags = [world.step(slate(heads, size=size)).penalised[0].item() for heads in range(size + 1)]
            assert flags == flags[::-1]


def test_a_user_who_left_stays_done_with_reward_0() -> None:
    world = simulator(0.0, max_len=3)
    world.reset(torch.arange(4), 0)
    first = world.step(slate(5))
    assert not first.done.any()
    second = world.step(slate(5, offset=5))
    assert second.done.all()
    third = world.step(slate(5, offset=10))
    assert third.done.all()
    assert third.reward.tolist() == [0] * 4
    assert third.temper.tolist() == second.temper.tolist()
    with pytest.raises(BadInput, match="the session is over"):
        world.step(slate(5, offset=10))


def test_history_is_the_last_items_session_included(data: Data) -> None:
    world, _ = run.make_world(small_spec(method="random"), data, "test")
    obs = world.reset(torch.tensor([3, 7]), 0)
    rows = data.test_start.user == 3
    known = int(rows.sum())
    assert obs.history[0, -known:].tolist() == data.test_start.item[rows].tolist()
    assert (obs.history[0, :-known] == -1).all()
    assert (obs.session, obs.step) == (0, 0)
    shown = torch.arange(12).view(2, 6)
    outcome = world.step(shown)
    assert outcome.obs.history[:, -6:].tolist() == shown.tolist()
    assert outcome.obs.rewards[:, -6:].tolist() == outcome.clicks.tolist()
    assert outcome.obs.history[0, -6 - known : -6].tolist() == data.test_start.item[rows].tolist()
    assert (outcome.obs.session, outcome.obs.step) == (6, 1)
    assert outcome.obs.shown.tolist() == shown.tolist()


def test_keep_goes_on_as_if_the_others_had_never_been(data: Data) -> None:
    world, _ = run.make_world(small_spec(method="random"), data, "test")
    slates = [torch.randperm(360, generator=torch.Generator().manual_seed(k))[:6].expand(4, -1) for k in range(4)]
    users = torch.tensor([1, 5, 9, 40])
    world.reset(users, 7)
    whole = [world.step(s) for s in slates]
    rows = torch.tensor([True, False, True, False])
    world.reset(users, 7)
    world.step(slates[0])
    world.keep(rows)
    for k in range(1, 4):
        part = world.step(slates[k][:2])
        assert torch.equal(part.clicks, whole[k].clicks[rows])
        assert torch.equal(part.temper, whole[k].temper[rows])
        assert torch.equal(part.obs.history, whole[k].obs.history[rows])


def test_an_item_meets_the_same_luck_in_any_slot_and_company(data: Data) -> None:
    world, _ = run.make_world(small_spec(method="random"), data, "test")
    users = torch.arange(20)
    world.reset(users, 3)
    a = world.step(torch.tensor([0, 1, 2, 3, 4, 5]).expand(20, -1)).clicks
    world.reset(users, 3)
    b = world.step(torch.tensor([5, 9, 8, 7, 6, 0]).expand(20, -1)).clicks
    assert torch.equal(a[:, 0], b[:, 5])
    assert torch.equal(a[:, 5], b[:, 0])
    world.reset(users, 4)
    c = world.step(torch.tensor([0, 1, 2, 3, 4, 5]).expand(20, -1)).clicks
    assert not torch.equal(a, c)


def test_luck_is_uniform_and_independent_of_its_neighbours() -> None:
    key = luck.key(5, torch.arange(300))
    draws = torch.stack([luck.uniform(key, step, torch.arange(200).expand(300, -1)) for step in range(5)])
    assert 0 <= draws.min() < 0.001
    assert 0.999 < draws.max() < 1
    assert abs(draws.mean() - 0.5) < 0.002
    assert abs(draws.var() - 1 / 12) < 0.001
    for a, b in ((draws[:-1], draws[1:]), (draws[:, :-1], draws[:, 1:]), (draws[..., :-1], draws[..., 1:])):
        assert abs(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]) < 0.01


def test_sampled_clicks_have_the_expected_rate(data: Data) -> None:
    expected, _ = run.make_world(small_spec(method="random", settings={"world": {"responses": "expected"}}), data, "test")
    sampled, _ = run.make_world(small_spec(method="random"), data, "test")
    users, shown = torch.arange(60), torch.arange(6).expand(60, -1)
    expected.reset(users, 0)
    wanted = expected.step(shown).clicks
    drawn = torch.zeros_like(wanted)
    for k in range(200):
        sampled.reset(users, k)
        drawn += sampled.step(shown).clicks / 200
    assert (drawn - wanted).abs().mean() < 0.03


def test_satiation_makes_a_category_answer_less_and_recovers(data: Data) -> None:
    rules = {"responses": "expected", "repeats": True, "max_len": 30}
    spec = small_spec(method="random", settings={"world": rules, "dataset": {"influence": 0.0}})
    still = run.load_data(spec)
    world, _ = run.make_world(spec, still, "test")
    tag = still.train.items.main_tag
    same = (tag == tag[0]).nonzero()[:6, 0].expand(60, -1)
    other = (tag != tag[0]).nonzero()[:6, 0].expand(60, -1)
    world.reset(torch.arange(60), 0)
    answers = [world.step(same).clicks.mean().item() for _ in range(3)]
    assert answers[0] > answers[1] > answers[2]
    for _ in range(3):
        world.step(other)
    assert world.step(same).clicks.mean().item() > answers[2]


def test_influence_pulls_the_preference_toward_what_was_clicked() -> None:
    settings = {
        "world": {"responses": "expected", "repeats": True, "max_len": 30},
        "dataset": {"satiation": 0.0, "influence": 0.3},
    }
    spec = small_spec(method="random", settings=settings)
    world, _ = run.make_world(spec, run.load_data(spec), "test")
    shown = torch.arange(6).expand(60, -1)
    world.reset(torch.arange(60), 0)
    answers = [world.step(shown).clicks.mean().item() for _ in range(4)]
    assert answers[0] < answers[1] < answers[2] < answers[3]


def test_wrong_users_and_slates_are_refused_in_words(data: Data) -> None:
    world, _ = run.make_world(small_spec(method="random"), data, "test")
    with pytest.raises(BadInput, match=r"ids from 0 to 59"):
        world.reset(torch.tensor([60]), 0)
    world.reset(torch.tensor([0]), 0)
    with pytest.raises(BadInput, match=r"it must be \(1, 6\)"):
        world.step(torch.zeros(1, 5, dtype=torch.int64))
