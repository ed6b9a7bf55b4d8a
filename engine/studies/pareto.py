"""Pareto: utility against fairness, all methods, and one λ-conditioned run against runs trained for each λ"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, pairwise
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from engine.frontier import hypervolume, hypervolume_over_seeds, nondominated
from engine.options import BadInput, option
from engine.run import evaluate_run
from engine.spec import RunSpec
from engine.statistics import change, spread
from engine.studies import compared, words
from engine.studies.ask import Arm, Ask, Kept, Report, Run, Runs, StudyConfig, digest
from engine.studies.compared import ORACLE, OURS, Found
from engine.studies.tables import COLUMNS, Cell, Column, Row, Table, listed

TITLE = "Utility against fairness"
QUESTION = (
    "Each run is a point: what it earns (R_cum, and genuine preference where the truth is known) and how fair it is (1 − AD). "
    "Which methods does no other beat in both? DSRM-HRL's manager is told λ, so one run draws a frontier of its own: how much "
    "of the plane does it dominate, beside runs that were trained for one λ each, and does AD fall as λ rises?"
)
MEASURES = ("r_cum", "ad", "utility")
GAINS = ("r_cum", "utility")  # what is set against 1 − AD
SWEEP = (0.0, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0)
APART_QUICK, APART_FULL = (0.0, 0.5, 2.0), (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)
ORIGIN = (0.0, 0.0)  # the hypervolume's reference: nothing earned, AD = 1
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-left", "triangle-right")
ONE, EACH = "one run, told λ", "a run for each λ"

ByLam = Mapping[float, Mapping[str, Mapping[int, float | None]]]  # λ → measure → seed → value


@dataclass(frozen=True)
class Config(StudyConfig):
    """`study.*` of `pareto`."""

    methods: str | None = option(None, "methods, separated by commas; none: the paper's that there are, and the references")
    lams: str | None = option(None, "λ to tell the conditioned run, with commas; none: 0 to 2, at most method.lam_max")
    trained: str | None = option(None, "λ to train a run for, with commas; none: quick 0,0.5,2, full six from 0 to 2")


def sweep(ask: Ask) -> list[float]:
    """λ that the conditioned runs are told: those of `study.lams` and those that runs were trained for. Raises BadInput."""
    most = _most(ask)
    values = _numbers(ask.config.lams, SWEEP, "study.lams", most)
    return sorted({*values, *trained(ask)})


def trained(ask: Ask) -> list[float]:
    """λ that runs were trained for. Raises BadInput."""
    return _numbers(ask.config.trained, APART_QUICK if ask.budget == "quick" else APART_FULL, "study.trained", _most(ask))


def methods(ask: Ask) -> list[Arm]:
    """All methods' arms, each with its defaults."""
    return compared.arms(ask.config.methods)


def conditioned() -> Arm:
    """DSRM-HRL as it is: its manager is told λ."""
    return Arm(OURS, "dsrm_hrl", "diffusion")


def apart(ask: Ask) -> dict[float, Arm]:
    """λ → DSRM-HRL that knows only that λ."""
    return {
        lam: Arm(f"λ = {lam:g}", "dsrm_hrl", "diffusion", {"method": {"conditioned": False, "lam": lam}})
        for lam in trained(ask)
    }


def specs(ask: Ask) -> list[RunSpec]:
    """Methods, the conditioned run, and a run for each λ, × seeds."""
    for name in ("conditioned", "lam"):
        if name in ask.settings.get("method", {}):
            raise BadInput(f"method.{name} is what this study varies: use study.lams=0,0.5,2 and study.trained=0,0.5,2")
    sweep(ask)  # refuses what is not legal before any run
    return ask.specs([*methods(ask), conditioned(), *apart(ask).values()])


