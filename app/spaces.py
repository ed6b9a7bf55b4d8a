"""The test users of a finished run in three spaces, as tables for pictures and scores. Nothing here touches Streamlit.

Raw is the paper's s_t, purified what the run's view makes of the same history, clean the true preference where it is known.
What a number of reverse steps makes of all users takes some hundredths of a second, and is kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from app import replay, words
from app.charts import colours
from app.charts.spaces import OTHERS, Domain, Hue
from app.replay import Plane, Theatre

if TYPE_CHECKING:
    from torch import Tensor

    from engine.spec import RunSpec

MOST = 3000  # points of linked views
USUAL = 1000
SIZES = (300, USUAL, 2000, MOST)
KEPT = 128  # step counts whose states are kept
FRAMES = 20  # pictures of an animation
AHEAD = 50  # reverse steps S up to which all stops of the slider are worked out ahead
TITLES = {"raw": "Raw", "purified": "Purified", "clean": "Clean"}
INTEREST, POPULARITY, CONFORMITY, ACTIVITY = "Interest", "Popularity", "Conformity", "Activity"
PCA, UMAP, TSNE = "PCA", "UMAP", "t-SNE"
PROJECTIONS = {PCA: "", UMAP: "umap", TSNE: "tsne"}  # title → kind of engine.maps
# measure → (title, better, what it is)
SCORES: dict[str, tuple[str, int, str]] = {
    "popularity_r2": ("Popularity R² ↓", -1, "How well a straight line reads off the state how popular the history's items "
                      "are: 1 is perfectly, 0 or less is not at all. A pure state does not tell."),
    "popularity_r2_nonlinear": ("… by boosted trees ↓", -1, "The same, read by gradient boosting, which also finds curved "
                                "traces."),
    "preference_r2": ("Preference R² ↑", 1, "How well a straight line reads off the state what the user truly prefers."),
    "category_accuracy": ("Category accuracy ↑", 1, "How often a linear classifier names the true main interest."),
    "silhouette_interest": ("Silhouette by interest ↑", 1, "Whether users of one interest stand together: −1 to 1."),
    "silhouette_popularity": ("Silhouette by popularity ↓", -1, "Whether users of alike popularity stand together."),
    "neighbourhood_overlap": ("Neighbours shared with clean ↑", 1, "Share of a user's 20 nearest users that are also nearest "
                              "by the true preference."),
}  # fmt: skip
SLOW = "popularity_r2_nonlinear"


class Spaces:
    """At most `count` test users of a loaded run. Safe to share between sessions of the browser.

    purifier: its name; most: its reverse steps S, None where it has none. met: whether training
    has met these users. about: a row a user, with what is known of them.
    """

    def __init__(self, theatre: Theatre, count: int) -> None:
        from engine import maps

        self._theatre, self._lock = theatre, threading.Lock()
        with theatre.lent() as trained:
            self._data = trained.data
            self.people = maps.people(trained, count)
            self._still = {space: maps.states(trained, self.people, space) for space in ("raw", "clean")}
        self.purifier, self.met = trained.spec.purifier, trained.data.shared_users
        self.most = replay.controls(trained.spec).steps
        self.known = self._data.truth is not None
        self.about = self._about(trained.items.tag_names)
        self._moving: OrderedDict[int | None, Tensor] = OrderedDict()
        self._scores: dict[tuple[str, int | None, bool], dict[str, float | None]] = {}
        self._planes: dict[str, tuple[Plane, np.ndarray]] = {}
        self._ahead = False

    def __len__(self) -> int:
        return len(self.people)

    @property
    def spaces(self) -> list[str]:
        """Those that there are, in their order."""
        return [space for space in TITLES if space != "clean" or self.known]

    def state(self, space: str, steps: int | None = None) -> Tensor:
        """(n,·) where the users stand; steps: reverse steps of `purified`, None for all."""
        if space != "purified":
            found = self._still[space]
            assert found is not None, "nobody asks for the truth where it is not known"
            return found
        steps = self.most if steps is None else steps
        with self._lock:
            if steps in self._moving:
                self._moving.move_to_end(steps)
                return self._moving[steps]
        from engine import maps

        with self._theatre.lent() as trained:
            state = maps.states(trained, self.people, "purified", steps)
        assert state is not None
        with self._lock:
            self._moving[steps] = state
            if len(self._moving) > KEPT:
                self._moving.popitem(last=False)
        return state

    def look_ahead(self) -> threading.Thread | None:
        """Work out in the background, once, what the slider's stops show, so that moving it waits for nothing. None where
        there is nothing (more) to do, or so many steps that it would keep others waiting."""
        if self.most is None or self.most > AHEAD or self._ahead:
            return None
        self._ahead = True
        ahead = stops(self.most)

        def work() -> None:
            for stop in ahead:
                self.state("purified", stop)

        thread = threading.Thread(target=work, name="look ahead", daemon=True)
        thread.start()
        return thread

    def flat(self, steps: int | None = None) -> dict[str, np.ndarray]:
        """Space → (n,2): principal components. The plane of `purified` is that of all steps, whatever `steps`; the others are
        turned, and mirrored if need be, to lie as it does."""
        made = {}
        for space in self.spaces:
            plane, turn = self._plane(space)
            made[space] = plane.at(self.state(space, steps).numpy()) @ turn
        return made

    def shares(self) -> dict[str, float]:
        """Space → the share of its variance that the picture shows."""
        found = {}
        for space in self.spaces:
            state = self.state(space).numpy()
            seen = self._plane(space)[0].at(state).var(0).sum()
            found[space] = float(seen / max(state.var(0).sum(), 1e-12))
        return found

    def domains(self) -> dict[str, Domain]:
        """Space → the area that its picture shows: for `purified`, what holds both ends of the slider."""
        ends = [self.flat()] if self.most is None else [self.flat(), self.flat(0), self.flat(1), self.flat(self.most // 2)]
        return {space: domain(np.concatenate([end[space] for end in ends])) for space in self.spaces}

    def scores(self, space: str, steps: int | None = None, *, slow: bool = False) -> dict[str, float | None]:
        """measure → value for one space; the slow probe alone where `slow`. None where it cannot be known."""
        from engine.report import QUICK, measure

        key = (space, steps if space == "purified" else None, slow)
        if key not in self._scores:
            of, truth = self.people, self._data.truth
            clean = None if truth is None else truth.preference[of.users]
            wanted = (SLOW,) if slow else QUICK
            found = measure(
                self.state(space, steps), None, clean, of.popularity, of.users, self._data, wanted=wanted, interest=of.interest
            )
            self._scores[key] = {name: found[name] for name in wanted}
        return self._scores[key]

    def _about(self, names: Sequence[str]) -> pd.DataFrame:
        of = self.people
        interest = np.array([names[tag] for tag in of.interest.tolist()])
        table = pd.DataFrame(
            {
                "user": of.users.numpy(),
                "interest": interest,
                "popularity": of.popularity.numpy().round(3),
                "rate": of.rate.numpy().round(3),
                "count": of.count.numpy(),
            }
        )
        own = frequent(interest)
        table["kind"] = np.where(np.isin(interest, own), interest, OTHERS)
        if of.conformity is not None:
            table["conformity"] = of.conformity.numpy().round(3)
        return table

    def _plane(self, space: str) -> tuple[Plane, np.ndarray]:
        """The plane of a space, and how to turn it."""
        if space not in self._planes:
            state = self.state(space).numpy()
            plane = replay.plane(state)
            turn = np.eye(2)
            if space != "purified":
                turn = turned(plane.at(state), self._plane("purified")[0].at(self.state("purified").numpy()))
            self._planes[space] = plane, turn
        return self._planes[space]


def turned(points: np.ndarray, like: np.ndarray) -> np.ndarray:
    """(2,2) the rotation, with a reflection if need be, after which points (n,2) lie as close as can be to `like` (n,2).

    Orthogonal Procrustes; neither axes nor their signs mean anything in these maps, and distances stay what they are.
    """
    left, _, right = np.linalg.svd((points - points.mean(0)).T @ (like - like.mean(0)))
    turn: np.ndarray = left @ right
    return turn


def alike(flat: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Maps (n,2) of all spaces, turned to lie as that of `purified` does."""
    like = flat["purified"]
    return {space: xy if space == "purified" else (xy - xy.mean(0)) @ turned(xy, like) for space, xy in flat.items()}


