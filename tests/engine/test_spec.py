"""RunSpecs: defaults, round trips, groups, and every way to get one wrong."""

from __future__ import annotations

import pytest

from engine import spec
from engine.options import BadInput


def test_defaults_are_filled_in_and_round_trip() -> None:
    made = spec.make(method="dsrm_hrl", settings={"method": {"lam": "0.7"}})
    assert made.purifier == "diffusion"
    assert spec.make(method="a2c").purifier == "identity"
    assert made.settings["method"]["lam"] == 0.7
    assert made.settings["world"]["slate"] == 10
    assert spec.from_json(made.to_json()) == made


def test_group_is_everything_but_the_seed() -> None:
    a, b, c = spec.make(seed=1), spec.make(seed=2), spec.make(seed=1, settings={"method": {"lam": 0.1}})
    assert a.group() == b.group() != c.group()


def test_references_take_no_episodes() -> None:
    assert spec.make(method="balanced", episodes=500).episodes == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "dsrm"}, "method 'dsrm' is unknown"),
        ({"purifier": "x"}, "purifier 'x' is unknown; known: identity"),
        ({"seed": -1}, "seed = -1 is not legal: it must be a whole number, 0 or more"),
        ({"threads": 0}, "threads = 0 is not legal"),
        ({"episodes": 0}, "episodes = 0 is not legal: dsrm_hrl learns"),
        ({"user_steps": 0}, "user_steps = 0 is not legal"),
        ({"device": "tpu"}, "device = 'tpu' is not legal: it must be one of auto, cpu, cuda"),
        ({"settings": {"method": {"lam": -1}}}, r"method\.lam = -1 is not legal: it must be a number from 0 to 100"),
        ({"settings": {"method": {"typo": 1}}}, r"method\.typo is not an option"),
        ({"settings": {"wrold": {}}}, r"wrold is not a section of options \(did you mean world\?\)"),
        ({"settings": {"world": {"slate": 4000}}}, r"world\.slate = 4000 is not legal: it must be"),
        ({"settings": {"world": {"slate": 900}, "dataset": {"items": 800}}}, r"world\.slate = 900 .* 800 items"),
        ({"settings": {"world": {"slate": 200}}}, r"world\.slate × world\.max_len = 200 × 30 = 6000 is not legal"),
        ({"dataset": "nowhere.csv"}, None),
    ],
)
def test_bad_input_is_one_sentence(arguments: dict[str, object], message: str | None) -> None:
    if message is None:  # a path is looked at when it is read, not when the spec is made
        spec.make(**arguments)  # type: ignore[arg-type]
        return
    with pytest.raises(BadInput, match=message):
        spec.make(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"methud": "a2c"}', '{"method": 3}', '{"settings": {"world": 3}}', '{"settings": [1]}']
)
def test_bad_json_is_refused_in_words(text: str) -> None:
    with pytest.raises(BadInput):
        spec.from_json(text)


@pytest.mark.parametrize("text", ["lam=1", "method.lam", "method=1", ".lam=1"])
def test_set_needs_section_option_and_value(text: str) -> None:
    with pytest.raises(BadInput, match="--set"):
        spec.parse_sets([text])
