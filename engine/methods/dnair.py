"""DNaIR: deep Q-learning whose reward adds the novelty of good items to the response

Shi et al. 2023, "Relieving popularity bias in interactive recommendation: a diversity–novelty-aware reinforcement learning
approach". Reward of an item: its response + novelty · q_i / log10(pop_i + 1.1), q_i = (positives + 1)/(n + 2) the item's
quality in the log and pop_i its exposures, scaled to [0, 1]: 24 times the quality at pop 0, 3.1 times at pop 1.

Q(slate) is the mean of its items' Q, so the best slate is the top K. Each item of a slate is regressed on its own reward and
the slate's future, γ · mean of the K largest Q′(s′, ·) over what the session has not shown; the mean over the slate is the
slate's Bellman equation. Curves show `loss`, `q` (mean Q of what was shown) and `novelty` (mean bonus before its weight).

Differences from the source: 1. the response of the user, as in KuaiSim's port, stands where the authors' code has the
co-occurrence of an item with the last ones shown: there is no simulated response in their offline setting, here there is.
2. one network for all users (KuaiSim) instead of one per user, over the whole catalogue instead of the items most similar to
the last one. 3. the mean of Q over a slate where KuaiSim has the sum: equal slates are best, and values keep the scale of a
reward. 4. each item answers for its own reward. 5. no penalty on repeats, which the world rules out, and no bootstrap at a
user's exit. 6. the output is not squashed by tanh, which cannot represent these returns; Q starts at stage I's predicted
clicks plus the known bonus (learn/item_values.py). 7. Plackett–Luce exploration from Q/temperature; uniform places
(`explore=epsilon`) are an option. 8. the weight of novelty is far below the authors' 0.4 and the port's 0.2, with which
a rare item's bonus outweighs any click. 9. batch and memory are larger; the step size lies between the two codes' (0.01 and
1e-4).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.contracts import Budget, Dataset, Items, Obs, Policy, Recorder, StateView, World
from engine.learn import dqn
from engine.learn import inputs as told
from engine.learn.item_values import ItemValues
from engine.learn.moment import Moment
from engine.learn.offpolicy import ReplayConfig, learn
from engine.learn.replay import Replay
from engine.learn.rollout import shown_before
from engine.learn.scorer import places_shown
from engine.learn.slate import sample, top
from engine.options import option

LEARNS = True
SEARCH = {"learning_rate": (1e-4, 3e-4, 1e-3), "novelty": (0.0, 0.01, 0.03), "gamma": (0.5, 0.8, 0.9)}  # of `engine tune`


@dataclass(frozen=True)
class Config(ReplayConfig):
    """`method.*` of `dnair`."""

    learning_rate: float = option(1e-3, "Adam's step size", above=0, high=1, source="tuned; port 1e-4")
    gamma: float = option(0.5, "discount per step", low=0, high=1, source="tuned; authors' code 0.9")
    novelty: float = option(0.03, "weight of novelty in the reward", low=0, high=100, source="tuned; authors' code 0.4")
    target_rate: float = option(0.01, "how fast the target network follows", above=0, high=1, source="authors' code")
    explore: str = option(
        "plackett_luce",
        "how training slates are drawn: from Q/temperature, or places at random",
        choices=("plackett_luce", "epsilon"),
    )
    temperature: float = option(0.05, "of Plackett–Luce exploration, in units of Q", above=0, high=100)
    epsilon: float = option(0.05, "share of random places with explore=epsilon", low=0, high=1, source="authors' code")
    hidden: int = option(128, "width of the networks' hidden layer", low=4, high=4096)


def novelty_of(items: Items, logs: Dataset) -> Tensor:
    """(I,) q_i / log10(pop_i + 1.1)."""
    positives = torch.zeros(len(items), device=logs.reward.device).index_add_(0, logs.item, logs.reward)
    shown = torch.bincount(logs.item, minlength=len(items))
    quality = (positives + 1) / (shown + 2)
    exposures = items.popularity.to(quality)
    scaled = (exposures - exposures.min()) / (exposures.max() - exposures.min()).clamp_min(1)
    return quality / torch.log10(scaled + 1.1)


class DnairPolicy:
    """Ranks by Q, or draws from Q/temperature."""

    def __init__(self, net: ItemValues, states: StateView, config: Config, slate: int, max_len: int, repeats: bool) -> None:
        self.net, self.states, self.config = net, states, config
        self.slate, self.max_len, self.repeats = slate, max_len, repeats

    @torch.no_grad()
    def act(self, obs: Obs, *, generator: torch.Generator | None = None) -> Tensor:
        """int64 (B,K)."""
        return self.choose(obs, generator)[0]

    @torch.no_grad()
    def choose(self, obs: Obs, generator: torch.Generator | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Slates, drawn where a generator is given, and what training needs of the moment."""
        state = self.states(obs)
        inputs = told.policy_inputs(self.states, state, obs, self.slate, self.max_len)
        values = self.net(inputs, state)
        shown = places_shown(obs, self.net.scorer.position, self.repeats)
        if generator is None:
            place = top(values, self.slate, shown)
        elif self.config.explore == "plackett_luce":
            place = sample(values / self.config.temperature, self.slate, shown, generator)
        else:
            place = self._some_at_random(values, shown, generator)
        return self.net.scorer.order[place], {"state": state, "inputs": inputs, "place": place}

    def _some_at_random(self, values: Tensor, shown: Tensor | None, generator: torch.Generator) -> Tensor:
        """Each place is, with probability ε, a uniform draw among all items that are neither shown nor in the greedy slate."""
        place = top(values, self.slate, shown)
        taken = place if shown is None else torch.cat([shown, place], 1)
        other = sample(torch.zeros_like(values), self.slate, taken, generator)
        uniform = torch.rand(place.shape, generator=generator, device=generator.device).to(place.device)
        return torch.where(uniform < self.config.epsilon, other, place)

    @torch.no_grad()
    def rank(self, moment: Moment) -> Tensor:
        """int64 (B,K): the greedy slates of users at steps of their own."""
        return moment.best(self.net(moment.inputs, moment.state), self.slate, self.net.scorer.order)

    def state_dict(self) -> dict[str, Any]:
        """All that `load_policy` needs."""
        return {"net": self.net.state_dict(), "slate": self.slate, "max_len": self.max_len, "repeats": self.repeats}


