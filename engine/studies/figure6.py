"""Figure 6: how many diffusion steps: retrained with other numbers, and one model stopped early"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import altair as alt
import pandas as pd
import torch
from torch import Tensor

from engine.contracts import Obs
from engine.evaluate import evaluation_users
from engine.metrics import summary
from engine.options import BadInput, option
from engine.purify.diffusion import Config as Diffusion
from engine.purify.interest import InterestView
from engine.purify.view import View
from engine.report import unseen_states
from engine.run import EVALUATION_LUCK, load_data, load_run
from engine.spec import RunSpec
from engine.statistics import Spread, change, spread
from engine.studies import draw, words
from engine.studies.ask import Arm, Ask, Kept, Report, Run, Runs, StudyConfig, digest
from engine.studies.tables import COLUMNS, Column, Row, Table, listed

TITLE = "Figure 6. How many diffusion steps?"
QUESTION = (
    "The paper retrains with 5 to 500 steps and finds a peak at 10 to 30 and a collapse beyond, from over-smoothing. Here (a) "
    "purifier and policy are trained anew for each number of steps S; (b) one policy, trained with the default S, meets states "
    "whose purification is stopped after k of its S steps, k = 0 being the encoded history: once with the condition that every "
    "step is told, the history's evidence, and once without, under the null condition of training."
)
FULL, QUICK = (5, 10, 30, 50, 100, 200, 500), (2, 5, 10)
RESULTS = ("len", "r_cum", "ad")
STATES = ("popularity_r2", "preference_r2", "retrieval")
WITH, WITHOUT = "with the condition", "without"
COLOURS = {WITH: draw.BLUE, WITHOUT: draw.VERMILION}


@dataclass(frozen=True)
class Config(StudyConfig):
    """`study.*` of `figure6`."""

    steps: str | None = option(None, "numbers of steps to train with, separated by commas; none: quick 2,5,10, full 5 to 500")


def arms(ask: Ask) -> dict[int, Arm]:
    """S → arm, the default S always among them."""
    text = ask.config.steps
    try:
        numbers = list(QUICK if ask.budget == "quick" else FULL) if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        raise BadInput(f"study.steps = {text!r} is not legal: it must be whole numbers with commas, as in 2,5,10") from None
    default = Diffusion().steps
    wanted = sorted({*numbers, default})
    return {steps: Arm(f"S = {steps}", "dsrm_hrl", "diffusion", {"purifier": {"steps": steps}}) for steps in wanted}


def specs(ask: Ask) -> list[RunSpec]:
    """DSRM-HRL for each S and seed."""
    if "steps" in ask.settings.get("purifier", {}):
        raise BadInput("purifier.steps is what this study varies: use study.steps=2,5,10")
    return ask.specs(arms(ask).values())


def measure(ask: Ask, runs: Runs, kept: Kept) -> Any:
    """{"states": {S: {measure: {seed: value}}}, "stopped": {with/without: {k: {measure: {seed: value}}}}}; keys are text."""
    states: dict[str, dict[str, dict[str, Any]]] = {}
    for steps, arm in arms(ask).items():
        for spec in ask.repeated(arm):
            key = {"steps": steps, "seed": spec.seed, "spec": spec.to_json()}
            found = kept("purified states", key, partial(_purified, spec))
            for name in STATES:
                states.setdefault(str(steps), {}).setdefault(name, {})[str(spec.seed)] = found[name]
    stopped: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    default = Diffusion().steps
    for spec in ask.repeated(arms(ask)[default]):
        run = runs[digest(spec)]
        key = {"seed": spec.seed, "spec": spec.to_json(), "commit": run.commit}
        found = kept("stopped purification", key, partial(_stopped, run, default))
        for how, own in found.items():
            for steps_kept, values in own.items():
                for name in RESULTS:
                    stopped.setdefault(how, {}).setdefault(steps_kept, {}).setdefault(name, {})[str(spec.seed)] = values[name]
    return {"states": states, "stopped": stopped}


def read(ask: Ask, runs: Runs, measured: Any) -> Report:
    """Two tables, nine panels, and where the best number of steps is."""
    retrained: dict[int, dict[str, dict[int, Any]]] = {}
    for steps, arm in arms(ask).items():
        own = {name: ask.by_seed(arm, runs, name) for name in RESULTS}
        own |= {name: _whole(measured["states"][str(steps)][name]) for name in STATES}
        retrained[steps] = own
    stopped = {
        how: {int(k): {name: _whole(values) for name, values in own.items()} for k, own in found.items()}
        for how, found in measured["stopped"].items()
    }
    known = [
        name for name in (*RESULTS, *STATES) if any(v is not None for own in retrained.values() for v in own[name].values())
    ]
    default = Diffusion().steps
    first = Table(
        "",
        "(a) Trained anew for each number of steps",
        "S",
        [COLUMNS[name] for name in known],
        [Row(str(steps), {name: spread(list(own[name].values())) for name in known}) for steps, own in retrained.items()],
    )
    second = Table(
        "stopped",
        f"(b) Trained with S = {default}, purification stopped after k steps",
        "k",
        [Column(f"{name} {how}", f"{COLUMNS[name].title}, {how}", COLUMNS[name].better, COLUMNS[name].digits)
         for how in stopped for name in RESULTS],
        [
            Row(
                str(k),
                {f"{name} {how}": spread(list(own[k][name].values())) for how, own in stopped.items() for name in RESULTS},
            )
            for k in stopped[WITH]
        ],
    )  # fmt: skip
    return Report(
        [*about_retrained(retrained, default), *about_stopped(stopped)],
        [first, second],
        _chart(retrained, stopped, known, default),
        "Measures against the number of steps: retrained, and stopped early with and without the condition",
        [f"Means ± standard deviations (ddof 0) over seeds. {words.INTERVALS}"],
    )


Curve = dict[int, dict[str, dict[int, Any]]]  # steps → measure → seed → value


def about_retrained(found: Curve, default: int) -> list[str]:
    """Where R_cum is best, and whether the largest S is told apart from the default: the paper's over-smoothing.

    Not from the best: what was picked for being best would lose by luck alone.
    """
    means = {steps: own.mean for steps, values in found.items() if (own := spread(list(values["r_cum"].values()))) is not None}
    if len(means) < 2 or default not in means:
        return ["(a) One number of steps compares nothing."]
    best, most = max(means, key=lambda steps: means[steps]), max(means)
    told = [
        f"(a) Over S from {min(means)} to {most}, mean R_cum lies between {min(means.values()):.2f} and "
        f"{max(means.values()):.2f}, best at S = {best}."
    ]
    if most == default:
        return [*told, f"No S beyond the default of {default} was tried, so of too many steps this says nothing."]
    fall = change(found[default]["r_cum"], found[most]["r_cum"])
    states = {name: change(found[default][name], found[most][name]) for name in STATES}
    moved = listed([words.changed(value, COLUMNS[name]) for name, value in states.items() if value is not None])
    beside = f" (the states: {moved})" if moved else ""
    measured = f"From S = {default} to S = {most}: {words.changed(fall, COLUMNS['r_cum'])}{beside}."
    if words.verdict(fall, COLUMNS["r_cum"]) < 0:
        why = ""
        if states["preference_r2"] is not None:
            lost = words.verdict(states["preference_r2"], COLUMNS["preference_r2"]) < 0
            why = (
                " The states lose preference with it, as over-smoothing would have it."
                if lost
                else " The states are not told to lose preference with it, so it need not be over-smoothing."
            )
        told.append(f"{measured} Many steps do harm here, as the paper reports.{why}")
    else:
        told.append(f"{measured} The collapse that the paper reports at many steps was not measured here.")
    return told


def about_stopped(found: dict[str, Curve]) -> list[str]:
    """How R_cum moves from no step to all, with and without the condition."""
    told = []
    for how, curve in found.items():
        first, last = min(curve), max(curve)
        means = {k: own.mean for k, values in curve.items() if (own := spread(list(values["r_cum"].values()))) is not None}
        if len(means) < 2:
            continue
        best = max(means, key=lambda k: means[k])
        moved = change(curve[first]["r_cum"], curve[last]["r_cum"])
        verb = {1: "gain", -1: "lose", 0: "do not tell"}[words.verdict(moved, COLUMNS["r_cum"])]
        what = {
            "gain": "all the steps are worth more than none",
            "lose": "all the steps are worse than none",
            "do not tell": "all the steps are not told apart from none",
        }[verb]
        told.append(
            f"(b) {how.capitalize() if how == WITH else 'Without the condition'}, {what}: "
            f"{words.changed(moved, COLUMNS['r_cum'])} from k = {first} ({means[first]:.2f}) to {last} ({means[last]:.2f}); "
            f"best at k = {best} ({means[best]:.2f})."
        )
    return told


def _purified(spec: RunSpec) -> dict[str, Any]:
    torch.set_num_threads(spec.threads)
    found = unseen_states(spec, load_data(spec), {"purified": spec.purifier}).measure("purified")
    return {name: found[name] for name in STATES}


def _stopped(run: Run, steps: int) -> dict[str, dict[str, dict[str, float]]]:
    """With/without → k → results of the run's policy on the users of its evaluation."""
    torch.set_num_threads(run.spec.threads)
    trained = load_run(run.folder)
    users = evaluation_users(trained.world, run.spec.evaluation_episodes, EVALUATION_LUCK)
    found: dict[str, dict[str, dict[str, float]]] = {WITH: {}}
    if isinstance(trained.view, InterestView):
        found[WITHOUT] = {}
    for how, own in found.items():
        if how == WITHOUT:
            _tell_nothing(trained.view)
        for k in range(steps + 1):
            trained.view.inference_steps = k
            measured = summary(trained.play(users), trained.items, trained.data.truth)
            own[str(k)] = {name: measured[name] for name in RESULTS}
    return found


