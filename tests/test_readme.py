"""What README.md and docs/results.md say, tried: commands parse, links lead somewhere, the YAML loads, the error
is printed, the Python names exist."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import yaml

import perceptkit as pk
from perceptkit.cli import main, make_parser
from perceptkit.spec.recipe import Recipe
from perceptkit.spec.several import parts, weights
from perceptkit.spec.tasks_file import TasksFile

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "docs/results.md").read_text(encoding="utf-8")


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    shown = [*blocks("console"), *blocks(""), *blocks("console", RESULTS)]
    lines = [line for block in shown for line in block.splitlines()]
    inline = re.findall(r"`(perceptkit [^`]*)`", README + RESULTS)
    return [line for line in [*lines, *inline] if line.startswith("perceptkit ")]


@pytest.mark.parametrize("command", commands())
def test_commands_parse(command):
    arguments = shlex.split(command, comments=True)[1:]
    if arguments != ["--help"]:
        assert callable(make_parser().parse_args(arguments).run)


def test_there_are_commands():
    verbs = {shlex.split(command)[1] for command in commands()}
    assert {"init", "check", "describe", "train", "report", "predict", "export", "schema"} <= verbs


def test_make_targets_and_scripts_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^make (\w+)", README, re.MULTILINE))
    assert {"demo", "test"} <= targets
    assert all(f"\n{target}: " in makefile for target in targets)
    for script in set(re.findall(r"tools/\w+\.py", README + RESULTS)):
        assert (ROOT / script).is_file(), script


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_links_lead_somewhere(page):
    path = ROOT / page
    for target, section in re.findall(r"\]\(([^)#]*)(?:#([^)]+))?\)", path.read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            linked = path.parent / target if target else path
            assert linked.exists(), target
            assert not section or section in anchors(linked), f"{target}#{section}"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_tasks_file_is_one():
    text, *_ = blocks("yaml")
    assert list(TasksFile.model_validate(yaml.safe_load(text)).tasks) == [
        "seg", "depth", "normals", "corners", "edges", "room",
    ]  # fmt: skip


def test_the_sources_are_such():
    _, text, *_ = blocks("yaml")
    kinds = {"seg": "segmentation", "depth": "depth", "weather": "classification"}
    tasks = {task: {"type": kind} for task, kind in kinds.items()}
    spec = TasksFile.model_validate({"name": "two", "tasks": tasks} | yaml.safe_load(text))
    assert {name: list(part.tasks) for name, part in parts(spec).items()} == {
        "rooms": ["seg", "depth"],
        "street": ["weather"],
    }
    assert parts(spec)["rooms"].tasks["depth"].scale == 1000 and weights(spec) == {"rooms": 3, "street": 1}


def test_the_sections_of_a_recipe_are_such():
    _, _, balance, text = blocks("yaml")
    common = {"backbone": {"name": "resnet18"}, "sharing": {"method": "hard"}}
    stages = {"stages": [{"name": "retrain", "epochs": 1}]}
    assert Recipe.model_validate(common | stages | yaml.safe_load(balance)).balance.method == "uncertainty"
    loaded = yaml.safe_load(text)
    recipe = Recipe.model_validate({**common, **loaded})
    assert recipe.routing is not None and recipe.routing.gamma == 0.4
    # the paper's estimator, as the sentence below says
    del loaded["routing"]["gamma"]
    loaded["routing"] |= {"estimator": "reinforce", "max_drop": "1%"}
    loaded["stages"].insert(1, {"name": "route", "epochs": 8})
    recipe = Recipe.model_validate({**common, **loaded})
    assert recipe.routing is not None and recipe.routing.max_drop == 0.01


def test_the_error_is_what_is_printed(tmp_path, monkeypatch, capsys):
    text, *_ = blocks("yaml")
    broken = text.replace("classes: classes.txt}", "classes: 12, ignore_indx: 0}").replace(
        "type: depth", "type: dpeth"
    )
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/indoor.yaml").write_text(broken, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["check", "tasks/indoor.yaml"]) == 2
    printed = capsys.readouterr().err.strip()
    assert printed in README


def test_python_names_exist():
    (code,) = blocks("python")
    used = {
        node.attr
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pk"
    }
    assert used == {"train", "load", "build"} and all(callable(getattr(pk, name)) for name in used)
