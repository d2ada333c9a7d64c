"""What every task type must do, whichever it is; and how a tasks file becomes tasks."""

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from perceptkit.spec.tasks_file import TASK_SPECS, TasksFile, TaskSpec
from perceptkit.tasks.base import Task
from perceptkit.tasks.table import TASKS, build_tasks

H, W = 32, 48
NAMES = [f"name {i}" for i in range(7)]
DECLARED = {
    "segmentation": {"type": "segmentation"},
    "depth": {"type": "depth"},
    "log_depth": {"type": "depth", "log": True},
    "normals": {"type": "normals"},
    "named_points": {"type": "keypoints", "names": NAMES},
    "point_kinds": {"type": "keypoints", "kinds": NAMES},
    "edges": {"type": "edges"},
    "classification": {"type": "classification"},
    "multi_label": {"type": "classification", "multi_label": True},
}


@pytest.fixture(params=DECLARED)
def task(request) -> Task:
    spec = TypeAdapter(TaskSpec).validate_python(DECLARED[request.param])
    return TASKS[spec.type](request.param, spec, NAMES)


def random_target(task: Task, generator: torch.Generator) -> torch.Tensor:
    """(1, ...): a target with about a fifth of its elements unlabelled."""
    target = torch.from_numpy(task.missing((H, W)))[None].clone()
    some = torch.rand(1, *target.shape[-2:], generator=generator) < 0.8 if task.dense else None
    if task.type == "segmentation":
        target[some] = torch.randint(len(NAMES), target.shape, generator=generator)[some]
    elif task.type == "depth":
        target[:, 0][some] = 1 + 9 * torch.rand(1, H, W, generator=generator)[some]
    elif task.type == "normals":
        vectors = torch.nn.functional.normalize(torch.randn(1, 3, H, W, generator=generator), dim=1)
        target = vectors * some[:, None]
    elif task.type == "edges":
        target[:, 0][some] = (torch.rand(1, H, W, generator=generator) < 0.1).float()[some]
    elif task.type == "keypoints":
        xy = torch.rand(1, 5, 2, generator=generator) * torch.tensor([W - 1, H - 1])
        target = torch.zeros_like(target) if task.name == "named_points" else target.fill_(-1)
        target[:, :5, :2], target[:, :5, 2] = xy, torch.tensor([2, 1, 2, 2, 2])
    elif task.name == "multi_label":
        target = (torch.rand(target.shape, generator=generator) < 0.5).float()
    else:
        target = torch.randint(len(NAMES), (1,), generator=generator)
    return target


