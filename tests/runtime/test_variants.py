"""What a benchmark sets side by side."""

import json
from functools import partial

import pytest
import torch

from perceptkit.compact import build
from perceptkit.compact.artifact import read_manifest
from perceptkit.compact.build import read
from perceptkit.compact.per_task import single_task
from perceptkit.errors import SpecError
from perceptkit.model import cost
from perceptkit.runtime.peak_memory import peak_memory
from perceptkit.runtime.variants import TITLES, open_variant, open_variants
from tests.runtime.conftest import SIZE


@pytest.fixture
def rows(artifact):
    return read_manifest(artifact).cost["rows"]


@pytest.mark.parametrize("name", ["single_nets", "passes", "hard_shared", "compact"])
def test_every_variant_answers_all_tasks(artifact, image, name):
    outputs = open_variant(name, artifact).forward(image)
    expected = read(artifact)[0](image)
    assert {task: value.shape for task, value in outputs.items()} == {
        task: value.shape for task, value in expected.items()
    }


def test_the_compact_one_computes_what_the_artifact_does(artifact, image):
    expected = read(artifact)[0](image)
    outputs = open_variant("compact", artifact).forward(image)
    assert all(torch.equal(outputs[task], value) for task, value in expected.items())


@pytest.mark.parametrize("name", ["single_nets", "passes", "hard_shared"])
def test_macs_are_those_that_run(artifact, name):
    """Counted while it runs; the compact model's are tested where it is made."""
    variant = open_variant(name, artifact)
    assert cost.measured_macs(lambda: variant.forward(torch.zeros(1, 3, *SIZE))) == variant.macs


def test_parameters_and_bytes(artifact, rows):
    found = {variant.name: variant for variant in open_variants(list(TITLES)[:4], artifact, {})}
    assert list(found) == ["single_nets", "passes", "hard_shared", "compact"]
    assert found["single_nets"].params == rows["single_task_nets"]["params"] > found["hard_shared"].params
    assert found["passes"].params == found["hard_shared"].params >= found["compact"].params
    assert found["compact"].file_bytes == (artifact / "model.safetensors").stat().st_size
    for name in ("single_nets", "hard_shared"):  # float32, and the norms' statistics besides
        assert 4 * found[name].params < found[name].file_bytes < 4.5 * found[name].params


def test_one_task_of_several_is_compared_with_its_own_nets(artifact, tmp_path):
    small, narrow = single_task(*read(artifact), "seg")
    build.write_verified(tmp_path, small, narrow, {})
    found = {variant.name: variant for variant in open_variants(list(TITLES)[:4], tmp_path, {})}
    for name in ("single_nets", "passes", "hard_shared"):
        variant = found[name]
        assert cost.measured_macs(partial(variant.forward, torch.zeros(1, 3, *SIZE))) == variant.macs, name
    assert found["single_nets"].params == found["hard_shared"].params > found["compact"].params
    assert found["compact"].macs == narrow.written["macs"] <= found["hard_shared"].macs


def test_onnxruntime_gets_as_many_threads_as_torch(artifact, monkeypatch):
    from perceptkit.runtime import variants

    asked = []

    def load(*arguments, **named):
        asked.append(named["threads"])
        return real(*arguments, **named)

    real = variants.load
    monkeypatch.setattr(variants, "load", load)
    open_variant("compact", artifact)
    assert asked == [torch.get_num_threads()]


def test_what_does_not_exist_is_refused(artifact):
    with pytest.raises(SpecError, match="'fast' is not a variant; choose from single_nets"):
        open_variant("fast", artifact)
    with pytest.raises(SpecError, match="onnx has not been exported"):
        open_variant("onnx", artifact)


@pytest.mark.slow
def test_memory_is_a_process_s_own(artifact, tmp_path):
    hog = torch.ones(2**28, dtype=torch.uint8)  # 256 MiB in this process, none of that one's business
    peak = peak_memory("compact", artifact, None, 2, "cpu")
    assert peak is not None and 2**20 < peak < len(hog)
    assert peak_memory("onnx", artifact, tmp_path / "nothing.onnx", 1, "cpu") is None


def test_the_machine_is_plain_data():
    from perceptkit.runtime.benchmark import machine

    assert json.loads(json.dumps(machine("cpu")))["threads"] == torch.get_num_threads()
