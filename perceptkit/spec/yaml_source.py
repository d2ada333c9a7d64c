"""YAML text -> plain data and the place of every key and value.

PyYAML parses; nothing is constructed from tags. Plain scalars are read by the rules of YAML 1.2, because
those of YAML 1.1, PyYAML's own, surprise: there `1e-3` is text, `off` is False, `12:30` is 750, `010` is 8.
Of two equal keys PyYAML silently keeps the last; here the second is a problem.

One thing is more liberal than YAML: `{split}` and `{id}` need no quotes, although a brace opens a mapping.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from yaml.composer import Composer
from yaml.error import Mark, MarkedYAMLError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.scanner import Scanner

from perceptkit.spec.problems import Problem

KeyPath: TypeAlias = tuple[str | int, ...]

MOST_VALUES = 100_000  # aliases of aliases can unfold to more values than fit in memory
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")
_SHIELDED = {ord("\ue000"): "{", ord("\ue001"): "}"}  # private-use characters: columns stay right
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_CONSTANTS: dict[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}


@dataclass(frozen=True)
class Place:
    """A line and column counted from 1, or the `--set` that supplied the value."""

    line: int
    col: int
    override: str = ""


@dataclass
class Source:
    """A file as plain data, with the place of everything in it."""

    file: str
    """Its name in messages."""
    text: str
    data: Any = None
    keys: dict[KeyPath, Place] = field(default_factory=dict)
    values: dict[KeyPath, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, path: KeyPath, message: str, at: str = "value") -> Problem:
        """A problem at the `key` or the `value` of `path`, or else at what was written around it."""
        place = (self.keys if at == "key" else self.values).get(path) or self.keys.get(path)
        for end in range(len(path) - 1, -1, -1):
            place = place or self.keys.get(path[:end]) or (self.values.get(path[:end]) if end else None)
        key = ".".join(str(part) for part in path)
        if place is None:  # a top-level key that is missing has no line of its own
            return Problem(self.file, 1, 1, key, message)
        return self.problem_at(place, message, key)

    def problem_at(self, place: Place, message: str, key: str = "") -> Problem:
        """A problem at a place."""
        lines = self.text.splitlines()
        source = lines[place.line - 1] if place.line <= len(lines) else ""
        return Problem(self.file, place.line, place.col, key, message, source, place.override)

    def override_of(self, path: KeyPath) -> str:
        """The `--set` that supplied the value at `path`, if one did."""
        place = self.values.get(path)
        return place.override if place else ""


class _Composer(Reader, Scanner, Parser, Composer):
    """Text -> nodes. Tags: `plain` and `quoted` for scalars that the author did not tag."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)

    def resolve(self, kind: type[Node], value: Any, implicit: Any) -> str:
        if kind is ScalarNode:
            return "plain" if implicit[0] else "quoted"
        return "container"

    def descend_resolver(self, *_: Any) -> None:
        """The Composer's interface asks for it; only path-dependent tags would need it."""

    def ascend_resolver(self) -> None:
        """See `descend_resolver`."""


def read_yaml(text: str, file: str) -> Source:
    """Reads one YAML document; what cannot be read is in the result's `problems`, never raised."""
    source = Source(file, text)
    shielded = _PLACEHOLDER.sub("\ue000\\1\ue001", text)
    try:
        node = _Composer(shielded).get_single_node()
        if node is None:
            source.problems.append(source.problem_at(Place(1, 1), "the file holds nothing"))
        else:
            source.data = _Unfolder(source).unfold(node, ())
    except MarkedYAMLError as error:
        mark, message = _explain(error)
        source.problems.append(source.problem_at(_place(mark), message))
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        col = error.position - (text.rfind("\n", 0, error.position) + 1) + 1
        message = "a control character that YAML does not allow"
        source.problems.append(source.problem_at(Place(line, col), message))
    except RecursionError:
        source.problems.append(source.problem_at(Place(1, 1), "brackets are nested too deeply"))
    return source


