"""`perceptkit benchmark`, on a model that takes a millisecond."""

import json

import pytest
import torch

import perceptkit as pk
from perceptkit import api
from perceptkit.errors import SpecError
from perceptkit.runtime.benchmark import as_markdown, benchmark
from perceptkit.runtime.variants import open_variants
from tests.runtime.conftest import SIZE


@pytest.fixture(scope="module")
def found(artifact):
    names = ["compact", "hard_shared", "single_nets"]
    variants = open_variants(names, artifact, {})
    said = []
    found = benchmark(variants, artifact, {}, SIZE, batches=[1, 2], rounds=3, memory=False, say=said.append)
    assert said == [f"timing batch {batch}: 3 variants, 3 rounds" for batch in (1, 2)]
    return found


def test_the_first_in_the_order_of_the_table_is_the_reference(found):
    assert found["reference"] == "single_nets" and list(found["rows"]) == [
        "single_nets",
        "hard_shared",
        "compact",
    ]
    for batch in ("1", "2"):
        reference = found["rows"]["single_nets"]["batches"][batch]
        assert reference["speedup"] == {"q1": 1.0, "median": 1.0, "q3": 1.0}


def test_figures_are_quartiles_of_milliseconds(found):
    for row in found["rows"].values():
        for timed in row["batches"].values():
            ms = timed["ms"]
            assert 0.01 < ms["q1"] <= ms["median"] <= ms["q3"] < 10_000


def test_result_is_json_and_says_where_it_is_from(found):
    again = json.loads(json.dumps(found))
    assert again["input"] == [3, *SIZE] and again["rounds"] == 3
    assert {"torch", "threads", "device", "date"} <= set(again["machine"])


def test_table(found):
    told = {
        **found,
        "accuracy": {"compact": {"seg miou": 0.25, "room top1": None}},
        "left_out": {"onnx_int8": "no pictures to calibrate on"},
    }
    text = as_markdown(told)
    lines = text.splitlines()
    assert lines[0].count("|") == lines[2].count("|") and "batch 2: x faster" in lines[0]
    assert any(line.startswith("| compact | 0.2500 | - |") for line in lines)
    assert "Accuracy of separate single-task timm nets" in text and "--baseline RUN" in text
    assert "compact, ONNX Runtime int8: left out (no pictures to calibrate on)" in text
    assert "x faster than: separate single-task timm nets" in lines[-1]


def test_notes_are_footnotes_and_a_row_may_have_a_name_of_its_own(found):
    rows = {name: dict(row) for name, row in found["rows"].items()}
    assert all(row["note"] == "" for row in rows.values()) and "[1]" not in as_markdown(found)
    rows["compact"]["note"] = "it rained"
    rows["single_nets"]["title"] = "supernets"
    text = as_markdown({**found, "rows": rows, "accuracy": {"single_nets": {"seg miou": 0.5}}})
    assert "| compact [1] |" in text and "[1] compact: it rained" in text.splitlines()
    assert "| supernets | 0.5000 |" in text and text.endswith("x faster than: supernets")


def test_memory_of_a_compiled_model_is_said_to_be_the_compiler_s(artifact, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network: network)  # it takes seconds to import
    (compiled,) = open_variants(["compiled"], artifact, {})
    assert "its memory is that of a process that compiles" in compiled.note
    (eager,) = open_variants(["compact"], artifact, {})
    assert eager.note == ""


@pytest.mark.slow
def test_the_verb_writes_json_and_a_picture(artifact, tmp_path):
    said = []
    found = pk.benchmark(artifact, [1], 2, ["single_nets", "compact"], tmp_path / "out", say=said.append)
    assert said[-2:] == ["memory of single_nets", "memory of compact"]
    written = json.loads((tmp_path / "out/benchmark.json").read_text())
    assert written["rows"].keys() == found["rows"].keys() == {"single_nets", "compact"}
    assert written["accuracy"] == {}  # an artifact far from its run
    assert (tmp_path / "out/benchmark.png").read_bytes().startswith(b"\x89PNG")
    assert written["rows"]["compact"]["peak_memory_bytes"] > 0


def test_mistakes(artifact, tmp_path):
    with pytest.raises(SpecError, match="'fast' is not a variant"):
        api.benchmark(artifact, variants=["fast"])
    with pytest.raises(SpecError, match="wants? numbers above 0"):
        api.benchmark(artifact, [0])
    with pytest.raises(SpecError, match="is no run, no artifact"):
        api.benchmark(tmp_path)
    with pytest.raises(SpecError, match="nothere is no finished run: it has no results.json"):
        api.benchmark(artifact, baselines=["nothere"])
    with pytest.raises(SpecError, match="device cuda:99 cannot be used here"):
        api.benchmark(artifact, device="cuda:99")
    (tmp_path / "other.yaml").write_text(
        "version: 1\nname: x\ndata: {source: scenes, size: [32, 32]}\ntasks: {else: {type: depth}}\n"
    )
    with pytest.raises(SpecError, match="no task in common: .*; the data declare else"):
        api.benchmark(artifact, data=tmp_path / "other.yaml")
