"""Run folders: atomic writes, refusal of full folders and of changed keys."""

import os

import pytest
import torch
from safetensors.torch import save_file

from perceptkit.errors import ResumeError, SpecError
from perceptkit.spec.recipe import Recipe
from perceptkit.spec.tasks_file import TasksFile
from perceptkit.train import run_folder

TASKS = TasksFile.model_validate(
    {"name": "t", "data": {"source": "scenes"}, "tasks": {"depth": {"type": "depth"}}}
)
RECIPE = Recipe.model_validate(
    {
        "backbone": {"name": "resnet18", "weights": "none"},
        "sharing": {"method": "hard"},
        "stages": [{"name": "retrain", "epochs": 1}],
    }
)


def start(run):
    run_folder.start(run, TASKS, RECIPE, "tasks: as typed", "recipe: as typed", seed=0)


def test_start_keeps_the_files_as_typed_and_resolved(tmp_path):
    start(tmp_path / "run")
    assert (tmp_path / "run/tasks.yaml").read_text() == "tasks: as typed"
    assert run_folder.read_resolved(tmp_path / "run") == (TASKS, RECIPE)


def test_a_full_folder_is_refused_and_the_way_out_is_named(tmp_path):
    start(tmp_path / "run")
    with pytest.raises(SpecError, match="--resume --out"):
        start(tmp_path / "run")


def test_changed_keys_are_named(tmp_path):
    start(tmp_path / "run")
    run_folder.refuse_changes(tmp_path / "run", TASKS, RECIPE)
    changed = RECIPE.model_copy(update={"optim": RECIPE.optim.model_copy(update={"lr": 0.5})})
    with pytest.raises(ResumeError, match=r"recipe\.optim\.lr: 0\.001 -> 0\.5"):
        run_folder.refuse_changes(tmp_path / "run", TASKS, changed)


def test_what_changes_no_step_may_change(tmp_path):
    start(tmp_path / "run")
    loader = RECIPE.loader.model_copy(update={"workers": 1})
    run_folder.refuse_changes(tmp_path / "run", TASKS, RECIPE.model_copy(update={"loader": loader}))
    loader = RECIPE.loader.model_copy(update={"batch": 1})
    with pytest.raises(ResumeError, match=r"recipe\.loader\.batch: 16 -> 1"):
        run_folder.refuse_changes(tmp_path / "run", TASKS, RECIPE.model_copy(update={"loader": loader}))


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_mode_that_the_umask_says_whoever_writes_them(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        path = tmp_path / "base.safetensors"
        run_folder.write_atomically(path, lambda temporary: save_file({"a": torch.zeros(1)}, temporary))
        assert path.stat().st_mode & 0o777 == mode
    finally:
        os.umask(before)


def test_where_the_base_lies_is_written_down_as_seen_from_the_run(tmp_path):
    recipe = RECIPE.model_copy(update={"start_from": str(tmp_path / "base")})
    run_folder.start(tmp_path / "runs/new", TASKS, recipe, "", "", seed=0, base_digest="abc")
    path, digest = run_folder.read_base(tmp_path / "runs/new")
    assert path.resolve() == (tmp_path / "base").resolve() and digest == "abc"
    moved = recipe.model_copy(update={"start_from": "elsewhere"})
    run_folder.refuse_changes(tmp_path / "runs/new", TASKS, moved)
    start(tmp_path / "alone")
    assert run_folder.read_base(tmp_path / "alone") == (None, "")


def test_changed_keys_by_hand():
    old = {"a": 1, "b": [1, {"c": 2}], "gone": 0}
    new = {"a": 1, "b": [1, {"c": 3}], "new": None}
    assert run_folder.changed_keys(old, new) == ["b.1.c: 2 -> 3", "gone: 0 -> None"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    run_folder.write_text(path, "old")

    def fail(temporary):
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError):
        run_folder.write_atomically(path, fail)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_no_run_folder(tmp_path):
    with pytest.raises(ResumeError, match="holds no run"):
        run_folder.read_resolved(tmp_path)
