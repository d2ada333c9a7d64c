"""Segmentation: loss, metrics and quality by hand; every way to store a label."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from perceptkit.errors import DataError
from perceptkit.spec.tasks_file import SegmentationSpec
from perceptkit.tasks.segmentation import Segmentation, SegmentationMetric, class_counts, mean_iou, pixel_loss


def make(num_classes: int = 3, **keys) -> Segmentation:
    spec = SegmentationSpec(type="segmentation", **keys)
    return Segmentation("seg", spec, [f"class {i}" for i in range(num_classes)])


def logits(ids: torch.Tensor, num_classes: int = 3) -> torch.Tensor:
    """Confident logits (B, C, H, W) for class ids (B, H, W)."""
    return 20 * F.one_hot(ids, num_classes).permute(0, 3, 1, 2).float()


def measure(predicted: list, target: list, num_classes: int = 3) -> dict[str, float]:
    metric = SegmentationMetric(num_classes)
    metric.update(logits(torch.tensor([[predicted]]), num_classes), torch.tensor([[target]]))
    return {name: value.item() for name, value in metric.compute().items()}


def test_loss_by_hand():
    # two labelled pixels: -log softmax = log(1 + e^-2) and log(1 + e^1)
    output = torch.tensor([[[[2.0, 0.0, 7.0]], [[0.0, -1.0, 7.0]]]])
    target = torch.tensor([[[0, 1, -1]]])
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.e)) / 2
    assert pixel_loss(output, target).item() == pytest.approx(expected)


def test_metrics_by_hand():
    #            right 0, right 0, wrong, right 1, ignored
    found = measure([0, 0, 1, 1, 2], [0, 0, 0, 1, -1])
    assert found["pixel_acc"] == pytest.approx(3 / 4)
    # class 0: 2 of 3 pixels; class 1: 1 of 2; class 2 is predicted only where nothing is labelled
    assert found["miou"] == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_a_class_that_is_never_labelled_is_left_out_but_predicting_it_costs():
    found = measure([0, 2, 1, 1], [0, 0, 1, 1])
    assert found["miou"] == pytest.approx((1 / 2 + 1) / 2)


def test_a_perfect_prediction_is_perfect():
    assert measure([0, 2, 0, 1], [0, 2, -1, 1]) == {"miou": 1, "pixel_acc": 1}


def test_a_class_that_is_never_found_counts_as_zero():
    assert measure([0, 0], [0, 1])["miou"] == pytest.approx((1 / 2 + 0) / 2)


def test_counts_are_per_image():
    target = torch.tensor([[[0, 1]], [[-1, 2]]])
    right, labelled, predicted = class_counts(logits(torch.tensor([[[0, 0]], [[2, 2]]])), target)
    assert right.tolist() == [[1, 0, 0], [0, 0, 1]]
    assert labelled.tolist() == [[1, 1, 0], [0, 0, 1]]
    assert predicted.tolist() == [[2, 0, 0], [0, 0, 1]]


def test_quality_is_the_iou_of_the_classes_of_each_image():
    target = torch.tensor([[[0, 0, 1]], [[2, 2, -1]], [[-1, -1, -1]]])
    quality = make().quality(logits(torch.tensor([[[0, 1, 1]], [[2, 2, 0]], [[0, 0, 0]]])), target)
    assert quality[:2].tolist() == pytest.approx([(1 / 2 + 1 / 2) / 2, 1.0])
    assert quality[2].isnan()


def test_mean_iou_of_nothing_is_nan():
    zeros = torch.zeros(4, dtype=torch.long)
    assert mean_iou(zeros, zeros, zeros + 3).isnan()


def test_constant_is_the_majority_class():
    targets = [torch.tensor([[[1, 1, 0, -1]]]), torch.tensor([[[2, -1, -1, -1]]])]
    output = make().constant_output(targets, (4, 6))
    assert output.shape == (1, 3, 4, 6)
    assert (output.argmax(1) == 1).all()


@pytest.mark.parametrize("form", ["png8", "png16", "palette", "npy", "npy_signed"])
def test_read(tmp_path, form):
    ids = np.array([[0, 2], [1, 255]])
    path = tmp_path / ("a.npy" if form.startswith("npy") else "a.png")
    if form == "png8":
        Image.fromarray(ids.astype(np.uint8)).save(path)
    elif form == "png16":
        Image.fromarray(ids.astype(np.uint16)).save(path)
    elif form == "palette":
        picture = Image.new("P", (2, 2))
        picture.putdata(ids.flatten().tolist())
        picture.putpalette(list(range(256)) * 3)
        picture.save(path)
    else:
        np.save(path, ids.astype(np.uint8 if form == "npy" else np.int32))
    target = make().read(path, "a")
    assert target.dtype == np.int64
    assert target.tolist() == [[0, 2], [1, -1]]


def test_any_ignore_index(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[0, -100]]))
    assert make(ignore_index=-100).read(tmp_path / "a.npy", "a").tolist() == [[0, -1]]
    np.save(tmp_path / "b.npy", np.array([[0, 1]]))
    assert make(ignore_index=0).read(tmp_path / "b.npy", "b").tolist() == [[-1, 1]]


def test_class_ids_out_of_range_are_named(tmp_path):
    path = tmp_path / "0007.png"
    Image.fromarray(np.array([[0, 41, 255]], np.uint8)).save(path)
    with pytest.raises(DataError) as caught:
        make(40).read(path, "0007")
    assert str(caught.value) == f"{path} holds class id 41; 40 classes are declared; 255 is ignored"


def test_minus_one_is_no_class_unless_it_is_ignored(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[0, -1, 9]]))
    with pytest.raises(DataError, match="holds class ids -1, 9; 3 classes"):
        make().read(tmp_path / "a.npy", "a")
    np.save(tmp_path / "b.npy", np.array([[0, -1]]))
    assert make(ignore_index=-1).read(tmp_path / "b.npy", "b").tolist() == [[0, -1]]


def test_floats_and_colours_are_no_class_ids(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 2)))
    with pytest.raises(DataError, match="holds values of type float64; expected whole class ids"):
        make().read(tmp_path / "a.npy", "a")
    Image.new("RGB", (2, 2)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match="has shape 2x2x3; expected one value per pixel"):
        make().read(tmp_path / "b.png", "b")


def test_decode_is_the_argmax_of_resized_logits(rng):
    output = torch.randn(1, 5, 8, 12, generator=rng)
    mask = make(5).decode(output, (21, 17), (8, 12)).mask
    resized = F.interpolate(output, size=(21, 17), mode="bilinear", align_corners=False)
    assert mask.shape == (21, 17) and mask.dtype == np.uint8
    assert np.array_equal(mask, resized.argmax(1)[0].numpy())


def test_decode_knows_the_names():
    prediction = make().decode(torch.zeros(1, 3, 4, 4), (4, 4), (4, 4))
    assert prediction.classes == ["class 0", "class 1", "class 2"]
    assert (prediction.mask == 0).all()  # equal logits: the lowest id, as argmax


def test_many_classes_need_wider_masks():
    ids = torch.tensor([[299, -1, 255]])
    label = make(300).as_prediction(ids, (1, 3))
    assert label.mask.dtype == np.uint16
    assert label.mask.tolist() == [[299, 65535, 255]]


def test_draw_darkens_unlabelled_pixels():
    image = np.full((1, 2, 3), 200, np.uint8)
    task = make()
    drawn = task.draw(image, task.as_prediction(torch.tensor([[1, -1]]), (1, 2)))
    assert drawn.dtype == np.uint8
    assert drawn[0, 1].tolist() == [50, 50, 50]
    assert drawn[0, 0].tolist() == [round(0.35 * 200 + 0.65 * c) for c in (60, 180, 75)]