def measure(ask: Ask, runs: Runs, kept: Kept) -> Any:
    """{λ: {measure: {seed: value}}} of the conditioned runs, told λ; keys are text."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for lam in sweep(ask):
        for spec in ask.repeated(conditioned()):
            run = runs[digest(spec)]
            key = {"lam": lam, "seed": spec.seed, "spec": spec.to_json(), "commit": run.commit}
            measured = kept("a run told λ", key, partial(_told, run, lam))
            for name in MEASURES:
                found.setdefault(repr(lam), {}).setdefault(name, {})[str(spec.seed)] = measured[name]
    return found


def read(ask: Ask, runs: Runs, measured: Any) -> Report:
    """The methods' points, both frontiers, their hypervolumes, and AD against λ."""
    found = compared.found(ask, methods(ask), runs, MEASURES)
    one: ByLam = {
        float(lam): {name: {int(seed): value for seed, value in own.items()} for name, own in values.items()}
        for lam, values in measured.items()
    }
    each: ByLam = {lam: {name: ask.by_seed(arm, runs, name) for name in MEASURES} for lam, arm in apart(ask).items()}
    gains = [name for name in GAINS if any(v is not None for own in found.values() for v in own[name].values())]
    told = [*compared.told_missing(), *about_methods(found, gains), *about_frontiers(one, each, gains), *about_lam(one, each)]
    return Report(
        told,
        [_methods_table(found, gains), _lam_table(one, each, gains), _volumes(one, each, gains)],
        _chart(found, one, each, gains),
        "Scatter plots of what methods earn against 1 − AD, one point a seed, with DSRM-HRL's frontier over λ as a line",
        [
            "On the frontier: in how many seeds no other method is at least as good in both and better in one; the oracle, "
            "which sees the truth, is left out of that contest. Hypervolumes are areas above nothing earned and AD = 1, of the "
            "same λs for both; means with bootstrap intervals over seeds. "
            f"{words.INTERVALS}"
        ],
    )


def about_methods(found: Found, gains: Sequence[str]) -> list[str]:
    """Which methods nothing else beats in both, judged by means over seeds."""
    told = []
    for gain in gains:
        titles = [title for title in found if title != ORACLE and _means(found[title], gain) is not None]
        if len(titles) < 2:
            continue
        kept = nondominated([_means(found[title], gain) or () for title in titles])
        winners = [title for title, own in zip(titles, kept, strict=True) if own]
        told.append(f"By means, no other is as good in {COLUMNS[gain].title} and AD as {listed(winners)} (of {len(titles)}).")
    return told


def about_frontiers(one: ByLam, each: ByLam, gains: Sequence[str]) -> list[str]:
    """One conditioned run against a run for each λ, on the λs that both have."""
    told = []
    lams = [lam for lam in one if lam in each]
    for gain in gains:
        if not lams:
            break
        by_seed = [volumes({lam: own[lam] for lam in lams}, gain) for own in (each, one)]
        moved = change(*by_seed)
        column = Column(gain, f"the hypervolume of {COLUMNS[gain].title} and 1 − AD", 1, 3)
        verdict = {1: "covers more than", -1: "covers less than", 0: "is not told apart from"}[words.verdict(moved, column)]
        told.append(
            f"One run, told {len(lams)} λs, {verdict} {len(lams)} runs trained for one each: {words.changed(moved, column)}."
        )
    return told


def about_lam(one: ByLam, each: ByLam) -> list[str]:
    """Whether AD falls as λ rises: from end to end, and at every step."""
    told = []
    for how, own in ((ONE, one), (EACH, each)):
        lams = sorted(own)
        if len(lams) < 2:
            continue
        rises, steps = steps_up(own)
        moved = change(own[lams[0]]["ad"], own[lams[-1]]["ad"])
        verdict = {1: "AD falls", -1: "AD rises", 0: "AD is not told apart"}[words.verdict(moved, COLUMNS["ad"])]
        told.append(
            f"{how[0].upper()}{how[1:]}: {verdict} between λ = {lams[0]:g} and {lams[-1]:g}, "
            f"{words.changed(moved, COLUMNS['ad'])}; over all seeds it rises in {rises} of {steps} steps of the grid."
        )
    return told


def steps_up(own: ByLam) -> tuple[int, int]:
    """(steps from one λ to the next, seed by seed, in which AD rises by more than is printed, all steps)."""
    rises = steps = 0
    for before, after in pairwise(sorted(own)):
        for seed, value in own[before]["ad"].items():
            other = own[after]["ad"].get(seed)
            if value is not None and other is not None:
                rises, steps = rises + (other - value >= 0.0005), steps + 1
    return rises, steps


