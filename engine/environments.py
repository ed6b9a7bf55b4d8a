"""The worlds as Gymnasium environments: `gymnasium.make("fairstate/World-v0", …)` and `gymnasium.make_vec(…)`.

An episode is a session, a step a slate, the reward the mean response to it. docs/ecosystem.md tells what an agent sees and
does, which users it meets under which seed, and how sessions end. `measure` evaluates any agent as runs are evaluated.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine import luck as counted
from engine import run, spec
from engine.contracts import Data, Obs
from engine.evaluate import evaluation_users, sessions_of
from engine.learn.moment import Moment, Rules, observe, observed
from engine.learn.vectors import points_of, predicted, unit
from engine.metrics import summary
from engine.options import BadInput, build, option
from engine.options import Config as BaseConfig
from engine.purify.view import View
from engine.state.stage import Stage
from engine.world.simulator import Simulator
from engine.world.stream import Shown, Stream

try:
    import gymnasium
    from gymnasium import spaces
    from gymnasium.error import ResetNeeded
    from gymnasium.vector import AutoresetMode
    from gymnasium.vector.utils import batch_space
except ImportError:
    raise BadInput("gymnasium is not installed: environments need it, as in: pip install gymnasium==1.4.0") from None

FAR = 10.0  # standard deviations at which an observation's state is cut off
Predict = Callable[[np.ndarray], np.ndarray]  # observations float32 (B,F) → actions (B,…)


@dataclass(frozen=True)
class Config(BaseConfig):
    """The keywords of `make` and `make_vec`; `settings={section: {option: value}}` reaches all others, as `--set` does."""

    dataset: str = option("synthetic", "a name, or a path to a .csv or .parquet log")
    slate: int = option(10, "items in a slate (K)", low=1, high=1000)
    max_len: int = option(30, "patience at the start: no session is longer", low=1, high=1000)
    purifier: str = option("identity", "what the states in observations are made by")
    part: str = option("train", "the world of training users, or that of test users", choices=("train", "test"))
    action: str = option(
        "direction",
        "a vector in item space whose top K are shown; the same, added to stage I's prediction; or the slate itself",
        choices=("direction", "residual", "slate"),
    )
    horizon: int | None = option(None, "steps after which a session is truncated; none: it ends when the user leaves", low=1)
    autoreset: str = option(
        "next_step", "when make_vec starts a session where one has ended", choices=("next_step", "same_step")
    )
    stage_seed: int = option(11, "seed of stage I, which item vectors and purifier are fitted by", low=0)


class Platform:
    """What environments with equal options share; nothing in it changes."""

    def __init__(self, wanted: spec.RunSpec, part: str, action: str) -> None:
        self.spec, self.action = wanted, action
        self.data: Data = run.load_data(wanted)
        self.world: Simulator = run.make_world(wanted, self.data, part)[0]
        whole: View = run.purify(wanted, Stage(self.data, wanted.config("state"), wanted.seed))
        self.view = run.choosing(whole, self.data)
        world = self.world
        self.rules = Rules(world.slate, world.max_len, world.repeats, world.history, world.items.absent)
        self.points = points_of(self.view)
        width, size = self.view.items.shape[1], self.points.shape[1]
        bound = np.array([FAR] * width + [1.0] * (width + 2), np.float32)
        low = np.concatenate([-bound[: 2 * width], np.zeros(2, np.float32)])
        self.observation_space = spaces.Box(low, bound, dtype=np.float32)
        self.action_space: spaces.Space[Any] = spaces.Box(-1.0, 1.0, (size,), np.float32)
        if action == "slate":
            self.action_space = spaces.MultiDiscrete([len(self.world.items)] * self.world.slate)

    def observation(self, moment: Moment) -> np.ndarray:
        """float32 (B,F)."""
        width = moment.state.shape[1]
        seen = torch.cat([moment.inputs[:, :width].clamp(-FAR, FAR), moment.inputs[:, width:].clamp(-1, 1)], 1)
        return seen.numpy()

    def slates(self, moment: Moment, actions: np.ndarray) -> Tensor:
        """int64 (B,K), legal ones, for actions (B,…)."""
        if self.action == "slate":
            return self._mended(moment, torch.as_tensor(np.asarray(actions), dtype=torch.int64))
        vectors = torch.as_tensor(np.asarray(actions), dtype=torch.float32)
        if self.action == "residual":
            vectors = predicted(moment.state) + vectors
        return moment.best(unit(vectors) @ self.points.T, self.rules.slate)

    def _mended(self, moment: Moment, slate: Tensor) -> Tensor:
        """What may not be shown (again) gives way to what stage I predicts to be clicked most, of what may."""
        count, items = slate.shape[1], len(self.world.items)
        if not bool(((slate >= 0) & (slate < items)).all()):
            raise BadInput(f"action is not legal: slates hold item ids from 0 to {items - 1}")
        earlier = torch.ones(count, count, dtype=torch.bool).tril(-1)
        wrong = ((slate.unsqueeze(2) == slate.unsqueeze(1)) & earlier).any(2)
        if moment.blocked is not None:
            wrong |= moment.blocked.gather(1, slate)
        if not bool(wrong.any()):
            return slate
        scores = moment.open(self.view.predict(moment.state))
        kept = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, slate, True)
        others = scores.masked_fill(kept, -torch.inf).topk(count, dim=1).indices
        return torch.where(wrong, others.gather(1, (wrong.cumsum(1) - 1).clamp_min(0)), slate)


@functools.lru_cache(8)
def _platform(wanted: str, part: str, action: str) -> Platform:
    return Platform(spec.from_json(wanted), part, action)


def platform_of(config: Config, settings: Mapping[str, Mapping[str, Any]] | None = None) -> Platform:
    """The platform of some options. Raises BadInput."""
    settings = {} if settings is None else settings
    if not isinstance(settings, Mapping) or not all(isinstance(values, Mapping) for values in settings.values()):
        raise BadInput(f"settings = {settings!r} is not legal: it must be {{section: {{option: value}}}}")
    given = dict(settings)
    if "method" in given:
        raise BadInput("settings.method is not legal: an environment has no method")
    own, world = {"slate": config.slate, "max_len": config.max_len}, given.get("world", {})
    for name in own.keys() & world.keys():
        raise BadInput(f"settings.world.{name} is not legal: give {name} itself")
    given["world"] = {**world, **own}
    wanted = spec.make(
        dataset=config.dataset, method="random", purifier=config.purifier, seed=config.stage_seed, device="cpu", settings=given
    )
    return _platform(wanted.to_json(), config.part, config.action)


class _Sessions:
    """Rows of sessions with what was last seen of each; which users they meet is counted from each row's seed.

    The n-th session of a row with seed s meets a user and a luck that are hashes of (s, n): no generator moves.
    """

    def __init__(self, platform: Platform, seeds: Tensor, horizon: int | None) -> None:
        self.platform, self.seeds, self.horizon = platform, seeds, horizon
        self.count = torch.zeros_like(seeds)
        self.stream = Stream(platform.world, *self._next(slice(None)))
        self.now = self._look(slice(None))

    def _next(self, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Users (n,) and luck (n,) of the next sessions of some rows."""
        base = counted.key(self.seeds[rows], self.count[rows])
        self.count[rows] += 1
        share = counted.uniform(base, 0, torch.zeros_like(base).unsqueeze(1))[:, 0]
        return (share.double() * self.platform.world.users).long(), base

    def _look(self, rows: Tensor | slice) -> Moment:
        return observe(self.platform.view, self.platform.rules, *self.stream.tables(rows))

    def restart(self, rows: Tensor) -> None:
        """Start the next session in the rows where bool rows (B,) is True."""
        self.stream.begin(rows, *self._next(rows))
        fresh = self._look(rows)
        for name in ("state", "inputs", "blocked"):
            value = getattr(self.now, name)
            if value is not None:
                value[rows] = getattr(fresh, name)

    def observation(self) -> np.ndarray:
        """float32 (B,F)."""
        return self.platform.observation(self.now)

    def step(self, actions: np.ndarray) -> tuple[Tensor, Shown, Tensor]:
        """Show the slates that actions (B,…) mean: slates (B,K), what came of them, truncated bool (B,)."""
        slate = self.platform.slates(self.now, actions)
        shown = self.stream.step(slate)
        self.now = self._look(slice(None))
        late = torch.zeros_like(shown.left) if self.horizon is None else self.stream.steps >= self.horizon
        return slate, shown, late & ~shown.left


