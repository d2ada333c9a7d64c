"""Where things are kept that can be made again: scenes, places of members in shards, tables of parquet files."""

import os
from pathlib import Path


def default_cache() -> Path:
    """$PERCEPTKIT_CACHE, or `perceptkit` in the user's cache folder; it can be deleted at any time."""
    chosen = os.environ.get("PERCEPTKIT_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "perceptkit"
