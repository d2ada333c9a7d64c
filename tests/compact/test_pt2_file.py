"""The two kinds of .pt2 are told apart by what is in them, and what could run code is refused before torch reads it."""

import json
import shutil
from zipfile import ZipFile

import pytest

from perceptkit.compact.pt2_file import _is_of_sizes, inspect
from perceptkit.errors import ExportError, SpecError
from tests.compact import conftest as shared

CONFIG = "data/constants/model_constants_config.json"
PICKLED = {"config": {"x": {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True}}}


@pytest.fixture
def exported(tmp_path_factory):
    return shared.exported(tmp_path_factory, "torch")


def changed(source, path, **contents):
    """A copy with entries replaced, added, or (None) left out; `__` stands for / and `_dot_` for a dot."""
    new = {name.replace("__", "/").replace("_dot_", "."): text for name, text in contents.items()}
    with ZipFile(source) as old, ZipFile(path, "w") as made:
        folder = old.namelist()[0].partition("/")[0]
        for name in old.namelist():
            inner = name.partition("/")[2]
            text = new.pop(inner, old.read(name))
            if text is not None:
                made.writestr(name, text)
        for inner, text in new.items():
            made.writestr(f"{folder}/{inner}", text)
    return path


def program(exported, change):
    with ZipFile(exported) as archive:
        name = next(name for name in archive.namelist() if name.endswith("models/model.json"))
        loaded = json.loads(archive.read(name))
    change(loaded)
    return json.dumps(loaded)


def test_names_do_not_decide(exported, tmp_path):
    shutil.copy(exported, tmp_path / "model_aoti.pt2")
    assert inspect(tmp_path / "model_aoti.pt2")[0] == "torch"
    package = changed(
        exported,
        tmp_path / "model.pt2",
        models__model_dot_json=None,
        data__aotinductor__model__x_dot_so="elf",
    )
    assert inspect(package)[0] == "aoti"


def test_both_kinds_in_one_file(exported, tmp_path):
    with pytest.raises(ExportError, match="a program and a package"):
        inspect(changed(exported, tmp_path / "m.pt2", data__aotinductor__model__x_dot_so="elf"))


def test_files_of_someone_else(exported, tmp_path):
    with pytest.raises(SpecError, match=r"none\.pt2: no such file"):
        inspect(tmp_path / "none.pt2")
    with pytest.raises(SpecError, match="was not exported by perceptkit: it has no manifest"):
        inspect(changed(exported, tmp_path / "m.pt2", extra__perceptkit_dot_json=None))


def test_damaged_files(exported, tmp_path):
    path = tmp_path / "m.pt2"
    for content in (b"", b"hello", exported.read_bytes()[:-2000]):
        path.write_bytes(content)
        with pytest.raises(ExportError, match=r"m\.pt2 is damaged"):
            inspect(path)
    with pytest.raises(ExportError, match="damaged"):
        inspect(changed(exported, path, models__model_dot_json="{"))
    with pytest.raises(ExportError, match=r"damaged: no models/model\.json"):
        inspect(changed(exported, path, models__model_dot_json=None))


@pytest.mark.parametrize(
    "contents",
    [
        {"data__sample_inputs__model_dot_pt": b"\x80\x04N."},
        {"data__weights__model_dot_pt": b"\x80\x04N."},
        {"data__constants__model_constants_config_dot_json": json.dumps(PICKLED)},
    ],
    ids=lambda contents: next(iter(contents)),
)
def test_pickles_are_refused(exported, tmp_path, contents):
    with pytest.raises(ExportError, match="pickle"):
        inspect(changed(exported, tmp_path / "m.pt2", **contents))


@pytest.mark.parametrize(
    "target", ["torch.load", "torch.hub.load", "_operator.x.y", "#ext", "torch.ops.mine.run"]
)
def test_foreign_calls_are_refused(exported, tmp_path, target):
    def change(loaded):
        loaded["graph_module"]["graph"]["nodes"][0]["target"] = target

    with pytest.raises(ExportError, match="it calls"):
        inspect(changed(exported, tmp_path / "m.pt2", models__model_dot_json=program(exported, change)))


def test_code_is_refused(exported, tmp_path):
    def guard(loaded):
        loaded["guards_code"] = ["print(1)"]

    def expression(loaded):
        loaded["graph_module"]["graph"]["expr_str"] = "__import__('os')"

    for change, message in ((guard, "code for guards"), (expression, "the expression")):
        with pytest.raises(ExportError, match=message):
            inspect(changed(exported, tmp_path / "m.pt2", models__model_dot_json=program(exported, change)))


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("Symbol('s40', positive=True, integer=True)", True),
        ("32*Symbol('s1', integer=True) + FloorDiv(Symbol('u0'), 2)", True),
        ("open('s1')", False),
        ("eval('s1')", False),
        ("Symbol('os')", False),
        ("(1).__class__", False),
    ],
)
def test_expressions_of_sizes(text, fine):
    assert _is_of_sizes(text) is fine
