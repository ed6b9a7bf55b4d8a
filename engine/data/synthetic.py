"""A generated platform whose truth is known: interests, conformity, satiation and influence; nothing to download.

What is generated (docs/worlds.md shows the measurements):

1. Interests. Categories lie on a three-dimensional manifold bent into d dimensions; an item is its category plus detail; a
   user is a sparse Dirichlet mixture of categories plus detail. Genuine preference: logit = a·⟨u,v⟩ + b_i + b_0.
2. Popularity follows KuaiRand-Pure's real exposure marginal through its quantiles (item_popularity, 5,659 items).
3. The log comes from a popularity-biased, personalised feed; a user's taste for popular items varies. A small share of
   exposures is random and marked so. Items may be shown to a user more than once, as in a real feed.
4. Clicks mix preference with conformity: + c_u·g(popularity) with g non-linear (paper C1), so no linear axis holds it.
5. b_0 and the spread of b_i are solved so that items' response rates have KuaiRand-Pure's mean 0.28 and deviation 0.16.

One number of KuaiRand-Pure is read with care: its users' "share of popular items" is 0.42 ± 0.16 while its top 20 % of
items take 73 % of the exposure. Both hold only if "popular" means about the top 6 % there, and so the feed is calibrated.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.contracts import Data, Dataset, Items
from engine.data.heads import head_items
from engine.options import BadInput, option
from engine.options import Config as BaseConfig

DIMENSIONS = 24  # of the true preference space
MANIFOLD = 3  # dimensions of the surface on which categories lie
POPULAR_SHARE, POPULAR_MEAN, POPULAR_SD = 0.06, 0.42, 0.16  # see the docstring's last paragraph
RATE_MEAN, RATE_SD = 0.28, 0.16
# Quantiles of item_popularity in KuaiRand-Pure (exposures, scaled to a maximum of 1).
QUANTILE_AT = (0.0, 0.01, 0.05, 0.10, 0.20, 0.30, 0.40, 0.50, 0.60, 0.70, 0.80, 0.90, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0)
QUANTILES = (
    2e-5, 5e-5, 0.00032, 0.00074, 0.0017, 0.0030, 0.0049, 0.0078, 0.0120, 0.0183, 0.0303, 0.0580, 0.0913, 0.1556, 0.2230,
    0.3174, 0.4842, 1.0,
)  # fmt: skip


@dataclass(frozen=True)
class Config(BaseConfig):
    """`dataset.*` of the synthetic platform."""

    users: int = option(1411, "test users, whom no training sees", low=1, high=10_000_000, source="KuaiRec's size, Table 1")
    train_users: int = option(7176, "users of the training log", low=10, high=10_000_000, source="KuaiRec's size, Table 1")
    items: int = option(3327, "items in the catalogue", low=10, high=10_000_000, source="KuaiRec's size, Table 1")
    log_length: int = option(100, "logged interactions of each user", low=2, high=10_000)
    start: int = option(30, "logged interactions known when a session starts", low=0, high=10_000)
    categories: int = option(20, "interest categories", low=2, high=1000)
    randomised: float = option(0.05, "share of logged exposures that are random", low=0, high=1)
    sharpness: float = option(5.0, "a, the weight of ⟨u,v⟩ in the click's logit", low=0, high=50)
    conformity: float = option(1.0, "mean of c_u, the pull of popularity on clicks; 0 switches it off", low=0, high=10)
    satiation: float = option(1.5, "logit lost when one category fills all recent slates; 0 switches it off", low=0, high=20)
    influence: float = option(0.03, "pull of a fully clicked slate on the preference; 0 switches it off", low=0, high=1)
    seed: int = option(0, "of the world itself; a run's own seed never changes it", low=0)


@dataclass(frozen=True)
class ClickModel:
    """Parameters of generated clicks, U users: logit = sharpness·⟨preference,vector⟩ + bias + conformity·pull, less satiation.

    preference (U,d), conformity (U,), vector (I,d), bias (I,) with b_0 inside, pull (I,) = g(popularity), tag int64 (I,).
    """

    preference: Tensor
    conformity: Tensor
    vector: Tensor
    bias: Tensor
    pull: Tensor
    tag: Tensor
    sharpness: float
    satiation: float
    influence: float

    def logit(self, users: Tensor, items: Tensor) -> Tensor:
        """(B,K) logits of a click before the session's satiation and influence; users (B,), items (B,K)."""
        match = (self.preference[users].unsqueeze(1) * self.vector[items]).sum(-1)
        return self.sharpness * match + self.bias[items] + self.conformity[users].unsqueeze(1) * self.pull[items]

    def reordered(self, order: Tensor) -> ClickModel:
        """The same for a catalogue whose item i is this one's order[i]."""
        return replace(self, vector=self.vector[order], bias=self.bias[order], pull=self.pull[order], tag=self.tag[order])


