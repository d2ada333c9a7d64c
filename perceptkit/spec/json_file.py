"""A JSON file, or an error for the person whose it is."""

import json
from pathlib import Path
from typing import Any

from perceptkit.errors import DataError


def read_json(path: Path) -> Any:
    """A JSON file. Raises DataError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"is not JSON: {error}") from error
