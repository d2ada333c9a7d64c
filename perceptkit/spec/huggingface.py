"""`source: huggingface`: parquet files on disk, a picture a row and a column for each task, by the package datasets.

    ROOT/data/train-00000-of-00002.parquet     image: Image   seg: Image   room: ClassLabel   tags: List(ClassLabel)

parquet is compressed in groups of rows, so that one row costs a group. datasets writes the columns once, as they are,
into a file that rows are read from by their place: in the cache folder, about as large as the parquet files. Nothing is
fetched from anywhere: a picture that is a link is refused.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from perceptkit.errors import DataError, SpecError
from perceptkit.spec.cache_folder import default_cache
from perceptkit.spec.packed_files import packed_files
from perceptkit.spec.problems import did_you_mean
from perceptkit.spec.tasks_file import ClassificationSpec, EmbeddingSpec, HuggingFaceData, Split, TaskBase
from perceptkit.spec.templates import shown

UNLABELLED = -1
"""Of a ClassLabel, as datasets writes splits without labels."""


class Rows:
    """The rows of one split, in the order of the files.

    Args:
        files: parquet files with the same columns.
        image: the column of the pictures.

    Raises DataError that names the file that cannot be read.
    """

    def __init__(self, files: Sequence[Path], image: str) -> None:
        self.files, self.image = list(files), image
        counts = _num_rows(self.files)
        self._places = [(i, row) for i, count in enumerate(counts) for row in range(count)]
        self._dataset = _open_dataset(self.files)
        self._column: dict[str, Any] = {}
        self._whole: dict[str, list[Any]] = {}
        """Columns of labels of whole pictures."""
        self._size: list[int | None] | None = None

    @property
    def columns(self) -> list[str]:
        """Their names."""
        return list(self._dataset.column_names)

    @property
    def ids(self) -> list[str]:
        """`FILE/ROW`, rows counted from 0."""
        return [f"{self.files[i].stem}/{row}" for i, row in self._places]

    def file(self, index: int) -> Path:
        """The file of a row."""
        return self.files[self._places[index][0]]

    def is_picture(self, column: str) -> bool:
        """Whether a column holds pictures, by its feature."""
        from datasets import Image

        feature = self._dataset.features[column]
        return isinstance(feature, Image) or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})

    def where(self, index: int, column: str = "") -> str:
        """A row in a message, or one of its cells."""
        return f"{shown(self.file(index))}: row {self._places[index][1]}{f', {column}' if column else ''}"

    def labelled(self, task: str, spec: TaskBase) -> list[bool]:
        """Whether each row has a label of a task; an empty text and a ClassLabel of -1 are none."""
        column = column_of(task, spec)
        here: list[bool] = self._of(column).data.column(column).is_valid().to_pylist()
        if self.class_names(task, spec) is None:
            return here
        return [stored is not None for stored in self.all_stored(task, spec)]

    def class_names(self, task: str, spec: TaskBase) -> list[str] | None:
        """The names of a task's ClassLabels, one or several in a cell; None for other columns."""
        feature = self._of(column_of(task, spec)).features[column_of(task, spec)]
        feature = getattr(feature, "feature", feature[0] if isinstance(feature, list) else feature)
        names = getattr(feature, "names", None)
        return None if names is None else list(names)

    def picture(self, index: int) -> bytes:
        """The bytes of a row's picture. Raises DataError that names the row."""
        content = self._cell(index, self.image)
        if not isinstance(content, bytes):
            what = "no picture" if content is None else f"{type(content).__name__}, no picture"
            raise DataError(f"{self.where(index, self.image)} holds {what}; data.image names the column")
        return content

    def picture_size(self, index: int) -> int | None:
        """How many bytes those are; None where there is no picture."""
        if self._size is None:
            self._size = self._sizes()
        return self._size[index]

    def picture_where(self, index: int) -> str:
        """The picture in a message."""
        return self.where(index, self.image)

    def label_where(self, index: int, task: str, spec: TaskBase) -> str:
        """A task's label in a message."""
        return self.where(index, column_of(task, spec))

    def stored(self, index: int, task: str, spec: TaskBase) -> Any:
        """A task's label as it is stored, ClassLabels by their names and pictures as bytes; None without one.

        Raises DataError that names the cell.
        """
        column = column_of(task, spec)
        if isinstance(spec, ClassificationSpec | EmbeddingSpec):  # small, and wanted for every row
            if column not in self._whole:
                self._whole[column] = self._of(column)[:][column]
            return self._named(task, spec, self._whole[column][index], index)
        return self._named(task, spec, self._cell(index, column), index)

    def all_stored(self, task: str, spec: TaskBase) -> Iterator[Any]:
        """The labels of all rows."""
        return (self.stored(i, task, spec) for i in range(len(self._places)))

    def _named(self, task: str, spec: TaskBase, value: Any, index: int) -> Any:
        names = self.class_names(task, spec)
        if names is None or value is None or value == UNLABELLED:
            return None if names is not None else value
        if isinstance(getattr(spec, "classes", None), int):
            return value  # which then are numbers
        for number in value if isinstance(value, list) else [value]:
            if not 0 <= number < len(names):  # Python would count negative ones from the end
                raise DataError(
                    f"{self.label_where(index, task, spec)} holds the class number {number}; the column has names for "
                    f"0 to {len(names) - 1}, and {UNLABELLED} is no label"
                )
        return [names[number] for number in value] if isinstance(value, list) else names[value]

    def _cell(self, index: int, column: str) -> Any:
        """What one row has in a column; a picture is its bytes. Raises DataError that names the cell."""
        value = self._of(column)[index][column]
        if isinstance(value, dict) and set(value) == {"bytes", "path"}:
            return self._content(value, self.where(index, column))
        return value

    def _sizes(self) -> list[int | None]:
        """Of all pictures; only where they begin is read."""
        import pyarrow
        import pyarrow.compute

        column = self._of(self.image).data.column(self.image)
        if pyarrow.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
            inside = pyarrow.compute.struct_field(column, "bytes")
            path = pyarrow.compute.struct_field(column, "path")
            sizes: list[int | None] = pyarrow.compute.binary_length(inside).to_pylist()
            is_path = path.is_valid().to_pylist()
            return [0 if size is None and other else size for size, other in zip(sizes, is_path, strict=True)]
        if pyarrow.types.is_binary(column.type) or pyarrow.types.is_large_binary(column.type):
            sizes = pyarrow.compute.binary_length(column).to_pylist()
            return sizes
        return [0] * len(self._places)  # no pictures, which is told when one is read

    def _of(self, column: str) -> Any:
        """The data set without its other columns, and without decoding pictures."""
        if column not in self._column:
            if column not in self.columns:
                raise DataError(
                    f"{shown(self.files[0])} has no column '{column}'{_columns(column, self.columns)}"
                )
            from datasets import Image

            alone = self._dataset.select_columns([column])
            if isinstance(alone.features[column], Image):
                alone = alone.cast_column(column, Image(decode=False))
            self._column[column] = alone
        return self._column[column]

    def _content(self, value: dict[str, Any], where: str) -> bytes | None:
        if value["bytes"] is not None or value["path"] is None:
            content: bytes | None = value["bytes"]
            return content
        path = str(value["path"])
        message = (
            f"{where} holds no picture but the path {path[:80]}; write the files with the pictures inside"
        )
        if "://" in path or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise DataError(message)
        try:
            return (self.files[0].parent / path).read_bytes()
        except OSError as error:
            raise DataError(f"{message} ({error.strerror})") from error


