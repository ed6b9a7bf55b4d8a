"""MOFIR: one DDPG for all trade-offs of utility and fairness, told which one it serves

Ge et al. 2022, "Toward Pareto Efficient Fairness–Utility Trade-off in Recommendation through Reinforcement Learning". The
reward is a vector, [mean response, tail share of the slate]; each session serves weights ω = [1 − ω_fair, ω_fair] drawn from
the simplex, which actor and critic see. The critic's values are vectors; its loss is taken at the session's ω and at another
one (Abels et al. 2019), and the actor maximises ωᵀQ. Vectors in item space are acted with as in `td3`; learning curves show
the same scalars, `value` being ωᵀQ.

`omega` is the ω_fair served in evaluation. λ, the price of fairness in units of response, is the same thing: ω_fair =
λ/(1 + λ), and `evaluate --lam X` moves a finished policy along its frontier.

Differences from the source: 1. no code of the authors is known: this is our reading of the paper. 2. fairness is a tail
share, as in the paper's own measure; it is best at AD 1, so that a large ω trades one imbalance for another. 3. vectors of
length 1, an item intercept, a start at predicted clicks, and whole sessions in replay, as in `td3` (Differences 1 to 5
there). 4. the other ω of the loss is drawn anew instead of being kept from the past, which has the same law.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.contracts import Budget, Dataset, Items, LamRange, Obs, Policy, Recorder, StateView, World
from engine.learn import inputs as told
from engine.learn.moment import Moment
from engine.learn.offpolicy import ReplayConfig, learn
from engine.learn.replay import Replay
from engine.learn.td3 import TD3, Steps, Transitions
from engine.learn.vectors import VectorActor, VectorCritics, perturbed, unit
from engine.options import BadInput, option

LEARNS = True
SEARCH = {"actor_rate": (3e-5, 1e-4, 3e-4), "sigma": (0.2, 0.4, 0.8), "omega": (0.0, 0.1, 0.3)}  # of `engine tune`
LAM_MOST = 9.0  # ω_fair 0.9; a larger λ is legal, and changes little


@dataclass(frozen=True)
class Config(ReplayConfig):
    """`method.*` of `mofir`."""

    omega: float = option(
        0.0, "ω_fair in evaluation: weight of the tail share, the response has the rest", low=0, high=1, source="tuned"
    )
    updates: int = option(64, "gradient steps after each batch of sessions", low=1, high=100_000, source="docs/methods.md")
    actor_rate: float = option(3e-5, "Adam's step size of the actor", above=0, high=1, source="tuned; DDPG 1e-4")
    critic_rate: float = option(1e-3, "Adam's step size of the critic", above=0, high=1, source="DDPG")
    gamma: float = option(0.9, "discount per step", low=0, high=1, source="this line of research")
    tau: float = option(0.005, "how far targets go to their networks at each step", above=0, high=1, source="docs/methods.md")
    sigma: float = option(0.4, "length of the exploration noise beside a vector of length 1", low=0, high=100, source="tuned")
    hidden: int = option(128, "width of the networks' two hidden layers", low=4, high=4096)


def lam_range(config: Config) -> LamRange:
    """λ from 0 to 9, where ω_fair is 0.9, or to that of `omega` where it is larger; `omega` = 1 counts as 0.999."""
    default = config.omega / max(1 - config.omega, 1e-3)
    return LamRange(default, max(LAM_MOST, default))


class MofirPolicy:
    """Ranks by the actor's vector for ω. `omega` is the ω_fair that is served."""

    def __init__(self, actor: VectorActor, states: StateView, config: Config, slate: int, max_len: int, repeats: bool) -> None:
        self.actor, self.states, self.config = actor, states, config
        self.slate, self.max_len, self.repeats = slate, max_len, repeats
        self.omega = config.omega

    def with_lam(self, lam: float) -> MofirPolicy:
        """The same policy serving ω_fair = λ/(1 + λ). Raises BadInput where λ is negative or not finite."""
        if not 0 <= lam < float("inf"):
            raise BadInput(f"lam = {lam} is not legal: it must be a number of 0 or more")
        other = MofirPolicy(self.actor, self.states, self.config, self.slate, self.max_len, self.repeats)
        other.omega = lam / (1 + lam)
        return other

    @property
    def lam(self) -> float | None:
        """The λ that is served; no number is that of ω_fair = 1."""
        return self.omega / (1 - self.omega) if self.omega < 1 else None

    @torch.no_grad()
    def act(self, obs: Obs, *, generator: torch.Generator | None = None) -> Tensor:
        """int64 (B,K)."""
        omega = torch.full((len(obs),), self.omega, device=self.states.items.device)
        return self.choose(obs, omega, generator)[0]

    @torch.no_grad()
    def choose(self, obs: Obs, omega: Tensor, generator: torch.Generator | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Slates for ω_fair (B,), and what was seen, executed and served; explores where a generator is given."""
        inputs = told.policy_inputs(self.states, self.states(obs), obs, self.slate, self.max_len)
        vectors = self.actor(torch.cat([inputs, omega.unsqueeze(1)], 1))
        if generator is not None:
            vectors = perturbed(vectors, self.config.sigma, generator)
        slates = self.actor.slates(vectors, obs, self.slate, self.repeats)
        return slates, {"inputs": inputs, "vectors": vectors, "omega": omega}

    @torch.no_grad()
    def rank(self, moment: Moment) -> Tensor:
        """int64 (B,K): the greedy slates of users at steps of their own."""
        omega = torch.where(moment.lam.isnan(), self.omega, moment.lam / (1 + moment.lam))
        vectors = self.actor(torch.cat([moment.inputs, omega.unsqueeze(1)], 1))
        return moment.best(vectors @ self.actor.points.T, self.slate)

    def state_dict(self) -> dict[str, Any]:
        """All that `load_policy` needs."""
        shape = {"slate": self.slate, "max_len": self.max_len, "repeats": self.repeats}
        return {"actor": self.actor.state_dict(), **shape}


class Learner(MofirPolicy):
    """The policy while it learns."""

    def __init__(self, world: World, states: StateView, config: Config, generator: torch.Generator) -> None:
        actor = VectorActor(states, 1, config.hidden, generator)
        super().__init__(actor, states, config, world.slate, world.max_len, world.repeats)
        critics = VectorCritics(actor, told.width(states) + 1, 1, 2, config.hidden, generator)
        device = states.items.device
        self.head = world.items.head.to(device)
        steps = Steps(config.gamma, config.tau, config.actor_rate, config.critic_rate, 0.0, 0.0, 1)  # DDPG
        self.core = TD3(actor.to(device), critics.to(device), unit, steps)
        self._serving = torch.zeros(0)  # ω_fair of the running sessions, by user id

    def explore(self, obs: Obs, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Slates of vectors with noise, for an ω drawn at each session's start."""
        if obs.step == 0:
            self._serving = torch.zeros(int(obs.users.max()) + 1, device=obs.users.device)
            self._serving[obs.users] = _simplex(len(obs), obs.users.device, generator)
        return self.choose(obs, self._serving[obs.users], generator)

    def update(self, replay: Replay, generator: torch.Generator) -> Mapping[str, Tensor]:
        """One gradient step on user-steps from replay, each at the ω it served and at another one."""
        kept = replay.sessions
        step, row = replay.draw(self.config.batch, generator)
        after, stays = replay.following(step, row)
        tail = (~self.head[kept.slates[step, row]]).float().mean(1)
        reward = torch.stack([kept.rewards[step, row], tail], 1)
        omega = torch.cat([kept.notes["omega"][step, row], _simplex(len(step), tail.device, generator)])
        before, vectors, then = (
            kept.notes["inputs"][step, row],
            kept.notes["vectors"][step, row],
            kept.notes["inputs"][after, row],
        )
        batch = Transitions(
            torch.cat([before.repeat(2, 1), omega.unsqueeze(1)], 1),
            vectors.repeat(2, 1),
            reward.repeat(2, 1),
            torch.cat([then.repeat(2, 1), omega.unsqueeze(1)], 1),
            stays.repeat(2),
            torch.stack([1 - omega, omega], 1),
        )
        return self.core.update(batch, generator)

    def training_state(self) -> dict[str, Any]:
        """All that a later attempt needs to go on."""
        return self.core.state_dict()

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what an earlier attempt kept."""
        self.core.load_state_dict(state)


def _simplex(count: int, device: torch.device, generator: torch.Generator) -> Tensor:
    """(count,) ω_fair of points drawn uniformly from the simplex of two weights."""
    return torch.rand(count, generator=generator, device=generator.device).to(device)


def load_policy(state: Mapping[str, Any], states: StateView, items: Items, config: Config) -> MofirPolicy:
    """The policy whose `state_dict()` gave `state`."""
    actor = VectorActor(states, 1, config.hidden, torch.Generator())
    actor.load_state_dict(state["actor"])
    return MofirPolicy(
        actor.to(states.items.device), states, config, int(state["slate"]), int(state["max_len"]), bool(state["repeats"])
    )


def train(
    world: World,
    states: StateView,
    logs: Dataset,
    config: Config,
    budget: Budget,
    recorder: Recorder,
    generator: torch.Generator,
) -> Policy:
    """Play, remember, take gradient steps from what is remembered, until the budget is spent."""
    return learn("mofir", Learner(world, states, config, generator), world, config, budget, recorder, generator)