def _told(users: Tensor, slate: Tensor, shown: Shown) -> dict[str, np.ndarray]:
    """What `info` tells of a step: for logs, not for agents. Arrays (B,…)."""
    parts = {"user": users, "slate": slate, "clicks": shown.clicks, "penalised": shown.penalised}
    return {name: value.clone().numpy() for name, value in parts.items()}


class WorldEnv(gymnasium.Env[np.ndarray, Any]):
    """One user at a time. Keywords: `Config`'s, and `settings`."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self, *, render_mode: None = None, settings: Mapping[str, Mapping[str, Any]] | None = None, **options: Any
    ) -> None:
        self.render_mode = render_mode
        self.config = build(Config, options, "environment")
        self.platform = platform_of(self.config, settings)
        self.observation_space, self.action_space = self.platform.observation_space, self.platform.action_space
        self._sessions: _Sessions | None = None
        self._over = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """The next session; with a seed, the first of that seed."""
        super().reset(seed=seed)
        self._over = False
        if seed is not None or self._sessions is None:
            seeds = torch.tensor([int(self.np_random.integers(1 << 31)) if seed is None else seed])
            self._sessions = _Sessions(self.platform, seeds, self.config.horizon)
        else:
            self._sessions.restart(torch.ones(1, dtype=torch.bool))
        return self._sessions.observation()[0], {"user": int(self._sessions.stream.users[0])}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Show a slate."""
        if self._sessions is None or self._over:
            raise ResetNeeded("the session is over: call reset() before step()")
        slate, shown, truncated = self._sessions.step(np.asarray(action)[None])
        self._over = bool(shown.left[0] | truncated[0])
        told = {name: value[0] for name, value in _told(self._sessions.stream.users, slate, shown).items()}
        info = {**told, "user": int(told["user"]), "penalised": bool(told["penalised"])}
        return self._sessions.observation()[0], float(shown.reward[0]), bool(shown.left[0]), bool(truncated[0]), info


