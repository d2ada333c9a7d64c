"""Decoded pictures and labels kept for the next epoch (`loader.cache`), before augmentation: no bit of a run changes.

    ram     one table of records in memory, made before the workers are, so that they share it; each rank has its own
    disk    one file per picture, written under another name first and mapped when read, shared by ranks and later runs

A file's name holds a digest of the path, time of change and size of every file that the sample is read from, and its
folder's one of all that says how they are read: what is stale is not found, and goes when its successor is written.

What fits is decided by place alone: the first so many pictures of a split are kept, whichever are read first.
Where training cuts windows of its own (`augment.crop`) from pictures that are else cut to the network's size, they are
decoded each time.
"""

import hashlib
import json
import mmap
import os
import shutil
import tempfile
import weakref
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

import numpy as np

from perceptkit.data.decoded import DecodedSource
from perceptkit.data.labelled import PartlyLabelled
from perceptkit.data.readable import Readable
from perceptkit.data.sample import Sample
from perceptkit.data.source import Joined, Source
from perceptkit.errors import DataError
from perceptkit.spec.recipe import LoaderSpec
from perceptkit.tasks.base import Task
from perceptkit.versions import installed

FORM = 1
"""Of the records; another one reads no older files."""
AUTO_PART, OWN_PART = 1 / 4, 1 / 2
"""Of what is free, taken by `auto`, and by `ram` and `disk` without a limit."""


class Records:
    """Samples of one source as records of one size."""

    def __init__(self, tasks: Mapping[str, Task], size_HW: tuple[int, int]) -> None:
        self.names = list(tasks)
        self.like = {name: task.missing(size_HW) for name, task in tasks.items()}
        fields: list[Any] = [("image", np.uint8, (*size_HW, 3))]
        # class ids fit into 32 bits, whatever torch indexes with
        fields += [
            (f"target{i}", np.int32 if like.dtype == np.int64 else like.dtype, like.shape)
            for i, like in enumerate(self.like.values())
        ]
        self.dtype = np.dtype(fields, align=True)
        self.bytes = self.dtype.itemsize

    def fits(self, sample: Sample) -> bool:
        """Whether nothing is lost."""
        held = sample.image.shape == self.dtype["image"].shape and sample.targets.keys() == self.like.keys()
        return held and all(
            like.shape == sample.targets[name].shape and like.dtype == sample.targets[name].dtype
            for name, like in self.like.items()
        )

    def write(self, sample: Sample, record: np.ndarray) -> None:
        """Into a record () of this kind."""
        record["image"] = sample.image
        for i, name in enumerate(self.names):
            record[f"target{i}"] = sample.targets[name]

    def read(self, name: str, record: np.ndarray) -> Sample:
        """The sample of a record (); its targets are those of the record where they can be, and not to be changed."""
        targets = {
            task: np.asarray(record[f"target{i}"], dtype=like.dtype)
            for i, (task, like) in enumerate(self.like.items())
        }
        for target in targets.values():
            target.flags.writeable = False
        return Sample(name, np.array(record["image"]), targets)  # transforms may work in place


