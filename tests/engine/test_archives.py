"""Datasets that are read from the archive they came in, parsed once, and trusted in nothing."""

from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
import torch

from benchmarks.kuai import tarred, zipped
from engine import catalog
from engine.contracts import Data
from engine.data import bundle, kuairand, kuairec
from engine.options import BadInput
from kuai_files import REC, added, copied, edited


def test_archives_say_the_same_as_folders(
    rec: Data, rand: Data, rec_files: Path, rand_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    for name, files, folder_data, pack, archive, inside in (
        ("kuairec", rec_files, rec, zipped, kuairec.ARCHIVE, "KuaiRec 2.0/data"),
        ("kuairand-pure", rand_files, rand, tarred, kuairand.ARCHIVE, "KuaiRand-Pure/data"),
    ):
        module = catalog.find("datasets", name)
        (tmp_path / name).mkdir()
        packed = pack(files, tmp_path / name / archive, inside)
        assert module.present(tmp_path / name)
        for config in (module.Config(), module.Config(path=str(packed))):
            data = module.load(config)
            assert data.fingerprint == folder_data.fingerprint
            assert torch.equal(data.train.item, folder_data.train.item)
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == [archive], "nothing is unpacked"
        nested = tmp_path / "nested" / inside
        shutil.copytree(files, nested)
        assert module.load(module.Config(path=str(tmp_path / "nested"))).fingerprint == folder_data.fingerprint


def test_archives_that_are_torn_or_of_something_else(rec_files: Path, rand_files: Path, tmp_path: Path) -> None:
    whole = zipped(rec_files, tmp_path / "KuaiRec.zip", "data")
    rand_whole = tarred(rand_files, tmp_path / "Pure.tar.gz", "data")

    def refused(module: ModuleType, path: Path, message: str) -> None:
        with pytest.raises(BadInput, match=message) as error:
            module.load(module.Config(path=str(path)))
        assert "\n" not in str(error.value)

    refused(
        kuairand,
        whole,
        r"KuaiRec\.zip is not the published archive: it holds no log_standard_4_08.*; it must hold log_standard",
    )
    refused(kuairec, rand_whole, r"Pure\.tar\.gz is not the published archive: it holds no big_matrix\.csv")
    for path, module in ((whole, kuairec), (rand_whole, kuairand)):
        half = tmp_path / f"half{path.name}"
        half.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        refused(module, half, r"half.* cannot be read as an archive: .*; get it again")
        other = tmp_path / f"other{path.name}"
        other.write_bytes(b"this is a page that says: not found")
        refused(module, other, r"other.* cannot be read as an archive")
    spoiled = bytearray(whole.read_bytes())
    with zipfile.ZipFile(whole) as opened:
        info = opened.getinfo("data/big_matrix.csv")
    at = info.header_offset + info.compress_size // 2
    spoiled[at : at + 40] = bytes(40)
    (tmp_path / "bad.zip").write_bytes(spoiled)
    refused(kuairec, tmp_path / "bad.zip", r"bad\.zip, big_matrix\.csv (cannot be read: .*; get it again|.* line \d+ )")
    with zipfile.ZipFile(tmp_path / "double.zip", "w") as opened:
        for folder in ("a", "b"):
            opened.writestr(f"{folder}/big_matrix.csv", "x")
    refused(
        kuairec, tmp_path / "double.zip", r"double\.zip holds big_matrix\.csv twice \(a/big_matrix\.csv and b/big_matrix\.csv\)"
    )


def test_nothing_is_written_or_followed_by_an_archive(rec_files: Path, tmp_path: Path) -> None:
    """Names with ../ are names; a link is no file."""
    outside = tmp_path / "deep" / "KuaiRec.zip"
    outside.parent.mkdir()
    zipped(rec_files, outside, "../../up")
    data = kuairec.load(kuairec.Config(path=str(outside)))
    assert len(data.test) == REC.test_rows
    assert [path.name for path in tmp_path.rglob("*")] == ["deep", "KuaiRec.zip"]
    with tarfile.open(tmp_path / "links.tar.gz", "w:gz") as tar:
        for name in kuairec.REQUIRED:
            link = tarfile.TarInfo(f"data/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, str(rec_files / name)
            tar.addfile(link)
    with pytest.raises(BadInput, match=r"links\.tar\.gz is not the published archive: it holds no big_matrix\.csv"):
        kuairec.load(kuairec.Config(path=str(tmp_path / "links.tar.gz")))


def test_a_file_that_claims_to_be_huge_is_not_read(rec_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(rec_files, tmp_path / "KuaiRec.zip", "data")
    monkeypatch.setattr(bundle, "MOST_BYTES", 10_000)
    with pytest.raises(BadInput, match=r"big_matrix\.csv unpacks to \d+ bytes: it must be 10000 or less"):
        kuairec.load(kuairec.Config(path=str(path)))


def test_parsed_once_and_again_when_a_file_changes(rec_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copied(rec_files, tmp_path)
    first = kuairec.load(kuairec.Config(path=str(folder)))
    real = bundle.read_csv
    monkeypatch.setattr(bundle, "read_csv", lambda *_: pytest.fail("the files were parsed again"))
    again = kuairec.load(kuairec.Config(path=str(folder), clip=2.0))
    assert torch.equal(again.train.item, first.train.item)
    monkeypatch.setattr(bundle, "read_csv", real)
    added(folder / kuairec.BIG, "79,119,1,1,x,1,1593999999,0.125")
    second = kuairec.load(kuairec.Config(path=str(folder)))
    assert second.fingerprint != first.fingerprint
    edited(folder / kuairec.BIG, REC.rows + 2, "79,119,1,1,x,1,1593999999,0.625")  # of the same size, at another time
    os.utime(folder / kuairec.BIG, ns=(1, 1))
    assert kuairec.load(kuairec.Config(path=str(folder))).fingerprint != second.fingerprint
