"""Paper: its tables and figures rebuilt from this machine's runs, beside what it printed; what is missing can be launched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
import streamlit as st

from app import launching, logs, paper, parts, results, series, state, words
from app.charts import curves
from app.charts import paper as charts
from app.charts.style import legend, style
from app.measures import MEASURES, OUTCOMES, Measure
from app.paper import EXHIBITS, Exhibit, Standing
from engine import catalog
from engine.options import BadInput
from engine.statistics import Spread
from engine.studies import tables

DATASETS = {words.dataset_title(name): name for name in catalog.TABLES["datasets"]}
PRINTED = ("KuaiRec", "KuaiRand-Pure")
BUDGET_TITLES = {"Full": paper.FULL, "Quick": paper.QUICK}
DEVIATION, INTERVAL = "± std", "Interval"
LAUNCHED = "paper_launched"
MOST = 2000  # runs that are looked at
WHERE = {  # figure → where it is alive in the app: view, label, icon
    "Figure 2": ("data", "Popularity against response, live, on Data", ":material/dataset:"),
    "Figure 4": ("states", "Raw and purified states of a run, live, on States", ":material/scatter_plot:"),
    "Figure 5": ("sessions", "Manager and worker at work, on Sessions", ":material/play_circle:"),
}


@dataclass(frozen=True)
class Asked:
    """What the controls say. published: which of the paper's data sets."""

    exhibit: Exhibit
    dataset: str
    published: str
    max_len: int
    budget: str
    seeds: tuple[int, ...]
    span: bool


def show() -> None:
    """The page."""
    st.title("Paper")
    title = st.pills(
        "Table or figure", list(EXHIBITS), wrap=True, default="Table 2", required=True, key="exhibit", bind="query-params",
        label_visibility="collapsed",
    )  # fmt: skip
    exhibit = EXHIBITS[title or "Table 2"]
    st.markdown(words.plain(exhibit.about))
    if exhibit.title == "Table 1":
        _datasets()
    elif not exhibit.runs:
        _elsewhere(exhibit, "synthetic", paper.FULL, (11, 15, 19), 30)
    else:
        asked = _controls(exhibit)
        with st.spinner("Loading the methods …"):
            lines = paper.lines(exhibit.title, asked.budget)
        state.live(lambda: _rebuilt(asked, lines))
        _elsewhere(exhibit, asked.dataset, asked.budget, asked.seeds, asked.max_len)


def _controls(exhibit: Exhibit) -> Asked:
    table_4 = exhibit.title == "Table 4"
    grid = st.grid(6, min_column_width=150)
    with grid.cell():
        here = st.selectbox("Dataset here", list(DATASETS), key="paper_here", bind="query-params")
    published, max_len = PRINTED[0], "30"
    if exhibit.printed and not table_4:
        with grid.cell():
            published = st.selectbox(
                "Printed for", PRINTED, key="printed", bind="query-params", help="The paper's data sets. On another one, "
                "and in another simulator, levels differ; what can be compared is which row is above which.",
            )  # fmt: skip
    if not table_4:
        with grid.cell():
            max_len = st.segmented_control("Max Len", ["30", "50"], default="30", required=True, key="patience",
                                           bind="query-params", help="A user's patience: no session is longer.")  # fmt: skip
    with grid.cell():
        budget = st.segmented_control(
            "Budget", list(BUDGET_TITLES), default="Full", required=True, key="budget", bind="query-params",
            help="Full: the paper's 20,000 training sessions, 1,000 test users. Quick: 2,000 on a smaller platform and 300, to "
            "see that all works, not to quote.",
        )  # fmt: skip
    with grid.cell():
        text = st.text_input("Training seeds", "11, 15, 19", key="paper_seeds", bind="query-params")
    seeds = launching.whole_numbers(text or "", "seeds")
    if not 0 < len(seeds) <= 10:
        raise BadInput(f"seeds = {(text or '')[:40]!r} is not legal: it must be 1 to 10 whole numbers, for example 11, 15, 19")
    with grid.cell():
        shown = st.segmented_control(
            "Spread here", [DEVIATION, INTERVAL], default=DEVIATION, required=True, key="spread", bind="query-params",
            help="Standard deviation over seeds (ddof 0), as the paper prints it, or the 95 % bootstrap interval of the mean, "
            "which is too narrow for few seeds. The LaTeX follows this choice; the CSV always has both.",
        )  # fmt: skip
    return Asked(
        exhibit,
        DATASETS[here],
        published,
        int(max_len or "30"),
        BUDGET_TITLES[budget or "Full"],
        tuple(seeds),
        shown == INTERVAL,
    )


