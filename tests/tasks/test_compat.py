"""`compat: adashare`: each way in which AdaShare's code measures otherwise, by hand, next to the correct number."""

import math

import numpy as np
import pytest
import torch

from perceptkit.data.geometry import Geometry, move_target
from perceptkit.errors import DataError
from perceptkit.model.build import build_supernet
from perceptkit.model.plan import Plan
from perceptkit.spec.load import load_tasks
from perceptkit.spec.problems import SpecProblems
from perceptkit.spec.recipe import BackboneSpec, HeadsSpec
from perceptkit.spec.tasks_file import DepthSpec, NormalsSpec, ResponseSpec, SegmentationSpec
from perceptkit.tasks.depth import Depth
from perceptkit.tasks.normals import Normals
from perceptkit.tasks.response import Response
from perceptkit.tasks.segmentation import Segmentation

COMPAT = {"compat": "adashare"}


def measured(task, *batches):
    metric = task.metric()
    for output, target in batches:
        metric.update(output, target)
    return {name: float(value) for name, value in metric.compute().items()}


def logits(ids_HW, classes):
    """(1, C, H, W) whose largest is at the ids."""
    return torch.nn.functional.one_hot(torch.tensor(ids_HW), classes).permute(2, 0, 1)[None].float()


def seg(ignore_index=255, **more):
    spec = SegmentationSpec(type="segmentation", classes=3, ignore_index=ignore_index, **more)
    return Segmentation("seg", spec, ["a", "b", "c"])


# a: 2 of 3 found; b: one pixel, not found, called a; c occurs nowhere; one pixel is void
SEG = (logits([[0, 0, 1, 0, 1]], 3), torch.tensor([[[0, 0, 0, 1, -1]]]))


def test_classes_of_which_nothing_was_found_are_dropped():
    # IoU of a: 2 / (3 + 3 - 2); of b: 0 / (1 + 1)
    assert measured(seg(), SEG)["miou"] == pytest.approx((0.5 + 0) / 2)
    assert measured(seg(**COMPAT), SEG)["miou"] == pytest.approx(0.5)


def test_void_counts_as_wrong_where_its_id_is_small():
    assert measured(seg(), SEG)["pixel_acc"] == measured(seg(-1), SEG)["pixel_acc"] == pytest.approx(2 / 4)
    assert measured(seg(255, **COMPAT), SEG)["pixel_acc"] == pytest.approx(2 / 4)
    assert measured(seg(-1, **COMPAT), SEG)["pixel_acc"] == pytest.approx(2 / 5)


def test_accuracy_is_a_mean_over_pictures():
    one = (logits([[0, 0, 0, 0, 0]], 3), torch.tensor([[[0, -1, -1, -1, -1]]]))
    assert measured(seg(), SEG, one)["pixel_acc"] == pytest.approx(3 / 5)
    assert measured(seg(**COMPAT), SEG, one)["pixel_acc"] == pytest.approx((2 / 4 + 1) / 2)
    both = tuple(torch.cat(pair) for pair in zip(SEG, one, strict=True))
    assert measured(seg(**COMPAT), both) == measured(seg(**COMPAT), SEG, one)


def test_the_cross_entropy_is_a_metric():
    # logits are 1 for what was found, else 0: a pixel costs log(e + 2) - 1 where that is right, log(e + 2) where not
    wrong = math.log(math.e + 2)
    assert (
        measured(seg(**COMPAT), SEG)["err"] == pytest.approx(wrong - 2 / 4) == pytest.approx(1.0514, abs=5e-5)
    )
    weighted = seg(class_weights={"b": 3}, **COMPAT)  # of the labels, a weighs 1 + 1 + 1 and b 3
    assert measured(weighted, SEG)["err"] == pytest.approx(wrong - 2 / 6) == pytest.approx(1.2181, abs=5e-5)
    assert weighted.loss(*SEG).item() == pytest.approx(wrong - 2 / 6)
    one = (logits([[0, 0, 0, 0, 0]], 3), torch.tensor([[[0, -1, -1, -1, -1]]]))
    none = (logits([[0, 0, 0, 0, 0]], 3), torch.tensor([[[-1, -1, -1, -1, -1]]]))
    batch = tuple(torch.cat(parts) for parts in zip(SEG, one, none, strict=True))
    of_two = ((wrong - 2 / 6) + (wrong - 1)) / 2  # a mean over pictures; the last has no label
    assert measured(weighted, batch)["err"] == pytest.approx(of_two)
    assert not weighted.metric_info["err"].higher_is_better
    assert "err" not in measured(seg(), SEG) and "err" not in seg().metric_info


