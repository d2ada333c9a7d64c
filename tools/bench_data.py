"""Decoding and augmenting, ours against torchvision.transforms.v2: the same files, the same work, in one process.

python tools/bench.py data --pictures 48 --clock cpu

Without --tasks, built-in scenes are rendered once: pictures of 640x480 as JPEG and as PNG, labels as PNG (segmentation,
depth in 16 bits, normals as colours, edges). With it, any tasks file of `source: folder` whose labels are such maps:

    python tools/bench.py data --tasks doom --set data.root=tests/fixtures/doom

Both sides decode, resize (areas or antialiased bilinear; labels the nearest pixel), mirror, turn and
zoom in the same ranges, jitter brightness, contrast, saturation and hue, normalise and stack. v2 has its best:
torchvision.io's decoders, bytes as long as possible, one call for the picture and all labels. It does less: it
turns no normals, keeps no thin edges and looks for no wrong labels. --rss measures memory over five epochs.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision import tv_tensors
from torchvision.io import ImageReadMode, decode_image, read_file
from torchvision.transforms import v2

from perceptkit.data.batch import collate
from perceptkit.data.cache import bytes_of_sample
from perceptkit.data.folder import FolderSource
from perceptkit.data.geometry import (
    Geometry,
    apply_geometry,
    move_target,
    nearest_sources,
    sample_geometry,
)
from perceptkit.data.loader import make_loader
from perceptkit.data.photometric import Photometric
from perceptkit.data.resize import resize_target
from perceptkit.data.sample import Sample
from perceptkit.data.scenes.render import render_scene
from perceptkit.pixels import read_rgb, resize_rgb
from perceptkit.runtime.benchmark import machine
from perceptkit.runtime.timing import interleave, speedup, spread
from perceptkit.spec.load import load_tasks
from perceptkit.spec.recipe import AugmentSpec
from perceptkit.spec.tasks_file import FolderData, TasksFile
from perceptkit.spec.templates import fill
from perceptkit.tasks.base import Task
from perceptkit.tasks.label_arrays import read_label_map
from perceptkit.tasks.table import build_tasks

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ANGLE_DEG, ZOOM, JITTER, HUE = 10.0, (0.8, 1.25), 0.2, 0.05
JITTERED = {"brightness": JITTER, "contrast": JITTER, "saturation": JITTER, "hue": HUE, "p": 1.0}
AUGMENT = AugmentSpec.model_validate(
    {
        "hflip": 0.5,
        "rotate": ANGLE_DEG,
        "zoom": ZOOM,
        "photometric": [{"name": "ColorJitter", "args": JITTERED}],
    }
)
SCENES = """\
name: scenes
data:
  source: folder
  root: .
  image: "rgb/{{split}}/{{id}}.{ending}"
  size: [256, 320]
  splits: {{train: train, val: val, test: val}}
tasks:
  seg: {{type: segmentation, target: "seg/{{split}}/{{id}}.png", classes: 40}}
  depth: {{type: depth, target: "depth/{{split}}/{{id}}.png", unit: m, scale: 1000, max: 20}}
  normals: {{type: normals, target: "normals/{{split}}/{{id}}.png", frame: camera}}
  edges: {{type: edges, target: "edges/{{split}}/{{id}}.png"}}
"""
FLAT_MB = 8.0
"""Memory that the last of five epochs may lie above the second: what allocators move about."""


def write_scenes(root: Path, count: int, size_HW: tuple[int, int]) -> None:
    """Renders what is not there yet."""
    for folder in ("rgb", "seg", "depth", "normals", "edges"):
        for split in ("train", "val"):
            (root / folder / split).mkdir(parents=True, exist_ok=True)
    for i in range(count + 1):
        name = f"train/{i:04}.png" if i < count else "val/0.png"
        if (root / "edges" / name).is_file():
            continue
        scene = render_scene(0, i if i < count else 1 << 28, size_HW, "studio")
        Image.fromarray(scene.image).save((root / "rgb" / name).with_suffix(".jpg"), quality=92)
        maps = {
            "rgb": scene.image,
            "seg": scene.segmentation,
            "depth": np.rint(scene.depth_m * 1000).clip(0, 65535).astype(np.uint16),
            "normals": np.rint((scene.normals.transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8),
            "edges": (scene.edges * 255).astype(np.uint8),
        }
        for folder, values in maps.items():
            Image.fromarray(values).save(root / folder / name)
    for ending in ("jpg", "png"):
        (root / f"{ending}.yaml").write_text(SCENES.format(ending=ending))


class Ours:
    """The steps of perceptkit's loader, one by one."""

    def __init__(self, spec: TasksFile, tasks: dict[str, Task]) -> None:
        assert isinstance(spec.data, FolderData)
        self.tasks, self.data = tasks, spec.data
        self.source = FolderSource(spec.data, "train", tasks)
        self.photometric = Photometric(AUGMENT.photometric)

    def decode(self, index: int) -> list[Any]:
        """Picture and labels as they are stored."""
        image_id = self.source.ids[index]
        return [
            read_rgb(self.path(self.data.image, image_id)),
            *(
                read_label_map(
                    self.path(task.spec.target, image_id), channels=3 if task.type == "normals" else 1
                )
                for task in self.tasks.values()
            ),
        ]

    def path(self, template: str | None, image_id: str) -> Path:
        """Of a picture, or of a label of it."""
        assert template is not None
        return self.data.root / fill(template, self.source.folder, image_id)

    def resized(self, index: int) -> Sample:
        """At the network's size."""
        return self.source.decode(index)

    def moved(self, index: int) -> Sample:
        """Flipped, turned and zoomed."""
        return apply_geometry(self.resized(index), sample_geometry(AUGMENT, _rng(index)), self.tasks)

    def jittered(self, index: int) -> Sample:
        """All of it."""
        sample = self.moved(index)
        sample.image = self.photometric(sample.image, index)
        return sample

    def batch(self, indices: Sequence[int]) -> Any:
        """Normalised and stacked."""
        return collate([self.jittered(i) for i in indices], MEAN, STD)


