"""A JSON file, or an error for the person whose it is."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perceptkit.errors import DataError

_WANTED: dict[type, str] = {str: "text", list: "a list"}


def read_json(path: Path) -> Any:
    """A JSON file. Raises DataError."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"is not JSON: {error}") from error


def json_records(
    where: str, content: Mapping[str, Any], key: str, fields: Mapping[str, list[type]]
) -> list[dict[str, Any]]:
    """The entries under `key`, none where it is absent; each has these fields. Raises DataError."""
    entries = content.get(key) or []
    if not isinstance(entries, list):
        raise DataError(f"{where}: '{key}' is not a list")
    for i, entry in enumerate(entries):
        for field, kinds in fields.items():
            if not isinstance(entry, dict) or type(entry.get(field)) not in kinds:
                wanted = next((_WANTED[kind] for kind in kinds if kind in _WANTED), "a whole number")
                raise DataError(f"{where}: {key}[{i}] has no '{field}' that is {wanted}")
    return entries