class WorldVectorEnv(gymnasium.vector.VectorEnv[np.ndarray, Any, np.ndarray]):
    """Many users at once, in tensors. Row b under seed s meets the sessions that `WorldEnv` meets under seed s + b."""

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int = 1,
        *,
        render_mode: None = None,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> None:
        if isinstance(num_envs, bool) or not isinstance(num_envs, int) or num_envs < 1:
            raise BadInput(f"num_envs = {num_envs!r} is not legal: it must be a whole number, 1 or more")
        self.render_mode, self.num_envs = render_mode, num_envs
        self.config = build(Config, options, "environment")
        self.platform = platform_of(self.config, settings)
        self.same_step = self.config.autoreset == "same_step"
        mode = AutoresetMode.SAME_STEP if self.same_step else AutoresetMode.NEXT_STEP
        self.metadata = {**type(self).metadata, "autoreset_mode": mode}
        self.single_observation_space = self.platform.observation_space
        self.single_action_space = self.platform.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._sessions: _Sessions | None = None
        self._over = torch.zeros(num_envs, dtype=torch.bool)

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Next sessions in all rows; with a seed s, the first of s + b in row b, with a list the first of each."""
        several = None if seed is None or isinstance(seed, Integral) else [int(each) for each in np.atleast_1d(seed)]
        if several is not None and len(several) != self.num_envs:
            raise BadInput(f"seed has {len(several)} numbers and is not legal: it must have num_envs = {self.num_envs}")
        one = several[0] if several else None if seed is None else int(np.int64(seed))  # type: ignore[arg-type]
        super().reset(seed=one, options=options)
        if one is None and self._sessions is not None:
            self._sessions.restart(torch.ones(self.num_envs, dtype=torch.bool))
        else:
            first = int(self.np_random.integers(1 << 31)) if one is None else one
            seeds = torch.tensor(several or range(first, first + self.num_envs))
            self._sessions = _Sessions(self.platform, seeds, self.config.horizon)
        self._over = torch.zeros(self.num_envs, dtype=torch.bool)
        users = self._sessions.stream.users.clone().numpy()
        return self._sessions.observation(), {"user": users, "_user": np.ones(self.num_envs, bool)}

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Show a slate in every row, and start sessions where they ended: in this step, or in the next, which then shows
        nothing there."""
        if self._sessions is None:
            raise ResetNeeded("no session has begun: call reset() before step()")
        sessions, begun = self._sessions, self._over
        slate, shown, late = sessions.step(actions)
        left, truncated = shown.left & ~begun, late & ~begun
        reward = shown.reward.masked_fill(begun, 0.0)
        told = _told(sessions.stream.users, slate, shown)
        infos = self._infos(told, (~begun).numpy())
        over = left | truncated
        if self.same_step:
            begin = over
            if bool(over.any()):
                ended = over.numpy()
                final, last = np.full(self.num_envs, None, dtype=object), sessions.observation()
                for row in ended.nonzero()[0]:  # Gymnasium wants an array of arrays
                    final[row] = last[row]
                infos |= {
                    "final_obs": final,
                    "_final_obs": ended,
                    "final_info": self._infos(told, ended),
                    "_final_info": ended.copy(),
                }
        else:
            begin, self._over = begun, over
        if bool(begin.any()):
            sessions.restart(begin)
            infos |= {"user": sessions.stream.users.clone().numpy(), "_user": np.ones(self.num_envs, bool)}
        return sessions.observation(), reward.double().numpy(), left.numpy(), truncated.numpy(), infos

    @staticmethod
    def _infos(told: Mapping[str, np.ndarray], there: np.ndarray) -> dict[str, Any]:
        """Gymnasium's form: beside each array, which rows it says something of."""
        return {**told, **{f"_{name}": there.copy() for name in told}}


