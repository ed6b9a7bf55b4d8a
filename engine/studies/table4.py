"""Table 4: seconds of every method at one budget, stage by stage, beside what the paper printed"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt

from engine.options import option
from engine.purify import PURIFIERS
from engine.spec import RunSpec
from engine.statistics import spread
from engine.studies import compared
from engine.studies.ask import Arm, Ask, Kept, Report, Run, Runs, StudyConfig, digest
from engine.studies.compared import OURS
from engine.studies.tables import Cell, Column, Row, Table, listed

TITLE = "Table 4. What training costs"
QUESTION = (
    "Seconds of one core for every method with the same number of sessions, split by stage: the state encoder and the worlds, "
    "the purifier, training, evaluation. Stage I depends on the seed and not on the method, so runs share it through the "
    "cache; what it costs is taken from the runs that computed it, and counted once for each method as if it had been alone."
)
STAGES = ("pretrain", "purifier", "train", "evaluate")
CACHED = ("pretrain", "purifier")  # stages that the cache can answer
TITLES = {"pretrain": "Encoder and worlds", "purifier": "Purifier", "train": "Training", "evaluate": "Evaluation"}
HRL, RCE = Arm("HRL", "dsrm_hrl", "identity"), Arm("+ RCE", "dsrm_hrl", "rce")  # in the paper's Table 4


@dataclass(frozen=True)
class Config(StudyConfig):
    """`study.*` of `table4`."""

    methods: str | None = option(None, "methods, separated by commas; none: the paper's that there are, with HRL and + RCE")


@dataclass
class Timed:
    """A stage's seconds in the runs that computed it, and how many took it from the cache; unknown: they do not say."""

    seconds: list[float] = field(default_factory=list)
    cached: int = 0
    unknown: int = 0


def arms(ask: Ask) -> list[Arm]:
    """Methods, and DSRM-HRL behind the other states of the paper's Table 4."""
    made = compared.arms(ask.config.methods, references=False)
    if ask.config.methods is None:
        made += [arm for arm in (HRL, RCE) if arm.purifier in PURIFIERS]
    return made


def specs(ask: Ask) -> list[RunSpec]:
    """Methods × seeds."""
    return ask.specs(arms(ask))


def measure(ask: Ask, runs: Runs, kept: Kept) -> Any:
    """Nothing beside the runs."""
    return None


def read(ask: Ask, runs: Runs, measured: Any) -> Report:
    """Seconds by stage, the whole, and the paper's."""
    own = {arm.title: [runs[digest(spec)] for spec in ask.repeated(arm)] for arm in arms(ask)}
    every = [run for part in own.values() for run in part]
    encoder = timed(every, "pretrain")  # one for all methods
    published = {line["method"]: float(line["seconds"]) for line in compared.rows("table4")}
    whole: dict[str, float | None] = {}
    rows, stacked = [], []
    for title, part in own.items():
        purifier = part[0].spec.purifier
        stages = {
            "pretrain": spread(encoder.seconds),
            "purifier": spread(timed([run for run in every if run.spec.purifier == purifier], "purifier").seconds),
            "train": spread([float(run.metrics["seconds"]["train"]) for run in part if not run.metrics.get("resumed")]),
            "evaluate": spread([float(run.metrics["seconds"]["evaluate"]) for run in part]),
        }
        parts = [None if value is None else value.mean for value in stages.values()]
        whole[title] = sum(value for value in parts if value is not None) if None not in parts else None
        counts = {name: timed(part, name) for name in CACHED}
        steps = spread([float(run.metrics["user_steps"]) for run in part])
        cells: dict[str, Cell] = {
            **stages,
            "whole": whole[title],
            "per_step": None if not (stages["train"] and steps) else 1e6 * stages["train"].mean / max(steps.mean, 1),
            "total": spread([float(run.metrics["seconds"]["total"]) for run in part]),
            "cached": "; ".join(f"{TITLES[name].lower()} {_share(counts[name], len(part))}" for name in CACHED),
            "paper": published.get(title),
        }
        rows.append(Row(title, cells))
        stacked += [(title, name, value.mean) for name, value in stages.items() if value is not None]
    columns = [
        *(Column(name, TITLES[name], 0, 1, "s") for name in STAGES),
        Column("whole", "Whole, nothing cached", -1, 1, "s"),
        Column("per_step", "Training, µs per user step", 0, 0),
        Column("total", "As it was run", 0, 1, "s"),
        Column("cached", "Taken from the cache"),
        Column("paper", "Paper, KuaiRec", 0, 0, "s"),
    ]
    unknown = timed(every, "pretrain").unknown
    resumed = sum(bool(run.metrics.get("resumed")) for run in every)
    return Report(
        [*compared.told_missing(), *findings(whole, published), *about_cache(every)],
        [Table("", f"Seconds, {ask.episodes:,} sessions, Max Len {ask.max_len}", "Method", columns, rows)],
        _chart(stacked, list(own)),
        "One bar a method, its seconds divided into stages",
        [
            "Means ± standard deviations (ddof 0) over the runs that computed a stage; – where none did. Seconds of runs that "
            "went on beside others are longer than alone, and another machine's are other seconds: only what one ran under "
            "one load can be compared. The paper's are of another machine.",
            *(
                [f"{unknown} runs do not say what they took from the cache, or were resumed: their stage I is left out."]
                if unknown
                else []
            ),
            *([f"{resumed} runs were stopped and went on: their training seconds are left out."] if resumed else []),
        ],
    )


