"""Sensitivity: do the conclusions hold in other worlds: another bound, slate, head share or history?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import altair as alt

from engine.methods import METHODS
from engine.options import option
from engine.spec import RunSpec
from engine.statistics import Change, Spread, change, spread
from engine.studies import compared, draw, words
from engine.studies.ask import Arm, Ask, Kept, Report, Runs, StudyConfig, chosen
from engine.studies.compared import OURS, Found
from engine.studies.tables import COLUMNS, Cell, Column, Row, Table, listed
from engine.world.simulator import least_uneven

TITLE = "Sensitivity. Do the conclusions hold in other worlds?"
QUESTION = (
    "One condition at a time is changed from the defaults: the bound on a slate's AD beyond which users lose patience, the "
    "slate's size, the share of the items that counts as head, and how many past interactions a state is made of. In each the "
    "same methods are trained anew, with the settings they have for the defaults: none is tuned for a condition. Four "
    "conclusions are put to the test: DSRM-HRL earns more than each of the other learners compared; it is liked more (utility, "
    "where the truth is known); its AD is 0.05 or less; and purified states earn it more than raw ones."
)
NAMES = ("len", "r_cum", "ad", "utility")
BALANCE = 0.05  # an AD up to which exposure counts as balanced
DEFAULT = "defaults"
METHODS_COMPARED = ("a2c", "bcq", "dnair", "sac4ir", "dsrm_hrl", "balanced")
RAW = Arm(f"{OURS}, raw states", "dsrm_hrl", "identity")
Condition = Mapping[str, Mapping[str, Any]]
CONDITIONS: Mapping[str, tuple[str, Mapping[str, Condition]]] = {  # name in --set → title, condition → settings
    "ad_bound": ("AD bound", {f"bound {bound}": {"world": {"ad_bound": bound}} for bound in (0.1, 0.2, 0.4, 0.5)}),
    "slate": ("slate", {"slate of 6": {"world": {"slate": 6}}}),
    "head_share": ("head share", {"head 7 %": {"world": {"head_share": 0.07}}}),
    "history": ("history", {f"history {rows}": {"state": {"history": rows}} for rows in (15, 60, 240)}),
}


@dataclass(frozen=True)
class Config(StudyConfig):
    """`study.*` of `sensitivity`."""

    methods: str | None = option(None, "methods, separated by commas; none: dsrm_hrl, four baselines and balanced")
    vary: str | None = option(None, f"what is changed, separated by commas; none: {', '.join(CONDITIONS)}")


def conditions(ask: Ask) -> dict[str, Condition]:
    """Condition → settings, the defaults first, without those that `same` leaves out. Raises BadInput."""
    left_out = same(ask)
    return {title: settings for title, settings in _wanted_conditions(ask).items() if title not in left_out}


def same(ask: Ask) -> dict[str, str]:
    """Conditions that are another one by another name → that one: bounds between which no slate's AD lies."""
    first: dict[str, str] = {}
    found = {}
    for title, settings in _wanted_conditions(ask).items():
        spec = ask.spec(Arm("", "random", "identity", settings))
        world = dict(spec.settings["world"])
        rule = least_uneven(world.pop("ad_bound"), world["slate"])
        known = first.setdefault(json.dumps([rule, world, spec.settings["state"]], sort_keys=True), title)
        if known != title:
            found[title] = known
    return found


def _wanted_conditions(ask: Ask) -> dict[str, Condition]:
    names = chosen(ask.config.vary, CONDITIONS, CONDITIONS, "study.vary")
    return {DEFAULT: {}} | {title: settings for name in names for title, settings in CONDITIONS[name][1].items()}


