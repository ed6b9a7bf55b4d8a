"""Table 3: what hierarchy and purified states add, beside what the paper printed and references that do not learn"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altair as alt

from engine.options import BadInput, option, suggest
from engine.purify import PURIFIERS
from engine.spec import RunSpec
from engine.statistics import Change, Spread, change, spread
from engine.studies import words
from engine.studies.ask import Arm, Ask, Kept, Report, Runs, StudyConfig
from engine.studies.tables import COLUMNS, Column, Row, Table, listed

TITLE = "Table 3. The ablation"
QUESTION = (
    "FLAT is one policy on purified states with the manager's reward, HRL is manager and worker on raw states, + RCE, TCE and "
    "BOD are HRL behind other denoisers, and + DSRM is the whole of DSRM-HRL. Three rows that the paper has not are the whole "
    "with one part exchanged: the letter of Eq. 6 (the manager's demand is one weight on popularity, not a quota of each "
    "slate; trained for one λ, and tuned for itself as FLAT is), the letter of Eq. 7 (the diffusion learns to return the "
    "observed state, not the debiased target), and a regression to that target in the diffusion's place. References below do "
    "not learn from sessions; the oracle alone sees the true click probabilities. Means ± standard deviations (ddof 0) over "
    "seeds, as the paper prints them."
)
ROWS = (
    Arm("FLAT", "dsrm_hrl", "diffusion", {"method": {"hierarchical": False}}, variant="flat"),
    Arm("HRL", "dsrm_hrl", "identity"),
    Arm("+ RCE", "dsrm_hrl", "rce"),
    Arm("+ TCE", "dsrm_hrl", "tce"),
    Arm("+ BOD", "dsrm_hrl", "bod"),
    Arm("+ DSRM", "dsrm_hrl", "diffusion"),
)  # titles as in the paper
VARIANTS = (
    Arm(
        "Eq. 6 to the letter",
        "dsrm_hrl",
        "diffusion",
        {"method": {"constraint": "weight", "conditioned": False}},
        variant="weight",
        defaults={"method": {"lam": 8.0}},
    ),
    Arm("Eq. 7 to the letter", "dsrm_hrl", "diffusion", {"purifier": {"target": "observed"}}),
    Arm("regression", "dsrm_hrl", "regression"),
)  # the whole with one part exchanged; Eq. 6 has a manager for one λ, for its best differs from the quota's (docs/methods.md)
REFERENCES = (
    Arm("random", "random", "identity"),
    Arm("popular", "popular", "identity"),
    Arm("balanced, raw states", "balanced", "identity"),
    Arm("balanced, purified states", "balanced", "diffusion"),
    Arm("oracle", "oracle", "identity"),
)
RIVALS = ("random", "popular", "balanced, raw states", "balanced, purified states")  # references that see no truth
WHOLE, RAW, SINGLE, ORACLE = "+ DSRM", "HRL", "FLAT", "oracle"
MEASURES = ("len", "r_each", "r_cum", "ad")  # the paper's
PAPER = Path(__file__).parents[1] / "paper" / "table3.csv"


@dataclass(frozen=True)
class Config(StudyConfig):
    """`study.*` of `table3`."""

    rows: str | None = option(None, "titles of rows and references, separated by semicolons; none: all that there are")


@dataclass(frozen=True)
class Printed:
    """A cell of the paper's table."""

    mean: float
    std: float


def arms(ask: Ask) -> list[Arm]:
    """The paper's rows, our variants of the whole and the references, as far as their purifiers are built."""
    made = [arm for arm in (*ROWS, *VARIANTS, *REFERENCES) if arm.purifier in PURIFIERS]
    if ask.config.rows is None:
        return made
    known = [arm.title for arm in made]
    wanted = [part.strip() for part in ask.config.rows.split(";")]
    for title in wanted:
        if title not in known:
            raise BadInput(f"study.rows = {title!r} is not legal{suggest(title, known)}")
    return [arm for arm in made if arm.title in wanted]


def specs(ask: Ask) -> list[RunSpec]:
    """Rows × seeds."""
    return ask.specs(arms(ask))


