"""What each number is called, which way is better, and how it is written: one table for all views."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """better: 1 higher, −1 lower, 0 neither. unit: what the axis says in brackets. digits: decimals shown."""

    name: str
    title: str
    unit: str
    better: int
    digits: int
    help: str

    @property
    def axis(self) -> str:
        """`Len (steps, higher is better)`."""
        way = {1: "higher is better", -1: "lower is better", 0: ""}[self.better]
        inside = ", ".join(part for part in (self.unit, way) if part)
        return f"{self.title} ({inside})" if inside else self.title

    @property
    def arrow(self) -> str:
        """`Len ↑`."""
        return self.title + {1: " ↑", -1: " ↓", 0: ""}[self.better]

    def text(self, value: float | None, std: float | None = None) -> str:
        """The value as it is printed, with ± std where there is one; `–` where unknown."""
        if value is None or math.isnan(value):
            return "–"
        return f"{value:.{self.digits}f}" + ("" if std is None else f" ± {std:.{self.digits}f}")


_TABLE = (
    Measure("len", "Len", "steps per session", 1, 2, "How many slates a user stays for. Users leave when their patience ends."),
    Measure("r_each", "R_each", "mean response, 0 to 1", 1, 3, "Share of the shown items that got a positive response."),
    Measure("r_cum", "R_cum", "total response of a session", 1, 2, "The responses of a whole session: R_each added up."),
    Measure(
        "ad", "AD", "0 = balanced", -1, 3,
        "Absolute difference between the exposure of head items (the most exposed 20 %, or world.head_share) and of all "
        "others. 0 is half and half, 1 is only one of the two.",
    ),
    Measure("fairness", "Fairness", "1 − AD", 1, 3, "1 is an even split of exposure between head items and all others."),
    Measure("utility", "Utility", "genuine preference", 1, 3,
            "How much users truly like what they were shown, popularity's pull left out. Known in the synthetic world only."),
    Measure("gini", "Gini", "0 = equal exposure", -1, 3, "Inequality of exposure over the whole catalogue."),
    Measure("coverage", "Coverage", "share of the catalogue shown", 1, 3, "Items that were shown at least once."),
    Measure("entropy", "Entropy", "1 = even exposure", 1, 3, "Evenness of exposure over the whole catalogue."),
    Measure("ad_session", "AD per session", "0 = balanced", -1, 3, "Mean of every session's own AD."),
    Measure("ad_slate", "AD per slate", "0 = balanced", -1, 3, "Mean of every slate's own AD, which costs patience."),
    Measure("fair", "Fairness reward", "Fair(L), 0 to 1", 1, 3, "The manager's reward for fairness, before the weight λ."),
    Measure("heads", "Head items asked for", "items per slate", 0, 2, "How many head items the manager demands in a slate."),
    Measure("omega_acc", "ω_acc", "weight of similarity", 0, 3, "The weight that the manager puts on how well items match."),
    Measure("omega_fair", "ω_fair", "weight against popularity", 0, 3, "The weight that the manager puts against popularity."),
    Measure("policy_loss", "Policy loss", "", 0, 4, "What the policy's gradient step reduces."),
    Measure("value_loss", "Value loss", "mean squared error", -1, 4, "How far the critic is from the returns."),
    Measure("entropy_bonus", "Entropy", "", 0, 3, "How random the policy is."),
    Measure("manager_policy_loss", "Manager: policy loss", "", 0, 4, "PPO's clipped loss of the manager."),
    Measure("manager_value_loss", "Manager: value loss", "mean squared error", -1, 4, "How far the manager's critic is off."),
    Measure("manager_entropy", "Manager: entropy", "nats", 0, 3, "How random the manager's choices are."),
    Measure("manager_kl", "Manager: KL", "nats per update", 0, 4, "How far one batch moves the manager."),
    Measure("worker_policy_loss", "Worker: policy loss", "", 0, 4, "PPO's clipped loss of the worker."),
    Measure("worker_value_loss", "Worker: value loss", "mean squared error", -1, 4, "How far the worker's critic is off."),
    Measure("worker_kl", "Worker: KL", "nats per update", 0, 4, "How far one batch moves the worker."),
    Measure("user_steps", "User steps", "slates shown", 0, 0, "Slates shown to training users so far."),
    Measure("updates", "Updates", "gradient steps", 0, 0, "Gradient steps so far."),
)  # fmt: skip
MEASURES = {measure.name: measure for measure in _TABLE}
OUTCOMES = ("len", "r_each", "r_cum", "ad", "utility")  # what a run is judged by, in this order
TABLED = (*OUTCOMES, "gini", "coverage")


def measure(name: str) -> Measure:
    """The measure of a metric's name; an unknown name gets itself as a title. `train_…`: the exploring policy's own."""
    if name in MEASURES:
        return MEASURES[name]
    base = MEASURES.get(name.removeprefix("train_"))
    if base is not None and name != base.name:
        note = " Of the exploring policy, on the users it trains on."
        return Measure(name, f"{base.title}, exploring", base.unit, base.better, base.digits, base.help + note)
    return Measure(name, name.replace("_", " ").capitalize(), "", 0, 4, "")


def curve_measure(name: str) -> Measure:
    """As `measure`, for learning curves: there `entropy` is the policy's, in a result it is that of exposure."""
    return measure("entropy_bonus" if name == "entropy" else name)