def arms(ask: Ask) -> dict[str, list[Arm]]:
    """Condition → arms: the methods, and DSRM-HRL with raw states."""
    wanted = ask.config.methods or ",".join(name for name in METHODS_COMPARED if name in METHODS)
    own = compared.arms(wanted, references=False)
    if any(arm.title == OURS for arm in own):
        own.insert([arm.title for arm in own].index(OURS) + 1, RAW)
    return {title: [replace(arm, settings=settings) for arm in own] for title, settings in conditions(ask).items()}


def specs(ask: Ask) -> list[RunSpec]:
    """Conditions × methods × seeds."""
    return ask.specs([arm for own in arms(ask).values() for arm in own])


def measure(ask: Ask, runs: Runs, kept: Kept) -> Any:
    """Nothing beside the runs."""
    return None


def read(ask: Ask, runs: Runs, measured: Any) -> Report:
    """A table of each measure by condition, the conclusions by condition, and in how many they hold."""
    found = {title: compared.found(ask, own, runs, NAMES) for title, own in arms(ask).items()}
    rows = [arm.title for arm in next(iter(arms(ask).values()))]
    learners = [arm.title for arm in next(iter(arms(ask).values())) if compared.learner(arm.method)]
    others = [title for title in learners if title not in (OURS, RAW.title)]
    known = [
        name for name in NAMES
        if any(v is not None for own in found.values() for values in own.values() for v in values[name].values())
    ]  # fmt: skip
    verdicts = {title: conclusions(own, others, known) for title, own in found.items()} if OURS in rows else {}
    tables = [_verdicts(verdicts)] if verdicts else []
    columns = [Column(condition, condition) for condition in found]
    for name in known:
        better, digits = COLUMNS[name].better, COLUMNS[name].digits
        made = [
            Row(title, {where: spread(list(own[title][name].values())) for where, own in found.items()}, title not in learners)
            for title in rows
        ]
        own_columns = [replace(column, better=better, digits=digits) for column in columns]
        tables.append(Table(name, f"{COLUMNS[name].title}, {_wanted(better)}", "Method", own_columns, made))
    if not verdicts:
        tables[0] = replace(tables[0], name="")
    spreads = {
        condition: {title: {name: spread(list(own[title][name].values())) for name in known} for title in rows}
        for condition, own in found.items()
    }
    return Report(
        findings(verdicts) or ["Nothing was put to the test: dsrm_hrl is not among the methods."],
        tables,
        _chart(spreads, known),
        "For each condition and measure one dot a method: its mean over seeds",
        [
            "Means ± standard deviations (ddof 0) over seeds. Another bound, slate or head share is another world, so levels "
            f"differ between conditions for every method; what may hold is the order. {words.INTERVALS}",
            *(
                f"The AD of a slate takes steps, so {other} is the same rule as {title}: it was run once, as {title}."
                for other, title in same(ask).items()
            ),
        ],
    )


@dataclass(frozen=True)
class Conclusion:
    """holds: told apart by the seeds, or None where they tell nothing; likely: whether the means have it so; text: the numbers
    behind it."""

    holds: bool | None
    likely: bool
    text: str


def conclusions(found: Found, others: Sequence[str], known: Sequence[str]) -> dict[str, Conclusion]:
    """The conclusions in one condition. Against the best other method, by mean, of each measure."""
    made = {}
    for name, title in (("r_cum", "earns most"), ("utility", "is liked most")):
        means = {other: _mean(found[other][name]) for other in others}
        best = compared.best(means, COLUMNS[name].better)
        if name in known and best is not None:
            gains = {other: change(found[other][name], found[OURS][name]) for other in others}
            made[title] = _conclusion([gains[other] for other in others], _difference(gains[best], name, best))
    ad = spread(list(found[OURS]["ad"].values()))
    if ad is not None:
        balanced = max(_values(found[OURS]["ad"])) <= BALANCE
        made["is balanced"] = Conclusion(balanced, balanced, f"AD {COLUMNS['ad'].text(ad.mean)}")
    if RAW.title in found:
        gain = change(found[RAW.title]["r_cum"], found[OURS]["r_cum"])
        if gain is not None:
            made["gains by purified states"] = _conclusion([gain], _difference(gain, "r_cum", "raw"))
    return made


