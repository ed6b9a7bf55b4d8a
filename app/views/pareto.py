"""Pareto: utility against fairness, what no other run beats, how it moved in training, and along λ."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from app import live, pareto, replay, results, state, words
from app.charts import pareto as charts
from app.charts.style import Style, legend, style
from app.measures import MEASURES, Measure
from app.pareto import Platform
from app.replay import CROWD
from engine.options import BadInput
from engine.spec import RunSpec
from runs_db.models import DONE
from runs_db.store import Run

MOST = 1000  # finished runs that are looked at
MOST_REPLAYED = 300  # runs whose learning curves are read for a replay
MOST_CHOSEN = 12
RESULTS, TRAINING = "Results", "Training"
NOBODY = 0  # nobody moves along λ
TICK = 0.6  # seconds a frame of the replay
PATIENCE = 1.2  # seconds of playing sessions after which the picture is drawn anew
CHOSEN = "pareto_runs"
Replay = Mapping[int, pareto.Values]  # moment of training → what had been measured by then


def show() -> None:
    """The page."""
    st.title("Pareto")
    runs = state.store().runs(states=[DONE], sort="-id", limit=MOST)
    if not runs:
        state.start_here(
            "Here every finished run is a point: how fairly it showed items, and what people got from it. The line is what no "
            "other run beats. It needs finished runs. The demonstration on Home makes three in half a minute; Launch has a "
            "sweep over λ, which draws a whole frontier.",
            ("home", "Demonstration", ":material/play_arrow:"),
            ("launch", "Launch", ":material/rocket_launch:"),
        )
        return
    specs = state.store().specs({run.group_key: run.id for run in reversed(runs)}.values())
    platform, x, y, members, values, curves = _chosen(runs, specs)
    firsts = {group.first.label: group.first for group in reversed(platform.groups)}
    labels = list(dict.fromkeys(group.first.label for group in platform.groups))
    of = style(
        [words.label_title(label) for label in labels],
        [firsts[label].method for label in labels],
        [firsts[label].purifier for label in labels],
    )
    st.altair_chart(legend(of), width="stretch")
    picture = st.container()
    along = None if curves is not None else _along(platform, members, specs)
    with picture:
        _stage(platform, of, values, x, y, curves, along)
    if along is not None:
        _evaluate(along)


def _chosen(
    runs: list[Run], specs: dict[int, RunSpec]
) -> tuple[Platform, Measure, Measure, dict[int, Run], pareto.Values, Replay | None]:
    """Platform, axes, its runs, their results, and their learning curves where a replay is wanted."""
    found = {own.key: own for own in pareto.platforms(results.grouped(runs), specs)}
    grid = st.grid(5, min_column_width=150)
    most = max(found.values(), key=lambda own: len(own.groups)).key
    state.linked("platform", "pareto_platform", list(found), [most], several=False)
    with grid.cell(column_span=2):
        key = st.selectbox(
            "Platform", list(found), format_func=lambda key: _option(found[key]), key="pareto_platform",
            persist_state="session", help="Only runs that met the same users under the same rules can be compared.",
        )  # fmt: skip
    state.remember("platform", "pareto_platform", [key])
    groups = tuple(results.grouped([run for group in found[key].groups for run in group.runs], specs))
    platform = Platform(key, found[key].title, groups)
    members = {run.id: run for group in groups for run in group.runs}
    values = pareto.outcomes(members.values())
    with grid.cell():
        when = st.segmented_control(
            "Measured", [RESULTS, TRAINING], default=RESULTS, required=True, key="measured", bind="query-params",
            help="Results: on test users, at the end. Training: how the points moved, on held-out training users.",
        )  # fmt: skip
    known = pareto.known(values)
    options = [name for name in known if when == RESULTS or name in pareto.LEARNT]
    titles = {MEASURES[name].title: MEASURES[name] for name in options}
    if len(titles) < 2:
        raise BadInput("these runs have no two measures in common: choose another platform")
    pick = list(titles)
    with grid.cell():
        across = st.selectbox("Across", pick, pick.index("Fairness") if "Fairness" in pick else 0, key="across",
                              bind="query-params")  # fmt: skip
    with grid.cell():
        up = st.selectbox("Up", pick, pick.index("R_cum") if "R_cum" in pick else 1, key="up", bind="query-params")
    newest = sorted(members, reverse=True)[:MOST_REPLAYED]
    curves = _curves(tuple((run, members[run].ended_at) for run in newest)) if when == TRAINING else None
    return platform, titles[across], titles[up], members, values, curves


def _option(platform: Platform) -> str:
    runs = sum(len(group.runs) for group in platform.groups)
    return f"{platform.title} · {words.count(len(platform.groups), 'experiment')}, {words.count(runs, 'run')}"


@st.cache_resource(max_entries=8, show_spinner="Reading learning curves …")
def _curves(runs: tuple[tuple[int, float | None], ...]) -> Replay:
    """Where finished runs (id, time of their end) were at every moment of training; nobody changes what is returned."""
    frame = state.store().series([run for run, _ in runs], ["len", "r_each", "r_cum", "ad"])
    return pareto.moved(frame, pareto.moments(frame))


def _stage(
    platform: Platform, of: Style, values: pareto.Values, x: Measure, y: Measure, curves: Replay | None,
    along: Along | None,
) -> None:  # fmt: skip
    """The picture and what belongs to it, in a fragment so that a replay redraws nothing else."""
    playing = bool(st.session_state.get("pareto_playing")) and curves is not None

    @st.fragment(run_every=TICK if playing else None)
    def part() -> None:
        with state.told():
            grid = st.grid(3, min_column_width=250, gap=("small", "large"))
            with grid.cell(column_span=2):
                if curves is None:
                    frame = pareto.points(platform.groups, values, x, y)
                    _picture(frame, of, x, y, along)
                    shown = values
                else:
                    shown = _replay(platform, of, values, x, y, curves)
                _caption(curves is not None)
            with grid.cell():
                _volumes(platform, shown, of, x, y)
                _front(platform, shown, x, y)
            _links(platform)

    part()


def _picture(
    frame: pd.DataFrame, of: Style, x: Measure, y: Measure, along: Along | None, *, trail: pd.DataFrame | None = None,
    around: Sequence[pd.DataFrame] = (),
) -> None:  # fmt: skip
    path = None if along is None else along.path(x, y)
    box = pareto.box([frame, *around, *([path] if path is not None and len(path) else [])])
    front, fronts = pareto.stairs(frame, x, y, box)
    chart = charts.scatter(frame, front, fronts, of, x, y, box, trail=trail, path=path)
    st.altair_chart(
        chart, width="stretch", key="pareto_points", on_select=_clicked, selection_mode=[charts.PICKED],
        alt=f"{y.title} against {x.title} of {len(frame)} points",
    )  # fmt: skip


def _clicked() -> None:
    """A click on a point chooses its runs; one beside all points leaves them as they are."""
    picked = st.session_state["pareto_points"].selection.get(charts.PICKED, [])
    ids = [int(run) for point in picked for run in str(point.get("ids", "")).split()]
    if ids:
        st.session_state[CHOSEN] = ids[:MOST_CHOSEN]


def _replay(platform: Platform, of: Style, values: pareto.Values, x: Measure, y: Measure, moved: Replay) -> pareto.Values:
    """The points at one moment of training, and how they got there; the values shown."""
    moments = list(moved)
    if not moments:
        st.info("These runs have no learning curves: methods that do not learn have none.", icon=":material/show_chart:")
        return {}
    still = {run: own for run, own in values.items() if run not in moved[moments[-1]]}
    replay = {moment: {**own, **still} for moment, own in moved.items()}
    last = moments[-1]
    if st.session_state.get("pareto_playing") and not st.session_state.pop("pareto_started", False):
        now = st.session_state.get("moment", last)
        later = [moment for moment in moments if moment > now]
        st.session_state["moment"] = later[0] if later else last
        if not later:
            st.session_state["pareto_playing"] = False
            st.rerun()
    state.linked("episode", "moment", moments, [last], several=False)
    playing = bool(st.session_state.get("pareto_playing"))

    def toggle() -> None:
        started = not st.session_state.get("pareto_playing")
        if started and st.session_state.get("moment", last) >= last:
            st.session_state["moment"] = moments[0]
        st.session_state["pareto_playing"] = st.session_state["pareto_started"] = started

    with st.container(horizontal=True, vertical_alignment="bottom"):
        turned = st.button(
            "Pause" if playing else "Play", on_click=toggle, key="pareto_play", type="primary",
            icon=":material/pause:" if playing else ":material/play_arrow:",
        )  # fmt: skip
        now = st.select_slider(
            "Training sessions so far", moments, key="moment", on_change=_halt, format_func=lambda moment: f"{moment:,}"
        )
    state.remember("episode", "moment", [now] if now != last else [])
    if turned:
        st.session_state["pareto_started"] = playing
        st.rerun()  # the clock of this part is set when the whole page runs
    trail = pareto.trails(platform.groups, {moment: own for moment, own in moved.items() if moment <= now}, x, y)
    whole = pareto.trails(platform.groups, replay, x, y)
    frame = pareto.points(platform.groups, replay[now], x, y)
    ends = [pareto.points(platform.groups, replay[moment], x, y) for moment in (moments[0], last)]
    _picture(frame, of, x, y, None, trail=trail, around=[whole, *ends])
    return replay[now]


def _halt() -> None:
    """Somebody moves the slider: playing stops."""
    st.session_state["pareto_playing"] = False


def _caption(training: bool) -> None:
    where = (
        "Greedy policies on held-out training users while they trained; methods that do not learn stay at their result."
        if training
        else "Greedy policies on test users, whom no training sees."
    )
    st.caption(
        f"{where} A large dot is the mean of an experiment, faint ones its seeds. Ringed, on the broad line: no other mean is "
        "at least as good in both and better in one; the oracle, which sees the truth, is a bound and not in the contest. Thin "
        "lines: the same within a method. Click a dot to choose its runs."
    )


def _volumes(platform: Platform, values: pareto.Values, of: Style, x: Measure, y: Measure) -> None:
    found = pareto.volumes(platform.groups, values, x, y)
    if not found:
        return
    st.markdown(
        "**Hypervolume**",
        help="The area that the means of a method dominate, counted from the worst values that the two measures can take, so "
        "that it depends on no other run. A sweep over λ covers more than its best point alone. Line: 95 % bootstrap interval "
        "over seeds, too narrow for few of them; none where every experiment has one seed.",
    )
    digits = 3 if max(own.value for own in found) < 1 else 2
    rows = [
        {
            "series": own.series, "value": own.value, "low": own.low, "high": own.high,
            "told": f"{own.value:.{digits}f}" + ("" if own.low is None else f" [{own.low:.{digits}f}, {own.high:.{digits}f}]"),
            "of": f"{words.count(own.groups, 'experiment')}, {words.count(own.runs, 'run')}",
        }
        for own in found
    ]  # fmt: skip
    frame = pd.DataFrame(rows).astype({"low": float, "high": float})
    frame["label"] = frame["series"] + "  " + frame["told"]
    st.altair_chart(
        charts.volumes(frame, of, f"{_height(x)} × {_height(y)}"),
        width="stretch",
        key="pareto_volumes",
        alt="Hypervolume by method",
    )


def _height(measure: Measure) -> str:
    """How far a measure is above the worst that it can be."""
    return measure.title if measure.better > 0 else f"({pareto.WORST[measure.name]:g} − {measure.title})"


def _front(platform: Platform, values: pareto.Values, x: Measure, y: Measure) -> None:
    """The frontier in words, best in x first."""
    frame = pareto.points(platform.groups, values, x, y)
    best = frame[frame["front"]].sort_values("x", ascending=x.better < 0)
    st.markdown(f"**On the frontier: {len(best)} of {words.count(len(platform.groups), 'experiment')}**")
    table = pd.DataFrame({"Experiment": best["name"], x.arrow: best["x"], y.arrow: best["y"]})
    number = {own.arrow: st.column_config.NumberColumn(own.arrow, format=f"%.{own.digits}f", width=72) for own in (x, y)}
    st.dataframe(
        table, hide_index=True, width="stretch", height=min(38 + 35 * len(table), 250), alt="On the frontier",
        column_config={"Experiment": st.column_config.TextColumn("Experiment", width=150), **number},
    )  # fmt: skip


def _links(platform: Platform) -> None:
    members = {run.id: run for group in platform.groups for run in group.runs}
    state.linked("run", CHOSEN, list(members), [])
    ids = st.multiselect(
        "Chosen runs", list(members), format_func=lambda run: _named(members[run]), key=CHOSEN, max_selections=MOST_CHOSEN,
        placeholder="click a dot, or choose here", persist_state="session",
    )  # fmt: skip
    state.remember("run", CHOSEN, ids)
    if not ids:
        return
    with st.container(horizontal=True):
        beside = {"beside": str(ids[1])} if len(ids) > 1 else {}
        state.link("sessions", "Step through their sessions", ":material/play_circle:", run=str(ids[0]), **beside)
        state.link("curves", "Their curves", ":material/show_chart:",
                   group=list(dict.fromkeys(members[run].group_key for run in ids)))  # fmt: skip
        state.link("runs", "Logs and settings", ":material/list_alt:", run=[str(run) for run in ids])


def _named(run: Run) -> str:
    return f"{run.id} · {words.label_title(run.label)} · seed {run.seed}" + (f" · {run.name}" if run.name else "")


@dataclass(frozen=True)
class Along:
    """A policy that moves along λ: its run, the λ it stands at, those of its path, and what is measured so far."""

    run: Run
    key: live.Key
    lam: float
    steps: tuple[float, ...]
    done: Mapping[float, Mapping[str, float]]

    @property
    def open(self) -> list[float]:
        """λ values that are still to be measured, the present one first."""
        return [lam for lam in dict.fromkeys((self.lam, *self.steps)) if lam not in self.done]

    def path(self, x: Measure, y: Measure) -> pd.DataFrame:
        """What charts.scatter draws."""
        rows = []
        for lam in sorted({self.lam, *self.steps} & set(self.done)):
            own = pareto.with_fairness(self.done[lam])
            if x.name in own and y.name in own:
                at = {"x": own[x.name], "y": own[y.name], "x_told": x.text(own[x.name]), "y_told": y.text(own[y.name])}
                rows.append({"series": words.label_title(self.run.label), "lam": lam, "current": lam == self.lam, **at})
        return pd.DataFrame(rows, columns=["series", "lam", "current", "x", "y", "x_told", "y_told"])


def _along(platform: Platform, members: Mapping[int, Run], specs: Mapping[int, RunSpec]) -> Along | None:
    """The λ slider of a policy that has learnt many λ; None where nobody moves."""
    able: dict[int, replay.Controls] = {}
    for group in platform.groups:
        can = replay.controls(specs[group.first.id])
        if can.lam is not None:
            able |= {run.id: can for run in group.runs}
    st.subheader("Along λ", help="Some policies have learnt many λ in one training, and can be moved after it.")
    if not able:
        others = [words.method_title(name) for name in replay.movable()]
        st.caption(f"No policy here has learnt several λ. With their default options these do: {words.listed(others)}.")
        state.link("launch", f"Launch {words.listed(others)}", ":material/rocket_launch:", method=others)
        return None
    grid = st.grid(2, min_column_width=260, gap=("small", "large"))
    state.linked("along", "pareto_along", [NOBODY, *able], [NOBODY], several=False)
    with grid.cell():
        chosen = st.selectbox(
            "Move a policy", [NOBODY, *able], format_func=lambda run: _named(members[run]) if run else "nobody",
            key="pareto_along", persist_state="session",
        )  # fmt: skip
    state.remember("along", "pareto_along", [chosen] if chosen else [])
    if not chosen:
        st.caption("Choose one, and it is evaluated live for one λ after another, without any training.")
        return None
    can, run = able[chosen], members[chosen]
    assert can.lam is not None
    assert can.lam_max is not None
    with grid.cell():
        lam = st.slider(
            "λ: weight of fairness", 0.0, can.lam_max, can.lam, can.lam_max / 40, key=f"lam.along.{chosen}",
            bind="query-params",
        )  # fmt: skip
    try:
        key = live.key(run)
    except BadInput as error:
        st.error(words.plain(str(error)), icon=":material/error:")
        return None
    every: dict[tuple[live.Key, float], Mapping[str, float]] = st.session_state.setdefault("_along", {})
    done = {at: own for (whose, at), own in every.items() if whose == key}
    return Along(run, key, round(float(lam), 4), tuple(pareto.lams(can.lam_max)), done)


def _evaluate(along: Along) -> None:
    """Measure what is open; the picture is drawn anew after a moment, so that the path grows while one looks."""
    waiting, began = along.open, time.monotonic()
    whole = len({along.lam, *along.steps})
    users = f"the same {min(CROWD, (along.run.summary or {}).get('evaluation_episodes', CROWD)):,} test users"
    if not waiting:
        st.caption(
            f"{words.plain(words.label_title(along.run.label))}, seed {along.run.seed}, evaluated at {whole} values of λ with "
            f"{users} each. Its dot is what the run was measured at."
        )
        return
    bar = st.progress((whole - len(waiting)) / whole, text=f"Playing sessions with {users}, λ = {waiting[0]:g} …")
    for place, lam in enumerate(waiting):
        bar.progress((whole - len(waiting) + place) / whole, text=f"Playing sessions with {users}, λ = {lam:g} …")
        st.session_state["_along"][along.key, lam] = live.measured(along.key, lam, None)
        if time.monotonic() - began > PATIENCE or lam == along.lam:
            break
    st.rerun()


if __name__ == "__main__":
    show()