def open_rows(data: HuggingFaceData, split: Split) -> Rows:
    """All rows of a split; opened once per process and version of the files.

    Raises:
        DataError: names the file that is not as it should be. SpecError: the package datasets is not installed.
    """
    files = parquet_files(data, split)
    try:
        versions = tuple((file, file.stat().st_mtime_ns) for file in files)
    except OSError as error:
        raise DataError(f"{shown(Path(error.filename))} cannot be read: {error.strerror}") from error
    return _open(versions, data.image)


@lru_cache(maxsize=6)
def _open(versions: tuple[tuple[Path, int], ...], image: str) -> Rows:
    return Rows([file for file, _ in versions], image)


def parquet_files(data: HuggingFaceData, split: Split) -> list[Path]:
    """The files of a split. Raises DataError where there are none."""
    pattern = data.files[split] if isinstance(data.files, dict) else data.files
    return packed_files(data.root, pattern, data.splits.get(split, split))


def column_of(task: str, spec: TaskBase) -> str:
    """The column of a task's labels."""
    return spec.target or task


def needs_datasets() -> Any:
    """The package. Raises SpecError where it is not installed."""
    try:
        import datasets
    except ImportError as error:
        raise SpecError(f"'source: huggingface' needs {error.name}: pip install 'perceptkit[hf]'") from error
    return datasets


