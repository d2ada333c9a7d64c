"""The tasks files and recipes that come with perceptkit, found by name.

They live in `tasks/` and `recipes/` of the repository, and inside the wheel in `perceptkit/shipped/`.
"""

from pathlib import Path
from typing import Literal, TypeAlias

from perceptkit.errors import SpecError
from perceptkit.spec.problems import closest

Kind: TypeAlias = Literal["tasks", "recipes"]
_PACKAGE = Path(__file__).resolve().parent.parent
NOUNS: dict[Kind, str] = {"tasks": "tasks file", "recipes": "recipe"}


def list_shipped(kind: Kind) -> list[str]:
    """The names that can be given instead of a path."""
    return sorted(path.stem for path in _folder(kind).glob("*.yaml"))


def find_spec(kind: Kind, path_or_name: str | Path) -> Path:
    """The file that is meant: a path that exists wins, then a shipped name.

    Raises SpecError that lists the names, or the likeliest misspelling of a file.
    """
    typed = str(path_or_name)
    path = Path(path_or_name)
    if path.is_file():
        return path
    named = _folder(kind) / f"{typed.removesuffix('.yaml')}.yaml"
    if "/" not in typed and typed not in ("", ".", "..") and named.is_file():
        return named
    if path.is_dir():
        raise SpecError(f"{typed} is a folder; expected a {NOUNS[kind]} (YAML){_inside(path)}")
    if path.suffix or "/" in typed:
        if path.exists():
            raise SpecError(f"{typed} is not a file; expected a {NOUNS[kind]} (YAML)")
        raise SpecError(f"there is no file {typed}{_sibling(path)}")
    shipped = list_shipped(kind)
    match = closest(typed, shipped)
    hint = f"; did you mean '{match}'?" if match else ""
    names = f"\nShipped {kind}: {', '.join(shipped)}; or give the path of a YAML file." if shipped else ""
    raise SpecError(f"there is no file and no shipped {NOUNS[kind]} called '{typed}'{hint}{names}")


def read_text(path: Path) -> str:
    """The file's text.

    Raises SpecError when it cannot be read as UTF-8.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SpecError(f"cannot read {path}: {error.strerror}") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SpecError(f"{path} is not UTF-8 text (line {line}); save it as UTF-8") from error


def _folder(kind: Kind) -> Path:
    shipped = _PACKAGE / "shipped" / kind
    return shipped if shipped.is_dir() else _PACKAGE.parent / kind


def _inside(folder: Path) -> str:
    files = sorted(p.name for p in folder.glob("*.y*ml"))
    return f"; in it: {', '.join(files[:5])}" if files else ""


def _sibling(path: Path) -> str:
    """Hint for a misspelled file name or folder."""
    if not path.parent.is_dir():
        return f"; there is no folder {path.parent} either"
    match = closest(path.name, (p.name for p in path.parent.iterdir() if p.is_file()))
    return f"; did you mean '{path.parent / match}'?" if match else ""
