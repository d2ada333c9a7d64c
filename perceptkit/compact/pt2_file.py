"""Opens a `.pt2` file of either kind, told apart by what is in it, never by its name.

    torch   a `torch.export` program: data/weights/..., models/model.json
    aoti    an AOTInductor package: data/aotinductor/..., compiled for one kind of machine

Torch's own reader of programs unpickles what a file asks it to and evaluates expressions that a file holds. So a
program is looked through first, and refused if it holds anything that `export_torch.py` does not write: the rest is
JSON and raw tensors. A package *is* machine code, and runs as such: load none that you would not run as a program.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor

from perceptkit.compact.program import quiet
from perceptkit.compact.verify import Forward
from perceptkit.errors import ExportError, SpecError

Kind = Literal["torch", "aoti"]
MANIFEST = "extra/perceptkit.json"
PACKAGE, PROGRAM, SAMPLES = "data/aotinductor/", "models/model.json", "data/sample_inputs/model.pt"
CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
TARGET = re.compile(
    r"torch\.ops\.(aten|prims|higher_order)\.\w+(\.\w+)?|_operator\.\w+|math\.\w+|torch\.sym_\w+"
)
WORDS = re.compile(
    r"[su]\d+|\d+|Symbol|Integer|Rational|Mul|Add|Pow|Max|Min|FloorDiv|CeilDiv|CleanDiv|Mod|PythonMod|"
    r"ModularIndexing|Eq|Ne|Ge|Gt|Le|Lt|positive|nonnegative|integer|True|False"
)
"""All that may occur in an expression of sizes."""


def inspect(path: Path) -> tuple[Kind, str]:
    """Kind and manifest (JSON), nothing else having been read.

    Raises:
        SpecError: there is no such file, or it is of someone else.
        ExportError: it is damaged, or holds what no export writes.
    """
    if not path.is_file():
        raise SpecError(f"{path}: no such file")
    try:
        with ZipFile(path) as archive:
            entries = _entries(archive)
            if MANIFEST not in entries:
                raise SpecError(f"{path} was not exported by perceptkit: it has no manifest")
            manifest = archive.read(entries[MANIFEST]).decode()
            if any(entry.startswith(PACKAGE) for entry in entries):
                if any(entry.startswith("models/") for entry in entries):
                    raise ExportError(f"{path} holds a program and a package; one of them is not ours")
                return "aoti", manifest
            _refuse_code(archive, entries)
            return "torch", manifest
    except (BadZipFile, UnicodeDecodeError, KeyError, ValueError, AttributeError, OSError) as error:
        raise ExportError(f"{path} is damaged: {error}") from error


def open_torch(path: Path, names: list[str], device: str | torch.device = "cpu") -> Forward:
    """What runs a program whose outputs are `names`. Call `inspect` first. Raises ExportError."""
    try:
        with quiet():
            program = torch.export.load(path)
            if torch.device(device).type != "cpu":
                from torch.export.passes import move_to_device_pass

                program = move_to_device_pass(program, device)
            module = program.module()
    except Exception as error:  # torch's, of many types
        raise ExportError(
            f"{path} cannot be read by torch {torch.__version__}: {_first_line(error)}"
        ) from error
    return _named(module, names, device)


def open_aoti(path: Path, names: list[str], device: str | torch.device | None = None) -> Forward:
    """What runs a package, on the device it was compiled for. Call `inspect` first.

    Raises:
        SpecError: it was made for another device.
        ExportError: it cannot be read.
    """
    with ZipFile(path) as archive:
        told = [archive.read(name) for name in archive.namelist() if name.endswith("wrapper_metadata.json")]
    made_for = json.loads(told[0]).get("AOTI_DEVICE_KEY", "cpu") if told else "cpu"
    device = torch.device(made_for if device is None else device)
    if device.type != made_for:
        raise SpecError(f"{path} was compiled for {made_for}, not for {device}; export it for that device")
    try:
        with quiet():
            if made_for == "cuda" and not torch.cuda.is_available():
                raise SpecError(f"{path} was compiled for CUDA, which is not there")
            package = torch._inductor.aoti_load_package(str(path))
    except SpecError:
        raise
    except Exception as error:
        raise ExportError(
            f"{path} cannot be read by torch {torch.__version__}: {_first_line(error)}"
        ) from error
    return _named(package, names, device)


def _named(module: Any, names: list[str], device: str | torch.device) -> Forward:
    def forward(image_BCHW: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            outputs = module(image_BCHW.to(device).contiguous())
        return dict(zip(names, outputs, strict=True))

    return forward


def _entries(archive: ZipFile) -> dict[str, str]:
    """Full names by names without the folder that all of them are in."""
    names = archive.namelist()
    entries = {name.partition("/")[2]: name for name in names}
    if len(entries) != len(names) or len({name.partition("/")[0] for name in names}) > 1:
        raise ValueError("entries in several folders, or twice")
    return entries


def _refuse_code(archive: ZipFile, entries: dict[str, str]) -> None:
    """Raises ValueError for a program with anything in it that torch would unpickle or evaluate."""
    if PROGRAM not in entries:
        raise ValueError(f"no {PROGRAM}")
    if any(entry.startswith("models/") and entry != PROGRAM for entry in entries):
        raise ValueError("more than one program")
    if any(entry.startswith("data/") and entry.endswith(".pt") and entry != SAMPLES for entry in entries):
        raise ValueError("it holds pickles, which are never read")
    if archive.read(entries[SAMPLES]):
        raise ValueError("it holds pickled example inputs, which are never read")
    for config in CONFIGS:
        for meta in json.loads(archive.read(entries[config]))["config"].values():
            if meta["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", meta["path_name"]):
                raise ValueError("it holds pickles, which are never read")
    program = json.loads(archive.read(entries[PROGRAM]))
    if program.get("guards_code"):
        raise ValueError("it holds code for guards, which is never run")
    for key, text in _strings(program):
        if key == "target" and not TARGET.fullmatch(text):
            raise ValueError(f"it calls {text[:80]!r}, which no export does")
        if key == "expr_str" and not _is_of_sizes(text):
            raise ValueError(f"it holds the expression {text[:80]!r}, which no export does")


def _is_of_sizes(text: str) -> bool:
    plain = re.fullmatch(r"[\w\s'=(),+\-*/<>]*", text) is not None
    quoted = all(re.fullmatch(r"[su]\d+", part) for part in re.findall(r"'([^']*)'", text))
    return plain and quoted and all(WORDS.fullmatch(word) for word in re.findall(r"\w+", text))


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """(key, text) of every text in nested JSON."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _strings(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, key)
    elif isinstance(value, str):
        yield key, value


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
