"""Files that are read once per process and version: one file may hold the labels of a whole split."""

from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from perceptkit.errors import DataError
from perceptkit.spec.templates import shown

P = ParamSpec("P")
Content = TypeVar("Content")

HELD = 8
"""Files of one kind that are kept."""


def once_per_version(
    read: Callable[Concatenate[Path, P], Content],
) -> Callable[Concatenate[Path, P], Content]:
    """`read(path, ...)`, whose result is kept until the file's time of change is another. What is given beside the path
    must be hashable, and nobody may change the result.

    Raises, beside what `read` raises, DataError where there is no such file or it cannot be opened.
    """

    @lru_cache(maxsize=HELD)
    def cached(path: Path, mtime_ns: int, *args: Any) -> Any:
        return cast(Any, read)(path, *args)

    @wraps(read)
    def reading(path: Path, *args: P.args, **kwargs: P.kwargs) -> Content:
        assert not kwargs, "by position, so that one call has one key"
        try:
            return cast(Content, cached(path, path.stat().st_mtime_ns, *args))
        except OSError as error:
            raise DataError(f"{shown(path)} cannot be read: {error.strerror}") from error

    return reading
