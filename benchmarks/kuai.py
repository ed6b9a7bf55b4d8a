"""KuaiRec and KuaiRand-Pure at full row counts: files made from a seed in the published schema, loaded cold and cached."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

SECONDS = {"kuairec": (1_593_878_903, 63 * 86_400), "kuairand": (1_649_347_200, 30 * 86_400)}  # first moment, length


@dataclass(frozen=True)
class Sizes:
    """Of one dataset: users, items and rows of the training and the test part; repeats: rows that repeat a pair."""

    users: int
    items: int
    rows: int
    test_users: int
    test_items: int
    test_rows: int
    repeats: int
    most_repeated: int


KUAIREC = Sizes(7176, 10_728, 12_530_806, 1411, 3327, 4_676_570, 900_000, 2224)
KUAIRAND = Sizes(26_285, 7551, 1_436_609, 27_285, 7583, 1_186_059, 500, 3)


def write_kuairec(folder: Path, sizes: Sizes = KUAIREC, seed: int = 0) -> dict[str, int]:
    """big_matrix.csv, small_matrix.csv, item_categories.csv and kuairec_caption_category.csv with the published traps;
    returns how often each occurs."""
    rng = np.random.default_rng(seed)
    world = _World(sizes.users, sizes.items, rng)
    testers = np.sort(rng.permutation(sizes.users)[: sizes.test_users])
    tested = np.sort(rng.permutation(sizes.items)[: sizes.test_items])
    # The small matrix: all pairs but a few, users in order, the later half of them without times.
    pairs = np.sort(rng.permutation(sizes.test_users * sizes.test_items)[: sizes.test_rows])
    user, item = testers[pairs // sizes.test_items], tested[pairs % sizes.test_items]
    timeless = user > testers[len(testers) // 2]
    _matrix(folder / "small_matrix.csv", world, user, item, timeless, rng)
    # The big matrix: other pairs, popular videos more often, some pairs again and one of them very often.
    in_test = np.zeros((sizes.users, sizes.items), dtype=bool)
    in_test[np.ix_(testers, tested)] = True
    fresh = sizes.rows - sizes.repeats
    codes = _distinct(world, in_test, fresh, rng)
    again = rng.choice(codes, sizes.repeats)
    again[: sizes.most_repeated - 1] = codes[0]
    codes = np.sort(np.concatenate([codes, again]))
    none = np.zeros(len(codes), dtype=bool)
    _matrix(folder / "big_matrix.csv", world, codes // sizes.items, codes % sizes.items, none, rng)
    tags = [", ".join(map(str, rng.permutation(31)[:count])) for count in rng.integers(1, 5, sizes.items)]
    lines = [f'{video},"[{own}]"' if "," in own else f"{video},[{own}]" for video, own in enumerate(tags)]
    (folder / "item_categories.csv").write_text("\n".join(["video_id,feat", *lines]) + "\n")
    said = [f'{video},UNKNOWN,"caption, ""{video}""",[]' for video in range(0, sizes.items, 2)]
    head = "video_id,manual_cover_text,caption,topic_tag"
    (folder / "kuairec_caption_category.csv").write_text("\n".join([head, *said, "7,too,many,cells,here,and,more"]) + "\n")
    return {"repeats": len(codes) - len(np.unique(codes)), "timeless": int(timeless.sum())}


def write_kuairand(folder: Path, sizes: Sizes = KUAIRAND, seed: int = 0, videos: str | None = None) -> dict[str, int]:
    """The three logs and the videos' features of KuaiRand-Pure (`videos`: the text of a real feature file); returns how often
    each trap occurs."""
    rng = np.random.default_rng(seed)
    world = _World(sizes.test_users, sizes.test_items, rng)
    fresh = sizes.rows - sizes.repeats
    user = np.concatenate([np.arange(sizes.users), world.people(fresh - sizes.users, sizes.users, rng)])
    item = world.videos(fresh, sizes.items, rng)
    item[: sizes.items] = rng.permutation(sizes.items)
    moment = _moments("kuairand", fresh, rng)
    again = rng.integers(0, fresh, sizes.repeats)
    user, item, moment = (np.concatenate([part, part[again]]) for part in (user, item, moment))
    early = moment < SECONDS["kuairand"][0] * 1000 + 14 * 86_400_000
    for name, rows in (("4_08_to_4_21", early), ("4_22_to_5_08", ~early)):
        chosen = np.flatnonzero(rows)[np.argsort(user[rows], kind="stable")]
        _log(folder / f"log_standard_{name}_pure.csv", world, user[chosen], item[chosen], moment[chosen], 0, rng)
    user = np.concatenate([np.arange(sizes.test_users), rng.integers(0, sizes.test_users, sizes.test_rows - sizes.test_users)])
    user.sort()
    item = rng.integers(0, sizes.test_items, len(user))
    item[rng.permutation(len(user))[: sizes.test_items]] = np.arange(sizes.test_items)
    _log(folder / "log_random_4_22_to_5_08_pure.csv", world, user, item, _moments("kuairand", len(user), rng), 1, rng)
    if videos is None:
        counts = rng.integers(0, 4, sizes.test_items)
        own = [",".join(map(str, rng.permutation(46)[:count])) for count in counts]
        rows_ = [f'{v},{v * 7},NORMAL,2022-04-10,Web,0.0,,720.0,1280.0,0,,{f"{chr(34)}{t}{chr(34)}" if "," in t else t}'
                 for v, t in enumerate(own)]  # fmt: skip
        head = "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,server_height,"
        videos = "\n".join([f"{head}music_id,music_type,tag", *rows_]) + "\n"
    (folder / "video_features_basic_pure.csv").write_text(videos)
    return {"repeats": sizes.repeats}


