"""Writes small sets in the on-disk layouts of nyuv2.py, cityscapes.py and taskonomy.py."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def save(path: Path, values: np.ndarray) -> None:
    """A .npy file, or a picture by its ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)


def write_lists(
    path: Path, entries: Sequence[Sequence[str]], more: Mapping[str, object] | None = None
) -> None:
    """The JSON file of eight entries: six of train, of which the last two are train2, and two of test."""
    train, test = entries[:6], entries[6:8]
    lists = {"train": train, "train1": train[:4], "train2": train[4:], "test": test}
    path.write_text(json.dumps({**lists, **(more or {})}))


def write_nyuv2(root: Path, size_HW: tuple[int, int] = (48, 64), lists: bool = True) -> Path:
    """AdaShare's: the picture's grey value and the class are those of its number; normals face the viewer."""
    entries = []
    for i in range(8):
        name = f"{i:04d}"
        save(root / f"img/{name}.png", np.full((*size_HW, 3), 10 * i, np.uint8))
        seg = np.full(size_HW, i, np.uint8)
        seg[0] = 255
        save(root / f"seg/{name}.png", seg)
        normal = np.full((*size_HW, 3), (127, 127, 0), np.uint8)
        normal[:, 0] = 255
        save(root / f"normal_mask/{name}.png", normal)
        save(root / f"depth/{name}.npy", np.full(size_HW, 1 + i / 2, np.float32))
        folders = {"img": "png", "seg": "png", "normal_mask": "png", "depth": "npy"}
        entries.append([f"{folder}/{name}.{ending}" for folder, ending in folders.items()])
    if lists:
        write_lists(root / "nyu_v2_3task.json", entries)
    return root


def write_nyuv2_mtan(root: Path, size_HW: tuple[int, int] = (48, 64)) -> Path:
    """MTAN's: twelve pictures of train, so that text order and number order differ, and two of val."""
    for part, count in (("train", 12), ("val", 2)):
        for i in range(count):
            label = np.full(size_HW, i, np.int64)
            label[0] = -1
            normal = np.zeros((*size_HW, 3), np.float32)
            normal[1:, :, 2] = -1
            save(root / part / "image" / f"{i}.npy", np.full((*size_HW, 3), i / 100, np.float32))
            save(root / part / "label" / f"{i}.npy", label.astype(np.float32))
            save(root / part / "depth" / f"{i}.npy", np.full((*size_HW, 1), 2.0, np.float32))
            save(root / part / "normal" / f"{i}.npy", normal)
    return root


def write_cityscapes_mtan(root: Path, size_HW: tuple[int, int] = (32, 64), lists: bool = False) -> Path:
    """MTAN's, with AdaShare's list of it: eight pictures of train and two of val."""
    folders = ("image", "depth", "label_2", "label_7", "label_19")
    entries = []
    for part, count in (("train", 6), ("val", 2)):
        for i in range(count):
            save(
                root / part / "image" / f"{i}.npy",
                np.full((*size_HW, 3), (float(part == "val"), 0.5, i / 10), np.float32),
            )
            save(root / part / "depth" / f"{i}.npy", np.full((*size_HW, 1), 0.05, np.float32))
            for classes in (2, 7, 19):
                label = np.full(size_HW, i % classes, np.int32)
                label[0] = -1
                save(root / part / f"label_{classes}" / f"{i}.npy", label)
            entries.append([f"{part}/{folder}/{i}.npy" for folder in folders])
    if lists:
        write_lists(root / "cityscape.json", entries)
    return root


def write_cityscapes_official(root: Path, size_HW: tuple[int, int] = (32, 64)) -> Path:
    """The tree as it is downloaded: the rows of labels are void, license plate (255 in a byte), road, car and sky."""
    ids = np.repeat(np.array([0, 255, 7, 26, 23], np.uint8), -(-size_HW[0] // 5))[: size_HW[0]]
    for part, cities in (("train", ("aachen", "zurich")), ("val", ("lindau",)), ("test", ("berlin",))):
        for city in cities:
            for i in range(3):
                frame = f"{city}_{i:06d}_000019"
                save(
                    root / f"leftImg8bit/{part}/{city}/{frame}_leftImg8bit.png",
                    np.full((*size_HW, 3), (20 * i, 20 * i, sum(map(ord, city)) % 256), np.uint8),
                )
                label = np.broadcast_to(ids[:, None], size_HW).copy()
                save(root / f"gtFine/{part}/{city}/{frame}_gtFine_labelIds.png", label)
                disparity = np.full(size_HW, 257 + 256 * i, np.uint16)
                disparity[0] = 0
                save(root / f"disparity/{part}/{city}/{frame}_disparity.png", disparity)
    return root


DOMAINS = ("rgb", "segmentsemantic", "normal", "depth_zbuffer", "keypoints2d", "edge_texture")


def write_taskonomy(root: Path, size_HW: tuple[int, int] = (32, 32), hosted: bool = False) -> Path:
    """AdaShare's lists of eight pictures; `hosted` writes the files where they lie now, the lists stay."""
    entries = []
    for i in range(8):
        values = {
            "rgb": np.full((*size_HW, 3), 10 * i, np.uint8),
            "segmentsemantic": np.full(size_HW, i, np.uint8),
            "normal": np.full((*size_HW, 3), (127, 127, 0), np.uint8),
            "depth_zbuffer": np.full(size_HW, 255 if i else 64500, np.uint16),
            "keypoints2d": np.full(size_HW, 164, np.uint16),
            "edge_texture": np.full(size_HW, 60000, np.uint16),
        }
        entry = []
        for domain in DOMAINS:
            file = f"point_{i}_view_0_domain_{domain}.png"
            entry.append(f"allensville/{domain}/{file}")
            place = f"{domain}/taskonomy/allensville/{file}" if hosted else entry[-1]
            save(root / place, values[domain])
        entries.append(entry)
    write_lists(root / "taskonomy.json", entries, {"test_small": [entries[6]]})
    return root
