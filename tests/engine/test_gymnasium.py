"""The worlds as Gymnasium environments: their rules are the simulator's, their form is Gymnasium's."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from engine import run
from engine.environments import AgentPolicy, WorldEnv, WorldVectorEnv, measure
from engine.learn.moment import Rules, observe, observed
from engine.metrics import summary
from engine.options import BadInput
from engine.world.simulator import Simulator
from engine.world.stream import Stream
from small import SMALL
from test_structure import ROOT

ID = "fairstate/World-v0"
OPTIONS: dict[str, Any] = {
    "slate": 6,
    "max_len": 8,
    "settings": {section: values for section, values in SMALL.items() if section != "world"},
}
ACTIONS = ("direction", "residual", "slate")


def single(**options: Any) -> WorldEnv:
    env: Any = gymnasium.make(ID, **{**OPTIONS, **options}).unwrapped
    return env


def many(rows: int, **options: Any) -> WorldVectorEnv:
    env: Any = gymnasium.make_vec(ID, num_envs=rows, **{**OPTIONS, **options})
    return env


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("part", ["train", "test"])
def test_gymnasiums_own_checker_has_nothing_to_say(action: str, part: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(single(action=action, part=part))


def test_importing_the_engine_imports_neither_torch_nor_gymnasium() -> None:
    program = "import sys, engine; print(sorted({'torch', 'gymnasium', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "program",
    [
        "import engine, gymnasium",
        "import gymnasium, engine",
        "import engine, importlib.util; importlib.util.find_spec('gymnasium'); import gymnasium",
        "import engine; from gymnasium.vector import VectorEnv; import gymnasium",
    ],
)
def test_whoever_is_imported_first_the_worlds_are_known(program: str) -> None:
    program += f"; print({ID!r} in gymnasium.registry, 'torch' in __import__('sys').modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True False"


def test_without_gymnasium_the_engine_works_and_environments_say_what_is_missing() -> None:
    program = (
        "import sys; sys.modules['gymnasium'] = None\n"
        "sys.path.insert(0, '.')\n"
        "import engine, engine.run\n"
        "try:\n    import engine.environments\n"
        "except engine.options.BadInput as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "gymnasium is not installed" in done.stdout


@pytest.mark.parametrize("repeats", [False, True])
def test_sessions_that_begin_one_by_one_are_the_simulators(repeats: bool) -> None:
    """Clicks, rewards and exits of staggered sessions, click by click."""
    env = single(settings={**OPTIONS["settings"], "world": {"repeats": repeats}})
    world, rows, users = env.platform.world, 12, torch.arange(40, 52)
    luck = torch.arange(500, 512)
    stream, generator = Stream(world, users, luck), torch.Generator().manual_seed(5)
    plans = torch.stack([torch.randperm(360, generator=generator)[:48].view(8, 6) for _ in range(2 * rows)])
    plans = plans.view(rows, 2, 8, 6)
    seen: dict[tuple[int, int, int], tuple[Any, ...]] = {}
    number, step = torch.zeros(rows, dtype=torch.int64), torch.zeros(rows, dtype=torch.int64)
    over = torch.zeros(rows, dtype=torch.bool)
    for turn in range(12):
        shown = stream.step(plans[torch.arange(rows), number, step.clamp_max(7)])
        for row in (~over).nonzero()[:, 0].tolist():
            seen[row, int(number[row]), int(step[row])] = (
                shown.clicks[row].tolist(), float(shown.reward[row]), bool(shown.left[row]), bool(shown.penalised[row]),
            )  # fmt: skip
        step = step + 1
        again = (shown.left | (torch.arange(rows) == turn)) & (number == 0)
        if bool(again.any()):
            stream.begin(again, users[again] + 7, luck[again] * 3)
            number, step = torch.where(again, 1, number), torch.where(again, 0, step)
        over = over | (shown.left & ~again)
    compared = 0
    for row in range(rows):
        for session in range(2):
            user, own = users[row] + 7 * session, int(luck[row]) * (1 + 2 * session)
            world.reset(user.unsqueeze(0), own)
            for at in range(8):
                if (row, session, at) not in seen:
                    break
                outcome = world.step(plans[row, session, at].unsqueeze(0))
                told = (outcome.clicks[0].tolist(), float(outcome.reward[0]), bool(outcome.done[0]), bool(outcome.penalised[0]))
                assert seen[row, session, at] == told
                compared += 1
                if outcome.done[0]:
                    break
    assert compared > 60
    assert len({session for _, session, _ in seen}) == 2


def test_an_observation_is_what_policies_are_told() -> None:
    """Users at steps of their own see what they would in a world whose sessions walk together."""
    env = single(purifier="regression", max_len=30)
    world, view = env.platform.world, env.platform.view
    rules = Rules(world.slate, world.max_len, world.repeats, world.history)
    obs = world.reset(torch.arange(20), 3)
    stream = Stream(world, torch.arange(20), torch.full((20,), 3))
    for step in range(6):
        one, other = observed(view, rules, obs), observe(view, rules, *stream.tables())
        assert torch.allclose(one.inputs, other.inputs, atol=1e-4)
        assert torch.allclose(one.state, other.state, atol=1e-4)
        assert one.blocked is not None
        assert other.blocked is not None
        assert torch.equal(one.blocked, other.blocked)
        slate = torch.arange(6 * step, 6 * step + 6).expand(20, -1)
        obs = world.step(slate).obs
        assert not obs.done.any()  # a world hears no more of who left, a stream does
        stream.step(slate)


def play(env: WorldEnv, seed: int, steps: int) -> list[tuple[Any, ...]]:
    """What one environment tells, with zero actions and resets where sessions end."""
    told, (seen, info) = [], env.reset(seed=seed)
    told.append((seen.round(4).tolist(), info["user"]))
    for _ in range(steps):
        seen, reward, left, late, info = env.step(np.zeros(env.action_space.shape, np.float32))
        told.append((seen.round(4).tolist(), round(reward, 6), left, late))
        if left or late:
            seen, info = env.reset()
            told.append((seen.round(4).tolist(), info["user"]))
    return told


@pytest.mark.parametrize("mode", ["next_step", "same_step"])
def test_each_row_of_a_batch_is_the_environment_of_its_seed(mode: str) -> None:
    rows, steps = 5, 30
    env = many(rows, action="residual", autoreset=mode, horizon=2)
    assert env.metadata["autoreset_mode"] is (AutoresetMode.NEXT_STEP if mode == "next_step" else AutoresetMode.SAME_STEP)
    seen, infos = env.reset(seed=70)
    told: list[list[tuple[Any, ...]]] = [[(seen[row].round(4).tolist(), infos["user"][row])] for row in range(rows)]
    over = np.zeros(rows, bool)
    for _ in range(steps):
        seen, reward, left, late, infos = env.step(np.zeros(env.action_space.shape, np.float32))
        for row in range(rows):
            here = seen[row].round(4).tolist()
            if mode == "next_step":
                if over[row]:
                    assert (reward[row], left[row], late[row], infos["_slate"][row]) == (0, False, False, False)
                    told[row].append((here, infos["user"][row]))
                else:
                    told[row].append((here, round(reward[row], 6), left[row], late[row]))
            elif left[row] or late[row]:
                assert infos["_final_obs"][row]
                assert infos["final_info"]["_slate"][row]
                told[row].append((infos["final_obs"][row].round(4).tolist(), round(reward[row], 6), left[row], late[row]))
                told[row].append((here, infos["user"][row]))
            else:
                told[row].append((here, round(reward[row], 6), left[row], late[row]))
        over = left | late
    assert any(row[-1] for rows_told in told for row in rows_told if len(row) == 4)  # some were truncated
    for row in range(rows):
        alone = play(single(action="residual", horizon=2), 70 + row, steps)
        assert len(told[row]) > steps * 0.9
        for mine, theirs in zip(told[row], alone, strict=False):
            assert np.allclose(mine[0], theirs[0], atol=2e-3)
            assert mine[1:] == theirs[1:]


def test_a_user_who_leaves_terminates_and_a_horizon_truncates() -> None:
    env = single()
    env.reset(seed=1)
    steps, left, late = 0, False, False
    while not (left or late):
        _, _, left, late, info = env.step(env.action_space.sample())
        steps += 1
    assert (left, late) == (True, False)
    assert steps <= 8
    assert set(info) == {"user", "slate", "clicks", "penalised"}  # patience is nobody's to know
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(env.action_space.sample())
    env = single(horizon=2)
    env.reset(seed=1)
    assert env.step(env.action_space.sample())[2:4] == (False, False)
    assert env.step(env.action_space.sample())[2:4] == (False, True)


def test_seeds_name_sessions() -> None:
    env = single()
    users = [env.reset(seed=4)[1]["user"], *(env.reset()[1]["user"] for _ in range(30))]
    again = [env.reset(seed=4)[1]["user"], *(env.reset()[1]["user"] for _ in range(30))]
    assert users == again
    assert len(set(users)) > 20
    assert users[:5] != [env.reset(seed=5)[1]["user"], *(env.reset()[1]["user"] for _ in range(4))]
    batch = many(3)
    assert batch.reset(seed=[4, 9, 4])[1]["user"].tolist()[::2] == [users[0]] * 2
    batch.reset(seed=None)
    assert len(set(many(50).reset()[1]["user"].tolist())) > 20


def test_users_of_training_and_of_evaluation_are_worlds_apart() -> None:
    train, test = single().platform.world, single(part="test").platform.world
    assert (train.users, test.users) == (300, 60)
    assert single().platform.world is not test
    assert isinstance(test, Simulator)


@pytest.mark.parametrize("action", ACTIONS)
def test_any_action_shows_a_legal_slate(action: str) -> None:
    env = many(16, action=action)
    env.action_space.seed(3)
    env.reset(seed=0)
    before: list[set[int]] = [set() for _ in range(16)]
    for _ in range(20):
        _, _, left, _, infos = env.step(env.action_space.sample())
        for row in infos["_slate"].nonzero()[0]:
            slate = set(infos["slate"][row].tolist())
            assert len(slate) == 6
            assert not slate & before[row]
            before[row] = set() if left[row] else before[row] | slate


def test_a_slate_keeps_what_is_legal_and_mends_the_rest_by_predicted_clicks() -> None:
    env = single(action="slate")
    env.reset(seed=0)
    user = torch.tensor([env._sessions.stream.users[0]])  # type: ignore[union-attr]
    scores = env.platform.view.predict(env.platform.view(env.platform.world.reset(user, 0)))[0]
    best, worst = scores.topk(6).indices.tolist(), scores.topk(4, largest=False).indices.tolist()
    first = env.step(np.array([best[0], worst[0], best[0], worst[1], worst[0], best[2]]))[4]["slate"].tolist()
    assert first == [best[0], worst[0], best[1], worst[1], best[3], best[2]]
    second = env.step(np.array([best[0], worst[1], worst[2], worst[3], best[4], best[5]]))[4]["slate"].tolist()
    assert second[2:] == [worst[2], worst[3], best[4], best[5]]
    assert not set(second) & set(first)
    with pytest.raises(BadInput, match="item ids from 0 to 359"):
        env.step(np.array([0, 1, 2, 3, 4, 360]))


def test_directions_rank_the_catalogue() -> None:
    env = single()
    env.reset(seed=0)
    direction = np.random.default_rng(0).uniform(-1, 1, env.action_space.shape).astype(np.float32)
    slate = env.step(direction)[4]["slate"].tolist()
    assert slate == (env.platform.points @ torch.from_numpy(direction)).topk(6).indices.tolist()
    other = single()
    other.reset(seed=0)
    assert other.step(direction / 2)[4]["slate"].tolist() == slate  # only the direction counts


def test_agents_are_measured_as_runs_are() -> None:
    """An agent that always answers 0 on top of the prediction, and the same rule written by hand, in the test world."""
    env = many(4, action="residual", purifier="regression")
    shape = env.single_action_space.shape
    assert shape is not None
    measured = measure(env, lambda seen: np.zeros((len(seen), *shape), np.float32), episodes=60)
    platform = env.platform
    world = run.make_world(platform.spec, platform.data, "test")[0]
    from engine.evaluate import evaluation_users, sessions_of
    from engine.learn.slate import top
    from engine.learn.vectors import predicted

    class Rule:
        def act(self, obs: Any, *, generator: Any = None) -> torch.Tensor:
            return top(predicted(platform.view(obs)) @ platform.points.T, 6, obs.shown)

        def state_dict(self) -> dict[str, Any]:
            return {}

    by_hand = summary(
        sessions_of(world, Rule(), evaluation_users(world, 60, 0)), platform.data.train.items, platform.data.truth
    )
    assert measured == by_hand
    assert {"len", "r_cum", "ad", "utility"} <= set(measured)
    random = measure(env, lambda seen: np.random.default_rng(0).normal(size=(len(seen), *shape)) * 50, episodes=60)
    assert random["r_each"] < measured["r_each"]
    assert AgentPolicy(platform, lambda seen: seen).state_dict() == {}


def test_sb3_trains_on_a_single_environment_as_it_is() -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.env_checker import check_env as check

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        check(single())
    agent = sb3.PPO("MlpPolicy", gymnasium.make(ID, **OPTIONS), n_steps=32, batch_size=32, seed=0, device="cpu").learn(32)
    assert agent.num_timesteps == 32
    measured = measure(single(), lambda seen: agent.predict(seen, deterministic=True)[0], episodes=20)
    assert 1 <= measured["len"] <= 8


def test_an_sb3_agent_learns_and_is_measured_beside_ours() -> None:
    pytest.importorskip("stable_baselines3")
    sets = [
        f"--set={section}.{name}={value}" for section, values in OPTIONS["settings"].items() for name, value in values.items()
    ]
    command = [sys.executable, "docs/examples/sb3_ppo.py", "--steps=2048", "--slate=6", "--max-len=8", "--purifier=identity"]
    done = subprocess.run([*command, *sets], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.strip().splitlines()
    assert [line.split("  ")[0].strip() for line in lines] == ["PPO (Stable-Baselines3)", "DSRM-HRL"]
    assert all("Len" in line and "R_cum" in line and "AD" in line for line in lines)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dataset": "movies"}, "dataset 'movies' is unknown"),
        ({"purifier": "soap"}, "purifier 'soap' is unknown"),
        ({"slate": 361, "max_len": 1}, "the catalogue has 360 items, so it must be 360 or less"),
        ({"slate": 60}, "without repeats a session needs that many items"),
        ({"slate": 0}, "environment.slate = 0 is not legal: it must be a whole number from 1 to 1000"),
        ({"part": "valid"}, "environment.part = 'valid' is not legal: it must be one of train, test"),
        ({"action": "items"}, "it must be one of direction, residual, slate"),
        ({"horizon": 0}, "environment.horizon = 0 is not legal"),
        ({"slates": 5}, r"environment.slates is not an option \(did you mean slate\?\)"),
        ({"settings": {"method": {}}}, "settings.method is not legal"),
        ({"settings": {"world": {"slate": 4}}}, "settings.world.slate is not legal: give slate itself"),
        ({"settings": {"worlds": {}}}, "worlds is not a section of options"),
        ({"settings": {"world": 3}}, "it must be {section: {option: value}}"),
    ],
)
def test_bad_keywords_are_told_in_a_sentence(options: dict[str, Any], sentence: str) -> None:
    given = {**OPTIONS, **options}
    given["settings"] = {**OPTIONS["settings"], **options.get("settings", {})}
    with pytest.raises(BadInput, match=sentence):
        gymnasium.make(ID, **given)
    with pytest.raises(BadInput, match=sentence):
        gymnasium.make_vec(ID, num_envs=2, **given)


def test_bad_numbers_of_rows_and_seeds_are_told_in_a_sentence() -> None:
    with pytest.raises(BadInput, match="num_envs = 0 is not legal"):
        gymnasium.make_vec(ID, num_envs=0, **OPTIONS)
    with pytest.raises(BadInput, match="seed has 2 numbers and is not legal: it must have num_envs = 3"):
        many(3).reset(seed=[1, 2])
