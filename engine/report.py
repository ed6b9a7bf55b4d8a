"""Reports: what purification does to states of users that stage I never saw, and what a dataset looks like.

Reports may ask the synthetic world's truth; nothing that trains imports this module.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine import catalog
from engine.contracts import Data, Obs
from engine.options import build
from engine.overview import overview
from engine.purify.interest import long_run
from engine.purify.view import View
from engine.recorder import Progress
from engine.rows import last_rows
from engine.run import PARTS, is_fitted, load_data, make_world, purify
from engine.spec import RunSpec
from engine.state.encoder import popularity_level
from engine.state.stage import Stage
from engine.statistics import interval

Say = Callable[[str], None]
MEASURES = (
    "preference_r2", "category_accuracy", "retrieval", "popularity_r2", "popularity_r2_nonlinear",
    "silhouette_interest", "silhouette_popularity", "neighbourhood_overlap",
)  # fmt: skip
QUICK = tuple(name for name in MEASURES if name not in ("retrieval", "popularity_r2_nonlinear"))  # for live views
FOLDS, NEIGHBOURS, LEVELS = 5, 20, 5
HELD_OUT = 3  # every third user of a log whose people are in both worlds is kept from stage I


def purify_report(spec: RunSpec, seeds: Sequence[int] | None, say: Say = lambda _: None) -> dict[str, dict[str, Any]]:
    """{"raw", "projection", "regression", "purified", "clean"} → measure → value, or mean, low and high over seeds.

    Means come with 95 % bootstrap intervals over seeds (percentiles of 10,000 resamples); values that need the truth are None
    where it is not known. `purified` is the spec's purifier.
    """
    torch.set_num_threads(spec.threads)
    data = load_data(spec)
    tables = []
    for number, seed in enumerate(seeds or [spec.seed]):
        say(f"purify-report: seed {seed} ({number + 1} of {len(seeds or [seed])})")
        tables.append(_one_report(replace(spec, seed=seed), data, say))
    if seeds is None:
        return tables[0]
    return {row: {name: interval([table[row][name] for table in tables]) for name in MEASURES} for row in tables[0]}


@dataclass(frozen=True)
class Unseen:
    """Users whom stage I never saw, and what views make of their histories.

    users (n,) those whose history has a positive; label (n,) how popular the history's positives are; clean (n,D) the
    target from the full log. states, scores: by the view's row, (n,D) and how the state ranks items (n,I).
    """

    data: Data
    users: Tensor
    label: Tensor
    clean: Tensor
    states: dict[str, Tensor]
    scores: dict[str, Tensor]

    def measure(self, row: str) -> dict[str, float | None]:
        """`measure` of a row."""
        return measure(self.states[row], self.scores[row], self.clean, self.label, self.users, self.data)


ROWS = {"raw": "identity", "projection": "projection", "regression": "regression"}  # beside `purified` and `clean`


def _one_report(spec: RunSpec, data: Data, say: Say) -> dict[str, dict[str, float | None]]:
    unseen = unseen_states(spec, data, {**ROWS, "purified": spec.purifier}, say)
    return {row: unseen.measure(row) for row in unseen.states}


def unseen_states(spec: RunSpec, data: Data, purifiers: Mapping[str, str], say: Say = lambda _: None) -> Unseen:
    """States of users whom stage I never saw by each of `purifiers` (row → name), and the row `clean`.

    The spec's own purifier has the spec's options, others have their defaults.
    """
    data, users, full, start = unseen_users(data)
    said = ""

    def watch(what: str, done: float) -> None:
        nonlocal said
        if what != said:
            said = what
            say(f"  {what}")

    stage = Stage(data, spec.config("state"), spec.seed, watch)
    views = {}
    for row, name in purifiers.items():
        own = dict(spec.settings["purifier"]) if name == spec.purifier else {}
        config = build(catalog.find("purifiers", name).Config, own, "purifier")
        views[row] = purify(replace(spec, purifier=name, settings={**spec.settings, "purifier": asdict(config)}), stage)
    observed = Obs(users, 0, start[0], start[1], 0, torch.zeros(0, 0), torch.zeros(0))
    known = ((start[0] >= 0) & (start[1] > 0)).any(1)  # a history without a positive has no popularity to tell
    clean = long_run(stage.evidence, *full)
    states = {row: view(observed) for row, view in views.items()} | {"clean": clean}
    scores = {row: _liking(view, states[row]) for row, view in views.items()}
    factors = stage.disentangled
    scores["clean"] = clean @ factors.items.T + factors.item_bias
    return Unseen(
        data,
        users[known],
        popularity_level(data.train.items.log_popularity(), *start)[known],
        clean[known],
        {row: state[known] for row, state in states.items()},
        {row: score[known] for row, score in scores.items()},
    )


def unseen_users(data: Data) -> tuple[Data, Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(data for stage I, users (n,) it does not see, their full log, and what is known of them at a session's start).

    Where train and test logs belong to the same people, every third user is taken out of the training log.
    """
    longest = 1 << 30
    if not data.shared_users:
        users = torch.arange(data.test.users)
        return data, users, last_rows(data.test, longest), last_rows(data.test_start, longest)
    users = torch.arange(data.train.users)[::HELD_OUT]
    users = users[data.train.lengths()[users] >= 2]
    out = torch.zeros(data.train.users, dtype=torch.bool)
    out[users] = True
    full, start = last_rows(data.train, longest), last_rows(data.train_start, longest)
    kept = replace(
        data,
        train=data.train.select(~out[data.train.user]),
        train_start=data.train_start.select(~out[data.train_start.user]),
        fingerprint=f"{data.fingerprint} less every {HELD_OUT}rd user",
    )
    return kept, users, (full[0][users], full[1][users]), (start[0][users], start[1][users])


