"""Classification: loss, metrics and quality by hand; every form of the CSV."""

import math
import os

import numpy as np
import pytest
import torch

from perceptkit.errors import DataError
from perceptkit.spec.tasks_file import ClassificationSpec
from perceptkit.tasks.classification import Classification, MapMetric, TopMetric

ROOMS = ["kitchen", "bath", "hall"]


def make(classes: list[str] = ROOMS, **keys) -> Classification:
    return Classification("room", ClassificationSpec(type="classification", **keys), classes)


def test_loss_by_hand():
    output = torch.tensor([[2.0, 0.0, -torch.inf], [0.0, 0.0, 0.0], [9.0, 1.0, 1.0]])
    loss = make().loss(output[:2], torch.tensor([0, 1]))
    assert loss.item() == pytest.approx((math.log(1 + math.exp(-2)) + math.log(3)) / 2)
    assert make().loss(output, torch.tensor([0, 1, -1])).item() == pytest.approx(loss.item())


def test_multi_label_loss_by_hand():
    output = torch.tensor([[0.0, 1.0], [5.0, 5.0]])
    target = torch.tensor([[1.0, 0.0], [-1.0, -1.0]])
    expected = (math.log(2) + math.log(1 + math.e)) / 2
    assert make(["a", "b"], multi_label=True).loss(output, target).item() == pytest.approx(expected)


def test_top_1_and_5_by_hand():
    metric = TopMetric(6)
    falling = torch.arange(6.0, 0, -1).expand(4, 6)  # class 0 is likeliest, class 5 is last
    metric.update(falling, torch.tensor([0, 4, 5, -1]))
    found = metric.compute()
    assert found["top1"].item() == pytest.approx(1 / 3)
    assert found["top5"].item() == pytest.approx(2 / 3)


def test_top5_only_from_six_classes_on():
    assert list(make(list("abcde")).metric_info) == ["top1"]
    assert list(make(list("abcdef")).metric_info) == ["top1", "top5"]


def test_equal_logits_are_not_all_right():
    metric = TopMetric(3)
    metric.update(torch.zeros(3, 3), torch.tensor([0, 1, 2]))
    assert metric.compute()["top1"].item() == pytest.approx(1 / 3)


def test_map_by_hand():
    score = torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.7, 0.3, 0.0], [0.6, 0.9, 0.0]])
    #   class 0: right, wrong, right: precision 1 up to recall 1/2, then 2/3; class 1: first; class 2: never
    true = torch.tensor([[1.0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 1, 0]])
    metric = MapMetric()
    metric.update(score, true)
    assert metric.compute()["map"].item() == pytest.approx(((1 / 2 + 1 / 2 * 2 / 3) + 1) / 2)


def test_a_perfect_prediction_is_perfect():
    top, ap = TopMetric(3), MapMetric()
    top.update(torch.eye(3), torch.tensor([0, 1, 2]))
    ap.update(torch.eye(3), torch.eye(3))
    assert top.compute() == {"top1": 1} and ap.compute() == {"map": 1}


def test_map_leaves_pictures_without_label_out():
    metric = MapMetric()
    metric.update(torch.tensor([[0.1], [0.9]]), torch.tensor([[1.0], [-1.0]]))
    assert metric.compute()["map"].item() == 1


def test_quality_is_the_probability_of_the_truth():
    output = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]])
    quality = make(["a", "b"]).quality(output, torch.tensor([0, -1]))
    assert quality[0].item() == pytest.approx(3 / 4) and quality[1].isnan()
    several = make(["a", "b"], multi_label=True).quality(output, torch.tensor([[1.0, 0.0], [-1.0, -1.0]]))
    assert several[0].item() == pytest.approx((3 / 4 + 1 / 2) / 2) and several[1].isnan()