def measure(ask: Ask, runs: Runs, kept: Kept) -> Any:
    """Nothing beside the runs."""
    return None


def read(ask: Ask, runs: Runs, measured: Any) -> Report:
    """Our table, the paper's, and whether they say the same."""
    names = (*MEASURES, "utility")
    found = {arm.title: {name: ask.by_seed(arm, runs, name) for name in names} for arm in arms(ask)}
    known = [name for name in names if any(value is not None for own in found.values() for value in own[name].values())]
    spreads = {title: {name: spread(list(own[name].values())) for name in known} for title, own in found.items()}
    references = {arm.title for arm in REFERENCES}
    columns = [Column(c.name, c.title, c.better, 3, c.unit) for c in (COLUMNS[name] for name in known)]
    rows = [Row(title, dict(own), title in references) for title, own in spreads.items()]
    measured_table = Table("", f"Measured here, Max Len {ask.max_len}", "Method", columns, rows)
    published = printed(ask.max_len)
    return Report(
        [*findings(found, published), *exchanged(found), *against_references(found, spreads)],
        [measured_table, *([_published_table(published, ask.max_len)] if published else [])],
        _chart(spreads, known, published, references),
        "For each measure one row a method: mean and standard deviation here, and the paper's two data sets beside it",
        [
            "Bold: the best mean among methods that learn. The paper's worlds are other worlds, with another catalogue, other "
            "users and its own abandonment rule, so levels cannot be compared; what can be is which row is above which. "
            f"{words.INTERVALS}",
            *([] if published else [f"The paper has no Table 3 for Max Len {ask.max_len}; it has 30 and 50."]),
        ],
    )


def printed(max_len: int) -> dict[str, dict[str, dict[str, Printed]]]:
    """Dataset → row → measure → the paper's cell; empty where it has none for this Max Len."""
    with PAPER.open(encoding="utf-8") as file:
        lines = csv.DictReader(line for line in file if not line.startswith("#"))
        table: dict[str, dict[str, dict[str, Printed]]] = {}
        for line in lines:
            if int(line["max_len"]) == max_len:
                title = line["method"].replace("+", "+ ")
                row = table.setdefault(line["dataset"], {}).setdefault(title, {})
                row[line["metric"]] = Printed(float(line["mean"]), float(line["std"]))
    return table


Found = dict[str, dict[str, dict[int, float | None]]]  # row → measure → seed → value


def findings(found: Found, published: dict[str, dict[str, dict[str, Printed]]]) -> list[str]:
    """What purification and hierarchy change here, seed by seed, and whether the paper's numbers have the same signs."""
    told = []
    for part, without in (("Purified states", RAW), ("The hierarchy", SINGLE)):
        if WHOLE not in found or without not in found:
            continue
        moved, told_of = _moved(found, without, WHOLE)
        sentence = f"{part} ({WHOLE} against {without}) moved {told_of}."
        signs = _signs(without, published)
        if signs:
            own = words.verdict(moved.get("r_cum"), COLUMNS["r_cum"])
            agrees = {1: "here too", -1: "here it is the other way round", 0: "here the seeds do not tell"}[own * signs]
            claim = "higher" if signs > 0 else "lower"
            sentence += f" The paper has R_cum {claim} with it on both of its data sets; {agrees}."
        elif published:
            sentence += " The paper's two data sets do not agree on its effect on R_cum."
        told.append(sentence)
    return told


def _moved(found: Found, before: str, after: str) -> tuple[dict[str, Change], str]:
    """How measures change from one row to another, seed by seed, and that as words."""
    every = {name: change(found[before][name], found[after][name]) for name in ("len", "r_cum", "ad", "utility")}
    moved = {name: value for name, value in every.items() if value is not None}
    verdicts = {COLUMNS[name].title: words.verdict(value, COLUMNS[name]) for name, value in moved.items()}
    return moved, f"{listed([words.changed(value, COLUMNS[name]) for name, value in moved.items()])}: {words.graded(verdicts)}"