def zipped(folder: Path, path: Path, inside: str) -> Path:
    """The folder's files as members `inside`/name of a zip."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as opened:
        for file in sorted(folder.glob("*.csv")):
            opened.write(file, f"{inside}/{file.name}")
    return path


def tarred(folder: Path, path: Path, inside: str) -> Path:
    """The same as a .tar.gz."""
    with tarfile.open(path, "w:gz", compresslevel=1) as opened:
        for file in sorted(folder.glob("*.csv")):
            opened.add(file, f"{inside}/{file.name}")
    return path


class _World:
    """Who watches what, for how long: appeal, popularity and a few dimensions of taste."""

    def __init__(self, users: int, items: int, rng: np.random.Generator) -> None:
        self.users, self.items = users, items
        self.taste, self.kind = rng.normal(size=(users, 4)).astype(np.float32), rng.normal(size=(items, 4)).astype(np.float32)
        self.appeal = rng.normal(size=items).astype(np.float32)
        self.weight = np.exp(1.6 * rng.normal(size=items))
        self.activity = np.exp(rng.normal(size=users))
        self.duration = rng.integers(5_000, 60_000, items)

    def liking(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """(N,) logits, about −3 … 3."""
        return 0.5 * np.einsum("nd,nd->n", self.taste[user], self.kind[item]) + 0.5 * self.appeal[item]

    def people(self, count: int, users: int, rng: np.random.Generator) -> np.ndarray:
        """(count,) users, the active ones more often."""
        edges = self.activity[:users].cumsum()
        return np.searchsorted(edges, rng.random(count) * edges[-1]).clip(0, users - 1)

    def videos(self, count: int, items: int, rng: np.random.Generator) -> np.ndarray:
        """(count,) items, the popular ones more often."""
        edges = self.weight[:items].cumsum()
        return np.searchsorted(edges, rng.random(count) * edges[-1]).clip(0, items - 1)


def _distinct(world: _World, never: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """int64 (count,) codes user · items + item of different pairs outside `never`; each user and each item has one."""
    met, flat = np.zeros(never.size, dtype=bool), never.ravel()
    for rows, mine, other in ((True, world.users, world.items), (False, world.items, world.users)):
        left = np.arange(mine)
        while len(left):
            with_ = rng.integers(0, other, len(left))
            codes = left * world.items + with_ if rows else with_ * world.items + left
            met[codes[~flat[codes]]] = True
            left = left[flat[codes]]
    while (missing := count - int(met.sum())) > 0:
        tries = 2 * missing + 100
        drawn = world.people(tries, world.users, rng) * world.items + world.videos(tries, world.items, rng)
        drawn = drawn[~flat[drawn] & ~met[drawn]]
        met[drawn[:missing]] = True
    return np.flatnonzero(met)


def _moments(name: str, count: int, rng: np.random.Generator) -> np.ndarray:
    start, length = SECONDS[name]
    return (start * 1000 + rng.integers(0, length * 1000, count)).astype(np.int64)


def _matrix(
    path: Path, world: _World, user: np.ndarray, item: np.ndarray, timeless: np.ndarray, rng: np.random.Generator
) -> None:
    """A KuaiRec matrix; rows of one user are in the order of time, as published."""
    ms = _moments("kuairec", len(user), rng)
    ms = ms[np.lexsort((ms, user))]
    duration = world.duration[item]
    ratio = np.exp(0.6 * world.liking(user, item) - 0.2 + 0.6 * rng.normal(size=len(user)))
    ratio[rng.integers(0, len(user), max(1, len(user) // 100_000))] *= 100  # loops
    play = (ratio * duration).astype(np.int64)
    none = pa.array(timeless)
    when = pa.array(ms).cast(pa.timestamp("ms"))

    def there(values: pa.Array) -> pa.Array:
        return pc.if_else(none, pa.scalar(None, values.type), values)

    columns = {
        "user_id": user, "video_id": item, "play_duration": play, "video_duration": duration,
        "time": there(pc.strftime(when, format="%Y-%m-%d %H:%M:%S")),
        "date": there(pc.strftime(when, format="%Y%m%d")),
        "timestamp": there(pa.array(ms / 1000)), "watch_ratio": play / duration,
    }  # fmt: skip
    _write(path, columns)


def _log(
    path: Path, world: _World, user: np.ndarray, item: np.ndarray, ms: np.ndarray, random: int, rng: np.random.Generator
) -> None:
    """A KuaiRand log."""
    liking = world.liking(user, item)
    chance = rng.random(len(user))
    click, long_view = (chance < 1 / (1 + np.exp(1 - liking))), (chance < 1 / (1 + np.exp(1.6 - liking)))
    nothing, when = np.zeros(len(user), dtype=np.int8), pa.array(ms).cast(pa.timestamp("ms"))
    columns = {
        "user_id": user, "video_id": item, "date": pc.strftime(when, format="%Y%m%d"),
        "hourmin": pc.strftime(when, format="%H00"), "time_ms": ms, "is_click": click.astype(np.int8), "is_like": nothing,
        "is_follow": nothing, "is_comment": nothing, "is_forward": nothing, "is_hate": nothing,
        "long_view": long_view.astype(np.int8), "play_time_ms": (world.duration[item] * chance).astype(np.int64),
        "duration_ms": world.duration[item], "profile_stay_time": nothing, "comment_stay_time": nothing,
        "is_profile_enter": nothing, "is_rand": nothing + random, "tab": nothing + 1,
    }  # fmt: skip
    _write(path, columns)


def _write(path: Path, columns: dict[str, Any]) -> None:
    with path.open("wb") as file:
        file.write((",".join(columns) + "\n").encode())
        csv.write_csv(pa.table(columns), file, csv.WriteOptions(include_header=False, quoting_style="none"))


CHILD = """
import json, sys, time
from engine import catalog, overview
from engine.memory import peak_mb
module = catalog.find("datasets", sys.argv[1])
import numpy, pandas, pyarrow.csv, torch
torch.set_num_threads(int(sys.argv[3]))
base = round(peak_mb())
began, worked = time.perf_counter(), time.process_time()
data = module.load(module.Config(path=sys.argv[2]))
took, cpu = time.perf_counter() - began, time.process_time() - worked
row = overview.overview(data).row["environments"] if len(sys.argv) > 4 else None
print(json.dumps({"seconds": round(took, 2), "cpu_seconds": round(cpu, 2), "peak_rss_mb": round(peak_mb()), "before_mb": base,
                  "environments": row, "repairs": dict(data.repairs)}))