def _rebuilt(asked: Asked, lines: Sequence[paper.Line]) -> None:
    exhibit = asked.exhibit
    wanted = paper.specs(lines, asked.dataset, asked.budget, asked.max_len, asked.seeds)
    groups = paper.keys(own[0] for own in wanted.values())
    runs = state.store().runs(groups=groups, sort="-id", limit=MOST)
    standing = paper.standings(lines, wanted, runs)
    published = paper.printed(exhibit.printed, asked.published, asked.max_len) if exhibit.printed else {}
    _missing(asked, standing)
    if exhibit.title == "Figure 7":
        _dynamics(standing)
    elif exhibit.title == "Figure 6":
        _steps(asked, standing)
    elif exhibit.title != "Table 4":
        _dots(asked, standing, published)
    _table(asked, standing, published)


def _missing(asked: Asked, standing: Sequence[Standing]) -> None:
    """What is there, what is not, and the button that launches exactly that."""
    there, every = sum(len(own.done) for own in standing), sum(len(own.specs) for own in standing)
    missing = [spec for own in standing for spec in own.missing]
    absent = [own.line.title for own in standing if own.line.arm is None]
    told = [f"{there} of {words.count(every, 'run')} are here." if missing else f"All {words.count(every, 'run')} are here."]
    waiting = sum(len(own.waiting) for own in standing)
    if waiting:
        told = [f"{there} of {words.count(every, 'run')} are here, {waiting} on the way."]
    if missing:
        told.append(f"Missing: {paper.named(standing, lambda own: [spec.seed for spec in own.missing])}.")
    lost = paper.named(standing, lambda own: sorted(own.lost))
    if lost:
        told.append(f"Begun before, and not finished: {lost}.")
    if absent:
        told.append(f"Not in this version, and left empty: {words.plain(words.listed(absent))}.")
    with st.container(border=True):
        st.markdown(" ".join(told))
        if missing:
            first = {spec.group(): spec for spec in missing}
            seconds = {key: state.store().expected_seconds(spec) for key, spec in first.items()}
            with st.container(horizontal=True, vertical_alignment="center"):
                many = "missing run" if len(missing) == 1 else f"{len(missing)} missing runs"
                pressed = st.button(f"Launch the {many}", type="primary", icon=":material/rocket_launch:", key="paper_launch")
                unknown = launching.expected(missing, seconds).unknown
                text = f"Expected: {parts.expectation(missing, seconds)}."
                if unknown:
                    names = words.listed([words.label_title(label) for label in unknown])
                    text += f" Unknown until a first run of {words.plain(names)} has finished on this machine."
                st.caption(text)
            if pressed:
                with state.told():
                    st.session_state[LAUNCHED] = state.store().enqueue_all(missing, asked.exhibit.title, ["paper"])
                    st.rerun()
            with st.expander("The same from a terminal", icon=":material/terminal:"):
                found = [launching.command(spec, asked.exhibit.title, ["paper"]) for spec in missing]
                st.code("\n".join(found), language="bash", wrap_lines=True, height=min(90 + 46 * len(found), 420))
    ids = {run.id for own in standing for run in own.waiting.values()} & set(st.session_state.get(LAUNCHED, []))
    if ids:
        st.success(f"Queued: {words.count(len(ids), 'run')}. This page fills by itself.", icon=":material/check_circle:")
        state.link("runs", "Watch them", ":material/list_alt:")
        state.worker_hint(queued=len(ids))


