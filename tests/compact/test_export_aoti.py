"""An AOTInductor package: needs a compiler to be built, none to be run; the manifest travels in it."""

import json
import logging
from zipfile import ZipFile

import pytest
import torch

from perceptkit.compact.export import export_network
from perceptkit.compact.program import quiet
from perceptkit.compact.pt2_file import inspect, open_aoti
from perceptkit.errors import ExportError, SpecError
from tests.compact.conftest import SIZE, lone


def test_a_missing_compiler_is_named_before_anything_is_built(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(SpecError, match="needs a C\\+\\+ compiler .* no 'no-such-compiler': install g\\+\\+"):
        export_network(*lone(), tmp_path / "model.pt2", "aoti")
    assert list(tmp_path.iterdir()) == []


def test_torch_does_not_tell_of_a_cuda_that_is_not_there(caplog):
    """On machines without a driver it does so when the package is built and when it is loaded."""
    logger = logging.getLogger("torch.utils.cpp_extension")
    with caplog.at_level(logging.WARNING), quiet():
        logger.warning("No CUDA runtime is found, using CUDA_HOME='/usr/local'")
    assert not caplog.records and logger.isEnabledFor(logging.WARNING)


def test_a_compiler_that_fails_is_no_traceback(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("CppCompileError: C++ compile error\n\nCommand: g++\nx")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", fail)
    with pytest.raises(
        ExportError, match=r"cannot compile this network: CppCompileError: C\+\+ compile error Comm"
    ):
        export_network(*lone(), tmp_path / "model.pt2", "aoti")
    assert list(tmp_path.iterdir()) == []


def package(path, metadata):
    with ZipFile(path, "w") as archive:
        archive.writestr("m/data/aotinductor/model/x.wrapper_metadata.json", json.dumps(metadata))
        archive.writestr("m/data/aotinductor/model/x.wrapper.so", "no library")
        archive.writestr("m/extra/perceptkit.json", "{}")
    return path


def test_a_package_for_another_device(tmp_path):
    path = package(tmp_path / "m.pt2", {"AOTI_DEVICE_KEY": "cuda"})
    with pytest.raises(SpecError, match="was compiled for cuda, not for cpu; export it for that device"):
        open_aoti(path, ["room"], "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(SpecError, match="compiled for CUDA, which is not there"):
            open_aoti(path, ["room"])


def test_a_damaged_package(tmp_path):
    with pytest.raises(ExportError, match=r"m\.pt2 cannot be read by torch"):
        open_aoti(package(tmp_path / "m.pt2", {"AOTI_DEVICE_KEY": "cpu"}), ["room"])


@pytest.mark.slow
def test_build_load_and_compare(tmp_path):
    """Takes a minute or two."""
    small, manifest = lone()
    path = export_network(small, manifest, tmp_path / "model.pt2", "aoti")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.pt2", "parity.json"]
    kind, text = inspect(path)
    assert kind == "aoti" and json.loads(text) == json.loads(json.dumps(manifest.to_dict()))
    report = json.loads((tmp_path / "parity.json").read_text())["model.pt2"]
    assert (
        report["format"] == "aoti"
        and report["device"] == "cpu"
        and report["compared_on"]["batches"] == [1, 2, 3]
    )
    forward = open_aoti(path, ["room"])
    for batch in (1, 2, 7):
        image = torch.randn(batch, 3, *SIZE)
        assert torch.allclose(forward(image)["room"], small(image)["room"], atol=1e-5)