@dataclass(frozen=True)
class SyntheticTruth:
    """The test users' truth (engine.contracts.Truth)."""

    preference: Tensor
    interest: Tensor
    conformity: Tensor
    clicks: ClickModel

    def genuine(self, users: Tensor, items: Tensor) -> Tensor:
        """(B,K) probability of liking: no conformity, no satiation, no influence."""
        match = (self.preference[users].unsqueeze(1) * self.clicks.vector[items]).sum(-1)
        return torch.sigmoid(self.clicks.sharpness * match + self.clicks.bias[items])

    def reordered(self, order: Tensor) -> SyntheticTruth:
        """The same for a catalogue whose item i is this one's order[i]."""
        return replace(self, clicks=self.clicks.reordered(order))


def catalogue_size(config: Config) -> int:
    """Items in play, known without loading."""
    return config.items


def load(config: Config) -> Data:
    """Generate the platform. Equal configs give equal data on every machine with the same torch."""
    if config.start > config.log_length:
        raise BadInput(
            f"dataset.start = {config.start} is not legal: it must be at most dataset.log_length = {config.log_length}"
        )
    generator = torch.Generator().manual_seed(config.seed * 2 + 1)
    everyone = config.train_users + config.users

    # 1. Interests, items and users.
    centres = _manifold(config.categories, generator)
    tag = torch.randint(config.categories, (config.items,), generator=generator)
    vector = F.normalize(centres[tag] + 0.6 * _unit(config.items, generator), dim=1)
    mixture = _dirichlet(everyone, config.categories, 0.15, generator)
    preference = F.normalize(mixture @ centres + 0.4 * _unit(everyone, generator), dim=1)
    conformity = 2 * config.conformity * torch.rand(everyone, generator=generator)

    # 2. Popularity by quantiles, in random order.
    wanted = _popularity(config.items)[torch.randperm(config.items, generator=generator)]
    level = torch.log(wanted)
    level = (level - level.mean()) / level.std()
    # g: a bandwagon that starts where an item is visibly popular, and curiosity for the hardly known.
    pull = 2.2 * torch.sigmoid(4 * (level - 0.8)) + 0.8 * torch.sigmoid(-4 * (level + 1))

    # 3. The feed.
    user, item, randomised = _feed(config, wanted, tag, preference @ centres.T, generator)

    # 4. and 5. Clicks, with b_0 and the spread of b_i solved for.
    quality = torch.randn(config.items, generator=generator)
    dynamics = (config.sharpness, config.satiation, config.influence)
    model = ClickModel(preference, conformity, vector, torch.zeros(config.items), pull, tag, *dynamics)
    base, spread = _calibrate(model, quality, user, item, generator)
    model = replace(model, bias=base + spread * quality)
    probability = torch.cat([torch.sigmoid(model.logit(u, i[:, None])[:, 0]) for u, i in _blocks(user, item)])
    reward = torch.bernoulli(probability, generator=generator)

    first_test = config.train_users
    in_train = user < first_test
    exposures = torch.bincount(item[in_train], minlength=config.items)
    items = Items(
        popularity=exposures,
        head=head_items(exposures),
        tags=F.one_hot(tag, config.categories).bool(),
        main_tag=tag,
        tag_names=(*(f"interest {c}" for c in range(config.categories)), "none"),
        titles=tuple(f"item {i}" for i in range(config.items)),
    )
    position = torch.arange(config.log_length).repeat(everyone)

    def log(rows: Tensor, offset: int, users: int) -> Dataset:
        return Dataset(user[rows] - offset, item[rows], reward[rows], 60 * position[rows], randomised[rows], users, items)

    tested = slice(first_test, None)
    train, test = log(in_train, 0, config.train_users), log(~in_train, first_test, config.users)
    known = position < config.start
    return Data(
        name="synthetic",
        train=train,
        test=test,
        train_start=train.select(known[in_train]),
        test_start=test.select(known[~in_train]),
        shared_users=False,
        fingerprint=hashlib.sha256(json.dumps(["synthetic-1", asdict(config)], sort_keys=True).encode()).hexdigest(),
        responses={"train": _part(model, slice(0, first_test)), "test": _part(model, tested)},
        truth=SyntheticTruth(preference[tested], mixture[tested].argmax(1), conformity[tested], _part(model, tested)),
    )


