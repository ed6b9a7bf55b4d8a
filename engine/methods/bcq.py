"""Batch-constrained Q-learning: learns from the log alone, and only shows what the old feed might have shown

Two algorithms of one group. `kind=discrete` (default): Fujimoto et al. 2019, "Benchmarking Batch Deep Reinforcement Learning
Algorithms". Each logged interaction is a user-step: the state is what the view makes of the rows before it, the action the
item, the reward the response. Two heads score every item: Q, and an imitation G of the log's choices. A slate is the best K by
Q of the items that G gives at least `threshold` of its largest probability, filled up by G where those are too few.

`kind=continuous`: Fujimoto et al. 2019, "Off-Policy Deep Reinforcement Learning without Exploration". K consecutive logged
interactions of a user are a logged slate and one user-step; its action is the mean of the items' vectors, to length 1, its
reward the mean response. A variational autoencoder learns which vectors the log shows in a state, a perturbation moves its
draws by at most `perturbation`, and of `candidates` draws the one that the critic values most ranks the catalogue by inner
product, as in `td3`.

The train world is asked for nothing but the learning curve. An episode is `world.max_len` logged user-steps, so that budgets
and curves mean the same number of decisions as for methods that play; rows are drawn again and again, as from replay. Curves
show `q_loss`, `imitation_loss` (of G, or of the autoencoder), `target` (mean), and `actor_loss` of the perturbation.

Differences from the source: 1. a log has no slates, so Q and G are of single items, and the K best make a slate; or K rows
that follow each other count as one. 2. "largest probability" is that among items that may still be shown. 3. Q starts at
stage I's predicted click plus the discounted mean response, G at the items' share of the log, the autoencoder's decoder at
the vector that ranks as predicted clicks do: all learned methods here start from stage I. 4. the networks see the state
alone, not the session's progress: a log has no sessions. 5. states of at most `rows` logged interactions are made, once,
before training. 6. where a log ends nothing has ended, so all targets bootstrap. 7. the threshold is met with ≥, so that the
likeliest item is always allowed. 8. continuous: the latents of the candidates that a policy chooses from are drawn once, so
that it is deterministic; critics also see the vector's products with the start, as in `td3`; vectors have length 1.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from engine import nets
from engine.contracts import Budget, Dataset, Items, Obs, Policy, Recorder, StateView, World
from engine.learn.bcq import Transitions, constrained, losses, targets
from engine.learn.bcq_continuous import ContinuousBCQ, Imitation, Steps
from engine.learn.logged import logged_slates, logged_transitions
from engine.learn.loop import Count, Learns, Training, until_spent
from engine.learn.moment import Moment
from engine.learn.rollout import held_out_users
from engine.learn.vectors import Perturbation, VectorCritics, VectorSpace, unit
from engine.options import BadInput, Stopped, option
from engine.options import Config as BaseConfig

LEARNS = True
SEARCH = {"learning_rate": (1e-4, 3e-4, 1e-3), "threshold": (0.01, 0.1, 0.3), "gamma": (0.5, 0.8, 0.9)}  # of `engine tune`
USERS_AT_ONCE = 256  # whose candidates are valued together


@dataclass(frozen=True)
class Config(BaseConfig):
    """`method.*` of `bcq`."""

    kind: str = option(
        "discrete",
        "what an action is: an item (threshold, learning_rate, n_step, logits, target_every), or a vector in item space"
        " (vector_rate, perturbation, candidates, target_candidates, pessimism, latent, tau)",
        choices=("discrete", "continuous"),
        source="docs/methods.md",
    )
    threshold: float = option(
        0.01, "share of the likeliest item's probability that allows an item", low=0, high=1, source="docs/methods.md"
    )
    learning_rate: float = option(1e-4, "Adam's step size", above=0, high=1, source="tuned, over three seeds")
    gamma: float = option(
        0.5, "discount per logged interaction, or per logged slate (continuous)", low=0, high=1, source="docs/methods.md"
    )
    n_step: int = option(3, "logged rewards summed before the target bootstraps", low=1, high=100, source="EasyRL4Rec")
    logits: float = option(0.01, "weight of G's mean squared logit", low=0, high=100, source="authors' code")
    target_every: int = option(320, "gradient steps between copies to the target network", low=1, source="EasyRL4Rec")
    batch: int = option(256, "logged user-steps in one gradient step", low=1, high=1_000_000)
    users: int = option(128, "episodes between two looks at the clock and the learning curve", low=1, high=65_536)
    rows: int = option(200_000, "logged user-steps whose states are made, at most", low=1, high=100_000_000)
    hidden: int = option(128, "width of the networks' hidden layer", low=4, high=4096)
    vector_rate: float = option(1e-3, "Adam's step size (continuous)", above=0, high=1, source="authors' code")
    perturbation: float = option(
        0.05, "longest move of a candidate of length 1 (continuous)", low=0, high=10, source="authors' code"
    )
    candidates: int = option(100, "draws that a slate is chosen from (continuous)", low=1, high=10_000, source="authors' code")
    target_candidates: int = option(10, "draws for each target (continuous)", low=1, high=1000, source="authors' code")
    pessimism: float = option(
        0.75, "weight of the smaller critic in targets (continuous)", low=0, high=1, source="Fujimoto et al. 2019"
    )
    latent: int = option(
        2, "the autoencoder's coordinates for each of a vector's (continuous)", low=1, high=16, source="authors' code"
    )
    tau: float = option(0.005, "how far targets go to their networks (continuous)", above=0, high=1, source="authors' code")


class Heads(nn.Module):
    """Q and the imitation's logits over the catalogue."""

    frequency: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(self, states: StateView, items: Items, config: Config, generator: torch.Generator) -> None:
        super().__init__()
        self.predict = states.predict
        width = states.items.shape[1]
        self.q_vectors, self.q_bias = nn.Parameter(states.items.clone()), nn.Parameter(torch.zeros_like(states.bias))
        self.g_vectors, self.g_bias = nn.Parameter(states.items.clone()), nn.Parameter(torch.zeros_like(states.bias))
        self.q_residual = nets.mlp((width, config.hidden, width), generator, activation=nn.Tanh, last_gain=0.0)
        self.g_residual = nets.mlp((width, config.hidden, width), generator, activation=nn.Tanh, last_gain=0.0)
        self.later = nets.mlp((width, config.hidden, 1), generator, activation=nn.Tanh, last_gain=0.0)
        frequency = torch.log1p(items.popularity.float())
        self.register_buffer("frequency", frequency - frequency.mean())
        self.register_buffer("centre", states.centre.clone())
        self.register_buffer("spread", states.spread.clone())

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """(n,I) Q: the click that stage I predicts, corrected, plus what later steps bring; and (n,I) logits of G."""
        inputs = (state - self.centre) / self.spread
        click = self.predict(state) + torch.addmm(self.q_bias, self.q_residual(inputs), self.q_vectors.T)
        imitation = torch.addmm(self.frequency + self.g_bias, self.g_residual(inputs), self.g_vectors.T)
        return torch.sigmoid(click) + self.later(inputs), imitation

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Items' vectors move 2 times, their intercepts 20 times as fast as the rest, as in `Scorer`."""
        speed = {"q_vectors": 2, "g_vectors": 2, "q_bias": 20, "g_bias": 20}
        return [{"params": [p], "lr": speed.get(name, 1) * learning_rate} for name, p in self.named_parameters()]


