"""Patterns of files that splits are packed into: braces, stars, order, and what is wrong with them."""

import pytest

from perceptkit.errors import DataError
from perceptkit.spec.packed_files import packed_files, pattern_faults, written_out


def test_braces_are_those_of_the_webdataset_package():
    braceexpand = pytest.importorskip("braceexpand").braceexpand
    for pattern in ("a-{000..012}.tar", "{b,a}/x-{8..11}.tar", "plain.tar", "{1..2}{x,y}"):
        assert list(written_out(pattern)) == list(braceexpand(pattern))


def test_order_of_files(tmp_path):
    for name in ("train-2.tar", "train-10.tar", "train-1.tar", "val-1.tar", ".train-3.tar"):
        (tmp_path / name).touch()
    (tmp_path / "train-4.tar").mkdir()
    assert [p.name for p in packed_files(tmp_path, "{split}-*.tar", "train")] == [
        "train-1.tar", "train-10.tar", "train-2.tar",
    ]  # fmt: skip
    names = [p.name for p in packed_files(tmp_path, "train-{2,1,7}.tar", "")]
    assert names == ["train-2.tar", "train-1.tar", "train-7.tar"]  # as written, there or not
    twice = packed_files(tmp_path, "train-{2,*}.tar", "")
    assert [p.name for p in twice] == ["train-2.tar", "train-1.tar", "train-10.tar"]


def test_nothing_matches(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"nothing matches a/x-\*.tar; there is no such folder"):
        packed_files(tmp_path, "a/x-*.tar", "")
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="; the folder is empty"):
        packed_files(tmp_path, "a/x-*.tar", "")
    for i in range(5):
        (tmp_path / f"a/{i}.tgz").touch()
    with pytest.raises(DataError, match=r"; there is 0.tgz, 1.tgz, 2.tgz, \.\.\."):
        packed_files(tmp_path, "a/x-*.tar", "")


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("{split}-{000..009}-{a,b}.tar", None),
        ("{slit}-*.tar", "unknown placeholder {slit}; did you mean {split}?"),
        ("{id}.tar", "unknown placeholder {id}; braces hold split, 000..009 or a,b"),
        ("x-{9..0}.tar", "{9..0} counts down; write {0..9}"),
        ("x-{0..9.tar", "a brace without its partner"),
        ("x-{0..9}{0..999999}.tar", "its braces stand for 10000000 names; 1000000 at most"),
        ("../x.tar", "must lie below data.root"),
        ("/x.tar", "must lie below data.root"),
    ],
)
def test_faults(pattern, fault):
    assert pattern_faults(pattern) == ([] if fault is None else [fault])