def volumes(own: ByLam, gain: str) -> dict[int, float | None]:
    """Seed → hypervolume of its points over λ."""
    found: dict[int, float | None] = {}
    for seed, points in _by_seed(own, gain).items():
        found[seed] = hypervolume(points, ORIGIN)
    return found


def _by_seed(own: ByLam, gain: str) -> dict[int, list[tuple[float, float]]]:
    seeds = list(next(iter(own.values()))[gain]) if own else []
    found: dict[int, list[tuple[float, float]]] = {}
    for seed in seeds:
        points = [point for values in own.values() if (point := _point(values, gain, seed)) is not None]
        if points:
            found[seed] = points
    return found


def _point(values: Mapping[str, Mapping[int, float | None]], gain: str, seed: int) -> tuple[float, float] | None:
    earned, ad = values[gain].get(seed), values["ad"].get(seed)
    return None if earned is None or ad is None else (earned, 1 - ad)


def _means(values: Mapping[str, Mapping[int, float | None]], gain: str) -> tuple[float, float] | None:
    points = [point for seed in values[gain] if (point := _point(values, gain, seed)) is not None]
    return None if not points else (float(np.mean([x for x, _ in points])), float(np.mean([y for _, y in points])))


def _on_frontier(found: Found, gain: str) -> dict[str, str]:
    """Title → `2 of 3`: in how many seeds it is on the frontier of all but the oracle."""
    titles = [title for title in found if title != ORACLE]
    count, seeds = dict.fromkeys(titles, 0), dict.fromkeys(titles, 0)
    for seed in dict.fromkeys(seed for title in titles for seed in found[title][gain]):
        points = {title: point for title in titles if (point := _point(found[title], gain, seed)) is not None}
        for title, own in zip(points, nondominated(list(points.values())), strict=True):
            count[title], seeds[title] = count[title] + bool(own), seeds[title] + 1
    return {title: f"{count[title]} of {seeds[title]}" for title in titles}


def _methods_table(found: Found, gains: Sequence[str]) -> Table:
    frontier = {gain: _on_frontier(found, gain) for gain in gains}
    columns = [Column(name, COLUMNS[name].title, COLUMNS[name].better, 3) for name in (*gains, "ad")]
    columns += [Column(f"frontier_{gain}", f"On the frontier, {COLUMNS[gain].title}") for gain in gains]
    rows = []
    for title, own in found.items():
        cells: dict[str, Cell] = {name: spread(list(own[name].values())) for name in (*gains, "ad")}
        rows.append(Row(title, cells | {f"frontier_{gain}": frontier[gain].get(title, "") for gain in gains}, title == ORACLE))
    return Table("", "All methods", "Method", columns, rows)


def _lam_table(one: ByLam, each: ByLam, gains: Sequence[str]) -> Table:
    names = (*gains, "ad")
    columns = [
        Column(f"{name}_{key}", f"{COLUMNS[name].title}, {how}", COLUMNS[name].better, 3)
        for key, how in (("one", ONE), ("each", EACH))
        for name in names
    ]
    rows = []
    for lam in sorted({*one, *each}):
        cells: dict[str, Cell] = {}
        for key, own in (("one", one), ("each", each)):
            if lam in own:
                cells |= {f"{name}_{key}": spread(list(own[lam][name].values())) for name in names}
        rows.append(Row(f"{lam:g}", cells, True))
    return Table("lam", f"{OURS} over λ: {ONE}, and {EACH}", "λ", columns, rows)


def _volumes(one: ByLam, each: ByLam, gains: Sequence[str]) -> Table:
    lams = [lam for lam in one if lam in each]
    columns = [Column(gain, f"{COLUMNS[gain].title} × (1 − AD)", 1, 3, span=True) for gain in gains]
    rows = []
    for title, own in ((ONE, one), (EACH, each)):
        cells: dict[str, Cell] = {}
        for gain in gains:
            points = _by_seed({lam: own[lam] for lam in lams}, gain)
            cells[gain] = hypervolume_over_seeds(list(points.values()), ORIGIN)
        rows.append(Row(title, cells, False))
    return Table("hypervolume", f"Hypervolumes of {len(lams)} λs", OURS, columns, rows)


