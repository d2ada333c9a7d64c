"""Good files load; names and paths are found; nothing heavy is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from perceptkit.errors import SpecError
from perceptkit.spec.load import load_both, load_recipe, load_tasks
from perceptkit.spec.recipe import Recipe
from perceptkit.spec.shipped import find_spec, list_shipped

REPOSITORY = Path(__file__).parents[2]
EVERY_TYPE = """
version: 1
name: indoor
data:
  source: folder
  root: ../data
  image: images/{split}/{id}.png
  size: [64, 96]
  splits: {train: train, val: val, test: val}
tasks:
  seg:     {type: segmentation, target: seg/{split}/{id}.png, classes: classes.txt, ignore_index: 0}
  depth:   {type: depth, target: depth/{split}/{id}.npy, unit: mm, scale: 1e3, max: 10}
  normals: {type: normals, target: normals/{id}.png, frame: opengl}
  face:    {type: keypoints, target: kp/{split}/{id}.json, names: [l, r], flip_pairs: [[l, r]]}
  corners: {type: keypoints, target: corners/{split}.json, kinds: [corner]}
  edges:   {type: edges, derive: [seg, depth]}
  room:    {type: classification, target: room.csv}
"""


@pytest.fixture
def indoor(tmp_path) -> Path:
    for split in ("train", "val"):
        (tmp_path / "data/images" / split).mkdir(parents=True)
        (tmp_path / "data/images" / split / "1.png").touch()
    (tmp_path / "data/room.csv").write_text("id,label\n1,kitchen\n2,bath\n")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/classes.txt").write_text("wall\nfloor\n")
    (tmp_path / "tasks/indoor.yaml").write_text(EVERY_TYPE)
    return tmp_path


def test_every_type_of_task(indoor):
    spec = load_tasks(indoor / "tasks/indoor.yaml").spec
    assert spec.data.root == indoor / "data"
    assert spec.tasks["seg"].classes == str(indoor / "tasks/classes.txt")
    assert spec.tasks["depth"].scale == 1000


def test_a_class_file_below_the_data_root_comes_first(indoor):
    (indoor / "data/classes.txt").write_text("a\nb\nc\n")
    spec = load_tasks(indoor / "tasks/indoor.yaml").spec
    assert spec.tasks["seg"].classes == str(indoor / "data/classes.txt")


def test_scenes_by_name_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = load_tasks("scenes").spec
    assert list(spec.tasks) == ["seg", "depth", "normals", "keypoints", "edges", "room"]
    assert spec.data.size == (64, 64)


@pytest.mark.parametrize("name", list_shipped("recipes"))
def test_every_shipped_recipe(name):
    assert load_recipe(name).spec.stages


@pytest.mark.parametrize("name", list_shipped("tasks"))
def test_every_shipped_tasks_file(name):
    try:
        load_tasks(name)
    except SpecError as error:  # the pictures of these are made by tools, or downloaded
        assert (
            name
            in (
                "cifar10",
                "decathlon",
                "doom",
                "doom4",
                "freedoom1",
                "toys",
                "toys4",
                "nyuv2",
                "nyuv2_2task",
                "cityscapes",
                "taskonomy",
                "coco",
            )
            and "1 problem" in str(error)
            and "no such folder" in str(error)
        )


def test_a_file_that_exists_wins_over_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("scenes").write_text("x")
    assert find_spec("tasks", "scenes") == Path("scenes")


def test_a_folder_does_not_hide_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("scenes").mkdir()
    assert find_spec("tasks", "scenes").name == "scenes.yaml"
    assert find_spec("tasks", "scenes.yaml").name == "scenes.yaml"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("scnes", "no shipped tasks file called 'scnes'; did you mean 'scenes'?\nShipped tasks: "),
        ("sub/indor.yaml", "there is no file sub/indor.yaml; did you mean 'sub/indoor.yaml'?"),
        ("nowhere/x.yaml", "there is no file nowhere/x.yaml; there is no folder nowhere either"),
        ("sub", "sub is a folder; expected a tasks file (YAML); in it: indoor.yaml"),
        ("", "there is no file and no shipped"),
        ("binary.yaml", "binary.yaml is not UTF-8 text (line 2); save it as UTF-8"),
    ],
)  # fmt: skip
def test_no_such_file(tmp_path, monkeypatch, typed, message):
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    Path("sub/indoor.yaml").touch()
    Path("binary.yaml").write_bytes(b"name: x\n\xff\xfe")
    with pytest.raises(SpecError) as caught:
        load_tasks(typed)
    assert message in str(caught.value) or (typed == "" and "folder" in str(caught.value))


def test_a_file_below_the_working_folder_is_named_from_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("t.yaml").write_text("name: x\n")
    with pytest.raises(SpecError, match=r"^t\.yaml: 2 problems"):
        load_tasks(tmp_path / "t.yaml")


def output_of(code: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=True).stdout.strip()


def test_loading_imports_neither_torch_nor_numpy():
    code = (
        "import sys; from perceptkit.spec.load import load_tasks, load_recipe; load_tasks('scenes');"
        "load_recipe('quickstart'); print({'torch', 'timm', 'numpy', 'albumentations'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    assert done.stdout.strip() == "set()"


def test_checking_files_does_not_import_torch():
    code = "import sys, perceptkit.spec.check_files; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    assert done.stdout.strip() == "False"


def test_a_crop_that_does_not_fit_into_the_picture(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "backbone: {name: resnet18}\nsharing: {method: hard}\naugment: {crop: [64, 96]}\n"
        "stages: [{name: retrain, epochs: 1}]\n"
    )
    with pytest.raises(SpecError, match=r"augment.crop \[64, 96\] does not fit into data.size \[64, 64\]"):
        load_both("scenes", recipe)
    assert load_both("scenes", recipe, ["data.size=[64,96]"])[1].spec.augment.crop == (64, 96)
    assert load_both("scenes", recipe, ["augment.pad=16"])[1].spec.augment.size_HW((64, 64)) == (64, 96)
    with pytest.raises(SpecError, match=r"data.size \[64, 64\] with augment.pad 15 on every side"):
        load_both("scenes", recipe, ["augment.pad=15"])
    resized = load_both("scenes", recipe, ["augment.pad=16", "augment.resize=[32,48]"])[1].spec.augment
    assert resized.size_HW((64, 64)) == (32, 48)
    only_padded = load_both("scenes", recipe, ["augment.pad=2", "augment.crop=null"])[1].spec.augment
    assert only_padded.size_HW((64, 96)) == (68, 100)


def test_reference_pictures_start_from_the_recipe(tmp_path):
    (tmp_path / "r.yaml").write_text(
        "backbone: {name: resnet18}\nsharing: {method: hard}\nstages: [{name: retrain, epochs: 1}]\n"
        "augment: {photometric: [{name: FDA, references: [looks/a.png]}, {name: InvertImg}]}\n"
    )
    first, second = load_recipe(tmp_path / "r.yaml").spec.augment.photometric
    assert first.references == [str(tmp_path / "looks/a.png")] and second.references == []


@pytest.mark.parametrize("change", ["routing.estimator=gumbel", "routing={}", "stages.route.curriculum=none"])
def test_a_resolved_recipe_writes_out_what_its_stages_do_not_read(change):
    stages = "stages=[{name: retrain, epochs: 3}, {name: route, epochs: 1}, {name: finetune, epochs: 1}]"
    spec = load_recipe("blockdrop_cifar10", [stages, change]).spec
    assert Recipe.model_validate(spec.model_dump(mode="json")) == spec
