"""Where members of a tar file lie: as tarfile reads them, from the cache where it knows them, and what is refused."""

import gzip
import io
import os
import tarfile

import pytest

from perceptkit.errors import DataError
from perceptkit.spec import tar_index
from perceptkit.spec.tar_index import read_index, read_member
from tests.packed_files import write_tar


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PERCEPTKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


MEMBERS = [("a/0.jpg", b"x" * 700), ("a/0.cls", b""), ("b" * 150 + ".txt", b"long name"), ("1.cls", b"2")]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_read_by_their_place(tmp_path, form):
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w", format=form) as tar:
        tar.addfile(tarfile.TarInfo("folder/") if form != tarfile.USTAR_FORMAT else tarfile.TarInfo("f"))
        for name, content in MEMBERS:
            if form == tarfile.USTAR_FORMAT and len(name) > 100:
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    found = {member.name: read_member(path, member) for member in read_index(path)}
    expected = {n: c for n, c in MEMBERS if form != tarfile.USTAR_FORMAT or len(n) <= 100}
    assert {name: found[name] for name in expected} == expected
    assert "link.jpg" not in found


def test_headers_are_read_once_per_version(tmp_path, cache, monkeypatch):
    path = write_tar(tmp_path / "t.tar", MEMBERS)
    first = read_index(path)
    assert len(list((cache / "shards").iterdir())) == 1
    calls = []
    whole = tar_index._headers
    monkeypatch.setattr(tar_index, "_headers", lambda *args: calls.append(1) or whole(*args))
    assert read_index(path) == first and not calls
    write_tar(path, [*MEMBERS, ("9.cls", b"1")])
    os.utime(path, ns=(1, 1))
    assert len(read_index(path)) == len(first) + 1 and calls == [1]
    for kept in (cache / "shards").iterdir():
        kept.write_text("[[1]]")  # a damaged cache is no error
    assert read_index(path)[-1].name == "9.cls" and calls == [1, 1]


def test_without_a_cache(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PERCEPTKIT_CACHE", str(tmp_path / "file"))
    assert len(read_index(write_tar(tmp_path / "t.tar", MEMBERS))) == 4


def test_what_is_refused(tmp_path):
    whole = write_tar(tmp_path / "t.tar", [("0.jpg", b"x" * 5000), ("1.jpg", b"y" * 5000)]).read_bytes()
    with pytest.raises(DataError, match=r"none.tar cannot be read: No such file"):
        read_index(tmp_path / "none.tar")
    cases = {
        "packed.tar": (gzip.compress(whole), r"packed.tar is compressed \(gzip\); .*gunzip packed.tar"),
        "empty.tar": (b"", r"empty.tar is damaged \(empty file\); copy or make it again"),
        "middle.tar": (whole[:8000], "middle.tar is damaged in 1.jpg or after it"),
        "between.tar": (whole[:5632], "between.tar is cut off in 0.jpg or after it; copy or make it again"),
        "end.tar": (whole[: 2 * 5632], "end.tar is cut off in 1.jpg or after it"),
        "header.tar": (
            whole[:5632] + b"?" * 512 + whole[6144:],
            "header.tar is damaged in 0.jpg or after it",
        ),
        "text.tar": (b"no tar file at all" * 100, r"text.tar is damaged \("),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_index(tmp_path / name)


def test_a_file_that_shrinks(tmp_path):
    path = write_tar(tmp_path / "t.tar", [("0.jpg", b"x" * 5000)])
    (member,) = read_index(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="was cut off after the run began"):
        read_member(path, member)
