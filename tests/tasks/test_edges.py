"""Edges as a task: loss, metric, quality, derive, decode."""

import math

import numpy as np
import pytest
import torch

from perceptkit.errors import SpecError
from perceptkit.spec.tasks_file import EdgesSpec
from perceptkit.tasks.base import Task
from perceptkit.tasks.edges import EdgeMetric, Edges, balanced_loss


@pytest.fixture
def task() -> Edges:
    return Edges("edges", EdgesSpec(type="edges"), [])


def column(x: int, logit: float = 10.0, size: int = 12) -> torch.Tensor:
    output = torch.full((1, 1, size, size), -10.0)
    output[..., x] = logit
    return output


def label(x: int, size: int = 12) -> torch.Tensor:
    return (column(x, size=size) > 0).float()


def test_loss_by_hand():
    logits = torch.tensor([[[2.0, -1.0, 0.0, 5.0]]])
    target = torch.tensor([[[1.0, 0.0, 0.0, -1.0]]])
    # one edge, two others, one ignored: the means of both sides weigh the same
    edge = math.log(1 + math.exp(-2))
    other = (math.log(1 + math.exp(-1)) + math.log(2)) / 2
    assert balanced_loss(logits, target).item() == pytest.approx((edge + other) / 2)


def test_loss_equals_hed_up_to_its_scale(rng):
    logits, target = torch.randn(1, 9, 9, generator=rng), (torch.rand(1, 9, 9, generator=rng) < 0.2).float()
    beta = 1 - target.mean()
    p = logits.sigmoid()
    hed = -(beta * target * p.log() + (1 - beta) * (1 - target) * (1 - p).log()).sum()
    scaled = hed / (2 * beta * (1 - beta) * target.numel())
    assert torch.allclose(balanced_loss(logits, target)[0], scaled, atol=1e-5)


def test_missing_labels_change_nothing(task, rng):
    output = torch.randn(3, 1, 12, 12, generator=rng, requires_grad=True)
    target = torch.cat([label(5), torch.from_numpy(task.missing((12, 12)))[None], label(7)])
    assert task.is_labelled(target).tolist() == [True, False, True]
    loss = task.loss(output, target)
    loss.backward()
    assert torch.equal(loss, task.loss(output[[0, 2]], target[[0, 2]]))
    assert (output.grad[1] == 0).all() and (output.grad[0] != 0).any()
    quality = task.quality(output.detach(), target)
    assert quality.isnan().tolist() == [False, True, False]
    both, only = task.metric(), task.metric()
    both.update(output.detach(), target)
    only.update(output.detach()[[0, 2]], target[[0, 2]])
    for name, value in only.compute().items():
        assert both.compute()[name].item() == pytest.approx(value.item())  # sums of a different order


def test_nothing_labelled_gives_zero_with_a_gradient(task):
    output = torch.randn(2, 1, 8, 8, requires_grad=True)
    loss = task.loss(output, torch.full((2, 1, 8, 8), -1.0))
    loss.backward()
    assert loss == 0 and (output.grad == 0).all()
    metric = task.metric()
    metric.update(output.detach(), torch.full((2, 1, 8, 8), -1.0))
    assert all(value.isnan() for value in metric.compute().values())


def test_extreme_logits_are_finite(task):
    for logit in (1e4, -1e4):
        output = torch.full((1, 1, 8, 8), logit, requires_grad=True)
        loss = task.loss(output, label(3, size=8))
        loss.backward()
        assert loss.isfinite() and output.grad.isfinite().all()


def test_ods_and_ois_by_hand():
    # picture 1: the true line (12 pixels) with logit 2, a false line far away with logit 0
    # picture 2: the true line with logit -1, nothing else
    first = torch.maximum(column(2, 2.0), column(9, 0.0))
    output, target = torch.cat([first, column(4, -1.0)]), torch.cat([label(2), label(4)])
    metric = EdgeMetric(tolerance=1.5)
    metric.update(output, target)
    result = metric.compute()
    # one threshold for both: at 2 only picture 1's line (P 1, R 1/2, F 2/3);
    # at -1 both lines and the false one (P 2/3, R 1, F 4/5)
    assert result["ods_f"].item() == pytest.approx(4 / 5)
    # each its own: above 0 for the first, -1 for the second: all found, nothing false
    assert result["ois_f"].item() == pytest.approx(1.0)


def test_ois_is_never_below_ods(task, rng):
    metric = task.metric()
    metric.update(
        2 * torch.randn(4, 1, 16, 16, generator=rng), (torch.rand(4, 1, 16, 16, generator=rng) < 0.15).float()
    )
    result = metric.compute()
    assert 0 < result["ods_f"] <= result["ois_f"] + 1e-9 <= 1


