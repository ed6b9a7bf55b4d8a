"""Large catalogues: the candidates that policies choose from, and exact top-K in blocks.

A policy that scores a million items at each step, and trains a vector for each, spends its time and memory on items that nobody
would be shown. So where a catalogue has more than `state.candidates` items, that many are chosen once a dataset, and all users
and methods choose from these; histories, states, response models and the catalogue's measures keep all items.

An item is a candidate for how many of a sample of training users it is among the best they could be shown, by the clicks that
stage I predicts from raw states: what every method starts from. Heads and tails are listed apart and have the catalogue's
own share, so that a quota finds what it needs and AD means what it meant. The choice is made with default options and seed 0:
all runs on a dataset have the same candidates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine import cache
from engine.contracts import Candidates, Data, Dataset, Items, Obs
from engine.purify import identity
from engine.purify.view import View
from engine.spec import StateConfig
from engine.state.stage import Stage

Watch = Callable[[str, float], None]
ASKED, MEASURED = 2048, 512  # training users whose lists are made, and others by whom the choice is measured
LISTED = 300  # items of each group on a user's list: what one session may show
USERS, BLOCK, RUN = 256, 2048, 32  # users and items scored at once, which fit in a processor's cache; items in a run
AGAIN = 1 << 18  # scores of the best runs that are worked out again at once


def top_in_blocks(queries: Tensor, items: Tensor, bias: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Scores (B,count) and ids int64 (B,count) of the items (I,D) that ⟨query, item⟩ + bias (I,) ranks first, exactly.

    Of each run of neighbours only the best score is kept at first: the best `count` items lie in the `count` runs with the
    best of these, so that no long row is ever written or sorted.
    """
    count = min(count, len(items))
    parts = [_top(own, items, bias, count) for own in queries.split(USERS)]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _top(queries: Tensor, items: Tensor, bias: Tensor, count: int) -> tuple[Tensor, Tensor]:
    runs = len(items) // RUN
    best = queries.new_empty(len(queries), runs)
    for start in range(0, runs * RUN, BLOCK):
        block = slice(start, min(start + BLOCK, runs * RUN))
        scores = torch.addmm(bias[block], queries, items[block].T)
        best[:, start // RUN : block.stop // RUN] = scores.view(len(queries), -1, RUN).amax(2)
    lead = best.topk(min(count, runs), dim=1).indices
    inside, rest = torch.arange(RUN, device=items.device), torch.arange(runs * RUN, len(items), device=items.device)
    found, ids = [], []
    rows = max(1, AGAIN // (count * RUN))
    for query, own in zip(queries.split(rows), lead.split(rows), strict=True):
        place = torch.cat([(own.unsqueeze(2) * RUN + inside).flatten(1), rest.expand(len(own), -1)], 1)
        scores = torch.bmm(F.embedding(place, items), query.unsqueeze(2)).squeeze(2) + bias[place]
        top = scores.topk(count, dim=1)
        found.append(top.values)
        ids.append(place.gather(1, top.indices))
    return torch.cat(found), torch.cat(ids)


def narrowed(data: Data, most: int, watch: Watch = lambda *_: None) -> Data:
    """The data as policies with at most `most` candidates see it: candidates have the first ids. Cached but for the first
    time; the same data where the catalogue is no larger."""
    if len(data.train.items) <= most:
        return data
    key = _key(data.fingerprint, int(data.train.items.head.sum()), most)
    kept = cache.fetch("candidates", key, lambda: _chosen(data, most, watch), lambda: watch("waiting for the candidates", 0.0))
    return reordered(data, Candidates(most, kept["order"], kept["measured"]))


def reordered(data: Data, candidates: Candidates) -> Data:
    """The same data with other ids: item i was candidates.order[i]."""
    order = candidates.order
    place = order.argsort()
    catalogues: dict[int, Items] = {}

    def log(own: Dataset) -> Dataset:
        if id(own.items) not in catalogues:
            catalogues[id(own.items)] = own.items.reordered(order)
        return replace(own, item=place[own.item], items=catalogues[id(own.items)])

    return replace(
        data,
        train=log(data.train),
        test=log(data.test),
        train_start=log(data.train_start),
        test_start=log(data.test_start),
        fingerprint=_named(data.fingerprint, order, candidates.count),
        responses=None if data.responses is None else {part: own.reordered(order) for part, own in data.responses.items()},
        truth=None if data.truth is None else data.truth.reordered(order),
        candidates=candidates,
    )


def known(whole: str, items: int, heads: int, most: int = StateConfig.candidates, threads: int = 1) -> str | None:
    """The fingerprint that runs of so many threads know a dataset by, from that of the whole of it and its numbers of items and
    heads; None where its candidates have not been chosen yet."""
    if items <= most:
        return whole
    kept = cache.peek("candidates", _key(whole, heads, most), threads)
    return None if kept is None else _named(whole, kept["order"], most)


def _key(whole: str, heads: int, most: int) -> dict[str, Any]:
    return {"data": whole, "most": most, "heads": heads}


def _named(whole: str, order: Tensor, count: int) -> str:
    """Names the choice too: a policy never meets another one, made by other software on another machine."""
    return hashlib.sha256(f"{whole} {count} ".encode() + order.numpy().tobytes()).hexdigest()


def _chosen(data: Data, most: int, watch: Watch) -> dict[str, Any]:
    """`order` and `measured` of Candidates."""
    stage = Stage(data, StateConfig(), 0, watch)
    view = identity.fit(stage, identity.Config(), stage.generator(100))
    obs, known = stage.starts()
    users = known.nonzero()[:, 0]
    users = users[torch.randperm(len(users), generator=stage.generator(101))]
    # The users who measure are others than those who are asked, where there are enough.
    spare = min(MEASURED, len(users) // 2)
    measuring, asked = users[:spare], users[spare:][:ASKED]
    items, in_play = data.train.items, data.train.items.in_play() | data.test.items.in_play()
    heads = max(1, min(round(most * float(items.head[in_play].float().mean())), most - 1))
    chosen = torch.zeros(len(items), dtype=torch.bool)
    groups = ((items.head & in_play, heads), (~items.head & in_play, most - heads))
    for number, (group, room) in enumerate(groups):
        ids = group.nonzero()[:, 0]
        items_of, appeal = view.items[ids], (view.bias + view.curve)[ids]
        votes = torch.zeros(len(ids), dtype=torch.float64)
        for done, rows in enumerate(asked.split(USERS)):
            watch("candidates", 0.5 * (number + done * USERS / max(len(asked), 1)))
            listed = top_in_blocks(view.scale * _states(view, obs, rows), items_of, appeal, LISTED)[1]
            # A first place counts more than a last, as gains do in a ranking.
            worth = 1 / torch.log2(2.0 + torch.arange(listed.shape[1]))
            votes.scatter_add_(0, listed.flatten(), worth.double().expand(len(listed), -1).flatten())
        # Where nobody lists enough items, the appeal of an item decides.
        votes += 1e-6 * torch.sigmoid(appeal.double())
        chosen[ids[votes.topk(min(room, len(ids))).indices]] = True
    watch("candidates", 1.0)
    order = (~chosen).int().argsort(stable=True)
    return {"order": order, "measured": _measured(view, _states(view, obs, measuring), chosen)}


def _states(view: View, obs: Obs, rows: Tensor) -> Tensor:
    return view(Obs(obs.users[rows], 0, obs.history[rows], obs.rewards[rows], 0, obs.shown, obs.done))


def _measured(view: View, states: Tensor, chosen: Tensor) -> dict[str, float]:
    """Of the best 10 and 100 items of all: the share that is among the candidates (`recall_…`), and the mean predicted response
    of the best 10 candidates over that of the best 10 of all (`kept_at_10`)."""
    if not len(states):
        return {}
    appeal, ids = view.bias + view.curve, chosen.nonzero()[:, 0]
    scores, best = top_in_blocks(view.scale * states, view.items, appeal, 100)
    own, _ = top_in_blocks(view.scale * states, view.items[ids], appeal[ids], 10)
    found = chosen[best].float()
    return {
        "recall_at_10": float(found[:, :10].mean()),
        "recall_at_100": float(found.mean()),
        "kept_at_10": float(torch.sigmoid(own + view.offset).mean() / torch.sigmoid(scores[:, :10] + view.offset).mean()),
        "users": len(states),
    }
