"""Runs: what was asked for and what came of it. Filter, group, compare, stop, clone, resume, delete, export."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from app import launching, parts, results, state, tables, words
from app.charts import colours
from app.measures import MEASURES, OUTCOMES
from engine.data import DATASETS
from engine.methods import METHODS
from engine.purify import PURIFIERS
from runs_db.models import ACTIVE, DIVERGED, DONE, FAILED, QUEUED, STATES, STOPPED
from runs_db.store import Run

SORTS = {
    "Newest first": "-id",
    "Oldest first": "id",
    "Last to end": "-ended_at",
    "State": "state",
    "Method": "method",
    "Longest": "-seconds",
}
RUNS, EXPERIMENTS = "Runs", "Experiments"
MOST = 1000
LINKED = 50  # chosen runs that an address can carry
CHOSEN = "chosen_runs"  # ids, in the session


def show() -> None:
    """The page."""
    st.title("Runs")
    state.live(_body)


def _body() -> None:
    if not sum(state.store().counts().values()):
        state.start_here(
            "No run yet. The demonstration on Home makes three in half a minute; Launch makes any others. Runs from the "
            "command line (`python -m runs_db enqueue`) appear here too.",
            ("home", "Demonstration", ":material/play_arrow:"),
            ("launch", "Launch", ":material/rocket_launch:"),
        )
        _import()
        return
    runs, grouped = _filtered()
    _link_selection()
    if not runs:
        st.info("No run fits these filters. Remove one of them.", icon=":material/filter_alt_off:")
    elif grouped == EXPERIMENTS:
        _experiments(runs)
    else:
        _runs(runs)
    _selected()


def _filtered() -> tuple[list[Run], str]:
    store = state.store()
    grid = st.grid(5, min_column_width=140)
    states = grid.multiselect("State", STATES, key="state", bind="query-params", placeholder="all")
    methods = grid.multiselect("Method", list(METHODS), key="methods", bind="query-params", placeholder="all")
    purifiers = grid.multiselect("Purifier", list(PURIFIERS), key="purifiers", bind="query-params", placeholder="all")
    datasets = grid.multiselect("Dataset", list(DATASETS), key="datasets", bind="query-params", placeholder="all")
    tags = grid.multiselect("Tags", store.tags(), key="tags", bind="query-params", placeholder="all")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        grouped = st.segmented_control(
            "Rows", [RUNS, EXPERIMENTS], default=RUNS, required=True, key="rows", bind="query-params",
            help="An experiment is all runs that differ in nothing but the seed.",
        )  # fmt: skip
        order = st.selectbox("Order", list(SORTS), key="order", bind="query-params", width=170)
        text = st.text_input("Search", key="search", bind="query-params", placeholder="name or notes", width=220)
    runs = store.runs(
        states=states, methods=methods, purifiers=purifiers, datasets=datasets, tags=tags, sort=SORTS[order], limit=MOST
    )
    wanted = (text or "").strip().casefold()
    if wanted:
        runs = [run for run in runs if wanted in f"{run.name}\n{run.notes}".casefold()]
    with st.container(horizontal=True, vertical_alignment="center"):
        more = f", the first {MOST:,} of more" if sum(store.counts().values()) > MOST == len(runs) else ""
        st.caption(f"{words.count(len(runs), 'run')}{more}. Tick rows to act on them, or to see what lies behind.")
        if runs:
            st.download_button(
                "CSV", partial(_csv, [run.id for run in runs]), "runs.csv", "text/csv", icon=":material/download:",
                type="tertiary", on_click="ignore",
            )  # fmt: skip
        _import()
    return runs, grouped or RUNS


def _csv(ids: list[int]) -> str:
    store = state.store()
    runs = store.runs(ids=ids, sort="-id", limit=MOST)
    return results.csv_text(tables.export(runs, store.specs(ids)))


def _import() -> None:
    with st.popover("Import", icon=":material/upload:", type="tertiary"):
        st.markdown("Show a run made by `python -m engine train --out DIR`.")
        folder = st.text_input("Folder", key="import_folder", placeholder="path of the folder", max_chars=500)
        if st.button("Import", key="import_now", disabled=not folder):
            from runs_db.imports import import_folder  # which imports torch

            with state.told():
                found = import_folder(state.store(), folder.strip())
                st.session_state[CHOSEN] = [found.run]
                st.toast(f"{'It was there already, as' if found.again else 'Imported as'} run {found.run}.")
                st.rerun()


def _chips() -> dict[str, Any]:
    names = [*colours.STATES, tables.IMPORTED]
    shades = [*colours.STATES.values(), colours.MUTED]
    return {"State": st.column_config.MultiselectColumn("State", options=names, color=shades, width="small")}


def _numbers() -> dict[str, Any]:
    return {
        MEASURES[name].arrow: st.column_config.NumberColumn(
            MEASURES[name].arrow, format=f"%.{MEASURES[name].digits}f", help=f"{MEASURES[name].axis}. {MEASURES[name].help}"
        )
        for name in OUTCOMES
    }


def _runs(runs: list[Run]) -> None:
    frame = tables.run_rows(runs)
    config = {
        **_chips(),
        **_numbers(),
        "Run": st.column_config.NumberColumn("Run", format="%d", width=60, pinned=True),
        "Seed": st.column_config.NumberColumn("Seed", format="%d", width=60),
        "Progress": st.column_config.ProgressColumn("Progress", min_value=0, max_value=100, format="%.0f %%", width=110),
        "Tags": st.column_config.MultiselectColumn("Tags", color="auto"),
    }
    _grid(frame, [[run.id] for run in runs], config)


def _experiments(runs: list[Run]) -> None:
    first = {run.group_key: run.id for run in reversed(runs)}
    groups = results.grouped(runs, state.store().specs(first.values()))
    frame = tables.group_rows(groups)
    config = {
        "Experiment": st.column_config.TextColumn("Experiment", pinned=True),
        "States": st.column_config.MultiselectColumn("States", help="States of its runs."),
        **{
            MEASURES[name].arrow: st.column_config.TextColumn(MEASURES[name].arrow, help=MEASURES[name].help)
            for name in (*OUTCOMES, "gini", "coverage")
        },
    }
    _grid(frame, [[run.id for run in group.runs] for group in groups], config)
    st.caption("Mean ± standard deviation over the seeds that are done.")


def _grid(frame: pd.DataFrame, rows: list[list[int]], config: Mapping[str, Any]) -> None:
    """The table. Its selection is kept as run ids: rows move when runs are added, ids do not."""
    chosen = set(st.session_state.get(CHOSEN, []))
    at = [place for place, ids in enumerate(rows) if set(ids) <= chosen]
    # Another set of rows is another table: positions of one must never be read as those of another.
    key = "grid_" + hashlib.sha256(repr((rows, st.session_state.get("grid_turn", 0))).encode()).hexdigest()[:12]
    st.dataframe(
        frame,
        hide_index=True,
        width="stretch",
        height=min(38 + 35 * len(frame), 460),
        column_config=config,
        key=key,
        on_select=partial(_choose, key, rows),
        selection_mode="multi-row",
        selection_default={"selection": {"rows": at, "columns": [], "cells": []}},
        placeholder="",
        alt="Runs",
    )


def _choose(key: str, rows: list[list[int]]) -> None:
    places = st.session_state[key].selection.rows
    st.session_state[CHOSEN] = [run for place in places if place < len(rows) for run in rows[place]]


def _link_selection() -> None:
    """The selection follows `?run=…` when that is new, and is written there when it changes. Runs that are gone leave it."""
    asked = st.query_params.get_all("run")
    wanted = st.session_state.get(CHOSEN, [])
    if asked and asked != st.session_state.get(f"_url_{CHOSEN}"):
        wanted = [int(text) for text in asked if text.isdecimal()]
    known = {run.id for run in state.store().runs(ids=wanted, limit=MOST)} if wanted else set()
    st.session_state[CHOSEN] = [run for run in wanted if run in known]
    state.remember("run", CHOSEN, st.session_state[CHOSEN][:LINKED])


def _selected() -> None:
    ids: list[int] = st.session_state.get(CHOSEN, [])
    runs = state.store().runs(ids=ids, sort="id") if ids else []
    if not runs:
        return
    st.divider()
    _actions(runs)
    if len(runs) == 1:
        _detail(runs[0])
    else:
        _compared(runs)


def _actions(runs: list[Run]) -> None:
    store = state.store()
    named = f"Run {runs[0].id}" if len(runs) == 1 else words.count(len(runs), "run")
    st.subheader(f"{named} · {words.plain(words.label_title(runs[0].label))}" if len(runs) == 1 else f"{named} chosen")

    def each(deed: Callable[[int], object], of: Sequence[Run], told: str) -> None:
        for run in of:
            deed(run.id)
        st.toast(f"{told}: {words.listed([f'run {run.id}' for run in of[:6]])}{' and more' if len(of) > 6 else ''}.")
        st.rerun()

    stoppable = [run for run in runs if run.state in (QUEUED, *ACTIVE)]
    resumable = [run for run in runs if run.state in (STOPPED, FAILED, DIVERGED)]
    idle = [run for run in runs if not run.active]
    done = [run for run in runs if run.state == DONE]
    with st.container(horizontal=True, vertical_alignment="center"):
        if stoppable and st.button(f"Stop {len(stoppable)}" if len(runs) > 1 else "Stop", icon=":material/stop:", key="stop"):
            each(store.request_stop, stoppable, "Asked to stop")
        if resumable and st.button(
            f"Resume {len(resumable)}" if len(runs) > 1 else "Resume", icon=":material/resume:", key="resume"
        ):
            each(store.resume, resumable, "Back in the queue")
        with st.popover("Clone", icon=":material/content_copy:"):
            st.markdown("Queue the same again, with the same seed or another.")
            seed = st.text_input("Seed", key="clone_seed", placeholder="the same")
            if st.button("Queue", key="clone", type="primary"):
                wanted = launching.whole_numbers(seed or "", "seed")
                each(partial(store.clone, seed=wanted[0] if wanted else None), runs, "Cloned")
        if idle:
            with st.popover("Delete", icon=":material/delete:"):
                many = words.count(len(idle), "run")
                st.markdown(f"Delete {many} with all metrics, logs and checkpoints? This cannot be undone.")
                if st.button(f"Delete {many}", key="delete", type="primary"):
                    store.delete([run.id for run in idle])
                    st.session_state[CHOSEN] = [run.id for run in runs if run.active]
                    st.toast(f"Deleted {many}.")
                    st.rerun()
        state.link("curves", "Curves", ":material/show_chart:", group=list(dict.fromkeys(run.group_key for run in runs))[:12])
        if done:
            beside = {"beside": str(done[1].id)} if len(done) > 1 else {}
            state.link("sessions", "Sessions", ":material/play_circle:", run=str(done[0].id), **beside)


def _detail(run: Run) -> None:
    if run.error:
        st.error(words.plain(run.error), icon=":material/error:")
    if run.active or run.state == QUEUED:
        st.progress(run.progress or 0.0, text=words.plain(words.doing(run)))
    shown = [name for name in OUTCOMES if results.result(run, name) is not None]
    if shown:
        grid = st.grid(len(OUTCOMES), min_column_width=110)
        for name in shown:
            measure = MEASURES[name]
            grid.metric(measure.arrow, measure.text(results.result(run, name)), help=f"{measure.axis}. {measure.help}")
    facts = [f"{run.state}", f"{words.dataset_title(run.dataset)}, seed {run.seed}"]
    facts += [f"worked {words.duration(run.seconds)}"] if run.seconds else []
    facts += [f"on {run.host}"] if run.host else []
    facts += [f"clone of run {run.parent}"] if run.parent else []
    facts += ["imported: made by the command line or elsewhere"] if run.imported else []
    st.caption(words.plain(" · ".join(facts)))
    # Only the open tab is drawn: what the settings' defaults are takes torch to tell.
    drawn = {"Log": _log, "Settings": _settings, "Name, tags and notes": _people}
    tabs = st.tabs(list(drawn), key="detail", on_change="rerun")
    for tab, draw in zip(tabs, drawn.values(), strict=True):
        if tab.open:
            with tab:
                draw(run)


def _log(run: Run) -> None:
    tail = state.store().log_tail(run.id, 200)
    if tail:
        st.code(tail, language=None, height=min(60 + 22 * tail.count("\n"), 360), wrap_lines=True)
    else:
        st.caption("No log: an imported run without one." if run.imported else "The log begins when the run does.")


def _settings(run: Run) -> None:
    spec = state.store().spec(run.id)
    try:
        changed = launching.changes(spec)
        command = launching.command(spec, run.name, run.tags)
    except ValueError:  # made by a version of the code that knows other options
        changed, command = {}, ""
    frame = tables.setting_rows(spec, changed)
    everything = st.toggle("Also what is at its default", key="all_settings")
    mine = frame if everything or not changed else frame[frame["Changed"] | ~frame["Setting"].str.contains(".", regex=False)]
    st.dataframe(mine.drop(columns="Changed"), hide_index=True, width="stretch", alt="Settings")
    if command:
        st.code(command, language="bash", wrap_lines=True)


def _people(run: Run) -> None:
    store = state.store()
    with st.form(f"people_{run.id}", border=False):
        name = st.text_input("Name", run.name, max_chars=80)
        tags = st.multiselect("Tags", sorted({*store.tags(), *run.tags}), list(run.tags), accept_new_options=True)
        notes = st.text_area("Notes", run.notes, max_chars=4000)
        if st.form_submit_button("Save", icon=":material/save:"):
            store.set_name(run.id, name)
            store.set_tags(run.id, tags)
            store.set_notes(run.id, notes)
            st.toast("Saved.")
            st.rerun()


def _compared(runs: list[Run]) -> None:
    st.markdown("**What differs**")
    some = runs[:12]
    specs = state.store().specs([run.id for run in some])
    frame = tables.difference_rows(some, specs)
    if len(frame):
        st.dataframe(frame, hide_index=True, width="stretch", alt="Settings that differ")
    else:
        st.caption("Nothing: these are the same experiment with the same seed.")
    done = [run for run in some if run.state == DONE]
    if len(done) > 1:
        st.markdown("**What came of it**")
        parts.comparison(results.grouped(done, specs), OUTCOMES, "chosen")
    if len(runs) > len(some):
        st.caption(f"The first {len(some)} of {len(runs)} are shown.")


if __name__ == "__main__":
    show()
