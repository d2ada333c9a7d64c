"""Writes small shards as webdataset has them, and parquet files as Hugging Face's datasets writes them."""

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SPLITS = ("train", "val", "test")
ROOMS = ("bath", "hall", "attic")
HW = (24, 32)


def png(values: np.ndarray) -> bytes:
    """A picture as bytes."""
    content = io.BytesIO()
    Image.fromarray(values).save(content, "PNG")
    return content.getvalue()


def npy(values: np.ndarray) -> bytes:
    """A .npy file as bytes."""
    content = io.BytesIO()
    np.save(content, values)
    return content.getvalue()


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """A tar file, not compressed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def grey(number: int) -> np.ndarray:
    """A picture whose every pixel is its number."""
    return np.full((*HW, 3), number, np.uint8)


def class_map(number: int) -> np.ndarray:
    """Class number % 3, the first row ignored."""
    seg = np.full(HW, number % 3, np.uint8)
    seg[0] = 255
    return seg


def sample(number: int) -> dict[str, bytes]:
    """The members of one sample by ending; number 1 has a picture alone."""
    if number == 1:
        return {"png": png(grey(number))}
    points = [[number + 0.5, 2.0, number % 2]]
    return {
        "png": png(grey(number)),
        "seg.png": png(class_map(number)),
        "depth.npy": npy(np.full(HW, 1 + number, np.float32)),
        "cls": str(number % 3).encode(),
        "json": json.dumps(
            {"room": ROOMS[number % 3], "tags": ["old"] * (number % 2), "points": points}
        ).encode(),
    }


def write_shards(root: Path, each: int = 4) -> Path:
    """Two shards of each split, `each` samples a shard; the number of a sample is that of its picture."""
    number = 0
    for split in SPLITS:
        for shard in range(2):
            members = []
            for _ in range(each):
                members += [(f"{number:04}.{ending}", content) for ending, content in sample(number).items()]
                number += 1
            write_tar(root / f"{split}-{shard:06}.tar", members)
    return root


def write_parquet(root: Path, each: int = 4, columns: Mapping[str, Any] | None = None) -> Path:
    """Two parquet files of each split, in the names that datasets gives them; row 1 of the first has no label."""
    from datasets import ClassLabel, Dataset, Features, List, Value
    from datasets import Image as Picture

    features = Features(
        {
            "image": Picture(),
            "seg": Picture(),
            "depth": List(List(Value("float32"))),
            "room": ClassLabel(names=list(ROOMS)),
            "kind": Value("string"),
            "tags": List(ClassLabel(names=["old", "big"])),
            "points": List(List(Value("float32"))),
        }
    )
    number = 0
    for split in SPLITS:
        for part in range(2):
            rows: dict[str, list[Any]] = {name: [] for name in features}
            for _ in range(each):
                has = number != 1
                rows["image"].append({"bytes": png(grey(number)), "path": None})
                rows["seg"].append({"bytes": png(class_map(number)), "path": None} if has else None)
                rows["depth"].append(np.full(HW, 1.0 + number).tolist() if has else None)
                rows["room"].append(number % 3 if has else -1)
                rows["kind"].append("ab"[number % 2] if has else None)
                rows["tags"].append([number % 2] if has else None)
                rows["points"].append([[number + 0.5, 2.0, number % 2]] if has else None)
                number += 1
            data = Dataset.from_dict(rows, features=features)
            if columns is not None:
                data = data.select_columns(list(columns))
            path = root / "data" / f"{split}-{part:05}-of-00002.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            data.to_parquet(str(path))
    return root
