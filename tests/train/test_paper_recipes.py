"""The recipes with AdaShare's settings: each passes `check` and a dry run on pictures in the layout that it is for."""

import pytest

from perceptkit.cli import main
from perceptkit.spec.load import load_both
from perceptkit.spec.stage_steps import steps_of_epoch
from tests.layout_files import (
    write_cityscapes_mtan,
    write_cityscapes_official,
    write_nyuv2,
    write_nyuv2_mtan,
    write_taskonomy,
)

PAIRS = {
    "nyuv2": ("nyuv2_adashare", write_nyuv2),
    "nyuv2_2task": ("nyuv2_2task_adashare", write_nyuv2),
    "cityscapes": ("cityscapes_adashare", lambda root: write_cityscapes_mtan(root, lists=True)),
    "taskonomy": ("taskonomy_adashare", write_taskonomy),
}
REFERENCE = ["data.splits={train: train, val: test, test: test}"]
COMPAT = {
    "nyuv2": ("seg", "normals", "depth"),
    "nyuv2_2task": ("seg", "normals"),
    "cityscapes": ("seg", "depth"),
    "taskonomy": ("seg", "normals", "depth", "points", "edges"),
}
# a network and pictures that a CPU trains in seconds; all else is the recipe's own
SMALL = (
    "backbone.name=test_resnet heads.channels=8 data.size=[64,96] augment.crop=[64,64] loader.batch=1 "
    "loader.workers=0"
).split()


def files(folder, tasks, protocol):
    """Writes the pictures; gives the recipe and what `--set` is told."""
    recipe, write = PAIRS[tasks]
    write(folder / "data")
    changes = [f"data.root={folder / 'data'}"]
    if protocol == "reference":
        changes += REFERENCE + [f"tasks.{task}.compat=adashare" for task in COMPAT[tasks]]
        changes += ["tasks.normals.encoding=raw_u8"] if tasks.startswith("nyuv2") else []
    return recipe, changes


@pytest.mark.parametrize("tasks", PAIRS)
@pytest.mark.parametrize("protocol", ["correct", "reference"])
def test_check(tmp_path, capsys, tasks, protocol):
    recipe, changes = files(tmp_path, tasks, protocol)
    assert main(["check", tasks, "--recipe", recipe, "--set", *changes]) == 0, capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("tasks", PAIRS)
@pytest.mark.parametrize("protocol", ["correct", "reference"])
def test_dry_run(tmp_path, capsys, tasks, protocol):
    recipe, changes = files(tmp_path, tasks, protocol)
    command = ["train", tasks, "--recipe", recipe, "--dry-run", "--set", *changes, *SMALL]
    assert main(command) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("tasks", "write", "changes"),
    [
        (
            "nyuv2",
            write_nyuv2_mtan,
            "data.layout=mtan data.size=[288,384] tasks.seg.classes=13 tasks.seg.ignore_index=-1",
        ),
        ("cityscapes", write_cityscapes_mtan, "data.layout=mtan data.hold_out=10%"),
        ("cityscapes", write_cityscapes_official, "data.layout=official data.hold_out=10%"),
        ("cityscapes", write_cityscapes_mtan, "data.layout=mtan data.hold_out=10% tasks.seg.classes=7"),
        ("taskonomy", lambda root: write_taskonomy(root, hosted=True), ""),
    ],
)
def test_the_other_layouts_that_the_headers_name(tmp_path, capsys, tasks, write, changes):
    write(tmp_path / "data")
    changes = [f"data.root={tmp_path / 'data'}", *changes.split()]
    assert main(["check", tasks, "--set", *changes]) == 0, capsys.readouterr().out


def test_published_iterations_in_epochs(tmp_path):
    """Rounded to the nearest epoch: less than half of one is missing or too much."""
    write_nyuv2(tmp_path / "data")
    changes = [f"data.root={tmp_path / 'data'}", "loader.batch=1", "data.train_on=[train,val]"]
    stages = load_both("nyuv2", "nyuv2_adashare", changes)[1].spec.stages
    # six pictures of train, one a step: 4000 / 6; of the search five a turn and one
    assert [stage.epochs for stage in stages] == [667, 2667, 3333]
    for stage, steps in zip(stages, (4000, 16000, 20000), strict=True):
        assert abs(stage.epochs * steps_of_epoch(stage, 6, 1) - steps) <= 3