class Theirs(Dataset):
    """The same with torchvision.transforms.v2, as its documentation writes it."""

    def __init__(self, ours: Ours) -> None:
        self.ours, self.tasks = ours, ours.tasks
        self.resize = v2.Resize(list(ours.data.size), antialias=True)
        self.geometry = v2.Compose([v2.RandomHorizontalFlip(0.5), v2.RandomAffine(ANGLE_DEG, scale=ZOOM)])
        self.jitter = v2.ColorJitter(JITTER, JITTER, JITTER, HUE)
        self.normalise = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])

    def decode(self, index: int) -> dict[str, Any]:
        """Bytes as they are stored."""
        image_id = self.ours.source.ids[index]
        found: dict[str, Any] = {
            "image": tv_tensors.Image(
                decode_image(
                    read_file(str(self.ours.path(self.ours.data.image, image_id))), ImageReadMode.RGB
                )
            )
        }
        for name, task in self.tasks.items():
            path = self.ours.path(task.spec.target, image_id)
            stored: Tensor
            if path.suffix == ".npy":
                stored = torch.from_numpy(np.load(path))
                stored = stored.permute(2, 0, 1) if stored.ndim == 3 else stored[None]
            else:
                stored = decode_image(read_file(str(path)), ImageReadMode.UNCHANGED)
            if stored.dtype == torch.uint16:  # which v2 resizes not
                stored = stored.float()
            found[name] = tv_tensors.Mask(stored)
        return found

    def resized(self, index: int) -> dict[str, Any]:
        """At the network's size, in targets' units."""
        return self.in_units(self.resize(self.decode(index)))

    def moved(self, index: int) -> dict[str, Any]:
        """Flipped, turned and zoomed, as bytes; then in targets' units."""
        return self.in_units(self.geometry(self.resize(self.decode(index))))

    def jittered(self, index: int) -> dict[str, Any]:
        """All of it."""
        found = self.moved(index)
        found["image"] = self.jitter(found["image"])
        return found

    def in_units(self, found: dict[str, Any]) -> dict[str, Any]:
        """Class ids, metres, unit vectors and probabilities."""
        for name, task in self.tasks.items():
            stored = found[name].as_subclass(Tensor)
            if task.type == "segmentation":
                ids = stored[0].long()
                found[name] = torch.where(ids == getattr(task.spec, "ignore_index", 255), -1, ids)
            elif task.type == "depth":
                depth = stored.float() / task.spec.scale  # type: ignore[attr-defined]  # depth has one
                largest = task.spec.max  # type: ignore[attr-defined]  # as above
                found[name] = depth if largest is None else torch.where(depth > largest, 0, depth)
            elif task.type == "normals":
                vectors = stored.float() / 127.5 - 1 if stored.dtype == torch.uint8 else stored.float()
                found[name] = torch.nn.functional.normalize(vectors, dim=0)
            else:
                found[name] = stored.float() / 255 if stored.dtype == torch.uint8 else stored.float()
        return found

    def batch(self, indices: Sequence[int]) -> Any:
        """Normalised and stacked."""
        return default_collate([self[i] for i in indices])

    def __getitem__(self, index: int) -> dict[str, Any]:
        found = self.jittered(index)
        found["image"] = self.normalise(found["image"]).as_subclass(Tensor)
        return found

    def __len__(self) -> int:
        return len(self.ours.source)


def _rng(index: int) -> np.random.Generator:
    return np.random.default_rng([0, index])


