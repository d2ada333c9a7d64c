"""Steps as whole epochs: what is counted, how it is rounded, and what cannot be both."""

import pytest

from perceptkit.data.loader import split_indices
from perceptkit.spec.load import load_both, load_recipe
from perceptkit.spec.problems import SpecProblems
from perceptkit.spec.recipe import RetrainStage, SearchStage
from perceptkit.spec.stage_steps import count_pictures, steps_of_epoch
from perceptkit.spec.tasks_file import TasksFile
from perceptkit.train.turns import turns
from tests.layout_files import write_nyuv2
from tests.listed_files import write_class_folders

RECIPE = """\
backbone: {name: resnet18, weights: none}
stages:
  - {name: warmup, steps: 25}
  - {name: search, steps: 30, policy_fraction: 0.25}
  - {name: retrain, epochs: 3}
loader: {batch: 4}
"""
SCENES = "name: t\ndata: {source: scenes, count: {train: 43, val: 9}}\ntasks: {seg: {type: segmentation}}\n"


@pytest.fixture
def files(tmp_path):
    (tmp_path / "t.yaml").write_text(SCENES)
    (tmp_path / "r.yaml").write_text(RECIPE)
    return tmp_path / "t.yaml", tmp_path / "r.yaml"


def epochs(files, *overrides):
    stages = load_both(*files, overrides)[1].spec.stages
    assert all(stage.steps is None for stage in stages)
    return [stage.epochs for stage in stages]


def test_rounded_to_whole_epochs(files):
    # warm-up: 43 // 4 = 10 steps an epoch, 2.5 epochs (to even); search: 32 // 4 + 11 // 4 = 8 + 2, 3 epochs
    assert epochs(files) == [2, 3, 3]
    assert epochs(files, "stages.warmup.steps=26") == [3, 3, 3]
    assert epochs(files, "stages.warmup.steps=1", "stages.search.batch=1") == [1, 1, 3]
    # 52 pictures: 13 steps; 39 // 4 + 13 // 4 = 9 + 3
    assert epochs(files, "data.train_on=[train,val]", "stages.search.steps=36") == [2, 3, 3]


def test_the_ranks_share_the_steps(files, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert epochs(files) == [5, 6, 3]  # 25 / 5; 32 // 8 + 11 // 8 = 4 + 1


@pytest.mark.parametrize("fraction", [0.2, 0.25, 0.5, 0.999])
def test_the_parts_of_a_search_are_those_of_the_loop(fraction):
    stage = SearchStage(name="search", epochs=1, policy_fraction=fraction)
    for num_train in (37, 795, 1000):
        policy, weights = split_indices(num_train, fraction, 0)
        assert steps_of_epoch(stage, num_train, 4) == len(policy) // 4 + len(weights) // 4
    for turn in ((4, 1), (3, 2), (400, 100)):
        by_steps = stage.model_copy(update={"alternate": "steps", "turn_steps": turn})
        for num_train in (37, 795, 1000):
            of_loop = sum(t.steps for t in turns(by_steps, num_train, 4, 0))
            assert steps_of_epoch(by_steps, num_train, 4) == of_loop
    assert steps_of_epoch(RetrainStage(name="retrain", epochs=1), 37, 4) == 9


def test_pictures_of_every_source(tmp_path):
    def count(data, task="{type: segmentation, classes: 40}"):
        (tmp_path / "t.yaml").write_text(f"name: t\ndata: {{{data}}}\ntasks: {{a: {task}}}\n")
        loaded, _ = load_both(tmp_path / "t.yaml", "quickstart")
        return count_pictures(loaded.spec, "train")

    write_nyuv2(tmp_path / "nyu")
    write_class_folders(tmp_path / "classes", each=3)
    assert count("source: nyuv2, root: nyu, size: [32, 32]") == 4
    classes = "source: imagefolder, root: classes, size: [32, 32]"
    assert count(classes, "{type: classification}") == 6
    assert count(f"{classes}, limit: 5", "{type: classification}") == 5
    pictures = 'source: folder, root: classes, image: "{split}/cat/{id}.png", size: [32, 32]'
    assert count(pictures, '{type: depth, target: "{split}/d/{id}.png"}') == 3
    scenes = TasksFile.model_validate(
        {"name": "s", "data": {"source": "scenes"}, "tasks": {"seg": {"type": "segmentation"}}}
    )
    assert count_pictures(scenes, "val") == 200


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("{name: retrain}", "missing key: passes over the train split; or 'steps'"),
        ("{name: retrain, epochs: 2, steps: 3}", "give either 'epochs' or 'steps', not both"),
    ],
)
def test_one_of_both(tmp_path, stage, message):
    (tmp_path / "r.yaml").write_text(
        f"backbone: {{name: resnet18}}\nsharing: {{method: hard}}\nstages: [{stage}]\n"
    )
    with pytest.raises(SpecProblems) as caught:
        load_recipe(tmp_path / "r.yaml")
    assert message in str(caught.value) and len(caught.value.problems) == 1
