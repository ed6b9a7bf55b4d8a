"""One colour for each method in all views, and a dash for each purifier. Learners are vivid, references muted."""

from __future__ import annotations

import colorsys
import hashlib
from collections.abc import Sequence

METHODS = {
    "dsrm_hrl": "#129A94",
    "a2c": "#E07A3F",
    "td3": "#C9A227",
    "bcq": "#7B68C8",
    "mofir": "#C2557A",
    "dorl": "#4C8FD6",
    "dnair": "#3F9E6B",
    "sac4ir": "#8A9A2E",
    "balanced": "#76879A",
    "fixed_weights": "#A28A6C",
    "greedy": "#B5605A",
    "popular": "#8C6A5D",
    "random": "#9BA3A8",
    "oracle": "#B08D1E",
}
SPARE = ("#2F9BB3", "#B36AC2", "#D0694F", "#5E9E3E", "#6A7BD1", "#B5893B")

HEAD, TAIL = "#D08A3C", "#3E86C6"  # items of the head and of the tail
YES, NO = "#2E9E6B", "#9AA5AB"  # a response, none
RAW, PURIFIED = "#B5835A", "#129A94"
WARNING = "#C8503C"
MUTED = "#8B979D"
INK = "#74828A"  # text inside charts that Streamlit's theme does not reach, readable on light and dark

# Kinds of interest: ten hues, then the same a shade darker; what has no colour of its own is MUTED.
INTERESTS = (
    "#23968E", "#CB6E30", "#9972DE", "#9D8525", "#418AD3", "#D95B89", "#249A4B", "#D54BD5", "#6A9322", "#D86259",
    "#236E7A", "#835E26", "#8B3DC7", "#68681E", "#3860BF", "#B6354A", "#21724D", "#AB3293", "#437021", "#A04D2F",
)  # fmt: skip

STATES = {
    "queued": "#8B979D",
    "starting": "#4C8FD6",
    "running": "#2F7FD0",
    "stopping": "#C9A227",
    "done": "#2E9E6B",
    "failed": "#C8503C",
    "stopped": "#9A7B5B",
    "diverged": "#B0487F",
}

DASHES = {
    "diffusion": [1, 0],
    "identity": [6, 3],
    "projection": [2, 2],
    "regression": [8, 3, 2, 3],
    "rce": [4, 2, 1, 2],
    "tce": [10, 4],
    "bod": [1, 3],
}


def of_method(method: str) -> str:
    """The colour of a method, also of one that this table does not know."""
    if method in METHODS:
        return METHODS[method]
    return SPARE[int(hashlib.sha256(method.encode()).hexdigest(), 16) % len(SPARE)]


def of_series(methods: Sequence[str]) -> list[str]:
    """A colour for each series, given its method: the method's own where it is alone, else shades of it."""
    place: dict[str, int] = {}
    colours = []
    for method in methods:
        several = methods.count(method)
        colours.append(_shade(of_method(method), place.get(method, 0), several))
        place[method] = place.get(method, 0) + 1
    return colours


def dashes(purifiers: Sequence[str], methods: Sequence[str]) -> list[list[int]]:
    """A dash for each series: solid unless its method is drawn behind several purifiers."""
    found = []
    for purifier, method in zip(purifiers, methods, strict=True):
        beside = {other for other, its in zip(purifiers, methods, strict=True) if its == method}
        found.append(DASHES.get(purifier, [3, 3]) if len(beside) > 1 else [1, 0])
    return found


def _shade(colour: str, index: int, several: int) -> str:
    """Shades between darker and lighter than `colour`, readable on light and on dark."""
    if several == 1:
        return colour
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    hue, _, saturation = colorsys.rgb_to_hls(red, green, blue)
    share = index / (several - 1)
    shifted = (hue + 0.09 * (share - 0.5)) % 1.0
    rgb = colorsys.hls_to_rgb(shifted, min(max(0.34 + 0.32 * share, 0.0), 1.0), saturation)
    return "#" + "".join(f"{round(255 * part):02X}" for part in rgb)