class BCQPolicy:
    """Ranks the allowed items by Q, then the others by G."""

    def __init__(self, net: Heads, states: StateView, threshold: float, slate: int, repeats: bool) -> None:
        self.net, self.states, self.threshold, self.slate, self.repeats = net, states, threshold, slate, repeats

    @torch.no_grad()
    def act(self, obs: Obs, *, generator: torch.Generator | None = None) -> Tensor:
        """int64 (B,K); nothing is drawn."""
        q, logits = self.net(self.states(obs))
        closed = obs.closed(self.repeats)
        blocked = None if closed is None else torch.zeros_like(q, dtype=torch.bool).scatter_(1, closed, True)
        return constrained(q, logits, self.threshold, blocked).topk(self.slate, dim=1).indices

    @torch.no_grad()
    def rank(self, moment: Moment) -> Tensor:
        """int64 (B,K): the greedy slates of users at steps of their own."""
        q, logits = self.net(moment.state)
        return constrained(q, logits, self.threshold, moment.blocked).topk(self.slate, dim=1).indices

    def state_dict(self) -> dict[str, Any]:
        """All that `load_policy` needs."""
        return {"net": self.net.state_dict(), "slate": self.slate, "repeats": self.repeats}


class Learner(Learns, Protocol):
    """What either kind brings to the loop beside its training state: the policy and a gradient step."""

    @property
    def policy(self) -> Policy: ...

    def update(self, batch: Transitions, generator: torch.Generator) -> Mapping[str, Tensor]: ...


