"""From rows of the database to what is compared: groups of seeds, names that tell them apart, differences, sentences, CSV.

Pure functions over `runs_db.store.Run` and `engine.spec.RunSpec`; nothing here touches Streamlit or the database.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app import words
from app.measures import MEASURES, Measure
from engine.studies.tables import harmless

if TYPE_CHECKING:
    import pandas as pd

    from engine.spec import RunSpec
    from runs_db.store import Run


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (ddof 0, as the paper prints it) over n values."""

    mean: float
    std: float
    n: int


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed, newest first. `name` tells it apart from the groups beside it."""

    key: str
    name: str
    runs: tuple[Run, ...]

    @property
    def first(self) -> Run:
        """A run of the group; method, purifier and dataset are those of all."""
        return self.runs[0]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds in ascending order."""
        return tuple(sorted({run.seed for run in self.runs}))

    def spread(self, metric: str) -> Spread | None:
        """Over the runs that have the metric in their results; None where none has."""
        return spread(value for run in self.runs if (value := result(run, metric)) is not None)


def result(run: Run, metric: str) -> float | None:
    """A number of a done run's results; None where it is missing or not finite."""
    value = (run.summary or {}).get(metric)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def spread(values: Iterable[float]) -> Spread | None:
    """None for no values."""
    found = list(values)
    if not found:
        return None
    mean = math.fsum(found) / len(found)
    return Spread(mean, math.sqrt(math.fsum((value - mean) ** 2 for value in found) / len(found)), len(found))


def grouped(runs: Sequence[Run], specs: Mapping[int, RunSpec] | None = None) -> list[Group]:
    """Groups in the order in which `runs` first meets them. With `specs` of one run of each group (or more), groups of
    the same method and purifier are named by what differs between them."""
    members: dict[str, list[Run]] = {}
    for run in runs:
        members.setdefault(run.group_key, []).append(run)
    names = _names({key: own[0] for key, own in members.items()}, specs or {})
    return [Group(key, names[key], tuple(own)) for key, own in members.items()]


def flat(spec: RunSpec) -> dict[str, Any]:
    """Everything a spec says, as `section.option` or a field's own name. The order is that of the spec."""
    fields = ("dataset", "method", "purifier", "seed", "episodes", "user_steps", "evaluation_episodes", "device", "threads")
    values = {name: getattr(spec, name) for name in fields}
    for section, options in spec.settings.items():
        values |= {f"{section}.{name}": value for name, value in options.items()}
    return values


def differences(specs: Mapping[int, RunSpec]) -> dict[str, dict[int, Any]]:
    """Setting → {run: value} for those that are not the same in all runs; a run without the setting is left out of it.

    Where methods (purifiers, datasets) differ, so do the options that there are: then only the values of those that several
    have are compared.
    """
    told = {run: flat(spec) for run, spec in specs.items()}
    names = dict.fromkeys(name for values in told.values() for name in values)
    found = {}
    for name in names:
        values = {run: own[name] for run, own in told.items() if name in own}
        section = name.partition(".")[0]
        expected = len({repr(own.get(section)) for own in told.values()}) == 1
        if (expected and len(values) < len(told)) or len({repr(value) for value in values.values()}) > 1:
            found[name] = values
    return found


def _names(first: Mapping[str, Run], specs: Mapping[int, RunSpec]) -> dict[str, str]:
    many_datasets = len({run.dataset for run in first.values()}) > 1
    alike: dict[tuple[str, str], list[str]] = {}
    for key, run in first.items():
        alike.setdefault((run.label, run.dataset), []).append(key)
    names: dict[str, str] = {}
    for (label, dataset), keys in alike.items():
        base = words.label_title(label) + (f" on {words.dataset_title(dataset)}" if many_datasets else "")
        known = {first[key].id: specs[first[key].id] for key in keys if first[key].id in specs}
        differ = {name: values for name, values in differences(known).items() if name != "seed"} if len(keys) > 1 else {}
        for key in keys:
            own_id = first[key].id
            parts = [f"{_short_name(name)} {words.short(own[own_id])}" for name, own in differ.items() if own_id in own]
            more = "" if len(parts) <= 3 else f", and {len(parts) - 2} more"
            told = ", ".join(parts if len(parts) <= 3 else parts[:2]) + more
            names[key] = f"{base} · {told}" if told else base
    taken: dict[str, int] = {}
    for key, name in names.items():
        taken[name] = taken.get(name, 0) + 1
        if taken[name] > 1:
            names[key] = f"{name} ({taken[name]})"
    return names


def _short_name(path: str) -> str:
    name = path.rsplit(".", 1)[-1]
    return {"lam": "λ", "max_len": "Max Len", "purifier.steps": "S", "steps": "S"}.get(name, name.replace("_", " "))


def best(values: Mapping[str, float], measure: Measure) -> list[str]:
    """The names with the best value, several where they are printed alike."""
    if not values or not measure.better:
        return []
    top = max(values.values(), key=lambda value: measure.better * value)
    return [name for name, value in values.items() if measure.text(value) == measure.text(top)]


def findings(groups: Sequence[Group], max_len: int | None = None) -> list[str]:
    """What a comparison shows, a sentence for each measure, worked out from the results. Markdown with bold names."""
    told = (
        ("len", "kept people longest", f"steps of at most {max_len}" if max_len else "steps"),
        ("r_cum", "collected the most responses in a session", "slates' worth"),
        ("ad", "shared exposure most evenly", "AD"),
        ("utility", "showed what people truly like", "genuine preference"),
    )
    sentences = []
    for metric, deed, unit in told:
        means = {group.name: found.mean for group in groups if (found := group.spread(metric)) is not None}
        if len(means) < 2:
            continue
        measure = MEASURES[metric]
        winners = best(means, measure)
        value = measure.text(means[winners[0]])
        amount = f"{unit} {value}" if metric in ("ad", "utility") else f"{value} {unit}"
        rest = sorted(
            ((name, mean) for name, mean in means.items() if name not in winners), key=lambda pair: -measure.better * pair[1]
        )
        against = f", against {measure.text(rest[0][1])} of {words.plain(rest[0][0])}" if rest else ""
        names = words.listed(f"**{words.plain(name)}**" for name in winners)
        sentences.append(f"{names} {deed}: {amount}{', both' if len(winners) == 2 else ''}{against}.")
    return sentences


def csv_text(frame: pd.DataFrame) -> str:
    """CSV of a table. A text that a spreadsheet would take for a formula gets a ' in front (leading = + - @, tab, return)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([harmless(str(name)) for name in frame.columns])
    for row in frame.itertuples(index=False):
        writer.writerow([harmless(value) for value in row])
    return out.getvalue()
