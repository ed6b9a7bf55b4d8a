"""What a posterior is worth: draws of the diffusion against a regression's single answer, where the two could differ.

Regression to the same target *is* the posterior mean, so on averages a diffusion can at best tie it. This report asks where
draws could pay: calibration, users with several interests, short histories, and exploration within a session. `noise` is the
sceptic's control: the regression's answer plus Gaussian noise with the covariance of what it misses on training users.

Reports may ask the synthetic world's truth; nothing that trains imports this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.contracts import Data, Dataset, Obs
from engine.learn.rollout import play
from engine.metrics import summary
from engine.options import BadInput
from engine.purify.interest import InterestView, draw_samples, long_run
from engine.purify.regression import RegressionView
from engine.report import Say, unseen_users
from engine.run import load_data, make_world, purify
from engine.spec import RunSpec, make
from engine.state.stage import Stage
from engine.statistics import interval

LENGTHS = (1, 3, 5, 30)  # logged interactions known of a user
STARTS = (0, 3, 30)  # the same, where whole sessions are played
DRAWS, BLOCK = 128, 256  # of each user for coverage; users at once
EXPLORED = 10  # first slates of a session that follow draws
SHARE = 0.7  # an interest: a category that the user likes at least so much as their best, relatively
LEVEL = 0.9


def posterior_report(spec: RunSpec, seeds: Sequence[int] | None, say: Say = lambda _: None) -> dict[str, Any]:
    """{"coverage", "slates", "sessions"} by number of known interactions (see the functions of these names), each value a
    number or, with `seeds`, mean, low and high over seeds. Slates and sessions are None where the truth is not known.

    Raises BadInput unless the spec's purifier is a diffusion toward `interest`.
    """
    if spec.purifier != "diffusion" or spec.settings["purifier"]["target"] != "interest":
        raise BadInput("purifier is not legal here: draws are those of a diffusion with target=interest")
    torch.set_num_threads(spec.threads)
    data = load_data(spec)
    found = []
    for number, seed in enumerate(seeds or [spec.seed]):
        say(f"posterior-report: seed {seed} ({number + 1} of {len(seeds or [seed])})")
        found.append(_one(replace(spec, seed=seed), data, say))
    return found[0] if seeds is None else _over_seeds(found)


Way = Callable[[Obs], tuple[InterestView, Tensor]]


@dataclass(frozen=True)
class Rivals:
    """The two views, and (D,D) the root of what the regression misses on parts of training users' histories."""

    diffusion: InterestView
    regression: RegressionView
    miss: Tensor

    def noisy(self, obs: Obs, samples: int, generator: torch.Generator) -> Tensor:
        """(B,samples,D) the regression's answer plus noise of the size of its errors."""
        mean = self.regression(obs).unsqueeze(1)
        noise = torch.randn(len(obs), samples, mean.shape[2], generator=generator)
        return mean + noise @ self.miss.T


def _one(spec: RunSpec, data: Data, say: Say) -> dict[str, Any]:
    kept, users, full, start = unseen_users(data)
    stage = Stage(kept, spec.config("state"), spec.seed, lambda what, _: None)
    say("  fitting what is not in the cache")
    diffusion = purify(spec, stage)
    shared = ("hidden", "parts", "training_steps", "batch", "learning_rate")
    same = {name: value for name, value in spec.settings["purifier"].items() if name in shared}
    fields = {name: dict(spec.settings[name]) for name in ("dataset", "world", "state")}
    plain = make(
        spec.dataset, "random", "regression", spec.seed, device=spec.device, threads=spec.threads,
        settings={**fields, "purifier": same},
    )  # fmt: skip
    regression = purify(plain, stage)
    assert isinstance(diffusion, InterestView)
    assert isinstance(regression, RegressionView)
    rivals = Rivals(diffusion, regression, _miss(stage, regression))
    clean = long_run(stage.evidence, *full)

    def known(length: int) -> Obs:
        width = slice(max(0, start[0].shape[1] - length), None)
        nothing = torch.zeros(0, 0), torch.zeros(0)
        return Obs(users, 0, start[0][:, width], start[1][:, width], 0, *nothing)

    lengths = sorted({min(length, start[0].shape[1]) for length in LENGTHS})
    result: dict[str, Any] = {"coverage": {}, "slates": None, "sessions": None}
    generator = torch.Generator().manual_seed(spec.seed)
    for length in lengths:
        say(f"  coverage after {length} interactions")
        result["coverage"][str(length)] = coverage(diffusion, known(length), clean, generator)
    if data.truth is not None:
        result["slates"], result["sessions"] = {}, {}
        genuine = torch.cat([_genuine(data, part) for part in users.split(BLOCK)])
        for length in lengths:
            say(f"  slates after {length} interactions")
            result["slates"][str(length)] = slates(rivals, known(length), genuine, data, spec, generator)
        for length in sorted({min(length, spec.settings["dataset"]["start"]) for length in STARTS}):
            say(f"  sessions that start after {length} interactions")
            result["sessions"][str(length)] = sessions(rivals, length, data, spec, generator)
    return result