def findings(verdicts: Mapping[str, Mapping[str, Conclusion]]) -> list[str]:
    """In how many conditions each conclusion holds, and where it does not."""
    told = []
    for title in dict.fromkeys(title for own in verdicts.values() for title in own):
        judged = {condition: own[title].holds for condition, own in verdicts.items() if title in own}
        held = [condition for condition, holds in judged.items() if holds]
        text = f"{OURS} {title} in {len(held)} of {len(judged)} conditions"
        failed = [f"{condition} ({verdicts[condition][title].text})" for condition, holds in judged.items() if holds is False]
        text += f"; it does not with {listed(failed)}" if failed else ""
        for likely, word in ((True, "yes"), (False, "no")):
            unclear = [at for at, holds in judged.items() if holds is None and verdicts[at][title].likely is likely]
            text += f"; by the means {word}, which the seeds do not tell apart, with {listed(unclear)}" if unclear else ""
        told.append(text + ".")
    return told


def _conclusion(changes: Sequence[Change | None], text: str) -> Conclusion:
    """Holds where all changes are told to be gains, not where one is told to be a loss."""
    known = [found for found in changes if found is not None]
    likely = all(found.mean > 0 for found in known)
    if any(found.told and found.mean < 0 for found in known):
        return Conclusion(False, likely, text)
    return Conclusion(True if known and all(found.told for found in known) else None, likely, text)


def _difference(found: Change | None, name: str, other: str) -> str:
    return f"{words.changed(found, COLUMNS[name])} against {other}"


def _values(by_seed: Mapping[int, float | None]) -> list[float]:
    return [value for value in by_seed.values() if value is not None]


def _mean(by_seed: Mapping[int, float | None]) -> float | None:
    known = _values(by_seed)
    return sum(known) / len(known) if known else None


def _mark(found: Conclusion) -> str:
    if found.holds is None:
        return f"{'yes' if found.likely else 'no'} by the means, not told apart"
    return "yes" if found.holds else "no"


def _verdicts(verdicts: Mapping[str, Mapping[str, Conclusion]]) -> Table:
    titles = list(dict.fromkeys(title for own in verdicts.values() for title in own))
    rows = []
    for condition, own in verdicts.items():
        cells: dict[str, Cell] = {title: f"{_mark(own[title])}: {own[title].text}" for title in titles if title in own}
        rows.append(Row(condition, cells))
    columns = [Column(title, f"{OURS} {title}") for title in titles]
    return Table("", "What holds where", "Condition", columns, rows)


def _chart(spreads: Mapping[str, Mapping[str, Mapping[str, Spread | None]]], known: Sequence[str]) -> alt.TopLevelMixin:
    """One row of panels a condition, the same axis for a measure throughout."""
    parts = []
    domains = {name: draw.domain(own.get(name) for rows in spreads.values() for own in rows.values()) for name in known}
    for condition, rows in spreads.items():
        panels = [
            draw.dots(
                [(title, own.get(name), _colour(title)) for title, own in rows.items()],
                COLUMNS[name], names=place == 0, width=130, step=20, domain=domains[name],
            )
            for place, name in enumerate(known)
        ]  # fmt: skip
        parts.append(draw.row(panels, condition[0].upper() + condition[1:]))
    return draw.finished(
        alt.vconcat(*parts, spacing=14),
        "The same methods in other worlds",
        "Dot: mean over seeds; line: 95 % bootstrap interval. ↑ higher is better, ↓ lower is better",
    )


def _colour(title: str) -> str:
    return {OURS: draw.BLUE, RAW.title: draw.SKY}.get(title, draw.METHOD_COLOURS.get(title, draw.MUTED))


def _wanted(better: int) -> str:
    return "higher is better" if better > 0 else "lower is better"
