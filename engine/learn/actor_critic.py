"""Advantage actor–critic over slates: networks, policy and the loop, in a world and for a reward of the method's choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine import nets
from engine.contracts import Budget, Items, Obs, Recorder, Sessions, StateView, World
from engine.learn import inputs as told
from engine.learn.descent import descend
from engine.learn.gae import advantages
from engine.learn.loop import Count, exploration, until_spent
from engine.learn.moment import Moment
from engine.learn.ppo import standardise
from engine.learn.rollout import shown_before
from engine.learn.scorer import PredictingScorer, Scorer, places_shown
from engine.learn.slate import log_probability, rows_at_once, sample, top
from engine.options import Config, option


@dataclass(frozen=True)
class ActorCriticConfig(Config):
    """What every method with this loop can set; methods add their own fields."""

    learning_rate: float = option(3e-4, "Adam's step size of actor and critic", above=0, high=1, source="docs/methods.md")
    gamma: float = option(0.9, "discount per step", low=0, high=1, source="this line of research")
    gae_lambda: float = option(0.95, "λ of the advantage estimate", low=0, high=1, source="docs/methods.md")
    entropy: float = option(0.01, "weight of the entropy bonus", low=0, high=10, source="EasyRL4Rec: 0–0.01")
    value: float = option(0.5, "weight of the critic's loss", low=0, high=10, source="EasyRL4Rec")
    users: int = option(128, "users in parallel", low=1, high=65_536, source="EasyRL4Rec: 100")
    batch: int = option(1024, "user-steps in one gradient step", low=1, high=1_000_000, source="EasyRL4Rec")
    hidden: int = option(128, "width of the networks' hidden layer", low=4, high=4096)


MakeActor = Callable[[StateView, Items, int, int, torch.Generator], Scorer | PredictingScorer]


class ActorCritic(nn.Module):
    """Scores of all items, and the value of a state."""

    def __init__(
        self, states: StateView, items: Items, config: ActorCriticConfig, generator: torch.Generator, actor: MakeActor
    ) -> None:
        super().__init__()
        width = told.width(states)
        self.actor = actor(states, items, width, config.hidden, generator)
        self.critic = nets.mlp((width, config.hidden, 1), generator, activation=nn.Tanh)


class ActorCriticPolicy:
    """Draws or ranks by the actor's scores."""

    def __init__(self, net: ActorCritic, states: StateView, slate: int, max_len: int, repeats: bool) -> None:
        self.net, self.states, self.slate, self.max_len, self.repeats = net, states, slate, max_len, repeats

    @torch.no_grad()
    def act(self, obs: Obs, *, generator: torch.Generator | None = None) -> Tensor:
        """int64 (B,K)."""
        return self.choose(obs, generator)[0]

    @torch.no_grad()
    def choose(self, obs: Obs, generator: torch.Generator | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Slates, drawn where a generator is given, and what training needs of the moment."""
        state = self.states(obs)
        inputs = told.policy_inputs(self.states, state, obs, self.slate, self.max_len)
        scores, order = self.net.actor(inputs, state), self.net.actor.order
        shown = places_shown(obs, self.net.actor.position, self.repeats)
        place = top(scores, self.slate, shown) if generator is None else sample(scores, self.slate, shown, generator)
        return order[place], {"state": state, "inputs": inputs, "place": place, "value": self.net.critic(inputs)[:, 0]}

    @torch.no_grad()
    def rank(self, moment: Moment) -> Tensor:
        """int64 (B,K): the greedy slates of users at steps of their own."""
        scores = self.net.actor(moment.inputs, moment.state)
        return moment.best(scores, self.slate, self.net.actor.order)

    def state_dict(self) -> dict[str, Any]:
        """All that `load_policy` needs."""
        return {"net": self.net.state_dict(), "slate": self.slate, "max_len": self.max_len, "repeats": self.repeats}


def load(
    state: Mapping[str, Any], states: StateView, items: Items, config: ActorCriticConfig, actor: MakeActor = Scorer
) -> ActorCriticPolicy:
    """The policy whose `state_dict()` gave `state`."""
    net = ActorCritic(states, items, config, torch.Generator(), actor)
    net.load_state_dict(state["net"])
    return ActorCriticPolicy(net.to(states.items.device), states, state["slate"], state["max_len"], state["repeats"])


def learn(
    name: str,
    world: World,
    states: StateView,
    config: ActorCriticConfig,
    budget: Budget,
    recorder: Recorder,
    generator: torch.Generator,
    *,
    within: World | None = None,
    reward: Callable[[Sessions], Tensor] | None = None,
    actor: MakeActor = Scorer,
) -> ActorCriticPolicy:
    """Play, estimate advantages, take gradient steps, until the budget is spent.

    within: the world that is played in, where that is not `world`, which then gives no more than the learning curve. reward:
    what to learn for, (T,B,K) of each item, where that is not the sessions' own reward. actor: what scores items.

    Raises Stopped after keeping a checkpoint when the recorder asks to stop, and Diverged where losses are not finite.
    """
    net = ActorCritic(states, world.items, config, generator, actor).to(states.items.device)
    adam = torch.optim.Adam(
        [*net.actor.parameter_groups(config.learning_rate), {"params": net.critic.parameters(), "lr": config.learning_rate}],
        fused=True,
    )
    policy = ActorCriticPolicy(net, states, world.slate, world.max_len, world.repeats)

    def turn(count: Count, left: int) -> tuple[Sessions, dict[str, float]]:
        # 1. Sessions of the exploring policy.
        sessions = exploration(world, lambda obs: policy.choose(obs, generator), config.users, count, left, generator, within)
        # 2. Advantages and returns.
        notes, alive = sessions.notes, sessions.alive
        each = None if reward is None else reward(sessions) * alive.unsqueeze(2)
        rewards = sessions.rewards if each is None else each.mean(2)
        advantage = advantages(rewards, notes["value"], alive, config.gamma, config.gae_lambda)
        returns = advantage + notes["value"]
        step, row = alive.nonzero(as_tuple=True)
        if each is None:
            scaled = standardise(advantage[step, row])
        else:  # a draw answers for its own reward and what follows, not for the rest of the slate
            scaled = standardise((advantage - rewards)[step, row].unsqueeze(1) + each[step, row])

        # 3. One pass over the batch.
        def loss_of(part: Tensor) -> tuple[Tensor, Tensor]:
            t, b = step[part], row[part]
            scores = net.actor(notes["inputs"][t, b], notes["state"][t, b])
            blocked = None if world.repeats else shown_before(sessions, t, b, net.actor.position)
            probability = log_probability(scores, notes["place"][t, b], blocked)
            logs_first = F.log_softmax(scores if blocked is None else scores.masked_fill(blocked, -1e9), dim=1)
            entropy = -(logs_first.exp() * logs_first).sum(1).mean()
            value_loss = F.mse_loss(net.critic(notes["inputs"][t, b])[:, 0], returns[t, b])
            credited = probability.sum(1) * scaled[part] if each is None else (probability * scaled[part]).sum(1)
            policy_loss = -credited.mean()
            loss = policy_loss + config.value * value_loss - config.entropy * entropy
            return loss, torch.stack([policy_loss, value_loss, entropy])

        parts = torch.randperm(len(step), generator=generator).to(step.device).split(config.batch)
        losses = [descend(adam, net, part, loss_of, rows_at_once(step.device, len(world.items))) for part in parts]
        count["updates"] += len(losses)
        policy_loss, value_loss, entropy = torch.stack(losses).mean(0).tolist()
        found = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
        if each is not None:
            found["reward"] = float(rewards.sum() / alive.sum())
        return sessions, found

    until_spent(name, policy, {"net": net, "adam": adam}, turn, world, budget, recorder, generator)
    return policy
