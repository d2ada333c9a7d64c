"""The folder: what is in it, that it is whole or not there, and what is said about a damaged one."""

import io
import json
import os
import pickletools
import struct
import zipfile
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from perceptkit.compact import artifact, build
from perceptkit.compact.artifact import Manifest, parse_manifest
from perceptkit.errors import ExportError
from perceptkit.model.cost import measured_macs
from perceptkit.model.plan import Plan
from tests.compact.conftest import SIZE, lone, manifest_of, network, plan_of


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written") / "artifact"
    net = network()
    build.write_artifact(folder, net, manifest_of(net, plan_of(net, "mixed")))
    return folder


@pytest.fixture
def copy(written, tmp_path):
    """One that a test may damage."""
    for path in written.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def edit(folder, change, signed=False):
    """Changes the manifest; `signed` also notes the digest of what it then says."""
    path = folder / "manifest.json"
    loaded = json.loads(path.read_text())
    change(loaded)
    if signed:
        loaded["sha256"]["manifest.json"] = artifact._digest_of_body(loaded)
    path.write_text(json.dumps(loaded))


def test_manifest_round_trip(small):
    manifest = small[2]
    text = json.dumps(manifest.to_dict())
    again = Manifest.from_dict(json.loads(text))
    assert json.dumps(again.to_dict()) == text
    assert again.host is None  # of a model that had no router
    for field in ("name", "backbone", "heads", "plan", "method", "size_HW", "mean", "std", "cost", "metrics"):
        assert getattr(again, field) == getattr(manifest, field), field
    assert list(again.tasks) == list(manifest.tasks)
    for name, task in manifest.tasks.items():
        assert type(again.tasks[name]) is type(task)
        assert again.tasks[name].spec == task.spec
        assert again.tasks[name].labels == task.labels
        assert again.tasks[name].name == name


def test_the_plan_before_a_router_travels_with_the_manifest(small):
    host = Plan.all_keep(list(small[2].tasks), list(small[2].plan.blocks))
    manifest = replace(small[2], host=host)
    again = Manifest.from_dict(json.loads(json.dumps(manifest.to_dict())))
    assert again.host == host
    assert again.only(["seg"]).host == host.only(["seg"])


def test_the_manifest_says_what_an_application_needs(written):
    told = json.loads((written / "manifest.json").read_text())
    assert told["format"] == 1 and told["name"] == "tiny" and told["backbone"]["name"] == "test_resnet"
    assert told["input"] == {
        "size": [64, 64],
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.25, 0.3],
        "fit": "stretch",
    }
    assert told["tasks"]["points"]["labels"] == ["left", "right", "nose"]
    assert told["tasks"]["depth"]["unit"] == "m"
    assert (
        told["plan"]["choices"]["seg"] == json.loads((written / "policy.json").read_text())["choices"]["seg"]
    )
    assert json.loads((written / "labels.json").read_text())["room"] == ["hall", "bath", "attic"]


def test_labels_travel_with_the_manifest(tmp_path):
    """Classes that were declared as a file are known without that file."""
    net = network(chosen=("seg",))
    manifest = manifest_of(net, plan_of(net, "all"))
    told = json.loads(json.dumps(manifest.to_dict()))
    told["tasks"]["seg"]["spec"]["classes"] = str(tmp_path / "gone.txt")
    assert Manifest.from_dict(told).tasks["seg"].labels == [f"class {i}" for i in range(9)]


def test_parameters_and_macs_are_those_of_the_file(written):
    """Folded norms have no parameters any more; the row of the plan is of the trained network."""
    again, manifest = build.read(written)
    weights = load_file(written / "model.safetensors")
    names = [name for name, _ in again.named_parameters()]
    assert manifest.size["params"] == sum(weights[name].numel() for name in names)
    assert manifest.size["params"] < manifest.cost["rows"]["compact"]["params"]
    with torch.no_grad():
        assert manifest.size["macs"] == measured_macs(lambda: again(torch.zeros(1, 3, *SIZE)))


