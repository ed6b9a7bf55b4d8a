"""Curves: what happened during training, over seeds, live."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from app import results, series, state, words
from app.charts import curves
from app.charts.style import Style, legend, style
from app.measures import OUTCOMES, curve_measure
from app.results import Group
from runs_db.models import QUEUED, STATES

FIGURE_7, OUTCOME, MANAGER, LOSSES, CHOOSE = "Figure 7", "Outcomes", "Manager", "Losses", "Choose"
PRESETS = {
    FIGURE_7: ("len", "ad"),
    OUTCOME: ("len", "r_cum", "r_each", "ad"),
    MANAGER: ("omega_acc", "omega_fair", "heads", "fair"),
}
GREEDY, EXPLORING = "Greedy", "Exploring"
MEAN, EACH = "Mean", "Each seed"
RECENT, MOST_GROUPS = 400, 12
CHOSEN = "curve_groups"


def show() -> None:
    """The page."""
    st.title("Curves")
    state.live(_body)


def _body() -> None:
    groups = _groups()
    if not groups:
        state.start_here(
            "No run has begun yet, so there is nothing to draw. The demonstration on Home takes half a minute; Launch trains "
            "whatever you choose. Curves grow here while runs train.",
            ("home", "Demonstration", ":material/play_arrow:"),
            ("launch", "Launch", ":material/rocket_launch:"),
        )
        return
    chosen = _chosen(groups)
    if not chosen:
        st.info("Choose one or more experiments above.", icon=":material/arrow_upward:")
        return
    runs = [run for group in chosen for run in group.runs]
    available = state.store().metric_names([run.id for run in runs])
    names, axis, seeds, band, weight = _controls(available)
    _caption(names)
    of = style([group.name for group in chosen], [g.first.method for g in chosen], [g.first.purifier for g in chosen])
    st.altair_chart(legend(of), width="stretch")
    _draw(chosen, of, names, axis, seeds, band, weight)


def _groups() -> list[Group]:
    runs = state.store().runs(states=[name for name in STATES if name != QUEUED], limit=RECENT)
    asked = [key for key in st.query_params.get_all("group") if key not in {run.group_key for run in runs}]
    for key in asked[:MOST_GROUPS]:
        runs += state.store().runs(group=key)
    first = {run.group_key: run.id for run in reversed(runs)}
    return results.grouped(runs, state.store().specs(first.values()))


def _chosen(groups: list[Group]) -> list[Group]:
    by_key = {group.key: group for group in groups}
    newest = groups[0].first
    alike = [group.key for group in groups if group.first.dataset == newest.dataset and group.first.name == newest.name]
    state.linked("group", CHOSEN, list(by_key), (alike or [newest.group_key])[:4])
    keys = st.multiselect(
        "Experiments", list(by_key), format_func=lambda key: _option(by_key[key]), key=CHOSEN, max_selections=MOST_GROUPS,
        placeholder="choose what to compare", persist_state="session",
        help="An experiment is all runs that differ in nothing but the seed.",
    )  # fmt: skip
    state.remember("group", CHOSEN, keys)
    picked = [by_key[key] for key in keys]
    if not picked:
        return []
    runs = [run for group in picked for run in group.runs]
    return results.grouped(runs, state.store().specs([group.first.id for group in picked]))


def _option(group: Group) -> str:
    named = f" · {group.first.name}" if group.first.name else ""
    return f"{group.name}{named} · {words.count(len(group.runs), 'seed')}"


def _controls(available: Sequence[str]) -> tuple[list[str], str, str, str, float]:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        preset = st.segmented_control(
            "Show", [*PRESETS, LOSSES, CHOOSE], wrap=True, default=FIGURE_7, required=True, key="show", bind="query-params",
            help="Figure 7 of the paper: how long people stay, and how balanced exposure is, over training.",
        )  # fmt: skip
        policy = GREEDY
        if preset in (FIGURE_7, OUTCOME):
            policy = st.segmented_control(
                "Policy", [GREEDY, EXPLORING], default=GREEDY, required=True, key="policy", bind="query-params",
                help="Greedy: without exploration, on training users that training leaves out. Exploring: the policy that "
                "trains, on the users it trains on.",
            )  # fmt: skip
        seeds = st.segmented_control("Seeds", [MEAN, EACH], default=MEAN, required=True, key="lines", bind="query-params")
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        axes = ["episodes", *(name for name in ("user_steps", "seconds") if name in available)]
        titles = {name: series.AXES[name].split(" (")[0] for name in axes}
        axis = st.segmented_control(
            "Over", list(titles.values()), default="Episodes", required=True, key="over", bind="query-params"
        )
        kinds = {title: kind for kind, title in series.BANDS.items()}
        band = st.selectbox(
            "Band", list(kinds), key="band", bind="query-params", width=260, disabled=seeds == EACH,
            help="Around the mean, where there are several seeds. The paper prints the standard deviation.",
        )  # fmt: skip
        weight = st.slider(
            "Smoothing", 0.0, 0.95, 0.0, 0.05, key="smoothing", bind="query-params", width=260,
            help="An exponential moving average of every run's own curve; 0 draws what was measured.",
        )  # fmt: skip
    if preset == CHOOSE:
        names = st.multiselect(
            "Measures", list(available), ["len"] if "len" in available else [], key="measures", bind="query-params"
        )
    elif preset == LOSSES:
        names = [name for name in available if any(part in name for part in ("loss", "kl", "entropy"))]
    else:
        names = list(PRESETS[preset or FIGURE_7])
        if policy == EXPLORING:
            names = [f"train_{name}" for name in names]
    code = {title: name for name, title in titles.items()}[axis or "Episodes"]
    return names, code, seeds or MEAN, kinds[band], weight


def _caption(names: Sequence[str]) -> None:
    greedy = any(name in OUTCOMES for name in names)
    exploring = any(name.startswith("train_") for name in names)
    told = []
    if greedy:
        told.append("Greedy policy, on held-out users of the training platform")
    if exploring:
        told.append("the exploring policy itself, on the users it trains on" if told else
                    "The exploring policy itself, on the users it trains on")  # fmt: skip
    text = "; ".join(told) + ". " if told else ""
    st.caption(text + "The results in Runs are measured on test users, whom no training sees.")


def _draw(chosen: list[Group], of: Style, names: list[str], axis: str, seeds: str, band: str, weight: float) -> None:
    runs = {run.id: run for group in chosen for run in group.runs}
    named = {run.id: group.name for group in chosen for run in group.runs}
    clock = [axis] if axis != "episodes" else []
    frame = state.store().series(runs, [*names, *clock])
    ticks = frame[frame["name"] == axis] if clock else frame.iloc[:0]
    points = series.smoothed(series.on_axis(frame[frame["name"].isin(names)], axis, ticks), weight)
    drawn, empty = 0, []
    grid = st.grid(2 if len(names) > 1 else 1, min_column_width=340, gap=("small", "medium"))
    for name in names:
        own = points[points["name"] == name]
        measure = curve_measure(name)
        references = _references(chosen, name)
        if not len(own):
            empty.append(measure.title)
            continue
        singles = None
        if seeds == EACH:
            singles = own.assign(
                series=own["run"].map(named), seed=own["run"].map({key: run.seed for key, run in runs.items()})
            )
        lines = series.bands(own, named, band)
        chart = curves.curve(
            lines, measure, of, series.AXES[axis], singles=singles, references=references, mean=seeds == MEAN, height=280
        )
        with grid.cell():
            st.altair_chart(chart, width="stretch", key=f"curve_{name}", alt=f"{measure.title} over training")
            if measure.help:
                st.caption(measure.help)
        drawn += 1
    if any(len(_references(chosen, name)) for name in names):
        st.caption("Dotted level lines: methods that do not learn in sessions. They have no curve; this is their test result.")
    if empty:
        begun = "not measured by these runs" if drawn else "no points yet: they come once training begins"
        st.caption(f"{words.plain(words.listed(empty))}: {begun}.")


def _references(chosen: list[Group], name: str) -> pd.DataFrame:
    rows = []
    if name in OUTCOMES:
        for group in chosen:
            found = group.spread(name)
            if found is not None and not any((run.summary or {}).get("episodes") for run in group.runs):
                rows.append({"series": group.name, "value": found.mean})
    return pd.DataFrame(rows, columns=["series", "value"])


if __name__ == "__main__":
    show()
