"""Nearest neighbours: which pictures of a gallery are most like another one, by a model with an embedding.

    gallery.safetensors    vectors (N, D) float32, the vector of a probe picture; metadata in JSON: format, task, ids

The search is exact: one product of a matrix and a vector. Tensors and JSON only, nothing that could execute code.

Shapes: N pictures of the gallery, D dimensions.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from perceptkit.errors import DataError, SpecError
from perceptkit.runtime.pictures import Picture, find_pictures, read_picture
from perceptkit.runtime.predictor import Predictor

FORMAT = "perceptkit-index-1"
SUFFIX = ".safetensors"
SAME_MODEL = 0.99
"""Cosine similarity of the probe's vectors from which on two models count as one: half precision stays above it."""


class Neighbour(NamedTuple):
    """A picture of the gallery."""

    id: str
    """Its path below the folder it was found in, or as it was given; `picture_3` for the fourth that is no path."""
    similarity: float
    """Cosine, in [-1, 1]; 1 is the same vector."""


class Index:
    """Vectors of a gallery, and the model that made them.

    Args:
        model: with the task.
        task: an embedding of it.
        ids: names of the pictures.
        vectors_ND: float32, of length 1.
    """

    def __init__(self, model: Predictor, task: str, ids: list[str], vectors_ND: np.ndarray) -> None:
        self.model, self.task, self.ids, self.vectors_ND = model, task, ids, vectors_ND

    def __len__(self) -> int:
        return len(self.ids)

    def search(self, picture: Picture, k: int = 5) -> list[Neighbour]:
        """The k pictures nearest to this one, or all where there are fewer; the nearest first, ties as in the gallery.

        A picture that is in the gallery finds itself. Raises DataError where it cannot be read.
        """
        return self.nearest(self.model.predict(picture)[self.task].vector, k)

    def nearest(self, vector_D: np.ndarray, k: int = 5) -> list[Neighbour]:
        """The same for a vector that the model has given."""
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        similarity_N = self.vectors_ND @ np.asarray(vector_D, dtype=np.float32)
        order = np.argsort(-similarity_N, kind="stable")[:k]
        return [Neighbour(self.ids[i], float(similarity_N[i])) for i in order]

    def save(self, path: str | Path) -> Path:
        """Writes one `.safetensors` file, which `open_index` reads. Raises SpecError for another ending."""
        path = Path(path)
        if path.suffix != SUFFIX:
            raise SpecError(f"{path}: an index is saved as a {SUFFIX} file")
        path.parent.mkdir(parents=True, exist_ok=True)
        told = {"format": FORMAT, "task": self.task, "ids": json.dumps(self.ids)}
        tensors = {"vectors": self.vectors_ND, "probe": _probe(self.model, self.task)}
        save_file(tensors, path, metadata=told)
        return path


def make_index(
    model: Predictor,
    pictures: str | Path | Iterable[Picture],
    task: str | None = None,
    batch: int = 8,
    on_unreadable: Callable[[DataError], None] | None = None,
) -> Index:
    """The index of a gallery.

    Args:
        model: has an embedding.
        pictures: a folder, a glob, or pictures as `Predictor.predict` takes them.
        task: which embedding; may be left out where there is one.
        batch: pictures in one pass.
        on_unreadable: is told of a picture that cannot be read, which is then left out.

    Raises:
        SpecError: there is no such embedding.
        DataError: there is no picture, or one cannot be read and there is no `on_unreadable`.
    """
    task = embedding_of(model, task)
    gallery: list[Picture]
    if isinstance(pictures, str | Path):
        gallery = list(find_pictures([pictures]))
        folder = Path(pictures) if Path(pictures).is_dir() else None
        ids = [_below(Path(str(picture)), folder) for picture in gallery]
    else:
        gallery = list(pictures)
        ids = [str(p) if isinstance(p, str | Path) else f"picture_{i}" for i, p in enumerate(gallery)]
    kept: list[str] = []

    def readable() -> Iterator[np.ndarray]:
        for name, picture in zip(ids, gallery, strict=True):
            try:
                image = read_picture(picture)
            except DataError as error:
                if on_unreadable is None:
                    raise
                on_unreadable(error)
                continue
            kept.append(name)
            yield image

    vectors = [result[task].vector for result in model.stream(readable(), batch)]
    if not vectors:
        raise DataError("an index needs at least one picture that can be read")
    return Index(model, task, kept, np.stack(vectors))


def open_index(model: Predictor, path: str | Path, task: str | None = None) -> Index:
    """An index that `Index.save` wrote; of this task, where one is named.

    Raises:
        DataError: it is none, or damaged.
        SpecError: it is of another model, or of a task that this one does not have.
    """
    try:
        with safe_open(path, framework="np") as file:
            told = file.metadata() or {}
            if told.get("format") != FORMAT:
                raise DataError(f"{path} is no index of pictures: its format is {told.get('format')!r}")
            vectors_ND, probe_D = file.get_tensor("vectors"), file.get_tensor("probe")
        ids = json.loads(told["ids"])
        of_task = told["task"]
        if not (
            isinstance(ids, list) and vectors_ND.ndim == 2 and vectors_ND.shape == (len(ids), len(probe_D))
        ):
            raise ValueError(f"{len(ids)} ids for vectors of shape {vectors_ND.shape}")
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be read as an index: {error}") from error
    if task is not None and task != of_task:
        raise SpecError(f"{path} is of the task {of_task!r}, not of {task!r}")
    task = embedding_of(model, of_task)
    ours_D = _probe(model, task)
    if len(ours_D) != len(probe_D) or float(ours_D @ probe_D) < SAME_MODEL:
        raise SpecError(
            f"{path} was made with another model, whose vectors mean something else; make it anew"
        )
    return Index(model, task, ids, vectors_ND)


def write_neighbours(path: Path, found: Sequence[Neighbour]) -> None:
    """As JSON: a list of `id` and `similarity`, the nearest first."""
    path.write_text(json.dumps([near._asdict() for near in found], indent=1) + "\n", encoding="utf-8")


def embedding_of(model: Predictor, task: str | None) -> str:
    """The embedding of this name, or the only one. Raises SpecError where that is none."""
    known = [name for name, found in model.tasks.items() if found.type == "embedding"]
    if task is None and len(known) == 1:
        return known[0]
    if task in known:
        return str(task)
    if not known:
        raise SpecError(f"the model has no task of type embedding; it has {', '.join(model.tasks)}")
    which = (
        f"{task!r} is none of its embeddings"
        if task is not None
        else "the model has several embeddings; name one"
    )
    raise SpecError(f"{which}: {', '.join(known)}")


def _probe(model: Predictor, task: str) -> np.ndarray:
    """The vector of a picture that is always the same: it tells models apart."""
    noise = np.random.default_rng(0).integers(0, 256, (*model.manifest.size_HW, 3), dtype=np.uint8)
    vector_D: np.ndarray = model.predict(noise)[task].vector
    return vector_D


def _below(path: Path, folder: Path | None) -> str:
    return path.relative_to(folder).as_posix() if folder is not None else str(path)
