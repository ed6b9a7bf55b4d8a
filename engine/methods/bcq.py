"""Batch-constrained Q-learning: learns from the log alone, and only shows what the old feed might have shown

Fujimoto et al. 2019, the discrete algorithm of "Benchmarking Batch Deep Reinforcement Learning Algorithms". Each logged
interaction is a user-step: the state is what the view makes of the rows before it, the action the item, the reward the
response. Two heads score every item: Q, and an imitation G of the log's choices. A slate is the best K by Q of the items that
G gives at least `threshold` of its largest probability, filled up by G where those are too few.

The train world is asked for nothing but the learning curve. An episode is `world.max_len` logged user-steps, so that budgets
and curves mean the same amount of data as for methods that play; rows are drawn again and again, as from replay.

Differences from the source: 1. a log has no slates, so Q and G are of single items, and the K best make a slate. 2. "largest
probability" is that among items that may still be shown. 3. Q starts at stage I's predicted click plus the discounted mean
response, G at the items' share of the log, as all learned methods here start from stage I. 4. the networks see the state
alone, not the session's progress: a log has no sessions. 5. states of at most `rows` logged interactions are made, once,
before training. 6. where a log ends nothing has ended, so all targets bootstrap. 7. the threshold is met with ≥, so that the
likeliest item is always allowed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine import nets
from engine.contracts import Budget, Dataset, Items, Obs, Recorder, StateView, World
from engine.learn.bcq import constrained, losses, targets
from engine.learn.curve import Curve
from engine.learn.logged import logged_transitions
from engine.learn.moment import Moment
from engine.learn.rollout import held_out_users
from engine.options import BadInput, Diverged, Stopped, option
from engine.options import Config as BaseConfig

LEARNS = True
SEARCH = {"learning_rate": (1e-4, 3e-4, 1e-3), "threshold": (0.01, 0.1, 0.3), "gamma": (0.5, 0.8, 0.9)}  # of `engine tune`


@dataclass(frozen=True)
class Config(BaseConfig):
    """`method.*` of `bcq`."""

    threshold: float = option(
        0.01, "share of the likeliest item's probability that allows an item", low=0, high=1, source="docs/methods.md"
    )
    learning_rate: float = option(1e-4, "Adam's step size", above=0, high=1, source="docs/methods.md")
    gamma: float = option(0.5, "discount per logged interaction", low=0, high=1, source="docs/methods.md")
    n_step: int = option(3, "logged rewards summed before the target bootstraps", low=1, high=100, source="EasyRL4Rec")
    logits: float = option(0.01, "weight of G's mean squared logit", low=0, high=100, source="authors' code")
    target_every: int = option(320, "gradient steps between copies to the target network", low=1, source="EasyRL4Rec")
    batch: int = option(256, "logged user-steps in one gradient step", low=1, high=1_000_000)
    users: int = option(128, "episodes between two looks at the clock and the learning curve", low=1, high=65_536)
    rows: int = option(200_000, "logged user-steps whose states are made, at most", low=1, high=100_000_000)
    hidden: int = option(128, "width of the networks' hidden layer", low=4, high=4096)


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
        blocked = None
        if not self.repeats and obs.shown.shape[1]:
            blocked = torch.zeros_like(q, dtype=torch.bool).scatter_(1, obs.shown, True)
        return constrained(q, logits, self.threshold, blocked).topk(self.slate, dim=1).indices

    @torch.no_grad()
    def rank(self, moment: Moment) -> Tensor:
        """int64 (B,K): the greedy slates of users at steps of their own."""
        q, logits = self.net(moment.state)
        return constrained(q, logits, self.threshold, moment.blocked).topk(self.slate, dim=1).indices

    def state_dict(self) -> dict[str, Any]:
        """All that `load_policy` needs."""
        return {"net": self.net.state_dict(), "slate": self.slate, "repeats": self.repeats}


def load_policy(state: Mapping[str, Any], states: StateView, items: Items, config: Config) -> BCQPolicy:
    """The policy whose `state_dict()` gave `state`."""
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
) -> BCQPolicy:
    """Make states of logged interactions, then take gradient steps on them until the budget is spent."""
    held_out = held_out_users(world)
    recorder.progress("states of the log", 0, 1)
    transitions = logged_transitions(
        logs, states, users=world.users - held_out, count=config.rows, history=world.history,
        ahead=config.n_step, gamma=config.gamma, generator=generator,
    )  # fmt: skip
    if not len(transitions):
        raise BadInput(f"method.n_step = {config.n_step} is not legal: no user of the training log has that many interactions")
    net = Heads(states, world.items, config, generator).to(states.items.device)
    last = net.later[-1]
    assert isinstance(last, nn.Linear)  # what later steps bring starts at the log's mean response
    nn.init.constant_(last.bias, float(logs.reward.mean()) * config.gamma / max(1 - config.gamma, 0.01))
    target = copy.deepcopy(net).requires_grad_(False)
    adam = torch.optim.Adam(net.parameter_groups(config.learning_rate), fused=True)
    policy = BCQPolicy(net, states, config.threshold, world.slate, world.repeats)
    curve = Curve(world, recorder)
    count = {"episodes": 0, "user_steps": 0, "updates": 0}

    kept = recorder.restore()
    if kept is not None:
        net.load_state_dict(kept["net"])
        target.load_state_dict(kept["target"])
        adam.load_state_dict(kept["adam"])
        generator.set_state(kept["generator"])
        count, curve.next = kept["count"], kept["next"]

    while (done := budget.done(count["episodes"], count["user_steps"])) < 1:
        curve.measure(count["episodes"], done, policy)
        recorder.progress("training", done, 1)
        episodes = min(config.users, budget.left(count["episodes"]))
        drawn = torch.randint(len(transitions), (episodes * world.max_len,), generator=generator)
        count["episodes"] += episodes
        count["user_steps"] += len(drawn)
        found = []
        for rows in drawn.to(states.items.device).split(config.batch):
            batch = transitions.select(rows)
            with torch.no_grad():
                later_q, later_logits = net(batch.following)
                aim = targets(batch, later_q, later_logits, target(batch.following)[0], config.threshold)
            q, logits = net(batch.inputs)
            q_loss, imitation_loss, size = losses(q, logits, batch.action, aim)
            adam.zero_grad()
            (q_loss + imitation_loss + config.logits * size).backward()
            adam.step()
            count["updates"] += 1
            if count["updates"] % config.target_every == 0:
                target.load_state_dict(net.state_dict())
            found.append(torch.stack([q_loss, imitation_loss, aim.mean()]).detach())
        q_loss, imitation_loss, value = torch.stack(found).mean(0).tolist()
        if not abs(q_loss) < float("inf") or not abs(imitation_loss) < float("inf"):
            raise Diverged(f"bcq's losses are not finite after {count['episodes']} episodes")
        measured = {"q_loss": q_loss, "imitation_loss": imitation_loss, "target": value}
        recorder.scalars(count["episodes"], {**measured, **count})
        recorder.checkpoint(
            {
                "net": net.state_dict(),
                "target": target.state_dict(),
                "adam": adam.state_dict(),
                "generator": generator.get_state(),
                "count": dict(count),
                "next": curve.next,
            }
        )
        if recorder.stop_requested():
            raise Stopped(f"stopped after {count['episodes']} episodes")
    curve.measure(count["episodes"], 1.0, policy)
    recorder.progress("training", 1, 1)
    return policy
