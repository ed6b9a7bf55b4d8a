"""Options that users set: declared once on a frozen dataclass, then read by the command line, the forms and the docs.

A config is a frozen dataclass that inherits `Config` and whose fields are made by `option(default, doc, …)`. From it come
the checks (`__post_init__`), the parsing of `--set name=value` (`build`), and the description that `python -m engine list`
prints and the Launch form draws (`describe`).
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar


class BadInput(ValueError):
    """A value that cannot be used. The message is one sentence naming the argument, the value and what is legal."""


class Stopped(Exception):
    """Work was asked to stop and has stopped at a safe point."""


class Diverged(Exception):
    """Training produced a value that is not finite. Running the same spec again would do the same."""


def option(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] | None = None,
    source: str = "our choice",
) -> Any:
    """A documented field: `low` and `high` are legal bounds, `above` an excluded lower bound, `source` where it is from."""
    return dataclasses.field(
        default=default,
        metadata={"doc": doc, "low": low, "high": high, "above": above, "choices": choices, "source": source},
    )


@dataclasses.dataclass(frozen=True)
class Config:
    """Base of all configs: every value is checked when the object is made."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, kind = getattr(self, field.name), _kind(type(self), field.name)
            if not _is_legal(value, kind, field.metadata):
                raise BadInput(_refusal(field.name, value, kind, field.metadata))


C = TypeVar("C", bound=Config)


def describe(config: type[Config]) -> dict[str, dict[str, Any]]:
    """Field name → default, doc, source, type and range; what forms and `--json` listings are generated from."""
    described = {}
    for field in dataclasses.fields(config):
        kind, optional = _kind(config, field.name)
        meta = field.metadata
        described[field.name] = {
            "default": field.default,
            "doc": meta["doc"],
            "source": meta["source"],
            "type": kind.__name__,
            "optional": optional,
            "range": _legal((kind, optional), meta),
            "low": meta["low"],
            "high": meta["high"],
            "above": meta["above"],
            "choices": list(meta["choices"]) if meta["choices"] else None,
        }
    return described


def build(config: type[C], values: Mapping[str, Any], where: str) -> C:
    """A config from values that may be text, as on a command line. `where` prefixes names in messages (`method`).

    Raises BadInput for an unknown name, a value of the wrong type, or one out of range.
    """
    known = {field.name: field for field in dataclasses.fields(config)}
    parsed = {}
    for name, value in values.items():
        if name not in known:
            raise BadInput(f"{where}.{name} is not an option{suggest(name, known)}")
        kind, meta = _kind(config, name), known[name].metadata
        try:
            parsed[name] = _parse(value, kind)
        except (ValueError, TypeError, OverflowError):
            raise BadInput(_refusal(f"{where}.{name}", value, kind, meta)) from None
        if not _is_legal(parsed[name], kind, meta):
            raise BadInput(_refusal(f"{where}.{name}", value, kind, meta))
    return config(**parsed)


def suggest(name: str, known: Iterable[str]) -> str:
    """The end of an "unknown name" sentence: the nearest known name if there is one, then all of them."""
    names = list(known)
    near = difflib.get_close_matches(name, names, 1)
    return (f" (did you mean {near[0]}?)" if near else "") + f"; known: {', '.join(names) or 'none'}"


def _kind(config: type[Config], name: str) -> tuple[type, bool]:
    """(scalar type, may be None) of a field."""
    hint = typing.get_type_hints(config)[name]
    if isinstance(hint, types.UnionType):
        (kind,) = (part for part in typing.get_args(hint) if part is not type(None))
        return kind, True
    return hint, False


def _parse(value: Any, kind: tuple[type, bool]) -> Any:
    scalar, optional = kind
    if value is None or (isinstance(value, str) and optional and value.lower() in ("none", "null", "")):
        if optional:
            return None
        raise ValueError(value)
    if scalar is bool:
        if isinstance(value, bool):
            return value
        word = str(value).lower()
        if word in ("true", "1", "yes", "on"):
            return True
        if word in ("false", "0", "no", "off"):
            return False
        raise ValueError(value)
    if isinstance(value, bool):
        raise ValueError(value)
    if scalar is int:
        if isinstance(value, float) and not value.is_integer():
            raise ValueError(value)
        return int(value.replace("_", "")) if isinstance(value, str) else int(value)
    if scalar is float:
        return float(value)
    return str(value)


def _is_legal(value: Any, kind: tuple[type, bool], meta: Mapping[str, Any]) -> bool:
    scalar, optional = kind
    if value is None and optional:
        return True
    numeric = (int, float) if scalar is float else scalar
    ok = isinstance(value, numeric) and not (isinstance(value, bool) and scalar is not bool)
    if ok and isinstance(value, float):
        ok = math.isfinite(value)
    if ok and meta["low"] is not None:
        ok = value >= meta["low"]
    if ok and meta["above"] is not None:
        ok = value > meta["above"]
    if ok and meta["high"] is not None:
        ok = value <= meta["high"]
    if ok and meta["choices"]:
        ok = value in meta["choices"]
    return ok


def _refusal(name: str, value: Any, kind: tuple[type, bool], meta: Mapping[str, Any]) -> str:
    return f"{name} = {_short(value, kind[0])} is not legal: it must be {_legal(kind, meta)}"


def _legal(kind: tuple[type, bool], meta: Mapping[str, Any]) -> str:
    scalar, optional = kind
    if meta["choices"]:
        text = "one of " + ", ".join(meta["choices"])
    elif scalar is bool:
        text = "true or false"
    elif scalar is str:
        text = "text"
    else:
        text = "a whole number" if scalar is int else "a number"
        low = f"{meta['low']:g} or more" if meta["low"] is not None else None
        low = f"more than {meta['above']:g}" if meta["above"] is not None else low
        high = f"{meta['high']:g}" if meta["high"] is not None else None
        if meta["low"] is not None and high:
            text += f" from {meta['low']:g} to {high}"
        elif low and high:
            text += f", {low} and at most {high}"
        elif low or high:
            text += f", {low or f'at most {high}'}"
    return text + (" or none" if optional else "")


def _short(value: Any, kind: type) -> str:
    text = value if isinstance(value, str) and kind in (int, float) and value.strip() else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
