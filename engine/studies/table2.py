"""Table 2: all methods at Max Len 30 and 50, beside what the paper printed and references that do not learn"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import altair as alt
import numpy as np

from engine.options import BadInput, option
from engine.spec import RunSpec
from engine.statistics import Spread, change, improvement, iqm, spread
from engine.studies import compared, words
from engine.studies.ask import Arm, Ask, Kept, Report, Runs, StudyConfig
from engine.studies.compared import MEASURES, ORACLE, OURS, Found
from engine.studies.tables import COLUMNS, Cell, Column, Row, Table, listed

TITLE = "Table 2. Overall performance"
QUESTION = (
    "Every method of the paper that is built, each behind its own default states, at both Max Len. Means ± standard deviations "
    "(ddof 0) over seeds, as the paper prints them; beside them interquartile means, DSRM-HRL's seed-by-seed differences, and "
    "how likely a run of DSRM-HRL is above another method's. References do not learn from sessions; the oracle alone sees the "
    "true click probabilities."
)
MAX_LENS = (30, 50)  # the paper's
NAMES = (*MEASURES, "utility")


@dataclass(frozen=True)
class Config(StudyConfig):
    """`study.*` of `table2`."""

    methods: str | None = option(None, "methods, separated by commas; none: the paper's that there are, and the references")
    max_lens: str | None = option(None, "values of world.max_len, separated by commas; none: 30,50")


def max_lens(ask: Ask) -> list[int]:
    """Max Len of the runs. Raises BadInput."""
    text = ask.config.max_lens
    try:
        values = list(MAX_LENS) if text is None else list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise BadInput(f"study.max_lens = {text!r} is not legal: it must be whole numbers with commas, as in 30,50") from None
    return values


def arms(ask: Ask) -> dict[int, list[Arm]]:
    """Max Len → arms."""
    made = compared.arms(ask.config.methods)
    return {length: [replace(arm, settings={"world": {"max_len": length}}) for arm in made] for length in max_lens(ask)}


def specs(ask: Ask) -> list[RunSpec]:
    """Max Len × methods × seeds."""
    if "max_len" in ask.settings.get("world", {}):
        raise BadInput("world.max_len is what this study varies: use study.max_lens=30,50")
    return ask.specs([arm for own in arms(ask).values() for arm in own])


def measure(ask: Ask, runs: Runs, kept: Kept) -> Any:
    """Nothing beside the runs."""
    return None


def read(ask: Ask, runs: Runs, measured: Any) -> Report:
    """Ours, the references, interquartile means, the paper's beside ours, differences, and who wins."""
    found = {length: compared.found(ask, own, runs, NAMES) for length, own in arms(ask).items()}
    every = compared.arms(ask.config.methods)
    learners = [arm.title for arm in every if compared.learner(arm.method)]
    references = [arm.title for arm in every if arm.title not in learners]
    known = [name for name in NAMES if any(_given(own[name]) for by_title in found.values() for own in by_title.values())]
    spreads = {length: {title: {name: spread(list(own[name].values())) for name in known} for title, own in rows.items()}
               for length, rows in found.items()}  # fmt: skip
    tables = [_measured("", "Measured here", learners, spreads, known)] if learners else []
    if references:
        tables.append(_measured("references", "References, which do not learn from sessions", references, spreads, known))
    tables.append(_middles([*learners, *references], found, known))
    tables += _beside(learners, spreads)
    if OURS in learners and len(every) > 1:
        tables += [_differences(found, known), _improvements(found, known)]
    return Report(
        [*compared.told_missing(), *findings(found, spreads, learners, references, known)],
        tables,
        _chart(spreads, known, set(references)),
        "For each measure one row a method: mean and standard deviation here at each Max Len, and the paper's two data sets",
        [
            "Bold: the best mean among methods that learn. The paper's worlds are other worlds, with another catalogue, other "
            "users and its own abandonment rule, so levels cannot be compared; what can be is which row is above which. "
            "Interquartile means leave out the lowest and the highest quarter of the runs, rounded down: with 3 runs they are "
            f"the mean. {words.INTERVALS}"
        ],
    )


def findings(
    found: Mapping[int, Found],
    spreads: Mapping[int, Mapping[str, Mapping[str, Spread | None]]],
    learners: list[str],
    references: list[str],
    known: list[str],
) -> list[str]:
    """Who has the best mean of each measure, what DSRM-HRL is told apart from, and whether the paper's order is found."""
    told = []
    for length, rows in spreads.items():
        if len(learners) > 1:
            winners = {name: _best(rows, learners, name) for name in known}
            parts = [
                f"{title} in {listed(COLUMNS[name].title for name, own in winners.items() if own == title)}"
                for title in learners
                if title in winners.values()
            ]
            told.append(f"At Max Len {length} the best means among methods that learn: {'; '.join(parts)}.")
        others = [title for title in learners if title != OURS]
        if OURS in learners and others:
            told.append(f"At Max Len {length}, seed by seed, {OURS} is {_apart(found[length], others, known)}.")
        told += _against_references(found[length], rows, length, learners, [title for title in references if title != ORACLE])
    return [*told, *_as_in_the_paper(found)]


