"""Figure 4: raw, purified and clean states in two dimensions, coloured by interest and by popularity"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from engine import catalog
from engine.contracts import Data
from engine.options import Config as BaseConfig
from engine.options import option
from engine.report import LEVELS, MEASURES, Unseen, unseen_states
from engine.run import load_data
from engine.spec import RunSpec
from engine.statistics import Spread, spread
from engine.studies import draw
from engine.studies.ask import Arm, Ask, Kept, Report, Runs
from engine.studies.tables import COLUMNS, Row, Table

TITLE = "Figure 4. What purification does to the space of states"
QUESTION = (
    "The paper shows t-SNE pictures in which raw states cluster by popularity and purified states by interest. Pictures "
    "persuade, so here the same users' states are also measured: probes of popularity and interest, silhouettes, and the share "
    "of neighbours that are neighbours by the clean target too. Stage I never saw any of these users; no policy is trained."
)
VIEWS = ("raw", "purified", "clean")
DRAWN = 420  # users in a picture
GROUPS = 6  # interests with a colour of their own
CLUSTERED = 0.05  # silhouettes from here on are called clusters
INTERESTS = (draw.BLUE, draw.VERMILION, draw.GREEN, draw.ORANGE, draw.SKY, draw.PINK)
POPULARITY = ("#C65102", "#F0A35E", "#A9B0B4", "#6FA8D6", "#0B4F8A")  # least to most popular


@dataclass(frozen=True)
class Config(BaseConfig):
    """`study.*` of `figure4`; it makes no runs."""

    purifier: str = option("diffusion", "what makes the purified states")
    projection: str = option("pca", "how states are brought to two dimensions; umap takes longer", choices=("pca", "umap"))


def specs(ask: Ask) -> list[RunSpec]:
    """None: stage I is all that is looked at."""
    ask.check_used([_spec(ask)])
    return []


def measure(ask: Ask, runs: Runs, kept: Kept) -> Any:
    """{"scores": {view: {measure: [a value a seed]}}, "points": the first seed's pictures, see `_points`}."""
    scores: dict[str, dict[str, list[float | None]]] = {view: {name: [] for name in MEASURES} for view in VIEWS}
    points: Any = None
    for seed in ask.seeds:
        spec = replace(_spec(ask), seed=seed)
        first = seed == ask.seeds[0]
        key = {"seed": seed, "spec": spec.to_json(), "projection": ask.config.projection if first else ""}
        found = kept("states", key, partial(_states, spec, ask.config.projection if first else None))
        for view in VIEWS:
            for name in MEASURES:
                scores[view][name].append(found["scores"][view][name])
        points = points or found["points"]
    return {"scores": scores, "points": points}


def read(ask: Ask, runs: Runs, measured: Any) -> Report:
    """The pictures with the scores of each, and what changes from raw to purified to clean."""
    scores = {view: {name: spread(own) for name, own in values.items()} for view, values in measured["scores"].items()}
    known = [name for name in MEASURES if any(own[name] is not None for own in scores.values())]
    table = Table(
        "",
        "States of unseen users",
        "States",
        [COLUMNS[name] for name in known],
        [Row(view, dict(scores[view]), reference=view == "clean") for view in VIEWS],
    )
    points = measured["points"]
    note = (
        "`raw` is the paper's s_t, the mean vector of the history's positives; `clean` the target of purification, from the "
        f"user's full log. {'PCA' if ask.config.projection == 'pca' else 'UMAP'} of standardised states, seed {ask.seeds[0]}; "
        f"{points['meaning']}. Bold: the better of raw and purified."
    )
    alt_text = "Six scatter plots: raw, purified and clean states, coloured by interest and by how popular the history is"
    return Report(findings(scores), [table], _chart(points, scores, ask.config.projection), alt_text, [note])


def findings(scores: dict[str, dict[str, Spread | None]]) -> list[str]:
    """Sentences from view → measure → spread."""

    def mean(view: str, name: str) -> float | None:
        own = scores[view].get(name)
        return None if own is None else own.mean

    told = []
    raw, pure = mean("raw", "popularity_r2"), mean("purified", "popularity_r2")
    raw_bent, pure_bent = mean("raw", "popularity_r2_nonlinear"), mean("purified", "popularity_r2_nonlinear")
    if raw is not None and pure is not None:
        verb = "falls" if pure < raw - 0.02 else "rises" if pure > raw + 0.02 else "hardly moves"
        bent = "" if raw_bent is None or pure_bent is None else f" (non-linear probe: {raw_bent:.2f} to {pure_bent:.2f})"
        told.append(f"How much popularity a probe reads from the state {verb}: R² {raw:.2f} raw, {pure:.2f} purified{bent}.")
    for name, what in (("category_accuracy", "the main interest"), ("preference_r2", "the true preference")):
        a, b, top = (mean(view, name) for view in VIEWS)
        if a is None or b is None or top is None:
            continue
        verb = "more" if b > a + 0.01 else "less" if b < a - 0.01 else "about as much"
        gap = (
            f"; that is {100 * (b - a) / (top - a):.0f} % of the way to the clean states ({top:.2f})" if top > a + 0.01 else ""
        )
        told.append(f"Purified states tell {verb} of {what}: {COLUMNS[name].title} {a:.2f} raw, {b:.2f} purified{gap}.")
    by_popularity = {view: mean(view, "silhouette_popularity") for view in VIEWS}
    by_interest = {view: mean(view, "silhouette_interest") for view in VIEWS}
    known = {view: value for view, value in by_popularity.items() if value is not None}
    if "raw" in known and "purified" in known:
        told.append(_clusters("popularity", known["raw"], known["purified"], "raw"))
    if by_interest["raw"] is not None and by_interest["purified"] is not None:
        told.append(_clusters("interest", by_interest["raw"], by_interest["purified"], "purified"))
    return [sentence.replace(" -", " −") for sentence in told]


def _clusters(label: str, raw: float, pure: float, claimed: str) -> str:
    """The paper's pictures claim clusters by popularity in raw states and by interest in purified ones."""
    own = raw if claimed == "raw" else pure
    so = "as the paper's picture has it" if own >= CLUSTERED else "unlike the paper's picture"
    verb = "cluster" if own >= CLUSTERED else "do not cluster"
    return (
        f"By their silhouettes (raw {raw:.2f}, purified {pure:.2f}; 1 is separate clusters, 0 none), {claimed} states {verb} "
        f"by {label}, {so}."
    )


def _spec(ask: Ask) -> RunSpec:
    catalog.find("purifiers", ask.config.purifier)
    no_session = {"world": {"slate": 1, "repeats": True}}  # is played, so a catalogue of any size will do
    return ask.spec(Arm("states", "random", ask.config.purifier, no_session))


def _states(spec: RunSpec, projection: str | None) -> Any:
    torch.set_num_threads(spec.threads)
    data = load_data(spec)
    unseen = unseen_states(spec, data, {"raw": "identity", "purified": spec.purifier})
    scores = {view: unseen.measure(view) for view in VIEWS}
    return {"scores": scores, "points": None if projection is None else _points(unseen, data, projection)}


def _points(unseen: Unseen, data: Data, projection: str) -> dict[str, Any]:
    """{"places": view → [x, y] of some users, "interest": group of each, "level": fifth of popularity, "groups", "meaning"}."""
    interest, names, meaning = interests(data, unseen.users)
    label = unseen.label.numpy().astype(np.float64)
    level = np.searchsorted(np.quantile(label, np.linspace(0, 1, LEVELS + 1)[1:-1]), label)
    some = torch.randperm(len(unseen.users), generator=torch.Generator().manual_seed(0))[:DRAWN]
    places = {view: _flat(unseen.states[view], projection)[some.numpy()].round(3).tolist() for view in VIEWS}
    counts = torch.bincount(interest, minlength=len(names))
    common = counts.argsort(descending=True, stable=True)[:GROUPS].tolist()
    group = [common.index(int(own)) if int(own) in common else -1 for own in interest[some]]
    return {
        "places": places,
        "interest": group,
        "level": level[some.numpy()].tolist(),
        "groups": [names[own] for own in common],
        "meaning": meaning,
    }


def interests(data: Data, users: Tensor) -> tuple[Tensor, list[str], str]:
    """Each user's interest, names of interests, and what is meant: the truth where it is known, else the tag that the user's
    positive responses hold most above the average user's."""
    if data.truth is not None:
        names = [f"interest {place + 1}" for place in range(int(data.truth.interest.max()) + 1)]
        return data.truth.interest[users], names, "interest is the user's true main category"
    log = data.train if data.shared_users else data.test
    names = list(data.train.items.tag_names)
    counts = torch.zeros(log.users, len(names))
    counts.index_put_((log.user, data.train.items.main_tag[log.item]), log.reward, accumulate=True)
    share = counts / counts.sum(1, keepdim=True).clamp_min(1)
    meaning = "interest is the first tag that a user's positive responses hold most above the average"
    return (share - share.mean(0)).argmax(1)[users], names, meaning


def _flat(state: Tensor, projection: str) -> np.ndarray:
    """(n,2) of (n,D), standardised first; PCA's signs are fixed so that equal states give equal pictures."""
    x = ((state - state.mean(0)) / state.std(0).clamp_min(1e-6)).numpy().astype(np.float64)
    if projection == "umap":
        from umap import UMAP

        place = UMAP(random_state=0, n_jobs=1).fit_transform(x)
        return np.asarray(place, np.float64)
    _, _, directions = np.linalg.svd(x - x.mean(0), full_matrices=False)
    signs = np.sign(directions[:2][np.arange(2), np.abs(directions[:2]).argmax(1)])
    return np.asarray(x @ (directions[:2] * signs[:, None]).T)


def _chart(points: dict[str, Any], scores: dict[str, dict[str, Spread | None]], projection: str) -> alt.TopLevelMixin:
    frames = []
    names = [*points["groups"], "other"]
    levels = ["least popular", *[str(place + 1) for place in range(1, LEVELS - 1)], "most popular"]
    for view in VIEWS:
        place = np.array(points["places"][view])
        frames.append(
            pd.DataFrame(
                {
                    "view": view,
                    "x": place[:, 0],
                    "y": place[:, 1],
                    "interest": [names[own] for own in points["interest"]],
                    "popularity": [levels[own] for own in points["level"]],
                }
            )
        )
    rows = []
    for field, order, colours, shown, legend in (
        (
            "interest",
            names,
            [*INTERESTS[: len(names) - 1], "#C9CFD2"],
            ("category_accuracy", "silhouette_interest"),
            "Interest",
        ),
        ("popularity", levels, list(POPULARITY), ("popularity_r2", "silhouette_popularity"), "Popularity of the history"),
    ):
        color = alt.Color(
            f"{field}:N",
            scale=alt.Scale(domain=order, range=colours),
            legend=alt.Legend(title=legend, orient="right", symbolSize=90, symbolOpacity=1),
        )
        panels = []
        for view, frame in zip(VIEWS, frames, strict=True):
            told = [(COLUMNS[name], own) for name in shown if (own := scores[view].get(name)) is not None]
            under = [f"{column.title}: {column.text(own.mean)}" for column, own in told] or " "
            hidden = alt.Axis(labels=False, ticks=False, grid=False, domain=False)
            fit = alt.Scale(zero=False, nice=False, padding=6)
            panel = (
                alt.Chart(frame[["x", "y", field]])
                .mark_circle(size=22, opacity=0.85)
                .encode(
                    x=alt.X("x:Q", axis=hidden, scale=fit, title=under),
                    y=alt.Y("y:Q", axis=hidden, scale=fit, title=None),
                    color=color,
                    tooltip=[f"{field}:N"],
                )
                .properties(width=235, height=205, title=alt.Title(f"{view} states, by {field}", anchor="start", offset=5))
            )
            panels.append(panel)
        rows.append(alt.hconcat(*panels, spacing=22))
    chart = alt.vconcat(*rows, spacing=20).resolve_scale(color="independent")
    how = "PCA" if projection == "pca" else "UMAP"
    return draw.finished(
        chart,
        "States of users whom stage I never saw",
        f"One dot a user, {how} of each kind of state. Below: scores over all users and seeds",
    )
