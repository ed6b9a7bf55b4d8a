"""The words that all parts share: data records, and the Protocols that worlds, states, methods and recorders satisfy.

Shapes: B users in parallel · H history window · K slate size · I items · D state width · N logged interactions ·
S diffusion steps. (The paper writes K for both the slate size and the diffusion steps; this code never does.)
Ids are whole numbers from 0. Tensors of one object live on one device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.options import Config


@dataclass(frozen=True)
class Items:
    """What is known of the items in play.

    popularity: int64 (I,) exposures in the training log. head: bool (I,) the most exposed 20 % (paper §5.1.1), or what
    `world.head_share` says. tags: bool (I,G) categories, none or several an item; main_tag: int64 (I,) the first listed, or
    the last id where an item has none. tag_names (G+1), titles (I): for people to read. absent: int64 (A,) ids that this
    world's catalogue lacks and nobody may show, or None where it holds them all: a dataset's two worlds share one id space.
    """

    popularity: Tensor
    head: Tensor
    tags: Tensor
    main_tag: Tensor
    tag_names: tuple[str, ...]
    titles: tuple[str, ...]
    absent: Tensor | None = None

    def __len__(self) -> int:
        return len(self.popularity)

    def in_play(self) -> Tensor:
        """bool (I,) the items that this world's catalogue holds."""
        there = torch.ones(len(self), dtype=torch.bool, device=self.popularity.device)
        if self.absent is not None:
            there[self.absent] = False
        return there

    def reordered(self, order: Tensor) -> Items:
        """The catalogue whose item i is this one's order[i] (I,)."""
        absent = None if self.absent is None else order.argsort()[self.absent].sort().values
        titles = tuple(self.titles[i] for i in order.tolist())
        return Items(
            self.popularity[order], self.head[order], self.tags[order], self.main_tag[order], self.tag_names, titles, absent
        )

    def first(self, count: int) -> Items:
        """The items with ids below `count`."""
        absent = None if self.absent is None else self.absent[self.absent < count]
        return Items(
            self.popularity[:count], self.head[:count], self.tags[:count], self.main_tag[:count], self.tag_names,
            self.titles[:count], absent if absent is not None and len(absent) else None,
        )  # fmt: skip

    def log_popularity(self) -> Tensor:
        """(I,) log(1 + exposures), standardised over the catalogue: Eq. 6's log pop, guarded against 0."""
        log = torch.log1p(self.popularity.float())
        return (log - log.mean()) / log.std().clamp_min(1e-6)

    def to(self, device: torch.device) -> Items:
        """The same on another device."""
        popularity, head, tags, main = (part.to(device) for part in (self.popularity, self.head, self.tags, self.main_tag))
        absent = None if self.absent is None else self.absent.to(device)
        return Items(popularity, head, tags, main, self.tag_names, self.titles, absent)


@dataclass(frozen=True)
class Dataset:
    """Logged interactions, in the order of time within each user, users ascending.

    user, item int64 (N,); reward float32 (N,) in [0, 1]; time int64 (N,) s; randomised bool (N,), True where the exposure
    was random, or None where the log does not say; users: how many user ids there are (some may have no row).
    """

    user: Tensor
    item: Tensor
    reward: Tensor
    time: Tensor
    randomised: Tensor | None
    users: int
    items: Items

    def __len__(self) -> int:
        return len(self.user)

    def select(self, rows: Tensor) -> Dataset:
        """The same users and items with some of the rows (a bool mask (N,) or ascending positions)."""
        randomised = None if self.randomised is None else self.randomised[rows]
        return Dataset(self.user[rows], self.item[rows], self.reward[rows], self.time[rows], randomised, self.users, self.items)

    def lengths(self) -> Tensor:
        """int64 (users,) rows of each user."""
        return torch.bincount(self.user, minlength=self.users)


class Truth(Protocol):
    """What only the synthetic world knows. Reports and evaluation may ask; nothing that trains may.

    preference (users, d), interest int64 (users,) main category, conformity (users,): of the TEST users.
    """

    @property
    def preference(self) -> Tensor: ...

    @property
    def interest(self) -> Tensor: ...

    @property
    def conformity(self) -> Tensor: ...

    def genuine(self, users: Tensor, items: Tensor) -> Tensor:
        """(B,K) probability that the user likes the item, without conformity, satiation or influence."""

    def reordered(self, order: Tensor) -> Truth:
        """The same for a catalogue whose item i is this one's order[i] (I,)."""


