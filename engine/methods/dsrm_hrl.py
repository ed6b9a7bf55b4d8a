"""DSRM-HRL: a manager sets how much fairness to demand, a worker picks the items (paper §4.3, §4.4)

The state ŝ is the run's purifier's and frozen (`diffusion` by default). Two PPOs with critics of their own and no shared
parameter: "hierarchical gradient separation". Learning curves show `omega_acc`, `omega_fair` or `heads` (the manager's mean
choice), `fair` (mean Fair(L_t)), and the losses and KL of `manager_…` and `worker_…`.

Eq. 5 and Eq. 6 are one thing: ω_fair plays the Lagrange multiplier of a constraint on the head share. Two readings:
`constraint=weight` is the letter of Eq. 6, z = [ω_acc, ω_fair], ω_fair signed. `constraint=quota` (default: it measures
better, docs/methods.md) enforces Eq. 5 in each slate: z = [ω_acc, h], the worker draws h head items and K − h tail items,
each group by Plackett–Luce over what was not shown yet; log π = log π_h(z) + the two groups' sequential log-probabilities,
which is exact.

Differences from the source: 1. what the worker trains is our choice: f (a residual on ŝ), item vectors e_i, item intercepts
b_i and the temperature τ. 2. the quota. 3. Fair = 1 − |2p − 1| of the slate instead of −Gini (see `fair`). 4. with
`conditioned`, λ = lam_max·u², u ~ U[0, 1], per session is an input of the manager and its critic, so that one run covers the
frontier; rewards are divided by 1 + λ, which changes no optimum but keeps sessions with a large λ from drowning the others.
5. policies also see the session's progress and what was shown last (learn/inputs.py), as all learned methods here do.
`hierarchical=false` is the paper's FLAT: one policy over the whole catalogue, one critic, reward r + λ·Fair; its discount is
`worker_gamma`, which tuning puts at 0 for it too (docs/methods.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine import nets
from engine.contracts import Budget, Dataset, Items, LamRange, Obs, Recorder, Sessions, StateView, World
from engine.learn import inputs as told
from engine.learn.descent import descend
from engine.learn.gae import advantages
from engine.learn.loop import Count, Kept, exploration, until_spent
from engine.learn.moment import Moment
from engine.learn.ppo import approximate_kl, clipped_loss, standardise
from engine.learn.rollout import shown_before
from engine.learn.scorer import Scorer, feasible_heads, heads_left, places_shown
from engine.learn.slate import (
    log_probability,
    log_probability_quota,
    rows_at_once,
    sample,
    sample_quota,
    top,
    top_quota,
)
from engine.metrics import gini
from engine.options import BadInput, option
from engine.options import Config as BaseConfig

LEARNS = True
SEARCH = {  # of `engine tune`
    "worker_rate": (5e-4, 2e-3, 5e-3),
    "manager_rate": (1e-3, 3e-3, 1e-2),
    "worker_gamma": (0.0, 0.5, 0.9),
}
LAM_WIDTH = 4  # columns that tell λ


@dataclass(frozen=True)
class Config(BaseConfig):
    """`method.*` of `dsrm_hrl`."""

    lam: float = option(0.5, "λ: weight of fairness in the manager's reward", low=0, high=100, source="paper Eq. 4")
    conditioned: bool = option(True, "draw λ per session and tell the manager, so that one run covers the frontier")
    lam_max: float = option(2.0, "largest λ a conditioned manager meets", above=0, high=100)
    hierarchical: bool = option(True, "manager and worker; false is FLAT", source="paper §5.3")
    constraint: str = option(
        "quota", "how the manager's demand binds the worker (Eq. 5, Eq. 6)", choices=("quota", "weight"), source="paper §4.3"
    )
    fair: str = option(
        "balance",
        "Fair(L_t): balance 1 − |2p − 1| of the slate; gini 1 − Gini of recent exposure and tail 1 − p are best near AD 0.6"
        " and 1, so with them a larger λ raises AD",
        choices=("balance", "gini", "tail"),
        source="paper Eq. 4: e.g. −Gini",
    )
    manager_every: int = option(1, "steps between the manager's decisions (c)", low=1, high=1000)
    gamma: float = option(0.9, "the manager's discount per step", low=0, high=1, source="this line of research")
    worker_gamma: float = option(
        0.0, "the worker's discount, and FLAT's: 0 is immediate engagement", low=0, high=1, source="paper §4.3.2"
    )
    gae_lambda: float = option(0.95, "λ of the advantage estimate", low=0, high=1)
    clip: float = option(0.2, "PPO's clipping range", above=0, high=1, source="Schulman et al. 2017")
    epochs: int = option(2, "passes over each batch of sessions", low=1, high=100)
    users: int = option(512, "users in parallel", low=1, high=65_536)
    batch: int = option(1024, "user-steps in one gradient step", low=1, high=1_000_000)
    worker_rate: float = option(2e-3, "Adam's step size of the worker", above=0, high=1)
    manager_rate: float = option(3e-3, "Adam's step size of the manager", above=0, high=1)
    critic_rate: float = option(2e-3, "Adam's step size of both critics", above=0, high=1)
    entropy: float = option(0.003, "weight of the manager's entropy bonus", low=0, high=10)
    sharpness: float = option(3.0, "1/τ at the start: how sharply slates follow the scores", above=0, high=100)
    hidden: int = option(128, "width of the networks' hidden layers", low=4, high=4096)


def lam_range(config: Config) -> LamRange | None:
    """λ that a conditioned manager met; None for one that was trained for a single λ, and for FLAT, which has no manager."""
    if not (config.conditioned and config.hierarchical):
        return None
    return LamRange(min(config.lam, config.lam_max), config.lam_max)


class Manager(nn.Module):
    """π_h(z | ŝ, λ) and its critic. z = [ω_acc, h] or [ω_acc, ω_fair]; log ω_acc and ω_fair are Gaussian."""

    def __init__(self, width: int, slate: int, config: Config, generator: torch.Generator) -> None:
        super().__init__()
        self.quota = config.constraint == "quota"
        outputs = slate + 2 if self.quota else 2
        self.actor = nets.mlp((width + LAM_WIDTH, config.hidden, outputs), generator, activation=nn.Tanh, last_gain=0.01)
        self.log_std = nn.Parameter(torch.full((1 if self.quota else 2,), math.log(0.1 if self.quota else 0.3)))
        self.critic = nets.mlp((width + LAM_WIDTH, config.hidden, 1), generator, activation=nn.Tanh)

    def distribution(self, inputs: Tensor) -> tuple[torch.distributions.Normal, torch.distributions.Categorical | None]:
        """Of the Gaussian part (n,1 or 2) and, with quotas, of the head count (n,)."""
        out = self.actor(inputs)
        size = len(self.log_std)
        normal = torch.distributions.Normal(out[:, :size], self.log_std.exp(), validate_args=False)
        return normal, torch.distributions.Categorical(logits=out[:, size:], validate_args=False) if self.quota else None

    def draw(self, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """(n,2) [log ω_acc, h] or [log ω_acc, ω_fair]: drawn, or the mode where no generator is given."""
        normal, heads = self.distribution(inputs)
        z = normal.mean
        if generator is not None:
            noise = torch.randn(z.shape, generator=generator, device=generator.device).to(z.device)
            z = z + normal.stddev * noise
        if heads is None:
            return z
        count = heads.probs.argmax(1)
        if generator is not None:
            uniform = torch.rand(len(z), 1, generator=generator, device=generator.device).to(z.device)
            count = (heads.probs.cumsum(1) < uniform).sum(1).clamp_max(heads.probs.shape[1] - 1)
        return torch.cat([z, count.unsqueeze(1).float()], 1)

    def log_probability(self, inputs: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """(n,) log π_h(z) and entropy."""
        normal, heads = self.distribution(inputs)
        size = len(self.log_std)
        total, entropy = normal.log_prob(z[:, :size]).sum(1), normal.entropy().sum(1)
        if heads is not None:
            total, entropy = total + heads.log_prob(z[:, 1]), entropy + heads.entropy()
        return total, entropy


class Worker(nn.Module):
    """π_l(a | ŝ, z) and its critic. Flat policies have no z and learn the weight on popularity themselves."""

    def __init__(self, states: StateView, items: Items, config: Config, generator: torch.Generator) -> None:
        super().__init__()
        width = told.width(states)
        self.scorer = Scorer(states, items, width, config.hidden, generator)
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(config.sharpness)))
        self.critic = nets.mlp((width + 2, config.hidden, 2), generator, activation=nn.Tanh)  # value, and next reward
        self.own_weight = None
        if not config.hierarchical:
            self.own_weight = nets.mlp((width, config.hidden, 1), generator, activation=nn.Tanh, last_gain=0.0)

    def scores(self, inputs: Tensor, state: Tensor, omega_acc: Tensor, omega_fair: Tensor) -> Tensor:
        """(n,I) Ψ/τ in the scorer's order; omega_acc, omega_fair (n,)."""
        if self.own_weight is not None:
            omega_fair = self.own_weight(inputs)[:, 0]
        # Eq. 6: Ψ = ω_acc·Sim(ŝ, e_i) − ω_fair·log pop_i, Sim the cosine with item intercepts (Difference 1).
        sharpness = self.log_sharpness.exp()
        return self.scorer.weighted(inputs, state, omega_acc * sharpness, omega_fair * sharpness)


