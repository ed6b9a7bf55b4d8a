"""Numbers, times and names as people read them. Pure functions, no Streamlit."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runs_db.store import Run

# Names that are not simply capitalised.
_NAMES = {
    "a2c": "A2C",
    "td3": "TD3",
    "bcq": "BCQ",
    "mofir": "MOFIR",
    "dorl": "DORL",
    "dnair": "DNaIR",
    "sac4ir": "SAC4IR",
    "dsrm_hrl": "DSRM-HRL",
    "fixed_weights": "Fixed weights",
    "rce": "RCE",
    "tce": "TCE",
    "bod": "BOD",
    "ml-100k": "MovieLens-100K",
    "kuairec": "KuaiRec",
    "kuairand-pure": "KuaiRand-Pure",
    "synthetic": "Synthetic",
}


def method_title(name: str) -> str:
    """A method's name for people; names without an entry are capitalised."""
    return _NAMES.get(name, name.replace("_", " ").capitalize())


def purifier_title(name: str) -> str:
    """A purifier's name for people."""
    return _NAMES.get(name, name.replace("_", " "))


def dataset_title(name: str) -> str:
    """A dataset's name for people; of a path, the file's name."""
    return _NAMES.get(name, name.rsplit("/", 1)[-1])


def label_title(label: str) -> str:
    """`dsrm_hrl (flat) + diffusion` → `DSRM-HRL (flat) + diffusion`."""
    method, plus, purifier = label.partition(" + ")
    name, space, rest = method.partition(" ")
    return f"{method_title(name)}{space}{rest}{plus}{purifier_title(purifier) if plus else ''}"


def duration(seconds: float | None) -> str:
    """`0.8 s`, `42 s`, `3 min 20 s`, `1 h 12 min`; `–` where unknown."""
    if seconds is None:
        return "–"
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 and whole < 600 else "")
    minutes = round(seconds / 60)
    return f"{minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")


def doing(run: Run) -> str:
    """What an active or queued run does now: `training, 45 %, about 12 s left`."""
    if run.state == "queued":
        return "waits for a free slot"
    parts = [run.stage or run.state]
    if run.stage_total and run.stage_done:
        parts.append(f"{100 * min(run.stage_done / run.stage_total, 1):.0f} %")
    if run.eta_seconds is not None and run.eta_seconds >= 1:
        parts.append(f"about {duration(max(round(run.eta_seconds), 1)).replace('.0', '')} left")
    return ", ".join(parts)


def ago(moment: float | None, now: float | None = None) -> str:
    """How long ago a time (seconds since 1970) was: `just now`, `3 min ago`."""
    if moment is None:
        return "–"
    seconds = (time.time() if now is None else now) - moment
    if seconds < 5:
        return "just now"
    if seconds < 86_400:
        coarse = seconds if seconds < 60 else seconds // 60 * 60
        if coarse < 60:
            return f"{int(coarse)} s ago"
        return f"{duration(coarse if coarse < 3600 else coarse // 3600 * 3600)} ago"
    days = int(seconds // 86_400)
    return f"{count(days, 'day')} ago"


def count(number: int, noun: str, several: str | None = None) -> str:
    """`1 run`, `3 runs`, `1,200 runs`."""
    return f"{number:,} {noun if number == 1 else several or noun + 's'}"


def listed(parts: Iterable[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    parts = list(parts)
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {last} {parts[-1]}" if parts else ""


def short(value: object) -> str:
    """A setting's value in few characters."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if value is None:
        return "none"
    return str(value)


def plain(text: str) -> str:
    """Text as data: what Markdown would read as markup, a link, an image, a colour or a formula is shown as it stands."""
    return "".join(f"\\{letter}" if letter in _MARKUP else letter for letter in text).replace("\n", " ")


_MARKUP = frozenset("\\`*_{}[]()#+-.!|<>~$:&@")
