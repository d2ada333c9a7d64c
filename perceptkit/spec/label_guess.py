"""Which task type files on disk look like, by their values first and by their names where values leave doubt.

one value per pixel    0 and 1, or 0 and 255: edges    small whole numbers: segmentation    16 bit: depth
three per pixel        unit vectors: normals
JSON                   points: keypoints
CSV                    a label per picture: classification
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from perceptkit.errors import PerceptkitError
from perceptkit.spec.check_labels import read_array
from perceptkit.spec.folder_files import FileSet
from perceptkit.spec.json_file import read_json
from perceptkit.spec.label_csv import LabelTable, read_label_csv

MOST_CLASSES = 64
"""8-bit labels with larger ids are segmentation only if they are called so."""
LOOKED_AT = 8
"""Files that tell the type."""
SAMPLE = 200
"""Files of each split that tell the number of classes: those that `perceptkit check` opens."""
WORDS = {
    "instances": ("instance", "panoptic"),
    "disparity": ("disp",),
    "segmentation": ("seg", "sem", "label", "mask", "class", "annot", "gt"),
    "depth": ("depth", "range"),
    "normals": ("normal",),
    "edges": ("edge", "contour", "boundar"),
}


class NotGuessed(Exception):
    """Why files were not understood, for the person whose files they are."""


@dataclass
class Guess:
    """A task that files look like."""

    type: str
    keys: dict[str, Any] = field(default_factory=dict)
    """What the tasks file should say beside type and target."""
    why: str = ""


@dataclass(frozen=True)
class Names:
    """Names that files beside the labels give: `classes.txt`, or lists in a JSON file."""

    classes: Sequence[str] = ()
    kinds: Sequence[str] = ()
    sources: Sequence[str] = ()

    def __str__(self) -> str:
        return ", ".join(self.sources)


def words_of(template: str) -> list[str]:
    """The words in a template, lower case: runs of letters."""
    return re.findall(r"[a-z]+", re.sub(r"\{(split|id)\}", " ", template.lower()))


def called(template: str) -> str:
    """The first entry of WORDS that the template's words begin with, or ''."""
    words = words_of(template)
    return next((kind for kind, starts in WORDS.items() if any(w.startswith(starts) for w in words)), "")


def guess(labels: FileSet, pictures: FileSet, names: Names) -> Guess:
    """What a set of files looks like. Raises NotGuessed with the reason."""
    ending = Path(labels.template).suffix.lower()
    if ending == ".csv":
        return _classification(labels, pictures)
    if ending == ".json":
        return _keypoints(labels, pictures, names)
    matching = labels.matching(pictures)
    if not matching:
        raise NotGuessed("no picture has these names")
    return _dense(called(labels.template), matching, names)


def _dense(name: str, matching: Mapping[tuple[str, str], Path], names: Names) -> Guess:
    if name == "instances":
        raise NotGuessed("instances are no task type; segmentation wants a class id per pixel")
    if name == "disparity":
        raise NotGuessed("disparity is no depth; store distances")
    looked_at = [_values(path) for path in spread(list(matching.values()), LOOKED_AT)]
    if any(values.ndim == 3 for values in looked_at):
        return _normals(name, looked_at)
    if any(values.ndim != 2 or values.dtype.kind not in "buif" for values in looked_at):
        raise NotGuessed(f"their shape is {'x'.join(map(str, looked_at[0].shape))}")
    finite = np.concatenate([v[np.isfinite(v)].ravel() for v in looked_at])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    distinct = set().union(*(np.unique(values).tolist()[:4] for values in looked_at))
    is_whole = all(values.dtype.kind != "f" for values in looked_at)
    is_binary = distinct <= {0, 1} or distinct <= {0, 255}
    if name == "edges" and (is_whole or (low >= 0 and high <= 1)):
        return Guess("edges", why=f"called edges; values from {low:g} to {high:g}")
    if is_binary and len(distinct) == 2 and name != "segmentation":
        return Guess("edges", why=f"two values, {' and '.join(f'{v:g}' for v in sorted(distinct))}")
    if not is_whole or name == "depth" or (high > 255 and name != "segmentation"):
        return _depth(looked_at)
    return _segmentation(name, matching, names)


def _segmentation(name: str, matching: Mapping[tuple[str, str], Path], names: Names) -> Guess:
    by_split: dict[str, list[Path]] = {}
    for (split, _), path in matching.items():
        by_split.setdefault(split, []).append(path)
    opened = [path for paths in by_split.values() for path in spread(paths, SAMPLE)]
    ids = sorted(set().union(*(np.unique(_values(path)).tolist() for path in opened)))
    ignored = [i for i in ids if i < 0 or i in (255, 65535)]
    if len(ignored) > 1:
        raise NotGuessed(f"several ids look like one to ignore: {', '.join(f'{i:g}' for i in ignored)}")
    known = [i for i in ids if i not in ignored]
    if not known or max(known) < 1:
        raise NotGuessed(f"only the ids {', '.join(f'{i:g}' for i in ids)} occur, and 255 is ignored")
    if max(known) >= (256 if name == "segmentation" else MOST_CLASSES):
        raise NotGuessed(f"one channel with values up to {max(known)}; class ids, depth, or a grey picture?")
    num_classes = int(max(known)) + 1
    keys: dict[str, Any] = {"classes": num_classes}
    why = f"ids up to {num_classes - 1} in {len(opened)} files; names may stand here instead of their number"
    if len(names.classes) >= num_classes:
        keys["classes"] = list(names.classes)
        why = f"ids up to {num_classes - 1} in {len(opened)} files; the names are from {names}"
    if ignored and ignored[0] != 255:
        keys["ignore_index"] = int(ignored[0])
    return Guess("segmentation", keys, f"{why}{f'; {ignored[0]:g} is ignored' if ignored else ''}")