def _miss(stage: Stage, view: RegressionView) -> Tensor:
    samples = draw_samples(stage, 8192, stage.generator(200))
    with torch.no_grad():
        off = (samples.target - view.estimate(samples.features)) * samples.target_std
    return torch.linalg.cholesky(off.T @ off / len(off) + 1e-6 * torch.eye(off.shape[1]))


@torch.no_grad()
def coverage(view: InterestView, obs: Obs, clean: Tensor, generator: torch.Generator) -> dict[str, float]:
    """How often regions that should hold 90 % hold the clean target (n,D) of unseen users.

    interval: each coordinate's own interval, mean over coordinates; ellipsoid: by Mahalanobis distance, its shape from
    three quarters of a user's draws and its size from the rest; spread, error: variance of draws, and of the target around
    their mean, in units of the target's variance.
    """
    parts = []
    for rows in torch.arange(len(obs)).split(BLOCK):
        draws = view(_rows(obs, rows), samples=DRAWS, generator=generator) / view.target_std
        target = clean[rows] / view.target_std
        order = draws.sort(1).values
        low, high = round((DRAWS + 1) * (1 - LEVEL) / 2), round((DRAWS + 1) * (1 + LEVEL) / 2)  # exact ranks for n draws
        inside = ((target >= order[:, low - 1]) & (target <= order[:, high - 1])).float().mean(1)
        first = 3 * DRAWS // 4
        middle = draws[:, :first].mean(1, keepdim=True)
        apart = draws[:, :first] - middle
        shape = torch.bmm(apart.transpose(1, 2), apart) / (first - 1) + 1e-4 * torch.eye(draws.shape[2])
        root = torch.linalg.cholesky(shape)
        rank = round((DRAWS - first + 1) * LEVEL)  # exact, as above
        size = _distance(root, draws[:, first:] - middle).sort(1).values[:, rank - 1]
        within = (_distance(root, target.unsqueeze(1) - middle)[:, 0] <= size).float()
        mean = draws.mean(1)
        parts.append(torch.stack([inside, within, draws.var(1).mean(1), (target - mean).pow(2).mean(1)], 1))
    return dict(zip(("interval", "ellipsoid", "spread", "error"), torch.cat(parts).mean(0).tolist(), strict=True))


def _distance(root: Tensor, off: Tensor) -> Tensor:
    """(n,m) squared Mahalanobis distances of off (n,m,D)."""
    return torch.linalg.solve_triangular(root, off.transpose(1, 2), upper=False).pow(2).sum(1)


@torch.no_grad()
def slates(
    rivals: Rivals, obs: Obs, genuine: Tensor, data: Data, spec: RunSpec, generator: torch.Generator
) -> dict[str, dict[str, float]]:
    """One balanced slate for each unseen user, by `regression` and the diffusion's `estimate` (best predicted items), and
    by `draws` and `noise` (each place by a draw of its own): mean genuine preference (`liking`, of genuine (n,I)), and
    which share of the user's interests the slate holds an item of (`interests`)."""
    items, size = data.train.items, spec.settings["world"]["slate"]
    tags = F.one_hot(items.main_tag, len(items.tag_names)).float()
    affinity = genuine @ tags / tags.sum(0).clamp_min(1)
    interest = affinity >= SHARE * affinity.max(1, keepdim=True).values
    found = {}
    for name, choose in _ways(rivals, size, generator).items():
        picked = []
        for rows in torch.arange(len(obs)).split(BLOCK):
            picked.append(_balanced(*choose(_rows(obs, rows)), items.head, size, None))
        slate = torch.cat(picked)
        held = torch.zeros_like(affinity).scatter_(1, items.main_tag[slate], 1.0)
        found[name] = {
            "liking": float(genuine.gather(1, slate).mean()),
            "interests": float(((held * interest).sum(1) / interest.sum(1)).mean()),
        }
    return found


