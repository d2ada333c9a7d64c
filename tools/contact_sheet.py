"""Draws the built-in scenes with all of their labels, and says how fast they are rendered.

    python tools/contact_sheet.py --out sheet.png [--style dusk] [--count 8] [--size 96]

One row per label (picture, classes, depth, normals, edges, keypoints), one column per scene; `--style all` draws the
pictures of the four styles instead. The speed is that of `source: scenes` when nothing is cached yet.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from perceptkit.data.scenes.render import Scene, render_scene
from perceptkit.data.scenes.source import CHUNK, render_chunks
from perceptkit.data.scenes.styles import STYLES
from perceptkit.spec.tasks_file import Style, TasksFile
from perceptkit.tasks.base import Task
from perceptkit.tasks.table import build_tasks

LABELS = ("segmentation", "depth", "normals", "edges", "keypoints", "classification")
TIMED = 8
"""Chunks rendered to measure the speed."""


def main() -> int:
    """Exit code 0 when the sheet was written."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("sheet.png"))
    parser.add_argument("--style", choices=[*STYLES, "all"], default="studio")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--first", type=int, default=0, help="index of the first scene")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=96, help="pixels on a side")
    options = parser.parse_args()
    size_HW = (options.size, options.size)
    numbers = range(options.first, options.first + options.count)
    if options.style == "all":
        rows = [
            [render_scene(options.seed, number, size_HW, style).image for number in numbers]
            for style in STYLES
        ]
    else:
        tasks = declared(size_HW)
        columns = [
            column(render_scene(options.seed, n, size_HW, options.style), tasks, size_HW) for n in numbers
        ]
        rows = [list(row) for row in zip(*columns, strict=True)]
    sheet = np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(options.out)
    style: Style = "studio" if options.style == "all" else options.style
    began = time.perf_counter()
    for _ in render_chunks(options.seed, [CHUNK * i for i in range(TIMED)], size_HW, style):
        pass
    speed = TIMED * CHUNK / (time.perf_counter() - began)
    print(f"{options.out}; {speed:.0f} images/s at {options.size}x{options.size}")
    return 0


def declared(size_HW: tuple[int, int]) -> dict[str, Task]:
    """One task of every type that scenes have labels for."""
    scenes = {"source": "scenes", "size": size_HW}
    tasks = {kind: {"type": kind} for kind in LABELS}
    return build_tasks(TasksFile.model_validate({"name": "sheet", "data": scenes, "tasks": tasks}))


def column(scene: Scene, tasks: dict[str, Task], size_HW: tuple[int, int]) -> list[np.ndarray]:
    """The picture and its labels, drawn by the tasks themselves."""
    import torch

    targets = {
        "segmentation": scene.segmentation.astype(np.int64),
        "depth": scene.depth_m[None],
        "normals": scene.normals,
        "edges": scene.edges[None].astype(np.float32),
        "keypoints": scene.keypoints,
        "classification": np.array(scene.room),
    }
    drawn = [scene.image]
    for kind, task in tasks.items():
        prediction = task.as_prediction(torch.from_numpy(targets[kind]), size_HW)
        drawn.append(task.draw(scene.image, prediction))
    return drawn


if __name__ == "__main__":
    sys.exit(main())