class Walk:
    """Calls a step for the next few pictures, round and round."""

    def __init__(self, step: Callable[[int], object], batch: int, count: int) -> None:
        self.step, self.batch, self.count, self.at = step, batch, count, 0

    def indices(self) -> list[int]:
        """The next ones."""
        self.at += self.batch
        return [i % self.count for i in range(self.at - self.batch, self.at)]

    def __call__(self) -> None:
        for i in self.indices():
            self.step(i)


LEVELS = {
    "decode": "decode",
    "decode, resize": "resized",
    "decode, resize, geometry": "moved",
    "decode, resize, geometry, photometric": "jittered",
}


def ratios(ours: Ours, theirs: Theirs, options: argparse.Namespace) -> dict[str, Any]:
    """Times of both by level, interleaved, and theirs over ours."""
    batch, count = options.batch, len(ours.source)
    variants: dict[str, Callable[[], object]] = {}
    for level, method in LEVELS.items():
        variants[f"ours: {level}"] = Walk(getattr(ours, method), batch, count)
        variants[f"v2: {level}"] = Walk(getattr(theirs, method), batch, count)
    for title, side in (("ours", ours), ("v2", theirs)):
        walk = Walk(lambda _: None, batch, count)
        variants[f"{title}: whole batch"] = lambda side=side, walk=walk: side.batch(walk.indices())  # type: ignore[misc]
    for workers in options.workers:
        variants[f"ours: epoch, {workers} workers"] = lambda w=workers: epoch_of_ours(ours, batch, w)  # type: ignore[misc]
        variants[f"v2: epoch, {workers} workers"] = lambda w=workers: epoch_of_theirs(theirs, batch, w)  # type: ignore[misc]
    seconds = interleave(variants, options.rounds, options.warmup, clock=CLOCKS[options.clock])
    found = {}
    for name, times in seconds.items():
        if not name.startswith("ours: "):
            continue
        level = name.removeprefix("ours: ")
        over = speedup(seconds[f"v2: {level}"], times)
        per = len(ours.source) if "epoch" in level else batch
        ms = [spread(t).median * 1e3 / per for t in (times, seconds[f"v2: {level}"])]
        quartiles = f"[{over.low:.2f}, {over.high:.2f}]"
        print(f"  {level:40} {ms[0]:7.2f} {ms[1]:7.2f} ms a picture   {over.median:5.2f}x {quartiles}")
        found[level] = {"ours_ms": ms[0], "v2_ms": ms[1], **over.to_dict()}
    return found


def epoch_of_ours(ours: Ours, batch: int, workers: int, epoch: int = 0) -> int:
    """Every picture once; gives how many."""
    return sum(len(made.ids) for made in loader_of_ours(ours, batch, workers, epoch))


def loader_of_ours(ours: Ours, batch: int, workers: int, epoch: int) -> Any:
    """As training has it."""
    return make_loader(
        ours.source,
        range(len(ours.source)),
        ours.tasks,
        batch=batch,
        workers=workers,
        augment=AUGMENT,
        mean=MEAN,
        std=STD,
        seed=0,
        epoch=epoch,
        shuffle=True,
        drop_last=False,
    )


def epoch_of_theirs(theirs: Theirs, batch: int, workers: int) -> int:
    """Every picture once; gives how many."""
    made = DataLoader(theirs, batch, shuffle=True, num_workers=workers, worker_init_fn=_one_thread)
    return sum(len(found["image"]) for found in made)


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def cpu_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


CLOCKS = {"wall": time.perf_counter, "cpu": cpu_seconds}


