"""Actor–critic in a world learnt from the log, whose rewards are cut where it is unsure and raised where the log was open

Gao et al. 2023, DORL ("Alleviating Matthew Effect of Offline Reinforcement Learning in Interactive Recommendation"). An
ensemble of response models is fitted to the log, and `a2c`'s loop plays in a world of the same rules in which users respond by
the ensemble's mean. The reward of an item is max(0, r̂ − λ₁·u + λ₂·Σ_k H_k − min r̂): r̂ the mean prediction, u the largest
variance that a member has, H_k the log's entropy of the next tag given the last k tags. A slate's reward is its items' mean.
The train world itself is asked for nothing but the learning curve.

Differences from the source: 1. members are logistic factorisations of bootstrap samples; a member's variance is that of its
predicted probability given what the log says of the item, not that of the response, and clicks are drawn. 2. A2C over slates
instead of one item a step. 3. users leave by this lab's rule, judged by the learnt responses. 4. entropies are of an item's
first tag; windows end at the item itself and follow the order of the slate; before a session there is nothing, which counts as
never seen, 1. 5. min r̂ is over at most 1,000 users, drawn. 6. the actor starts at `sharpness` times stage I's predicted clicks.
7. a draw answers for its own item's reward and what follows the slate, not for the slate's other items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from engine.contracts import Budget, Dataset, Items, Recorder, Sessions, StateView, World
from engine.learn.actor_critic import ActorCriticConfig, ActorCriticPolicy, MakeActor, learn, load
from engine.learn.ensemble import Ensemble, fit_ensemble
from engine.learn.log_entropy import LogEntropy
from engine.learn.scorer import PredictingScorer
from engine.options import Stopped, option

LEARNS = True
SEARCH = {
    "learning_rate": (1e-4, 3e-4, 1e-3),
    "entropy_weight": (0.01, 0.05, 0.3),
    "gamma": (0.5, 0.8, 0.9),
}  # of `engine tune`
FEW_USERS = 1000  # over whom the smallest prediction is sought


@dataclass(frozen=True)
class Config(ActorCriticConfig):
    """`method.*` of `dorl`."""

    learning_rate: float = option(1e-3, "Adam's step size of actor and critic", above=0, high=1, source="docs/methods.md")
    gamma: float = option(0.5, "discount per step", low=0, high=1, source="docs/methods.md")
    uncertainty_weight: float = option(0.01, "λ₁, what doubt costs", low=0, high=1000, source="DORL on KuaiRand")
    entropy_weight: float = option(0.05, "λ₂, what the log's entropy is worth", low=0, high=1000, source="DORL on KuaiRand")
    window: int = option(2, "longest run of tags whose entropy counts; all shorter ones do too", low=1, high=2, source="DORL")
    sharpness: float = option(2.0, "how sharply the actor follows predicted clicks at the start", above=0, high=100)
    members: int = option(5, "response models in the ensemble", low=1, high=100, source="EasyRL4Rec")
    width: int = option(8, "width of the response models' vectors", low=1, high=512)
    epochs: int = option(8, "passes over the log of each response model", low=1, high=1000)
    decay: float = option(32.0, "precision of the prior on users while response models are fitted", low=0, high=10_000)


def load_policy(state: Mapping[str, Any], states: StateView, items: Items, config: Config) -> ActorCriticPolicy:
    """The policy whose `state_dict()` gave `state`."""
    return load(state, states, items, config, _actor(config))


def train(
    world: World,
    states: StateView,
    logs: Dataset,
    config: Config,
    budget: Budget,
    recorder: Recorder,
    generator: torch.Generator,
) -> ActorCriticPolicy:
    """Fit the ensemble, then play in its world."""

    def watch(done: float) -> None:
        recorder.progress("world model", done, 1)
        if recorder.stop_requested():
            raise Stopped("stopped while fitting the world model")

    ensemble = fit_ensemble(
        logs, members=config.members, width=config.width, epochs=config.epochs, decay=config.decay,
        generator=generator, watch=watch,
    ).to(states.items.device)  # fmt: skip
    few = torch.randperm(ensemble.users, generator=generator)[:FEW_USERS].to(states.items.device)
    lowest = ensemble.lowest(few)
    entropy = LogEntropy(logs, config.window).to(states.items.device)

    def reward(sessions: Sessions) -> Tensor:
        return shaped_rewards(sessions, ensemble, entropy, lowest, config)

    return learn(
        "dorl",
        world,
        states,
        config,
        budget,
        recorder,
        generator,
        within=world.imagined(ensemble),
        reward=reward,
        actor=_actor(config),
    )


def _actor(config: Config) -> MakeActor:
    return partial(PredictingScorer, sharpness=config.sharpness)


def shaped_rewards(sessions: Sessions, ensemble: Ensemble, entropy: LogEntropy, lowest: float, config: Config) -> Tensor:
    """(T,B,K) max(0, r̂ − λ₁·u + λ₂·Σ_k H_k − lowest); what it is for users who left means nothing."""
    steps, users, slate = sessions.slates.shape
    feed = sessions.slates.transpose(0, 1).reshape(users, steps * slate)  # what each user was shown, in order
    mean = ensemble.probabilities(sessions.users, feed.clamp_min(0)).mean(0)
    doubt = ensemble.variances(sessions.users, feed.clamp_min(0)).amax(0)
    value = mean - config.uncertainty_weight * doubt + config.entropy_weight * entropy(feed) - lowest
    return value.clamp_min(0).reshape(users, steps, slate).transpose(0, 1)