def _table(asked: Asked, standing: Sequence[Standing], published: Mapping[str, Mapping[str, Spread]]) -> None:
    exhibit = asked.exhibit
    here = f"{words.dataset_title(asked.dataset)} here, {asked.budget} budget, Max Len {asked.max_len}"
    beside = f"; as printed for {asked.published}" if published else ""
    caption = f"{exhibit.title}: {here}{beside}. Mean and {'95 % interval' if asked.span else 'standard deviation'} over seeds"
    found = paper.table(exhibit, standing, published, caption, span=asked.span)
    rows = paper.frame(found, standing)
    config = {found.corner: st.column_config.TextColumn(found.corner, pinned=True)}
    st.dataframe(pd.DataFrame(rows), hide_index=True, width="stretch", height=38 + 35 * len(rows), column_config=config,
                 alt=exhibit.title)  # fmt: skip
    agreed = paper.agreement(standing, published, [name for name in exhibit.measures if name in (*OUTCOMES, "seconds")])
    if agreed:
        parts_ = [f"{same} of {pairs} in {paper.COLUMNS[name].title}" for name, (same, pairs) in agreed.items()]
        st.markdown(f"**Pairs of rows in the same order as in the paper:** {words.plain(words.listed(parts_))}.")
    notes = ["– : no run has measured it."]
    if "before" in exhibit.measures:
        notes.append("Training: from the first session to the last. Before it: data, world, representation and purifier, which "
                     "take no time where an earlier run has left them in the cache.")  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="center"):
        name = f"{exhibit.title.lower().replace(' ', '')}-{asked.dataset}-{asked.max_len}"
        st.download_button("CSV", tables.csv_text(found), f"{name}.csv", "text/csv", icon=":material/download:",
                           on_click="ignore", key="paper_csv")  # fmt: skip
        st.download_button("LaTeX", tables.latex(found), f"{name}.tex", "text/plain", icon=":material/download:",
                           on_click="ignore", key="paper_tex")  # fmt: skip
        st.caption(" ".join(notes))
    with st.expander("LaTeX", icon=":material/code:"):
        st.code(tables.latex(found), language="latex", wrap_lines=True)


def _measure(name: str) -> Measure:
    return replace(MEASURES[name], digits=paper.COLUMNS[name].digits)


def _dots(asked: Asked, standing: Sequence[Standing], published: Mapping[str, Mapping[str, Spread]]) -> None:
    titles = [own.line.title for own in standing]
    grid = st.grid(2, min_column_width=340, gap=("small", "medium"))
    for name in asked.exhibit.measures:
        rows = paper.dots(standing, published, name, span=asked.span)
        if rows:
            chart = charts.dots(pd.DataFrame(rows), titles, _measure(name))
            grid.altair_chart(chart, width="stretch", key=f"paper_{name}", alt=f"{MEASURES[name].title}, here and as printed")


def _steps(asked: Asked, standing: Sequence[Standing]) -> None:
    grid = st.grid(3, min_column_width=260, gap=("small", "medium"))
    steps = {own.line.title: own.specs[0].settings["purifier"]["steps"] for own in standing if own.specs}
    for name in asked.exhibit.measures:
        rows = paper.dots(standing, {}, name, span=asked.span)
        if rows:
            frame = pd.DataFrame(rows)
            frame["steps"] = frame["row"].map(steps)
            chart = charts.over_steps(frame, _measure(name))
            grid.altair_chart(chart, width="stretch", key=f"paper_{name}", alt=f"{MEASURES[name].title} over steps")


