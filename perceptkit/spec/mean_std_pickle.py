"""Reads numbers out of a pickle without running what it says.

A pickle is a program: loading one may call any function. This reader builds dictionaries, lists, text and numbers,
and arrays of floats by stand-ins of its own for the names that numpy's pickles use; any other name is refused
before anything is called. Pickles of Python 2 are read too, with their text as latin-1.

Shapes: 3 = red, green, blue in [0, 1].
"""

import io
import math
import pickle
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perceptkit.errors import DataError
from perceptkit.spec.tasks_file import RGB, normalisation_fault
from perceptkit.spec.templates import shown

MOST_BYTES = 2**20
DEEPEST, MOST_ITEMS = 8, 10_000
"""Of lists and dictionaries in each other, and of what they hold: a list that is in itself, or twice in each of many
others, is small in the file and without end when it is walked."""


def read_mean_std(path: Path) -> dict[str, tuple[RGB, RGB]]:
    """Mean and std by domain, from the keys `{domain}mean` and `{domain}std` of `decathlon_mean_std.pickle`.

    Raises DataError where the file names code, is damaged, or holds something else.
    """
    where = shown(path)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{where} is larger than {MOST_BYTES} bytes; expected three numbers per key")
        content = plain_pickle(path.read_bytes())
    except OSError as error:
        raise DataError(f"{where} cannot be read: {error.strerror}") from error
    except _Refused as error:
        raise DataError(f"{where} {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{where} holds no dictionary")
    by_key = {key.decode("latin1") if isinstance(key, bytes) else str(key): v for key, v in content.items()}
    found = {}
    for key in by_key:
        domain = key.removesuffix("mean")
        if domain != key and f"{domain}std" in by_key:
            mean, std = (_rgb(where, name, by_key[name]) for name in (key, f"{domain}std"))
            if fault := normalisation_fault(mean, std):
                raise DataError(f"{where}: {domain}{fault[0]} {fault[1]}")
            found[domain] = mean, std
    return found


def plain_pickle(content: bytes) -> Any:
    """What the pickle holds, arrays as lists of floats. Raises ValueError with the end of a sentence."""
    try:
        return _Plain().of(_Reader(io.BytesIO(content), encoding="latin1").load())
    except _Refused:
        raise
    except Exception as error:  # a damaged pickle raises anything
        raise _Refused(f"is damaged: {str(error).splitlines()[0] if str(error) else error!r}") from error


class _Refused(ValueError):
    """The end of a sentence that begins with the file's name."""


class _Array:
    """Stands for numpy.ndarray."""

    dtype: "_Dtype"
    data: bytes

    def __setstate__(self, state: Any) -> None:
        _, _, self.dtype, _, data = state
        self.data = data.encode("latin1") if isinstance(data, str) else data

    def values(self) -> list[float]:
        """Flat; the order of the axes does not matter for three numbers."""
        return self.dtype.read(self.data)


class _Dtype:
    """Stands for numpy.dtype."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def read(self, data: bytes) -> list[float]:
        """The numbers of an array. Raises _Refused for all but floats."""
        code = {"f4": "f", "f8": "d"}.get(self.code)
        if code is None or self.order not in ("<", ">", "="):
            raise _Refused(f"holds an array of type {self.code}; expected floats")
        return [value for (value,) in struct.iter_unpack(self.order + code, data)]


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(data: bytes, dtype: _Dtype, *_: Any) -> _Array:
    made = _Array()
    made.data, made.dtype = data, dtype
    return made


def _scalar(dtype: _Dtype, data: Any) -> float:
    content = data.encode("latin1") if isinstance(data, str) else data
    return dtype.read(content)[0]


def _encode(text: str, _: str) -> bytes:
    return text.encode("latin1")  # how protocol 2 writes bytes


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
}


# pickle's own reader in Python: the memo of the one in C is an array as long as its largest index, so that six bytes
# can ask for all memory
_Unpickler: Any = pickle._Unpickler


class _Reader(_Unpickler):  # type: ignore[misc]  # its stack and its table of opcodes are not in typeshed
    def find_class(self, module: str, name: str) -> Any:
        """A stand-in of this file; everything else is refused, never imported."""
        if (module, name) not in _STAND_INS:
            raise _Refused(f"names {module}.{name}; only numbers, text, lists and arrays of floats are read")
        return _STAND_INS[module, name]

    def load_build(self) -> None:
        """Gives an array or a type its state; anywhere else it would set attributes, of the stand-ins too."""
        if not isinstance(self.stack[-2], _Array | _Dtype):
            raise _Refused("sets attributes of what is no array")
        super().load_build()

    dispatch = {**_Unpickler.dispatch, pickle.BUILD[0]: load_build}


class _Plain:
    """Lists and dictionaries for what the reader built, as far as it goes."""

    def __init__(self) -> None:
        self.items = 0

    def of(self, value: Any, depth: int = 0) -> Any:
        """Raises _Refused where it goes deeper, or holds more, than means and deviations do."""
        self.items += 1
        if depth > DEEPEST or self.items > MOST_ITEMS:
            raise _Refused(f"holds lists deeper than {DEEPEST} or more than {MOST_ITEMS:,} items in all")
        if isinstance(value, _Array):
            return value.values()
        if isinstance(value, dict):
            return {key: self.of(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.of(item, depth + 1) for item in value]
        return value


def _rgb(where: str, key: str, value: Any) -> RGB:
    is_list = isinstance(value, Sequence) and not isinstance(value, str | bytes) and len(value) == 3
    numbers = [float(v) for v in value if type(v) in (int, float)] if is_list else []
    if len(numbers) != 3 or not all(math.isfinite(number) and number >= 0 for number in numbers):
        raise DataError(f"{where}: {key} is not three numbers")
    return numbers[0], numbers[1], numbers[2]