def test_an_artifact_that_does_not_say_what_is_written_is_read(copy):
    edit(copy, lambda told: told.pop("written"), signed=True)
    _, manifest = build.read(copy)
    assert manifest.written is None and manifest.size == manifest.cost["rows"]["compact"]
    edit(copy, lambda told: told.update(written={"params": 3}), signed=True)
    with pytest.raises(ExportError, match="is damaged: it has no 'macs'"):
        build.read(copy)


def test_all_files_may_be_read_by_whom_the_umask_lets(tmp_path):
    small, manifest = lone()
    before = os.umask(0o027)
    try:
        build.write_verified(tmp_path / "artifact", small, manifest, {})
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "artifact").iterdir()} == {0o640}


def test_no_pickle_anywhere(written):
    for path in written.iterdir():
        content = path.read_bytes()
        assert not zipfile.is_zipfile(io.BytesIO(content)), path.name  # what torch.save writes
        with pytest.raises(ValueError):
            list(pickletools.genops(content))
    weights = (written / "model.safetensors").read_bytes()
    header = json.loads(weights[8 : 8 + struct.unpack("<Q", weights[:8])[0]])
    assert all({"dtype", "shape", "data_offsets"} == entry.keys() for entry in header.values())


def test_the_card_tells_a_stranger_how_to_use_it(written):
    card = (written / "README.md").read_text()
    assert card.startswith("# tiny\n") and "`test_resnet`, sharing: adashare" in card
    assert "64 x 64" in card and "| seg | segmentation | miou | 0.2500 |" in card
    told = json.loads((written / "manifest.json").read_text())
    written = told["written"]
    assert f"parameters: {written['params']:,}; MACs" in card and f"{written['macs']:,}\n" in card
    assert "- depth: (batch, 1, height, width): depth in m; what is below" in card
    row = "".join("#" if choice == "keep" else "." for choice in told["plan"]["choices"]["depth"])
    assert f"depth {row}\n" in card


# written whole or not at all


