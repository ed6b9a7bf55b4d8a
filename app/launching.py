"""From what was chosen on Launch to RunSpecs, the commands that queue the same, and the time they will take.

Nothing here touches Streamlit. Making specs imports the engine's methods and so torch; everything else does not.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from app import words
from engine import catalog
from engine.methods import METHODS
from engine.options import BadInput
from engine.purify import PURIFIERS
from engine.spec import RunSpec, config_class, make
from engine.studies import compared, table3

MOST = 400  # runs of one launch
OWN = "own"  # a method's own default purifier
OWN_LOG = "A log of my own"  # a dataset's title in forms and links
Settings = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Arm:
    """One row of a comparison: a method behind a purifier, with settings of its own."""

    method: str
    purifier: str
    settings: Settings = field(default_factory=dict)
    title: str = ""


@dataclass(frozen=True)
class Preset:
    """A table or sweep of the paper as far as its parts exist; missing: the rows that do not."""

    arms: tuple[Arm, ...]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choices:
    """All that the form says. shared: settings of dataset, world and state; methods, purifiers: settings of each by name."""

    arms: Sequence[Arm]
    dataset: str = "synthetic"
    seeds: Sequence[int] = (11, 15, 19)
    max_lens: Sequence[int] = (30,)
    episodes: int = 20_000
    user_steps: int | None = None
    evaluation_episodes: int = 1000
    device: str = "auto"
    threads: int = 1
    shared: Settings = field(default_factory=dict)
    methods: Settings = field(default_factory=dict)
    purifiers: Settings = field(default_factory=dict)


def crossed(methods: Iterable[str], purifiers: Iterable[str]) -> tuple[Arm, ...]:
    """Every method behind every purifier; `own` stands for the method's default. No pair twice."""
    pairs = (
        (method, catalog.default_purifier(method) if name == OWN else name) for method, name in product(methods, purifiers)
    )
    return tuple(Arm(method, purifier) for method, purifier in dict.fromkeys(pairs))


TABLE_2 = compared.PAPERS


def table_2() -> Preset:
    """Overall performance: each method behind its own default purifier."""
    arms = tuple(Arm(name, catalog.default_purifier(name)) for name in TABLE_2 if name in METHODS)
    return Preset(arms, tuple(words.method_title(name) for name in TABLE_2 if name not in METHODS))


def table_3() -> Preset:
    """The ablation: FLAT, HRL, HRL behind heuristic denoisers, and all of DSRM-HRL."""
    arms = tuple(Arm(row.method, row.purifier, row.settings, row.title) for row in table3.ROWS if row.purifier in PURIFIERS)
    return Preset(arms, tuple(row.title for row in table3.ROWS if row.purifier not in PURIFIERS))


def lam_sweep(values: Iterable[float]) -> Preset:
    """One run for each λ, with a manager that knows only that λ."""
    settings = [{"method": {"conditioned": False, "lam": value}} for value in values]
    return Preset(tuple(Arm("dsrm_hrl", "diffusion", own, f"λ = {own['method']['lam']:g}") for own in settings))


def steps_sweep(values: Iterable[int]) -> Preset:
    """Figure 6: one run for each number of diffusion steps."""
    settings = [{"purifier": {"steps": value}} for value in values]
    return Preset(tuple(Arm("dsrm_hrl", "diffusion", own, f"S = {own['purifier']['steps']}") for own in settings))


def specs(choices: Choices) -> list[RunSpec]:
    """All runs: arms × Max Len × seeds, in this order. Raises BadInput with a sentence for the form."""
    if not choices.arms:
        raise BadInput("nothing is chosen yet: pick at least one method and one purifier")
    if not choices.seeds:
        raise BadInput("seeds is empty: write one or more whole numbers, for example 11, 15, 19")
    if not choices.max_lens:
        raise BadInput("Max Len is empty: pick 30, 50 or both")
    many = len(choices.arms) * len(choices.max_lens) * len(choices.seeds)
    if many > MOST:
        raise BadInput(f"{many} runs are too many for one launch: it may have {MOST}")
    _existing(choices.dataset)
    made = []
    for arm, max_len in product(choices.arms, choices.max_lens):
        shared = {section: dict(values) for section, values in choices.shared.items()}
        shared["world"] = {"max_len": max_len, **shared.get("world", {})}
        shared["method"] = {**choices.methods.get(arm.method, {}), **arm.settings.get("method", {})}
        shared["purifier"] = {**choices.purifiers.get(arm.purifier, {}), **arm.settings.get("purifier", {})}
        first = make(
            dataset=choices.dataset,
            method=arm.method,
            purifier=arm.purifier,
            seed=choices.seeds[0],
            episodes=choices.episodes,
            user_steps=choices.user_steps,
            evaluation_episodes=choices.evaluation_episodes,
            device=choices.device,
            threads=choices.threads,
            settings=shared,
        )
        made += [replace(first, seed=seed) for seed in choices.seeds]
    if len({spec.to_json() for spec in made}) < len(made):
        raise BadInput("two of these runs would be the same: change a setting, or remove what is doubled")
    return made


