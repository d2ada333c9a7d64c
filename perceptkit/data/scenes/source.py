"""Splits of built-in scenes, rendered at first use and kept on disk.

The cache is $PERCEPTKIT_CACHE, or `perceptkit` in the user's cache folder; it can be deleted at any time. Its
file names hold everything that the pixels depend on, a digest of the renderer's code included.
"""

import hashlib
import multiprocessing
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from perceptkit.data.sample import Sample
from perceptkit.data.scenes.render import render_scene
from perceptkit.errors import DataError
from perceptkit.spec import scene_labels
from perceptkit.spec.cache_folder import default_cache
from perceptkit.spec.tasks_file import DepthSpec, ScenesData, Split, Style
from perceptkit.tasks.base import Task

CHUNK = 25
"""Scenes per file."""
FIRST_INDEX: dict[Split, int] = {"train": 0, "val": 1 << 28, "test": 2 << 28}
"""Splits are far-away ranges of one sequence: however many scenes they hold, they share none."""


class SceneSource:
    """One split of `source: scenes`.

    Args:
        data: the declaration.
        split: which one.
        tasks: by name; their types say which labels are wanted.
        cache_dir: where rendered scenes are kept; None for the user's cache folder.

    Raises DataError where the cache cannot be written.
    """

    def __init__(
        self, data: ScenesData, split: Split, tasks: Mapping[str, Task], cache_dir: Path | None = None
    ) -> None:
        self.data, self.split, self.tasks = data, split, dict(tasks)
        count = getattr(data.count, split)
        self.ids: Sequence[str] = [f"{split}-{number:06d}" for number in range(count)]
        height, width = data.size
        self.folder = (cache_dir or default_cache()) / (
            f"scenes-{renderer_digest()}/{data.style}-seed{data.seed}-{height}x{width}"
        )
        self._chunks: dict[int, np.ndarray] = {}
        self._render_missing()

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, index: int, whole: bool = False) -> Sample:
        """The picture and the labels of the declared tasks; scenes are rendered at the network's size, and whole."""
        record = self._record(index)
        targets = {name: _target(record, task) for name, task in self.tasks.items()}
        return Sample(self.ids[index], np.array(record["image"]), targets)

    def label(self, index: int, task: str) -> int:
        """The room of one scene, by a task that has one label per picture."""
        return int(_target(self._record(index), self.tasks[task]))

    def _record(self, index: int) -> np.void:
        number, within = divmod(index, CHUNK)
        if number not in self._chunks:
            self._chunks[number] = np.load(self._file(number), mmap_mode="r")
        record: np.void = self._chunks[number][within]
        return record

    def _file(self, number: int) -> Path:
        return self.folder / f"{self.split}-{number:05d}.npy"

    def _render_missing(self) -> None:
        dtype = record_dtype(self.data.size)
        numbers = range(-(-len(self) // CHUNK))
        missing = [number for number in numbers if not _is_whole(self._file(number), dtype)]
        if not missing:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            first = [FIRST_INDEX[self.split] + number * CHUNK for number in missing]
            chunks = render_chunks(self.data.seed, first, self.data.size, self.data.style)
            said = f"rendering {len(missing) * CHUNK} {self.data.style} scenes ({self.split})"
            console = Console(stderr=True)
            shown = track(
                zip(missing, chunks, strict=True),
                said,
                len(missing),
                console=console,
                transient=True,
                disable=not console.is_terminal,
            )
            for number, records in shown:
                _write(self._file(number), records)
        except OSError as error:
            raise DataError(
                f"{self.folder}: rendered scenes cannot be kept there ({error.strerror}); "
                "point PERCEPTKIT_CACHE to a folder that can be written"
            ) from error


@cache
def renderer_digest() -> str:
    """Changes with the renderer's code and with the order of its labels."""
    digest = hashlib.sha256()
    for file in [*sorted(Path(__file__).parent.glob("*.py")), Path(scene_labels.__file__)]:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:8]


def record_dtype(size_HW: tuple[int, int]) -> np.dtype:
    """One scene on disk."""
    height, width = size_HW
    return np.dtype(
        [
            ("image", "u1", (height, width, 3)),
            ("segmentation", "u1", (height, width)),
            ("depth_m", "<f4", (height, width)),
            ("normals", "<f4", (3, height, width)),
            ("edges", "u1", (height, width)),
            ("keypoints", "<f4", (len(scene_labels.SCENE_KEYPOINTS), 3)),
            ("room", "u1"),
        ]
    )


def render_chunks(
    seed: int, first: Sequence[int], size_HW: tuple[int, int], style: Style
) -> Iterator[np.ndarray]:
    """Chunks of scenes as records, in the order of `first`, by as many processes as there are cores.

    Only where processes can be forked: others would run the user's main script again.
    """
    render = partial(render_chunk, seed, size_HW=size_HW, style=style)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    processes = min(cores, len(first))
    if sys.platform != "linux" or processes == 1 or multiprocessing.current_process().daemon:
        yield from map(render, first)
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("fork")) as pool:
        yield from pool.map(render, first)


def render_chunk(seed: int, first: int, size_HW: tuple[int, int], style: Style) -> np.ndarray:
    """CHUNK scenes from index `first` on."""
    records = np.empty(CHUNK, record_dtype(size_HW))
    for number in range(CHUNK):
        scene = render_scene(seed, first + number, size_HW, style)
        for field in records.dtype.names or ():
            records[field][number] = getattr(scene, field)
    return records


def _is_whole(file: Path, dtype: np.dtype) -> bool:
    """Whether a chunk is on disk, with the right content type and length."""
    try:
        held = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    return bool(held.dtype == dtype and held.shape == (CHUNK,))


def _write(file: Path, records: np.ndarray) -> None:
    """Atomic: processes that render the same chunk at the same time do not meet half a file."""
    partial_file = file.with_name(f".{file.name}.{os.getpid()}")
    with partial_file.open("wb") as opened:
        np.save(opened, records)
    os.replace(partial_file, file)


def _target(record: np.void, task: Task) -> np.ndarray:
    """The record's label in the form that `task` takes (see tasks/)."""
    if task.type == "segmentation":
        return np.asarray(record["segmentation"], dtype=np.int64)
    if task.type == "depth":
        assert isinstance(task.spec, DepthSpec)
        depth_m = np.array(record["depth_m"])
        if task.spec.max is not None:
            depth_m[depth_m > task.spec.max] = 0
        return depth_m[None]
    if task.type == "normals":
        return np.array(record["normals"])
    if task.type == "edges":
        return np.asarray(record["edges"], dtype=np.float32)[None]
    if task.type == "keypoints":
        return np.array(record["keypoints"])
    return np.asarray(record["room"], dtype=np.int64)