class Discrete:
    """Heads, their target and optimiser."""

    def __init__(self, world: World, states: StateView, logs: Dataset, config: Config, generator: torch.Generator) -> None:
        self.config, self.updates = config, 0
        self.net = Heads(states, world.items, config, generator).to(states.items.device)
        last = self.net.later[-1]
        assert isinstance(last, nn.Linear)  # what later steps bring starts at the log's mean response
        nn.init.constant_(last.bias, float(logs.reward.mean()) * config.gamma / max(1 - config.gamma, 0.01))
        self.target = copy.deepcopy(self.net).requires_grad_(False)
        self.adam = torch.optim.Adam(self.net.parameter_groups(config.learning_rate), fused=True)
        self.policy = BCQPolicy(self.net, states, config.threshold, world.slate, world.repeats)

    def update(self, batch: Transitions, generator: torch.Generator) -> dict[str, Tensor]:
        """One gradient step of both heads."""
        with torch.no_grad():
            later_q, later_logits = self.net(batch.following)
            aim = targets(batch, later_q, later_logits, self.target(batch.following)[0], self.config.threshold)
        q, logits = self.net(batch.inputs)
        q_loss, imitation_loss, size = losses(q, logits, batch.action, aim)
        self.adam.zero_grad()
        (q_loss + imitation_loss + self.config.logits * size).backward()
        self.adam.step()
        self.updates += 1
        if self.updates % self.config.target_every == 0:
            self.target.load_state_dict(self.net.state_dict())
        return {"q_loss": q_loss.detach(), "imitation_loss": imitation_loss.detach(), "target": aim.mean()}

    def training_state(self) -> dict[str, Any]:
        """Networks, optimiser and the count of steps."""
        parts = {name: getattr(self, name).state_dict() for name in ("net", "target", "adam")}
        return {**parts, "learner_updates": self.updates}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        for name in ("net", "target", "adam"):
            getattr(self, name).load_state_dict(state[name])
        self.updates = int(state["learner_updates"])


class VectorBCQPolicy:
    """Ranks by the best of the vectors that `latents` (C,L) stand for in a state."""

    def __init__(
        self, core: ContinuousBCQ, space: VectorSpace, latents: Tensor, states: StateView, slate: int, repeats: bool
    ) -> None:
        self.core, self.space, self.latents = core, space, latents
        self.states, self.slate, self.repeats = states, slate, repeats

    @torch.no_grad()
    def act(self, obs: Obs, *, generator: torch.Generator | None = None) -> Tensor:
        """int64 (B,K); nothing is drawn."""
        sight = _standard(self.states(obs), self.space)
        vectors = torch.cat([self.core.best(part, self.latents) for part in sight.split(USERS_AT_ONCE)])
        return self.space.slates(vectors, obs, self.slate, self.repeats)

    @torch.no_grad()
    def rank(self, moment: Moment) -> Tensor:
        """int64 (B,K): the greedy slates of users at steps of their own."""
        vectors = self.core.best(_standard(moment.state, self.space), self.latents)
        return moment.best(vectors @ self.space.points.T, self.slate)

    def state_dict(self) -> dict[str, Any]:
        """All that `load_policy` needs."""
        parts = {name: getattr(self.core, name).state_dict() for name in ("imitation", "perturbation", "critics")}
        return {**parts, "latents": self.latents, "slate": self.slate, "repeats": self.repeats}


class Continuous:
    """The core in item space, and the policy that chooses by it."""

    def __init__(self, world: World, states: StateView, config: Config, generator: torch.Generator) -> None:
        self.core, self.space = _vector_parts(states, config, generator)
        latents = self.core.imitation.draw(config.candidates, generator).to(states.items.device)
        self.policy = VectorBCQPolicy(self.core, self.space, latents, states, world.slate, world.repeats)

    def update(self, batch: Transitions, generator: torch.Generator) -> dict[str, Tensor]:
        """One gradient step of the core; actions are slates (n,K)."""
        vectors = unit(self.space.points[batch.action].mean(1))
        before, after = _standard(batch.inputs, self.space), _standard(batch.following, self.space)
        return self.core.update(Transitions(before, vectors, batch.returns, after, batch.discount), generator)

    def training_state(self) -> dict[str, Any]:
        """Networks and optimisers, and the policy's latents."""
        return {"core": self.core.state_dict(), "latents": self.policy.latents}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.core.load_state_dict(state["core"])
        self.policy.latents = state["latents"].to(self.policy.latents.device)