def _tell_nothing(view: View) -> None:
    """From now on the view's diffusion gets the null condition, all zeros, that `purifier.dropped` trains."""
    assert isinstance(view, InterestView)
    standard = view.standard

    def nothing(obs: Obs) -> tuple[Tensor, Tensor]:
        features, encoded = standard(obs)
        return torch.zeros_like(features), encoded

    view.standard = nothing  # type: ignore[method-assign]


def _whole(values: dict[str, Any]) -> dict[int, Any]:
    return {int(seed): value for seed, value in values.items()}


def _chart(retrained: Curve, stopped: dict[str, Curve], known: list[str], default: int) -> alt.TopLevelMixin:
    def frame(curves: dict[str, Curve], name: str) -> pd.DataFrame:
        rows = []
        for series, curve in curves.items():
            for steps, values in curve.items():
                own: Spread | None = spread(list(values[name].values()))
                if own is not None:
                    rows.append({"series": series, "steps": steps, "mean": own.mean, "low": own.low, "high": own.high})
        return pd.DataFrame(rows)

    width, height = 215, 140
    parts = []
    for names, title in (
        ([name for name in RESULTS if name in known], "(a) Trained anew with S steps: sessions"),
        ([name for name in STATES if name in known], "(a) Trained anew with S steps: states of unseen users"),
    ):
        panels = [
            draw.lines(
                frame({"S": retrained}, name), COLUMNS[name], "steps", "S, diffusion steps (log scale)", log=True, width=width,
                height=height, mark=default,
            )
            for name in names
        ]  # fmt: skip
        if panels:
            parts.append(draw.row(panels, title, spacing=62))
    panels = [
        draw.lines(
            frame(dict(stopped), name), COLUMNS[name], "steps", f"k, steps kept of {default}", width=width, height=height,
            colours=COLOURS, legend=name == RESULTS[-1],
        )
        for name in RESULTS
    ]  # fmt: skip
    parts.append(draw.row(panels, f"(b) Trained with S = {default}, purification stopped after k steps", spacing=62))
    return draw.finished(
        alt.vconcat(*parts, spacing=28),
        "The number of diffusion steps",
        f"Line: mean over seeds; band: 95 % bootstrap interval. Dotted: the default, S = {default}",
    )