def _depth(looked_at: Sequence[np.ndarray]) -> Guess:
    valid = np.concatenate([v[np.isfinite(v) & (v != 0)].ravel() for v in looked_at]).astype(np.float64)
    if not valid.size:
        raise NotGuessed("no file looked at holds a value other than 0")
    if valid.min() < 0:
        raise NotGuessed(f"negative values, as {valid.min():g}; depth is positive, and 0 where it is unknown")
    middle = float(np.median(valid))
    if middle > 200:
        scale, other = 1000, f"; 256, as in KITTI, makes it {middle / 256:.3g} m"
    else:
        scale, other = 1, ""
    why = f"a scale of {scale} makes the median {middle / scale:.3g} m{other}"
    return Guess("depth", {"scale": scale}, why)


def _normals(name: str, looked_at: Sequence[np.ndarray]) -> Guess:
    vectors = []
    for values in looked_at:
        if values.ndim != 3 or values.shape[-1] != 3:
            raise NotGuessed(f"their shape is {'x'.join(map(str, values.shape))}")
        vector = values.reshape(-1, 3).astype(np.float64)
        if values.dtype.kind in "ui":
            whole = np.iinfo(values.dtype).max
            marked = (values == 0).all(-1) | (values == whole).all(-1)
            vector = 2 * vector[~marked.ravel()] / whole - 1
        length = np.linalg.norm(vector, axis=1)
        vectors.append(vector[length >= 0.5])
    valid = np.concatenate(vectors)
    length = np.linalg.norm(valid, axis=1)
    is_unit = valid.size > 0 and float(((length > 0.9) & (length < 1.1)).mean()) > 0.8
    if not is_unit and name == "normals":
        raise NotGuessed("called normals, but 2 * value / 255 - 1 gives no unit vectors")
    if not is_unit:
        raise NotGuessed(
            "three channels that are no unit vectors; labels of classes must be ids, not colours"
        )
    frame = "camera" if (valid[:, 2] < 0).mean() > 0.5 else "opengl"
    why = f"unit vectors; most have z {'below' if frame == 'camera' else 'above'} 0, as in {frame} axes"
    return Guess("normals", {"frame": frame}, why)


def _keypoints(labels: FileSet, pictures: FileSet, names: Names) -> Guess:
    entries: list[Any] = []
    if "{id}" in labels.template:
        paths = list(labels.matching(pictures).values())
        if not paths:
            raise NotGuessed("no picture has these names")
        entries = [_json(path) for path in paths]
    else:
        ids = {name for of_split in pictures.files.values() for name in of_split}
        for of_split in labels.files.values():
            content = _json(of_split[""])
            if isinstance(content, dict) and {"images", "annotations"} <= set(content):
                raise NotGuessed("COCO annotations; keypoints are read as {id: [[x, y, kind], ...]}")
            entries += [v for k, v in content.items() if k in ids] if isinstance(content, dict) else []
        if not entries:
            raise NotGuessed("no mapping from names of pictures")
    if all(isinstance(entry, dict) for entry in entries):
        return _named_points(entries)
    points = [point for entry in entries if isinstance(entry, list) for point in entry]
    third = [p[2] for p in points if isinstance(p, list) and len(p) == 3 and _numbers(p[:2])]
    if not points or len(third) != len(points):
        raise NotGuessed("neither {name: [x, y, v]} nor [[x, y, kind], ...]")
    if all(isinstance(kind, int) and not isinstance(kind, bool) and kind >= 0 for kind in third):
        count = max(third) + 1
        if count > MOST_CLASSES:
            raise NotGuessed(f"the third number of the points goes up to {count - 1}; no index of a kind")
        if len(names.kinds) >= count:
            return Guess("keypoints", {"kinds": list(names.kinds)}, f"[x, y, kind]; from {names}")
        kinds = [f"kind{i}" for i in range(count)]
        return Guess("keypoints", {"kinds": kinds}, f"[x, y, kind], kinds up to {count - 1}; name them")
    if all(isinstance(kind, str) for kind in third):
        return Guess("keypoints", {"kinds": sorted(set(third))}, "[x, y, kind] with these names of kinds")
    raise NotGuessed("the third entries of the points are neither names nor indexes")


