"""Figure 3: the same policy behind raw and purified states, and behind simpler ways to purify"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt

from engine.methods import METHODS
from engine.options import option
from engine.purify import PURIFIERS
from engine.spec import RunSpec
from engine.statistics import Change, Spread, change, spread
from engine.studies import draw, words
from engine.studies.ask import Arm, Ask, Kept, Report, Runs, StudyConfig, chosen
from engine.studies.tables import COLUMNS, Column, Row, Table, listed

TITLE = "Figure 3. What purified states are worth to a policy"
QUESTION = (
    "The paper trains one policy (DNaIR) on raw and on purified states and reports longer sessions and a smaller AD at once, "
    "with policy and reward unchanged. Here each method is trained behind each way to make states: `identity` is the paper's "
    "raw state, `projection` takes the linear trace of popularity out of it, `regression` and `diffusion` are fitted to the "
    "same debiased target. Differences are taken seed by seed."
)
METHODS_COMPARED = ("a2c", "dnair", "dsrm_hrl")  # those that exist
PURIFIERS_COMPARED = ("identity", "projection", "regression", "diffusion")
RAW, PURE, PLAIN = "identity", "diffusion", "regression"
MEASURES = ("len", "r_cum", "ad", "utility")
CLAIM = ("len", "ad")  # what the paper reports to improve at once


@dataclass(frozen=True)
class Config(StudyConfig):
    """`study.*` of `figure3`."""

    methods: str | None = option(None, "methods, separated by commas; none: those of a2c, dnair, dsrm_hrl that there are")
    purifiers: str | None = option(None, "purifiers, separated by commas; none: identity, projection, regression, diffusion")


def arms(ask: Ask) -> dict[tuple[str, str], Arm]:
    """(method, purifier) → arm."""
    methods = chosen(ask.config.methods, METHODS_COMPARED, METHODS, "study.methods")
    purifiers = chosen(ask.config.purifiers, PURIFIERS_COMPARED, PURIFIERS, "study.purifiers")
    return {
        (method, purifier): Arm(f"{draw.method_title(method)}, {draw.purifier_title(purifier)}", method, purifier)
        for method in methods
        for purifier in purifiers
    }


def specs(ask: Ask) -> list[RunSpec]:
    """Methods × purifiers × seeds."""
    return ask.specs(arms(ask).values())


def measure(ask: Ask, runs: Runs, kept: Kept) -> Any:
    """Nothing beside the runs."""
    return None


def read(ask: Ask, runs: Runs, measured: Any) -> Report:
    """Means with intervals, and changes from raw to purified."""
    found = {
        pair: {name: ask.by_seed(arm, runs, name) for name in MEASURES} for pair, arm in arms(ask).items()
    }  # (method, purifier) → measure → seed → value
    known = [name for name in MEASURES if any(value is not None for own in found.values() for value in own[name].values())]
    spreads = {pair: {name: spread(list(own[name].values())) for name in known} for pair, own in found.items()}
    columns = [Column(c.name, c.title, c.better, c.digits, c.unit, span=True) for c in (COLUMNS[name] for name in known)]
    table = Table(
        "",
        "Mean and 95 % bootstrap interval over seeds",
        "Method, states",
        columns,
        [Row(arm.title, dict(spreads[pair])) for pair, arm in arms(ask).items()],
    )
    return Report(
        findings(changes_of(found, RAW, PURE), changes_of(found, PLAIN, PURE), len(ask.seeds)),
        [table],
        _chart(spreads, known),
        "For each method and measure one row a kind of state, with its mean and interval",
        [f"Bold: the best mean of a column over all methods. {words.INTERVALS}"],
    )


def changes_of(found: dict[tuple[str, str], dict[str, Any]], before: str, after: str) -> dict[str, dict[str, Change | None]]:
    """Method → measure → change between two purifiers, for the methods that have both."""
    methods = dict.fromkeys(method for method, _ in found)
    return {
        method: {name: change(found[method, before][name], found[method, after][name]) for name in found[method, after]}
        for method in methods
        if (method, before) in found and (method, after) in found
    }


def findings(
    purified: dict[str, dict[str, Change | None]], beyond: dict[str, dict[str, Change | None]], seeds: int
) -> list[str]:
    """Sentences from changes (method → measure → change) raw → diffusion and regression → diffusion."""
    told = []
    both = []
    for method, own in purified.items():
        verdicts = {
            COLUMNS[name].title: words.verdict(value, COLUMNS[name]) for name, value in own.items() if value is not None
        }
        parts = [words.changed(value, COLUMNS[name]) for name, value in own.items() if value is not None]
        told.append(
            f"{draw.method_title(method)}: diffusion in place of raw states moved {listed(parts)}: {words.graded(verdicts)}."
        )
        if all(words.verdict(own.get(name), COLUMNS[name]) > 0 for name in CLAIM):
            both.append(draw.method_title(method))
    if purified:
        held = f"held for {listed(both)}" if both else "held for none"
        rest = len(purified) - len(both)
        beside = f" and not for {rest} other{'s' if rest > 1 else ''}" if both and rest else f" of {rest}" if not both else ""
        told.append(
            f"The paper's claim, longer sessions and a smaller AD at once by purified states alone, {held}{beside}, "
            f"judged by {seeds} seed{'s' if seeds > 1 else ''}."
        )
    if beyond:
        parts = []
        for method, own in beyond.items():
            verdicts = {COLUMNS[n].title: words.verdict(value, COLUMNS[n]) for n, value in own.items() if value is not None}
            parts.append(f"{draw.method_title(method)} {words.graded(verdicts)}")
        told.append(f"Against regression to the same target, which takes no diffusion: {'; '.join(parts)}.")
    return told or ["Nothing was compared: raw and purified states of one method are needed."]


def _chart(spreads: dict[tuple[str, str], dict[str, Spread | None]], known: list[str]) -> alt.TopLevelMixin:
    rows = []
    for method in dict.fromkeys(method for method, _ in spreads):
        own = [(purifier, values) for (other, purifier), values in spreads.items() if other == method]
        panels = [
            draw.dots(
                [(draw.purifier_title(p), values[name], draw.PURIFIER_COLOURS.get(p, draw.PINK)) for p, values in own],
                COLUMNS[name],
                names=place == 0,
                domain=draw.domain(own[name] for own in spreads.values()),
            )
            for place, name in enumerate(known)
        ]
        rows.append(draw.row(panels, draw.method_title(method)))
    return draw.finished(
        alt.vconcat(*rows, spacing=22),
        "The same policy behind other states",
        "Dot: mean over seeds; line: 95 % bootstrap interval. ↑ higher is better, ↓ lower is better",
    )
