"""What a model is measured with: the data's way to read labels, the model's own meaning and size."""

import numpy as np
import pytest
import torch
from PIL import Image

from perceptkit.errors import SpecError
from perceptkit.spec.load import load_tasks
from perceptkit.tasks.table import build_tasks
from perceptkit.train.evaluate_model import declared_tasks, evaluate_forward, narrowed, sample_images

TASKS = """\
version: 1
name: eval
data: {{source: scenes, size: {size}, count: {{train: 2, val: 2, test: 2}}}}
tasks:
  depth: {{type: depth{depth}}}
  room: {{type: classification}}
  points: {{type: keypoints}}
"""


def written(folder, size="[32, 32]", depth=""):
    path = folder / "eval.yaml"
    path.write_text(TASKS.format(size=size, depth=depth))
    return load_tasks(path).spec


@pytest.fixture
def model(tmp_path):
    return build_tasks(written(tmp_path))


@pytest.mark.parametrize(("task", "key", "value"), [("depth", "unit", "cm"), ("room", "multi_label", True)])
def test_another_meaning_under_the_same_name_is_refused(model, tmp_path, task, key, value):
    data = written(tmp_path)
    changed = data.tasks | {task: data.tasks[task].model_copy(update={key: value})}
    with pytest.raises(
        SpecError, match=f"task '{task}': the model's {key} is .*, that of the data {value!r}"
    ):
        declared_tasks(model, data.model_copy(update={"tasks": changed}))


def test_points_of_another_mode_are_refused(tmp_path):
    for split in ("train", "val", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "1.png").touch()
    data = "{source: folder, root: ., image: '{split}/{id}.png', size: [32, 32]}"
    made = []
    for mode in ("names", "kinds"):
        path = tmp_path / f"{mode}.yaml"
        task = f"{{type: keypoints, target: '{{split}}.json', {mode}: [a, b]}}"
        path.write_text(f"version: 1\nname: x\ndata: {data}\ntasks: {{points: {task}}}\n")
        made.append(load_tasks(path).spec)
    with pytest.raises(SpecError, match="the model's kinds is None, that of the data"):
        declared_tasks(build_tasks(made[0]), made[1])


def test_how_labels_are_read_is_the_data_s_business(model, tmp_path):
    data = written(tmp_path, depth=", log: true, max: 7")
    assert set(declared_tasks(model, data)) == {"depth", "room", "points"}


def of_zeros(tasks):
    """A model that answers 0 everywhere, at a size of 32 x 32; it has no other output."""
    sides = {"keypoints": (8, 8), "classification": ()}
    return lambda image_BCHW: {
        name: torch.zeros(len(image_BCHW), task.out_channels, *sides.get(task.type, (32, 32)))
        for name, task in tasks.items()
    }


NORMAL = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_tasks_that_only_the_model_or_only_the_data_have_are_left_out(model, tmp_path):
    data = written(tmp_path)
    alone = {"room": model["room"]}
    assert list(declared_tasks(alone, data)) == ["room"]
    found = evaluate_forward(of_zeros(alone), alone, (32, 32), *NORMAL, data, "val")
    whole = evaluate_forward(of_zeros(model), model, (32, 32), *NORMAL, data, "val")
    assert list(found) == ["room"] and found["room"] == whole["room"]
    narrow = narrowed(data, ["room"])
    assert evaluate_forward(of_zeros(model), model, (32, 32), *NORMAL, narrow, "val") == found


def test_nothing_in_common_is_refused_with_both_lists(model, tmp_path):
    with pytest.raises(
        SpecError, match="no task in common: the model has depth; the data declare room, points"
    ):
        declared_tasks({"depth": model["depth"]}, narrowed(written(tmp_path), ["room", "points"]))


def test_derived_edges_are_measured_though_the_model_has_not_what_they_derive_from(tmp_path):
    for split in ("train", "val", "test"):
        (tmp_path / split).mkdir()
        Image.new("RGB", (32, 32)).save(tmp_path / split / "1.png")
        half = np.repeat(np.uint8([0, 1]), 16)[None].repeat(32, 0)
        Image.fromarray(half).save(tmp_path / split / "1_seg.png")
    (tmp_path / "x.yaml").write_text(
        "version: 1\nname: x\n"
        "data: {source: folder, root: ., image: '{split}/{id}.png', size: [32, 32]}\n"
        "tasks:\n  seg: {type: segmentation, target: '{split}/{id}_seg.png', classes: 2}\n"
        "  edges: {type: edges, derive: [seg]}\n"
    )
    data = load_tasks(tmp_path / "x.yaml").spec
    alone = {"edges": build_tasks(data)["edges"]}
    found = evaluate_forward(of_zeros(alone), alone, (32, 32), *NORMAL, data, "val")
    assert found["edges"]["l1"] == 0.5


def test_pictures_alone_need_no_label(tmp_path):
    data = written(tmp_path)
    images = list(sample_images(data, "train", (32, 32), *NORMAL, 200))
    assert [tuple(image.shape) for image in images] == [(2, 3, 32, 32)]


def test_outputs_are_read_as_the_model_means_them_and_pictures_at_its_size(model, tmp_path):
    """A prediction of 3 m is 3 m, though the data would have a model predict logarithms."""
    seen = []

    def three_metres(image_BCHW):
        seen.append(tuple(image_BCHW.shape[2:]))
        B = len(image_BCHW)
        return {
            "depth": torch.full((B, 1, 32, 32), 3.0),
            "room": torch.zeros(B, len(model["room"].labels)),
            "points": torch.zeros(B, model["points"].out_channels, 8, 8),
        }

    data = [written(tmp_path), written(tmp_path, "[64, 48]", ", log: true")]
    found = [evaluate_forward(three_metres, model, (32, 32), *NORMAL, spec, "val") for spec in data]
    assert set(seen) == {(32, 32)}
    assert found[0] == found[1] and 0 < found[0]["depth"]["abs_rel"] < 3
