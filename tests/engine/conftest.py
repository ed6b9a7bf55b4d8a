"""Small worlds that every engine test shares; stage I is fitted once a session, in a cache of the tests' own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.kuai import write_kuairand, write_kuairec
from engine import run
from engine.contracts import Data
from engine.data import kuairand, kuairec, movielens
from engine.options import BadInput
from engine.state.stage import Stage
from kuai_files import RAND, REC
from small import small_spec


@pytest.fixture(scope="session", autouse=True)
def _one_thread_and_own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    torch.set_num_threads(1)
    before = os.environ.get("RUNS_DIR")
    os.environ["RUNS_DIR"] = str(tmp_path_factory.mktemp("runs"))
    yield
    if before is None:
        del os.environ["RUNS_DIR"]
    else:
        os.environ["RUNS_DIR"] = before


@pytest.fixture(scope="session")
def data() -> Data:
    return run.load_data(small_spec(method="random"))


@pytest.fixture(scope="session")
def stage(data: Data) -> Stage:
    return Stage(data, small_spec(method="random").config("state"), 11)


@pytest.fixture(scope="session")
def ml100k_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of MovieLens-100K's files: from FAIRSTATE_TEST_DATA, else fetched, else a skip with the reason."""
    given = Path(os.environ.get("FAIRSTATE_TEST_DATA", "")) / "ml-100k"
    if movielens.read(given) is not None:
        return given
    folder = tmp_path_factory.mktemp("data") / "ml-100k"
    try:
        movielens.download(folder)
    except BadInput as error:
        pytest.skip(f"FAIRSTATE_TEST_DATA names no folder with ml-100k, and {error}")
    return folder


@pytest.fixture(scope="session")
def rec_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rec") / "data"
    folder.mkdir()
    write_kuairec(folder, REC, seed=3)
    return folder


@pytest.fixture(scope="session")
def rand_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rand") / "data"
    folder.mkdir()
    write_kuairand(folder, RAND, seed=4)
    return folder


@pytest.fixture(scope="session")
def rec(rec_files: Path) -> Data:
    return kuairec.load(kuairec.Config(path=str(rec_files)))


@pytest.fixture(scope="session")
def rand(rand_files: Path) -> Data:
    return kuairand.load(kuairand.Config(path=str(rand_files)))
