"""`perceptkit init` for shards of webdataset and for parquet files: what a sample of what they hold looks like.

Labels are written to a temporary folder as files of their own, and guessed as those of any other folder.
"""

import io
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from perceptkit.errors import PerceptkitError
from perceptkit.spec.folder_files import FileSet, split_of
from perceptkit.spec.label_guess import SAMPLE, Guess, Names, NotGuessed, guess, guess_words
from perceptkit.spec.listed import spread
from perceptkit.spec.packed import Packed, open_packed
from perceptkit.spec.packed_arrays import as_array
from perceptkit.spec.scaffold_text import PICTURE_WORDS, size_line, stand_ins, task_lines, written
from perceptkit.spec.tasks_file import (
    SPLITS,
    HuggingFaceData,
    PackedData,
    ResponseSpec,
    Split,
    WebDatasetData,
)
from perceptkit.spec.webdataset import ARRAYS, Shards

DEPTH = ("*", "*/*", "*/*/*")
"""Folders that are looked into."""
FIELDS = 30
"""Fields of a JSON file, or columns, up to which all are looked at."""


def packed_lines(folder: Path, root: str) -> list[str] | None:
    """The lines below `data:` for shards or parquet files that are named after splits; None where there are none.

    Args:
        folder: what to propose a tasks file from.
        root: the same, as the file will name it.

    Raises DataError where the files cannot be read, SpecError where a package is missing.
    """
    for ending, source, key in ((".tar", "webdataset", "shards"), (".parquet", "huggingface", "files")):
        pattern, words = _pattern(folder, ending)
        if "train" in words:
            chosen, note = stand_ins(words, "file")
            stand_in = {split: chosen.get(split, chosen["train"]) for split in SPLITS}
            common = {"source": source, "root": folder, "size": [32, 32], key: pattern, "splits": stand_in}
            model = WebDatasetData if source == "webdataset" else HuggingFaceData
            lines = [f"  source: {source}", f"  root: {written(root)}  # relative to this file"]
            lines.append(f"  {key}: {written(pattern)}")
            if any(chosen.get(split) != split for split in SPLITS):
                lines.append(f"  splits: {written(chosen)}{note}")
            return [*lines, *_of_files(model.model_validate(common), list(words))]
    return None


def _pattern(folder: Path, ending: str) -> tuple[str, dict[Split, str]]:
    """The pattern of the train files with `{split}` in it, and the word of each split that has files of it."""
    found: dict[str, dict[Split, str]] = {}
    for depth in DEPTH:
        for path in sorted(folder.glob(f"{depth}{ending}")):
            parts = re.split(r"([/_.-])", path.relative_to(folder).as_posix().removesuffix(ending))
            word = next((part for part in parts if split_of(part)), None)
            if (
                word is not None
                and path.is_file()
                and not any(part.startswith(".") for part in path.parts[-2:])
            ):
                named = "".join("{split}" if part == word else part for part in parts)
                pattern = re.sub(r"\d+(-of-\d+)?", "*", named) + ending
                found.setdefault(pattern, {})[split_of(word) or "train"] = word
    with_train = {pattern: words for pattern, words in found.items() if "train" in words}
    return max(with_train.items(), key=lambda item: len(item[1]), default=("", {}))


def _of_files(data: PackedData, splits: list[Split]) -> list[str]:
    """Picture, size and tasks."""
    train = open_packed(data, "train")
    image = _image_ending(train) if isinstance(train, Shards) else _image_column(train)
    if image is None:
        return ["  # to do: image: what a picture is called here; none was found", "tasks: {}  # to fill in"]
    data = data.model_copy(update={"image": image})
    packed = {split: open_packed(data, split) for split in splits}
    guesses: dict[str, Guess] = {}
    unknown: dict[str, str] = {}
    default = type(data).model_fields["image"].default
    names = default.split(";")
    lines = [f"  image: {written(image)}  # ?"] if image not in names else []
    with tempfile.TemporaryDirectory() as made:
        pictures = _pictures(Path(made), packed)
        if not pictures.paths:
            return [*lines, "tasks: {}  # to fill in: no picture can be read"]
        lines.append(size_line(pictures.paths))
        for target in _targets(packed["train"], image):
            try:
                found = _guess(Path(made), packed, pictures, target)
            except (NotGuessed, PerceptkitError) as reason:
                unknown[target] = str(reason)
                continue
            name = _free_name(target, guesses)
            if isinstance(train, Shards) or name != target:
                found.keys = {"target": target, **found.keys}
            guesses[name] = found
    return [*lines, *task_lines(guesses, unknown)]


def _image_ending(train: Shards) -> str | None:
    """The ending of pictures: jpg and the like alone, or the one that is called so."""
    alone = [ending for ending in ("jpg", "jpeg", "png", "webp") if ending in train.endings]
    called = [
        ending
        for ending in train.endings
        if ending.rpartition(".")[2] in ("jpg", "jpeg", "png", "webp")
        and ending.split(".")[0] in PICTURE_WORDS
    ]
    return next(iter([*alone, *called]), None)