def _num_rows(files: Sequence[Path]) -> list[int]:
    """Of each file. Raises DataError where one cannot be read, or is not of the columns and classes of the first:
    datasets would fill what is lacking with nothing, and read its numbers of classes as the first file's."""
    needs_datasets()
    import pyarrow.parquet

    counts: list[int] = []
    first: tuple[list[str], Any] | None = None
    for file in files:
        try:
            footer = pyarrow.parquet.read_metadata(file)
            schema = footer.schema.to_arrow_schema()
        except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
            raise _damaged(file, error) from error
        described = (
            json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features")
        )
        first = first or (schema.names, described)
        if schema.names != first[0]:
            here, there = ", ".join(schema.names), ", ".join(first[0])
            raise DataError(f"{shown(file)} has the columns {here}; {shown(files[0])} has {there}")
        if described != first[1]:
            raise DataError(
                f"{shown(file)} has other features or classes than {shown(files[0])}; write both from one table"
            )
        counts.append(footer.num_rows)
    return counts


def _open_dataset(files: Sequence[Path]) -> Any:
    """All files as one table, which is read from the cache folder."""
    datasets = needs_datasets()
    version = json.dumps([[os.path.abspath(f), f.stat().st_size, f.stat().st_mtime_ns] for f in files])
    folder = default_cache() / "parquet" / hashlib.sha256(version.encode()).hexdigest()[:32]
    quiet = not sys.stderr.isatty() and not datasets.are_progress_bars_disabled()
    if quiet:
        datasets.disable_progress_bars()
    try:
        return datasets.Dataset.from_parquet([str(file) for file in files], cache_dir=str(folder))
    except Exception as error:  # of datasets, pyarrow, the disk
        _find_damaged(files)
        if isinstance(error, OSError):
            raise DataError(
                f"{shown(folder)}: tables cannot be kept there ({error.strerror or error}); point PERCEPTKIT_CACHE "
                "to a folder that can be written and has as much space as the parquet files"
            ) from error
        reason = str(error.__cause__ or error).splitlines()[0]
        raise DataError(f"{shown(files[0])} and the files after it are no one table: {reason}") from error
    finally:
        if quiet:
            datasets.enable_progress_bars()


def _find_damaged(files: Sequence[Path]) -> None:
    """Raises DataError for a file that cannot be read to its end."""
    import pyarrow.parquet

    for file in files:
        try:
            with pyarrow.parquet.ParquetFile(file) as opened:
                for _ in opened.iter_batches():
                    pass
        except (OSError, ValueError) as error:
            raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> DataError:
    if not file.exists():
        return DataError(f"there is no file {shown(file)}")
    reason = str(error).splitlines()[0]
    return DataError(f"{shown(file)} is no parquet file, or damaged ({reason}); copy or make it again")


def _columns(name: str, columns: Sequence[str]) -> str:
    hint = did_you_mean(name, columns)
    return hint if hint.startswith("; did") else f"; it has {', '.join(columns)}"
