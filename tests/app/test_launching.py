"""From choices to specs, commands and expectations."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from app import launching
from app.launching import Arm, Choices
from engine.arguments import add_spec_options, spec_from
from engine.methods import METHODS
from engine.options import BadInput
from engine.purify import PURIFIERS
from engine.spec import RunSpec

SMALL = {"dataset": {"users": 60, "train_users": 300, "items": 600}}


def parsed(line: str) -> tuple[RunSpec, argparse.Namespace]:
    """What `runs_db enqueue` makes of a command line."""
    words = shlex.split(line)
    assert words[:4] == ["python", "-m", "runs_db", "enqueue"]
    parser = argparse.ArgumentParser()
    add_spec_options(parser)
    parser.add_argument("--name")
    parser.add_argument("--tag", action="append", default=[], dest="tags")
    args = parser.parse_args(words[4:])
    return spec_from(args), args


def test_methods_are_crossed_with_purifiers_and_no_pair_comes_twice() -> None:
    arms = launching.crossed(["a2c", "dsrm_hrl"], [launching.OWN, "identity"])
    assert [(arm.method, arm.purifier) for arm in arms] == [
        ("a2c", "identity"),
        ("dsrm_hrl", "diffusion"),
        ("dsrm_hrl", "identity"),
    ]


def test_specs_are_arms_times_lengths_times_seeds() -> None:
    choices = Choices(launching.crossed(["a2c", "balanced"], [launching.OWN]), seeds=(11, 15), max_lens=(30, 50))
    made = launching.specs(choices)
    assert len(made) == 8
    assert len({spec.group() for spec in made}) == 4
    assert {spec.settings["world"]["max_len"] for spec in made} == {30, 50}
    assert {spec.episodes for spec in made if spec.method == "balanced"} == {0}


def test_settings_reach_only_what_they_belong_to() -> None:
    choices = Choices(
        launching.crossed(["a2c", "dsrm_hrl"], [launching.OWN]), seeds=(11,), shared=SMALL,
        methods={"dsrm_hrl": {"lam": "0.7"}, "a2c": {"entropy": "0.02"}}, purifiers={"diffusion": {"steps": 5}},
    )  # fmt: skip
    a2c, ours = launching.specs(choices)
    assert (a2c.settings["method"]["entropy"], ours.settings["method"]["lam"]) == (0.02, 0.7)
    assert ours.settings["purifier"]["steps"] == 5
    assert launching.changes(ours) == {
        "dataset": {"users": 60, "train_users": 300, "items": 600},
        "purifier": {"steps": 5},
        "method": {"lam": 0.7},
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"arms": ()}, "nothing is chosen yet"),
        ({"seeds": ()}, "seeds is empty"),
        ({"max_lens": ()}, "Max Len is empty"),
        ({"dataset": ""}, "the path of the log is empty"),
        ({"dataset": "/nowhere/log.csv"}, "there is no such file"),
        ({"seeds": tuple(range(500))}, "500 runs are too many"),
        ({"methods": {"a2c": {"gamma": "2"}}}, r"method.gamma = 2 is not legal: it must be a number from 0 to 1"),
        ({"shared": {"dataset": {"items": "100"}}}, r"world.slate × world.max_len = 10 × 30 = 300 is not legal"),
        ({"episodes": 0}, "episodes = 0 is not legal"),
        ({"arms": (Arm("a2c", "identity"), Arm("a2c", "identity"))}, "two of these runs would be the same"),
    ],
)
def test_bad_choices_get_a_sentence(change: dict[str, object], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        launching.specs(replace(Choices((Arm("a2c", "identity"),), seeds=(11,)), **change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "choices",
    [
        Choices((Arm("a2c", "identity"),), seeds=(11,)),
        Choices((Arm("dsrm_hrl", "identity", {"method": {"hierarchical": False}}),), seeds=(3,), episodes=777, threads=2),
        Choices(
            (Arm("balanced", "projection"),), seeds=(0,), shared=SMALL, evaluation_episodes=50, device="cpu", max_lens=(50,)
        ),
        Choices((Arm("a2c", "identity"),), seeds=(1,), user_steps=5000, episodes=0),
        Choices((Arm("fixed_weights", "identity"),), seeds=(1,), methods={"fixed_weights": {"omega_fair": "-0.5"}}),
    ],
)
def test_the_command_queues_the_very_same_run(choices: Choices) -> None:
    (made,) = launching.specs(choices)
    again, args = parsed(launching.command(made, "it's a name", ["a b", "c"]))
    assert again == made
    assert (args.name, args.tags) == ("it's a name", ["a b", "c"])


def test_the_command_of_a_log_names_it_once(tmp_path: Path) -> None:
    log = tmp_path / "my log.csv"
    log.write_text("user,item,reward,time\n")
    (made,) = launching.specs(Choices((Arm("random", "identity"),), dataset=str(log), seeds=(1,)))
    assert parsed(launching.command(made))[0] == made
    assert launching.command(made).count("my log") == 1


def test_presets_have_what_exists_and_name_what_does_not() -> None:
    two, three = launching.table_2(), launching.table_3()
    assert {arm.method for arm in two.arms} == set(launching.TABLE_2) & set(METHODS)
    assert len(two.arms) + len(two.missing) == 8
    assert [arm.title for arm in three.arms][:2] == ["FLAT", "HRL"]
    assert {arm.purifier for arm in three.arms} <= set(PURIFIERS)
    assert len(three.arms) + len(three.missing) == 6
    flat = launching.specs(Choices(three.arms, seeds=(11,)))[0]
    assert flat.label() == "dsrm_hrl (flat) + diffusion"


def test_sweeps_differ_in_one_setting() -> None:
    made = launching.specs(Choices(launching.lam_sweep([0, 0.5]).arms, seeds=(11,)))
    assert [spec.settings["method"]["lam"] for spec in made] == [0, 0.5]
    assert not any(spec.settings["method"]["conditioned"] for spec in made)
    made = launching.specs(Choices(launching.steps_sweep([5, 20]).arms, seeds=(11,)))
    assert [spec.settings["purifier"]["steps"] for spec in made] == [5, 20]


def test_seeds_are_read_as_people_write_them() -> None:
    assert launching.whole_numbers(" 11,15 ; 19\n11", "seeds") == [11, 15, 19]
    assert launching.numbers("0, .5 1e-1", "lam") == [0, 0.5, 0.1]
    for text in ("11, x", "-1", "1.5", "9" * 40):
        with pytest.raises(BadInput, match=r"seeds = .* is not legal"):
            launching.whole_numbers(text, "seeds")
    with pytest.raises(BadInput, match="lam = 'much' is not legal"):
        launching.numbers("much", "lam")


def test_expectations_add_up_and_name_the_unknown() -> None:
    made = launching.specs(Choices(launching.crossed(["a2c", "balanced"], ["identity"]), seeds=(11, 15)))
    seconds = {spec.group(): 30.0 if spec.method == "a2c" else None for spec in made}
    found = launching.expected(made, seconds)
    assert (found.seconds, found.unknown) == (60.0, ("balanced + identity",))
