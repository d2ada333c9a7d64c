"""Many files looked at in parallel, in their order, with a progress bar where there is a terminal."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")

CHUNK = 16
"""Files that a thread takes at once: a future for every file of a large set would cost more than some files do."""


def scan(
    items: Sequence[Item], look: Callable[[Item], Found], title: str, progress: bool = False
) -> list[Found]:
    """What `look` gives of each item, in the items' order.

    Threads, one for each core: Pillow and numpy let go of the interpreter while they decode. On JPEG and PNG files two
    threads and two processes came out alike, now the one ahead, now the other; and for threads nothing has to be
    started, copied or sent.

    Args:
        items: any number of them.
        look: is called by several threads at once.
        title: of the bar.
        progress: show a bar on stderr, which goes away at the end.

    Raises what `look` raises; of several the first in the items' order.
    """
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    pool = ThreadPoolExecutor(max(1, min(_cores(), len(chunks))), thread_name_prefix="scan")
    try:
        found = _flat(pool.map(lambda chunk: [look(item) for item in chunk], chunks))
        return list(_with_bar(found, len(items), title) if progress and items else found)
    finally:
        pool.shutdown(cancel_futures=True)  # what is still queued after a Ctrl-C would be waited for


def _flat(chunks: Iterator[list[Found]]) -> Iterator[Found]:
    for chunk in chunks:
        yield from chunk


def _with_bar(found: Iterator[Found], total: int, title: str) -> Iterator[Found]:
    from rich.console import Console  # takes a while to import, and is for terminals alone
    from rich.progress import track

    console = Console(file=sys.stderr)
    yield from track(found, title, total, console=console, transient=True)


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
