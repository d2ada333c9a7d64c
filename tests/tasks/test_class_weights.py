"""Factors of classes: by hand, beside torch, and without labels."""

import pytest
import torch
from torch.nn import functional as F

from perceptkit.errors import SpecError
from perceptkit.spec.tasks_file import ClassificationSpec, SegmentationSpec
from perceptkit.tasks.classification import Classification
from perceptkit.tasks.segmentation import Segmentation

LABELS = ["wall", "floor", "door"]
WEIGHTS = {"door": 4.0, "wall": 0.5}
W = torch.tensor([0.5, 1.0, 4.0])


def segmentation(**keys):
    return Segmentation("seg", SegmentationSpec(type="segmentation", classes=LABELS, **keys), LABELS)


def classification(**keys):
    return Classification("room", ClassificationSpec(type="classification", classes=LABELS, **keys), LABELS)


def test_two_pixels_by_hand():
    output = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0]]).T.view(1, 3, 1, 2)
    target = torch.tensor([[[0, 2]]])
    first = -torch.tensor([2.0, 1.0, 0.0]).log_softmax(0)[0].item()
    last = torch.tensor(3.0).log().item()
    expected = (0.5 * first + 4 * last) / 4.5
    assert segmentation(class_weights=WEIGHTS).loss(output, target).item() == pytest.approx(expected)
    assert segmentation().loss(output, target).item() == pytest.approx((first + last) / 2)


def test_as_torch_with_what_is_unlabelled_left_out():
    torch.manual_seed(0)
    output, target = torch.randn(4, 3, 5, 6), torch.randint(-1, 3, (4, 5, 6))
    torch.testing.assert_close(
        segmentation(class_weights=WEIGHTS).loss(output, target),
        F.cross_entropy(output, target, W, ignore_index=-1),
    )
    output, target = torch.randn(8, 3), torch.tensor([0, 1, 2, -1, 2, 2, -1, 0])
    torch.testing.assert_close(
        classification(class_weights=WEIGHTS).loss(output, target),
        F.cross_entropy(output, target, W, ignore_index=-1),
    )


def test_several_classes_a_picture_by_hand():
    output, target = torch.tensor([[1.0, -2.0, 0.5]]), torch.tensor([[1.0, 0.0, 0.0]])
    loss_C = F.binary_cross_entropy_with_logits(output, target, reduction="none")[0]
    found = classification(class_weights=WEIGHTS, multi_label=True).loss(output, target)
    assert found.item() == pytest.approx(((W * loss_C).sum() / W.sum()).item())


@pytest.mark.parametrize("multi_label", [False, True])
def test_without_a_label_there_is_no_loss_and_a_gradient_of_zero(multi_label):
    task = classification(class_weights=WEIGHTS, multi_label=multi_label)
    output = torch.randn(2, 3, requires_grad=True)
    target = torch.full((2, 3), -1.0) if multi_label else torch.tensor([-1, -1])
    loss = task.loss(output, target)
    loss.backward()
    assert loss == 0 and not output.grad.any()
    output = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = segmentation(class_weights=WEIGHTS).loss(output, torch.full((1, 2, 2), -1))
    loss.backward()
    assert loss == 0 and not output.grad.any()


def test_an_unknown_class_is_named():
    with pytest.raises(SpecError, match="tasks.seg.class_weights: no class 'dor'; did you mean 'door'?"):
        segmentation(class_weights={"dor": 2.0})
