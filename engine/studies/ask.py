"""What a study is asked, and the runs that follow from it.

A study is a module of this folder:

- `Config`: its own options (`--set study.NAME=VALUE`), a `StudyConfig` where it has runs; `TITLE`, `QUESTION`: for people;
- `specs(ask)`: the runs that it needs, maybe none;
- `measure(ask, runs, kept)`: what it needs beside the runs' results, as JSON values; long work goes through `kept`, which
  keeps the result of a function on disk;
- `read(ask, runs, measured)`: a pure function of those numbers to a `Report`: tables, a chart, and sentences.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from engine import catalog
from engine.options import BadInput, build, option, suggest
from engine.options import Config as BaseConfig
from engine.spec import RunSpec, config_class, make, parse_sets
from engine.studies.tables import Table

if TYPE_CHECKING:
    import altair as alt

SEEDS = (11, 15, 19)
SECTION = "study"  # --set study.…: options of the study itself
Settings = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Budget:
    """How much a study may take. settings: of a smaller world and purifier, on datasets that can be made smaller."""

    episodes: int
    evaluation_episodes: int
    settings: Settings = field(default_factory=dict)


BUDGETS = {
    "quick": Budget(
        2000,
        300,
        {
            "dataset": {"users": 300, "train_users": 1500, "items": 600, "log_length": 60, "start": 20},
            "purifier": {"training_steps": 800, "parts": 20_000},
        },
    ),
    "full": Budget(20_000, 1000),  # the paper's training sessions
}


@dataclass(frozen=True)
class StudyConfig(BaseConfig):
    """`study.*` that every study with runs has."""

    episodes: int | None = option(None, "training sessions of a run, in place of the budget's", low=1, high=10_000_000)
    evaluation_episodes: int | None = option(None, "test users met at a run's end, in place of the budget's", low=1)
    tuned: str | None = option(None, "folder that `tune --out` wrote to: methods at their best points for this dataset")


@dataclass(frozen=True)
class Arm:
    """Runs that differ in nothing but the seed: a method behind a purifier, with settings of its own.

    variant: the folder in `study.tuned` that holds its own tuning, for a method that is another one with these settings; where
    that is not there it takes the method's. defaults: such a method's own defaults, which its tuning and --set may change.
    """

    title: str
    method: str
    purifier: str
    settings: Settings = field(default_factory=dict)
    variant: str = ""
    defaults: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """A finished run. metrics: its result.json. commit: the code that finished it."""

    spec: RunSpec
    metrics: Mapping[str, Any]
    folder: Path
    commit: str


Runs = Mapping[str, Run]  # by `digest` of their spec
Kept = Callable[[str, Mapping[str, Any], Callable[[], Any]], Any]  # (what, key, make) → make's JSON value, kept on disk


@dataclass(frozen=True)
class Report:
    """What a study found. findings: sentences worked out from the numbers. alt: what the chart shows, for who cannot see it."""

    findings: Sequence[str]
    tables: Sequence[Table]
    chart: alt.TopLevelMixin
    alt: str
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Ask:
    """What a study is asked. settings: what --set changes, section → option → text; config: the study's own options."""

    study: str
    dataset: str
    budget: str
    seeds: tuple[int, ...]
    settings: Settings
    config: Any

    @property
    def module(self) -> ModuleType:
        """The study."""
        return catalog.find("studies", self.study)

    @property
    def episodes(self) -> int:
        """Training sessions of a run."""
        return getattr(self.config, "episodes", None) or BUDGETS[self.budget].episodes

    @property
    def evaluation_episodes(self) -> int:
        """Test users met at a run's end, at most all there are."""
        return getattr(self.config, "evaluation_episodes", None) or BUDGETS[self.budget].evaluation_episodes

    @property
    def max_len(self) -> int:
        """`world.max_len` of the runs."""
        return int(self.spec(Arm("", "random", "identity")).settings["world"]["max_len"])

    def spec(self, arm: Arm, *, whole: bool = False) -> RunSpec:
        """The run of an arm with the first seed. What --set changes goes before the budget and what was tuned, what the arm is
        before all; options that this method or purifier has not are left out. whole: keep the dataset's size whatever the
        budget."""
        size = BUDGETS[self.budget]
        bare = RunSpec(self.dataset, arm.method, arm.purifier, 0, 0, None, 1, "cpu", 1, {})  # to look options up by
        settings: dict[str, dict[str, Any]] = {}
        for layer in ({} if whole else size.settings, arm.defaults, self.tuned(arm), self.settings, arm.settings):
            for section, values in layer.items():
                if layer is size.settings and section == "dataset" and self.dataset != "synthetic":
                    continue
                known = {field.name for field in fields(config_class(bare, section))}
                own = {name: value for name, value in values.items() if name in known or layer is arm.settings}
                settings.setdefault(section, {}).update(own)
        return make(
            dataset=self.dataset,
            method=arm.method,
            purifier=arm.purifier,
            seed=self.seeds[0],
            episodes=self.episodes,
            evaluation_episodes=self.evaluation_episodes,
            device="cpu",
            settings=settings,
        )

    def tuned(self, arm: Arm) -> Settings:
        """The best point that `tune` found for an arm's method on this dataset, where `study.tuned` says where it is kept.
        Raises BadInput where it is not there for a method that can be tuned: some at their best beside others is no
        comparison."""
        folder, method = getattr(self.config, "tuned", None), arm.method
        if folder is None or not hasattr(catalog.find("methods", method), "SEARCH"):
            return {}
        path = Path(folder) / f"tuning-{method}-{Path(self.dataset).stem}.json"
        own = path.parent / arm.variant / path.name
        path = own if own.exists() else path
        try:
            return {"method": json.loads(path.read_text(encoding="utf-8"))["winner"]["settings"]}
        except (OSError, ValueError, KeyError, TypeError):
            raise BadInput(
                f"study.tuned = {folder!r} is not legal: it holds no {path.name}, which `python -m engine tune "
                f"--method {method} --dataset {self.dataset} --out {folder}` writes"
            ) from None

    def repeated(self, arm: Arm) -> list[RunSpec]:
        """The runs of an arm, one a seed."""
        first = self.spec(arm)
        return [replace(first, seed=seed) for seed in self.seeds]

    def specs(self, arms: Iterable[Arm]) -> list[RunSpec]:
        """All runs of all arms, each once. Raises BadInput where an option of --set belongs to none of them."""
        made = [self.repeated(arm) for arm in arms]
        self.check_used([own[0] for own in made])
        return list({digest(spec): spec for own in made for spec in own}.values())

    def check_used(self, specs: Sequence[RunSpec]) -> None:
        """Raises BadInput where --set names an option that none of `specs` has: it would change nothing."""
        for section, values in self.settings.items():
            known = {field.name for spec in specs for field in fields(config_class(spec, section))}
            for name in values:
                if name not in known:
                    raise BadInput(
                        f"{section}.{name} is not an option of any run of {self.study}{suggest(name, sorted(known))}"
                    )

    def by_seed(self, arm: Arm, runs: Runs, metric: str) -> dict[int, float | None]:
        """Seed → a metric of the arm's finished runs, None where they do not have it."""
        return {spec.seed: runs[digest(spec)].metrics.get(metric) for spec in self.repeated(arm)}


