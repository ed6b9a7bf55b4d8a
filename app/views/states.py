"""States: where a run's test users stand before and after purification, beside the truth where it is known."""

from __future__ import annotations

from dataclasses import dataclass

import altair as alt
import numpy as np
import pandas as pd
import streamlit as st

from app import launching, live, spaces, state, words
from app.charts import spaces as charts
from app.spaces import PCA, PROJECTIONS, Spaces
from engine import catalog
from engine.spec import RunSpec
from runs_db.models import DONE
from runs_db.store import Run

MOST = 400  # finished runs to choose from
PACE = 0.9  # seconds a step while playing
WAIT = 2.0  # seconds between two looks at a chore
ROW, SMALL, COLUMN = "Large", "Small", "Stacked"
SIDES = {ROW: charts.SIDE, SMALL: 168, COLUMN: None}  # pixels of a picture in a row; None: as wide as the page
TITLE, LINE = 90, 17  # pixels of height: of a title with what is around it, and of a line of the legend
LEGEND = (
    "Each dot is a test user at the start of a session. Draw an area in one picture and the same users stay bright in all; a "
    "double click ends it. Axes mean nothing, so the pictures are turned to lie alike."
)
WHAT = {
    "raw": "the paper's s_t, the mean observed vector of what a user responded to",
    "purified": "what the policy is told",
    "clean": "the true preference, known in the synthetic world alone",
}


@dataclass(frozen=True)
class Look:
    """How the pictures are drawn. projection: a title of app.spaces.PROJECTIONS; side: see charts.linked."""

    colour: str
    projection: str
    users: int
    side: int | None


def show() -> None:
    """The page."""
    st.title("States")
    runs = {run.id: run for run in state.store().runs(states=[DONE], sort="-id", limit=MOST)}
    if not runs:
        state.start_here(
            "Here you see what purification does: where test users stand by what was observed of them, where the purifier puts "
            "them, and where they truly belong. It needs a finished run. The demonstration on Home makes three in half a "
            "minute.",
            ("home", "Demonstration", ":material/play_arrow:"),
            ("launch", "Launch", ":material/rocket_launch:"),
        )
        return
    chosen = _run(runs)
    run = _trap(runs, chosen)
    key = live.key(run)
    look, of = _look(key)
    flat = None
    if PROJECTIONS[look.projection]:
        flat = _mapped(run, key, of, look)
    _stage(run, of, look, flat)


def _run(runs: dict[int, Run]) -> Run:
    ids = list(runs)
    first = ids[0]
    if "states_run" not in st.session_state:
        specs = state.store().specs(run.id for run in runs.values() if run.purifier == "diffusion")
        first = next((run for run in sorted(specs, reverse=True) if not spaces.trap(specs[run])), first)
    state.linked("run", "states_run", ids, [first], several=False)
    run = st.selectbox("Run", ids, format_func=lambda run: _option(runs[run]), key="states_run", persist_state="session")
    state.remember("run", "states_run", [run])
    return runs[run]


def _option(run: Run) -> str:
    named = f" · {run.name}" if run.name else ""
    return f"{run.id} · {words.label_title(run.label)} · seed {run.seed} · {words.dataset_title(run.dataset)}{named}"


def _trap(runs: dict[int, Run], chosen: Run) -> Run:
    """The run to show: the chosen one, or its twin by the paper's own loss."""
    alike = [run.id for run in runs.values() if run.purifier == "diffusion" and run.dataset == chosen.dataset]
    specs = state.store().specs([*alike, chosen.id])
    if chosen.purifier == "diffusion" and spaces.trap(specs[chosen.id]):
        _caption_of_trap(chosen)
        return chosen
    other = spaces.twin(chosen.id, specs)
    if other is None:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.caption(
                "The paper's own loss (Eq. 7) denoises the observed state *given the observed state*, so it can return its "
                "input. To see that here, train a purifier by it:",
                width="stretch",
            )
            state.link("launch", "Launch one", ":material/rocket_launch:", **_launch(specs[chosen.id]))
        return chosen
    on = st.toggle(
        "The paper's own loss (target = observed)", key="trap", bind="query-params",
        help=f"Shows run {other} instead, whose diffusion was trained to recover the observed state itself.",
    )  # fmt: skip
    if not on:
        return chosen
    _caption_of_trap(runs[other])
    return runs[other]


