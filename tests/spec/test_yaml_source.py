"""YAML as 1.2 reads it, with the place of everything, and no way to crash or to run code."""

import pytest

from perceptkit.spec.yaml_source import MOST_VALUES, Place, plain_value, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), ("1E5", 1e5), (".5", 0.5), ("5.", 5.0), ("-2", -2), ("+7", 7), ("010", 10),
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("off", "off"), ("yes", "yes"), ("12:30", "12:30"), ("0x10", "0x10"), ("1_000", "1_000"),
        (".inf", ".inf"), ("1e999", "1e999"), ("2024-01-01", "2024-01-01"), ("e3", "e3"), ("1.2.3", "1.2.3"),
    ],
)  # fmt: skip
def test_plain_scalars(text, value):
    read = plain_value(text)
    assert read == value and type(read) is type(value)


def test_quoted_scalars_are_text():
    assert read_yaml("a: '1'\nb: \"true\"\nc: !!str 3\n", "f").data == {"a": "1", "b": "true", "c": "3"}


def test_places_of_keys_and_values():
    source = read_yaml("a:\n  - {b: 1, c: [x, y]}\n", "f")
    assert source.keys[("a", 0, "c")] == Place(2, 12)
    assert source.values[("a", 0, "c", 1)] == Place(2, 19)


def test_templates_need_no_quotes():
    text = "image: {split}/rgb/{id}.png\nseg: {target: seg/{split}/{id}.png, classes: 3}\n"
    source = read_yaml(text, "f")
    assert source.data == {
        "image": "{split}/rgb/{id}.png",
        "seg": {"target": "seg/{split}/{id}.png", "classes": 3},
    }
    assert source.keys[("seg", "classes")] == Place(2, 37)


def test_aliases_and_merge_keys():
    source = read_yaml("a: &a {p: 1, q: 2}\nb: {<<: *a, q: 3}\nc: *a\n", "f")
    assert source.data == {"a": {"p": 1, "q": 2}, "b": {"q": 3, "p": 1}, "c": {"p": 1, "q": 2}}
    assert not source.problems


def test_billion_laughs_stop():
    lines = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    problems = read_yaml("\n".join(lines), "f").problems
    assert [p.message for p in problems] == [f"more than {MOST_VALUES} values, aliases unfolded"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["[" * 5000, "a: " + "{" * 3000, "- " * 3000, "\x00", "\ud83d", "a: &", "? ", "!"]
)
def test_hostile_text_is_a_problem_or_data(text):
    source = read_yaml(text, "f")
    assert source.problems or source.data is None or isinstance(source.data, dict | list | str)


def test_a_byte_order_mark_and_windows_lines(tmp_path):
    from perceptkit.spec.shipped import read_text

    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    assert read_yaml(read_text(path), "f").data == {"a": 1, "b": 2}
