"""Simulated sessions of finished runs, as tables for people: played again live, never trained.

`Theatre` holds a loaded run and plays it; the rest are pure functions of what it gives. Torch is imported when a run is
loaded, not before. Runs share one lock: a simulator has one running batch of sessions, and torch's threads are global.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from app import words
from engine.options import BadInput

if TYPE_CHECKING:
    from engine.run import Trained
    from engine.spec import RunSpec

CROWD = 300  # test users that stand around on the map
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Controls:
    """What can be moved after training. lam, lam_max: None unless the policy has learnt many λ; steps: reverse steps S of the
    purifier, None where it has none."""

    lam: float | None
    lam_max: float | None
    steps: int | None


@dataclass(frozen=True)
class Session:
    """One session of one user.

    steps: step (from 1), reward, temper, cost, penalised, heads, asked (head items demanded, NaN where nobody does).
    slates: step, slot, title, tags, head, rank, percentile, response, liking (NaN where the truth is not known).
    choices: what the manager chose at each step. raw, state (T,D): what was observed, and what the policy was told.
    """

    user: int
    max_len: int
    slate: int
    ad_bound: float
    steps: pd.DataFrame
    slates: pd.DataFrame
    choices: dict[str, list[float]]
    raw: np.ndarray
    state: np.ndarray

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(frozen=True)
class Crowd:
    """Test users at the start of their sessions. taste (n,): how popular what they responded to is, in standard deviations."""

    users: np.ndarray
    raw: np.ndarray
    state: np.ndarray
    taste: np.ndarray


@dataclass(frozen=True)
class Plane:
    """The two directions in which a crowd varies most."""

    middle: np.ndarray
    axes: np.ndarray

    def at(self, states: np.ndarray) -> np.ndarray:
        """(n,2) for states (n,D)."""
        found: np.ndarray = (states - self.middle) @ self.axes
        return found


def controls(spec: RunSpec) -> Controls:
    """Read off the spec, so that sliders can be drawn before anything is loaded."""
    purifier = spec.settings["purifier"]
    try:
        moves = spec.lam_range()
    except BadInput:
        moves = None  # a run of another version, with options that are no more: loading it says so
    steps = int(purifier["steps"]) if "steps" in purifier else None
    return Controls(None, None, steps) if moves is None else Controls(moves.default, moves.most, steps)


def movable() -> list[str]:
    """Methods whose policies can be told another λ after training, with their default options."""
    from engine.methods import METHODS
    from engine.spec import make

    return [name for name in METHODS if make(method=name).lam_range() is not None]


def plane(states: np.ndarray) -> Plane:
    """Principal components of (n,D); each axis points to where its largest weight is positive, so that maps do not flip."""
    middle = states.mean(0)
    axes = np.linalg.svd(states - middle, full_matrices=False)[2][:2].T
    largest = np.abs(axes).argmax(0)
    return Plane(middle, axes * np.where(axes[largest, [0, 1]] < 0, -1.0, 1.0))


class Theatre:
    """A finished run, ready to play. Safe to share between sessions of the browser."""

    def __init__(self, folder: Path, threads: int) -> None:
        import torch

        from engine.run import load_run

        self.threads = threads
        with _LOCK:
            torch.set_num_threads(threads)  # a fitted world is kept by the number of threads that it was fitted with
            self.trained: Trained = load_run(folder)
        items = self.trained.items
        self.rank = _ranks(items.popularity.numpy())

    @property
    def users(self) -> int:
        """Test users there are."""
        return int(self.trained.world.users)

    @contextmanager
    def lent(self) -> Iterator[Trained]:
        """The run as it was trained, for nobody else meanwhile."""
        with self._ready(None, None) as trained:
            yield trained

    def session(self, user: int, lam: float | None, steps: int | None) -> Session:
        """The session of a user under the evaluation's luck. Raises BadInput for a λ or steps that the run cannot take."""
        import torch

        with self._ready(lam, steps) as trained:
            played = trained.play(torch.tensor([user]), states=True)
        items, alive = trained.items, int(played.alive.sum())
        world = trained.spec.settings["world"]
        shown = played.slates[:alive, 0]
        heads = items.head[shown].sum(1).numpy()
        rewards, temper = played.rewards[:alive, 0].numpy(), played.temper[:alive, 0].numpy()
        notes = {name: value[:alive, 0].numpy() for name, value in played.notes.items()}
        raw, state = notes.pop("raw"), notes.pop("state")
        before = np.r_[float(world["max_len"]), temper[:-1]]
        table = pd.DataFrame(
            {
                "step": np.arange(1, alive + 1),
                "reward": rewards,
                "temper": temper,
                "cost": before - temper,
                "penalised": played.penalised[:alive, 0].numpy(),
                "heads": heads,
                "asked": notes.get("heads", np.full(alive, np.nan)).astype(float),
            }
        )
        truth = trained.data.truth
        liking = np.full(shown.shape, np.nan)
        if truth is not None:
            liking = np.concatenate([truth.genuine(played.users, row.unsqueeze(0)).numpy() for row in shown])
        place = shown.numpy().reshape(-1)
        slates = pd.DataFrame(
            {
                "step": np.repeat(np.arange(1, alive + 1), shown.shape[1]),
                "slot": np.tile(np.arange(1, shown.shape[1] + 1), alive),
                "item": place,
                "title": [items.titles[item] for item in place],
                "tags": [self._tags(item) for item in place],
                "head": items.head[shown].numpy().reshape(-1),
                "rank": self.rank[place],
                "percentile": 1 - (self.rank[place] - 1) / len(self.rank),
                "response": played.clicks[:alive, 0].numpy().reshape(-1),
                "liking": liking.reshape(-1),
            }
        )
        choices = {name: value.astype(float).tolist() for name, value in notes.items() if value.ndim == 1}
        return Session(
            user, world["max_len"], world["slate"], world["ad_bound"], table, slates, choices, raw, state
        )  # fmt: skip

    def crowd(self, count: int = CROWD) -> Crowd:
        """Test users as they are at the start, with the trained number of steps."""
        import torch

        from engine.run import EVALUATION_LUCK, evaluation_users

        with self._ready(None, None) as trained:
            users = evaluation_users(trained.world, count, EVALUATION_LUCK)
            played = trained.play(users, states=True)
            log, level = trained.data.test_start, trained.items.log_popularity()
            total = torch.zeros(log.users).index_add_(0, log.user, log.reward * level[log.item])
            many = torch.zeros(log.users).index_add_(0, log.user, log.reward)
        taste = (total / many.clamp_min(1))[users].numpy()
        return Crowd(users.numpy(), played.notes["raw"][0].numpy(), played.notes["state"][0].numpy(), taste)

    def outcomes(self, lam: float | None, steps: int | None, count: int = CROWD) -> pd.DataFrame:
        """user, len, r_cum of the crowd's whole sessions."""
        from engine.metrics import per_user
        from engine.run import EVALUATION_LUCK, evaluation_users

        with self._ready(lam, steps) as trained:
            users = evaluation_users(trained.world, count, EVALUATION_LUCK)
            table = per_user(trained.play(users), trained.items, None)
        return pd.DataFrame({name: table[name].numpy() for name in ("user", "len", "r_cum")})

    def measured(self, lam: float | None, steps: int | None, count: int = CROWD) -> dict[str, float]:
        """The measures of a run's result, over the crowd's whole sessions."""
        from engine.metrics import summary
        from engine.run import EVALUATION_LUCK, evaluation_users

        with self._ready(lam, steps) as trained:
            users = evaluation_users(trained.world, count, EVALUATION_LUCK)
            return summary(trained.play(users), trained.items, trained.data.truth)

    @contextmanager
    def _ready(self, lam: float | None, steps: int | None) -> Iterator[Trained]:
        import torch

        with _LOCK:
            torch.set_num_threads(self.threads)
            trained = self.trained
            if lam is not None:
                trained = replace(trained, policy=trained.policy.with_lam(lam))  # type: ignore[attr-defined]
            trained.view.inference_steps = None if steps is None else trained.view.check_steps(steps)
            try:
                yield trained
            finally:
                trained.view.inference_steps = None

    def _tags(self, item: int) -> list[str]:
        items = self.trained.items
        return [items.tag_names[tag] for tag in items.tags[item].nonzero().flatten().tolist()]


