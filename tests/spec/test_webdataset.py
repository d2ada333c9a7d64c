"""Samples of shards: grouped as the webdataset package groups them, each by itself."""

import json

import pytest

from perceptkit.errors import DataError
from perceptkit.spec.tar_index import read_index
from perceptkit.spec.tasks_file import ClassificationSpec, SegmentationSpec
from perceptkit.spec.webdataset import Shards, samples, split_name
from tests.packed_files import write_shards, write_tar

ODD = [
    ("./a.b/0.JPG", b"1"), ("./a.b/0.Seg.png", b"2"), ("__meta__", b"m"), ("__info__/0.jpg", b"m"),
    (".hidden.jpg", b"h"), ("README", b"r"), ("x/y.tar.gz.jpg", b"3"), ("x/y.", b"4"), ("0.cls", b"5"),
    ("0.json", b"{}"), ("d/0.cls", b"6"), ("e.d/noending", b"7"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PERCEPTKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def of_the_package(path):
    """Key, and content by ending, as the package's own reader has them."""
    from webdataset.tariterators import group_by_keys, tar_file_expander

    with path.open("rb") as stream:
        grouped = group_by_keys(tar_file_expander([{"url": path.name, "stream": stream}]))
        return [(s["__key__"], {k: v for k, v in s.items() if k[:2] != "__"}) for s in grouped]


def test_grouping_is_that_of_the_package(tmp_path):
    pytest.importorskip("webdataset")
    write_shards(tmp_path / "w")
    odd = write_tar(tmp_path / "w/odd.tar", ODD)
    for path in sorted((tmp_path / "w").glob("*.tar")):
        expected = of_the_package(path)
        shards = Shards([path], ["jpg"])
        ours = [
            (key, {ending: shards.read(i, ending) for ending in shards.endings if shards.has(i, ending)})
            for i, key in enumerate(shards.keys)
        ]
        assert ours == expected and len(ours) >= 4
    assert [key for key, _ in samples(odd, read_index(odd))] == ["./a.b/0", "x/y", "0", "d/0"]


def test_the_package_writes_what_we_read(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "t.tar")) as writer:
        for i in range(3):
            writer.write({"__key__": f"{i:03}", "jpg": bytes([i]), "cls": i, "json": {"a": i}})
    shards = Shards([tmp_path / "t.tar"], ["jpg"])
    assert shards.ids == ["t/000", "t/001", "t/002"]
    assert [shards.picture(i) for i in range(3)] == [b"\0", b"\1", b"\2"]
    by_class = ClassificationSpec(type="classification", target="cls")
    by_field = ClassificationSpec(type="classification", target="json:a")
    assert list(shards.all_stored("x", by_class)) == ["0", "1", "2"]
    assert list(shards.all_stored("x", by_field)) == [0, 1, 2]


@pytest.mark.parametrize("name", ["noending", ".hidden.jpg", "a/.b.jpg", "__x__", "__x__/a.jpg"])
def test_what_is_no_part_of_a_sample(name):
    assert split_name(name) is None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["0.jpg", "0.cls", "0.JPG"], "t.tar: 0 has 'jpg' twice; give each sample a key of its own"),
        (["0.jpg", "1.jpg", "0.cls"], "t.tar: 0 occurs again after other keys; .* tar --sort=name"),
        (["../0.jpg"], r"t.tar: ../0.jpg leads out of the shard; keys are relative, without '..'"),
        (["/etc/0.jpg"], "t.tar: /etc/0.jpg leads out of the shard"),
        (["a/../../0.jpg"], "leads out of the shard"),
    ],
)
def test_names_that_are_refused(tmp_path, names, message):
    path = write_tar(tmp_path / "t.tar", [(name, b"") for name in names])
    with pytest.raises(DataError, match=message):
        Shards([path], ["jpg"])


def test_a_sample_without_a_picture_and_labels_that_are_no_text(tmp_path):
    members = [("0.cls", b"1"), ("0.seg.png", b""), ("1.webp", b"w"), ("1.json", b"{"), ("2.json", b"[1]")]
    shards = Shards([write_tar(tmp_path / "t.tar", [*members, ("2.cls", b"\xff")])], ["jpg", "webp"])
    with pytest.raises(
        DataError, match=r"t.tar: 0 has no picture \(jpg or webp\), only cls, seg.png; data.image"
    ):
        shards.picture(0)
    assert shards.picture_size(0) is None and shards.picture(1) == b"w" and shards.picture_size(1) == 1
    field = ClassificationSpec(type="classification", target="json:a")
    with pytest.raises(DataError, match="t.tar: 1.json is not JSON"):
        shards.stored(1, "x", field)
    with pytest.raises(DataError, match="t.tar: 2.json is not a mapping of fields, so it has no 'a'"):
        shards.stored(2, "x", field)
    with pytest.raises(DataError, match="t.tar: 2.cls is not UTF-8 text"):
        shards.stored(2, "x", ClassificationSpec(type="classification", target="cls"))
    assert shards.stored(0, "x", field) is None
    assert shards.stored(0, "x", SegmentationSpec(type="segmentation", target="seg.png")) == b""


def test_equal_keys_in_two_shards_are_two_samples(tmp_path):
    files = [
        write_tar(tmp_path / f"{n}.tar", [("0.jpg", n.encode()), ("0.json", json.dumps(n).encode())])
        for n in "ab"
    ]
    shards = Shards(files, ["jpg"])
    assert shards.ids == ["a/0", "b/0"] and [shards.picture(i) for i in range(2)] == [b"a", b"b"]