def test_constant_is_the_class_frequencies():
    output = make().constant_output([torch.tensor([0, 0, -1]), torch.tensor([2, 0])], (8, 8))
    assert output.softmax(1).tolist()[0] == pytest.approx([3 / 4, 0, 1 / 4], abs=1e-5)
    several = make(["a", "b"], multi_label=True)
    output = several.constant_output([torch.tensor([[1.0, 0], [1, 1], [-1, -1]])], (8, 8))
    assert output.sigmoid().tolist()[0] == pytest.approx([1, 1 / 2], abs=1e-5)
    assert make().constant_output([], (8, 8)).isfinite().all()


def test_read_names_and_indices(tmp_path):
    (tmp_path / "a.csv").write_text("id,label\n0001,hall\n0002,1\n0003,\n")
    target = make().read(tmp_path / "a.csv", "0001")
    assert target is not None and target.shape == () and target.dtype == np.int64 and target == 2
    assert make().read(tmp_path / "a.csv", "0002") == 1
    assert make().read(tmp_path / "a.csv", "0003") is None  # empty
    assert make().read(tmp_path / "a.csv", "0004") is None  # no row


def test_read_without_header(tmp_path):
    (tmp_path / "a.csv").write_text("0001,kitchen\n0002,bath\n")
    assert make().read(tmp_path / "a.csv", "0001") == 0


def test_a_name_wins_over_an_index(tmp_path):
    (tmp_path / "a.csv").write_text("x,1\n")
    assert make(["1", "0"]).read(tmp_path / "a.csv", "x") == 0


@pytest.mark.parametrize("text", ["id,label\nx,kitchen|2\ny,\n", "id,kitchen,bath,hall\nx,1,0,1\ny,0,0,0\n"])
def test_read_multi_label(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    task = make(multi_label=True)
    target = task.read(tmp_path / "a.csv", "x")
    assert target is not None and target.dtype == np.float32 and target.tolist() == [1, 0, 1]
    nothing = task.read(tmp_path / "a.csv", "y")
    assert nothing is not None and nothing.tolist() == [0, 0, 0]  # no class is true: a label
    assert task.read(tmp_path / "a.csv", "z") is None


def test_unknown_labels_are_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("0001,kitchn\n0002,3\n")
    with pytest.raises(DataError, match="0001 has the label 'kitchn'.*did you mean 'kitchen'"):
        make().read(path, "0001")
    with pytest.raises(DataError, match=r"a\.csv: 0002 has the label '3', which is not one of the classes"):
        make().read(path, "0002")


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"a,b,c\n0,0\n", b"x,1\nx,2\n", b'x,"' + b"a" * 200_000]
)
def test_broken_csv_is_a_data_error(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.csv"):
        make().read(tmp_path / "a.csv", "x")


def test_no_such_csv(tmp_path):
    with pytest.raises(DataError, match=r"a\.csv cannot be read: No such file"):
        make().read(tmp_path / "a.csv", "x")


def test_a_changed_file_is_read_again(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x,hall\n")
    assert make().read(path, "x") == 2
    path.write_text("x,bath\n")
    os.utime(path, ns=(1, 1))
    assert make().read(path, "x") == 1


def test_decode():
    prediction = make().decode(torch.tensor([[0.0, math.log(6), 0.0]]), (9, 9), (4, 4))
    assert (prediction.label, prediction.index) == ("bath", 1)
    assert prediction.probabilities == pytest.approx({"kitchen": 1 / 8, "bath": 6 / 8, "hall": 1 / 8})


def test_decode_multi_label_lists_the_likeliest_first():
    prediction = make(multi_label=True).decode(torch.tensor([[0.5, -1.0, 2.0]]), (9, 9), (4, 4))
    assert prediction.labels == ["hall", "kitchen"]
    assert "label" not in prediction.values


@pytest.mark.parametrize("multi_label", [False, True])
def test_as_prediction_without_label(multi_label):
    task = make(multi_label=multi_label)
    label = task.as_prediction(torch.from_numpy(task.missing((8, 8))), (8, 8))
    assert label.probabilities == {}
    assert task.draw(np.zeros((32, 32, 3), np.uint8), label).max() > 200