def test_batches_add_up(task, rng):
    output = torch.randn(5, 1, 16, 16, generator=rng)
    target = (torch.rand(5, 1, 16, 16, generator=rng) < 0.15).float()
    whole, parts = task.metric(), task.metric()
    whole.update(output, target)
    for part in ([0, 1], [2, 3, 4]):
        parts.update(output[part], target[part])
    for name, value in whole.compute().items():
        assert parts.compute()[name].item() == pytest.approx(value.item())


def test_l1_by_hand(task):
    metric = task.metric()
    metric.update(torch.zeros(1, 1, 1, 4), torch.tensor([[[[1.0, 0.0, 0.25, -1.0]]]]))
    assert metric.compute()["l1"].item() == pytest.approx((0.5 + 0.5 + 0.25) / 3)


def test_quality_of_perfect_and_empty_pictures(task):
    nothing = torch.zeros(1, 1, 12, 12)
    assert task.quality(column(5), label(5)).item() == 1.0
    assert task.quality(column(5), nothing).item() == 0.0
    assert task.quality(torch.full((1, 1, 12, 12), -10.0), nothing).item() == 1.0


def test_all_edge_constant_is_beaten_by_the_truth_and_is_not_zero(task):
    constant = task.constant_output([], (12, 12))
    metric = task.metric()
    metric.update(constant.expand(2, -1, -1, -1), torch.cat([label(3), label(8)]))
    # nearly every pixel is predicted and one column of twelve is true
    assert 0.05 < metric.compute()["ods_f"] < 0.4


def test_head_answers_at_twice_its_input(task):
    head = task.head(8)
    assert head(torch.randn(2, 8, 5, 6)).shape == (2, 1, 10, 12)


class Other(Edges):
    """Stands for a task of another type: `derive` looks at the type only."""

    def __init__(self, type: str) -> None:
        super().__init__(type, EdgesSpec(type="edges"), [])
        self.__dict__["type"] = type


def derived(derive: list[str], targets: dict[str, np.ndarray], types: dict[str, str]) -> np.ndarray:
    specs: dict[str, Task] = {name: Other(type) for name, type in types.items()}
    return Edges("edges", EdgesSpec(type="edges", derive=derive), []).derive(targets, specs)


def test_derive_joins_the_tasks():
    seg = np.array([[0, 0, 1, 1]])
    depth = np.array([[[1.0, 1.0, 1.0, 5.0]]], dtype=np.float32)
    types = {"seg": "segmentation", "depth": "depth"}
    edge = derived(["seg", "depth"], {"seg": seg, "depth": depth}, types)
    assert edge.dtype == np.float32 and edge.shape == (1, 1, 4)
    assert edge.ravel().tolist() == [0, 1, 1, 0]


def test_derive_ignores_what_no_task_knows():
    seg = np.array([[-1, 0, 0, -1]])
    depth = np.array([[[0.0, 0.0, 1.0, 1.0]]], dtype=np.float32)
    edge = derived(["a", "b"], {"a": seg, "b": depth}, {"a": "segmentation", "b": "depth"})
    assert edge.ravel().tolist() == [-1, 0, 0, 0]


def test_derive_is_missing_where_one_task_has_no_label():
    seg, depth = np.array([[0, 1]]), np.zeros((1, 1, 2), dtype=np.float32)
    edge = derived(["a", "b"], {"a": seg, "b": depth}, {"a": "segmentation", "b": "depth"})
    assert edge.ravel().tolist() == [-1, -1]


def test_derive_from_other_types_is_a_spec_error():
    with pytest.raises(SpecError, match="room is a classification task"):
        derived(["room"], {"room": np.array(0)}, {"room": "classification"})


def test_decode_in_the_size_of_the_picture(task):
    prediction = task.decode(column(5), (30, 20), (12, 12))
    assert prediction.probability.shape == (30, 20)
    assert prediction.probability.dtype == np.float32
    assert 0 <= prediction.probability.min() and prediction.probability.max() <= 1


def test_draw_and_labels(task):
    image = np.full((12, 12, 3), 100, dtype=np.uint8)
    target = label(5)[0].clone()
    target[0, 0] = -1
    prediction = task.as_prediction(target, (12, 12))
    picture = task.draw(image, prediction)
    assert picture.shape == image.shape and picture.dtype == np.uint8
    assert picture[3, 5].tolist() == [255, 220, 40] and picture[3, 0].tolist() == [40, 40, 40]
    assert (prediction.probability >= 0).all()
    assert (image == 100).all()