def _existing(dataset: str) -> None:
    if dataset in catalog.TABLES["datasets"]:
        return
    if not dataset:
        raise BadInput("the path of the log is empty: write where your .csv, .tsv or .parquet file is")
    if catalog.is_path(dataset) and not Path(dataset).is_file():
        raise BadInput(f"dataset {dataset!r} is not legal: there is no such file")


def whole_numbers(text: str, name: str, low: int = 0) -> list[int]:
    """`11, 15 19` → [11, 15, 19], without repetition. Raises BadInput."""
    found = []
    for part in re.split(r"[,;\s]+", text.strip()):
        if not part:
            continue
        if not part.isdecimal() or len(part) > 15 or int(part) < low:
            raise BadInput(f"{name} = {part[:30]!r} is not legal: it must be whole numbers, {low} or more, separated by commas")
        found.append(int(part))
    return list(dict.fromkeys(found))


def numbers(text: str, name: str) -> list[float]:
    """`0, 0.5, 1` → [0.0, 0.5, 1.0], without repetition. Raises BadInput."""
    found = []
    for part in re.split(r"[,;\s]+", text.strip()):
        try:
            if part:
                found.append(float(part))
        except ValueError:
            raise BadInput(f"{name} = {part[:30]!r} is not legal: it must be numbers separated by commas") from None
    return list(dict.fromkeys(found))


def command(spec: RunSpec, name: str = "", tags: Iterable[str] = ()) -> str:
    """The line that queues the same run from a terminal: only what differs from the defaults."""
    line = ["python", "-m", "runs_db", "enqueue", "--dataset", spec.dataset, "--method", spec.method]
    if spec.purifier != catalog.default_purifier(spec.method):
        line += ["--purifier", spec.purifier]
    line += ["--seed", str(spec.seed)]
    if spec.user_steps is not None:
        line += ["--user-steps", str(spec.user_steps)]
    if spec.episodes != 20_000 and (spec.episodes or spec.user_steps is not None):  # references take none, whatever is asked
        line += ["--episodes", str(spec.episodes)]
    for option, value, default in (
        ("--evaluation-episodes", spec.evaluation_episodes, 1000),
        ("--device", spec.device, "auto"),
        ("--threads", spec.threads, 1),
    ):
        line += [] if value == default else [option, str(value)]
    for section, changed in changes(spec).items():
        for option, value in changed.items():
            line += ["--set", f"{section}.{option}={'none' if value is None else value}"]
    line += ["--name", name] if name else []
    for tag in tags:
        line += ["--tag", tag]
    return shlex.join(line)


def changes(spec: RunSpec) -> dict[str, dict[str, Any]]:
    """Section → the options that are not at their default. The path of a log is the dataset itself and left out."""
    found, itself = {}, catalog.is_path(spec.dataset)
    for section, values in spec.settings.items():
        defaults = asdict(config_class(spec, section)())
        left_out = ("path",) if section == "dataset" and itself else ()
        own = {name: value for name, value in values.items() if value != defaults[name] and name not in left_out}
        if own:
            found[section] = own
    return found


@dataclass(frozen=True)
class Expected:
    """seconds: of all runs whose like has finished before, one after the other; unknown: names of the others."""

    seconds: float
    unknown: tuple[str, ...]


def expected(made: Sequence[RunSpec], seconds: Mapping[str, float | None]) -> Expected:
    """Adds up the groups' expected seconds (`RunSpec.group` → seconds of one run)."""
    known = [seconds[spec.group()] for spec in made]
    unknown = dict.fromkeys(spec.label() for spec, own in zip(made, known, strict=True) if own is None)
    return Expected(sum(own for own in known if own is not None), tuple(unknown))
