"""What a model is measured with: the data's way to read labels, the model's own meaning and size."""

import pytest

from perceptkit.errors import SpecError
from perceptkit.spec.load import load_tasks
from perceptkit.tasks.table import build_tasks
from perceptkit.train.evaluate_model import declared_tasks, evaluate_forward

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


def test_outputs_are_read_as_the_model_means_them_and_pictures_at_its_size(model, tmp_path):
    """A prediction of 3 m is 3 m, though the data would have a model predict logarithms."""
    import torch

    seen = []

    def three_metres(image_BCHW):
        seen.append(tuple(image_BCHW.shape[2:]))
        B = len(image_BCHW)
        return {
            "depth": torch.full((B, 1, 32, 32), 3.0),
            "room": torch.zeros(B, len(model["room"].labels)),
            "points": torch.zeros(B, model["points"].out_channels, 8, 8),
        }

    normal = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    data = [written(tmp_path), written(tmp_path, "[64, 48]", ", log: true")]
    found = [evaluate_forward(three_metres, model, (32, 32), *normal, spec, "val") for spec in data]
    assert set(seen) == {(32, 32)}
    assert found[0] == found[1] and 0 < found[0]["depth"]["abs_rel"] < 3
