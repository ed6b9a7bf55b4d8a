"""RunSpec: all that decides a run's result, in one frozen record that round-trips through JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import catalog
from engine.options import BadInput, Config, build, option, suggest

if TYPE_CHECKING:
    from engine.contracts import LamRange

SECTIONS = ("dataset", "world", "state", "purifier", "method")
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class WorldConfig(Config):
    """`world.*`: the session rules (paper §5.1.1; the abandonment rule is KuaiSim's, see docs/worlds.md)."""

    slate: int = option(10, "items in a slate (K)", low=1, high=1000, source="KuaiSim's forks, paper §5.1")
    max_len: int = option(
        30, "patience at the start, T0; no session is longer", low=1, high=1000, source="paper §5.1.1 (Max Len)"
    )
    ad_bound: float = option(
        0.3, "a slate whose own AD reaches this costs one more unit of patience", low=0, high=2, source="KuaiSim's forks"
    )
    head_share: float = option(
        0.2,
        "share of the items that count as head, by exposures in the training log",
        above=0,
        high=0.99,
        source="paper §5.1.1",
    )
    repeats: bool = option(False, "whether an item may be shown twice in a session")
    responses: str = option("sampled", "clicks drawn, or their probabilities handed out", choices=("sampled", "expected"))
    train: str = option(
        "click", "the train world: the platform's own clicks, or a model fitted to the log", choices=("click", "fitted")
    )


@dataclass(frozen=True)
class StateConfig(Config):
    """`state.*`: the item vectors and the history encoder of stage I."""

    width: int = option(24, "width of states and item vectors (D)", low=2, high=512)
    candidates: int = option(
        20_000,
        "items that policies choose from at most; in a larger catalogue the most promising ones (docs/worlds.md)",
        low=100,
        high=10_000_000,
    )
    history: int = option(400, "the last interactions that a state is made of, the session included (H)", low=10, high=5000)
    epochs: int = option(12, "passes over the training log when item vectors are learnt", low=1, high=1000)
    learning_rate: float = option(0.02, "Adam's first step size for item vectors", above=0, high=1)
    decay: float = option(20.0, "precision of the Gaussian prior on users while item vectors are learnt", low=0, high=10_000)


@dataclass(frozen=True)
class RunSpec:
    """One run. `settings` holds every option of every section, defaults included, so that a spec means the same later on.

    seed: of training, stage I included; never of the world (`dataset.seed`). episodes: training sessions, 0 for references.
    user_steps: where given, the budget instead of episodes. evaluation_episodes: test users met at the end, at most all.
    threads: CPU threads of torch; part of the spec because sums depend on it.
    """

    dataset: str
    method: str
    purifier: str
    seed: int
    episodes: int
    user_steps: int | None
    evaluation_episodes: int
    device: str
    threads: int
    settings: Mapping[str, Mapping[str, Any]]

    def config(self, section: str) -> Any:
        """The checked config object of a section."""
        return build(config_class(self, section), self.settings[section], section)

    def lam_range(self) -> LamRange | None:
        """The λ that the policy of this run can be told after training; None where it has learnt one trade-off alone."""
        found = getattr(catalog.find("methods", self.method), "lam_range", None)
        moves: LamRange | None = None if found is None else found(self.config("method"))
        return moves

    def to_json(self) -> str:
        """One line of JSON with sorted keys; equal specs give equal text."""
        return json.dumps(asdict(self), sort_keys=True)

    def group(self) -> str:
        """A name for "everything but the seed": runs that share it are repetitions of one experiment."""
        return hashlib.sha256(replace(self, seed=0).to_json().encode()).hexdigest()[:12]

    def label(self) -> str:
        """Short text for people: method + purifier."""
        flat = self.method == "dsrm_hrl" and not self.settings["method"].get("hierarchical", True)
        return f"{self.method}{' (flat)' if flat else ''} + {self.purifier}"


def config_class(spec: RunSpec, section: str) -> type[Config]:
    """The dataclass that holds the options of a section of this spec."""
    if section == "world":
        return WorldConfig
    if section == "state":
        return StateConfig
    name = getattr(spec, section)
    return catalog.find(section + "s", name).Config


def make(
    dataset: str = "synthetic",
    method: str = "dsrm_hrl",
    purifier: str | None = None,
    seed: int = 11,
    episodes: int = 20_000,
    user_steps: int | None = None,
    evaluation_episodes: int = 1000,
    device: str = "auto",
    threads: int = 1,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> RunSpec:
    """A checked spec with every default filled in. Raises BadInput."""
    for name, value in (("dataset", dataset), ("method", method), ("purifier", purifier or "")):
        if not isinstance(value, str):
            raise BadInput(f"{name} = {value!r} is not legal: it must be a name")
    module = catalog.find("methods", method)
    purifier = purifier or catalog.default_purifier(method)
    catalog.find("purifiers", purifier)
    catalog.find("datasets", dataset)
    if catalog.is_path(dataset):
        dataset = str(Path(dataset).absolute())  # a spec means the same wherever it is run from
    _whole("seed", seed, 0)
    _whole("episodes", episodes, 0)
    _whole("evaluation_episodes", evaluation_episodes, 1)
    _whole("threads", threads, 1)
    if user_steps is not None:
        _whole("user_steps", user_steps, 1)
    if device not in DEVICES:
        raise BadInput(f"device = {device!r} is not legal: it must be one of {', '.join(DEVICES)}")
    settings = settings or {}
    if not isinstance(settings, Mapping) or not all(isinstance(values, Mapping) for values in settings.values()):
        raise BadInput("settings is not legal: it must be {section: {option: value}}")
    for section in settings:
        if section not in SECTIONS:
            raise BadInput(f"{section} is not a section of options{suggest(section, SECTIONS)}")
    if not module.LEARNS:
        episodes, user_steps = 0, None
    elif user_steps is None and episodes == 0:
        raise BadInput(f"episodes = 0 is not legal: {method} learns, it needs 1 or more")
    spec = RunSpec(dataset, method, purifier, seed, episodes, user_steps, evaluation_episodes, device, threads, {})
    full = {}
    for section in SECTIONS:
        values = dict(settings.get(section, {}))
        if section == "dataset" and catalog.is_path(dataset):
            values["path"] = dataset
        elif section == "dataset" and isinstance(values.get("path"), str) and values["path"].lower() != "none":
            values["path"] = str(Path(values["path"]).absolute())
        full[section] = asdict(build(config_class(spec, section), values, section))
    spec = replace(spec, settings=full)
    check_sizes(spec, catalog.find("datasets", dataset).catalogue_size(spec.config("dataset")))
    return spec


def from_json(text: str) -> RunSpec:
    """A checked spec from `to_json`'s text, or from a shorter hand-written one. Raises BadInput."""
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(f"the spec is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise BadInput("the spec must be a JSON object")
    known = RunSpec.__dataclass_fields__
    for name in values:
        if name not in known:
            raise BadInput(f"{name} is not a field of a spec{suggest(name, known)}")
    return make(**values)


def parse_sets(sets: Sequence[str]) -> dict[str, dict[str, str]]:
    """`["method.lam=0.5"]` → `{"method": {"lam": "0.5"}}`. Raises BadInput."""
    settings: dict[str, dict[str, str]] = {}
    for text in sets:
        path, equals, value = text.partition("=")
        section, dot, name = path.partition(".")
        if not (equals and dot and name):
            raise BadInput(f"--set {text!r} is not legal: write SECTION.OPTION=VALUE, for example method.lam=0.5")
        if section not in SECTIONS:
            raise BadInput(f"--set {text!r}: {section} is not a section of options{suggest(section, SECTIONS)}")
        settings.setdefault(section, {})[name] = value
    return settings


def check_sizes(spec: RunSpec, items: int | None) -> None:
    """Raises BadInput if the slate, or a whole session without repeats, does not fit a catalogue of `items` items."""
    slate, max_len = spec.settings["world"]["slate"], spec.settings["world"]["max_len"]
    if items is None:
        return
    if slate > items:
        raise BadInput(f"world.slate = {slate} is not legal: the catalogue has {items} items, so it must be {items} or less")
    if not spec.settings["world"]["repeats"] and slate * max_len > items:
        raise BadInput(
            f"world.slate × world.max_len = {slate} × {max_len} = {slate * max_len} is not legal: without repeats a session "
            f"needs that many items and the catalogue has {items}; set world.repeats=true or make one of them smaller"
        )


def _whole(name: str, value: Any, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise BadInput(f"{name} = {value!r} is not legal: it must be a whole number, {low} or more")