def _caption_of_trap(run: Run) -> None:
    st.warning(
        f"Run {run.id} is trained by the paper's own loss (Eq. 7): the network is asked to recover a state *and shown that "
        "very state*, so it need not learn anything about popularity. It returns its input: compare the scores of both.",
        icon=":material/content_copy:",
    )


def _launch(spec: RunSpec) -> dict[str, str]:
    """Query parameters that fill Launch with a cheap run behind the paper's own loss, on the same users."""
    own = spec.dataset not in catalog.TABLES["datasets"]
    query = {
        "method": words.method_title("balanced"), "purifier": words.purifier_title("diffusion"), "seeds": str(spec.seed),
        "diffusion.target": "observed", "dataset": "A log of my own" if own else words.dataset_title(spec.dataset),
    } | ({"log": spec.dataset} if own else {})  # fmt: skip
    changed = launching.changes(spec)
    for section in ("dataset", "state", "world"):
        for name, value in changed.get(section, {}).items():
            if (section, name) == ("world", "max_len"):
                query |= {name: str(value)} if value in (30, 50) else {}
            else:
                query[f"{section}.{name}"] = (
                    "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
                )
    return query


def _look(key: live.Key) -> tuple[Look, Spaces]:
    """The controls, and the users as many as asked for."""
    there = live.theatre(key).users
    sizes = spaces.sizes(there)
    grid = st.grid(4, min_column_width=215, gap=("small", "medium"), vertical_alignment="bottom")
    usual = spaces.USUAL if spaces.USUAL in sizes else sizes[-1]
    with grid.cell():
        state.linked("users", "states_users", sizes, [usual], several=False)
        users = st.selectbox(
            "Test users", sizes, format_func=lambda size: f"{size:,}", key="states_users",
            help=f"Of {there:,} users of the test world; those without a response in their history are left out.",
        )  # fmt: skip
        state.remember("users", "states_users", [users] if users != usual else [])
    of = live.spaces(key, int(users))
    with grid.cell():
        colours = spaces.colourings(of.about)
        if st.session_state.get("colour") not in (None, *colours):
            st.session_state["colour"] = colours[0]
        colour = st.selectbox(
            "Colour", colours, key="colour", bind="query-params",
            help="Interest: the true main category where it is known, else the most frequent tag of what the user responded "
            "to. Popularity: how popular that is. Activity: the share of responses, or how many interactions are known.",
        )  # fmt: skip
    with grid.cell():
        projection = st.segmented_control(
            "Map", list(PROJECTIONS), default=PCA, required=True, key="projection", bind="query-params",
            help="PCA is drawn at once, for every step. UMAP and t-SNE keep neighbours together; a worker draws them.",
        )  # fmt: skip
    with grid.cell():
        layout = st.segmented_control(
            "Pictures", list(SIDES), default=COLUMN if _phone() else ROW, required=True, key="layout", bind="query-params",
            help="Small ones stand side by side on a narrow screen too; stacked ones are as wide as the page.",
        )  # fmt: skip
    return Look(colour or colours[0], projection or PCA, int(users), SIDES[layout or ROW]), of


def _phone() -> bool:
    """Whether the browser says that it is a phone's; nobody tells how wide a page is."""
    return "Mobi" in (st.context.headers.get("User-Agent") or "")