def depth(**more):
    return Depth("depth", DepthSpec(type="depth", **more), [])


def as_map(*values):
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 1, -1)


def test_negative_depth_counts_as_right():
    pair = as_map(-1.0, 2.0), as_map(2.0, 2.0)
    found = measured(depth(), pair)
    assert (found["delta1"], found["abs_err"]) == (0.5, pytest.approx((2 - 1e-3) / 2, rel=1e-5))
    found = measured(depth(**COMPAT), pair)
    assert (found["delta1"], found["abs_err"], found["abs_rel"]) == (1, 1.5, 0.75)


def test_a_ratio_of_just_the_bound():
    pair = as_map(5.0), as_map(4.0)  # 1.25, exact in binary
    assert measured(depth(), pair)["delta1"] == 0 and measured(depth(**COMPAT), pair)["delta1"] == 1


def test_errors_are_means_over_pictures_and_delta_over_pixels():
    first = as_map(2.0, 2.0, 2.0), as_map(1.0, 1.0, 1.0)
    second = as_map(1.0, 0.0, 0.0), as_map(1.0, 0.0, 0.0)
    found = measured(depth(), first, second)
    assert found["abs_err"] == found["abs_rel"] == pytest.approx(3 / 4)
    found = measured(depth(**COMPAT), first, second)
    assert found["abs_err"] == found["abs_rel"] == pytest.approx((1 + 0) / 2)
    assert found["delta1"] == pytest.approx(1 / 4)


def test_tiny_labels_are_invalid():
    values = np.array([[2e-5, 4e-5]], np.float32)
    assert (depth().target_of(values, "x") > 0).tolist() == [[[True, True]]]
    assert (depth(**COMPAT).target_of(values, "x") > 0).tolist() == [[[False, True]]]


def normals(**more):
    return Normals("sn", NormalsSpec(type="normals", **more), [])


