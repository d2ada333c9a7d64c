"""Numbers come out of the pickle; nothing in it runs."""

import io
import pickle
import pickletools

import numpy as np
import pytest

from perceptkit.errors import DataError
from perceptkit.spec.mean_std_pickle import plain_pickle, read_mean_std

MEAN, STD = [0.25, 0.5, 0.75], [0.125, 0.25, 0.5]


def write(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "make", [list, tuple, np.array, lambda v: list(np.array(v)), lambda v: np.array(v, "f4")]
)
def test_lists_and_arrays_in_every_protocol(tmp_path, protocol, make):
    content = {"svhnmean": make(MEAN), "svhnstd": make(STD), "note": "of train"}
    path = write(tmp_path / "m.pickle", pickle.dumps(content, protocol))
    assert read_mean_std(path) == {"svhn": (tuple(MEAN), tuple(STD))}


def test_a_pickle_of_python_2(tmp_path):
    """As cPickle wrote it: byte strings for text and for the array's memory, names of the old numpy."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        b"(I1\n(I3\ntcnumpy\ndtype\n(S'f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS%s\ntb"
    )
    content = b"(dS'vgg-flowersmean'\n" + array % repr(np.array(MEAN).tobytes())[1:].encode("latin1")
    content += b"sS'vgg-flowersstd'\n" + array % repr(np.array(STD).tobytes())[1:].encode("latin1") + b"s."
    assert read_mean_std(write(tmp_path / "m.pickle", content)) == {"vgg-flowers": (tuple(MEAN), tuple(STD))}


def test_text_of_python_2_that_is_no_ascii():
    assert plain_pickle(b"\x80\x02U\x03caf\xe9".replace(b"\x03", b"\x04") + b".") == "caf\xe9"


class Malicious:
    """Writes a file when it is unpickled by pickle itself."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return io.open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", range(6))
def test_code_is_refused_and_does_not_run(tmp_path, protocol):
    victim = tmp_path / "victim"
    content = pickle.dumps({"svhnmean": MEAN, "svhnstd": Malicious(victim)}, protocol)
    path = write(tmp_path / "m.pickle", content)
    with pytest.raises(DataError, match=r"m.pickle names _?io.open; only numbers, text, lists and arrays"):
        read_mean_std(path)
    assert not victim.exists()
    pickle.loads(content)["svhnstd"].close()
    assert victim.exists()  # it would have


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"cbuiltins\neval\n(S'1'\ntR.", "names builtins.eval"),
        (
            b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.",
            "names numpy.core.multiarray._reconstruct.__globals__",
        ),
        (b"\x80\x04\x8c\x05numpy\x8c\x04load\x93.", "names numpy.load"),
        (b"c_codecs\nencode\n(N(dS'__doc__'\nS'x'\nstb.", "sets attributes of what is no array"),
        (b"cnumpy\nndarray\n(dS'a'\nI1\nsb.", "sets attributes of what is no array"),
        (b"\x80\x02}q", "is damaged"),
        (b"", "is damaged"),
        (b"\x80\x02Pabc\n.", "is damaged"),
        (pickle.dumps([1]), "holds no dictionary"),
        (pickle.dumps({"amean": [1, 2], "astd": STD}), "amean is not three numbers"),
        (pickle.dumps({"amean": "abc", "astd": STD}), "amean is not three numbers"),
        (pickle.dumps({"amean": [0, 0, float("nan")], "astd": STD}), "amean is not three numbers"),
        (pickle.dumps({"amean": MEAN, "astd": [0, 1, 1]}), "astd holds 0"),
        (pickle.dumps({"amean": [100.0] * 3, "astd": STD}), "amean holds 100; pictures are in"),
        (
            pickle.dumps({"amean": np.array([1, 2, 3]), "astd": STD}),
            "holds an array of type i8; expected floats",
        ),
        (
            pickle.dumps({"amean": np.array([None]), "astd": STD}),
            "holds an array of type O8; expected floats",
        ),
    ],
)
def test_what_else_is_refused(tmp_path, content, reason):
    with pytest.raises(DataError, match="m.pickle") as caught:
        read_mean_std(write(tmp_path / "m.pickle", content))
    assert reason in str(caught.value)


def test_a_memo_with_a_large_index_takes_no_memory():
    assert plain_pickle(b"]r\xff\xff\xff\x7f.") == []


def nested(depth, width):
    made = 0.5
    for _ in range(depth):
        made = [made] * width
    return made


@pytest.mark.parametrize(
    "value",
    [nested(100, 2), nested(8, 10), nested(5, 100), nested(9, 1)],
    ids=["100 deep, shared", "8 deep, shared", "5 deep, wide", "deep"],
)
def test_lists_that_are_shared_without_end_are_refused_at_once(tmp_path, value):
    content = pickle.dumps({"amean": value})
    assert len(content) < 2000  # a list is in the file once
    with pytest.raises(DataError, match="m.pickle holds lists deeper than 8 or more than 10,000 items"):
        read_mean_std(write(tmp_path / "m.pickle", content))


def test_a_list_in_itself_is_refused(tmp_path):
    value = []
    value.append(value)
    with pytest.raises(DataError, match="deeper than 8"):
        read_mean_std(write(tmp_path / "m.pickle", pickle.dumps({"amean": value})))


def test_a_large_file_is_not_read(tmp_path):
    with pytest.raises(DataError, match="is larger than 1048576 bytes"):
        read_mean_std(write(tmp_path / "m.pickle", pickle.dumps({"a": b"0" * 2**20})))


def test_no_name_is_ever_looked_up(monkeypatch):
    content = pickle.dumps(np.array(MEAN), 4)
    assert any("multiarray" in str(argument) for _, argument, _ in pickletools.genops(content))
    monkeypatch.setattr("builtins.__import__", lambda *a, **k: pytest.fail("imported"))
    assert plain_pickle(content) == MEAN