def _image_column(train: Packed) -> str | None:
    columns: list[str] = train.columns  # type: ignore[attr-defined]
    of_pictures = [column for column in columns if train.is_picture(column)]  # type: ignore[attr-defined]
    called = [column for column in of_pictures if column.lower() in PICTURE_WORDS]
    return next(iter([*called, *of_pictures]), None)


def _targets(train: Packed, image: str) -> list[str]:
    """What may be a label: endings, with the fields of JSON files, or columns."""
    if not isinstance(train, Shards):
        return [column for column in train.columns if column != image][:FIELDS]  # type: ignore[attr-defined]
    found = []
    for ending in train.endings:
        if ending == image:
            continue
        if ending.rpartition(".")[2] != "json":
            found.append(ending)
            continue
        first = next((i for i in range(len(train.keys)) if train.has(i, ending)), 0)
        content = train.stored(first, "", ResponseSpec(type="response", target=ending))
        is_points = not isinstance(content, dict) or all(_is_point(value) for value in content.values())
        found += [ending] if is_points else [f"{ending}:{field}" for field in list(content)[:FIELDS]]
    return found


def _guess(made: Path, packed: Mapping[Split, Packed], pictures: FileSet, target: str) -> Guess:
    """What the labels of one ending, field or column look like. Raises NotGuessed, DataError."""
    spec = ResponseSpec(type="response", target=target)  # any type: what is stored is wanted as it is
    first = None
    for of_split in packed.values():
        names = of_split.class_names(target, spec)
        places = range(len(of_split.ids))
        first = next((v for i in places if (v := of_split.stored(i, target, spec)) is not None), None)
        if first is not None:
            break
    if first is None:
        raise NotGuessed("there is nothing in it")
    if names is not None:
        keys = {"multi_label": True} if isinstance(first, list) else {}
        return Guess(
            "classification", keys, f"ClassLabels: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
        )
    if isinstance(first, bytes):
        return _guess_files(
            made, packed, pictures, target, "npy" if first.startswith(b"\x93NUMPY") else "png"
        )
    if isinstance(first, list) and _is_map(first):
        return _guess_files(made, packed, pictures, target, "npy")
    is_points = isinstance(first, dict) or (
        isinstance(first, list) and any(isinstance(v, list) for v in first)
    )
    if is_points:
        return _guess_files(made, packed, pictures, target, "json")
    stored: dict[str, list[Any]] = {
        split: [of.stored(i, target, spec) for i in range(len(of.ids))] for split, of in packed.items()
    }
    return guess_words(stored)


def _guess_files(
    made: Path, packed: Mapping[Split, Packed], pictures: FileSet, target: str, ending: str
) -> Guess:
    """The labels that `perceptkit check` would open, as files of their own."""
    spec = ResponseSpec(type="response", target=target)
    name = re.sub(r"[^a-z0-9]+", "_", target.lower()).strip("_")
    files: dict[str, dict[str, Path]] = {}
    for split, of_split in packed.items():
        for place in pictures.files.get(split, {}):
            stored = of_split.stored(int(place), target, spec)
            if stored is None:
                continue
            path = made / name / split / f"{place}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if ending == "json":
                path.write_text(json.dumps(_whole_kinds(stored)))
            elif isinstance(stored, bytes):
                path.write_bytes(stored)
            else:
                path.write_bytes(_npy(as_array(stored, target)))
            files.setdefault(split, {})[place] = path
    return guess(FileSet(f"{name}/{{split}}/{{id}}.{ending}", files), pictures, Names())


def _pictures(made: Path, packed: Mapping[Split, Packed]) -> FileSet:
    """Those that `perceptkit check` would open, by split and place."""
    files: dict[str, dict[str, Path]] = {}
    for split, of_split in packed.items():
        for place in spread(range(len(of_split.ids)), SAMPLE):
            try:
                content = of_split.picture(place)
            except PerceptkitError:
                continue
            path = made / "pictures" / split / f"{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            files.setdefault(split, {})[str(place)] = path
    return FileSet("pictures/{split}/{id}.png", files)


def _npy(values: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, values)
    return content.getvalue()


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) in (2, 3) and all(isinstance(v, int | float) for v in value)


def _is_map(value: list[Any]) -> bool:
    """Whether nested lists are rows of numbers, too long for points."""
    return all(isinstance(row, list) and len(row) > 3 for row in value) and len(value) > 3


def _whole_kinds(stored: Any) -> Any:
    if not isinstance(stored, list):
        return stored
    return [
        [*p[:2], int(p[2])] if isinstance(p, list) and len(p) == 3 and float(p[2]).is_integer() else p
        for p in stored
    ]


def _free_name(target: str, taken: Mapping[str, Guess]) -> str:
    """A name for the task: the field, or the ending without that of the format."""
    ending, colon, field = target.partition(":")
    stem = ending.rpartition(".")[0] if ending.rpartition(".")[2] in (*ARRAYS, "json") else ending
    name = re.sub(r"\W+", "_", field if colon else stem or ending, flags=re.ASCII).strip("_")
    name = name if re.match("[A-Za-z]", name) and name != "image" else f"task_{name}".rstrip("_")
    number = next(n for n in range(1, 10**6) if (name if n == 1 else f"{name}{n}") not in taken)
    return name if number == 1 else f"{name}{number}"