def random_output(task: Task, batch: int, generator: torch.Generator) -> torch.Tensor:
    stride = 1 if task.upsample else 4
    shape = (H // stride, W // stride) if task.dense else ()
    return torch.randn(batch, task.out_channels, *shape, generator=generator)


def batch_of(task: Task, rng: torch.Generator, size: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    return random_output(task, size, rng), torch.cat([random_target(task, rng) for _ in range(size)])


def missing(task: Task, size: int = 1) -> torch.Tensor:
    return torch.stack([torch.from_numpy(task.missing((H, W)))] * size)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(float(a[k]) == pytest.approx(float(b[k]), rel=1e-5) for k in a)


def measured(task: Task, output: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
    metric = task.metric()
    metric.update(output, target)
    return metric.compute()


def test_every_spec_has_a_task():
    assert TASKS.keys() == TASK_SPECS.keys()


def test_metric_keys_are_declared(task, rng):
    found = measured(task, *batch_of(task, rng))
    assert found.keys() == task.metric_info.keys() and task.primary in found
    assert all(value.ndim == 0 and value.isfinite() for value in found.values())


def test_shares_are_fractions(task, rng):
    found = measured(task, *batch_of(task, rng))
    shares = {name: v for name, v in found.items() if task.metric_info[name].higher_is_better}
    assert all(0 <= value <= 1 for value in shares.values())


def test_nothing_labelled_is_zero_loss_and_nan_metrics(task, rng):
    output = random_output(task, 3, rng).requires_grad_()
    target = missing(task, 3)
    loss = task.loss(output, target)
    loss.backward()
    assert loss.item() == 0
    assert output.grad is not None and not output.grad.any()
    assert not task.is_labelled(target).any()
    assert task.quality(output.detach(), target).isnan().all()
    assert all(value.isnan() for value in measured(task, output.detach(), target).values())


@pytest.mark.parametrize("seed", range(5))
def test_an_unlabelled_image_changes_nothing(task, seed):
    rng = torch.Generator().manual_seed(seed)
    output, target = batch_of(task, rng, size=3)
    more_output = torch.cat([output[:1], 50 * random_output(task, 1, rng), output[1:]])
    more_target = torch.cat([target[:1], missing(task), target[1:]])
    assert task.loss(more_output, more_target).item() == pytest.approx(
        task.loss(output, target).item(), rel=1e-5
    )
    assert same(measured(task, more_output, more_target), measured(task, output, target))
    quality = task.quality(more_output, more_target)
    assert torch.allclose(quality[[0, 2, 3]], task.quality(output, target)) and quality[1].isnan()
    assert task.is_labelled(more_target).tolist() == [True, False, True, True]


def test_no_gradient_where_nothing_is_labelled(task, rng):
    output, target = batch_of(task, rng, size=2)
    output.requires_grad_()
    target[1] = missing(task)[0]
    task.loss(output, target).backward()
    assert output.grad is not None
    assert output.grad[0].any() and not output.grad[1].any() and output.grad.isfinite().all()


def test_one_update_or_two(task, rng):
    output, target = batch_of(task, rng)
    metric = task.metric()
    metric.update(output[:1], target[:1])
    metric.update(output[1:], target[1:])
    assert same(metric.compute(), measured(task, output, target))


def test_states_of_two_ranks_add_up(task, rng):
    output, target = batch_of(task, rng)
    first, second = task.metric(), task.metric()
    first.update(output[:1], target[:1])
    second.update(output[1:], target[1:])
    first.merge_state(second)
    assert same(first.compute(), measured(task, output, target))


def test_losses_are_float32_for_half_outputs(task, rng):
    output, target = batch_of(task, rng)
    loss = task.loss(output.bfloat16(), target)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(task.loss(output.bfloat16().float(), target).item(), rel=1e-5)


def test_quality_is_in_range(task, rng):
    quality = task.quality(*batch_of(task, rng))
    assert quality.shape == (4,) and ((quality >= 0) & (quality <= 1)).all()


def test_head_gives_the_declared_channels(task):
    feature = torch.randn(2, 16, 8, 12) if task.dense else torch.randn(2, 16)
    output = task.head(16)(feature)
    assert output.shape[:2] == (2, task.out_channels) and output.ndim == feature.ndim


def test_the_output_is_described_in_one_line(task, rng):
    shape, _, meaning = task.output_in_words.partition("): ")
    assert shape.startswith(f"(batch, {task.out_channels}") and meaning and "\n" not in meaning
    assert shape.count(",") + 1 == random_output(task, 1, rng).ndim


def test_constant_output_can_be_measured(task, rng):
    _, target = batch_of(task, rng)
    constant = task.constant_output(iter([target, missing(task)]), (H, W))
    assert constant.shape == random_output(task, 1, rng).shape
    found = measured(task, constant.expand(4, *constant.shape[1:]), target)
    assert all(value.isfinite() for value in found.values())


@pytest.mark.parametrize("size_HW", [(H, W), (61, 40)])
def test_predictions_are_drawn_at_the_size_of_the_picture(task, rng, size_HW):
    image = np.full((*size_HW, 3), 90, np.uint8)
    drawn = task.draw(image, task.decode(random_output(task, 1, rng), size_HW, (H, W)))
    assert drawn.shape == (*size_HW, 3) and drawn.dtype == np.uint8
    assert (image == 90).all()


def test_labels_are_drawn_too(task, rng):
    image = np.full((H, W, 3), 90, np.uint8)
    for target in (random_target(task, rng)[0], missing(task)[0]):
        drawn = task.draw(image, task.as_prediction(target, (H, W)))
        assert drawn.shape == (H, W, 3) and drawn.dtype == np.uint8


def test_label_and_prediction_have_the_same_keys(task, rng):
    prediction = task.decode(random_output(task, 1, rng), (H, W), (H, W))
    assert task.as_prediction(random_target(task, rng)[0], (H, W)).values.keys() == prediction.values.keys()


def test_build_tasks_resolves_names(tmp_path):
    (tmp_path / "classes.txt").write_text("wall\nfloor\n")
    (tmp_path / "room.csv").write_text("id,label\n1,hall\n2,bath\n")
    tasks_file = TasksFile.model_validate(
        {
            "name": "flat",
            "data": {"source": "folder", "root": str(tmp_path), "image": "{id}.png", "size": [64, 64]},
            "tasks": {
                "seg": {"type": "segmentation", "target": "{id}.png", "classes": "classes.txt"},
                "z": {"type": "depth", "target": "{id}.png", "unit": "mm"},
                "kp": {"type": "keypoints", "target": "{id}.json", "kinds": ["corner"]},
                "room": {"type": "classification", "target": "room.csv"},
            },
        }
    )
    tasks = build_tasks(tasks_file)
    assert list(tasks) == ["seg", "z", "kp", "room"]
    assert {name: task.labels for name, task in tasks.items()} == {
        "seg": ["wall", "floor"],
        "z": [],
        "kp": ["corner"],
        "room": ["bath", "hall"],
    }
    assert tasks["z"].unit == "mm"
    assert build_tasks(tasks_file, {"seg": ["a", "b", "c"]})["seg"].labels == ["a", "b", "c"]


def test_build_tasks_of_scenes():
    scene_labels = pytest.importorskip("perceptkit.spec.scene_labels")
    declared = {
        "seg": {"type": "segmentation"},
        "kp": {"type": "keypoints"},
        "room": {"type": "classification"},
    }
    tasks = build_tasks(
        TasksFile.model_validate({"name": "s", "data": {"source": "scenes"}, "tasks": declared})
    )
    assert tasks["seg"].labels == list(scene_labels.SCENE_CLASSES)
    assert tasks["kp"].labels == list(scene_labels.SCENE_KEYPOINTS)
    assert tasks["room"].labels == list(scene_labels.SCENE_TYPES)
