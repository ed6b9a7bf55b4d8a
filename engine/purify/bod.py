"""Observed vectors learnt with BOD: bi-level denoising, weights that make two losses agree (Wang et al., KDD 2023)

The state is the paper's s_t, the mean vector of what the user responded to. Its vectors are learnt from weighted pairs; a small
network gives a pair its weight, w_ui = sigmoid(MLP([e_u, e_i])), and is itself learnt:

- inner step, generator fixed: weighted BPR + weighted alignment + 0.5·uniformity moves the vectors, with
  BPR = −log σ(w_ui·⟨e_u, e_i⟩ − w_uj·⟨e_u, e_j⟩), alignment = w_ui·‖ē_u − ē_i‖², uniformity = log mean exp(−2‖ē − ē'‖²);
- outer step, vectors fixed: one step of the generator down 1 − cos(∇BPR, ∇alignment), the gradients of the two losses by the
  vectors, column by column. The generator acts through them, so this needs a second-order graph.

Differences from the source: 1. one outer step for every 16 inner steps; their code takes one an epoch, over 100 epochs, and the
default here is 12 epochs. With one for every 4 some seeds came to trust planted noise *more* than the rest. 2. the cosine does
not tell the weights' level, and it was seen to fall to 0: both losses use w/mean(w) of the batch; the generator's own output
stays in (0, 1). 3. matrix factorisation (their code offers graph encoders too), Adam with a falling step size. 4. uniformity is
taken over 512 rows of a batch. 5. their generator's L2 penalty falls on vectors that the generator's optimiser does not hold
and is left out; so is a slip of their outer step, which weighs a positive pair by [e_u, e_u]. 6. a reward between 0 and 1 makes
a row a positive with that probability.
As in the source, and unlike `rce` and `tce`, negatives are drawn from the whole catalogue: with the log's own silences instead
the generator trusted planted noise more than the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine import nets
from engine.contracts import Dataset
from engine.options import Config as BaseConfig
from engine.options import Diverged, option
from engine.purify.identity import ObservedView
from engine.purify.view import calibrate
from engine.spec import StateConfig
from engine.state.stage import Stage

BATCH = (256, 4096)  # fewest and most positives in one step
STEPS = 64  # in one epoch, where there are positives enough
ROWS = 512  # of a batch, whose pairs make up the uniformity loss


@dataclass(frozen=True)
class Config(BaseConfig):
    """`purifier.*` of `bod`; epochs and the vectors' step size are those of `state.*`."""

    hidden: int = option(64, "width of the weight generator's two hidden layers", low=1, high=4096, source="authors' code")
    uniformity: float = option(0.5, "weight of the uniformity loss in the inner step", low=0, high=100, source="authors' code")
    inner_steps: int = option(16, "steps of the vectors for one of the generator", low=1, high=100_000)
    generator_rate: float = option(1e-3, "Adam's step size for the weight generator", above=0, high=1, source="authors' code")


