"""Drops of metrics by hand, who is lost, and what is said of it."""

from math import inf, nan

import pytest

from perceptkit.compact.quality import OWN_DECISIONS, check_max_drop, compared, drop, lost_tasks, warnings_of
from perceptkit.errors import SpecError
from tests.data.conftest import make_tasks

TASKS = {name: task for name, task in make_tasks().items() if name in ("seg", "depth", "room")}
BEFORE = {"seg": {"miou": 0.5, "pixel_acc": 0.9}, "depth": {"abs_rel": 0.4}, "room": {"top1": nan}}


@pytest.mark.parametrize(
    ("before", "after", "higher", "percent"),
    [
        (0.5, 0.45, True, 10),
        (0.5, 0.55, True, -10),
        (0.4, 0.5, False, 25),
        (0.4, 0.3, False, -25),
        (-2.0, -3.0, True, 50),
        (0.0, 0.0, True, 0),
        (0.0, 0.1, True, 0),
        (0.0, 0.1, False, inf),
        (nan, nan, True, 0),  # no label
        (0.5, nan, True, inf),
    ],
)
def test_drop_by_hand(before, after, higher, percent):
    assert drop(before, after, higher) == pytest.approx(percent)


def test_the_primary_metric_decides_and_the_worst_comes_first():
    after = {"seg": {"miou": 0.45, "pixel_acc": 0.1}, "depth": {"abs_rel": 0.6}, "room": {"top1": nan}}
    found = lost_tasks(BEFORE, after, TASKS, 5)
    assert list(found) == ["depth", "seg"] and found == pytest.approx({"depth": 50, "seg": 10})
    assert list(lost_tasks(BEFORE, after, TASKS, 10)) == ["depth"]  # 10 % is allowed where 10 % is
    assert lost_tasks(BEFORE, after, TASKS, 50) == {}
    assert lost_tasks(BEFORE, {**BEFORE, "seg": {"miou": 0.5, "pixel_acc": 0}}, TASKS, 0) == {}


def test_the_record():
    after = {"seg": {"miou": 0.4, "pixel_acc": 0.9}, "depth": {"abs_rel": 0.4}, "room": {"top1": nan}}
    told = compared(BEFORE, after, TASKS, ("float32", "fp16"), 5)
    assert told["ok"] is False and told["max_drop"] == 5
    assert told["lost"]["seg"].pop("drop") == pytest.approx(20)
    assert told["lost"] == {"seg": {"metric": "miou", "float32": 0.5, "fp16": 0.4}}
    assert told["accuracy"]["depth"] == {"abs_rel": {"float32": 0.4, "fp16": 0.4}}
    assert told["accuracy"]["seg"]["pixel_acc"] == {"float32": 0.9, "fp16": 0.9}
    fine = compared(BEFORE, BEFORE, TASKS, ("float32", "fp16"), 0)
    assert fine["ok"] is True and fine["lost"] == {} and warnings_of(fine | {"precision": "fp16"}) == []


@pytest.mark.parametrize(
    ("precision", "remedy", "not_said"),
    [
        ("int8", "calibrate on more pictures (--pictures, 200 now), or keep it in float32", "bf16"),
        ("fp16", "use --precision bf16, whose range is float32's, or keep it in float32", "pictures"),
        (
            "bf16",
            "--max-drop: keep it in float32 in a file of its own (--per-task without --precision)",
            "int8",
        ),
    ],
)
def test_the_warning_names_task_figures_and_remedy(precision, remedy, not_said):
    after = {"seg": {"miou": 0.4, "pixel_acc": 0.9}, "depth": {"abs_rel": 0.4}, "room": {"top1": nan}}
    told = compared(BEFORE, after, TASKS, ("float32", precision), 5)
    (line,) = warnings_of({**told, "precision": precision, "calibrated_on": {"pictures": 200}})
    assert line.startswith(
        f"in {precision} seg loses 20.0 % of its miou (0.5000 -> 0.4000), more than the 5 % of --max-"
    )
    assert remedy in line and not_said not in line


@pytest.mark.parametrize(("nearest", "remedy"), [(True, ", or drop --nearest"), (False, "(1 networks now)")])
def test_a_codebook_that_drops_blocks(nearest, remedy):
    after = {"seg": {"miou": 0.4, "pixel_acc": 0.9}, "depth": {"abs_rel": 0.4}, "room": {"top1": nan}}
    told = compared(BEFORE, after, TASKS, OWN_DECISIONS, 5)
    assert told["accuracy"]["seg"]["miou"] == {"own decisions": 0.5, "codebook": 0.4} and not told["ok"]
    entry = {**told, "dynamic_skip": "codebook", "precision": "32"}
    (line,) = warnings_of(entry | {"codebook": {"policies": 1, "nearest": nearest}})
    assert line.startswith("in codebook seg loses 20.0 % of its miou (0.5000 -> 0.4000)")
    assert line.endswith(remedy) and "give more --policies" in line


def test_nothing_left_of_nothing():
    """A drop that is no number is null in JSON, and a metric too."""
    told = compared({"depth": {"abs_rel": 0.0}}, {"depth": {"abs_rel": 0.2}}, TASKS, ("float32", "bf16"), 5)
    assert told["lost"]["depth"]["drop"] is None
    (line,) = warnings_of({**told, "precision": "bf16"})
    assert line.startswith("in bf16 depth loses all of its abs_rel (0.0000 -> 0.2000)")
    assert warnings_of({"format": "onnx", "precision": "32"}) == []


@pytest.mark.parametrize("percent", [-0.1, nan])
def test_a_percentage(percent):
    assert check_max_drop(0) == 0 and check_max_drop(250.0) == 250
    with pytest.raises(SpecError, match="--max-drop is a percentage, 0 or more"):
        check_max_drop(percent)
