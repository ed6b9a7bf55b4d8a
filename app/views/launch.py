"""Launch: choose what to compare, see what it will cost, and queue it. The options come from the engine's config classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import streamlit as st

from app import forms, launching, parts, state, words
from app.launching import OWN_LOG, Arm, Choices, Preset
from engine import catalog
from engine.data import LOG, ON_FIRST_USE
from engine.methods import METHODS
from engine.options import BadInput, Config
from engine.purify import PURIFIERS
from engine.spec import DEVICES, RunSpec, StateConfig, WorldConfig

OWN_PURIFIER = "Each method's own"
DATASETS = {words.dataset_title(name): name for name in catalog.TABLES["datasets"]}
METHOD_NAMES = {words.method_title(name): name for name in METHODS}
PURIFIER_NAMES = {OWN_PURIFIER: launching.OWN, **{words.purifier_title(name): name for name in PURIFIERS}}
STEPS = (1, 2, 3, 5, 8, 10, 15, 20, 30, 50, 100, 200, 500)
METHODS_PLAN, TABLE_2, TABLE_3, LAM, DIFFUSION = "Methods", "Table 2", "Table 3", "λ sweep", "Steps sweep"
PLANS = {
    METHODS_PLAN: "Cross methods with purifiers.",
    TABLE_2: "The paper's overall comparison: every method as its authors meant it, DSRM-HRL behind its diffusion purifier.",
    TABLE_3: "The paper's ablation: without the hierarchy (FLAT), without purification (HRL), with other denoisers, and whole.",
    LAM: "How much fairness costs: one run for each λ, each with a manager that knows only that λ.",
    DIFFUSION: "The paper's Figure 6: one run for each number of diffusion steps.",
}


def show() -> None:
    """The page."""
    st.title("Launch")
    with st.spinner("Loading the methods …"):
        catalog.listing("methods")
    grid = st.grid(3, min_column_width=230, gap=("small", "large"))
    with grid.cell(column_span=2):
        plan, problem = _chosen()
    with grid.cell():
        _summary(plan, problem)


def _chosen() -> tuple[Choices | None, str]:
    """What the form says, or the sentence that says why it cannot be used."""
    problems: list[str] = []

    def tried(read: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return read()
        except BadInput as error:
            problems.append(str(error))
            return otherwise

    st.subheader("What to compare")
    plan = st.segmented_control(
        "Plan",
        list(PLANS),
        wrap=True,
        default=METHODS_PLAN,
        required=True,
        key="plan",
        bind="query-params",
        label_visibility="collapsed",
    )
    st.caption(PLANS[plan or METHODS_PLAN])
    arms = tried(lambda: _arms(plan or METHODS_PLAN), ())
    st.subheader("Where and how long")
    dataset = _dataset()
    grid = st.grid(3, min_column_width=150)
    with grid.cell():
        lens = st.pills(
            "Max Len", [30, 50], selection_mode="multi", default=[30], key="max_len", bind="query-params",
            help="A user's patience at the start: no session is longer. The paper reports 30 and 50.",
        )  # fmt: skip
    with grid.cell():
        seeds = st.text_input(
            "Seeds", "11, 15, 19", key="seeds", bind="query-params",
            help="One run each. Seeds of training; the platform itself stays the same. The paper uses 11, 15 and 19.",
        )  # fmt: skip
    with grid.cell():
        episodes = st.text_input(
            "Episodes", "20,000", key="episodes", bind="query-params",
            help="Training sessions. The paper trains for 20,000. References such as Balanced take none.",
        )  # fmt: skip
    shared, methods, purifiers = _sliders(arms, plan or METHODS_PLAN)
    run = _options(arms, dataset, plan or METHODS_PLAN, shared, methods, purifiers)
    choices = Choices(
        arms=arms,
        dataset=dataset,
        seeds=tried(lambda: launching.whole_numbers(seeds, "seeds"), ()),
        max_lens=lens,
        episodes=tried(lambda: _whole(episodes, "episodes"), 0),
        user_steps=tried(lambda: _whole(run["user_steps"], "user_steps") if run["user_steps"] else None, None),
        evaluation_episodes=tried(lambda: _whole(run["evaluation"], "evaluation_episodes"), 1),
        threads=tried(lambda: _whole(run["threads"], "threads"), 1),
        device=run["device"],
        shared=shared,
        methods=methods,
        purifiers=purifiers,
    )
    return (None, problems[0]) if problems else (choices, "")


def _arms(plan: str) -> tuple[Arm, ...]:
    if plan == METHODS_PLAN:
        chosen = st.pills(
            "Methods", list(METHOD_NAMES), wrap=True, selection_mode="multi", default=["A2C", "Balanced", "DSRM-HRL"],
            key="method", bind="query-params",
        )  # fmt: skip
        purifiers = st.pills(
            "Purifiers", list(PURIFIER_NAMES), wrap=True, selection_mode="multi", default=[OWN_PURIFIER], key="purifier",
            bind="query-params",
            help="What stands between a user's history and the method. Each method's own: diffusion for DSRM-HRL, identity "
            "(the state as observed) for all others.",
        )  # fmt: skip
        names = [METHOD_NAMES[title] for title in chosen]
        with st.popover("What are these?", icon=":material/help:", type="tertiary"):
            for table, rows in (("methods", METHODS), ("purifiers", PURIFIERS)):
                for name in rows:
                    title = words.method_title(name) if table == "methods" else words.purifier_title(name)
                    st.markdown(f"**{words.plain(title)}** · {words.plain(catalog.summary(catalog.find(table, name)))}")
        return launching.crossed(names, [PURIFIER_NAMES[title] for title in purifiers])
    if plan == LAM:
        values = st.text_input("Values of λ", "0, 0.25, 0.5, 1, 2", key="lams", bind="query-params")
        preset = launching.lam_sweep(launching.numbers(values, "lam"))
    elif plan == DIFFUSION:
        values = st.text_input("Diffusion steps S", "5, 10, 20, 30, 50, 100", key="steps_list", bind="query-params")
        preset = launching.steps_sweep(launching.whole_numbers(values, "steps", 1))
    else:
        preset = launching.table_2() if plan == TABLE_2 else launching.table_3()
    _preset(preset)
    return preset.arms


def _preset(preset: Preset) -> None:
    names = [arm.title or words.label_title(f"{arm.method} + {arm.purifier}") for arm in preset.arms]
    if names:
        st.markdown(" ".join(f":gray-badge[{words.plain(name)}]" for name in names))
    if preset.missing:
        st.caption(f"Not built yet, and left out: {words.plain(words.listed(preset.missing))}.")


def _dataset() -> str:
    title = st.selectbox("Dataset", [*DATASETS, OWN_LOG], key="dataset", bind="query-params", help=(
        "Synthetic: nothing to download, and the truth is known. A log of your own: a CSV or Parquet file with the columns "
        "user, item, reward, time."
    ))  # fmt: skip
    if title in DATASETS:
        if DATASETS[title] not in ON_FIRST_USE:
            parts.absent(DATASETS[title])
        return DATASETS[title]
    path = st.text_input("Path of the log", key="log", bind="query-params", placeholder="path/to/log.csv", max_chars=500)
    return (path or "").strip()


def _sliders(arms: tuple[Arm, ...], plan: str) -> tuple[dict[str, dict[str, Any]], ...]:
    """λ and diffusion steps, where what is chosen has them; (shared, methods, purifiers) settings so far."""
    shared: dict[str, dict[str, Any]] = {}
    methods: dict[str, dict[str, Any]] = {}
    purifiers: dict[str, dict[str, Any]] = {}
    weighted = [name for name in _used(arms, "method") if plan != LAM and "lam" in _options_of("methods", name)]
    stepped = [name for name in _used(arms, "purifier") if plan != DIFFUSION and "steps" in _options_of("purifiers", name)]
    if not weighted and not stepped:
        return shared, methods, purifiers
    grid = st.grid(2, min_column_width=200, gap=("small", "medium"))
    if weighted:
        lam = grid.slider(
            "λ: weight of fairness", 0.0, 2.0, 0.5, 0.05, key="lam", bind="query-params",
            help="In the manager's reward. A conditioned manager learns all λ up to its largest at once and is evaluated at "
            "this one; Sessions moves it afterwards.",
        )  # fmt: skip
        methods = {name: {"lam": lam} for name in weighted}
    if stepped:
        steps = grid.select_slider(
            "S: diffusion steps", STEPS, 10, key="steps", bind="query-params",
            help="Reverse steps of the purifier. The paper finds 10 to 30 best and 500 harmful.",
        )  # fmt: skip
        purifiers = {name: {"steps": steps} for name in stepped}
    return shared, methods, purifiers


def _options(
    arms: tuple[Arm, ...], dataset: str, plan: str, shared: dict[str, Any], methods: dict[str, Any], purifiers: dict[str, Any]
) -> dict[str, Any]:
    """Everything else, in expanders; fills the three settings and returns the fields of the run itself."""
    st.subheader("Everything else", help="Every option of what is chosen. An empty field keeps the default that it shows.")
    world = any(forms.touched(name) for name in ("dataset", "world", "state"))
    with st.expander("Platform and sessions", world, icon=":material/public:"):
        module = "path" if dataset not in catalog.TABLES["datasets"] else dataset
        config = _config("datasets", dataset)
        st.markdown(f"**Dataset** · {words.plain(dataset if module != 'path' else 'a log of your own')}")
        shared["dataset"] = forms.fields("dataset", config, skip=("path",))
        st.markdown("**Sessions**")
        shared["world"] = forms.fields("world", WorldConfig, skip=("max_len",))
        st.markdown("**State**")
        shared["state"] = forms.fields("state", StateConfig)
    for table, used, kept in (("purifiers", "purifier", purifiers), ("methods", "method", methods)):
        for name in _used(arms, used):
            skip = {*kept.get(name, {})} | (
                {"lam", "conditioned"} if plan == LAM else {"steps"} if plan == DIFFUSION else set()
            )
            if not set(_options_of(table, name)) - skip:
                continue
            title = words.method_title(name) if table == "methods" else words.purifier_title(name)
            icon = ":material/water_drop:" if table == "purifiers" else ":material/psychology:"
            with st.expander(f"{title[:1].upper()}{title[1:]}", forms.touched(name), icon=icon):
                st.caption(words.plain(catalog.summary(catalog.find(table, name))))
                kept[name] = {**kept.get(name, {}), **forms.fields(name, _config(table, name), skip=skip)}
    with st.expander("Budget and machine", icon=":material/memory:"):
        grid = st.grid(4, min_column_width=120)
        steps = grid.text_input(
            "User steps", key="user_steps", bind="query-params", placeholder="none",
            help="A budget in slates shown instead of episodes.",
        )  # fmt: skip
        evaluation = grid.text_input(
            "Test users", "1000", key="evaluation", bind="query-params", help="Met once each at the end, at most all."
        )
        threads = grid.text_input(
            "Threads", "1", key="threads", bind="query-params",
            help="CPU threads of one run, part of what makes it repeatable. Several runs at once use a machine better.",
        )  # fmt: skip
        device = grid.selectbox("Device", DEVICES, key="device", bind="query-params", help="auto takes a GPU if there is one.")
    return {"user_steps": (steps or "").strip(), "evaluation": evaluation, "threads": threads, "device": device}


def _summary(choices: Choices | None, problem: str) -> None:
    made: list[RunSpec] = []
    if choices is not None:
        try:
            made = launching.specs(choices)
        except BadInput as error:
            problem = str(error)
    st.subheader("What will run")
    name = st.text_input("Name", key="name", max_chars=80, placeholder="for people, may stay empty")
    tags = st.multiselect(
        "Tags", state.store().tags(), key="new_tags", accept_new_options=True, placeholder="to find them again"
    )
    if problem:
        st.error(words.plain(problem), icon=":material/error:")
    first = {spec.group(): spec for spec in reversed(made)}
    first = dict(reversed(first.items()))
    seconds = {key: state.store().expected_seconds(spec) for key, spec in first.items()}
    grid = st.grid(2, min_column_width=100)
    grid.metric("Runs", len(made), help="Experiments × seeds.")
    grid.metric(
        "Expected", parts.expectation(made, seconds), help="From finished runs on this machine, over the slots of its workers."
    )
    unknown = launching.expected(made, seconds).unknown
    if unknown:
        names = words.listed([words.label_title(label) for label in unknown])
        st.caption(f"Unknown until a first run of {words.plain(names)} has finished on this machine.")
    pressed = st.button(
        f"Launch {words.count(len(made), 'run')}" if made else "Launch", type="primary", icon=":material/rocket_launch:",
        disabled=not made, key="launch", width="stretch",
    )  # fmt: skip
    if pressed:
        with state.told():
            st.session_state["launched"] = state.store().enqueue_all(made, name or "", tags)
            st.rerun()
    _launched()
    if made:
        rows = [_row(spec, seconds[key]) for key, spec in first.items()]
        st.dataframe(pd.DataFrame(rows), hide_index=True, width="stretch", alt="What will run")
        with st.expander("The same from a terminal", icon=":material/terminal:"):
            lines = [launching.command(spec, name or "", tags) for spec in made]
            st.code("\n".join(lines), language="bash", wrap_lines=True, height=min(90 + 46 * len(lines), 420))


def _row(spec: RunSpec, seconds: float | None) -> dict[str, Any]:
    told = [f"{name} {words.short(value)}" for section, own in launching.changes(spec).items() for name, value in own.items()]
    return {
        "Experiment": words.label_title(spec.label()),
        "Each": words.duration(seconds),
        "Settings": ", ".join(part.replace("lam ", "λ ").replace("max_len ", "Max Len ") for part in told) or "defaults",
    }


def _launched() -> None:
    ids: list[int] = st.session_state.get("launched", [])
    if not ids:
        return
    numbers = f"run {ids[0]} is" if len(ids) == 1 else f"runs {ids[0]} to {ids[-1]} are"
    st.success(f"Queued: {numbers} on the way.", icon=":material/check_circle:")
    groups = list(dict.fromkeys(run.group_key for run in state.store().runs(ids=ids)))
    with st.container(horizontal=True):
        state.link("runs", "Watch them", ":material/list_alt:")
        state.link("curves", "Their curves", ":material/show_chart:", group=groups)
    state.worker_hint(queued=len(ids))


def _used(arms: tuple[Arm, ...], part: str) -> list[str]:
    return list(dict.fromkeys(getattr(arm, part) for arm in arms))


def _config(table: str, name: str) -> type[Config]:
    import importlib

    if table == "datasets" and name not in catalog.TABLES["datasets"]:
        found: type[Config] = importlib.import_module(LOG).Config
        return found
    config: type[Config] = catalog.find(table, name).Config
    return config


def _options_of(table: str, name: str) -> list[str]:
    return list(_config(table, name).__dataclass_fields__)


def _whole(text: str | None, name: str) -> int:
    found = launching.whole_numbers((text or "").replace(",", "").replace(" ", "").replace("_", ""), name)
    if len(found) != 1:
        raise BadInput(f"{name} is empty: write a whole number")
    return found[0]


if __name__ == "__main__":
    show()