class RamCache:
    """The first samples of a source in memory that forked and spawned workers share.

    Args:
        records: of the source.
        ids: of the source.
        slots: how many are kept.
    """

    def __init__(self, records: Records, ids: Sequence[str], slots: int) -> None:
        self.records, self.ids, self.slots = records, ids, slots
        self._map(_memory(self._start() + slots * records.bytes))

    def get(self, index: int) -> Sample | None:
        """See `Cache`."""
        if index >= self.slots or not self._held[index]:
            return None
        return self.records.read(self.ids[index], self._table[index])

    def put(self, index: int, sample: Sample) -> None:
        """See `Cache`. Memory is taken when it is written to."""
        if index < self.slots and self.records.fits(sample):
            self.records.write(sample, self._table[index : index + 1].reshape(()))
            self._held[index] = 1  # last: another process may look at any time

    def _start(self) -> int:
        return -(-self.slots // 64) * 64  # after the flags, where any record is aligned

    def _map(self, file: int) -> None:
        self._file = file
        weakref.finalize(self, os.close, file)
        memory = mmap.mmap(file, self._start() + self.slots * self.records.bytes)
        self._held = np.frombuffer(memory, np.uint8, self.slots)
        self._table = np.frombuffer(memory, self.records.dtype, self.slots, self._start())

    def __getstate__(self) -> dict[str, Any]:
        kept = {key: self.__dict__[key] for key in ("records", "ids", "slots")}
        return {**kept, "file": DupFd(self._file)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        file = state.pop("file").detach()
        self.__dict__.update(state)
        self._map(file)


class DiskCache:
    """The first samples of a source in files.

    Args:
        records: of the source.
        source: whose samples are kept.
        folder: of the files; made when the first is written.
        slots: how many are kept.
    """

    def __init__(self, records: Records, source: DecodedSource, folder: Path, slots: int) -> None:
        self.records, self.source, self.folder, self.slots = records, source, folder, slots

    def get(self, index: int) -> Sample | None:
        """See `Cache`."""
        if index >= self.slots:
            return None
        try:
            held = np.load(self._file(index), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None  # not there, or cut off by a full disk
        if held.dtype != self.records.dtype or held.shape != (1,):
            return None
        return self.records.read(self.source.ids[index], held.view(np.ndarray)[0])

    def put(self, index: int, sample: Sample) -> None:
        """See `Cache`. Raises DataError where the folder cannot be written to."""
        if index >= self.slots or not self.records.fits(sample):
            return
        record = np.zeros(1, self.records.dtype)
        self.records.write(sample, record.reshape(()))
        file = self._file(index)
        partial = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as opened:
                np.save(opened, record)
            os.replace(partial, file)
            for stale in self.folder.glob(f"{file.name.partition('-')[0]}-*"):
                if stale != file:
                    stale.unlink(missing_ok=True)
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            raise DataError(
                f"{self.folder}: decoded pictures cannot be kept there ({error.strerror}); "
                "choose another loader.cache_dir, a smaller loader.cache_limit, or loader.cache: none"
            ) from error

    def _file(self, index: int) -> Path:
        """Of one sample as its files are now."""
        stamp = hashlib.sha256()
        for path in self.source.files(index):
            try:
                found = path.stat()
                stamp.update(
                    f"{path}\0{found.st_mtime_ns}\0{found.st_size}\0".encode(errors="surrogateescape")
                )
            except OSError:
                stamp.update(f"{path}\0absent\0".encode(errors="surrogateescape"))
        return self.folder / f"{_digest(self.source.ids[index])}-{stamp.hexdigest()[:16]}.npy"


def keep_decoded(
    loader: LoaderSpec,
    sources: Mapping[str, Source],
    folder: Path,
    ranks: int = 1,
    whole: Collection[str] = (),
) -> str:
    """Gives the sources of files a cache, as the recipe's `loader` says; tells what they take and what is kept.

    Args:
        loader: has `cache`, `cache_limit` and `cache_dir`.
        sources: by name, the most important first: it has room before the others have.
        folder: of the files, where `cache_dir` names none.
        ranks: processes of this machine that each have a cache of their own in memory.
        whole: names of sources whose pictures are read before anything is cut off; those are not kept.
    """
    parts = {
        name: [
            (part, Records(part.tasks, part.data.size))
            for part in _parts(source)
            if not (part.cuts and name in whole)
        ]
        for name, source in sources.items()
    }
    bytes_of = {name: sum(len(part) * records.bytes for part, records in of) for name, of in parts.items()}
    if not any(bytes_of.values()):
        return "rendered scenes are mapped from their files; nothing more is kept"
    where = Path(loader.cache_dir) if loader.cache_dir else folder
    on_disk = loader.cache == "disk"
    free = free_disk(where) if on_disk else free_memory() // ranks
    limit = loader.cache_limit or int(free * (AUTO_PART if loader.cache == "auto" else OWN_PART))
    limit = 0 if loader.cache == "none" else min(limit, free)
    kept = total = 0
    for name, of_name in parts.items():
        for number, (source, records) in enumerate(of_name):
            slots = min(len(source), limit // records.bytes)
            limit -= slots * records.bytes
            total += len(source)
            kept += slots
            if slots and on_disk:
                how = _digest(json.dumps([FORM, installed("perceptkit"), _reading(source)]))
                source.cache = DiskCache(records, source, where / f"{name}{number}-{how}", slots)
            elif slots:
                source.cache = RamCache(records, source.ids, slots)
    needed = ", ".join(f"{name} {in_bytes(size)}" for name, size in bytes_of.items() if size)
    whose = f"{in_bytes(free)} of {'the disk' if on_disk else 'memory'} are free"
    place = f"in {where}" if on_disk else "in memory, shared by workers"
    share = {0: "none is kept", total: f"all are kept {place}"}.get(
        kept, f"{kept} of {total} are kept {place}"
    )
    anew = [name for name in whole if any(part.cuts for part in _parts(sources[name]))]
    more = f"; {', '.join(anew)}: windows are cut from whole pictures, which are not kept" if anew else ""
    total_bytes = in_bytes(sum(bytes_of.values()))
    said = f"decoded pictures take about {total_bytes} ({needed}); {whose}: {share} (loader.cache: {loader.cache})"
    return said + more


def bytes_of_sample(tasks: Mapping[str, Task], size_HW: tuple[int, int]) -> int:
    """What one decoded sample takes in a cache."""
    return Records(tasks, size_HW).bytes


def free_memory() -> int:
    """Bytes that could be taken without swapping, of the machine or of the group that limits this process."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    group = Path("/sys/fs/cgroup")
    try:
        most = int((group / "memory.max").read_text())
        return max(0, min(free, most - int((group / "memory.current").read_text())))
    except (OSError, ValueError):  # no such group, or "max"
        return free


def free_disk(folder: Path) -> int:
    """Bytes that can be written below a folder that need not exist yet."""
    there = next(path for path in [folder.absolute(), *folder.absolute().parents] if path.is_dir())
    return shutil.disk_usage(there).free


def in_bytes(count: float) -> str:
    """
    >>> in_bytes(3_140_000_000)
    '3.1 GB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            break
        count, unit = count / 1000, "TB"
    return f"{count:.1f} {unit}" if unit != "B" else f"{count:.0f} B"


def _parts(source: Source) -> list[DecodedSource]:
    if isinstance(source, Joined):
        return [part for joined in source.sources for part in _parts(joined)]
    if isinstance(source, PartlyLabelled):
        return _parts(source.source)
    if isinstance(source, Readable):
        return [source.source]
    return [source] if isinstance(source, DecodedSource) else []


def _reading(source: DecodedSource) -> Any:
    """All that decides what becomes of a file; classes that are not declared follow from other files."""
    data = source.data.model_dump(
        mode="json", exclude={"on_bad", "exclude", "limit", "train_on", "mean", "std"}
    )
    return [
        data,
        {name: [task.spec.model_dump(mode="json"), task.labels] for name, task in source.tasks.items()},
    ]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def _memory(size: int) -> int:
    """A file of so many zero bytes that has no name and goes with its last process."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("perceptkit")
    else:
        with tempfile.TemporaryFile() as opened:
            file = os.dup(opened.fileno())
    os.ftruncate(file, size)
    return file