def _vector_parts(states: StateView, config: Config, generator: torch.Generator) -> tuple[ContinuousBCQ, VectorSpace]:
    space = VectorSpace(states)
    inputs, actions = states.items.shape[1], space.points.shape[1]
    imitation = Imitation(
        inputs, actions, config.latent * actions, config.hidden, lambda sight, raw: unit(space.start(sight) + raw),
        math.sqrt(actions), generator,
    )  # fmt: skip
    perturbation = Perturbation(inputs, actions, config.perturbation, config.hidden, generator)
    critics = VectorCritics(space, inputs, 2, 1, config.hidden, generator)
    device = states.items.device
    steps = Steps(config.vector_rate, config.tau, config.pessimism, config.target_candidates)
    return ContinuousBCQ(imitation.to(device), perturbation.to(device), critics.to(device), steps), space.to(device)


def _standard(state: Tensor, space: VectorSpace) -> Tensor:
    return (state - space.centre) / space.spread


def load_policy(state: Mapping[str, Any], states: StateView, items: Items, config: Config) -> Policy:
    """The policy whose `state_dict()` gave `state`."""
    if config.kind == "continuous":
        core, space = _vector_parts(states, config, torch.Generator())
        for name in ("imitation", "perturbation", "critics"):
            getattr(core, name).load_state_dict(state[name])
        latents = state["latents"].to(states.items.device)
        return VectorBCQPolicy(core, space, latents, states, state["slate"], state["repeats"])
    net = Heads(states, items, config, torch.Generator())
    net.load_state_dict(state["net"])
    return BCQPolicy(net.to(states.items.device), states, config.threshold, state["slate"], state["repeats"])


def train(
    world: World,
    states: StateView,
    logs: Dataset,
    config: Config,
    budget: Budget,
    recorder: Recorder,
    generator: torch.Generator,
) -> Policy:
    """Make states of logged interactions, then take gradient steps on them until the budget is spent."""
    held_out = held_out_users(world)

    def watch(share: float) -> None:
        recorder.progress("states of the log", share, 1)
        if recorder.stop_requested():
            raise Stopped("stopped while making the states of the log")

    transitions = _logged(world, states, logs, config, world.users - held_out, generator, watch)
    learner: Learner = (
        Continuous(world, states, config, generator)
        if config.kind == "continuous"
        else Discrete(world, states, logs, config, generator)
    )

    def turn(count: Count, left: int) -> tuple[None, dict[str, float]]:
        episodes = min(config.users, left)
        drawn = torch.randint(len(transitions), (episodes * world.max_len,), generator=generator)
        count["episodes"] += episodes
        count["user_steps"] += len(drawn)
        found = []
        for rows in drawn.to(states.items.device).split(config.batch):
            found.append(learner.update(transitions.select(rows), generator))
            count["updates"] += 1
        return None, {name: float(torch.stack([each[name] for each in found]).mean()) for name in found[0]}

    until_spent("bcq", learner.policy, {"learner": Training(learner)}, turn, world, budget, recorder, generator)
    return learner.policy


def _logged(
    world: World,
    states: StateView,
    logs: Dataset,
    config: Config,
    users: int,
    generator: torch.Generator,
    watch: Callable[[float], None],
) -> Transitions:
    """What there is to learn from. Raises BadInput where no user of the log has enough interactions."""
    if config.kind == "continuous":
        found = logged_slates(
            logs, states, users=users, count=config.rows, history=world.history, slate=world.slate, gamma=config.gamma,
            generator=generator, watch=watch,
        )  # fmt: skip
        asked = f"world.slate = {world.slate}"
    else:
        found = logged_transitions(
            logs, states, users=users, count=config.rows, history=world.history, ahead=config.n_step, gamma=config.gamma,
            generator=generator, watch=watch,
        )  # fmt: skip
        asked = f"method.n_step = {config.n_step}"
    if not len(found):
        raise BadInput(f"{asked} is not legal: no user of the training log has that many interactions")
    return found
