"""Sessions: step through what a policy did with one user, alone or beside another policy with the same luck."""

from __future__ import annotations

import random
from dataclasses import dataclass

import altair as alt
import numpy as np
import streamlit as st

from app import live, replay, state, words
from app.charts import colours
from app.charts import session as charts
from app.replay import Controls, Session
from engine.options import BadInput
from runs_db.models import DONE
from runs_db.store import Run

MOST = 400  # finished runs to choose from
PACE = 1.0  # seconds a slate while playing
LEGEND = (
    "**Reading the pictures.** A red mark: the slate was too one-sided. ω: what the manager weighs. :orange[Head] and "
    ":blue[tail] items: between the dashed lines a slate costs nothing extra. Maps: each state on its own first two principal "
    "components; dots are other users at the start of a session, from :blue[niche] to :orange[popular] taste; the ring is "
    "where this user began."
)
NOBODY = 0  # in the second choice: no run beside


@dataclass(frozen=True)
class Side:
    """One of the policies on the stage: its run, and λ and steps as moved (None: as trained)."""

    letter: str
    run: Run
    key: live.Key
    lam: float | None
    steps: int | None

    @property
    def title(self) -> str:
        """Short name with what was moved."""
        moved = [f"λ {self.lam:g}"] if self.lam is not None else []
        moved += [f"S {self.steps}"] if self.steps is not None else []
        return f"{words.label_title(self.run.label)}, seed {self.run.seed}" + (f" · {', '.join(moved)}" if moved else "")


def show() -> None:
    """The page."""
    st.title("Sessions")
    runs = {run.id: run for run in state.store().runs(states=[DONE], sort="-id", limit=MOST)}
    if not runs:
        state.start_here(
            "Here you watch a trained policy serve one user, slate by slate: what it shows, what the user answers, and what "
            "makes the user leave. It needs a finished run. The demonstration on Home makes three in half a minute.",
            ("home", "Demonstration", ":material/play_arrow:"),
            ("launch", "Launch", ":material/rocket_launch:"),
        )
        return
    sides = _sides(runs)
    users = live.theatre(sides[0].key).users
    if any(live.theatre(side.key).users != users for side in sides):
        raise BadInput("these two runs have different users: choose two runs on the same dataset to see them side by side")
    user = _user(sides, users)
    sessions = [live.session(side.key, user, side.lam, side.steps) for side in sides]
    _stage(sides, sessions)


def _sides(runs: dict[int, Run]) -> list[Side]:
    ids = list(runs)
    grid = st.grid(2, min_column_width=320, gap=("small", "large"))
    cells = grid.cell(), grid.cell()
    state.linked("run", "run_a", ids, [ids[0]], several=False)
    with cells[0]:
        first = st.selectbox("Policy", ids, format_func=lambda run: _option(runs[run]), key="run_a", persist_state="session")
    state.remember("run", "run_a", [first])
    alike = [run for run in ids if runs[run].dataset == runs[first].dataset]
    state.linked("beside", "run_b", [NOBODY, *alike], [NOBODY], several=False)
    with cells[1]:
        second = st.selectbox(
            "Beside it", [NOBODY, *alike], format_func=lambda run: _option(runs[run]) if run else "nobody",
            key="run_b", persist_state="session",
            help="The same user with the same luck. Choose the same run twice to see what another λ or number of steps does.",
        )  # fmt: skip
    state.remember("beside", "run_b", [second] if second else [])
    sides = []
    for letter, run, cell in (("a", first, cells[0]), ("b", second, cells[1])):
        if run:
            with cell:
                sides.append(_moved(letter, runs[run]))
    return sides


def _option(run: Run) -> str:
    named = f" · {run.name}" if run.name else ""
    return f"{run.id} · {words.label_title(run.label)} · seed {run.seed} · {words.dataset_title(run.dataset)}{named}"


def _moved(letter: str, run: Run) -> Side:
    """The sliders that this run has."""
    can: Controls = replay.controls(state.store().spec(run.id))
    lam: float | None = None
    steps: int | None = None
    grid = st.grid(2, min_column_width=130)
    if can.lam is not None and can.lam_max is not None:
        lam = grid.slider(
            "λ: weight of fairness", 0.0, can.lam_max, can.lam, can.lam_max / 40, key=f"lam.{letter}.{run.id}",
            bind="query-params", help="This policy has learnt many λ in one training. Moving it replays the session.",
        )  # fmt: skip
        lam = None if lam == can.lam else lam
    if can.steps is not None:
        steps = grid.slider(
            "S: reverse diffusion steps", 0, can.steps, can.steps, key=f"steps.{letter}.{run.id}", bind="query-params",
            help="How far the purifier goes: 0 leaves the encoded history as it is. Moving it replays the session.",
        )  # fmt: skip
        steps = None if steps == can.steps else steps
    return Side(letter, run, live.key(run), lam, steps)