"""
FIT = """
import json, sys, time
from engine import run, spec
from engine.memory import peak_mb
import torch
torch.set_num_threads(int(sys.argv[3]))
wanted = spec.make(dataset=sys.argv[1], method="random", settings={"dataset": {"path": sys.argv[2]}})
data = run.load_data(wanted)
began, worked = time.perf_counter(), time.process_time()
_, found = run.make_world(wanted, data, sys.argv[4])
took, cpu = time.perf_counter() - began, time.process_time() - worked
print(json.dumps({"seconds": round(took, 1), "cpu_seconds": round(cpu, 1), "auc": round(found.auc, 3),
                  "log_loss": round(found.log_loss, 4), "log_loss_of_the_mean": round(found.log_loss_of_the_mean, 4),
                  "peak_rss_mb": round(peak_mb())}))
"""


def measure(threads: int, fit: bool = True) -> dict[str, Any]:
    """Seconds and peak memory of loading (cold: an empty cache; cached: parsed before), each in a process of its own, and of
    fitting the response models that there are. Files and cache are removed again."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="fairstate-kuai-") as aside:
        for name, write, pack in (("kuairec", write_kuairec, zipped), ("kuairand-pure", write_kuairand, tarred)):
            folder = Path(aside) / name
            folder.mkdir()
            write(folder)
            own: dict[str, Any] = {"megabytes": round(sum(file.stat().st_size for file in folder.iterdir()) / 1e6)}
            runs = Path(aside) / "runs"
            own["cold"] = _child(CHILD, runs, name, str(folder), str(threads), "counted")
            own["cached"] = _child(CHILD, runs, name, str(folder), str(threads))
            if fit:
                parts = ("train",) if name == "kuairec" else ("train", "test")
                own["fit"] = {part: _child(FIT, runs, name, str(folder), str(threads), part) for part in parts}
            archive = pack(folder, Path(aside) / ("KuaiRec.zip" if name == "kuairec" else "KuaiRand-Pure.tar.gz"), "data")
            own["cold_from_archive"] = _child(CHILD, Path(aside) / "other", name, str(archive), str(threads))
            for file in [*folder.iterdir(), archive]:
                file.unlink()
            found[name] = own
    return found


def _child(code: str, runs: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env={**os.environ, "RUNS_DIR": str(runs)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    measured: dict[str, Any] = json.loads(io.StringIO(done.stdout).readlines()[-1])
    return measured