def exchanged(found: Found) -> list[str]:
    """What exchanging one part of the whole for another reading of it changes, seed by seed."""
    titles = [arm.title for arm in VARIANTS if arm.title in found and WHOLE in found]
    return [f"{title[0].upper()}{title[1:]} in place of {WHOLE} moved {_moved(found, WHOLE, title)[1]}." for title in titles]


def _signs(without: str, published: dict[str, dict[str, dict[str, Printed]]]) -> int:
    """The sign of the paper's difference in R_cum where all its data sets share it, else 0."""
    gaps = [rows[WHOLE]["r_cum"].mean - rows[without]["r_cum"].mean for rows in published.values()]
    if gaps and all(gap > 0 for gap in gaps):
        return 1
    return -1 if gaps and all(gap < 0 for gap in gaps) else 0


def against_references(found: Found, spreads: dict[str, dict[str, Spread | None]]) -> list[str]:
    """The best of the paper's rows against the best reference that sees no truth, and its distance to the oracle, in R_cum."""

    def best(titles: list[str]) -> str | None:
        means = {title: own.mean for title in titles if title in spreads and (own := spreads[title]["r_cum"]) is not None}
        return max(means, key=lambda title: means[title]) if means else None

    learner, rival = best([arm.title for arm in ROWS]), best(list(RIVALS))
    told = []
    if learner and rival:
        gap = change(found[rival]["r_cum"], found[learner]["r_cum"])
        own = {1: "beats", -1: "loses to", 0: "is not told apart from"}[words.verdict(gap, COLUMNS["r_cum"])]
        told.append(
            f"The best of the paper's rows in R_cum, {learner}, {own} the best rule without learning, {rival}: "
            f"{words.changed(gap, COLUMNS['r_cum'])}."
        )
    if learner and ORACLE in found:
        gap = change(found[learner]["r_cum"], found[ORACLE]["r_cum"])
        if gap is not None:
            told.append(f"The oracle, which sees the true click probabilities, is {words.signed(gap.mean, 2)} R_cum from it.")
    return told


def _published_table(published: dict[str, dict[str, dict[str, Printed]]], max_len: int) -> Table:
    columns = [
        Column(f"{dataset} {name}", f"{dataset} {COLUMNS[name].title}", COLUMNS[name].better, 3)
        for dataset in published
        for name in MEASURES
    ]
    rows = []
    for arm in ROWS:
        cells = {
            f"{dataset} {name}": _as_spread(own[arm.title][name]) for dataset, own in published.items() for name in MEASURES
        }
        rows.append(Row(arm.title, cells))
    return Table("paper", f"The paper's Table 3, Max Len {max_len}, as printed", "Method", columns, rows)


def _as_spread(cell: Printed) -> Spread:
    """The paper prints mean and deviation of 3 seeds; an interval is not known."""
    return Spread(cell.mean, cell.std, float("nan"), float("nan"), 3)


def _chart(
    spreads: dict[str, dict[str, Spread | None]],
    known: list[str],
    published: dict[str, dict[str, dict[str, Printed]]],
    references: set[str],
) -> alt.TopLevelMixin:
    from engine.studies import draw

    here = [
        draw.dots(
            [(title, own[name], draw.MUTED if title in references else draw.BLUE) for title, own in spreads.items()],
            COLUMNS[name], names=place == 0, width=135, interval=False,
        )
        for place, name in enumerate(known)
    ]  # fmt: skip
    parts = [draw.row(here, "Measured here")]
    for dataset, rows in published.items():
        panels = [
            draw.dots(
                [(arm.title, _as_spread(rows[arm.title][name]), draw.VERMILION) for arm in ROWS],
                COLUMNS[name], names=place == 0, width=135, interval=False,
            )
            for place, name in enumerate(MEASURES)
        ]  # fmt: skip
        parts.append(draw.row(panels, f"The paper, {dataset}"))
    return draw.finished(
        alt.vconcat(*parts, spacing=24),
        "The ablation, here and as published",
        "Dot: mean over seeds; line: ± standard deviation. Grey: references. ↑ higher is better, ↓ lower is better",
    )