def profile(ours: Ours, options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds a picture of each of our steps, by timers around them; medians over all pictures."""
    ms: dict[str, list[float]] = {}
    clock = CLOCKS[options.clock]

    def timed(step: str, call: Callable[[], Any]) -> Any:
        started = clock()
        result = call()
        ms.setdefault(step, []).append((clock() - started) * 1e3)
        return result

    size_HW, samples = ours.data.size, []
    for index in [*range(min(options.warmup, len(ours.source))), *range(len(ours.source))]:
        image_id = ours.source.ids[index]
        image = timed("decode picture", lambda: read_rgb(ours.path(ours.data.image, image_id)))  # noqa: B023
        targets = {}
        for name, task in ours.tasks.items():
            path = ours.path(task.spec.target, image_id)
            read = timed(f"decode {name}", lambda: task.read_at(path, image_id, size_HW))  # noqa: B023
            targets[name] = timed(
                f"resize {name}",
                lambda: resize_target(task, read, image.shape[:2], size_HW),  # noqa: B023
            )
        resized = timed("resize picture", lambda: resize_rgb(image, size_HW))  # noqa: B023
        geometry: Geometry = timed("draw geometry", lambda: sample_geometry(AUGMENT, _rng(index)))  # noqa: B023
        timed("where pixels come from", lambda: nearest_sources(geometry, size_HW))  # noqa: B023
        moved = timed(
            "move picture",
            lambda: apply_geometry(Sample(image_id, resized, {}), geometry, ours.tasks),  # noqa: B023
        )
        for name, task in ours.tasks.items():
            moved.targets[name] = timed(
                f"move {name}",
                lambda: move_target(targets[name], task, geometry, size_HW),  # noqa: B023
            )
        moved.image = timed("photometric", lambda: ours.photometric(moved.image, index))  # noqa: B023
        samples.append(moved)
        if len(samples) == options.batch:
            stacked = samples
            timed("normalise and stack", lambda: collate(stacked, MEAN, STD))  # noqa: B023
            ms["normalise and stack"][-1] /= options.batch
            samples = []
    medians = {step: float(np.median(times)) for step, times in ms.items()}
    whole = sum(medians.values())
    print("\n  where our time goes, ms a picture")
    for step, median in sorted(medians.items(), key=lambda pair: -pair[1]):
        print(f"    {step:32} {median:7.3f}  {100 * median / whole:5.1f} %")
    return medians


def rss_mb(pid: int | str = "self") -> float:
    """Resident memory of a process without what it shares with others' files."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory(ours: Ours, options: argparse.Namespace, epochs: int = 5) -> dict[str, Any]:
    """Resident memory of this process and of the largest worker at the end of each of five epochs."""
    import multiprocessing

    found: dict[str, Any] = {}
    for workers in (0, *options.workers):
        main, largest = [], []
        for epoch in range(epochs):
            of_workers = 0.0
            for made in loader_of_ours(ours, options.batch, workers, epoch):
                del made
                alive = [child.pid for child in multiprocessing.active_children() if child.pid]
                of_workers = max([of_workers, *map(rss_mb, alive)])
            main.append(rss_mb())
            largest.append(of_workers)
        print(f"  {workers} workers, MB by epoch: main {_row(main)}; largest worker {_row(largest)}")
        # a worker is looked at in the middle of its work: it holds a batch more or less
        batch_mb = options.batch * bytes_of_sample(ours.tasks, ours.data.size) / 2**20
        flat = is_flat(main) and is_flat(largest, 2 * batch_mb)
        found[f"{workers} workers"] = {"main_mb": main, "worker_mb": largest, "flat": flat}
    return found


def is_flat(megabytes: Sequence[float], in_hand_mb: float = 0.0) -> bool:
    """Whether no epoch after the second takes more than it, but for what allocators move about and `in_hand_mb`."""
    return max(megabytes[2:]) <= megabytes[1] + FLAT_MB + in_hand_mb


def _row(values: Sequence[float]) -> str:
    return " ".join(f"{value:.0f}" for value in values)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when ours is as fast at every level, or, with --rss, when memory is flat."""
    parser = argparse.ArgumentParser(
        prog="bench.py data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", help="a tasks file of source: folder, or its name")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of the tasks file")
    parser.add_argument(
        "--files", type=Path, default=Path("runs/bench_data"), help="where rendered scenes are"
    )
    parser.add_argument("--pictures", type=int, default=240, help="how many of them")
    parser.add_argument("--pixels", type=int, nargs=2, default=[480, 640], help="their height and width")
    parser.add_argument("--image", nargs="+", choices=["jpg", "png"], default=["jpg", "png"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--workers", type=int, nargs="*", default=[2], help="of the epochs that are timed")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: with that of workers")
    parser.add_argument("--rss", action="store_true", help="memory over five epochs instead")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    files = [(options.tasks, options.set)]
    if options.tasks is None:
        write_scenes(options.files, options.pictures, tuple(options.pixels))
        limit = f"data.limit={options.pictures}"
        files = [(str(options.files / f"{ending}.yaml"), [*options.set, limit]) for ending in options.image]
    results, held = {}, True
    for file, changes in files:
        spec = load_tasks(file, changes).spec
        tasks = {
            name: task
            for name, task in build_tasks(spec).items()
            if task.spec.target and task.geometry in ("label_map", "depth", "normals")
        }
        ours = Ours(spec, tasks)
        image = read_rgb(ours.path(ours.data.image, ours.source.ids[0]))
        size, into = "x".join(map(str, image.shape[:2])), "x".join(map(str, ours.data.size))
        print(
            f"\n{file}: {len(ours.source)} pictures of {size} to {into}, {', '.join(tasks)}; {options.clock} time"
        )
        if options.rss:
            results[file] = memory(ours, options)
            held &= all(found["flat"] for found in results[file].values())
            continue
        print("                                              ours      v2               v2 / ours")
        found = ratios(ours, Theirs(ours), options)
        held &= all(level["median"] >= 1 for level in found.values())
        results[file] = {"ratios": found, "profile_ms": profile(ours, options)}
    if options.out:
        options.out.write_text(json.dumps({"meta": machine("cpu"), "results": results}, indent=1) + "\n")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
