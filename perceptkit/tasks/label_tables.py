"""CSVs of labels, kept in memory: one file holds those of a whole split, and every picture asks for its own."""

import csv
from functools import lru_cache
from pathlib import Path

from perceptkit.errors import DataError, SpecError
from perceptkit.spec.label_csv import LabelTable, read_label_csv


def label_table(path: Path, multi_label: bool) -> LabelTable:
    """The labels of a whole CSV, read once per process and version of the file. Raises DataError."""
    try:
        return _cached_table(path, path.stat().st_mtime_ns, multi_label)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (SpecError, csv.Error) as error:  # not text, or not a CSV
        raise DataError(f"{path} cannot be read: {str(error).removeprefix(f'{path}: ')}") from error


@lru_cache(maxsize=16)
def _cached_table(path: Path, mtime_ns: int, multi_label: bool) -> LabelTable:
    return read_label_csv(path, multi_label)