def _dynamics(standing: Sequence[Standing]) -> None:
    """Figure 7 from learning curves, those of runs that still train among them."""
    own = [found for found in standing if found.done or found.waiting]
    runs = {run.id: run for found in own for run in [*found.done.values(), *found.waiting.values()]}
    named = {run.id: found.line.title for found in own for run in [*found.done.values(), *found.waiting.values()]}
    points = state.store().series(runs, ["len", "ad"]) if runs else pd.DataFrame(columns=["run", "name", "step", "value"])
    if not len(points):
        st.info("No learning curve yet: they grow here while the runs train.", icon=":material/show_chart:")
        return
    arms = [found.line.arm for found in own if found.line.arm is not None]
    of = style([found.line.title for found in own], [arm.method for arm in arms], [arm.purifier for arm in arms])
    st.altair_chart(legend(of), width="stretch")
    placed = series.on_axis(points, "episodes", points.iloc[:0])
    grid = st.grid(2, min_column_width=340, gap=("small", "medium"))
    for name in ("len", "ad"):
        bands = series.bands(placed[placed["name"] == name], named, "std")
        chart = curves.curve(bands, MEASURES[name], of, series.AXES["episodes"], height=280)
        grid.altair_chart(chart, width="stretch", key=f"paper_{name}", alt=f"{MEASURES[name].title} over training")
    groups = list(dict.fromkeys(run.group_key for run in runs.values()))
    st.caption("Greedy policies on held-out training users; band: ± standard deviation over seeds.")
    state.link("curves", "More of these curves", ":material/show_chart:", group=groups[:12])


def _datasets() -> None:
    """Table 1: counts as printed, and those of a dataset of this machine."""
    here = st.selectbox("Dataset here", list(DATASETS), key="paper_here", bind="query-params", width=260)
    name = DATASETS[here]
    rows = [
        {"Data": row["dataset"], "Part": row["usage"], "Users": int(row["users"]), "Items": int(row["items"]),
         "Interactions": round(1000 * float(row["interactions_thousands"])), "From": "the paper"}
        for row in paper.rows_of("table1.csv")
    ]  # fmt: skip
    if not parts.absent(name):
        row = logs.overview(name, {}).row
        for part, own in row["environments"].items():
            rows.append({"Data": here, "Part": part, "Users": own["users"], "Items": own["items"],
                         "Interactions": own["interactions"], "From": "counted here"})  # fmt: skip
        rows.append({"Data": here, "Part": "both", "Users": row["users"], "Items": row["items"],
                     "Interactions": row["interactions"], "From": "counted here"})  # fmt: skip
    frame = pd.DataFrame(rows).astype({"Users": "Int64"})
    frame.insert(5, "Density", frame["Interactions"] / (frame["Users"] * frame["Items"]))
    config = {
        "Density": st.column_config.NumberColumn("Density", format="percent", help="Interactions for each pair of user, item."),
        **{name: st.column_config.NumberColumn(name, format="localized") for name in ("Users", "Items", "Interactions")},
    }
    st.dataframe(frame, hide_index=True, width="stretch", height=38 + 35 * len(frame), column_config=config, alt="Table 1",
                 placeholder="")  # fmt: skip
    st.caption("Train and test are counted in the files as they are; both together after mending, people of both parts once.")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.download_button("CSV", results.csv_text(frame.astype(object).where(frame.notna(), None)), "table1.csv", "text/csv",
                           icon=":material/download:", on_click="ignore", key="paper_csv")  # fmt: skip
        state.link("data", "All about this dataset", ":material/dataset:", dataset=here)


def _elsewhere(exhibit: Exhibit, dataset: str, budget: str, seeds: Sequence[int], max_len: int) -> None:
    """The study that makes a page of it, the page that is kept, and where it is alive in the app."""
    if exhibit.title in WHERE:
        state.link(*WHERE[exhibit.title])
    if not exhibit.study:
        return
    st.subheader("As a study", help="A study writes a page with sentences, picture and tables, from runs of its own.")
    st.code(paper.command(exhibit.study, dataset, budget, seeds, max_len), language="bash", wrap_lines=True)
    kept = paper.kept_page(exhibit.study, dataset)
    if kept is None:
        st.caption(f"No page of it is kept for {words.plain(words.dataset_title(dataset))}; the command makes one.")
        return
    page, picture = kept
    if picture is not None:
        with st.expander("The picture that is kept with the code", not exhibit.runs, icon=":material/image:"):
            st.image(str(picture), caption="Made earlier by the study, not from this machine's runs.", width="stretch")
    st.caption(f"Its page, with tables and how it was made: `{page}`.")


if __name__ == "__main__":
    show()
