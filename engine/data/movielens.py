"""MovieLens-100K: 943 people, 1,682 films, 100,000 real ratings; a rating of 4 or 5 is a positive response

GroupLens, https://grouplens.org/datasets/movielens/100k/ (research use). The ratings carry no exposures: an unrated film is
not known to have been shown, so unrated pairs are answered by the fitted response model (world/responses.py).
"""

from __future__ import annotations

import hashlib
import io
import re
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from engine.checkpoint import write_whole
from engine.contracts import Data
from engine.data import fetch
from engine.data.split import by_time
from engine.options import BadInput, option
from engine.options import Config as BaseConfig

NAME = "ml-100k"
RATINGS, USERS, ITEMS = 100_000, 943, 1682
DIGEST = "ec862504a8c24b195f5194e51fb18bb2d59428d00d96d6d1c63433a3bd5f2f47"  # of the ratings, see `digest`
URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
SIZE = "5 MB"
PACKAGE = "recbole==1.2.1"  # its wheel carries the same ratings; opened as a zip, never installed
MANUAL = (
    f"download {URL} in a browser, unpack it, and put u.data, u.item and u.genre (or ml-100k.inter and ml-100k.item of the "
    f"{PACKAGE} wheel) into the folder"
)


@dataclass(frozen=True)
class Config(BaseConfig):
    """`dataset.*` of `ml-100k`."""

    threshold: float = option(4.0, "ratings from here on are positive responses", low=1, high=5, source="this line of research")


def catalogue_size(config: Config) -> int:
    """Items in play, known without loading."""
    return ITEMS


def present(folder: Path) -> bool:
    """Whether `read` would find files there; they are not looked into."""
    return any((folder / name).exists() for name in ("u.data", "ml-100k.inter"))


def load(config: Config) -> Data:
    """The ratings from DATA_DIR, fetched first if they are not there. Raises BadInput with the manual steps."""
    folder = fetch.data_folder() / NAME
    if read(folder) is None:
        download(folder)
    found = read(folder)
    assert found is not None
    ratings, films = found
    item_of = {number: place for place, number in enumerate(films["item"])}
    fingerprint = hashlib.sha256(f"{NAME}-1 {DIGEST} {config.threshold}".encode()).hexdigest()
    return by_time(
        NAME,
        ratings["user"].to_numpy() - 1,
        ratings["item"].map(item_of).to_numpy(dtype=np.int64),
        (ratings["rating"] >= config.threshold).to_numpy(),
        ratings["time"].to_numpy(),
        None,
        films["tags"].tolist(),
        films["title"].tolist(),
        fingerprint,
        {NAME: DIGEST},
        {},
    )


def item_names(config: Config) -> list[str]:
    """GroupLens' number of each film, by id."""
    found = read(fetch.data_folder() / NAME)
    return [] if found is None else [str(number) for number in found[1]["item"]]


def read(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """(ratings: user, item, rating, time in the file's order; films: item, title, tags), or None where there are no files.

    Understands GroupLens' files and the wheel's. Raises BadInput for files that are not the published ratings.
    """
    names = ["user", "item", "rating", "time"]
    if (folder / "u.data").exists():
        ratings = pd.read_csv(folder / "u.data", sep="\t", names=names)
        genres = [line.split("|")[0] for line in (folder / "u.genre").read_text().split("\n") if line.strip()]
        rows = [line.split("|") for line in (folder / "u.item").read_text("latin-1").split("\n") if line.strip()]
        tags = [[genre for genre, flag in zip(genres, row[5:], strict=False) if flag == "1"] for row in rows]
        films = pd.DataFrame({"item": [int(row[0]) for row in rows], "title": [row[1] for row in rows], "tags": tags})
    elif (folder / "ml-100k.inter").exists():
        ratings = pd.read_csv(folder / "ml-100k.inter", sep="\t", skiprows=1, names=names)
        table = pd.read_csv(
            folder / "ml-100k.item",
            sep="\t",
            skiprows=1,
            names=["item", "title", "year", "tags"],
            dtype=str,
            keep_default_na=False,
        )
        title = table["title"] + table["year"].map(lambda year: f" ({year})" if re.fullmatch(r"\d{4}", year) else "")
        films = pd.DataFrame({"item": table["item"].astype(int), "title": title, "tags": table["tags"].str.split()})
    else:
        return None
    if len(ratings) != RATINGS or digest(ratings) != DIGEST:
        raise BadInput(
            f"{folder} holds {len(ratings)} ratings that are not the published {RATINGS}: remove the folder, then {MANUAL}"
        )
    films["tags"] = [[tag for tag in own if tag != "unknown"] for own in films["tags"]]
    return ratings.astype(np.int64), films.sort_values("item").reset_index(drop=True)


def digest(ratings: pd.DataFrame) -> str:
    """SHA-256 of the ratings in the order of user, item: equal for both sources."""
    table = ratings.sort_values(["user", "item"]).to_numpy().astype("<i8")
    return hashlib.sha256(table.tobytes()).hexdigest()


def download(folder: Path, say: fetch.Say = lambda _: None) -> None:
    """From GroupLens, or, where that does not answer, out of the wheel; checked by its content. Raises BadInput."""
    failures = []
    for source, ask, wanted in (
        ("GroupLens", _from_grouplens, r"u\.(data|item|genre)"),
        (PACKAGE, _from_wheel, r"ml-100k\.(inter|item)"),
    ):
        say(f"ml-100k: asking {source}")
        try:
            with zipfile.ZipFile(io.BytesIO(ask())) as opened, tempfile.TemporaryDirectory() as aside:
                files = {
                    Path(name).name: opened.read(name) for name in opened.namelist() if re.fullmatch(wanted, Path(name).name)
                }
                for name, content in files.items():
                    (Path(aside) / name).write_bytes(content)
                if read(Path(aside)) is None:
                    raise BadInput("the archive does not hold the ratings")
        except (OSError, BadInput, zipfile.BadZipFile) as error:
            failures.append(f"{source}: {error}")
            continue
        for name, content in files.items():
            write_whole(folder / name, content)
        say(f"ml-100k: {RATINGS} ratings from {source}, checksum right")
        return
    raise BadInput(f"dataset ml-100k could not be fetched ({'; '.join(failures)}): {MANUAL} {folder}")


def fetched(folder: Path, say: fetch.Say = lambda _: None) -> int:
    """See that the ratings are in the folder; returns how many there are. Raises BadInput with the manual steps."""
    if read(folder) is None:
        download(folder, say)
    found = read(folder)
    assert found is not None
    return len(found[0])


def _from_grouplens() -> bytes:
    return fetch.get(URL, limit=20_000_000)


def _from_wheel() -> bytes:
    return fetch.wheel(PACKAGE)
