"""Home: what this is, a demonstration to begin with, the state of the queue, and the newest results."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app import demo, parts, results, state, words
from app.charts import curves
from app.charts.style import legend, style
from app.measures import MEASURES
from runs_db.models import ACTIVE, DONE, QUEUED
from runs_db.store import Run

INTRO = (
    "Recommenders that learn from clicks drift toward what is already popular, because clicks say as much about popularity as "
    "about taste. Fairstate is a lab for methods that try not to: each is trained on a simulated platform whose users lose "
    "patience, and is measured by how long people stay, what they get, and how evenly items are shown. It asks one question "
    "above all: does **purifying what the recommender believes about a user** help more than tuning its rewards?"
)
DEMO_MEASURES = ("len", "r_cum", "ad", "utility")
NEWEST = 8


def show() -> None:
    """The page."""
    st.title("Fairstate")
    st.markdown(INTRO)
    state.live(_below)


def _below() -> None:
    grid = st.grid(3, min_column_width=230, gap=("small", "large"))
    with grid.cell(column_span=2):
        _demo()
    with grid.cell():
        _queue()
    _newest()


def _queue() -> None:
    st.subheader("Queue")
    store = state.store()
    counts, workers = store.counts(), store.workers()
    with st.container(horizontal=True, gap="medium"):
        st.metric("Running", sum(counts[name] for name in ACTIVE), width="content")
        st.metric("Queued", counts[QUEUED], width="content")
        st.metric("Done", counts[DONE], width="content")
    if workers:
        slots = sum(worker.slots for worker in workers)
        alive = words.count(len(workers), "worker is", "workers are")
        st.caption(f":green[:material/check_circle:] {alive} alive, {words.count(slots, 'run')} at once.")
    else:
        state.worker_hint(queued=counts[QUEUED])
    lost = counts["failed"] + counts["diverged"]
    if lost:
        state.link("runs", f"{words.count(lost, 'run')} failed: see why", ":material/error:", state=["failed", "diverged"])
    state.link("launch", "Launch runs of your own", ":material/rocket_launch:")


def _demo() -> None:
    st.subheader("Demonstration")
    runs = demo.newest(state.store())
    if not runs:
        st.markdown(
            "Three ways to recommend on one small synthetic platform, trained and measured while you watch: a general "
            "reinforcement learner (**A2C**), a fixed quota of popular items without any learning (**Balanced**), and the "
            "paper's **DSRM-HRL** behind its diffusion purifier. About half a minute on two cores."
        )
        _start("Run the demo")
    elif demo.busy(runs):
        _watch(runs)
    elif all(run.state == DONE for run in runs):
        _outcome(runs)
    else:
        _broken(runs)


def _start(label: str) -> None:
    if st.button(label, type="primary", icon=":material/play_arrow:", key="start_demo"):
        demo.start(state.store())
        st.rerun()


def _watch(runs: list[Run]) -> None:
    for run in runs:
        name = words.plain(words.label_title(run.label))
        if run.state == DONE:
            st.progress(1.0, text=f"**{name}** · done in {words.duration(run.seconds)}")
        elif run.state == QUEUED:
            st.progress(0.0, text=f"**{name}** · waits for a free slot")
        else:
            st.progress(demo.progress(run), text=f"**{name}** · {words.plain(words.doing(run))}")
    points = state.store().series([run.id for run in runs], ["len"])
    if points["step"].nunique() < 2:
        st.caption("Learning curves appear here once training begins.")
        return
    names = {run.id: words.label_title(run.label) for run in runs}
    of = style(list(names.values()), [run.method for run in runs], [run.purifier for run in runs])
    lines = points.assign(series=points["run"].map(names), x=points["step"], mean=points["value"])
    lines = lines.assign(low=lines["mean"], high=lines["mean"], n=1)
    st.altair_chart(legend(of), width="stretch")
    chart = curves.curve(
        lines,
        MEASURES["len"],
        of,
        "Episodes (training sessions)",
        references=_references(runs),
        height=220,
        x_max=demo.EPISODES,
    )
    st.altair_chart(chart, width="stretch", key="demo_curve")


def _references(runs: list[Run]) -> pd.DataFrame:
    """Methods that do not learn have no curve, but a result."""
    rows = [
        {"series": words.label_title(run.label), "value": value}
        for run in runs
        if not (run.summary or {}).get("episodes") and (value := results.result(run, "len")) is not None
    ]
    return pd.DataFrame(rows, columns=["series", "value"])


def _outcome(runs: list[Run]) -> None:
    store = state.store()
    keys = {run.group_key for run in runs}
    every = [run for run in store.runs(tags=[demo.TAG], states=[DONE], sort="id") if run.group_key in keys]
    groups = sorted(results.grouped(every), key=lambda group: [run.group_key for run in runs].index(group.key))
    seeds = words.count(len(groups[0].seeds), "seed")
    parts.comparison(groups, DEMO_MEASURES, "demo")
    max_len = store.spec(runs[0].id).settings["world"]["max_len"]
    st.markdown("\n".join(f"- {sentence}" for sentence in results.findings(groups, max_len)))
    users = (runs[0].summary or {}).get("evaluation_episodes", 0)
    st.caption(
        f"Greedy policies with {users:,} unseen users, {seeds} each, on a small platform after a short training: an "
        "impression, not a finding. Utility is known because the platform is synthetic."
    )
    ids = [str(run.id) for run in runs]
    with st.container(horizontal=True, vertical_alignment="center"):
        _start("Again, with another seed")
        state.link("sessions", "Step through a session", ":material/play_circle:", run=ids[0], beside=ids[1])
        state.link("curves", "Learning curves", ":material/show_chart:", group=[run.group_key for run in runs])


def _broken(runs: list[Run]) -> None:
    st.warning("The demonstration did not come to its end:", icon=":material/warning:")
    for run in runs:
        why = f": {words.plain(run.error)}" if run.error else ""
        st.markdown(f"- **{words.plain(words.label_title(run.label))}** is {run.state}{why}")
    with st.container(horizontal=True, vertical_alignment="center"):
        _start("Run it again")
        state.link("runs", "See the logs", ":material/article:", run=[str(run.id) for run in runs])


def _newest() -> None:
    store = state.store()
    st.subheader("Newest results")
    done = store.runs(states=[DONE], sort="-ended_at", limit=120)
    if not done:
        state.start_here(
            "Nothing has finished yet. Run the demonstration above, or launch runs of your own.",
            ("launch", "Launch", ":material/rocket_launch:"),
        )
        return
    keys = list(dict.fromkeys(run.group_key for run in done))[:NEWEST]
    recent = [run for run in done if run.group_key in keys]
    groups = results.grouped(recent, store.specs([next(run.id for run in recent if run.group_key == key) for key in keys]))
    rows = []
    for group in groups:
        row: dict[str, object] = {
            "What": group.name,
            "Data": words.dataset_title(group.first.dataset),
            "Seeds": ", ".join(map(str, group.seeds)),
        }
        for metric in ("len", "r_cum", "ad", "utility"):
            found = group.spread(metric)
            measure = MEASURES[metric]
            row[measure.arrow] = "–" if found is None else measure.text(found.mean, found.std if found.n > 1 else None)
        rows.append({**row, "Finished": words.ago(group.first.ended_at)})
    st.dataframe(pd.DataFrame(rows), hide_index=True, width="stretch", alt="Newest results")
    st.caption("Mean ± standard deviation over seeds. Every row is one experiment; its seeds are its repetitions.")


if __name__ == "__main__":
    show()