def test_an_error_leaves_nothing(small, tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(artifact, "model_card", full_disk)
    with pytest.raises(OSError, match="no space"):
        build.write_artifact(tmp_path / "artifact", small[0], small[2])
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_what_was_there(tmp_path):
    (tmp_path / "manifest.json").write_text("old")
    with pytest.raises(KeyboardInterrupt), artifact.staged(tmp_path) as temporary:
        (temporary / "manifest.json").write_text("new")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    assert (tmp_path / "manifest.json").read_text() == "old"


def test_the_manifest_comes_last(tmp_path, monkeypatch):
    """Interrupted between two files: a folder without a manifest, which nobody takes for a model."""
    (tmp_path / "manifest.json").write_text("old")
    replace, placed = artifact.os.replace, []

    def replace_two(source, target):
        if len(placed) == 2:
            raise OSError("interrupted")
        placed.append(target.name)
        replace(source, target)

    monkeypatch.setattr(artifact.os, "replace", replace_two)
    with pytest.raises(OSError), artifact.staged(tmp_path) as temporary:
        for name in ("a", "manifest.json", "model.safetensors", "z"):
            (temporary / name).write_text("new")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == set(placed) < {"a", "model.safetensors", "z"} and len(left) == 2


def test_other_files_in_the_folder_stay(small, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    build.write_artifact(tmp_path, small[0], small[2])
    assert (tmp_path / "notes.txt").read_text() == "mine"
    build.read(tmp_path)


# damaged


def test_no_artifact(tmp_path):
    with pytest.raises(ExportError, match=r"is no artifact: it has no manifest\.json"):
        build.read(tmp_path)


def test_missing_weights(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(ExportError, match=r"model\.safetensors is missing"):
        build.read(copy)


def test_one_flipped_bit(copy):
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (copy / "model.safetensors").write_bytes(content)
    with pytest.raises(ExportError, match=r"model\.safetensors is not the file .*SHA-256 differs"):
        build.read(copy)


def test_weights_of_another_model(copy):
    weights = load_file(copy / "model.safetensors")
    name = next(iter(weights))
    save_file({**weights, name: torch.zeros(1, 2)}, copy / "model.safetensors")
    digest = artifact._digest(copy / "model.safetensors")
    edit(copy, lambda told: told["sha256"].update({"model.safetensors": digest}))
    with pytest.raises(ExportError, match=r"model\.safetensors does not fit manifest\.json: .*size mismatch"):
        build.read(copy)


def test_a_manifest_that_is_no_json(copy):
    (copy / "manifest.json").write_text('{"format": 1, "name"')
    with pytest.raises(ExportError, match=r"manifest\.json is damaged: Expecting"):
        build.read(copy)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda told: told.update(format=99), "artifact format 99; this version reads 1"),
        (lambda told: told.pop("format"), "artifact format None"),
        (lambda told: told.pop("plan"), "manifest.json is damaged: it has no 'plan'"),
        (lambda told: told["input"].pop("mean"), "it has no 'mean'"),
        (lambda told: told["plan"]["choices"].update(seg=["keep"]), "1 choices for 4 blocks"),
        (lambda told: told["tasks"]["seg"]["spec"].update(type="pickle"), "is damaged: .*pickle"),
        (lambda told: told["backbone"].update(weights=3), "is damaged: .*weights"),
        (lambda told: told.update(input=[64, 64]), "is damaged"),
        (lambda told: told["input"].update(size=[64]), r"input.size is \[64\]"),
        (lambda told: told["input"].update(size=["a", "b"]), "input.size is"),
        (lambda told: told["input"].update(mean=["x", "y", "z"]), "is damaged"),
        (lambda told: told["input"].update(std=[0, 0, 0]), "numbers above 0"),
        (lambda told: told["tasks"].pop("seg"), "its plan is for seg"),
        (lambda told: told.update(policies=[[1]]), "its policies are not of 0 routed blocks"),
        (
            lambda told: told.update(
                host=told["plan"]
                | {"blocks": ["b"], "choices": dict.fromkeys(told["plan"]["tasks"], ["keep"])}
            ),
            "its host's plan is of other blocks or tasks",
        ),
        (lambda told: told.pop("sha256"), "SHA-256 differs"),
        (lambda told: told.update(sha256=[]), "SHA-256 differs"),
        # what still makes sense, but is not what was written
        (lambda told: told["input"].update(std=[1, 1, 1]), "was changed after it was written"),
        (lambda told: told["plan"]["choices"]["seg"].__setitem__(0, "keep"), "was changed after"),
        (lambda told: told["heads"].update(channels=9), "was changed after"),
    ],
)
def test_a_tampered_manifest(copy, change, message):
    edit(copy, change)
    with pytest.raises(ExportError, match=message):
        build.read(copy)


@pytest.mark.parametrize("text", ["", "null", "[]", '"text"', "{}", b"\xff\x00"])
def test_anything_else_is_no_manifest(text):
    with pytest.raises(ExportError):
        parse_manifest(text, "here")


def test_a_plan_that_is_not_of_the_network(copy):
    def other_blocks(told):
        told["plan"]["blocks"] = [f"{name}x" for name in told["plan"]["blocks"]]

    edit(copy, other_blocks, signed=True)
    with pytest.raises(Exception, match="blocks are not the 4") as caught:
        build.read(copy)
    assert caught.type.__module__ == "perceptkit.errors"


def test_a_changed_plan_does_not_fit_the_weights(copy):
    def skip_all(told):
        for row in told["plan"]["choices"].values():
            row[:] = ["skip"] * len(row)

    edit(copy, skip_all, signed=True)
    with pytest.raises(ExportError, match=r"does not fit manifest\.json"):
        build.read(copy)


def test_size_of_the_input_is_kept(written):
    _, manifest = build.read(written)
    assert manifest.size_HW == SIZE and manifest.mean == (0.5, 0.4, 0.3)