class DsrmHrlPolicy:
    """Both levels. `lam` is the λ that a conditioned manager is told."""

    def __init__(
        self,
        manager: Manager | None,
        worker: Worker,
        states: StateView,
        config: Config,
        slate: int,
        max_len: int,
        repeats: bool,
    ) -> None:
        self.manager, self.worker, self.states, self.config = manager, worker, states, config
        self.slate, self.max_len, self.repeats = slate, max_len, repeats
        self.lam = config.lam
        self.noted: dict[str, Tensor] = {}
        self._decided = torch.zeros(0, 3)  # by user id: the manager's z until it decides again, and the session's λ

    def with_lam(self, lam: float) -> DsrmHrlPolicy:
        """The same policy told another λ. Raises BadInput where the manager was not conditioned on λ, or not so far."""
        if lam_range(self.config) is None:
            raise BadInput(
                f"lam = {lam} is not legal: this policy was trained with λ = {self.config.lam} and not conditioned on it"
            )
        if not 0 <= lam <= self.config.lam_max:
            raise BadInput(f"lam = {lam} is not legal: this policy met λ from 0 to method.lam_max = {self.config.lam_max}")
        other = DsrmHrlPolicy(self.manager, self.worker, self.states, self.config, self.slate, self.max_len, self.repeats)
        other.lam = lam
        return other

    @torch.no_grad()
    def act(self, obs: Obs, *, generator: torch.Generator | None = None) -> Tensor:
        """int64 (B,K)."""
        slates, notes = self.choose(obs, generator, None)
        names = ("omega_acc", "heads" if self.config.constraint == "quota" else "omega_fair") if self.manager else ()
        self.noted = {name: notes[name] for name in names}
        return slates

    @torch.no_grad()
    def choose(
        self, obs: Obs, generator: torch.Generator | None, draw_lam: torch.Generator | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Slates, drawn where a generator is given, and what training needs of the moment. λ is drawn at a session's start
        where `draw_lam` is given."""
        state = self.states(obs)
        inputs = told.policy_inputs(self.states, state, obs, self.slate, self.max_len)
        z, lam = self._decide(obs, inputs, generator, draw_lam)
        omega_acc, omega_fair, heads = self.unpack(z)
        order, head_items = self.worker.scorer.order, self.worker.scorer.head_items
        scores = self.worker.scores(inputs, state, omega_acc, omega_fair)
        shown = places_shown(obs, self.worker.scorer.position, self.repeats)
        if heads is None:
            place = top(scores, self.slate, shown) if generator is None else sample(scores, self.slate, shown, generator)
        else:
            # Eq. 5: E[R_fair] ≥ z as a constraint on the slate: exactly so many heads, as far as the catalogue has them left.
            heads = feasible_heads(heads, shown, head_items, len(order), self.slate)
            if generator is None:
                place = top_quota(scores, heads, self.slate, head_items, shown)
            else:
                place = sample_quota(scores, heads, self.slate, head_items, shown, generator)
        value, immediate = self.worker.critic(self.worker_sight(inputs, z)).unbind(1)
        notes = {
            "state": state, "inputs": inputs, "z": z, "lam": lam, "place": place, "omega_acc": omega_acc,
            "omega_fair": omega_fair, "heads": (place < head_items).sum(1), "value": value, "immediate": immediate,
        }  # fmt: skip
        if self.manager is not None:
            notes["manager_value"] = self.manager.critic(self.manager_sight(inputs, lam))[:, 0]
        return order[place], notes

    @property
    def decides_every(self) -> int:
        """Steps between the manager's decisions."""
        return 1 if self.manager is None else self.config.manager_every

    @torch.no_grad()
    def rank(self, moment: Moment) -> Tensor:
        """int64 (B,K): the greedy slates of users at steps of their own."""
        scorer = self.worker.scorer
        z = torch.zeros_like(moment.state[:, :2])
        if self.manager is not None:
            lam = torch.where(moment.lam.isnan(), self.lam, moment.lam)
            z = self.manager.draw(self.manager_sight(moment.decided, lam), None)
        omega_acc, omega_fair, heads = self.unpack(z)
        scores = self.worker.scores(moment.inputs, moment.state, omega_acc, omega_fair)
        if heads is None:
            return moment.best(scores, self.slate, scorer.order)
        heads = heads_left(heads, moment.blocked, scorer.order, scorer.head_items, self.slate)
        scores = moment.open(scores, scorer.order)
        return scorer.order[top_quota(scores, heads, self.slate, scorer.head_items, None)]

    def _decide(
        self, obs: Obs, inputs: Tensor, generator: torch.Generator | None, draw_lam: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """z (B,2) and λ (B,); a manager that decides every c steps is remembered in between."""
        highest = int(obs.users.max()) + 1
        if len(self._decided) < highest or obs.step == 0:
            self._decided = torch.zeros(highest, 3, device=inputs.device)
        if obs.step == 0:
            lam = torch.full((len(obs),), self.lam, device=inputs.device)
            if draw_lam is not None:
                uniform = torch.rand(len(obs), generator=draw_lam, device=draw_lam.device).to(inputs.device)
                lam = self.config.lam_max * uniform**2  # more of the small ones, where the best choice changes fastest
            self._decided[obs.users, 2] = lam
        lam = self._decided[obs.users, 2]
        if self.manager is not None and obs.step % self.config.manager_every == 0:
            self._decided[obs.users, :2] = self.manager.draw(self.manager_sight(inputs, lam), generator)
        return self._decided[obs.users, :2], lam

    def manager_sight(self, inputs: Tensor, lam: Tensor) -> Tensor:
        """(n,F+LAM_WIDTH): with λ on scales of its own, or zeros where the manager is not conditioned."""
        share = (lam / self.config.lam_max).unsqueeze(1)
        scales = torch.tensor([1.0, 4.0, 16.0, 64.0], device=lam.device)
        return torch.cat([inputs, (1 - torch.exp(-scales * share)) * float(self.config.conditioned)], 1)

    def worker_sight(self, inputs: Tensor, z: Tensor) -> Tensor:
        """(n,F+2): what the worker's critic sees; never λ."""
        scale = torch.tensor([1.0, 1 / self.slate if self.config.constraint == "quota" else 1.0], device=z.device)
        return torch.cat([inputs, z * scale], 1)

    def unpack(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """ω_acc, ω_fair (n,) and head counts int64 (n,) of the manager's z (n,2)."""
        omega_acc, nothing = z[:, 0].exp(), torch.zeros_like(z[:, 0])
        if self.manager is None:
            return omega_acc, nothing, None
        if self.config.constraint == "quota":
            return omega_acc, nothing, z[:, 1].long()
        return omega_acc, z[:, 1], None

    def state_dict(self) -> dict[str, Any]:
        """All that `load_policy` needs."""
        manager = None if self.manager is None else self.manager.state_dict()
        shape = {"slate": self.slate, "max_len": self.max_len, "repeats": self.repeats}
        return {"manager": manager, "worker": self.worker.state_dict(), **shape}


def new_policy(
    states: StateView, items: Items, config: Config, slate: int, max_len: int, repeats: bool, generator: torch.Generator
) -> DsrmHrlPolicy:
    """An untrained policy."""
    device = states.items.device
    manager = Manager(told.width(states), slate, config, generator).to(device) if config.hierarchical else None
    worker = Worker(states, items, config, generator).to(device)
    return DsrmHrlPolicy(manager, worker, states, config, slate, max_len, repeats)


def load_policy(state: Mapping[str, Any], states: StateView, items: Items, config: Config) -> DsrmHrlPolicy:
    """The policy whose `state_dict()` gave `state`."""
    policy = new_policy(states, items, config, state["slate"], state["max_len"], state["repeats"], torch.Generator())
    policy.worker.load_state_dict(state["worker"])
    if policy.manager is not None:
        policy.manager.load_state_dict(state["manager"])
    return policy


def train(
    world: World,
    states: StateView,
    logs: Dataset,
    config: Config,
    budget: Budget,
    recorder: Recorder,
    generator: torch.Generator,
) -> DsrmHrlPolicy:
    """Stage II: play, then improve manager and worker, each by its own PPO, until the budget is spent."""
    policy = new_policy(states, world.items, config, world.slate, world.max_len, world.repeats, generator)
    manager, worker = policy.manager, policy.worker
    worker_adam = torch.optim.Adam(
        [
            *worker.scorer.parameter_groups(config.worker_rate),
            {"params": [worker.log_sharpness], "lr": config.worker_rate},
            {"params": [] if worker.own_weight is None else list(worker.own_weight.parameters()), "lr": config.worker_rate},
            {"params": list(worker.critic.parameters()), "lr": config.critic_rate},
        ],
        fused=True,
    )
    manager_adam = None
    if manager is not None:
        own = [*manager.actor.parameters(), manager.log_std]
        groups = [
            {"params": own, "lr": config.manager_rate},
            {"params": [*manager.critic.parameters()], "lr": config.critic_rate},
        ]
        manager_adam = torch.optim.Adam(groups, fused=True)

    def explore(obs: Obs) -> tuple[Tensor, dict[str, Tensor]]:
        return policy.choose(obs, generator, generator if lam_range(config) is not None else None)

    def turn(count: Count, left: int) -> tuple[Sessions, dict[str, float]]:
        # 1. Sessions of the exploring policy.
        sessions = exploration(world, explore, config.users, count, left, generator)
        # 2. Eq. 4: the manager's reward r^h = r + λ·Fair(L_t), here over 1 + λ (Difference 4); the worker's is r alone. FLAT
        #    has one policy and both terms.
        fair = fairness(sessions, world.items, config.fair)
        lam = sessions.notes["lam"]
        ecosystem = (sessions.rewards + lam * fair) / (1 + lam)
        values = {"fair": (fair.sum() / sessions.user_steps).item(), **_mean_choices(sessions, policy)}
        if manager is not None and manager_adam is not None:
            values |= improve_manager(policy, manager, manager_adam, sessions, ecosystem, config, generator)
        values |= improve_worker(
            policy, worker_adam, sessions, ecosystem if manager is None else sessions.rewards, world, config, generator
        )
        count["updates"] += int(values.pop("updates"))
        return sessions, values

    kept: dict[str, Kept] = {"worker": worker, "worker_adam": worker_adam}
    if manager is not None and manager_adam is not None:
        kept |= {"manager": manager, "manager_adam": manager_adam}
    until_spent("dsrm_hrl", policy, kept, turn, world, budget, recorder, generator)
    return policy


def fairness(sessions: Sessions, items: Items, kind: str) -> Tensor:
    """(T,B) Fair(L_t) ≥ 0 (a negative one would pay the manager for ending the session), 0 where not alive.

    balance and tail are of the user's own slate and credited to that user; gini is of what all users were shown in the last
    ten steps and credited to all.
    """
    share = items.head[sessions.slates.clamp_min(0)].float().mean(2)
    if kind == "balance":
        fair = 1 - (2 * share - 1).abs()
    elif kind == "tail":
        fair = 1 - share
    else:
        fair = torch.zeros_like(share)
        for t in range(len(fair)):
            recent = slice(max(0, t - 9), t + 1)
            shown = sessions.slates[recent][sessions.alive[recent]].flatten()
            fair[t] = 1 - gini(torch.bincount(shown, minlength=len(items)))
    return fair * sessions.alive


def improve_manager(
    policy: DsrmHrlPolicy,
    manager: Manager,
    adam: torch.optim.Optimizer,
    sessions: Sessions,
    rewards: Tensor,
    config: Config,
    generator: torch.Generator,
) -> dict[str, float]:
    """PPO on the manager's decisions. With c > 1 a decision earns c discounted rewards and the next is discounted by γ^c."""
    c, notes = config.manager_every, sessions.notes
    missing = -len(rewards) % c
    padded = F.pad(rewards, (0, 0, 0, missing)).view(-1, c, rewards.shape[1])
    discount = config.gamma ** torch.arange(c, device=rewards.device, dtype=rewards.dtype)
    earned = (padded * discount[:, None]).sum(1)
    alive, value = sessions.alive[::c], notes["manager_value"][::c]
    advantage = advantages(earned, value, alive, config.gamma**c, config.gae_lambda)
    step, row = alive.nonzero(as_tuple=True)
    sight = policy.manager_sight(notes["inputs"][::c][step, row], notes["lam"][::c][step, row])
    z = notes["z"][::c][step, row]
    target, scaled = (advantage + value)[step, row], standardise(advantage[step, row])
    with torch.no_grad():
        old, _ = manager.log_probability(sight, z)

    def loss_of(part: Tensor) -> tuple[Tensor, Tensor]:
        probability, entropy = manager.log_probability(sight[part], z[part])
        policy_loss = clipped_loss(probability, old[part], scaled[part], config.clip)
        value_loss = F.mse_loss(manager.critic(sight[part])[:, 0], target[part])
        kl = approximate_kl(probability.detach(), old[part])
        loss = policy_loss + 0.5 * value_loss - config.entropy * entropy.mean()
        return loss, torch.stack([policy_loss, value_loss, entropy.mean(), kl])

    losses = [
        descend(adam, manager, part, loss_of, rows_at_once(step.device, 1))
        for _ in range(config.epochs)
        for part in torch.randperm(len(step), generator=generator).to(step.device).split(config.batch)
    ]
    names = ("manager_policy_loss", "manager_value_loss", "manager_entropy", "manager_kl")
    return dict(zip(names, torch.stack(losses).mean(0).tolist(), strict=True))


def credits_of_draws(sessions: Sessions, advantage: Tensor, immediate: Tensor, worth: float) -> Tensor:
    """(T,B,K): a draw answers for its own click and for what follows, not for the clicks of the slate's other items.

    advantage (T,B) of a reward that holds `worth` times the slate's mean response; immediate (T,B): the critic's expectation
    of that response.
    """
    others = worth * (sessions.rewards - immediate)
    own = worth * (sessions.clicks - immediate.unsqueeze(2)) / sessions.clicks.shape[2]
    return (advantage - others).unsqueeze(2) + own


def improve_worker(
    policy: DsrmHrlPolicy,
    adam: torch.optim.Optimizer,
    sessions: Sessions,
    rewards: Tensor,
    world: World,
    config: Config,
    generator: torch.Generator,
) -> dict[str, float]:
    """PPO on the worker's slates, given the manager's decisions."""
    worker, notes = policy.worker, sessions.notes
    advantage = advantages(rewards, notes["value"], sessions.alive, config.worker_gamma, config.gae_lambda)
    target = torch.stack([advantage + notes["value"], sessions.rewards], 2)
    step, row = sessions.alive.nonzero(as_tuple=True)
    worth = 1.0 if config.hierarchical else 1 / (1 + config.lam)  # of clicks in the reward
    scaled = standardise(credits_of_draws(sessions, advantage, notes["immediate"], worth)[step, row])
    target = target[step, row]
    at_once = rows_at_once(step.device, len(world.items))

    def log_pi(part: Tensor) -> Tensor:
        t, b = step[part], row[part]
        omega_acc, omega_fair, heads = policy.unpack(notes["z"][t, b])
        scores = worker.scores(notes["inputs"][t, b], notes["state"][t, b], omega_acc, omega_fair)
        blocked = None if world.repeats else shown_before(sessions, t, b, worker.scorer.position)
        if heads is None:
            return log_probability(scores, notes["place"][t, b], blocked)
        return log_probability_quota(scores, notes["place"][t, b], notes["heads"][t, b], worker.scorer.head_items, blocked)

    with torch.no_grad():
        old = torch.cat([log_pi(part) for part in torch.arange(len(step), device=step.device).split(at_once)])

    def loss_of(part: Tensor) -> tuple[Tensor, Tensor]:
        probability = log_pi(part)
        policy_loss = clipped_loss(probability, old[part], scaled[part], config.clip)
        sight = policy.worker_sight(notes["inputs"][step[part], row[part]], notes["z"][step[part], row[part]])
        value_loss = F.mse_loss(worker.critic(sight), target[part])
        kl = approximate_kl(probability.detach(), old[part])
        return policy_loss + 0.5 * value_loss, torch.stack([policy_loss, value_loss, kl])

    losses = [
        descend(adam, worker, part, loss_of, at_once)
        for _ in range(config.epochs)
        for part in torch.randperm(len(step), generator=generator).to(step.device).split(config.batch)
    ]
    names = ("worker_policy_loss", "worker_value_loss", "worker_kl")
    return {"updates": len(losses), **dict(zip(names, torch.stack(losses).mean(0).tolist(), strict=True))}


def _mean_choices(sessions: Sessions, policy: DsrmHrlPolicy) -> dict[str, float]:
    if policy.manager is None:
        return {}
    names = ["omega_acc", "heads" if policy.config.constraint == "quota" else "omega_fair"]
    return {name: sessions.notes[name][sessions.alive].float().mean().item() for name in names}