def test_raw_bytes_halve_angles():
    label = np.array([[[255 // 2, 0, 0], [0, 254, 0]]], np.uint8)  # bytes; decoded they are 125 degrees apart
    raw = torch.from_numpy(normals(encoding="raw_u8").target_of(label, "x"))
    assert raw[:, 0, 0].tolist() == [1, 0, 0] and raw[:, 0, 1].tolist() == [0, 1, 0]
    found = measured(normals(encoding="raw_u8", **COMPAT), (raw[None, :, :, :1], raw[None, :, :, 1:]))
    assert found["mean_deg"] == pytest.approx(90, abs=1e-3) and found["mean_cos"] == pytest.approx(
        0, abs=1e-6
    )
    decoded = torch.from_numpy(normals().target_of(label, "x"))
    a, b = 2 * np.array([127, 0, 0]) / 255 - 1, 2 * np.array([0, 254, 0]) / 255 - 1
    cosine = float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    found = measured(normals(), (decoded[None, :, :, :1], decoded[None, :, :, 1:]))
    assert found["mean_deg"] == pytest.approx(math.degrees(math.acos(cosine)), abs=1e-3)
    assert "mean_cos" not in found


def test_raw_bytes_are_not_turned_when_mirrored():
    target = np.zeros((3, 1, 2), np.float32)
    target[:, 0, 0] = 0.6, 0.8, 0
    flipped = move_target(target, normals(encoding="raw_u8"), Geometry(hflip=True), (1, 2))
    assert flipped[:, 0, 1] == pytest.approx([0.6, 0.8, 0])
    flipped = move_target(target, normals(), Geometry(hflip=True), (1, 2))
    assert flipped[:, 0, 1] == pytest.approx([-0.6, 0.8, 0])


def test_raw_bytes_that_are_invalid():
    label = np.array([[[255, 3, 4], [0, 0, 0], [0, 3, 4]]], np.uint8)
    target = normals(encoding="raw_u8").target_of(label, "x")
    assert target[:, 0].T.tolist() == [[0, 0, 0], [0, 0, 0], pytest.approx([0, 0.6, 0.8])]
    with pytest.raises(DataError, match="x holds values of type float32; encoding raw_u8 is for bytes"):
        normals(encoding="raw_u8").target_of(np.ones((1, 1, 3), np.float32), "x")


def test_raw_bytes_have_no_axes(tmp_path):
    (tmp_path / "t.yaml").write_text(
        "name: t\ndata: {source: scenes}\ntasks:\n  sn: {type: normals, encoding: raw_u8, frame: opengl}\n"
    )
    with pytest.raises(SpecProblems, match="encoding raw_u8 gives no directions"):
        load_tasks(tmp_path / "t.yaml")


def test_the_mean_cosine():
    pair = (
        torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1),
        torch.tensor([math.sqrt(3) / 2, 0.5, 0]).view(1, 3, 1, 1),
    )
    found = measured(normals(**COMPAT), pair)
    assert found["mean_deg"] == pytest.approx(30, abs=1e-4)
    assert found["mean_cos"] == pytest.approx(math.sqrt(3) / 2)


def test_an_angle_of_just_the_bound(monkeypatch):
    # given, not computed from vectors: a rounding either way would decide
    monkeypatch.setattr("perceptkit.tasks.normals.angle_deg", lambda output, target: bounds_1HW)
    bounds_1HW = torch.tensor([[[11.25, 22.5, 30.0]]])
    pair = torch.ones(1, 3, 1, 3), torch.ones(1, 3, 1, 3)
    within = ("within_11_25", "within_22_5", "within_30")
    found = measured(normals(), pair)
    assert [found[name] for name in within] == pytest.approx([0, 1 / 3, 2 / 3])
    found = measured(normals(**COMPAT), pair)
    assert [found[name] for name in within] == pytest.approx([1 / 3, 2 / 3, 1])


def test_outputs_are_enlarged_by_the_nearest_pixel():
    """Every output of 4 x 4 pixels is one number with compat, and a slope without."""
    tasks = {
        "correct": Response("correct", ResponseSpec(type="response"), []),
        "compat": Response("compat", ResponseSpec(type="response", compat="adashare"), []),
    }
    torch.manual_seed(0)
    net = build_supernet(
        BackboneSpec(name="test_resnet", weights="none"), HeadsSpec(channels=8), tasks, (32, 32)
    ).eval()
    plan = Plan.all_keep(list(tasks), [block.name for block in net.blocks])
    outputs = net(torch.randn(1, 3, 32, 32), plan)
    blocks = {name: out[0, 0].unfold(0, 4, 4).unfold(1, 4, 4).flatten(2) for name, out in outputs.items()}
    assert (blocks["compat"] == blocks["compat"][..., :1]).all()
    assert (blocks["correct"] != blocks["correct"][..., :1]).any()
    outside = net(torch.randn(1, 3, 40, 36), plan)["compat"]
    assert outside.shape == (1, 1, 40, 36)


def test_the_metrics_that_compat_adds_are_known():
    for task in (seg(**COMPAT), depth(**COMPAT), normals(**COMPAT)):
        nothing = torch.from_numpy(task.missing((2, 2)))[None]
        found = measured(task, (torch.zeros(1, task.out_channels, 2, 2), nothing))
        assert set(found) == set(task.metric_info)