def _ranks(popularity: np.ndarray) -> np.ndarray:
    """(I,) 1 for the most exposed item."""
    rank = np.empty(len(popularity), dtype=np.int64)
    rank[np.argsort(-popularity, kind="stable")] = np.arange(1, len(popularity) + 1)
    return rank


def parting(one: Session, other: Session) -> int | None:
    """The first step (from 1) at which two sessions of a user differ: other items, or only one goes on. None: never."""
    for step in range(1, min(len(one), len(other)) + 1):
        shown = [set(own.slates.loc[own.slates["step"] == step, "item"]) for own in (one, other)]
        if shown[0] != shown[1]:
            return step
    return None if len(one) == len(other) else min(len(one), len(other)) + 1


def step_words(session: Session, step: int) -> str:
    """What one slate did to the user's patience."""
    row: Any = session.steps.iloc[step - 1]
    text = f"Mean response {row.reward:.2f} costs {2 - row.reward:.1f} of patience"
    if row.penalised:
        text += f", and {words.count(int(row.heads), 'head item')} of {session.slate} cost 1 more"
    text += f"; {max(row.temper, 0):.1f} left."
    told = []
    if "heads" in session.choices:
        told.append(f"asked for {words.count(round(session.choices['heads'][step - 1]), 'head item')}")
    for name, title in (("omega_acc", "ω_acc"), ("omega_fair", "ω_fair")):
        if name in session.choices:
            told.append(f"set {title} to {session.choices[name][step - 1]:.2f}")
    return f"{text} The manager {words.listed(told)}." if told else text


def ending(session: Session) -> str:
    """Why the session was over."""
    steps, length = session.steps, len(session)
    broken = int(steps["penalised"].sum())
    dull = float((2 - steps["reward"]).sum())
    if length >= session.max_len:
        return f"Stayed to the very end: all {session.max_len} slates that a session can have."
    answered = f"slates answered with {steps['reward'].mean():.2f} on average"
    share = f"{dull:.1f} of {session.max_len} units of patience went to {answered}"
    fair = f", {broken} to slates that were too one-sided" if broken else ", none to one-sided slates"
    last: Any = steps.iloc[-1]
    straw = (
        "a one-sided slate"
        if last.penalised
        else "a slate that met little response"
        if last.reward < 0.35
        else "one more slate"
    )
    return f"Left after {length} of at most {session.max_len} slates, when {straw} took patience below 1. {share}{fair}."


def map_rows(crowd: Crowd, session: Session, which: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(crowd: x, y, taste, user; path: x, y, step) on the plane of the crowd. which: `raw` or `state`."""
    around = getattr(crowd, which)
    level = plane(around)
    there, path = level.at(around), level.at(getattr(session, which))
    people = pd.DataFrame({"x": there[:, 0], "y": there[:, 1], "taste": crowd.taste, "user": crowd.users})
    return people, pd.DataFrame({"x": path[:, 0], "y": path[:, 1], "step": np.arange(1, len(path) + 1)})
