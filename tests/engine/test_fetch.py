"""Downloads: resumed, checked, told in words where there is no network."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.kuai import tarred, zipped
from engine.__main__ import main
from engine.data import fetch, kuairand, kuairec
from engine.options import BadInput
from kuai_files import RAND, REC


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves one file with byte ranges; breaks off after `breaks` bytes, once for each number in the list."""

    content, breaks, ranges, seen = b"", list[int](), True, list[str | None]()
    tag = '"one"'

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        type(self).seen.append(wanted)
        start = int(wanted[6:-1]) if wanted and self.ranges and self.headers.get("If-Range", self.tag) == self.tag else 0
        if start >= len(self.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(self.content)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.send_header("ETag", self.tag)
        self.end_headers()
        stop = type(self).breaks.pop(0) if self.breaks else len(self.content)
        self.wfile.write(self.content[start:stop])
        if stop < len(self.content):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[tuple[str, type[Server]]]:
    handler = type("Own", (Server,), {"breaks": [], "seen": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/file.zip", handler
        server.shutdown()


def test_a_broken_download_is_gone_on_with(site: tuple[str, type[Server]], tmp_path: Path) -> None:
    url, server = site
    server.content, server.breaks = os.urandom(900_000), [400_000, 700_000]
    path = tmp_path / "in" / "file.zip"
    said: list[str] = []
    for _ in range(2):
        with pytest.raises(OSError, match="the connection ended after"):
            fetch.archive(url, path, said.append)
    digest = fetch.archive(url, path, said.append, hashlib.md5(server.content).hexdigest())
    assert server.seen == [None, "bytes=400000-", "bytes=700000-"]
    assert path.read_bytes() == server.content
    assert digest == hashlib.sha256(server.content).hexdigest()
    assert [file.name for file in path.parent.iterdir()] == ["file.zip"]
    assert "going on after 1 MB" in said
    assert said[-1] == "1 of 1 MB (100 %)"
    fetch.archive(url, path, said.append)
    assert len(server.seen) == 3, "a whole file is not asked for again"


def test_what_came_of_another_file_or_without_ranges_is_begun_again(site: tuple[str, type[Server]], tmp_path: Path) -> None:
    url, server = site
    path = tmp_path / "file.zip"
    server.content, server.breaks = b"a" * 600_000, [300_000]
    with pytest.raises(OSError, match="ended after"):
        fetch.archive(url, path, lambda _: None)
    server.content, server.tag = b"b" * 600_000, '"two"'
    fetch.archive(url, path, lambda _: None)
    assert path.read_bytes() == server.content
    path.rename(tmp_path / "file.zip.part")  # all of it had come, but for the last look
    fetch.archive(url, path, lambda _: None)
    assert path.read_bytes() == server.content
    (tmp_path / "file.zip").rename(tmp_path / "file.zip.part")
    with (tmp_path / "file.zip.part").open("ab") as file:
        file.write(b"more than there is")
    fetch.archive(url, path, lambda _: None)
    assert path.read_bytes() == server.content
    path.unlink()
    server.ranges, server.breaks = False, [100_000]
    with pytest.raises(OSError, match="ended after"):
        fetch.archive(url, path, lambda _: None)
    fetch.archive(url, path, lambda _: None)
    assert path.read_bytes() == server.content


def test_a_wrong_checksum_leaves_nothing(site: tuple[str, type[Server]], tmp_path: Path) -> None:
    url, server = site
    server.content = b"x" * 1000
    with pytest.raises(
        BadInput, match=r"file\.zip came with MD5 [0-9a-f]{32} and must have 0{32}: it was removed, fetch it again"
    ):
        fetch.archive(url, tmp_path / "file.zip", lambda _: None, "0" * 32)
    assert [path.name for path in tmp_path.iterdir()] == []


def test_progress_tells_what_is_left() -> None:
    assert fetch._progress(50_000_000, 200_000_000, 10_000_000) == "50 of 200 MB (25 %), 10.0 MB/s, 15 s left"
    assert fetch._progress(50_000_000, None, 10_000_000) == "50 MB"


@pytest.mark.parametrize(("name", "module"), [("kuairec", kuairec), ("kuairand-pure", kuairand)])
def test_fetch_by_the_command(
    name: str, module: ModuleType, rec_files: Path, rand_files: Path, tmp_path: Path, site: tuple[str, type[Server]],
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The archive as published but smaller, from this test's own server; other row counts are refused."""
    url, server = site
    packed = zipped(rec_files, tmp_path / "k.zip", "d") if name == "kuairec" else tarred(rand_files, tmp_path / "k.tar.gz", "d")
    server.content = packed.read_bytes()
    monkeypatch.setattr(module, "URL", url.replace("file.zip", module.ARCHIVE))
    if name != "kuairec":
        monkeypatch.setattr(module, "MD5", hashlib.md5(server.content).hexdigest())
    argv = ["data", "fetch", name, f"--to={tmp_path / 'data'}", "--json"]
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert f"SHA-256 {hashlib.sha256(server.content).hexdigest()}" in said
    sizes = REC if name == "kuairec" else RAND
    assert f"holds {sizes.rows} rows for the train world: the published {name} has {module.ROWS['train']}" in said
    monkeypatch.setattr(module, "ROWS", {"train": sizes.rows, "test": sizes.test_rows})
    assert main(argv) == 0
    told = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert told == {"name": name, "folder": str(tmp_path / "data" / name), "rows": sizes.rows + sizes.test_rows}
    assert len(server.seen) == 1
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    assert len(module.load(module.Config()).test) == sizes.test_rows


def test_offline_says_the_manual_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, module in (("kuairec", kuairec), ("kuairand-pure", kuairand)):
        monkeypatch.setattr(module, "URL", f"http://127.0.0.1:9/{module.ARCHIVE}")
        assert main(["data", "fetch", name, f"--to={tmp_path}"]) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith(f"error: dataset {name} could not be fetched (")
        assert said.endswith(f"put it, as it is or unpacked, into {tmp_path / name}")