def _part(model: ClickModel, rows: slice) -> ClickModel:
    return replace(model, preference=model.preference[rows], conformity=model.conformity[rows])


def _manifold(count: int, generator: torch.Generator) -> Tensor:
    """(count,d) unit vectors on a bent three-dimensional surface."""
    place = torch.randn(count, MANIFOLD, generator=generator)
    bend = torch.randn(MANIFOLD, DIMENSIONS, generator=generator)
    phase = torch.rand(DIMENSIONS, generator=generator) * 6.2832
    return F.normalize(torch.sin(place @ bend + phase), dim=1)


def _unit(count: int, generator: torch.Generator) -> Tensor:
    return F.normalize(torch.randn(count, DIMENSIONS, generator=generator), dim=1)


def _dirichlet(count: int, size: int, concentration: float, generator: torch.Generator) -> Tensor:
    """(count,size) rows that sum to 1. Gamma(k) for k < 1 as Gamma(k+1)·U^(1/k), Marsaglia–Tsang, from the given generator."""
    k = concentration + 1 - 1 / 3
    scale = 1 / (9 * k) ** 0.5
    gamma = torch.zeros(count, size)
    todo = torch.ones(count, size, dtype=torch.bool)
    while todo.any():
        normal = torch.randn(count, size, generator=generator)
        uniform = torch.rand(count, size, generator=generator)
        cube = (1 + scale * normal) ** 3
        ok = (cube > 0) & (torch.log(uniform) < 0.5 * normal**2 + k - k * cube + k * torch.log(cube.clamp_min(1e-12)))
        gamma = torch.where(todo & ok, k * cube, gamma)
        todo &= ~ok
    gamma *= torch.rand(count, size, generator=generator).clamp_min(1e-12) ** (1 / concentration)
    return gamma / gamma.sum(1, keepdim=True).clamp_min(1e-12)


def _popularity(items: int) -> Tensor:
    """(items,) ascending popularity by log-linear interpolation of the real quantiles."""
    at, level = torch.tensor(QUANTILE_AT), torch.tensor(QUANTILES).log()
    place = (torch.arange(items) + 0.5) / items
    right = torch.searchsorted(at, place).clamp(1, len(at) - 1)
    share = (place - at[right - 1]) / (at[right] - at[right - 1])
    return torch.exp(level[right - 1] + share * (level[right] - level[right - 1]))


def _blocks(*tensors: Tensor, size: int = 1 << 18) -> zip[tuple[Tensor, ...]]:
    return zip(*(tensor.split(size) for tensor in tensors), strict=True)