def asked(
    study: str,
    *,
    dataset: str = "synthetic",
    budget: str = "quick",
    seeds: Sequence[int] | None = None,
    sets: Sequence[str] = (),
) -> Ask:
    """A checked Ask. Raises BadInput."""
    module = catalog.find("studies", study)
    catalog.find("datasets", dataset)
    if budget not in BUDGETS:
        raise BadInput(f"budget {budget!r} is unknown{suggest(budget, BUDGETS)}")
    if seeds is not None and not seeds:
        raise BadInput("seeds is empty: a study needs at least one")
    own = [text for text in sets if text.startswith(f"{SECTION}.")]
    settings = parse_sets([text for text in sets if text not in own])
    values = parse_sets([text.replace(f"{SECTION}.", "method.", 1) for text in own]).get("method", {})
    config = build(module.Config, values, SECTION)
    return Ask(study, dataset, budget, tuple(seeds or SEEDS), settings, config)


def digest(spec: RunSpec) -> str:
    """Names a run by all that decides its result; studies that need the same run share it."""
    return hashlib.sha256(spec.to_json().encode()).hexdigest()[:20]


def chosen(text: str | None, default: Iterable[str], known: Iterable[str], name: str) -> list[str]:
    """Names of a comma-separated option, or the default as far as it is known. Raises BadInput."""
    names = list(known)
    if text is None:
        return [part for part in default if part in names]
    parts = list(dict.fromkeys(part.strip() for part in text.split(",")))
    for part in parts:
        if part not in names:
            raise BadInput(f"{name} = {part!r} is not legal{suggest(part, names)}")
    return parts
