"""Which files a split is packed into: `{split}-*.tar`, `train-{000000..000146}.tar`, `data/{a,b}-*.parquet`.

`{split}` is the word of the split; then braces are written out, in their order, and `*`, `?` and `[...]` match names,
sorted. The order of the files is part of what a run sees, and follows from the pattern and the names alone.
"""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from perceptkit.errors import DataError
from perceptkit.spec.problems import closest
from perceptkit.spec.templates import fill, shown

MOST_FILES = 10**6
"""Names that braces may stand for."""
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def packed_files(root: Path, pattern: str, word: str) -> list[Path]:
    """The files of one split in a fixed order, each once; of braces without a `*` all are named, there or not.

    Raises DataError where a pattern matches nothing, and says what is there instead.
    """
    found: dict[Path, None] = {}
    for name in written_out(fill(pattern, word)):
        if not re.search(r"[*?\[]", name):
            found[root / name] = None
            continue
        matching = sorted(path for path in root.glob(name) if path.is_file() and path.name[0] != ".")
        if not matching:
            raise DataError(f"nothing matches {shown(root / name)}{_instead(root / name)}")
        found.update(dict.fromkeys(matching))
    return list(found)


def written_out(pattern: str) -> Iterator[str]:
    """A pattern without its braces, as a shell and the webdataset package write them out.

    >>> list(written_out("{a,b}-{08..10}.tar"))
    ['a-08.tar', 'a-09.tar', 'a-10.tar', 'b-08.tar', 'b-09.tar', 'b-10.tar']
    """
    parts = [
        _options(part) if i % 2 else [part] for i, part in enumerate(_BRACES.split(pattern))
    ]  # every second one was in braces
    for chosen in itertools.product(*parts):
        yield "".join(chosen)


def pattern_faults(pattern: str) -> list[str]:
    """What is wrong with a pattern, `{split}` and all."""
    found = []
    count = 1
    for part in _BRACES.findall(pattern):
        if part == "split":
            continue
        if "," not in part and not _RANGE.fullmatch(part):
            hint = (
                "did you mean {split}?" if closest(part, ["split"]) else "braces hold split, 000..009 or a,b"
            )
            found.append(f"unknown placeholder {{{part}}}; {hint}")
            continue
        match = _RANGE.fullmatch(part)
        if match and int(match[1]) > int(match[2]):
            found.append(f"{{{part}}} counts down; write {{{match[2]}..{match[1]}}}")
        count *= max(1, int(match[2]) - int(match[1]) + 1) if match else part.count(",") + 1
    if re.search("[{}]", _BRACES.sub("", pattern)):
        found.append("a brace without its partner")
    if count > MOST_FILES:
        found.append(f"its braces stand for {count} names; {MOST_FILES} at most")
    path = PurePosixPath(pattern)
    if path.is_absolute() or ".." in path.parts:
        found.append("must lie below data.root")
    return found


def _options(braces: str) -> list[str]:
    if match := _RANGE.fullmatch(braces):
        return [f"{i:0{len(match[1])}}" for i in range(int(match[1]), int(match[2]) + 1)]
    return braces.split(",")


def _instead(pattern: Path) -> str:
    """Other files that lie there."""
    folder = pattern.parent
    if re.search(r"[*?\[]", str(folder)):
        return ""
    if not folder.is_dir():
        return "; there is no such folder"
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    more = ", ..." if len(names) > 3 else ""
    return f"; there is {', '.join(names[:3])}{more}" if names else "; the folder is empty"