class Learner(DnairPolicy):
    """The policy with its target network, optimiser and bonus (I,) by item id."""

    def __init__(self, world: World, states: StateView, logs: Dataset, config: Config, generator: torch.Generator) -> None:
        bonus = novelty_of(world.items, logs).to(states.items.device)
        net = ItemValues(states, world.items, told.width(states), config.hidden, config.novelty * bonus, generator).to(
            states.items.device
        )
        super().__init__(net, states, config, world.slate, world.max_len, world.repeats)
        self.bonus, self.target = bonus, copy.deepcopy(net)
        self.adam = torch.optim.Adam(net.parameter_groups(config.learning_rate), fused=True)

    def explore(self, obs: Obs, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Drawn slates, and the moment."""
        return self.choose(obs, generator)

    def update(self, replay: Replay, generator: torch.Generator) -> dict[str, Tensor]:
        """One gradient step on `batch` user-steps."""
        config, kept = self.config, replay.sessions
        step, row = replay.draw(config.batch, generator)
        after, stays = replay.following(step, row)
        inputs, state, place = (kept.notes[name] for name in ("inputs", "state", "place"))
        # 1. r_i of each item, and what is best after the slate.
        bonus = self.bonus[kept.slates[step, row]]
        with torch.no_grad():
            blocked = None if self.repeats else shown_before(kept, after, row, self.net.scorer.position)
            best = dqn.greedy_value(self.target(inputs[after, row], state[after, row]), self.slate, blocked)
        wanted = dqn.targets(kept.clicks[step, row] + config.novelty * bonus, best, stays, config.gamma)
        # 2. Q of what was shown moves there, and the target network follows.
        values = self.net.at(inputs[step, row], state[step, row], place[step, row])
        loss = dqn.loss(values, wanted)
        self.adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.adam.step()
        dqn.follow(self.target, self.net, config.target_rate)
        return {"loss": loss.detach(), "q": values.detach().mean(), "novelty": bonus.mean()}

    def training_state(self) -> dict[str, Any]:
        """Networks and optimiser."""
        return {"net": self.net.state_dict(), "target": self.target.state_dict(), "adam": self.adam.state_dict()}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.net.load_state_dict(state["net"])
        self.target.load_state_dict(state["target"])
        self.adam.load_state_dict(state["adam"])


def load_policy(state: Mapping[str, Any], states: StateView, items: Items, config: Config) -> DnairPolicy:
    """The policy whose `state_dict()` gave `state`."""
    net = ItemValues(states, items, told.width(states), config.hidden, None, torch.Generator())
    net.load_state_dict(state["net"])
    return DnairPolicy(net.to(states.items.device), states, config, state["slate"], state["max_len"], state["repeats"])


def train(
    world: World,
    states: StateView,
    logs: Dataset,
    config: Config,
    budget: Budget,
    recorder: Recorder,
    generator: torch.Generator,
) -> Policy:
    """Play by Plackett–Luce from Q, remember, take gradient steps, until the budget is spent."""
    learner = Learner(world, states, logs, config, generator)
    return learn("dnair", learner, world, config, budget, recorder, generator)