def _mapped(run: Run, key: live.Key, of: Spaces, look: Look) -> dict[str, np.ndarray] | None:
    """Space → (n,2) of the map asked for, or None and the way to get it."""
    kept = live.maps(key)
    if kept is not None:
        users, drawn = kept
        shown = min(len(of), len(users))
        if (users[:shown] == of.people.users.numpy()[:shown]).all():
            if len(of) > shown:
                st.caption(f"{look.projection} is drawn of the first {shown:,} users.")
            return spaces.alike({space: xy[:shown] for space, xy in drawn[PROJECTIONS[look.projection]].items()})
    _chore(run, look)
    return None


def _chore(run: Run, look: Look) -> None:
    """Ask a worker for the maps, and tell how that goes."""
    before = state.store().chore(run.id)
    waiting = before is not None and before.open

    @st.fragment(run_every=WAIT if waiting else None)
    def part() -> None:
        with state.told():
            chore = state.store().chore(run.id)
            if waiting != (chore is not None and chore.open):
                st.rerun()  # somebody has just asked, or it has ended: the whole page sets the clock and shows the maps
            if chore is not None and chore.open:
                doing = state.store().chore_tail(run.id) if chore.state == "running" else ""
                told = f"a worker is on it{doing.replace('map:', ':') if doing.startswith('map:') else ''}"
                text = told if chore.state == "running" else "it waits for a free slot of a worker"
                st.info(
                    f"{look.projection}: {words.plain(text)}. The page shows the map by itself.",
                    icon=":material/progress_activity:",
                )
                if chore.state == "queued" and not state.store().workers():
                    state.worker_hint(queued=0)
                return
            if chore is not None and chore.error:
                st.error(f"The maps could not be drawn: {words.plain(chore.error)}.", icon=":material/error:")
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                again = "Try again" if chore is not None and chore.error else "Compute UMAP and t-SNE"
                st.button(again, key="draw_maps", type="primary", icon=":material/map:", on_click=_ask, args=(run.id,))
                st.caption("A worker draws both, once, in about a minute; meanwhile here is PCA.", width="stretch")

    part()


def _ask(run: int) -> None:
    with state.told():
        state.store().ask_chore(run)


def _stage(run: Run, of: Spaces, look: Look, flat: dict[str, np.ndarray] | None) -> None:
    """What moves with the slider, in a fragment of its own so that a step redraws nothing else."""
    moves = of.most is not None and flat is None
    playing = moves and bool(st.session_state.get("walking"))

    @st.fragment(run_every=PACE if playing else None)
    def part() -> None:
        with state.told():
            steps = _transport(of) if moves else None
            _pictures(run, of, look, flat, steps)
            _scores(of, steps)

    part()
    if moves:
        of.look_ahead()


def _transport(of: Spaces) -> int:
    """Play, and the slider of reverse steps; where the slider stands."""
    most = of.most
    assert most is not None
    _advance(of, most)
    state.linked("k", "purify_step", range(most + 1), [most], several=False)
    playing = bool(st.session_state.get("walking"))

    def toggle() -> None:
        now = not st.session_state.get("walking")
        if now and st.session_state.get("purify_step", most) >= most:
            st.session_state["purify_step"] = 0
        st.session_state["walking"] = now
        st.session_state["just_walking"] = 2 if now else 0  # this part is drawn at the click, and again with the page

    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        turned = st.button(
            "Pause" if playing else "Play", on_click=toggle, key="walk", type="primary", shortcut="Space",
            icon=":material/pause:" if playing else ":material/play_arrow:",
        )  # fmt: skip
        steps = st.slider(
            "Reverse diffusion steps", 0, most, key="purify_step", on_change=_stand,
            help="How far the purifier goes, worked out anew for these users. 0 is the encoded history, not denoised: not the "
            "raw state, which stands beside it.",
        )  # fmt: skip
    if turned:
        st.rerun()  # the clock of this part is set when the whole page runs
    state.remember("k", "purify_step", [steps] if steps < most else [])
    return int(steps)


def _advance(of: Spaces, most: int) -> None:
    """One picture further while playing; the end stops it."""
    if not st.session_state.get("walking"):
        return
    if st.session_state.get("just_walking"):
        st.session_state["just_walking"] -= 1
        return
    now = st.session_state.get("purify_step", most)
    if now >= most:
        st.session_state["walking"] = False
        st.rerun()
    st.session_state["purify_step"] = next(stop for stop in spaces.stops(most) if stop > now)


