"""Folders that appear only when all of them is made, and refusals: what the tools that make data share."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Refusal(Exception):
    """Something the person who started the tool can mend."""


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` to fill, renamed to `out` at the end; after an error nothing is left.

    Raises Refusal where `out` holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Refusal(f"{out} is not an empty folder; name a new one, or delete it first")
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield unfinished
        unfinished.chmod(0o755)  # mkdtemp's folder is private
        if out.exists():
            out.rmdir()
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
