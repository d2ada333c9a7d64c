"""Supernet + plan -> folded model -> artifact -> the same model again."""

import json

import pytest
import torch
from timm.layers import convert_sync_batchnorm
from torch import nn

from perceptkit.compact import artifact, build
from perceptkit.compact.verify import BOUND, parity, probe_images
from perceptkit.errors import ExportError
from tests.compact.conftest import SIZE, manifest_of, network, plan_of


def norms(module):
    return sum(isinstance(m, nn.BatchNorm2d | nn.SyncBatchNorm) for m in module.modules())


@pytest.mark.parametrize("keep", ["all", "none", "mixed"])
@pytest.mark.parametrize("name", ["test_resnet", "tf_efficientnet_lite0", "test_vit"])
def test_folded_equals_the_supernet(name, keep):
    """Measured relative to each head's scale: 7e-7, 4e-6 and, without a norm to fold, 1e-7."""
    net = network(name)
    plan = plan_of(net, keep)
    small = build.compact_and_fold(net, plan, SIZE)
    assert norms(small) == 0 < norms(net)
    found = parity(lambda image: net(image, plan), small, probe_images(SIZE))
    assert found.keys() == net.tasks.keys()
    for task, row in found.items():
        assert row["scale"] > 0.01, task
        assert row["max_abs"] <= 1e-4 * row["scale"], task


def test_a_network_trained_on_several_gpus_gives_the_same_artifact():
    """Its norms are of other classes; the files must be those of any other network."""
    net = network()
    plan = plan_of(net, "mixed")
    other = convert_sync_batchnorm(network.__wrapped__())
    assert norms(other) == norms(net) and not any(isinstance(m, nn.BatchNorm2d) for m in other.modules())
    expected, got = (build.compact_and_fold(n, plan, SIZE).state_dict() for n in (net, other))
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in expected)


@pytest.mark.parametrize("optimize", ["latency", "size"])
def test_a_network_trained_in_channels_last_gives_the_same_artifact(optimize):
    nets = network.__wrapped__(), network.__wrapped__().to(memory_format=torch.channels_last)
    one, other = (build.compact_and_fold(net, plan_of(net, "all"), SIZE, optimize) for net in nets)
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
        assert value.stride() == other.state_dict()[name].stride()


def test_written_read_and_run(small, image, tmp_path):
    net, plan, manifest = small
    report = build.write_artifact(tmp_path / "artifact", net, manifest)
    files = {path.name for path in (tmp_path / "artifact").iterdir()}
    assert files == {
        "manifest.json",
        "model.safetensors",
        "policy.json",
        "labels.json",
        "README.md",
        "parity.json",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]  # nothing temporary is left
    again, read = build.read(tmp_path / "artifact")
    assert not again.training and list(read.tasks) == list(net.tasks)
    with torch.no_grad():
        expected, got, folded = net(image, plan), again(image), build.compact_and_fold(net, plan, SIZE)(image)
    for task in expected:
        assert torch.equal(got[task], folded[task])
        assert (got[task] - expected[task]).abs().max() <= 1e-4 * expected[task].abs().max()
    stored = json.loads((tmp_path / "artifact/parity.json").read_text())
    assert (
        stored == {"ok": True, **report}
        and stored["heads"].keys() == net.tasks.keys()
        and stored["bound"] == BOUND
    )
    assert 0 < max(row["max_abs"] for row in stored["heads"].values()) < 1e-4


def test_separate_nets_are_written_and_read(image, tmp_path):
    nets = network(method="single", chosen=("seg", "room"))
    plan = plan_of(nets, "first")
    build.write_artifact(tmp_path, nets, manifest_of(nets, plan, method="single"))
    again, _ = build.read(tmp_path)
    with torch.no_grad():
        expected, got = nets(image, plan), again(image)
    assert all((got[t] - expected[t]).abs().max() < 1e-4 for t in ("seg", "room"))


def spoil(module):
    """One weight of a block is another one."""
    next(p for name, p in module.named_parameters() if "layer1.0.conv1" in name).data[0, 0, 0, 0] += 3
    return module


def test_a_wrong_weight_is_caught_and_nothing_is_written(small, tmp_path, monkeypatch):
    net, _, manifest = small
    compact = build.compact
    monkeypatch.setattr(build, "compact", lambda *args: spoil(compact(*args)))
    with pytest.raises(ExportError, match=r"the compact model does not reproduce .*depth: .* at a scale of"):
        build.write_artifact(tmp_path / "artifact", net, manifest)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_file_is_caught_and_the_old_artifact_stays(small, tmp_path, monkeypatch):
    net, _, manifest = small
    build.write_artifact(tmp_path / "artifact", net, manifest)
    (tmp_path / "artifact/notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in (tmp_path / "artifact").iterdir()}
    save = artifact.save_file

    def save_spoiled(values, path):
        name = next(name for name in values if "layer1.0.conv1" in name)
        save({**values, name: values[name] + 0.1}, path)

    monkeypatch.setattr(artifact, "save_file", save_spoiled)
    with pytest.raises(ExportError, match="artifact, read back, does not reproduce"):
        build.write_artifact(tmp_path / "artifact", net, manifest)
    assert {path.name: path.read_bytes() for path in (tmp_path / "artifact").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


def test_reading_draws_no_random_numbers(small, tmp_path):
    net, _, manifest = small
    build.write_artifact(tmp_path, net, manifest)
    state = torch.get_rng_state()
    build.read(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
