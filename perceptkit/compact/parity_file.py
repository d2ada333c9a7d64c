"""parity.json beside exported files: for each file of the folder, what it was compared with and how far it is off.

{"model.onnx": {"ok", "format", "precision", "bound", "heads": {head: {"max_abs", "scale"}}, "sha256", ...}, ...}

A file whose numbers are beyond its bound is never written, so `ok` is true, but where a file of fewer bits costs some
task more of its metric than is allowed: then `lost` says which, and `accuracy` has every metric before and after
(compact/quality.py).

`macs` are those of one picture, of a codebook the mean over what it was calibrated on; a file that otherwise decides by
picture has none. `val` has metrics on val by the file itself, of exports that a recipe asked for.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perceptkit.train.run_folder import write_json

NAME = "parity.json"


def record(path: Path, report: Mapping[str, Any]) -> None:
    """Writes or replaces the entry of `path`; the other files' stay."""
    entries = {name: entry for name, entry in _read(path.parent).items() if (path.parent / name).is_file()}
    entries[path.name] = {"ok": True, **report, "sha256": digest(path)}
    write_json(path.parent / NAME, entries)


def write_inside(folder: Path, report: Mapping[str, Any]) -> None:
    """Writes the record of a folder that is one export: an artifact, a codebook."""
    write_json(folder / NAME, {"ok": True, **report})


def amend(path: Path, more: Mapping[str, Any]) -> None:
    """Adds to the record of an exported file or folder, which is there."""
    if path.is_dir():
        write_inside(path, {**_read(path), **more})
    else:
        entries = _read(path.parent)
        entries[path.name] = {**entries[path.name], **more}
        write_json(path.parent / NAME, entries)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def recorded(path: Path) -> Mapping[str, Any]:
    """The entry of an exported file, or what a folder (artifact, codebook) holds itself; empty where there is none."""
    if path.is_dir():
        return _read(path)
    entry = _read(path.parent).get(path.name, {})
    return entry if isinstance(entry, dict) else {}


def _read(folder: Path) -> dict[str, Any]:
    try:
        loaded = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}
