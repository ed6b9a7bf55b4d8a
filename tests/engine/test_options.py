"""Options: what is refused, in which words, and what is described."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from engine.options import BadInput, Config, build, describe, option


@dataclass(frozen=True)
class Example(Config):
    rate: float = option(0.5, "a rate", low=0, high=1, source="paper §1")
    count: int = option(3, "a count", low=1)
    kind: str = option("a", "a kind", choices=("a", "b"))
    on: bool = option(True, "a switch")
    maybe: int | None = option(None, "perhaps", low=0)
    above: float = option(1.0, "positive", above=0)


def test_text_becomes_the_fields_type() -> None:
    made = build(Example, {"rate": "0.25", "count": "1_000", "kind": "b", "on": "false", "maybe": "7"}, "x")
    assert made == Example(0.25, 1000, "b", False, 7)
    assert build(Example, {"maybe": "none"}, "x").maybe is None
    assert build(Example, {"count": 4.0}, "x").count == 4


@pytest.mark.parametrize(
    ("name", "value", "legal"),
    [
        ("rate", "1.5", "a number from 0 to 1"),
        ("rate", "nan", "a number from 0 to 1"),
        ("rate", "much", "a number from 0 to 1"),
        ("rate", None, "a number from 0 to 1"),
        ("count", "2.5", "a whole number, 1 or more"),
        ("count", True, "a whole number, 1 or more"),
        ("count", -1, "a whole number, 1 or more"),
        ("kind", "c", "one of a, b"),
        ("on", "perhaps", "true or false"),
        ("maybe", -1, "a whole number, 0 or more or none"),
        ("above", 0, "a number, more than 0"),
    ],
)
def test_a_bad_value_is_named_with_what_is_legal(name: str, value: object, legal: str) -> None:
    with pytest.raises(BadInput) as caught:
        build(Example, {name: value}, "method")
    shown = value if isinstance(value, str) and name in ("rate", "count") else repr(value)
    assert str(caught.value) == f"method.{name} = {shown} is not legal: it must be {legal}"


def test_an_unknown_name_lists_the_known_and_the_nearest() -> None:
    with pytest.raises(BadInput, match=r"method\.raet is not an option \(did you mean rate\?\); known: rate, count, kind"):
        build(Example, {"raet": 1}, "method")


def test_configs_are_checked_when_made_in_code() -> None:
    with pytest.raises(BadInput, match="rate = 2 is not legal"):
        Example(rate=2)


def test_describe_tells_default_doc_source_and_range() -> None:
    described = describe(Example)
    assert list(described) == ["rate", "count", "kind", "on", "maybe", "above"]
    assert described["rate"]["default"] == 0.5
    assert described["rate"]["source"] == "paper §1"
    assert described["kind"]["choices"] == ["a", "b"]
    assert described["maybe"]["optional"] is True