def _feed(
    config: Config, wanted: Tensor, tag: Tensor, affinity: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """User, item and randomised (each (users·log_length,)) of the logged exposures.

    A user meets a cell (popularity bin × category) with weight ∝ mass · popularity^κ_u · exp(affinity), then an item of the
    cell. Item weights are iterated until the expected exposures equal `wanted`; the spread of κ_u is solved for.
    """
    everyone, bins = len(affinity), min(50, len(wanted))
    order = wanted.argsort()
    bin_of = torch.empty(len(wanted), dtype=torch.int64)
    bin_of[order] = torch.arange(len(wanted)) * bins // len(wanted)
    cell = tag * bins + bin_of
    cells = config.categories * bins
    # The random exposures are spread evenly, so the feed must bring the rest of each item's share.
    target = (wanted / wanted.sum() - config.randomised / len(wanted)).clamp_min(1e-3 / len(wanted))
    target = target / target.sum()
    level = torch.zeros(bins).scatter_add_(0, bin_of, wanted.log()) / torch.bincount(bin_of, minlength=bins)
    level = (level - level.mean()).repeat(config.categories)  # (cells,)
    affinity = (affinity - affinity.mean(1, keepdim=True)) / affinity.std(1, keepdim=True)
    taste = torch.randn(everyone, generator=generator)
    popular = torch.zeros(len(wanted), dtype=torch.bool)
    popular[order[-max(1, round(POPULAR_SHARE * len(wanted))) :]] = True

    def meet(users: slice, spread: float, mass: Tensor) -> Tensor:
        """(users,cells) probabilities."""
        near = 0.5 * affinity[users].repeat_interleave(bins, dim=1)
        return torch.softmax(mass.clamp_min(1e-30).log() + spread * taste[users, None] * level + near, dim=1)

    def masses(weight: Tensor) -> Tensor:
        return torch.zeros(cells).scatter_add_(0, cell, weight)

    sample = slice(0, 1000)
    weight, spread = target.clone(), 0.3
    share_of_popular = torch.zeros(cells)
    for _ in range(12):
        for _ in range(4):
            mass = masses(weight)
            expected = meet(sample, spread, mass).mean(0)[cell] * weight / mass[cell].clamp_min(1e-30)
            weight = weight * (target / expected.clamp_min(1e-12)) ** 0.7
        mass = masses(weight)
        share_of_popular = masses(weight * popular) / mass.clamp_min(1e-30)
        shares = meet(sample, spread, mass) @ share_of_popular
        chance = (shares * (1 - shares) / config.log_length).mean()
        wished = max(POPULAR_SD**2 - chance.item(), 1e-4) ** 0.5
        spread = min(max(spread * (wished / max(shares.std().item(), 1e-4)) ** 0.7, 0.01), 2.0)

    mass = masses(weight)
    by_cell = cell.argsort(stable=True)
    reach = weight[by_cell].double().cumsum(0)
    end = masses(weight).double().cumsum(0)
    start = torch.cat([torch.zeros(1, dtype=torch.float64), end[:-1]])
    chosen = []
    for low in range(0, everyone, 2000):
        block = slice(low, min(low + 2000, everyone))
        edges = meet(block, spread, mass).cumsum(1)
        draw = torch.rand(len(edges), config.log_length, generator=generator) * edges[:, -1:]
        at = torch.searchsorted(edges, draw).clamp_max(cells - 1)
        inside = start[at] + torch.rand(at.shape, generator=generator, dtype=torch.float64) * (end[at] - start[at])
        chosen.append(by_cell[torch.searchsorted(reach, inside).clamp_max(len(by_cell) - 1)])
    item = torch.cat(chosen).flatten()
    randomised = torch.rand(len(item), generator=generator) < config.randomised
    anywhere = torch.randint(len(wanted), (len(item),), generator=generator)
    user = torch.arange(everyone).repeat_interleave(config.log_length)
    return user, torch.where(randomised, anywhere, item), randomised


def _calibrate(
    model: ClickModel, quality: Tensor, user: Tensor, item: Tensor, generator: torch.Generator
) -> tuple[float, float]:
    """b_0 and the spread of b_i for which items' mean response has RATE_MEAN and RATE_SD, both over a sample of the log."""
    rows = torch.randperm(len(user), generator=generator)[:1_000_000]
    user, item = user[rows], item[rows]
    logit = torch.cat([model.logit(u, i[:, None])[:, 0] for u, i in _blocks(user, item)])
    count = torch.bincount(item, minlength=len(quality)).clamp_min(1)
    met = torch.bincount(item, minlength=len(quality)) >= 5

    def rates(base: float, spread: float) -> Tensor:
        total = torch.zeros(len(quality)).scatter_add_(0, item, torch.sigmoid(logit + base + spread * quality[item]))
        return (total / count)[met]

    base, spread = -2.0, 0.5
    for _ in range(30):
        rate = rates(base, spread)
        base += 2.0 * (RATE_MEAN - rate.mean().item())
        spread = max(0.0, spread + 2.0 * (RATE_SD - rate.std().item()))
    return base, spread
