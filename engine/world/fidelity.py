"""How far a fitted world can be trusted: its answers beside responses that it has not seen, and its habits beside the log's.

Three questions, in this order. Does it predict single responses (log-loss, AUC)? Are its probabilities rates (calibration)?
Does popularity pull on its answers as it does in the log (by popularity of items, by spread over items and users)? Where the
truth is known, also: is it right about pairs that nobody was shown?
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.contracts import Dataset

BINS = 10  # of held-out rows, by predicted probability and by popularity, and of users by share
Z = 1.959964  # 95 % intervals
DRAWN = 2_000_000  # simulated responses to draw in all, at least one for each row of the log
MOST_DRAWS = 20
FEWEST_POSITIVES = 5  # of a user whose share of popular items is looked at
FEWEST_EXPOSURES = 10  # of an item whose response rate is looked at
FEWEST_RANDOM = 100  # held-out random exposures that are worth scores of their own
ANYWHERE = 100_000  # pairs drawn evenly from users × items, to be compared with the truth
Logit = Callable[[Tensor, Tensor], Tensor]  # (n,) users, (n,) items → (n,) logits of a response


@dataclass(frozen=True)
class Fidelity:
    """How well a fitted model predicts responses that it has not seen, and how its answers spread beside the log's.

    Of the held-out rows: log_loss, that of the mean rate, auc (None where all responses are alike), with 95 % intervals that
    take a user's rows as one draw; calibration: bins by predicted probability; calibration_error: mean |predicted − observed|
    over them; popularity: bins by the items' training exposures; heads: head and tail items. A bin is {"predicted",
    "observed", "low", "high", "rows"}, the interval Wilson's, for the observed rate.
    Of all rows of the log, simulated responses beside real ones: users: share of head items among a user's positives; items:
    response rate of an item; catalogue: items the log shows never, or less than FEWEST_EXPOSURES times.
    randomised: scores on the held-out random exposures alone. truth: distance to the true probabilities. None: not known.
    """

    log_loss: float
    log_loss_interval: tuple[float, float]
    log_loss_of_the_mean: float
    auc: float | None
    auc_interval: tuple[float, float] | None
    calibration_error: float
    calibration: tuple[Mapping[str, float], ...]
    held_out: int
    popularity: tuple[Mapping[str, float], ...] = ()
    heads: Mapping[str, Mapping[str, float]] | None = None
    users: Mapping[str, Any] | None = None
    items: Mapping[str, Any] | None = None
    catalogue: Mapping[str, int] | None = None
    randomised: Mapping[str, Any] | None = None
    truth: Mapping[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def scores(self) -> dict[str, Any]:
        """The part about held-out predictions: what a run keeps."""
        names = ("log_loss", "log_loss_interval", "log_loss_of_the_mean", "auc", "auc_interval", "calibration_error")
        return {name: getattr(self, name) for name in (*names, "calibration", "held_out")}


def measured(logit: Logit, log: Dataset, held_out: Tensor, generator: torch.Generator, truth: Logit | None = None) -> Fidelity:
    """All of Fidelity. held_out: positions (n,) in the log that the model has not seen; truth: the true logits."""
    user, item, reward = log.user[held_out], log.item[held_out], log.reward[held_out]
    score = logit(user, item)
    probability = torch.sigmoid(score)
    level = log.items.popularity[item]
    by_level = _bins(_cut(level), probability, reward)
    heads = {name: _bin(rows, probability, reward) for name, rows in _head_and_tail(log.items.head[item]) if len(rows)}
    shown = torch.bincount(log.item, minlength=len(log.items))
    users, items = _spreads(logit, log, generator)
    return replace(
        fidelity(score, reward, user),
        popularity=tuple(
            {**own, "popularity": float(level[rows].float().mean()), "items": len(item[rows].unique())}
            for own, rows in zip(by_level, _rows(_cut(level)), strict=True)
        ),
        heads=heads,
        users=users,
        items=items,
        catalogue={"items": len(shown), "never": int((shown == 0).sum()), "rarely": int((shown < FEWEST_EXPOSURES).sum())},
        randomised=_randomised(score, log, held_out),
        truth=None if truth is None else _against(truth, logit, log, held_out, generator),
    )


def fidelity(logit: Tensor, reward: Tensor, user: Tensor | None = None) -> Fidelity:
    """Held-out log-loss, AUC and calibration of predicted logits (n,) against responses (n,) in [0, 1].

    user (n,): whose rows they are, for the intervals; None: each row is someone else's.
    """
    user = torch.arange(len(reward)) if user is None else user
    probability = torch.sigmoid(logit)
    each = F.binary_cross_entropy_with_logits(logit, reward, reduction="none").double()
    mean = reward.mean().clamp(1e-6, 1 - 1e-6)
    base = F.binary_cross_entropy(mean.expand_as(reward), reward).item()
    auc, placed = _auc(logit, reward > 0.5)  # not by probability: its rounding breaks ties
    cut = np.array_split(logit.argsort(stable=True).numpy(), BINS)
    calibration = [_bin(torch.from_numpy(rows), probability, reward) for rows in cut if len(rows)]
    error = sum(abs(own["predicted"] - own["observed"]) * own["rows"] for own in calibration) / len(reward)
    loss = float(each.mean())
    return Fidelity(
        log_loss=loss,
        log_loss_interval=_interval(loss, (each - loss) / len(each), user, (0.0, np.inf)),
        log_loss_of_the_mean=base,
        auc=auc,
        auc_interval=None if auc is None else _interval(auc, placed, user, (0.0, 1.0)),
        calibration_error=error,
        calibration=tuple(calibration),
        held_out=len(reward),
    )


def wilson(rate: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate that was observed `count` times (Wilson 1927)."""
    centre = (rate + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z / (1 + Z**2 / count) * (max(rate * (1 - rate), 0.0) / count + Z**2 / (4 * count**2)) ** 0.5
    return max(centre - half, 0.0), min(centre + half, 1.0)


def _bin(rows: Tensor, probability: Tensor, reward: Tensor) -> dict[str, float]:
    observed = float(reward[rows].double().mean())
    low, high = wilson(observed, len(rows))
    predicted = float(probability[rows].double().mean())
    return {"predicted": predicted, "observed": observed, "low": low, "high": high, "rows": len(rows)}


def _bins(bin_of: Tensor, probability: Tensor, reward: Tensor) -> list[dict[str, float]]:
    return [_bin(rows, probability, reward) for rows in _rows(bin_of)]


def _cut(level: Tensor) -> Tensor:
    """int64 (n,): which of at most BINS equally large parts by level (n,); equal levels stay together."""
    ordered = level.sort().values
    edges = ordered[torch.arange(1, BINS) * len(level) // BINS]
    return torch.bucketize(level, edges, right=True)


def _rows(bin_of: Tensor) -> list[Tensor]:
    """Positions of each bin that has any, in the order of bins."""
    return [(bin_of == number).nonzero()[:, 0] for number in bin_of.unique().tolist()]


def _head_and_tail(head: Tensor) -> list[tuple[str, Tensor]]:
    return [("head", head.nonzero()[:, 0]), ("tail", (~head).nonzero()[:, 0])]


def _interval(value: float, influence: Tensor, user: Tensor, limits: tuple[float, float]) -> tuple[float, float]:
    """95 % of a mean whose rows (n,) pull it by `influence`, with the rows of a user taken as one draw (Liang, Zeger 1986)."""
    of_user = torch.zeros(int(user.max()) + 1, dtype=torch.float64).scatter_add_(0, user, influence.double())
    half = Z * float(of_user.square().sum().sqrt())
    return max(value - half, limits[0]), min(value + half, limits[1])


def _auc(score: Tensor, positive: Tensor) -> tuple[float | None, Tensor]:
    """The AUC, and each row's pull on it (n,): its placement among the other kind (DeLong et al. 1988)."""
    from scipy.stats import rankdata

    yes, no = int(positive.sum()), int((~positive).sum())
    if not yes or not no:
        return None, torch.zeros(len(score), dtype=torch.float64)
    rank = torch.from_numpy(rankdata(score.numpy()))
    place = torch.empty(len(score), dtype=torch.float64)
    place[positive] = (rank[positive] - torch.from_numpy(rankdata(score[positive].numpy()))) / no
    place[~positive] = 1 - (rank[~positive] - torch.from_numpy(rankdata(score[~positive].numpy()))) / yes
    auc = float(place[positive].mean())
    return auc, (place - auc) / torch.where(positive, yes, no)


def _spreads(logit: Logit, log: Dataset, generator: torch.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    """Users' shares of head items among their positives, and items' response rates: of the log, and of responses that the
    model gives to the same exposures."""
    probability = torch.cat(
        [torch.sigmoid(logit(u, i)) for u, i in zip(log.user.split(DRAWN), log.item.split(DRAWN), strict=True)]
    )
    draws = min(max(DRAWN // len(log), 1), MOST_DRAWS)
    real = _of_answers(log, log.reward)
    drawn = [_of_answers(log, torch.bernoulli(probability, generator=generator)) for _ in range(draws)]
    users, items = (_beside(real[which], torch.cat([own[which] for own in drawn]), draws) for which in (0, 1))
    return {**users, "fewest_positives": FEWEST_POSITIVES}, {**items, "fewest_exposures": FEWEST_EXPOSURES}


def _of_answers(log: Dataset, reward: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of the users who have enough positives, and rates of the items that were shown often enough."""
    weight = reward.double()
    positives = torch.zeros(log.users, dtype=torch.float64).scatter_add_(0, log.user, weight)
    popular = torch.zeros(log.users, dtype=torch.float64).scatter_add_(0, log.user, weight * log.items.head[log.item])
    shown = torch.bincount(log.item, minlength=len(log.items))
    answered = torch.zeros(len(log.items), dtype=torch.float64).scatter_add_(0, log.item, weight)
    there, often = positives >= FEWEST_POSITIVES, shown >= FEWEST_EXPOSURES
    return popular[there] / positives[there], answered[often] / shown[often]


def _beside(real: Tensor, simulated: Tensor, draws: int) -> dict[str, Any]:
    """Mean, deviation and histogram over [0, 1] of both."""
    edges = np.linspace(0, 1, BINS + 1)
    counts = [np.histogram(own.numpy().clip(0, 1), edges)[0] / max(len(own), 1) for own in (real, simulated)]
    told: dict[str, Any] = {
        name: {"mean": float(own.mean()) if len(own) else None, "sd": float(own.std(correction=0)) if len(own) else None}
        for name, own in (("real", real), ("simulated", simulated))
    }
    bins = [
        {"low": low, "high": high, "real": a, "simulated": b}
        for low, high, a, b in zip(edges[:-1].tolist(), edges[1:].tolist(), *(own.tolist() for own in counts), strict=True)
    ]
    return {**told, "bins": bins, "counted": len(real), "draws": draws}


def _randomised(score: Tensor, log: Dataset, held_out: Tensor) -> dict[str, Any] | None:
    if log.randomised is None:
        return None
    rows = log.randomised[held_out]
    if int(rows.sum()) < FEWEST_RANDOM:
        return None
    return fidelity(score[rows], log.reward[held_out][rows], log.user[held_out][rows]).scores()


def _against(truth: Logit, logit: Logit, log: Dataset, held_out: Tensor, generator: torch.Generator) -> dict[str, Any]:
    """How far the model is from the true probabilities: on held-out exposures, where the feed went, and on pairs drawn evenly
    from users × items, where a policy may go; and these by popularity (`observed`: the true rate)."""
    user, item = log.user[held_out], log.item[held_out]
    loss = F.binary_cross_entropy_with_logits(truth(user, item), log.reward[held_out]).item()
    anyone = torch.randint(log.users, (ANYWHERE,), generator=generator)
    anything = torch.randint(len(log.items), (ANYWHERE,), generator=generator)
    told: dict[str, Any] = {"log_loss": loss}
    for name, u, i in (("exposures", user, item), ("anywhere", anyone, anything)):
        true, own = torch.sigmoid(truth(u, i)).double(), torch.sigmoid(logit(u, i)).double()
        told[name] = {
            "error": float((own - true).abs().mean()),
            "bias": float((own - true).mean()),
            "r": float(torch.corrcoef(torch.stack([own, true]))[0, 1]),
            "sd": {"real": float(true.std(correction=0)), "simulated": float(own.std(correction=0))},
        }
    level = log.items.popularity[anything]
    told["popularity"] = [
        {
            "popularity": float(level[rows].float().mean()),
            "predicted": float(own[rows].mean()),
            "observed": float(true[rows].mean()),
        }
        for rows in _rows(_cut(level))
    ]
    return told