def _user(sides: list[Side], users: int) -> int:
    """Which test user is on the stage."""
    if "user" not in st.session_state and "user" not in st.query_params:
        st.session_state["user"] = _longest(sides[0])
    if st.session_state.get("user", 0) >= users:
        st.session_state["user"] = users - 1
    with st.container(horizontal=True, vertical_alignment="bottom"):
        user = st.number_input(
            "Test user", 0, users - 1, key="user", bind="query-params", width=150, persist_state="session",
            help=f"One of {users:,} users whom no training has seen.",
        )  # fmt: skip
        st.button("Longest session", on_click=_pick, args=(_longest, sides[0]), icon=":material/hourglass_full:")
        st.button("Shortest session", on_click=_pick, args=(_shortest, sides[0]), icon=":material/hourglass_disabled:")
        if len(sides) > 1:
            st.button("Most unlike", on_click=_pick, args=(_unlike, *sides), icon=":material/call_split:",
                      help="The user of some hundred whose two sessions differ most in responses.")  # fmt: skip
        st.button("Anybody", on_click=_pick, args=(_anybody, users), icon=":material/casino:")
    return int(user)


def _pick(how: object, *args: object) -> None:
    with state.told():
        st.session_state["user"] = how(*args)  # type: ignore[operator]
        st.session_state["step"] = 1


def _longest(side: Side) -> int:
    table = live.outcomes(side.key, side.lam, side.steps)
    return int(table.sort_values(["len", "r_cum"], kind="stable")["user"].iloc[-1])


def _shortest(side: Side) -> int:
    table = live.outcomes(side.key, side.lam, side.steps)
    return int(table.sort_values(["len", "r_cum"], kind="stable")["user"].iloc[0])


def _unlike(one: Side, other: Side) -> int:
    tables = [live.outcomes(side.key, side.lam, side.steps) for side in (one, other)]
    apart = np.abs(tables[0]["r_cum"].to_numpy() - tables[1]["r_cum"].to_numpy())
    return int(tables[0]["user"].iloc[int(apart.argmax())])


def _anybody(users: int) -> int:
    return random.randrange(users)


def _stage(sides: list[Side], sessions: list[Session]) -> None:
    """What moves while stepping, in a fragment of its own so that a step redraws nothing else."""
    length = max(len(session) for session in sessions)
    playing = bool(st.session_state.get("playing"))

    @st.fragment(run_every=PACE if playing else None)
    def part() -> None:
        with state.told():
            _advance(length)
            step = _transport(sessions, length)
            grid = st.grid(len(sides), min_column_width=380, gap=("medium", "large"))
            for side, session in zip(sides, sessions, strict=True):
                with grid.cell():
                    _side(side, session, min(step, len(session)), step, length, alone=len(sides) == 1)
            st.caption(LEGEND)

    part()


def _advance(length: int) -> None:
    """One slate further while playing; the end stops it."""
    if not st.session_state.get("playing"):
        return
    if st.session_state.pop("just_started", False):
        return
    if st.session_state.get("step", 1) >= length:
        st.session_state["playing"] = False
        st.rerun()
    st.session_state["step"] = st.session_state.get("step", 1) + 1


def _transport(sessions: list[Session], length: int) -> int:
    parted = replay.parting(*sessions) if len(sessions) == 2 else None
    state.linked("step", "step", range(1, length + 1), [1], several=False)

    def go(to: int) -> None:
        st.session_state["step"] = min(max(to, 1), length)
        st.session_state["playing"] = False

    def toggle() -> None:
        playing = not st.session_state.get("playing")
        if playing and st.session_state.get("step", 1) >= length:
            st.session_state["step"] = 1
        st.session_state["playing"] = st.session_state["just_started"] = playing

    now, playing = int(st.session_state["step"]), bool(st.session_state.get("playing"))
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        back = st.button("Back", on_click=go, args=(now - 1,), icon=":material/skip_previous:", shortcut="Left")
        turned = st.button(
            "Pause" if playing else "Play", on_click=toggle, key="play", type="primary", shortcut="Space",
            icon=":material/pause:" if playing else ":material/play_arrow:",
        )  # fmt: skip
        forth = st.button("Forth", on_click=go, args=(now + 1,), icon=":material/skip_next:", shortcut="Right")
        ended = st.button("End", on_click=go, args=(length,), icon=":material/last_page:", shortcut="End")
        jumped = False
        if len(sessions) == 2:
            jumped = st.button(
                "Where they part", on_click=go, args=(parted or 1,), icon=":material/call_split:", disabled=parted is None,
                shortcut="P",
            )  # fmt: skip
            st.caption("They never part: the same slates to the end." if parted is None else f"They part at slate {parted}.")
    if turned or (playing and (back or forth or ended or jumped)):
        st.rerun()  # the clock of this part is set when the whole page runs
    step = st.slider("Slate", 1, length, key="step", on_change=go_on) if length > 1 else 1
    state.remember("step", "step", [step] if step > 1 else [])
    return int(step)


