"""One record for a folder of exported files, and what is said from it."""

import hashlib
import json

from perceptkit.compact.exported import as_text
from perceptkit.compact.parity_file import record, recorded

HEADS = {"seg": {"max_abs": 2e-6, "scale": 40.0}, "depth": {"max_abs": 1e-6, "scale": 0.5}}


def written(path, content="x"):
    path.write_text(content)
    return path


def test_entries_are_by_file_and_say_of_which(tmp_path):
    one, two = written(tmp_path / "a.onnx"), written(tmp_path / "b.pt2", "y")
    record(one, {"format": "onnx"})
    record(two, {"format": "torch"})
    assert recorded(one) == {"ok": True, "format": "onnx", "sha256": hashlib.sha256(b"x").hexdigest()}
    record(one, {"format": "onnx", "precision": "fp16"})
    assert recorded(one)["precision"] == "fp16" and recorded(two)["format"] == "torch"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.onnx", "b.pt2", "parity.json"]


def test_files_that_are_gone_are_forgotten(tmp_path):
    one, two = written(tmp_path / "a.onnx"), written(tmp_path / "b.onnx")
    record(one, {})
    one.unlink()
    record(two, {})
    assert list(json.loads((tmp_path / "parity.json").read_text())) == ["b.onnx"]


def test_an_unreadable_record_is_no_record(tmp_path):
    path = written(tmp_path / "a.onnx")
    for text in ("{", "[]", '{"format": "onnx", "bound": 1}', '{"a.onnx": 3}'):
        (tmp_path / "parity.json").write_text(text)
        assert recorded(path) == {}
    record(path, {"format": "onnx"})
    assert list(json.loads((tmp_path / "parity.json").read_text())) == ["a.onnx"]


def test_what_is_said(tmp_path):
    path = written(tmp_path / "a.onnx")
    assert as_text(path) == str(path)
    record(path, {"heads": HEADS, "bound": 1e-4, "sizes": {"multiple_of": 32}})
    assert as_text(path).splitlines() == [
        str(path),
        "read back and compared: largest difference 1.0e-06 (depth), 2.0e-06 of the head's scale, bound 1.0e-04",
        "takes any batch, height and width in multiples of 32",
    ]
    record(path, {"heads": HEADS, "bound": 1e-4, "sizes": {"fixed": [64, 96], "reason": "windows"}})
    assert as_text(path).endswith("of 64 x 96 (height x width): other sizes do not trace (windows)")


def test_what_is_said_of_int8(tmp_path):
    path = written(tmp_path / "a.onnx")
    told = {"calibrated_on": {"split": "train", "pictures": 9}, "measured_on": "val"}
    sizes = {"bytes": 2_000_000, "bytes_float32": 7_000_000, "size_ratio": 3.5}
    accuracy = {"seg": {"miou": {"float32": 0.5, "int8": 0.4875}}}
    told |= {"precision": "int8", "float_heads": ["depth"]}
    record(path, {"heads": HEADS, "bound": None, **told, **sizes, "accuracy": accuracy})
    lines = as_text(path).splitlines()
    assert lines[1] == "calibrated on 9 pictures of train, measured on val:"
    assert lines[2].split() == ["task,", "metric", "float32", "int8"]
    assert lines[3].split() == ["seg", "miou", "0.5000", "0.4875"]
    assert lines[4].split() == ["file,", "MB", "7.00", "2.00", "(3.5", "times", "smaller)"]
    assert lines[5:] == ["left in float: the heads of depth, which had lost more than is allowed"]


def test_what_is_said_of_16_bits(tmp_path):
    path = written(tmp_path / "a.pt2")
    accuracy = {"seg": {"miou": {"float32": 0.5, "fp16": 0.4875}}}
    told = {"heads": HEADS, "bound": 0.01, "precision": "fp16", "sizes": {"fixed": [64, 96]}}
    record(path, {**told, "measured_on": "val", "accuracy": accuracy})
    lines = as_text(path).splitlines()
    assert (
        lines[1].startswith("read back and compared")
        and lines[2] == "takes any batch of 64 x 96 (height x width)"
    )
    assert lines[3] == "measured on val:" and lines[4].split() == ["task,", "metric", "float32", "fp16"]
    assert lines[5].split() == ["seg", "miou", "0.5000", "0.4875"] and len(lines) == 6
    record(path, {**told, "not_measured": "it belongs to no run"})
    assert as_text(path).splitlines()[3:] == ["metrics were not compared: it belongs to no run"]


def test_what_is_said_of_a_file_that_skips_and_could_not_be_timed(tmp_path):
    path = written(tmp_path / "a.onnx")
    told = {"heads": HEADS, "bound": 0.01, "dynamic_skip": "branch", "compared_on": {"decisions": 16}}
    record(path, {**told, "not_timed": "it belongs to no run"})
    assert as_text(path).splitlines()[-1] == "not timed: it belongs to no run"
    record(path, told)  # as older files are
    assert as_text(path).splitlines()[-1] == "not timed: there are no pictures; --data TASKS names some"