@dataclass(frozen=True)
class Candidates:
    """The part of a large catalogue that policies choose from (engine/candidates.py): its items have the ids below `count`.

    order int64 (I,): an item's id in the dataset as it was loaded. measured: how much of what users would be shown is there.
    """

    count: int
    order: Tensor
    measured: Mapping[str, float]


@dataclass(frozen=True)
class Data:
    """A loaded dataset: what may be learnt from, and what the two worlds are made of.

    train: the training log. train_start / test_start: what is known of each user when a session begins, in the train and
    in the test world. test: the held-out log. shared_users: True where train and test rows belong to the same people.
    responses: part ("train", "test") → what answers in that world, parameters of generated clicks or a table of observed
    responses; to a part that it lacks a model is fitted. fingerprint: names the content; two Data with one fingerprint are
    equal. repairs: what the loader had to mend, counted. files: part → users, items and interactions of its files before
    anything was mended. candidates: what policies choose from, where that is not all items.
    """

    name: str
    train: Dataset
    test: Dataset
    train_start: Dataset
    test_start: Dataset
    shared_users: bool
    fingerprint: str
    sources: Mapping[str, str] = field(default_factory=dict)
    repairs: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    responses: Mapping[str, Any] | None = None
    truth: Truth | None = None
    candidates: Candidates | None = None

    def choice(self, part: str) -> Items:
        """The items that policies choose from in the `train` or the `test` world."""
        items: Items = getattr(self, part).items
        return items if self.candidates is None else items.first(self.candidates.count)

    def lessons(self) -> Dataset:
        """The training log as methods see it: its rows of items that they may choose."""
        if self.candidates is None:
            return self.train
        return replace(self.train.select(self.train.item < self.candidates.count), items=self.choice("train"))


@dataclass(frozen=True)
class Obs:
    """What a recommender may see of B users before it chooses slates. Clicks yes; temper, truth and reasons to leave, no.

    users int64 (B,); step: sessions advance together, 0 at the start; history int64 (B,h) the last h ≤ H items shown,
    oldest first, −1 where there is none; rewards float32 (B,h) the responses to them (0 where there is none); session: how
    many of the last columns were shown in this session, the others come from the log; shown int64 (B,step·K) all items
    shown in this session; done bool (B,); absent int64 (A,) items that the world's catalogue lacks, None where it lacks none.
    """

    users: Tensor
    step: int
    history: Tensor
    rewards: Tensor
    session: int
    shown: Tensor
    done: Tensor
    absent: Tensor | None = None

    def __len__(self) -> int:
        return len(self.users)

    def closed(self, repeats: bool) -> Tensor | None:
        """int64 (B,n): items that may not be shown now, each once: absent ones, and, unless the world allows repeats, those
        shown before. None where that is nothing."""
        shown = None if repeats or not self.shown.shape[1] else self.shown
        if self.absent is None:
            return shown
        absent = self.absent.expand(len(self), -1)
        return absent if shown is None else torch.cat([absent, shown], 1)


@dataclass(frozen=True)
class Outcome:
    """What one step did. obs: what is seen next. clicks float32 (B,K) responses (0 for a user who had left);
    reward float32 (B,) their mean; done bool (B,) left now or earlier; temper float32 (B,); penalised bool (B,) the slate
    broke the bound on exposure."""

    obs: Obs
    clicks: Tensor
    reward: Tensor
    done: Tensor
    temper: Tensor
    penalised: Tensor


@dataclass(frozen=True)
class Sessions:
    """Up to T steps of B users who started together. `alive` bool (T,B): the user was there when the slate was shown;
    all else is 0 (slates −1) where not. slates int64 and clicks (T,B,K); rewards, temper (after the step) and penalised
    (T,B); notes: what the policy noted at each step, (T,B,…)."""

    users: Tensor
    alive: Tensor
    slates: Tensor
    clicks: Tensor
    rewards: Tensor
    temper: Tensor
    penalised: Tensor
    notes: Mapping[str, Tensor] = field(default_factory=dict)

    def cpu(self) -> Sessions:
        """The same on the CPU."""
        tensors = {name: value.cpu() for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors, notes={name: value.cpu() for name, value in self.notes.items()})

    @property
    def user_steps(self) -> int:
        """Slates shown to users who were there."""
        return int(self.alive.sum())