def _apart(found: Found, others: list[str], known: list[str]) -> str:
    """`in R_cum better than A2C, not told apart from TD3; in AD …`."""
    parts = []
    for name in (name for name in ("r_cum", "ad", "utility") if name in known):
        verdicts = {title: words.verdict(change(found[title][name], found[OURS][name]), COLUMNS[name]) for title in others}
        own = []
        for verdict, text in ((1, "better than"), (-1, "worse than"), (0, "not told apart from")):
            titles = [title for title in others if verdicts[title] == verdict]
            if titles:
                own.append(f"{text} {listed(titles)}")
        parts.append(f"in {COLUMNS[name].title} {', '.join(own)}")
    return "; ".join(parts)


def _against_references(
    found: Found,
    rows: Mapping[str, Mapping[str, Spread | None]],
    length: int,
    learners: list[str],
    rivals: list[str],
) -> list[str]:
    """The best learner against the best reference that sees no truth."""
    learner, rival = _best(rows, learners, "r_cum"), _best(rows, rivals, "r_cum")
    if learner is None or rival is None:
        return []
    gap = change(found[rival]["r_cum"], found[learner]["r_cum"])
    own = {1: "beats", -1: "loses to", 0: "is not told apart from"}[words.verdict(gap, COLUMNS["r_cum"])]
    return [
        f"At Max Len {length} the best learner in R_cum, {learner}, {own} the best rule without learning, {rival}: "
        f"{words.changed(gap, COLUMNS['r_cum'])}."
    ]


def _as_in_the_paper(found: Mapping[int, Found]) -> list[str]:
    """In how many comparisons of R_cum the seeds say what the paper's two data sets both say."""
    same, other, silent, differ = 0, 0, 0, 0
    for length, rows in found.items():
        published = [own for (_, own_length), own in compared.printed().items() if own_length == length]
        for title in rows:
            if title == OURS or OURS not in rows or not published or any(title not in own for own in published):
                continue
            gaps = [own[OURS]["r_cum"].mean - own[title]["r_cum"].mean for own in published]
            sign = 1 if all(gap > 0 for gap in gaps) else -1 if all(gap < 0 for gap in gaps) else 0
            verdict = words.verdict(change(rows[title]["r_cum"], rows[OURS]["r_cum"]), COLUMNS["r_cum"]) * sign
            same, other = same + (verdict > 0), other + (verdict < 0)
            silent, differ = silent + (sign != 0 and verdict == 0), differ + (sign == 0)
    total = same + other + silent
    if not total + differ:
        return []
    sentence = (
        f"The paper's two data sets agree on who is above whom in R_cum in {total} of these comparisons of {OURS} with another "
        f"method: here {same} come out alike, {other} the other way round, and in {silent} the seeds do not tell."
    )
    return [sentence]


def _best(rows: Mapping[str, Mapping[str, Spread | None]], titles: list[str], name: str) -> str | None:
    means = {title: None if (own := rows[title][name]) is None else own.mean for title in titles}
    return compared.best(means, COLUMNS[name].better)


def _given(values: Mapping[int, float | None]) -> bool:
    return any(value is not None for value in values.values())


def _columns(lengths: list[int], known: list[str]) -> list[Column]:
    return [
        Column(f"{name}_{length}", f"{COLUMNS[name].title}, {length}", COLUMNS[name].better, 3)
        for length in lengths
        for name in known
    ]


def _measured(
    name: str,
    caption: str,
    titles: list[str],
    spreads: Mapping[int, Mapping[str, Mapping[str, Spread | None]]],
    known: list[str],
) -> Table:
    lengths = list(spreads)
    rows = [
        Row(title, {f"{each}_{length}": spreads[length][title][each] for length in lengths for each in known}, name != "")
        for title in titles
    ]
    return Table(name, f"{caption}, Max Len {listed(map(str, lengths))}", "Method", _columns(lengths, known), rows)