def domain(points: np.ndarray) -> Domain:
    """What holds all points (n,2), with a margin."""
    low, high = points.min(0), points.max(0)
    pad = 0.05 * np.maximum(high - low, 1e-6)
    (left, bottom), (right, top) = low - pad, high + pad
    return round(float(left), 4), round(float(right), 4), round(float(bottom), 4), round(float(top), 4)


def frame(about: pd.DataFrame, flat: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """A row a user: what is known of them, and `{space}_x`, `{space}_y` of every space."""
    made = about.head(len(next(iter(flat.values())))).copy()
    for space, points in flat.items():
        made[f"{space}_x"], made[f"{space}_y"] = points[:, 0].round(4), points[:, 1].round(4)
    return made


def frequent(interest: np.ndarray) -> list[str]:
    """The kinds that get a colour of their own, in the order of their names; numbers in them count as numbers."""
    names, counts = np.unique(interest, return_counts=True)
    first = names[np.argsort(-counts, kind="stable")][: len(colours.INTERESTS)]
    return sorted(map(str, first), key=natural)


def natural(name: str) -> tuple[str, int]:
    """`interest 10` comes after `interest 9`."""
    head, _, tail = name.rpartition(" ")
    return (head, int(tail)) if tail.isdecimal() else (name, 0)


def hue(name: str, about: pd.DataFrame) -> Hue:
    """What a colour says, by the name of the choice."""
    if name == INTEREST:
        kinds = set(about["kind"])
        return Hue("kind", INTEREST, (*sorted(kinds - {OTHERS}, key=natural), *([OTHERS] if OTHERS in kinds else [])))
    if name == POPULARITY:
        return Hue("popularity", "popularity of what they liked (standard deviations)")
    if name == CONFORMITY:
        return Hue("conformity", "conformity (true weight of popularity)")
    if about["count"].nunique() > 1:
        return Hue("count", "interactions known")
    return Hue("rate", "share of responses in the history")


def colourings(about: pd.DataFrame) -> list[str]:
    """What can be coloured by; first what purification is about."""
    return [name for name in (POPULARITY, INTEREST, CONFORMITY, ACTIVITY) if name != CONFORMITY or "conformity" in about]


def sizes(users: int) -> list[int]:
    """How many users may be shown, of so many that there are."""
    most = min(users, MOST)
    return [*(size for size in SIZES if size < most), most]


def stops(most: int) -> list[int]:
    """The step counts that an animation shows: all, or some twenty where there are more."""
    if most <= FRAMES:
        return list(range(most + 1))
    return sorted({round(place * most / FRAMES) for place in range(FRAMES + 1)})


def step_title(purifier: str, steps: int | None, most: int | None) -> str:
    """What the picture of purified states is called. steps: None for all."""
    if most is None:
        return "Not purified" if purifier == "identity" else f"Purified by {words.purifier_title(purifier)}"
    steps = most if steps is None else steps
    if steps == 0:
        return f"Encoded, not denoised (step 0 of {most})"
    return f"Purified, step {steps} of {most}" if steps < most else f"Purified, all {words.count(most, 'step')}"


def score_rows(columns: Mapping[str, Mapping[str, float | None]], measures: Sequence[str]) -> pd.DataFrame:
    """A row a measure, a column a space, for people: three decimals, the better of raw and purified in bold."""
    rows: list[dict[str, Any]] = []
    for name in measures:
        title, better, _ = SCORES[name]
        values = {column: own.get(name) for column, own in columns.items()}
        texts = {column: "–" if value is None else f"{value:.3f}".replace("-", "−") for column, value in values.items()}
        first, second, *_ = [*values, "", ""]
        one, other = values.get(first), values.get(second)
        if one is not None and other is not None and texts[first] != texts[second]:
            best = first if better * (one - other) > 0 else second
            texts[best] = f"**{texts[best]}**"
        rows.append({"Score": title, **texts})
    return pd.DataFrame(rows)


def trap(spec: RunSpec) -> bool:
    """Whether a run's purifier was trained by the paper's own loss, which returns its input."""
    return bool(spec.settings["purifier"].get("target") == "observed")


def twin(run: int, specs: Mapping[int, RunSpec]) -> int | None:
    """The run by the paper's own loss to show instead of a run: of the same users, if possible of the same seed, the newest.
    specs: those of all finished runs."""
    own = specs[run]
    alike = [
        number
        for number, spec in specs.items()
        if trap(spec) and spec.dataset == own.dataset and spec.settings["dataset"] == own.settings["dataset"]
    ]
    return max(alike, key=lambda number: (specs[number].seed == own.seed, number), default=None)
