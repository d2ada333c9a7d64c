"""`--set`: which file it goes to, what it changes, and that the command is blamed for it, not the file."""

from pathlib import Path

import pytest

from perceptkit.errors import SpecError
from perceptkit.spec.load import load_both, load_recipe, load_tasks
from perceptkit.spec.overrides import split_overrides

RECIPE = """
backbone: {name: resnet18, weights: none}
stages:
  - {name: warmup, epochs: 1}
  - {name: search, epochs: 2}
"""
TASKS = "name: x\ndata: {source: scenes}\ntasks:\n  depth: {type: depth}\n"


@pytest.fixture
def files(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE)
    (tmp_path / "t.yaml").write_text(TASKS)
    return tmp_path


def test_split():
    items = ["data.size=[64, 64]", "optim.lr=1e-3", "tasks.d.log=true", "name=y", "stages.0.epochs=1", "junk"]
    assert split_overrides(items) == (
        ["data.size=[64, 64]", "tasks.d.log=true", "name=y"],
        ["optim.lr=1e-3", "stages.0.epochs=1", "junk"],
    )


def test_lists_by_index_and_by_name(files):
    stages = load_recipe("r.yaml", ["stages.0.epochs=5", "stages.search.epochs=6"]).spec.stages
    assert [stage.epochs for stage in stages] == [5, 6]


def test_values_are_yaml(files):
    spec = load_recipe("r.yaml", ["optim.lr=1e-3", "backbone.args={channels: [8, 8]}", "precision=32"]).spec
    assert spec.optim.lr == 1e-3 and spec.backbone.args == {"channels": [8, 8]} and spec.precision == "32"


def test_later_wins_and_whole_parts_can_be_replaced(files):
    items = ["data.seed=1", "data.seed=2", "tasks={only: {type: edges}}", "tasks.only.tolerance=2"]
    spec = load_tasks("t.yaml", items).spec
    assert spec.data.seed == 2 and list(spec.tasks) == ["only"] and spec.tasks["only"].tolerance == 2


def test_text_is_as_typed(files):
    loaded = load_tasks("t.yaml", ["data.seed=1"])
    assert loaded.text == TASKS and loaded.path == files / "t.yaml"


def test_problem_names_the_command(files):
    with pytest.raises(SpecError) as caught:
        load_tasks("t.yaml", ["data.size=3"])
    assert str(caught.value) == (
        "t.yaml: 1 problem\n"
        "  --set data.size=3  data.size  expected a list of 2 values, got the number 3\n"
        "Nothing was started."
    )


def test_an_override_can_mend_a_file(files):
    (files / "t.yaml").write_text(TASKS.replace("scenes}", "scenes, size: 3}"))
    assert load_tasks("t.yaml", ["data.size=[64, 96]"]).spec.data.size == (64, 96)


def test_paths_of_overrides_start_from_the_working_folder(files):
    (files / "sub").mkdir()
    (files / "sub" / "r.yaml").write_text(RECIPE.replace("none", "in_file.safetensors"))
    for name in ("sub/in_file.safetensors", "typed.safetensors"):
        (files / name).touch()
    assert load_recipe("sub/r.yaml").spec.backbone.weights == str(files / "sub/in_file.safetensors")
    typed = load_recipe("sub/r.yaml", ["backbone.weights=typed.safetensors"]).spec
    assert typed.backbone.weights == str(files / "typed.safetensors")


def test_nothing_is_evaluated(files):
    loaded = load_tasks("t.yaml", ["name=__import__", "tasks.depth.max=2"])
    assert loaded.spec.name == "__import__"
    with pytest.raises(SpecError, match=r"expected a number, got the text '1\+1'"):
        load_tasks("t.yaml", ["tasks.depth.max=1+1"])


def test_both_files_report_together(files):
    with pytest.raises(SpecError) as caught:
        load_both("t.yaml", "r.yaml", ["data.seed=x", "seed=x"])
    assert str(caught.value).count("1 problem") == 2 and str(caught.value).count("Nothing was started.") == 1
