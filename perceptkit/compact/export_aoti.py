"""An AOTInductor package in one `.pt2` file: compiled ahead of time, runs without Python's compiler stack.

It holds machine code for one device and one kind of processor: build it where, or like where, it will run.
"""

import json
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZipFile

import torch
from torch import Tensor, nn

from perceptkit.compact.artifact import Manifest
from perceptkit.compact.export_onnx import images
from perceptkit.compact.precision import Precision
from perceptkit.compact.program import export_program, quiet
from perceptkit.compact.pt2_file import MANIFEST, inspect, open_aoti
from perceptkit.compact.verify import Forward
from perceptkit.errors import ExportError, SpecError

CONFIGS = {
    "cpp.dynamic_threads": True,  # else the file would use as many threads as the machine it was built on has
    "layout_optimization": False,  # torch 2.14: a convolution's result laid out one way was read another way
}


def write_aoti(
    network: nn.Module, manifest: Manifest, path: Path, precision: Precision, device: str = "cpu"
) -> tuple[Forward, list[Tensor], dict[str, Any]]:
    """As `write_torch`, compiled for `device`; takes a minute or more.

    Raises:
        SpecError: there is no C++ compiler.
        ExportError: the compiler failed.
    """
    needs_compiler()
    tasks = list(manifest.tasks)
    program = export_program(network, tasks, manifest.size_HW, precision, device)
    try:
        with quiet(), TemporaryDirectory(prefix="perceptkit-aoti-") as cache, _cache_in(cache):
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(path), inductor_configs=CONFIGS
            )
    except Exception as error:  # of the compiler, of inductor: many types
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise ExportError(f"AOTInductor cannot compile this network: {' '.join(lines[:3])[:400]}") from error
    with ZipFile(path, "a") as archive:
        folder = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{folder}/{MANIFEST}", json.dumps(manifest.to_dict()))
    inspect(path)
    details = {"sizes": {"fixed": list(manifest.size_HW)}, "device": device}
    return open_aoti(path, tasks, device), images(manifest.size_HW, None), details


def needs_compiler() -> None:
    """Raises SpecError where there is no C++ compiler, before a minute has been spent."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise SpecError(
            f"an AOTInductor package needs a C++ compiler to be built, and there is no {compiler!r}: install g++ "
            "(apt install g++) or name yours in CXX; running the finished file needs none"
        )


class _cache_in:
    """Points inductor's cache to a folder: what is left of a build is removed with it."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        self.before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = self.folder

    def __exit__(self, *_: object) -> None:
        if self.before is None:
            del os.environ["TORCHINDUCTOR_CACHE_DIR"]
        else:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = self.before