def go_on() -> None:
    """Somebody moves the slider: playing stops."""
    st.session_state["playing"] = False


def _side(side: Side, session: Session, step: int, asked: int, length: int, *, alone: bool) -> None:
    dot = {"a": ":material/looks_one:", "b": ":material/looks_two:"}[side.letter]
    st.markdown(f"{'' if alone else dot + ' '}**{words.plain(side.title)}**")
    if asked > len(session):
        st.info(
            f"This user has left after {words.count(len(session), 'slate')}; the other policy goes on.",
            icon=":material/logout:",
        )
    else:
        st.caption(words.plain(replay.step_words(session, step)))
    grid = st.grid(5 if alone else 1, min_column_width=170, gap=("small", "medium"))
    left, right = (grid.cell(column_span=3), grid.cell(column_span=2)) if alone else (grid.cell(), grid.cell())
    with left:
        _slate(session, step, alone=alone)
        if alone:
            _maps(side, session, step)
    with right:
        _lines(side, session, step, length)
        if step == len(session):
            st.info(words.plain(replay.ending(session)), icon=":material/flag:")
        if not alone:
            _maps(side, session, step)


def _lines(side: Side, session: Session, step: int, length: int) -> None:
    shown: dict[str, alt.Chart | alt.LayerChart] = {
        "patience": charts.patience(session.steps, session.max_len, step, length),
        "answers": charts.answers(session.steps, length),
    }
    weights: dict[str, list[float]] = {
        name: session.choices[name] for name in ("omega_acc", "omega_fair") if name in session.choices
    }
    if weights:
        shown["weights"] = charts.weights(weights, length)
    shown["exposure"] = charts.exposure(session.steps, session.slate, session.ad_bound, length)
    for name, chart in shown.items():
        st.altair_chart(chart, width="stretch", key=f"{name}_{side.letter}", alt=f"{name.capitalize()} over the session")


def _slate(session: Session, step: int, *, alone: bool) -> None:
    rows = session.slates[session.slates["step"] == step]
    known = bool(rows["liking"].notna().any())
    frame = {
        "Item": rows["title"].tolist(),
        "Tags": [", ".join(tags) for tags in rows["tags"]],
        "Group": [["head" if head else "tail"] for head in rows["head"]],
        "Answer": [_answer(value) for value in rows["response"]],
    }
    if known:
        frame["True liking"] = (100 * rows["liking"]).tolist()
    frame["Popularity"] = (100 * rows["percentile"]).tolist()
    if alone:
        frame["Rank"] = rows["rank"].tolist()
    config = {
        "Item": st.column_config.TextColumn("Item", pinned=True),
        "Tags": st.column_config.TextColumn("Tags", width=110 if alone else 92),
        "Group": st.column_config.MultiselectColumn(
            "Group", options=["head", "tail"], color=[colours.HEAD, colours.TAIL], width=64,
            help="Head: the most exposed of the catalogue, 20 % unless the run says otherwise (world.head_share).",
        ),
        "Popularity": st.column_config.ProgressColumn(
            "Popularity", min_value=0, max_value=100, format="%.0f %%", width=88,
            help="Share of the catalogue that was exposed less in the training log.",
        ),
        "Rank": st.column_config.NumberColumn("Rank", format="%d", width=52, help="1 is the most exposed item."),
        "Answer": st.column_config.TextColumn("Answer", width=62),
        "True liking": st.column_config.ProgressColumn(
            "True liking", min_value=0, max_value=100, format="%.0f %%", width=88,
            help="How probably this user likes the item, popularity's pull and the session's weariness left out.",
        ),
    }  # fmt: skip
    st.dataframe(
        frame, hide_index=True, width="stretch", height=38 + 35 * min(len(rows), 12), column_config=config, alt="The slate"
    )


def _answer(value: float) -> str:
    if value in (0.0, 1.0):
        return "✓ yes" if value else "·"
    return f"{value:.2f}"


def _maps(side: Side, session: Session, step: int) -> None:
    crowd = live.crowd(side.key)
    maps = [("raw", "Observed state", colours.RAW)]
    if not np.allclose(crowd.raw, crowd.state, atol=1e-6):
        maps.append(("state", f"Purified by {words.purifier_title(side.run.purifier)}", colours.PURIFIED))
    grid = st.grid(2, min_column_width=170)
    for which, title, colour in maps:
        chart = charts.state_map(*replay.map_rows(crowd, session, which), step, title, colour)
        grid.altair_chart(chart, width="stretch", key=f"map_{which}_{side.letter}", alt=title)


if __name__ == "__main__":
    show()