def _named_points(entries: Iterable[Mapping[str, Any]]) -> Guess:
    found: dict[str, None] = {}
    for entry in entries:
        for name, point in entry.items():
            if point is not None and not (_numbers(point) and len(point) in (2, 3)):
                raise NotGuessed("neither {name: [x, y, v]} nor [[x, y, kind], ...]")
            found[name] = None
    if not found:
        raise NotGuessed("no point in any file")
    keys: dict[str, Any] = {"names": list(found)}
    pairs = [[name, other] for name in found if "left" in name and (other := _mirrored(name)) in found]
    if pairs:
        keys["flip_pairs"] = pairs
    return Guess("keypoints", keys, "named points" + ("; flip_pairs from left and right" if pairs else ""))


def _classification(labels: FileSet, pictures: FileSet) -> Guess:
    if "{id}" in labels.template:
        raise NotGuessed("a CSV per picture; one CSV for all, or for each split, has the labels")
    found: dict[str, set[str]] = {}
    multi_label = False
    for split, of_split in labels.files.items():
        table = _table(of_split[""])
        multi_label |= bool(table.columns) or any("|" in v for of in table.labels.values() for v in of)
        ids = {name for s, of in pictures.files.items() if split in (s, "") for name in of}
        if not ids & set(table.labels):
            raise NotGuessed("its first column holds the names of no picture")
        first = next(iter(table.labels))
        if first not in ids and not multi_label and len(set(table.labels) - ids) == 1:
            raise NotGuessed(f"its first line, '{first}', looks like a header; call the first column 'id'")
        found[split] = {v for of in table.labels.values() for v in of} | set(table.columns)
    every = sorted(set().union(*found.values()))
    rows = sum(len(_table(of_split[""]).labels) for of_split in labels.files.values())
    if multi_label:
        parts = {part.strip() for label in every for part in label.split("|") if part.strip()}
        keys: dict[str, Any] = {"multi_label": True, "classes": sorted(parts)}
        return Guess("classification", keys, "several labels per picture")
    if any("." in label and _is_number(label) for label in every) or len(every) > max(10, rows // 2):
        raise NotGuessed(f"{len(every)} different labels in {rows} rows; these are no classes")
    train = next((of for split, of in found.items() if split.lower().startswith("train")), set(every))
    if len(every) < 2:
        raise NotGuessed(f"only one label, '{every[0]}'")
    keys = {} if train == set(every) else {"classes": every}  # by default those of train
    return Guess("classification", keys, f"{len(every)} classes in {rows} rows")


def guess_words(stored: Mapping[str, Sequence[Any]]) -> Guess:
    """Classes, from one label of each picture, or a list of them.

    Args:
        stored: by split, None for pictures without a label.

    Raises NotGuessed with the reason.
    """
    found = {split: [value for value in values if value is not None] for split, values in stored.items()}
    count = sum(map(len, found.values()))
    multi_label = any(
        isinstance(value, list) or (isinstance(value, str) and "|" in value)
        for values in found.values()
        for value in values
    )
    words = {
        split: {_word(part) for value in values for part in _parts(value, multi_label)} - {"", "?"}
        for split, values in found.items()
    }
    every = sorted(
        set().union(*words.values()), key=lambda w: (0, int(w), "") if w.isdecimal() else (1, 0, w)
    )
    if any("." in word and _is_number(word) for word in every) or len(every) > max(10, count // 2):
        raise NotGuessed(f"{len(every)} different labels of {count} pictures; these are no classes")
    if not every:
        raise NotGuessed("there is nothing in it")
    if multi_label:
        keys: dict[str, Any] = {"multi_label": True, "classes": every}
        return Guess("classification", keys, "several labels per picture")
    if len(every) < 2:
        raise NotGuessed(f"only one label, '{every[0]}'")
    keys = {} if words.get("train") == set(every) else {"classes": every}  # by default those of train
    return Guess("classification", keys, f"{len(every)} classes of {count} pictures")


def _parts(value: Any, multi_label: bool) -> list[Any]:
    if isinstance(value, list):
        return value
    return value.split("|") if multi_label and isinstance(value, str) else [value]


def _word(value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, int | float) and float(value).is_integer():
        return str(int(value))
    raise NotGuessed("neither names nor whole numbers")


def spread(paths: Sequence[Path], most: int) -> list[Path]:
    """At most so many of them, evenly spread, as `perceptkit check` chooses them."""
    return [paths[i * len(paths) // min(most, len(paths))] for i in range(min(most, len(paths)))]


def _values(path: Path) -> np.ndarray:
    """A label as stored, without dimensions of one."""
    try:
        values = read_array(path)
    except PerceptkitError as error:
        raise NotGuessed(f"{path.name} {error}") from error
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[-1]):
        values = values.squeeze(0 if values.shape[0] == 1 else -1)
    if not values.size:
        raise NotGuessed(f"{path.name} is empty")
    return values


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except PerceptkitError as error:
        raise NotGuessed(f"{path.name} {error}") from error


def _table(path: Path) -> LabelTable:
    try:
        return read_label_csv(path, multi_label=False)
    except PerceptkitError as error:
        raise NotGuessed(str(error).removeprefix(f"{path}: ")) from error


def _mirrored(name: str) -> str:
    return name.replace("left", "right")


def _numbers(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in values
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