def _middles(titles: list[str], found: Mapping[int, Found], known: list[str]) -> Table:
    """Interquartile means over the seeds, one task a cell."""
    rows = []
    for title in titles:
        cells: dict[str, Cell] = {}
        for length, own in found.items():
            for name in known:
                values = [value for value in own[title][name].values() if value is not None]
                cells[f"{name}_{length}"] = iqm(values) if values else None
        rows.append(Row(title, cells, True))
    caption = "Interquartile means with 95 % bootstrap intervals over seeds"
    return Table("iqm", caption, "Method", _columns(list(found), known), rows)


def _beside(learners: list[str], spreads: Mapping[int, Mapping[str, Mapping[str, Spread | None]]]) -> list[Table]:
    """Each of our numbers beside those that the paper printed for it; no table where it printed none."""
    published = compared.printed()
    datasets = list(dict.fromkeys(dataset for dataset, length in published if length in spreads))
    if not datasets:
        return []
    columns = [
        Column(f"{name} {place}", f"{COLUMNS[name].title}, {place}", 0, 3) for name in MEASURES for place in ("here", *datasets)
    ]
    papers = list(dict.fromkeys(title for own in published.values() for title in own))
    rows = []
    for length in (length for length in spreads if any(own == length for _, own in published)):
        for title in [*papers, *(title for title in learners if title not in papers)]:
            cells: dict[str, Cell] = {}
            for name in MEASURES:
                cells[f"{name} here"] = spreads[length].get(title, {}).get(name)
                cells |= {f"{name} {own}": published[own, length].get(title, {}).get(name) for own in datasets}
            rows.append(Row(f"{title}, Max Len {length}", cells))
    return [Table("paper", "Beside the paper's Table 2, as printed", "Method", columns, rows)]


def _differences(found: Mapping[int, Found], known: list[str]) -> Table:
    rows = []
    for length, own in found.items():
        for title in own:
            if title != OURS:
                cells = {name: compared.estimate(change(own[title][name], own[OURS][name])) for name in known}
                rows.append(Row(f"{title}, Max Len {length}", cells, True))
    caption = f"{OURS} less the other, seed by seed, with Student's 95 % interval"
    return Table("differences", caption, "The other", [replace(COLUMNS[name], digits=3) for name in known], rows)


def _improvements(found: Mapping[int, Found], known: list[str]) -> Table:
    """Tasks are the Max Lens; seeds that have all of them."""
    rows = []
    for title in next(iter(found.values())):
        if title != OURS:
            cells: dict[str, Cell] = {}
            for name in known:
                first, second = (_runs_by_tasks(found, own, name) * COLUMNS[name].better for own in (OURS, title))
                cells[name] = improvement(first, second) if first.size and second.size else None
            rows.append(Row(title, cells, True))
    columns = [
        Column(name, f"{'higher' if COLUMNS[name].better > 0 else 'lower'} {COLUMNS[name].title}", 0, 2) for name in known
    ]
    caption = f"How likely a run of {OURS} is better than one of the other, averaged over Max Len; 0.5: as likely as not"
    return Table("improvement", caption, "The other", columns, rows)


def _runs_by_tasks(found: Mapping[int, Found], title: str, name: str) -> Any:
    columns = [own[title][name] for own in found.values()]
    seeds = [seed for seed in columns[0] if all(column.get(seed) is not None for column in columns)]
    return np.array([[column[seed] for column in columns] for seed in seeds], np.float64)


def _chart(
    spreads: Mapping[int, Mapping[str, Mapping[str, Spread | None]]], known: list[str], references: set[str]
) -> alt.TopLevelMixin:
    from engine.studies import draw

    def panels(rows: Sequence[tuple[str, Mapping[str, Spread | None], str]], names: list[str]) -> list[Any]:
        return [
            draw.dots(
                [(title, own.get(name), colour) for title, own, colour in rows],
                COLUMNS[name], names=place == 0, width=135, interval=False,
            )
            for place, name in enumerate(names)
        ]  # fmt: skip

    parts = []
    for length, rows in spreads.items():
        here = [
            (title, own, draw.MUTED if title in references else draw.BLUE if title == OURS else draw.SKY)
            for title, own in rows.items()
        ]
        parts.append(draw.row(panels(here, known), f"Measured here, Max Len {length}"))
    shown = next((length for length in spreads if any(own == length for _, own in compared.printed())), None)
    for (dataset, length), published in compared.printed().items():
        if length == shown:
            theirs = [(title, dict(own), draw.VERMILION if title == OURS else draw.ORANGE) for title, own in published.items()]
            parts.append(draw.row(panels(theirs, list(MEASURES)), f"The paper, {dataset}, Max Len {length}"))
    return draw.finished(
        alt.vconcat(*parts, spacing=24),
        "All methods, here and as published",
        f"Dot: mean over seeds; line: ± standard deviation. Dark: {OURS}; grey: references. ↑ higher, ↓ lower is better",
    )
