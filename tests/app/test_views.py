"""Every view without a browser: empty, one run, many, failed ones with hostile names, and what its buttons do."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app.views import VIEWS
from drawn import Page
from filled import HOSTILE, add, many, result, spec
from runs_db import queue
from runs_db.database import Unavailable
from runs_db.store import Store


def words(test: AppTest) -> str:
    """All that a page says, as one text."""
    parts = [*test.title, *test.subheader, *test.markdown, *test.caption, *test.error, *test.warning, *test.info, *test.success]
    return "\n".join(str(part.value) for part in parts).replace("\\", "")


def button(test: AppTest, key: str) -> None:
    """Press a button."""
    test.button(key=key).click().run()
    assert not test.exception, [str(error.value) for error in test.exception]


@pytest.mark.parametrize("view", [view.file for view in VIEWS])
def test_an_empty_view_says_what_to_do_next(lab: Store, page: Page, view: str) -> None:
    test = page(view)
    assert len(test.title) == 1
    if view == "launch":
        assert test.button(key="launch").label == "Launch 9 runs"
    elif view == "paper":
        assert test.button(key="paper_launch").label.startswith("Launch the ")
    elif view == "data":
        assert "Is what is shown more liked more?" in words(test), "the synthetic platform needs no run"
    else:
        assert "emonstration" in words(test)


@pytest.mark.parametrize("view", [view.file for view in VIEWS])
@pytest.mark.parametrize("count", [1, 120])
def test_views_stand_one_run_and_many(lab: Store, page: Page, view: str, count: int) -> None:
    many(lab, count, curve=5)
    test = page(view)
    if view not in ("sessions", "states"):  # whose runs have no files here
        assert not test.error


@pytest.mark.parametrize("view", [view.file for view in VIEWS])
def test_hostile_names_are_data(lab: Store, page: Page, view: str) -> None:
    name = HOSTILE[:80]
    number = add(lab, spec(), "failed", name=name, error=f"RuntimeError: {HOSTILE}", curve=3)
    lab.set_notes(number, HOSTILE)
    add(lab, spec("balanced"), name=name, curve=3)
    lab.folder(number).mkdir()
    lab.log_path(number).write_text(HOSTILE)
    test = page(view, run=[str(number)])
    for element in [*test.markdown, *test.caption, *test.error]:
        text = str(element.value)
        assert "<img" not in text.replace("\\<img", "")
        assert "[x](" not in text


def test_a_database_that_is_not_there_is_told_in_words(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNS_DB_URL", f"sqlite:///{tmp_path / 'none.sqlite'}")
    test = page()
    assert "there is no runs database" in words(test)
    assert test.code[0].value == "python -m runs_db migrate"


def test_an_old_schema_is_told_in_words(lab: Store, page: Page) -> None:
    with lab.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    assert "has schema 9999, which this version does not know" in words(page())


def test_a_locked_database_is_told_in_words(lab: Store, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    add(lab, spec())

    def locked(*_: object, **__: object) -> None:
        raise Unavailable("the database at x is locked by another program")

    monkeypatch.setattr(Store, "metric_names", locked)
    assert "is locked by another program" in words(page("curves"))


# Home


def test_the_demonstration_queues_three_runs(lab: Store, page: Page) -> None:
    test = page()
    assert "No worker is alive" in words(test)
    button(test, "start_demo")
    runs = lab.runs(sort="id")
    assert [run.method for run in runs] == ["dsrm_hrl", "a2c", "balanced"]
    assert {run.tags for run in runs} == {("demo",)}
    assert "3 queued" in words(test)
    assert "3 runs wait in the queue, but no worker is alive" in words(test)
    assert not any(element.key == "start_demo" for element in test.button), "not twice"


def test_the_end_of_the_demonstration_is_told_from_its_results(lab: Store, page: Page) -> None:
    for method, level in (("dsrm_hrl", 0.1), ("a2c", 0.9), ("balanced", 0.5)):
        add(lab, spec(method), level=level, name="Demo, seed 11", tags=["demo"])
    said = words(page())
    assert "**A2C + identity** kept people longest: 19.00 steps of at most 30, against 15.00 of Balanced + identity" in said
    assert "60 unseen users, 1 seed each" in said


def test_the_next_demonstration_takes_the_next_seed(lab: Store, page: Page) -> None:
    for method in ("dsrm_hrl", "a2c", "balanced"):
        add(lab, spec(method), name="Demo, seed 11", tags=["demo"])
    test = page()
    button(test, "start_demo")
    assert {run.seed for run in lab.runs(states=["queued"])} == {15}


def test_a_demonstration_that_failed_says_so(lab: Store, page: Page) -> None:
    for method in ("dsrm_hrl", "a2c", "balanced"):
        add(lab, spec(method), "failed", error="there was not enough memory", name="Demo, seed 11", tags=["demo"])
    test = page()
    assert "A2C + identity** is failed: there was not enough memory" in words(test)
    assert test.button(key="start_demo").label == "Run it again"


# Launch


def test_a_bad_value_is_told_beside_the_form_and_nothing_is_lost(lab: Store, page: Page) -> None:
    test = page("launch")
    test.text_input(key="seeds").set_value("1, 2").run()
    test.text_input(key="a2c.entropy").set_value("much").run()
    assert [str(error.value).replace("\\", "") for error in test.error] == [
        "method.entropy = much is not legal: it must be a number from 0 to 10"
    ]
    assert test.button(key="launch").disabled
    assert test.text_input(key="seeds").value == "1, 2"
    assert test.text_input(key="a2c.entropy").value == "much", "what was written stays to be mended"
    test.text_input(key="a2c.entropy").set_value("0.02").run()
    assert not test.error
    assert test.button(key="launch").label == "Launch 6 runs"
    button(test, "launch")
    runs = lab.runs(methods=["a2c"])
    assert {run.seed for run in runs} == {1, 2}
    assert lab.spec(runs[0].id).settings["method"]["entropy"] == 0.02
    assert "runs 1 to 6 are on the way" in words(test)


def test_sliders_reach_the_specs(lab: Store, page: Page) -> None:
    test = page("launch")
    test.slider(key="lam").set_value(1.5).run()
    test.select_slider(key="steps").set_value(30).run()
    button(test, "launch")
    (number,) = {run.id for run in lab.runs(methods=["dsrm_hrl"]) if run.seed == 11}
    settings = lab.spec(number).settings
    assert (settings["method"]["lam"], settings["purifier"]["steps"]) == (1.5, 30)


@pytest.mark.parametrize(
    ("plan", "label"), [("Table 3", "Launch 18 runs"), ("λ sweep", "Launch 15 runs"), ("Steps sweep", "Launch 18 runs")]
)
def test_presets_are_a_link_away(lab: Store, page: Page, plan: str, label: str) -> None:
    test = page("launch", plan=plan)
    assert not test.error
    assert test.button(key="launch").label == label


def test_a_link_fills_the_form(lab: Store, page: Page) -> None:
    test = page("launch", **{"seeds": "7", "max_len": ["30", "50"], "method": ["A2C"], "a2c.gamma": "0.7"})
    assert test.button(key="launch").label == "Launch 2 runs"
    assert "--set method.gamma=0.7" in "\n".join(code.value for code in test.code)


def test_what_a_launch_will_take_is_known_from_earlier_runs(lab: Store, page: Page) -> None:
    from runs_db.identity import host

    test = page("launch", method=["A2C"])
    assert test.metric[1].value == "unknown"
    assert "Unknown until a first run of A2C + identity has finished" in words(test)
    add(lab, spec("a2c"), summary=result(0.5, seconds={"total": 20.0}), host=host())
    test.run()
    assert test.metric[1].value == "50 min", "3 runs of 20,000 episodes at 20 s for 400"


def test_a_log_of_ones_own_must_exist(lab: Store, page: Page) -> None:
    test = page("launch", dataset="A log of my own", log="/nowhere/log.csv")
    assert "there is no such file" in words(test)


# Runs


def test_runs_are_filtered_through_the_address(lab: Store, page: Page) -> None:
    many(lab, 60)
    test = page("runs", methods=["a2c"], state=["done"])
    frame = test.dataframe[0].value
    assert set(frame["Method"]) == {"A2C + identity"}
    assert len(frame) == len(lab.runs(methods=["a2c"], states=["done"]))
    test.text_input(key="search").set_value("batch 3").run()
    assert set(test.dataframe[0].value["Name"]) == {"batch 3"}
    test.text_input(key="search").set_value("nothing like it").run()
    assert "No run fits these filters" in words(test)


def test_experiments_show_mean_and_deviation_over_seeds(lab: Store, page: Page) -> None:
    many(lab, 15)
    frame = page("runs", rows="Experiments").dataframe[0].value
    assert len(frame) == 5
    assert set(frame["Runs"]) == {3}
    assert frame["Len ↑"].str.contains("±").all()


def test_stop_resume_and_clone(lab: Store, page: Page) -> None:
    number = lab.enqueue(spec())
    test = page("runs", run=str(number))
    button(test, "stop")
    assert lab.get(number).state == "stopped"
    button(test, "resume")
    assert lab.get(number).state == "queued"
    test.text_input(key="clone_seed").set_value("77").run()
    button(test, "clone")
    assert [(run.seed, run.parent) for run in lab.runs(sort="-id", limit=1)] == [(77, number)]
    test.text_input(key="clone_seed").set_value("x").run()
    button(test, "clone")
    assert "seed = 'x' is not legal" in words(test)


def test_deleting_asks_first_and_spares_what_runs(lab: Store, page: Page) -> None:
    gone, busy = add(lab, spec()), add(lab, spec("balanced"), "running")
    (lab.folder(gone)).mkdir()
    test = page("runs", run=[str(gone), str(busy)])
    assert "cannot be undone" in words(test)
    assert len(lab.runs()) == 2, "nothing yet"
    button(test, "delete")
    assert [run.id for run in lab.runs()] == [busy]
    assert not lab.folder(gone).exists()


def test_a_selection_names_runs_and_not_rows(lab: Store, page: Page) -> None:
    first = add(lab, spec())
    test = page("runs", run=str(first))
    newer = add(lab, spec("balanced"))  # takes the first row
    test.run()
    assert f"Run {first} ·" in words(test)
    button(test, "delete")
    assert [run.id for run in lab.runs()] == [newer]


def test_one_run_shows_its_log_its_settings_and_its_error(lab: Store, page: Page) -> None:
    number = add(lab, spec(), "failed", error="the disk is full")
    lab.folder(number).mkdir()
    lab.log_path(number).write_text("line one\nline two\n")
    test = page("runs", run=str(number))
    assert "the disk is full" in words(test)
    assert [element.value for element in test.code] == ["line one\nline two"]
    test.session_state["detail"] = "Settings"
    test.run()
    assert "--set dataset.users=60" in test.code[0].value


def test_several_runs_show_only_what_differs(lab: Store, page: Page) -> None:
    ids = [add(lab, spec(settings={"method": {"entropy": entropy}})) for entropy in (0.0, 0.02)]
    test = page("runs", run=[str(number) for number in ids])
    frame = test.dataframe[1].value
    assert frame["Setting"].tolist() == ["method.entropy"]


def test_name_tags_and_notes_are_kept(lab: Store, page: Page) -> None:
    number = add(lab, spec())
    test = page("runs", run=str(number))
    test.session_state["detail"] = "Name, tags and notes"
    test.run()
    next(box for box in test.text_input if box.label == "Name").set_value("best so far")
    test.text_area[0].set_value("look at the tail")
    next(element for element in test.button if element.label == "Save").click().run()
    run = lab.get(number)
    assert (run.name, run.notes) == ("best so far", "look at the tail")


def test_a_run_of_the_command_line_is_imported_and_marked(lab: Store, page: Page, trained: Path) -> None:
    test = page("runs")
    test.text_input(key="import_folder").set_value("/nowhere").run()
    button(test, "import_now")
    assert "is not a folder" in words(test)
    test.text_input(key="import_folder").set_value(str(trained / "2")).run()
    button(test, "import_now")
    assert lab.runs()[0].imported
    assert list(test.dataframe[0].value["State"][0]) == ["done", "imported"]


# Curves


def test_curves_start_with_the_newest_and_say_whose_they_are(lab: Store, page: Page) -> None:
    many(lab, 30, curve=6)
    test = page("curves")
    assert len(test.multiselect(key="curve_groups").value) == 4
    assert "Greedy policy, on held-out users of the training platform" in words(test)
    test.segmented_control(key="policy").set_value("Exploring").run()
    assert "The exploring policy itself, on the users it trains on" in words(test)
    for show in ("Outcomes", "Manager", "Losses", "Choose"):
        test.segmented_control(key="show").set_value(show).run()
        assert not test.exception
    for control, value in (("lines", "Each seed"), ("over", "User steps")):
        test.segmented_control(key=control).set_value(value).run()
        assert not test.exception


def test_a_link_chooses_the_curves(lab: Store, page: Page) -> None:
    many(lab, 30, curve=6)
    key = lab.get(2).group_key
    test = page("curves", group=[key, "gone"])
    assert test.multiselect(key="curve_groups").value == [key]
    assert test.query_params["group"] == key, "what is gone leaves the address"


def test_runs_without_points_yet_say_so(lab: Store, page: Page) -> None:
    add(lab, spec(), "running")
    assert "no points yet" in words(page("curves"))


def test_a_following_page_looks_again_only_while_something_is_active(lab: Store) -> None:
    from app import state

    assert state.pace() is None
    number = lab.enqueue(spec())
    assert state.pace() == state.SLOW
    queue.ask(lab.database, number, queue.STOP)
    assert state.pace() is None
    add(lab, spec(), "running")
    assert state.pace() == state.PACE


# Sessions


def test_a_session_is_stepped_through(theatre: Store, page: Page) -> None:
    test = page("sessions", run="1", user="3")
    assert test.slider(key="step").value == 1
    next(element for element in test.button if element.label == "Forth").click().run()
    assert test.slider(key="step").value == 2
    assert test.query_params["step"] == "2"
    next(element for element in test.button if element.label == "End").click().run()
    assert test.slider(key="step").value == test.slider(key="step").max
    assert "Left after" in words(test) or "Stayed to the very end" in words(test)
    assert test.dataframe[0].value["Item"].str.startswith("item ").all()


def test_two_policies_stand_side_by_side(theatre: Store, page: Page) -> None:
    test = page("sessions", run="1", beside="2", user="3")
    assert len(test.dataframe) == 2
    assert "They part at slate" in words(test)
    next(element for element in test.button if element.label == "Most unlike").click().run()
    assert not test.exception


def test_lam_and_steps_replay_the_session(theatre: Store, page: Page) -> None:
    test = page("sessions", run="1", user="3")
    test.slider(key="steps.a.1").set_value(0).run()
    assert "S 0" in words(test)
    test.slider(key="lam.a.1").set_value(2.0).run()
    assert "λ 2, S 0" in words(test)
    assert not test.error
    plain = page("sessions", run="2", user="3")
    assert not any(str(slider.key).startswith(("lam", "steps")) for slider in plain.slider), "balanced has neither"
    vector = page("sessions", run="3", user="3")
    vector.slider(key="lam.a.3").set_value(9.0).run()
    assert "λ 9" in words(vector)
    assert not vector.error


def test_playing_goes_on_by_itself_and_stops_at_the_end(theatre: Store, page: Page) -> None:
    test = page("sessions", run="1", user="3")
    test.button(key="play").click().run()
    assert test.button(key="play").label == "Pause"
    last = test.slider(key="step").max
    for _ in range(int(last) + 2):
        test.run()
    assert test.slider(key="step").value == last
    assert test.button(key="play").label == "Play"


def test_a_run_without_its_files_says_so(lab: Store, page: Page) -> None:
    add(lab, spec())
    assert "run 1 has kept no policy" in words(page("sessions"))


# States


def scores(test: AppTest) -> dict[str, list[str]]:
    """Column → the values of the table of scores, by the order of measures."""
    table = test.table[0].value
    return {str(name): [str(value) for value in table[name]] for name in table.columns}


def test_states_are_measured_for_the_step_shown(theatre: Store, page: Page) -> None:
    test = page("states", run="1")
    last = scores(test)
    assert list(last) == ["Score", "Raw", "Purified, all 4 steps", "Clean"]
    assert last["Score"][0] == "Popularity R² ↓"
    test.slider(key="purify_step").set_value(0).run()
    first = scores(test)
    assert list(first)[2] == "Encoded, not denoised (step 0 of 4)"
    assert first["Raw"] != first["Encoded, not denoised (step 0 of 4)"]
    strip = [text.strip("*") for text in last["Raw"]], [text.strip("*") for text in first["Raw"]]
    assert strip[0] == strip[1], "what was observed does not move"
    assert test.query_params["k"] == "0"
    again = page("states", run="1", k="0")
    assert scores(again) == first, "a link shows the same"


def test_a_run_without_steps_has_no_slider(theatre: Store, page: Page) -> None:
    test = page("states", run="2")
    assert not test.slider
    assert list(scores(test))[2] == "Not purified"
    assert not test.error


def test_playing_walks_over_all_steps_and_stops(theatre: Store, page: Page) -> None:
    test = page("states", run="1")
    test.button(key="walk").click().run()
    assert test.button(key="walk").label == "Pause"
    seen = [test.slider(key="purify_step").value]
    for _ in range(5):
        test.run()
        seen.append(test.slider(key="purify_step").value)
    assert seen == [0, 1, 2, 3, 4, 4]
    assert test.button(key="walk").label == "Play"


@pytest.mark.parametrize("colour", ["Popularity", "Interest", "Conformity", "Activity"])
@pytest.mark.parametrize("layout", ["Large", "Small", "Stacked"])
def test_states_are_drawn_in_every_way(theatre: Store, page: Page, colour: str, layout: str) -> None:
    test = page("states", run="1", colour=colour, layout=layout)
    assert not test.error
    assert test.selectbox(key="colour").value == colour


def test_maps_are_asked_for_once_and_told_when_they_fail(theatre: Store, page: Page) -> None:
    from runs_db import chores, identity

    test = page("states", run="1", projection="UMAP")
    assert theatre.chore(1) is None, "looking asks for nothing"
    button(test, "draw_maps")
    chore = theatre.chore(1)
    assert chore is not None
    assert chore.state == "queued"
    assert "it waits for a free slot" in words(test)
    assert "No worker is alive" in words(test)
    assert not any(element.key == "draw_maps" for element in test.button), "not twice"
    claimed = chores.claim(theatre.database, 1, identity.mine(), threads=8, slots=8)
    assert claimed is not None
    test.run()
    assert "UMAP: a worker is on it" in words(test)
    chores.end(theatre.database, claimed, "failed", "there was not enough memory")
    test.run()
    assert "The maps could not be drawn: there was not enough memory" in words(test)
    assert test.button(key="draw_maps").label == "Try again"
    button(test, "draw_maps")
    chores.end(theatre.database, chores.claim(theatre.database, 1, identity.mine(), threads=8, slots=8), "failed", "x")  # type: ignore[arg-type]


def test_maps_that_are_there_are_shown(theatre: Store, page: Page) -> None:
    import torch

    from engine import checkpoint, maps
    from engine.run import load_run

    folder = theatre.folder(1)
    trained = load_run(folder)
    users = maps.people(trained).users
    points = {space: torch.randn(len(users), 2) for space in maps.SPACES}
    checkpoint.write_tensors(folder / maps.FILE, {"key": "", "users": users, "maps": dict.fromkeys(maps.KINDS, points)})
    try:
        test = page("states", run="1", projection="t-SNE")
        assert not test.error
        assert not any(element.key == "draw_maps" for element in test.button)
        assert not test.slider, "maps are drawn of all steps"
        assert list(scores(test))[2] == "Purified, all 4 steps"
    finally:
        (folder / maps.FILE).unlink()


def test_the_trap_is_a_switch_away_or_a_launch(theatre: Store, page: Page, tmp_path: Path) -> None:
    from engine.recorder import MemoryRecorder
    from engine.run import run

    test = page("states", run="1")
    assert not test.toggle(key="slow_scores").value
    assert not any(element.key == "trap" for element in test.toggle)
    assert "denoises the observed state" in words(test)
    sizes = {"world": {"slate": 6, "max_len": 8}, "state": {"width": 8, "history": 60, "epochs": 3}}
    paper = {"target": "observed", "training_steps": 400, "hidden": 32, "steps": 4}
    wanted = spec("balanced", purifier="diffusion", evaluation_episodes=60, device="cpu", settings={**sizes, "purifier": paper})
    number = add(theatre, wanted)
    try:
        run(wanted, MemoryRecorder(), theatre.folder(number))
        test = page("states", run="1", trap="true")
        assert f"Run {number} is trained by the paper's own loss" in words(test)
        found = scores(test)
        raw, purified = (float(found[name][0].strip("*").replace("−", "-")) for name in list(found)[1:3])
        assert abs(raw - purified) < 0.05, "it returns its input"
        test.toggle(key="trap").set_value(False).run()
        assert "returns its input" not in words(test)
        assert page("states").selectbox(key="states_run").value == 1, "at first the newest that purifies"
        itself = page("states", run=str(number))
        assert "is trained by the paper's own loss" in words(itself)
        assert not any(element.key == "trap" for element in itself.toggle)
    finally:
        theatre.delete([number])


def test_the_link_to_launch_fills_the_form_with_the_trap(theatre: Store, page: Page) -> None:
    from app.views import states

    query = states._launch(theatre.spec(1))
    test = page("launch", **query)
    assert not test.error
    assert test.button(key="launch").label == "Launch 1 run"
    code = "\n".join(element.value for element in test.code)
    for part in ("purifier.target=observed", "dataset.users=60", "--method balanced", "--purifier diffusion", "state.width=8"):
        assert part in code, part


def test_a_run_without_states_says_so(lab: Store, page: Page) -> None:
    add(lab, spec())
    assert "run 1 has kept no policy" in words(page("states"))