class AgentPolicy:
    """An agent of the environment as a policy of the engine (`engine.contracts.Policy`)."""

    def __init__(self, platform: Platform, predict: Predict) -> None:
        self.platform, self.predict = platform, predict

    def act(self, obs: Obs, *, generator: torch.Generator | None = None) -> Tensor:
        """int64 (B,K): what the agent's actions mean."""
        moment = observed(self.platform.view, self.platform.rules, obs)
        return self.platform.slates(moment, self.predict(self.platform.observation(moment)))

    def state_dict(self) -> dict[str, Any]:
        """Nothing: agents are kept by those who made them."""
        return {}


def measure(
    env: gymnasium.Env[Any, Any] | gymnasium.vector.VectorEnv[Any, Any, Any],
    predict: Predict,
    *,
    episodes: int = 1000,
    luck: int = run.EVALUATION_LUCK,
) -> dict[str, float]:
    """The measures of `engine.metrics.summary` for an agent, in the test world of an environment's dataset, whatever its part:
    the users and the luck that every run is evaluated with. predict: observations float32 (B,F) → actions (B,…)."""
    platform: Platform = env.unwrapped.platform  # type: ignore[union-attr]
    world = run.make_world(platform.spec, platform.data, "test")[0]
    played = sessions_of(world, AgentPolicy(platform, predict), evaluation_users(world, episodes, luck), luck=luck)
    return summary(played.cpu(), platform.data.test.items, platform.data.truth)