def _numbers(text: str | None, default: Sequence[float], name: str, most: float) -> list[float]:
    if text is None:
        return [value for value in default if value <= most]
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise BadInput(f"{name} = {text!r} is not legal: it must be numbers with commas, as in 0,0.5,2") from None
    for value in values:
        if not 0 <= value <= most:
            raise BadInput(f"{name} = {value:g} is not legal: it must be from 0 to method.lam_max = {most:g}")
    return sorted(set(values))


def _most(ask: Ask) -> float:
    return float(ask.spec(conditioned()).settings["method"]["lam_max"])


def _told(run: Run, lam: float) -> dict[str, Any]:
    found = evaluate_run(run.folder, episodes=run.spec.evaluation_episodes, lam=lam)
    return {name: found.get(name) for name in MEASURES}


def marks(titles: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and shape of each method's points: references share a colour, so among them it is the shape that tells."""
    from engine.studies import draw

    shapes = cycle(SHAPES)
    return {title: (draw.METHOD_COLOURS.get(title, draw.MUTED), next(shapes)) for title in titles}


def _chart(found: Found, one: ByLam, each: ByLam, gains: Sequence[str]) -> alt.TopLevelMixin:
    from engine.studies import draw

    drawn = marks(list(found))
    palette = alt.Scale(domain=list(drawn), range=[colour for colour, _ in drawn.values()])
    shapes = alt.Scale(domain=list(drawn), range=[shape for _, shape in drawn.values()])

    def panel(gain: str, last: bool) -> Any:
        points = pd.DataFrame(
            [
                {"method": title, "seed": seed, "x": point[1], "y": point[0]}
                for title, own in found.items()
                for seed in own[gain]
                if (point := _point(own, gain, seed)) is not None
            ],
            columns=["method", "seed", "x", "y"],
        )
        lines = pd.DataFrame(
            [
                {"series": how, "lam": lam, "x": point[1], "y": point[0]}
                for how, own in ((ONE, one), (EACH, each))
                for lam in sorted(own)
                if (point := _means(own[lam], gain)) is not None
            ],
            columns=["series", "lam", "x", "y"],
        )
        legend = alt.Legend(title=None, symbolLimit=40) if last else None
        x = alt.X("x:Q", title="1 − AD ↑", scale=alt.Scale(zero=False, padding=12), axis=alt.Axis(grid=False, tickCount=5))
        title = f"{COLUMNS[gain].heading}, {COLUMNS[gain].unit}"
        y = alt.Y("y:Q", title=title, scale=alt.Scale(zero=False, padding=12), axis=alt.Axis(gridColor=draw.GRID, tickCount=5))
        dots = alt.Chart(points).mark_point(filled=True, size=70, opacity=0.9)
        dots = dots.encode(
            x=x, y=y, color=alt.Color("method:N", scale=palette, legend=legend),
            shape=alt.Shape("method:N", scale=shapes, legend=legend), tooltip=["method:N", "seed:Q", "x:Q", "y:Q"],
        )  # fmt: skip
        dash = alt.Scale(domain=[ONE, EACH], range=[[1, 0], [5, 4]])
        curves = alt.Chart(lines).mark_line(color=draw.BLUE, strokeWidth=2, point={"size": 22, "color": draw.BLUE})
        curves = curves.encode(
            x=x, y=y, order="lam:Q", tooltip=["series:N", "lam:Q", "x:Q", "y:Q"],
            strokeDash=alt.StrokeDash("series:N", scale=dash, legend=alt.Legend(title="DSRM-HRL over λ") if last else None),
        )  # fmt: skip
        return alt.layer(curves, dots).properties(width=330, height=300)

    panels = [panel(gain, gain == gains[-1]) for gain in gains]
    return draw.finished(
        alt.hconcat(*panels, spacing=50).resolve_scale(color="independent", shape="independent", strokeDash="independent"),
        "What methods earn, and how fair they are",
        "One point a seed; right and up is better. Line: DSRM-HRL's means over λ, one run told λ, and a run for each (dashed)",
    )