def timed(runs: Sequence[Run], stage: str) -> Timed:
    """A stage that the cache can answer, over runs."""
    found = Timed()
    for run in runs:
        cached: Mapping[str, list[str]] | None = run.metrics.get("cached")
        if cached is None or run.metrics.get("resumed"):
            found.unknown += 1
        elif cached[stage]:
            found.cached += 1
        else:
            found.seconds.append(float(run.metrics["seconds"][stage]))
    return found


def findings(whole: Mapping[str, float | None], published: Mapping[str, float]) -> list[str]:
    """Who is fastest, and what DSRM-HRL costs as a multiple of others, here and in the paper."""
    known = {title: seconds for title, seconds in whole.items() if seconds is not None}
    if len(known) < 2:
        return ["Fewer than two methods have all stages measured, so nothing is compared."]
    fast, slow = min(known, key=lambda title: known[title]), max(known, key=lambda title: known[title])
    told = [f"{fast} takes the least, {known[fast]:.0f} s, and {slow} the most, {known[slow]:.0f} s."]
    others = [title for title in known if title != OURS]
    if OURS in known and others:
        parts = []
        for title in others:
            paper = f" (paper {published[OURS] / published[title]:.1f})" if title in published else ""
            parts.append(f"{known[OURS] / known[title]:.1f} times {title}{paper}")
        told.append(f"{OURS} takes {listed(parts)}.")
    return told


def about_cache(runs: Sequence[Run]) -> list[str]:
    """How many runs took what from the cache."""
    parts = []
    for name in CACHED:
        found = timed(runs, name)
        total = found.cached + len(found.seconds)
        if total:
            parts.append(f"{found.cached} of {total} runs took the {TITLES[name].lower()}")
    return [f"From the cache {listed(parts)}."] if parts else []


def _share(found: Timed, runs: int) -> str:
    return f"{found.cached} of {runs}" + (f", {found.unknown} unknown" if found.unknown else "")


def _chart(stacked: list[tuple[str, str, float]], order: list[str]) -> alt.TopLevelMixin:
    import pandas as pd

    from engine.studies import draw

    frame = pd.DataFrame(
        [
            {"method": title, "stage": TITLES[name], "place": STAGES.index(name), "seconds": value}
            for title, name, value in stacked
        ],
        columns=["method", "stage", "place", "seconds"],
    )
    colours = alt.Scale(domain=[TITLES[name] for name in STAGES], range=[draw.SKY, draw.ORANGE, draw.BLUE, draw.MUTED])
    bars = (
        alt.Chart(frame)
        .mark_bar()
        .encode(
            y=alt.Y("method:N", sort=order, title=None, axis=alt.Axis(ticks=False, domain=False, labelPadding=8)),
            x=alt.X("sum(seconds):Q", title="Seconds of one core", axis=alt.Axis(gridColor=draw.GRID, tickCount=6)),
            color=alt.Color("stage:N", scale=colours, legend=alt.Legend(title=None, orient="bottom")),
            order=alt.Order("place:O"),
            tooltip=["method:N", "stage:N", alt.Tooltip("seconds:Q", format=".1f")],
        )
        .properties(width=560, height=alt.Step(28))
    )
    return draw.finished(bars, "Seconds of a run, stage by stage", "Means over the runs that computed a stage; nothing cached")
