"""TD3 over vectors in item space: the continuous-action RL baseline, with no word on fairness

Fujimoto et al. 2018, as EasyRL4Rec ranks with it: the action is a vector a, an item's score a·e_i, the slate the top K of
what was not shown yet. Twin critics of the vector that was executed, target smoothing, a delayed actor. Learning curves show
`critic_loss`, `actor_loss` (minus the first critic's mean value of the actor's own vectors) and `value` (its mean value of
the vectors executed).

Differences from the source: 1. vectors have length 1 (only their direction ranks) and `sigma` and `target_noise` are lengths
of noise beside it, about the tangent of the angle; the source's 1.5 is in coordinates of its own embeddings. 2. item space
has one coordinate more, stage I's item intercept. 3. the actor starts at stage I's predicted clicks, as all learned methods
here do. 4. critics also see the vector's products with the actor's start. 5. sessions of many users are played between
gradient steps, and user-steps are drawn from the last sessions instead of from all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.contracts import Budget, Dataset, Items, Obs, Policy, Recorder, StateView, World
from engine.learn import inputs as told
from engine.learn.moment import Moment
from engine.learn.offpolicy import ReplayConfig, learn
from engine.learn.replay import Replay
from engine.learn.td3 import TD3, Steps, Transitions
from engine.learn.vectors import VectorActor, VectorCritics, noise_steps, perturbed, unit
from engine.options import option

LEARNS = True
SEARCH = {"actor_rate": (3e-5, 1e-4, 3e-4), "sigma": (0.1, 0.2, 0.4), "gamma": (0.5, 0.8, 0.9)}  # of `engine tune`


@dataclass(frozen=True)
class Config(ReplayConfig):
    """`method.*` of `td3`."""

    updates: int = option(64, "gradient steps after each batch of sessions", low=1, high=100_000, source="docs/methods.md")
    actor_rate: float = option(3e-5, "Adam's step size of the actor", above=0, high=1, source="tuned; EasyRL4Rec 1e-4")
    critic_rate: float = option(1e-3, "Adam's step size of the critics", above=0, high=1, source="EasyRL4Rec")
    gamma: float = option(0.8, "discount per step", low=0, high=1, source="tuned; this line of research 0.9")
    tau: float = option(0.005, "how far targets go to their networks at each step of the actor", above=0, high=1, source="TD3")
    sigma: float = option(0.4, "length of the exploration noise beside a vector of length 1", low=0, high=100, source="tuned")
    target_noise: float = option(0.2, "length of the noise on target actions", low=0, high=100, source="TD3: 0.2")
    noise_clip: float = option(
        2.5, "bound on each coordinate of it, in its deviations", above=0, high=100, source="TD3: 0.5/0.2"
    )
    delay: int = option(2, "steps of the critics for each of the actor", low=1, high=1000, source="TD3")
    hidden: int = option(128, "width of the networks' two hidden layers", low=4, high=4096)


class TD3Policy:
    """Ranks by the actor's vector; with noise added where it explores."""

    def __init__(self, actor: VectorActor, states: StateView, config: Config, slate: int, max_len: int, repeats: bool) -> None:
        self.actor, self.states, self.config = actor, states, config
        self.slate, self.max_len, self.repeats = slate, max_len, repeats

    @torch.no_grad()
    def act(self, obs: Obs, *, generator: torch.Generator | None = None) -> Tensor:
        """int64 (B,K)."""
        return self.choose(obs, generator)[0]

    @torch.no_grad()
    def choose(self, obs: Obs, generator: torch.Generator | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Slates, and what the actor saw and what was executed; explores where a generator is given."""
        sight = told.policy_inputs(self.states, self.states(obs), obs, self.slate, self.max_len)
        vectors = self.actor(sight)
        if generator is not None:
            vectors = perturbed(vectors, self.config.sigma, generator)
        return self.actor.slates(vectors, obs, self.slate, self.repeats), {"sight": sight, "vectors": vectors}

    @torch.no_grad()
    def rank(self, moment: Moment) -> Tensor:
        """int64 (B,K): the greedy slates of users at steps of their own."""
        return moment.best(self.actor(moment.inputs) @ self.actor.points.T, self.slate)

    def state_dict(self) -> dict[str, Any]:
        """All that `load_policy` needs."""
        shape = {"slate": self.slate, "max_len": self.max_len, "repeats": self.repeats}
        return {"actor": self.actor.state_dict(), **shape}


class Learner(TD3Policy):
    """The policy while it learns."""

    def __init__(self, world: World, states: StateView, config: Config, generator: torch.Generator) -> None:
        actor = VectorActor(states, 0, config.hidden, generator)
        super().__init__(actor, states, config, world.slate, world.max_len, world.repeats)
        critics = VectorCritics(actor, told.width(states), 2, 1, config.hidden, generator)
        device = states.items.device
        noise, clip = noise_steps(config.target_noise, config.noise_clip, actor)
        steps = Steps(config.gamma, config.tau, config.actor_rate, config.critic_rate, noise, clip, config.delay)
        self.core = TD3(actor.to(device), critics.to(device), unit, steps)

    def explore(self, obs: Obs, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Slates of vectors with noise, and those vectors: the critics see what was executed."""
        return self.choose(obs, generator)

    def update(self, replay: Replay, generator: torch.Generator) -> Mapping[str, Tensor]:
        """One gradient step on user-steps from replay."""
        kept = replay.sessions
        step, row = replay.draw(self.config.batch, generator)
        after, stays = replay.following(step, row)
        sight, reward = kept.notes["sight"], kept.rewards[step, row].unsqueeze(1)
        batch = Transitions(
            sight[step, row], kept.notes["vectors"][step, row], reward, sight[after, row], stays, torch.ones_like(reward)
        )
        return self.core.update(batch, generator)

    def training_state(self) -> dict[str, Any]:
        """All that a later attempt needs to go on."""
        return self.core.state_dict()

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what an earlier attempt kept."""
        self.core.load_state_dict(state)


def load_policy(state: Mapping[str, Any], states: StateView, items: Items, config: Config) -> TD3Policy:
    """The policy whose `state_dict()` gave `state`."""
    actor = VectorActor(states, 0, config.hidden, torch.Generator())
    actor.load_state_dict(state["actor"])
    return TD3Policy(
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
    return learn("td3", Learner(world, states, config, generator), world, config, budget, recorder, generator)
