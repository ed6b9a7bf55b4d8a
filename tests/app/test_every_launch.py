"""Every method on every dataset, launched in a real browser and run by the worker beside it, for 500 episodes (slow)."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import words
from benchmarks.kuai import Sizes, write_kuairand, write_kuairec
from engine.methods import METHODS
from runs_db.store import Store
from serving import Lab, lab

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed at /usr/bin/chromium"),
]
# Small files in the true schemas: slates of ten for thirty steps need 300 videos.
SMALL_KUAI = {
    "kuairec": (write_kuairec, Sizes(120, 450, 9000, 40, 340, 13_200, 150, 12)),
    "kuairand-pure": (write_kuairand, Sizes(130, 360, 6000, 140, 370, 5000, 40, 3)),
}
EPISODES, MINUTES = 500, 25


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("every")
    for name, (write, sizes) in SMALL_KUAI.items():
        (folder / "data" / name).mkdir(parents=True)
        write(folder / "data" / name, sizes)
    given = Path(os.environ.get("FAIRSTATE_TEST_DATA", "")) / "ml-100k"
    if given.is_dir():
        shutil.copytree(given, folder / "data" / "ml-100k")
    with lab(folder, "--slots", "2") as found:
        found.ready()
        yield found


@pytest.mark.parametrize("dataset", ["synthetic", "ml-100k", *SMALL_KUAI])
def test_every_method_from_the_launch_view(served: Lab, dataset: str) -> None:
    if not (dataset == "synthetic" or (served.folder / "data" / dataset).is_dir()):
        pytest.skip("FAIRSTATE_TEST_DATA does not hold ml-100k")
    store = Store(f"sqlite:///{served.folder / 'runs.sqlite'}", served.folder)
    before = {run.id for run in store.runs()}
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=["--headless", "--no-sandbox", "--disable-gpu"])
        page = browser.new_page(base_url=served.url, viewport={"width": 1440, "height": 1600})
        page.goto(f"/launch?seeds=11&episodes={EPISODES}&evaluation=60")
        page.get_by_role("button", name="Launch 3 runs").wait_for()
        page.get_by_role("combobox", name="Dataset").click()
        page.get_by_role("option", name=words.dataset_title(dataset), exact=True).click()
        chosen = {"a2c", "balanced", "dsrm_hrl"}
        for name in METHODS:
            if name not in chosen:
                page.get_by_role("button", name=words.method_title(name), exact=True).click()
                chosen.add(name)
                page.get_by_role("button", name=f"Launch {len(chosen)} runs").wait_for()
        page.get_by_role("button", name=f"Launch {len(METHODS)} runs").click()
        page.get_by_text("Queued: runs").wait_for()
        browser.close()
    deadline = time.monotonic() + 60 * MINUTES
    while time.monotonic() < deadline:
        runs = [run for run in store.runs() if run.id not in before]
        if len(runs) == len(METHODS) and all(run.state not in ("queued", "claimed", "running") for run in runs):
            break
        time.sleep(1)
    assert {(store.spec(run.id).method, run.state) for run in runs} == {(name, "done") for name in METHODS}
    for run in runs:
        assert store.spec(run.id).dataset == dataset
        assert store.spec(run.id).episodes in (0, EPISODES)
