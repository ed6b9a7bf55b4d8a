"""Slates: Plackett–Luce sampling without replacement, and its exact log-probability, over the catalogue or in two groups.

Scores are logits (B,I). A slate's order is the order of drawing. `shown` int64 (B,n) names columns that may not be drawn;
`blocked` bool (B,I) says the same to log-probabilities, whose rows come from different steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

DRAWS_PER_ITEM = 2  # draws with replacement for each item wanted; the rare rows that need more are finished exactly
ROWS = 256  # handled at once, so that the passes over (rows,I) stay in the processor's cache
GPU_NUMBERS = 1 << 26  # (rows,I) handled at once on a GPU, where a pass costs a launch however few rows it has
FAINT = 1e-30  # a row whose open items weigh less than this beside its shown ones is drawn by Gumbel noise instead


def top(scores: Tensor, count: int, shown: Tensor | None) -> Tensor:
    """int64 (B,count): the best items, best first."""
    return _closed(scores, shown).topk(count, dim=1).indices


def sample(scores: Tensor, count: int, shown: Tensor | None, generator: torch.Generator) -> Tensor:
    """int64 (B,count): Plackett–Luce draws.

    By inverse CDF: draws with replacement, of which the first distinct ones are kept; that *is* drawing without
    replacement. A row with too few distinct draws keeps its partial draw and goes on from there by Gumbel top-k over the
    rest, which has the same law (redrawing such rows would favour flat ones).
    """
    parts = []
    for rows in _blocks(scores):
        own = None if shown is None else shown[rows]
        weights = _weights(scores[rows], [slice(None)], own)
        cdf = weights.cumsum_(1)
        picked, found = _first_distinct(cdf, torch.zeros_like(cdf[:, :1]), cdf[:, -1:], count, generator)
        parts.append(_finish(scores[rows], own, picked, found, generator))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def sample_quota(
    scores: Tensor, heads: Tensor, count: int, head_items: int, shown: Tensor | None, generator: torch.Generator
) -> Tensor:
    """int64 (B,count): `heads` (B,) items drawn among the first `head_items` columns, then the others among the rest.

    Within each group the draw is Plackett–Luce. The catalogue must be ordered with the head items first.
    """
    groups = [slice(0, head_items), slice(head_items, None)]
    parts = []
    for rows in _blocks(scores):
        own = None if shown is None else shown[rows]
        cdf = _weights(scores[rows], groups, own).cumsum_(1)
        nothing, border, need = torch.zeros_like(cdf[:, :1]), cdf[:, head_items - 1 : head_items], heads[rows]
        picks = []
        for group, low, high, wanted in ((0, nothing, border, need), (1, border, cdf[:, -1:], count - need)):
            picked, found = _first_distinct(cdf, low, high, count, generator)
            start = groups[group].start
            enough = torch.where(found >= wanted, count, found)
            closed = None if own is None else _within(own, start, groups[group].stop or scores.shape[1])
            picks.append(start + _finish(scores[rows, groups[group]], closed, picked - start, enough, generator))
        parts.append(_joined(picks[0], picks[1], need))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def top_quota(scores: Tensor, heads: Tensor, count: int, head_items: int, shown: Tensor | None) -> Tensor:
    """int64 (B,count): the best `heads` (B,) of the first `head_items` columns, then the best others of the rest."""
    scores = _closed(scores, shown)
    first = scores[:, :head_items].topk(min(count, head_items), dim=1).indices
    second = scores[:, head_items:].topk(min(count, scores.shape[1] - head_items), dim=1).indices + head_items
    return _joined(first, second, heads, count)


def log_probability(scores: Tensor, slate: Tensor, blocked: Tensor | None) -> Tensor:
    """(B,K) log-probability of each draw of slates (B,K) given the draws before it (their sum is the slate's): sequential
    Plackett–Luce, exact however much mass the slate holds."""
    gone = torch.zeros_like(scores, dtype=torch.bool) if blocked is None else blocked.clone()
    gone.scatter_(1, slate, True)
    rest = scores.masked_fill(gone, -torch.inf).logsumexp(1, keepdim=True)
    return _sequential(scores.gather(1, slate), rest)


def log_probability_quota(scores: Tensor, slate: Tensor, heads: Tensor, head_items: int, blocked: Tensor | None) -> Tensor:
    """(B,K) the same for the draws of `sample_quota` given `heads` (B,): each group is a draw of its own."""
    gone = torch.zeros_like(scores, dtype=torch.bool) if blocked is None else blocked.clone()
    gone.scatter_(1, slate, True)
    masked = scores.masked_fill(gone, -torch.inf)
    chosen = scores.gather(1, slate)
    is_head = torch.arange(slate.shape[1], device=slate.device) < heads[:, None]
    terms = torch.zeros_like(chosen)
    for part, mine in ((masked[:, :head_items], is_head), (masked[:, head_items:], ~is_head)):
        rest = part.logsumexp(1, keepdim=True)
        # Places of the other group weigh nothing in the denominators and nothing in the sum.
        terms = terms + _sequential(chosen.masked_fill(~mine, _NOTHING), rest) * mine
    return terms


_NOTHING = -1e9  # a logit whose exponential is 0 but whose gradient is a number


def _sequential(chosen: Tensor, rest: Tensor) -> Tensor:
    """(B,K) chosen_j − log(exp(rest) + Σ_{i ≥ j} exp(chosen_i)); rest (B,1) is the log-mass of what was never drawn."""
    rest = torch.where(torch.isinf(rest), torch.full_like(rest, _NOTHING), rest)
    later = chosen.flip(1).logcumsumexp(1).flip(1)
    return chosen - torch.logaddexp(later, rest)


def rows_at_once(device: torch.device, items: int) -> int:
    """How many rows over so many items are handled at once on that device."""
    return ROWS if device.type == "cpu" else max(ROWS, GPU_NUMBERS // items)


def _blocks(scores: Tensor) -> list[slice]:
    rows = rows_at_once(scores.device, scores.shape[1])
    return [slice(start, start + rows) for start in range(0, len(scores), rows)]


def _closed(scores: Tensor, shown: Tensor | None) -> Tensor:
    """Scores with −∞ in the columns that were shown."""
    return scores if shown is None or not shown.shape[1] else scores.scatter(1, shown, -torch.inf)


def _within(shown: Tensor, start: int, stop: int) -> Tensor:
    """Columns of a group's own numbering; what lies in the other group becomes one that is named already, or −1."""
    return (shown - start).masked_fill((shown < start) | (shown >= stop), -1)


def _weights(scores: Tensor, groups: list[slice], shown: Tensor | None) -> Tensor:
    """exp(scores − the group's largest), 0 where shown."""
    weights = torch.empty_like(scores)
    for group in groups:
        torch.sub(scores[:, group], scores[:, group].amax(1, keepdim=True), out=weights[:, group])
    weights.exp_()
    return weights if shown is None or not shown.shape[1] else weights.scatter_(1, shown, 0.0)


def _joined(first: Tensor, second: Tensor, heads: Tensor, count: int | None = None) -> Tensor:
    """The first `heads` (B,) places of one pick, then the other pick from its start."""
    place = torch.arange(count or first.shape[1], device=first.device).expand(first.shape[0], -1)
    a = first.gather(1, place.clamp_max(first.shape[1] - 1))
    b = second.gather(1, (place - heads[:, None]).clamp(0, second.shape[1] - 1))
    return torch.where(place < heads[:, None], a, b)


def _first_distinct(cdf: Tensor, low: Tensor, high: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The first `count` distinct of many draws between `low` and `high` (B,1) on the CDF: (B,count), and how many (B,)."""
    draws = DRAWS_PER_ITEM * count
    uniform = torch.rand(len(cdf), draws, generator=generator, device=generator.device).to(cdf.device)
    at = torch.addcmul(low, uniform, high - low).minimum(high * (1 - 2**-23))
    item = torch.searchsorted(cdf, at, right=True).clamp_max_(cdf.shape[1] - 1)
    earlier = torch.ones(draws, draws, dtype=torch.bool, device=cdf.device).tril(-1)
    repeat = ((item.unsqueeze(2) == item.unsqueeze(1)) & earlier).any(2)
    rank = (~repeat).cumsum(1)
    place = torch.where(repeat | (rank > count), count, rank - 1)  # column `count` collects what is not kept
    picked = torch.full((len(cdf), count + 1), -1, dtype=torch.int64, device=cdf.device).scatter_(1, place, item)
    found = torch.where((high - low)[:, 0] > FAINT, rank[:, -1].clamp_max(count), 0)
    return picked[:, :count], found


def _finish(scores: Tensor, shown: Tensor | None, picked: Tensor, found: Tensor, generator: torch.Generator) -> Tensor:
    """Fill the places from `found` (B,) on by drawing, without replacement, from what is left. shown may hold −1."""
    count, items = picked.shape[1], scores.shape[1]
    short = (found < count).nonzero()[:, 0]
    if not len(short):
        return picked
    rows = picked[short]
    place = torch.arange(count, device=scores.device).expand(len(short), -1)
    kept = place < found[short, None]
    gone = torch.where(kept, rows, -1)
    if shown is not None:
        gone = torch.cat([gone, shown[short]], 1)
    closed = torch.zeros(len(short), items + 1, dtype=torch.bool, device=scores.device)
    closed.scatter_(1, gone.masked_fill(gone < 0, items), True)
    shape = (len(short), items)
    uniform = torch.rand(shape, generator=generator, device=generator.device).to(scores.device)
    gumbel = -uniform.clamp_min(1e-20).log().neg().log()
    rest = (scores[short] + gumbel).masked_fill(closed[:, :items], -torch.inf).topk(min(count, items), dim=1).indices
    rest = rest.gather(1, (place - found[short, None]).clamp(0, rest.shape[1] - 1))
    picked = picked.clone()
    picked[short] = torch.where(kept, rows, rest)
    return picked