def _stand() -> None:
    """Somebody moves the slider: playing stops."""
    st.session_state["walking"] = False


def _pictures(run: Run, of: Spaces, look: Look, flat: dict[str, np.ndarray] | None, steps: int | None) -> None:
    still = flat is not None
    points = flat or of.flat(steps)
    areas = {space: spaces.domain(xy) for space, xy in points.items()} if still else of.domains()
    frame = spaces.frame(of.about, points)
    titles = {**spaces.TITLES, "purified": spaces.step_title(of.purifier, steps, of.most)}
    panes = [charts.Pane(space, titles[space], areas[space]) for space in points]
    hue = spaces.hue(look.colour, frame)
    chart = charts.linked(frame, panes, hue, _tooltip(frame), side=look.side)
    names = words.listed([spaces.TITLES[space] for space in points])
    # A container with a height scrolls sideways where the screen is narrower than the row of pictures.
    lines = -(-len(hue.names) // charts.columns(look.side))
    place = st.container()
    if look.side is not None:
        place = st.container(height=charts.fitted(look.side, len(panes)) + TITLE + LINE * lines, border=False)
    place.altair_chart(  # what it is called must not tell the step: it is part of what the browser would draw anew
        chart, width="stretch" if look.side is None else "content", key="spaces",
        alt=f"{names} states of {len(frame)} users, coloured by {look.colour.lower()}",
    )  # fmt: skip
    shown = words.listed([f"**{spaces.TITLES[space]}**: {WHAT[space]}" for space in points])
    shares = words.listed([f"{100 * share:.0f} %" for share in of.shares().values()])
    drawn = "" if still else f" The two directions hold {shares} of the variance."
    st.caption(f"{LEGEND} {shown}.{drawn}")


def _tooltip(frame: pd.DataFrame) -> list[alt.Tooltip]:
    shown = [
        alt.Tooltip("user:Q", title="user", format="d"),
        alt.Tooltip("interest:N", title="interest"),
        alt.Tooltip("popularity:Q", title="popularity level", format=".2f"),
        alt.Tooltip("conformity:Q", title="conformity", format=".2f"),
        alt.Tooltip("rate:Q", title="share of responses", format=".2f"),
        alt.Tooltip("count:Q", title="interactions known", format="d"),
    ]
    return [tip for tip in shown if tip.shorthand.split(":")[0] in frame]


def _scores(of: Spaces, steps: int | None) -> None:
    """The measures of each space, left to right as the pictures."""
    titles = {**spaces.TITLES, "purified": spaces.step_title(of.purifier, steps, of.most)}
    slow = bool(st.session_state.get("slow_scores"))
    columns: dict[str, dict[str, float | None]] = {}
    with st.spinner("Measuring …", show_time=False):
        for space in of.spaces:
            columns[titles[space]] = dict(of.scores(space, steps))
            if slow:
                columns[titles[space]] |= of.scores(space, steps, slow=True)
    found = {name for own in columns.values() for name, value in own.items() if value is not None}
    shown = [name for name in spaces.SCORES if name in found]
    st.table(spaces.score_rows(columns, shown), hide_index=True, border="horizontal", alt="Scores of the spaces")
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.toggle("Also a non-linear probe", key="slow_scores", bind="query-params", help="Takes some seconds for each step.")
        with st.popover("What do the scores mean?", icon=":material/help:", type="tertiary"):
            for name in shown:
                title, _, help = spaces.SCORES[name]
                st.markdown(f"**{words.plain(title)}** · {words.plain(help)}")
            st.markdown(f"Over the {len(of):,} users shown; probes are cross-fitted within them. More in docs/purification.md.")
            if of.met:
                st.markdown("The people of this log are in both worlds, so training has met them: the report keeps some apart.")


if __name__ == "__main__":
    show()