@torch.no_grad()
def sessions(rivals: Rivals, known: int, data: Data, spec: RunSpec, generator: torch.Generator) -> dict[str, dict[str, float]]:
    """Whole sessions of all test users of whom `known` interactions are known, in balanced slates: `regression` and
    `estimate` throughout, `draws` and `noise` for the first slates, then the same view's estimate. gain: R_cum more than
    `regression` has with the same users and luck, and its standard error over users."""
    world, _ = make_world(spec, replace(data, test_start=last_known(data.test_start, known)), "test")
    size, items = world.slate, data.train.items
    ways = _ways(rivals, size, generator)
    after = {"draws": "estimate", "noise": "regression"}
    earned, found = {}, {}
    for name in ways:

        def act(obs: Obs, name: str = name) -> tuple[Tensor, dict[str, Tensor]]:
            way = ways[name] if obs.step < EXPLORED or name not in after else ways[after[name]]
            return _balanced(*way(obs), items.head, size, obs.closed(world.repeats)), {}

        played = play(world, torch.arange(world.users), 0, act)
        measured = summary(played, items, data.truth)
        earned[name] = played.rewards.sum(0)
        gain = earned[name] - earned["regression"]
        found[name] = {key: measured[key] for key in ("len", "r_cum", "utility")} | {
            "gain": float(gain.mean()),
            "gain_error": float(gain.std() / len(gain) ** 0.5),
        }
    return found


def _ways(rivals: Rivals, size: int, generator: torch.Generator) -> Mapping[str, Way]:
    """Name → the view that ranks, and the states (B,M,D) that it ranks by."""
    diffusion, regression = rivals.diffusion, rivals.regression
    return {
        "regression": lambda obs: (regression, regression(obs).unsqueeze(1)),
        "estimate": lambda obs: (diffusion, diffusion(obs).unsqueeze(1)),
        "draws": lambda obs: (diffusion, diffusion(obs, samples=size, generator=generator)),
        "noise": lambda obs: (regression, rivals.noisy(obs, size, generator)),
    }


def _balanced(view: InterestView, states: Tensor, head: Tensor, size: int, shown: Tensor | None) -> Tensor:
    """int64 (B,K): half heads, half tail items; place j by the click that state j mod M of states (B,M,D) predicts."""
    count, several = states.shape[:2]
    closed = torch.zeros(count, len(head), dtype=torch.bool)
    if shown is not None and shown.shape[1]:
        closed.scatter_(1, shown, True)
    scores = [view.predict(states[:, place]) for place in range(several)]
    picked = []
    for place in range(size):
        other = ~head if place < size // 2 else head
        item = scores[place % several].masked_fill(closed | other, -torch.inf).argmax(1, keepdim=True)
        closed.scatter_(1, item, True)
        picked.append(item)
    return torch.cat(picked, 1)


def last_known(log: Dataset, count: int) -> Dataset:
    """The last `count` rows of each user."""
    ends = log.lengths().cumsum(0)[log.user]
    return log.select(ends - torch.arange(len(log)) <= count)


def _rows(obs: Obs, rows: Tensor) -> Obs:
    return replace(obs, users=obs.users[rows], history=obs.history[rows], rewards=obs.rewards[rows])


def _genuine(data: Data, users: Tensor) -> Tensor:
    assert data.truth is not None
    return data.truth.genuine(users, torch.arange(len(data.train.items)).expand(len(users), -1))


def _over_seeds(found: Sequence[Any]) -> Any:
    """The same nested dict with an interval at each leaf."""
    first = found[0]
    if isinstance(first, dict):
        return {name: _over_seeds([one[name] for one in found]) for name in first}
    return None if first is None else interval(found)