class WeightGenerator(nn.Module):
    """[e_u, e_i] → (0, 1); layers 2D → 64 → 64 → 1 (the source's D is 64)."""

    def __init__(self, width: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.net = nets.mlp((2 * width, hidden, hidden, 1), generator)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """(n,) weights of pairs of vectors (n,D), in (0, 1)."""
        return torch.sigmoid(self.net(torch.cat([users, items], 1))[:, 0])

    def relative(self, users: Tensor, items: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """(n,) weights of positive and of negative pairs, over the mean weight of the positive ones."""
        positive, negative = self(users, items), self(users, others)
        level = positive.mean()
        return positive / level, negative / level


def pairwise(users: Tensor, items: Tensor, others: Tensor, weight: Tensor, weight_of_others: Tensor) -> Tensor:
    """Weighted BPR of vectors (n,D): the weights act on the scores."""
    wanted, unwanted = (users * items).sum(1), (users * others).sum(1)
    return -F.logsigmoid(weight * wanted - weight_of_others * unwanted).mean()


def alignment(users: Tensor, items: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean squared distance of normalised vectors (n,D)."""
    return (weight * (F.normalize(users, dim=1) - F.normalize(items, dim=1)).pow(2).sum(1)).mean()


def uniformity(vectors: Tensor) -> Tensor:
    """log mean exp(−2‖x − x'‖²) over pairs of different rows of normalised vectors (n,D); 0 for a single row."""
    count = len(vectors)
    if count < 2:
        return vectors.new_zeros(())
    x = F.normalize(vectors, dim=1)
    near = torch.exp(4 * (x @ x.T - 1))  # ‖x − x'‖² = 2 − 2⟨x, x'⟩
    return ((near.sum() - count) / (count * (count - 1))).log()


def disagreement(one: Iterable[Tensor], other: Iterable[Tensor]) -> Tensor:
    """Mean of 1 − cos between the columns of two lists of gradients (rows,D)."""
    return torch.cat([1 - F.cosine_similarity(a, b, dim=0) for a, b in zip(one, other, strict=True)]).mean()


def outer_loss(judge: WeightGenerator, users: Tensor, items: Tensor, rows: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """How much the gradients of weighted BPR and alignment by the tables (U,D), (I,D) disagree on (user, item, other) rows."""
    p, q, r = F.embedding(rows[0], users), F.embedding(rows[1], items), F.embedding(rows[2], items)
    weight, weight_of_others = judge.relative(p.detach(), q.detach(), r.detach())
    ranking = torch.autograd.grad(pairwise(p, q, r, weight, weight_of_others), (users, items), create_graph=True)
    nearness = torch.autograd.grad(alignment(p, q, weight), (users, items), create_graph=True)
    return disagreement(ranking, nearness)


@torch.enable_grad()
def learn(
    log: Dataset,
    state: StateConfig,
    config: Config,
    generator: torch.Generator,
    watch: Callable[[float], None] = lambda _: None,
) -> tuple[Tensor, Tensor, WeightGenerator]:
    """Vectors of users (U,D) and items (I,D), and the generator that weighed their pairs. Raises Diverged."""
    users = nn.Parameter(0.1 * torch.randn(log.users, state.width, generator=generator))
    items = nn.Parameter(0.1 * torch.randn(len(log.items), state.width, generator=generator))
    judge = WeightGenerator(state.width, config.hidden, generator)
    pairs = log.select(torch.rand(len(log), generator=generator) < log.reward)
    inner = torch.optim.Adam([users, items], lr=state.learning_rate, fused=True)
    outer = torch.optim.Adam(judge.parameters(), lr=config.generator_rate)
    batch = max(1, min(max(len(pairs) // STEPS, BATCH[0]), BATCH[1], len(pairs)))
    steps = state.epochs * -(-len(pairs) // batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(inner, lambda step: 1.0 - 0.9 * step / max(steps, 1))

    def with_others(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return pairs.user[rows], pairs.item[rows], torch.randint(len(log.items), rows.shape, generator=generator)

    order = torch.zeros(0, dtype=torch.int64)
    for step in range(steps):
        if not len(order):
            watch(step / steps)
            order = torch.randperm(len(pairs), generator=generator)
        u, i, j = with_others(order[:batch])
        order = order[batch:]
        p, q, r = F.embedding(u, users), F.embedding(i, items), F.embedding(j, items)
        with torch.no_grad():
            weight, weight_of_others = judge.relative(p, q, r)
        loss = pairwise(p, q, r, weight, weight_of_others) + alignment(p, q, weight)
        loss = loss + config.uniformity * (uniformity(p[:ROWS]) + uniformity(q[:ROWS])) / 2
        inner.zero_grad()
        loss.backward()
        inner.step()
        schedule.step()
        if step % config.inner_steps == config.inner_steps - 1:
            again = torch.randint(len(pairs), (batch,), generator=generator)
            gap = outer_loss(judge, users, items, with_others(again))
            outer.zero_grad()
            gap.backward(inputs=list(judge.parameters()))
            outer.step()
        if not len(order) and not math.isfinite(loss.item()):
            raise Diverged("the loss of the vectors is not finite")
    return users.detach(), items.detach(), judge


def fit(stage: Stage, config: Config, generator: torch.Generator) -> ObservedView:
    """Learn vectors and weights together; the generator of weights is then thrown away."""
    _, items, _ = learn(
        stage.log, stage.config, config, generator, lambda done: stage.watch("item vectors and their weights", done)
    )
    view = ObservedView({"items": items})
    calibrate(view, stage, learn_bias=True)
    return view


def restore(config: Config, tensors: Mapping[str, Tensor]) -> ObservedView:
    """The view whose state_dict is `tensors`."""
    return ObservedView(tensors)
