"""SAC4IR: soft actor–critic over the items, fair through the entropy of its choices alone

Shi et al., "Soft actor–critic for interactive recommendation" (the paper's tables print SAC4IF). Discrete SAC (Christodoulou
2019): a policy softmax(logits) over the catalogue, two critics of which the smaller counts, and a temperature α tuned toward
an entropy of `entropy` · log|A|. A slate is a Plackett–Luce draw from the policy; evaluation shows its K likeliest items.

Each item of a slate is regressed on its own response and the slate's future, γ · the policy's soft value of the next state
over what the session has not shown. That value is the expectation of the next slate's first draw; later draws come from the
same policy without the earlier ones. Curves show `loss` (critics), `policy_loss`, `entropy` (nats), `alpha`, `q`.

Differences from the source: 1. α's loss has the right sign: in the original's, α falls where entropy is too small. 2. logits
are not squashed over the batch, which makes the policy near uniform. 3. nothing is bootstrapped at a user's exit; the
original has no terminal mask. 4. the reward is the response itself; the original has, for want of a simulated response, the
item-to-item click-through from the recent history, −2 times that for passed items and −1 for a repeat. `reward=click_through`
is that: rates by the log, their mean over ten places instead of the sum, passed what the session leaves unanswered; repeats,
which the world rules out unless `world.repeats`, are items that the session has shown at all, not only last. 5. the target
entropy is a smaller share of log|A| than the original's 1, which only a uniform policy reaches, and than the port's 0.8
(docs/methods.md). 6. α starts near the scale of differences
between items' values instead of e^−1.5. 7. actor and critics start at stage I's predicted clicks, as all learned methods here
do. 8. each item answers for its own response.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.contracts import Budget, Dataset, Items, Obs, Policy, Recorder, Sessions, StateView, World
from engine.learn import dqn, sac
from engine.learn import inputs as told
from engine.learn.click_through import ClickThrough
from engine.learn.click_through import reward as click_through_reward
from engine.learn.item_values import ItemValues
from engine.learn.moment import Moment
from engine.learn.offpolicy import ReplayConfig, learn
from engine.learn.replay import Replay
from engine.learn.rollout import shown_before
from engine.learn.scorer import Scorer, places_shown
from engine.learn.slate import sample, top
from engine.options import option

LEARNS = True
SEARCH = {"learning_rate": (1e-4, 3e-4, 1e-3), "entropy": (0.5, 0.7, 0.8), "gamma": (0.5, 0.8, 0.9)}  # of `engine tune`


@dataclass(frozen=True)
class Config(ReplayConfig):
    """`method.*` of `sac4ir`."""

    batch: int = option(128, "user-steps in one gradient step", low=1, high=1_000_000, source="authors' codes: 64 to 256")
    learning_rate: float = option(
        3e-4, "Adam's step size of actor and critics", above=0, high=1, source="tuned, over three seeds; port 3e-4"
    )
    alpha_rate: float = option(3e-3, "Adam's step size of log α", above=0, high=1)
    gamma: float = option(0.5, "discount per step", low=0, high=1, source="tuned, over three seeds; authors' code: 0.9 to 0.99")
    entropy: float = option(
        0.5, "target entropy as a share of log|A|", low=0, high=1, source="tuned, over three seeds; port 0.8"
    )
    alpha: float = option(0.05, "α at the start", above=0, high=100)
    target_rate: float = option(0.01, "how fast the target critics follow", above=0, high=1)
    sharpness: float = option(3.0, "factor on stage I's logits in the first policy", above=0, high=100)
    hidden: int = option(128, "width of the networks' hidden layer", low=4, high=4096)
    reward: str = option(
        "response",
        "of an item: its response, or the authors' item-to-item click-through by the log from the items that the user answered"
        " last, −2 times that where it is passed, −1 where it is repeated",
        choices=("response", "click_through"),
        source="docs/methods.md",
    )


class Actor(nn.Module):
    """Logits over the catalogue, heads first."""

    def __init__(self, states: StateView, items: Items, config: Config, generator: torch.Generator) -> None:
        super().__init__()
        self.scorer = Scorer(states, items, told.width(states), config.hidden, generator)
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(config.sharpness)))

    def forward(self, inputs: Tensor, state: Tensor) -> Tensor:
        """(n,I) for inputs (n,F) and states (n,D)."""
        return self.scorer(inputs, state) * self.log_sharpness.exp()


class SacPolicy:
    """Draws or ranks by the actor's logits."""

    def __init__(self, actor: Actor, states: StateView, slate: int, max_len: int, repeats: bool) -> None:
        self.actor, self.states, self.slate, self.max_len, self.repeats = actor, states, slate, max_len, repeats

    @torch.no_grad()
    def act(self, obs: Obs, *, generator: torch.Generator | None = None) -> Tensor:
        """int64 (B,K)."""
        return self.choose(obs, generator)[0]

    @torch.no_grad()
    def choose(self, obs: Obs, generator: torch.Generator | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Slates, drawn where a generator is given, and what training needs of the moment."""
        state = self.states(obs)
        inputs = told.policy_inputs(self.states, state, obs, self.slate, self.max_len)
        logits, scorer = self.actor(inputs, state), self.actor.scorer
        shown = places_shown(obs, scorer.position, self.repeats)
        place = top(logits, self.slate, shown) if generator is None else sample(logits, self.slate, shown, generator)
        return scorer.order[place], {"state": state, "inputs": inputs, "place": place}

    @torch.no_grad()
    def rank(self, moment: Moment) -> Tensor:
        """int64 (B,K): the greedy slates of users at steps of their own."""
        return moment.best(self.actor(moment.inputs, moment.state), self.slate, self.actor.scorer.order)

    def state_dict(self) -> dict[str, Any]:
        """All that `load_policy` needs."""
        return {"actor": self.actor.state_dict(), "slate": self.slate, "max_len": self.max_len, "repeats": self.repeats}


class Learner(SacPolicy):
    """The policy with its critics, their targets, the temperature and their optimisers."""

    def __init__(self, world: World, states: StateView, logs: Dataset, config: Config, generator: torch.Generator) -> None:
        device, width = states.items.device, told.width(states)
        actor = Actor(states, world.items, config, generator).to(device)
        super().__init__(actor, states, world.slate, world.max_len, world.repeats)
        self.config, self.wanted = config, config.entropy * math.log(len(world.items))
        critics = [ItemValues(states, world.items, width, config.hidden, None, generator) for _ in range(2)]
        self.twins, self.critics = critics, nn.ModuleList(critics).to(device)
        self.targets = copy.deepcopy(self.critics)
        self.log_alpha = nn.Parameter(torch.tensor(math.log(config.alpha), device=device))
        self.through = ClickThrough(logs, device) if config.reward == "click_through" else None
        rate = config.learning_rate
        self.adam_critics = torch.optim.Adam([group for net in critics for group in net.parameter_groups(rate)], fused=True)
        self.adam_actor = torch.optim.Adam(
            [*actor.scorer.parameter_groups(rate), {"params": [actor.log_sharpness], "lr": rate}], fused=True
        )
        self.adam_alpha = torch.optim.Adam([self.log_alpha], lr=config.alpha_rate)

    def explore(self, obs: Obs, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Drawn slates, and the moment."""
        slates, notes = self.choose(obs, generator)
        if self.through is not None:
            notes["through"] = self.through.of(obs, slates)
        return slates, notes

    def _rewards(self, kept: Sessions, step: Tensor, row: Tensor) -> Tensor:
        """(n,K) what the items shown earned."""
        clicks = kept.clicks[step, row]
        if self.through is None:
            return clicks
        repeated = None
        if self.repeats:
            repeated = shown_before(kept, step, row, self.actor.scorer.position).gather(1, kept.notes["place"][step, row])
        return click_through_reward(kept.notes["through"][step, row], clicks, repeated)

    def update(self, replay: Replay, generator: torch.Generator) -> dict[str, Tensor]:
        """One gradient step of critics, actor and temperature on `batch` user-steps."""
        config, kept, position = self.config, replay.sessions, self.actor.scorer.position
        step, row = replay.draw(config.batch, generator)
        after, stays = replay.following(step, row)
        inputs, state, place = (kept.notes[name] for name in ("inputs", "state", "place"))
        alpha = self.log_alpha.exp()
        # 1. Critics: r_i + γ·V(s′), V by the smaller of the target critics, over what is not shown yet.
        with torch.no_grad():
            blocked = None if self.repeats else shown_before(kept, after, row, position)
            there = inputs[after, row], state[after, row]
            log_pi = sac.log_policy(self.actor(*there), blocked)
            following = sac.soft_value(torch.minimum(*(net(*there) for net in self.targets)), log_pi, alpha)
            wanted = dqn.targets(self._rewards(kept, step, row), following, stays, config.gamma)
        here = inputs[step, row], state[step, row]
        values = [net.at(*here, place[step, row]) for net in self.twins]
        loss = dqn.loss(values[0], wanted) + dqn.loss(values[1], wanted)
        self._descend(self.adam_critics, loss, self.critics)
        # 2. Actor, toward softmax(Q/α).
        blocked = None if self.repeats else shown_before(kept, step, row, position)
        with torch.no_grad():
            smaller = torch.minimum(*(net(*here) for net in self.critics))
        log_pi = sac.log_policy(self.actor(*here), blocked)
        policy_loss = sac.policy_loss(smaller, log_pi, alpha)
        self._descend(self.adam_actor, policy_loss, self.actor)
        # 3. Temperature, toward the target entropy.
        self.adam_alpha.zero_grad()
        sac.temperature_loss(self.log_alpha, log_pi, self.wanted).backward()
        self.adam_alpha.step()
        dqn.follow(self.targets, self.critics, config.target_rate)
        return {
            "loss": loss.detach(), "policy_loss": policy_loss.detach(), "entropy": sac.entropy(log_pi.detach()).mean(),
            "alpha": alpha.detach(), "q": values[0].detach().mean(),
        }  # fmt: skip

    @staticmethod
    def _descend(adam: torch.optim.Optimizer, loss: Tensor, net: nn.Module) -> None:
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        adam.step()

    def training_state(self) -> dict[str, Any]:
        """Networks, temperature and optimisers."""
        parts = ("actor", "critics", "targets", "adam_critics", "adam_actor", "adam_alpha")
        return {"log_alpha": self.log_alpha.detach().clone(), **{name: getattr(self, name).state_dict() for name in parts}}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        with torch.no_grad():
            self.log_alpha.copy_(state["log_alpha"])
        for name in state.keys() - {"log_alpha"}:
            getattr(self, name).load_state_dict(state[name])


def load_policy(state: Mapping[str, Any], states: StateView, items: Items, config: Config) -> SacPolicy:
    """The policy whose `state_dict()` gave `state`."""
    actor = Actor(states, items, config, torch.Generator())
    actor.load_state_dict(state["actor"])
    return SacPolicy(actor.to(states.items.device), states, state["slate"], state["max_len"], state["repeats"])


def train(
    world: World,
    states: StateView,
    logs: Dataset,
    config: Config,
    budget: Budget,
    recorder: Recorder,
    generator: torch.Generator,
) -> Policy:
    """Play by the policy, remember, take gradient steps, until the budget is spent."""
    return learn("sac4ir", Learner(world, states, logs, config, generator), world, config, budget, recorder, generator)