class _Unfolder:
    """Nodes -> plain data, noting the place of every key and value in `source`."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.open_nodes: set[int] = set()
        self.count = 0

    def unfold(self, node: Node, path: KeyPath) -> Any:
        place = _place(node.start_mark)
        self.source.values[path] = place
        self.count += 1
        if self.count > MOST_VALUES:
            if self.count == MOST_VALUES + 1:
                self._report(place, f"more than {MOST_VALUES} values, aliases unfolded", path)
            return None
        if id(node) in self.open_nodes:
            self._report(place, "an alias stands inside the value that its own anchor names", path)
            return None
        if node.tag not in ("plain", "quoted", "container", "tag:yaml.org,2002:str"):
            shown = node.tag.replace("tag:yaml.org,2002:", "!!")
            self._report(place, f"tags such as {shown} are not read; drop it", path)
        self.open_nodes.add(id(node))
        try:
            if isinstance(node, MappingNode):
                return self._mapping(node, path)
            if isinstance(node, SequenceNode):
                return [self.unfold(child, (*path, i)) for i, child in enumerate(node.value)]
            assert isinstance(node, ScalarNode)
            return self._scalar(node, path)
        finally:
            self.open_nodes.discard(id(node))

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        merged: dict[str, Node] = {}
        first_line: dict[str, int] = {}
        for key_node, value_node in node.value:
            place = _place(key_node.start_mark)
            if not isinstance(key_node, ScalarNode):
                self._report(place, "a key must be a word, not a list or a mapping", path)
                continue
            key = key_node.value.translate(_SHIELDED)
            if key == "<<" and key_node.tag == "plain":
                merged.update({k: v for k, v in self._merge(value_node, path) if k not in merged})
            elif key in mapping:
                message = f"duplicate key; first given in line {first_line[key]}"
                self._report(place, message, (*path, key))
            else:
                first_line[key] = place.line
                self.source.keys[(*path, key)] = place
                mapping[key] = self.unfold(value_node, (*path, key))
        for key, value_node in merged.items():
            if key not in mapping:
                mapping[key] = self.unfold(value_node, (*path, key))
        return mapping

    def _merge(self, node: Node, path: KeyPath) -> Iterator[tuple[str, Node]]:
        """The pairs that `<<: *anchor` or `<<: [*a, *b]` brings in."""
        if isinstance(node, SequenceNode):
            for child in node.value:
                yield from self._merge(child, path)
        elif isinstance(node, MappingNode) and id(node) not in self.open_nodes:
            for key_node, value_node in node.value:
                if isinstance(key_node, ScalarNode):
                    yield key_node.value.translate(_SHIELDED), value_node
        else:
            self._report(_place(node.start_mark), "'<<' merges mappings; expected an alias of one", path)

    def _scalar(self, node: ScalarNode, path: KeyPath) -> Any:
        text = node.value.translate(_SHIELDED)
        if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
            self._report(_place(node.start_mark), "half of a surrogate pair is not a character", path)
            return ""
        return plain_value(text) if node.tag == "plain" else text

    def _report(self, place: Place, message: str, path: KeyPath) -> None:
        self.source.problems.append(self.source.problem_at(place, message, ".".join(map(str, path))))


def plain_value(text: str) -> bool | int | float | str | None:
    """An unquoted scalar by YAML 1.2's core schema, without octal, hexadecimal and non-finite numbers.

    >>> [plain_value(text) for text in ("1e-3", "off", "12:30", "010", "true", "~", ".inf")]
    [0.001, 'off', '12:30', 10, True, None, '.inf']
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INT.fullmatch(text) and len(text) < 400:
        return int(text)
    if _FLOAT.fullmatch(text) and abs(float(text)) != float("inf"):
        return float(text)
    return text


def _place(mark: Mark) -> Place:
    return Place(mark.line + 1, mark.column + 1)


def _explain(error: MarkedYAMLError) -> tuple[Mark, str]:
    """Where and what, in words for somebody who does not know YAML's grammar."""
    problem, context = error.problem or "", error.context or ""
    mark = error.problem_mark or error.context_mark
    opened = error.context_mark
    assert mark is not None  # PyYAML gives at least one
    if "'\\t'" in problem:
        return mark, "a tab cannot indent or separate in YAML; use spaces"
    if "mapping values are not allowed" in problem:
        advice = "check the indentation and the space after ':' above, or quote a text with ': ' in it"
        return mark, f"unexpected ':'; {advice}"
    if "expected ':'" in problem and opened:
        return opened, "expected 'key: value'; is a ':' (and a space after it) missing?"
    if opened and "end of stream" in problem and "quoted" in context:
        return opened, "a quote that is never closed"
    if opened and ("expected ',' or" in problem):
        closing, what = ("]", "list") if "']'" in problem else ("}", "mapping")
        return mark, f"expected ',' or '{closing}' in the {what} opened in line {opened.line + 1}"
    if "expected the node content" in problem:
        return mark, "expected a value here; is a quote or a bracket missing?"
    if "block end" in problem:
        return mark, "the indentation does not fit the lines above"
    if "undefined alias" in problem:
        return mark, f"{problem.replace('found undefined alias', 'no anchor for the alias')}"
    if "cannot start any token" in problem:
        return mark, f"text cannot start with {problem.split()[2]}; put it in quotes"
    if "single document" in context:
        return mark, "a second document ('---'); a file holds one"
    return mark, f"not valid YAML: {problem}"