class World(Protocol):
    """A batched simulator of user sessions. `items` is the catalogue, `users` how many users there are, `history` the most
    interactions that an observation holds."""

    items: Items
    users: int
    history: int
    slate: int
    max_len: int
    repeats: bool

    def reset(self, users: Tensor, luck: int) -> Obs: ...

    def step(self, slate: Tensor) -> Outcome: ...

    def keep(self, rows: Tensor) -> Obs: ...

    def imagined(self, responses: Any) -> World:
        """The same rules, users and starts with another response model: where a method plays that has learnt one."""


class StateView(Protocol):
    """All that a method sees of users: states and item vectors in one space of width D, fitted once, then frozen.

    items (I,D). bias (I,): an item's own appeal, in units of a click's logit. curve (I,): the fitted effect of popularity
    on a click's logit, 0 where the view cannot tell it from appeal. centre, spread (D,): mean and deviation of states.
    """

    items: Tensor
    bias: Tensor
    curve: Tensor
    centre: Tensor
    spread: Tensor

    def __call__(
        self, obs: Obs, *, steps: int | None = None, samples: int = 1, generator: torch.Generator | None = None
    ) -> Tensor:
        """(B,D), or (B,samples,D) when samples > 1. `steps`: reverse diffusion steps at inference, None for the trained
        number; views without steps ignore it. One sample is the deterministic estimate; several are draws."""

    def predict(self, state: Tensor) -> Tensor:
        """(B,I) logits of a click for states (B,D)."""


class Policy(Protocol):
    """Chooses slates. `state_dict` holds all that `load_policy` of its method needs."""

    def act(self, obs: Obs, *, generator: torch.Generator | None = None) -> Tensor:
        """int64 (B,K): the greedy slates, or drawn ones where a generator is given; distinct items, none seen before in the
        session unless the world allows repeats."""

    def state_dict(self) -> dict[str, Any]: ...


class Recorder(Protocol):
    """Where a run writes what it learns. Implementations: a folder (`engine.recorder`), the database (`runs_db.recorder`)."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Values at a step (episodes so far). The same (name, step) written twice keeps the last."""

    def progress(self, stage: str, done: float, total: float) -> None:
        """How far the named stage is. Cheap enough to call in an inner loop."""

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Keep `state` so that a later attempt can go on from it. May skip calls that come too soon after the last."""

    def restore(self) -> dict[str, Any] | None:
        """The newest state kept by an earlier attempt at this run, or None."""

    def stop_requested(self) -> bool:
        """Whether someone asked this run to stop. Long loops ask, keep a checkpoint and raise Stopped."""


@dataclass(frozen=True)
class Budget:
    """How long to train: `episodes` sessions that ended, or, where given, `user_steps` steps of single users instead."""

    episodes: int
    user_steps: int | None = None

    def done(self, episodes: int, user_steps: int) -> float:
        """The share of the budget that is spent, 1 or more at the end."""
        if self.user_steps is not None:
            return user_steps / max(self.user_steps, 1)
        return episodes / max(self.episodes, 1)

    def left(self, episodes: int) -> int:
        """Sessions that may still be started; a large number where steps are counted."""
        return 1 << 40 if self.user_steps is not None else self.episodes - episodes


@dataclass(frozen=True)
class LamRange:
    """λ that a finished policy can be told: from 0 to `most`, and `default` where nobody tells it anything."""

    default: float
    most: float


class Method(Protocol):
    """Satisfied by a MODULE of engine.methods. LEARNS is False for references that take no training sessions;
    NEEDS_TRUTH is True for the oracle alone, whose policy evaluation hands the test world's click probabilities.

    A module whose policies can be moved along their frontier after training has `lam_range(config) -> LamRange | None` too:
    the λ that `policy.with_lam` takes, or None where this config trains for one trade-off alone. `RunSpec.lam_range` asks it,
    and every λ slider asks that.
    """

    LEARNS: bool
    Config: type[Config]

    def train(
        self,
        world: World,
        states: StateView,
        logs: Dataset,
        config: Any,
        budget: Budget,
        recorder: Recorder,
        generator: torch.Generator,
    ) -> Policy:
        """Learn, and return the policy that is evaluated."""

    def load_policy(self, state: Mapping[str, Any], states: StateView, items: Items, config: Any) -> Policy:
        """The policy whose `state_dict()` gave `state`."""