def _liking(view: View, state: Tensor) -> Tensor:
    """(n,I) predicted logits without the fitted effect of popularity."""
    return view.predict(state) - view.curve


def measure(
    state: Tensor,
    score: Tensor | None,
    clean: Tensor | None,
    label: Tensor,
    users: Tensor,
    data: Data,
    *,
    wanted: Container[str] = MEASURES,
    interest: Tensor | None = None,
) -> dict[str, float | None]:
    """The wanted measures of states (n,D) of `users` (n,) (docs/purification.md defines each); all others are None.

    Probes are ridge and logistic regression and gradient boosting, cross-fitted in FOLDS within these users. score (n,I) is
    how the state ranks items, None where nobody asks for retrieval; clean (n,·) what neighbours are compared with, None where
    it is not known; label (n,) the history's popularity; interest int64 (n,) what to take for the main interest where the
    truth is not known: it gets a silhouette, and no probe.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.metrics import silhouette_score
    from sklearn.model_selection import KFold, cross_val_predict

    truth = data.truth
    x = ((state - state.mean(0)) / state.std(0).clamp_min(1e-6)).numpy().astype(np.float64)
    folds = KFold(FOLDS, shuffle=True, random_state=0)

    def r2(model: Any, y: np.ndarray) -> float:
        predicted = cross_val_predict(model, x, y, cv=folds)
        return float(1 - ((y - predicted) ** 2).sum() / ((y - y.mean(0)) ** 2).sum())

    def silhouette(groups: np.ndarray) -> float | None:
        return float(silhouette_score(x, groups)) if 1 < len(set(groups.tolist())) < len(x) else None

    def boosted() -> float:
        return r2(HistGradientBoostingRegressor(max_iter=100, learning_rate=0.1, random_state=0), y)

    def accuracy(main: np.ndarray) -> float | None:
        if any(len(set(main[fold].tolist())) < 2 for fold, _ in folds.split(x)):
            return None  # among few users a fold may know of one interest alone
        return float((cross_val_predict(LogisticRegression(max_iter=300), x, main, cv=folds) == main).mean())

    y = label.numpy().astype(np.float64)
    level = np.searchsorted(np.quantile(y, np.linspace(0, 1, LEVELS + 1)[1:-1]), y)
    makers: dict[str, Callable[[], float | None]] = {
        "popularity_r2": lambda: r2(Ridge(30.0), y),
        "popularity_r2_nonlinear": boosted,
        "silhouette_popularity": lambda: silhouette(level),
    }
    if clean is not None:
        makers["neighbourhood_overlap"] = lambda: neighbourhood_overlap(state, clean)
    if truth is not None:
        preference, main = truth.preference[users].numpy().astype(np.float64), truth.interest[users].numpy()
        makers["preference_r2"] = lambda: r2(Ridge(30.0), preference)
        makers["category_accuracy"] = lambda: accuracy(main)
        makers["silhouette_interest"] = lambda: silhouette(main)
        if score is not None:
            makers["retrieval"] = lambda: _retrieval(score, users, data)
    elif interest is not None:
        makers["silhouette_interest"] = lambda: silhouette(interest.numpy())
    return {name: makers[name]() if name in makers and name in wanted else None for name in MEASURES}


def _retrieval(score: Tensor, users: Tensor, data: Data, half: int = 5) -> float:
    """Mean genuine preference for the `half` head and `half` tail items that are ranked first."""
    assert data.truth is not None
    head = data.train.items.head
    groups = [score.masked_fill(hidden, -torch.inf).topk(half, 1).indices for hidden in (~head, head)]
    return float(data.truth.genuine(users, torch.cat(groups, 1)).mean())


def neighbourhood_overlap(state: Tensor, clean: Tensor, count: int = NEIGHBOURS) -> float:
    """Share of a user's `count` nearest users by state that are also among the nearest by the clean target, both by cosine."""
    count = min(count, len(state) - 1)

    def near(x: Tensor) -> Tensor:
        x = F.normalize(x - x.mean(0), dim=1)
        return (x @ x.T).fill_diagonal_(-torch.inf).topk(count, 1).indices

    a, b = near(state), near(clean)
    return float((a.unsqueeze(2) == b.unsqueeze(1)).any(2).float().mean())


def inspect(spec: RunSpec, say: Say = lambda _: None) -> dict[str, Any]:
    """Numbers of a dataset's whole log, and how far the worlds that are fitted to its two logs can be trusted.

    fidelity: part → Fidelity as a dict; None where all clicks are generated. A fitted train world of a generated platform
    (world.train = fitted) is also held against the truth.
    """
    torch.set_num_threads(spec.threads)  # the worlds are then the ones that runs use
    ticker = Progress()

    def watch(stage: str, done: float) -> None:
        line = ticker.line(stage, done, 1)
        if line:
            say(line)

    data = load_data(spec, watch)
    row: dict[str, Any] = {**overview(data).row, "fidelity": None}
    for part in PARTS:
        if not is_fitted(spec, data, part):
            continue
        _, fidelity = make_world(spec, data, part, watch=watch)
        assert fidelity is not None
        row["fidelity"] = {**(row["fidelity"] or {}), part: fidelity.as_dict()}
    return row
