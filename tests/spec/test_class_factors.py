"""Factors of classes from a .npy file."""

import numpy as np
import pytest

from perceptkit.errors import SpecError
from perceptkit.spec.load import load_tasks


def load(folder, classes="[wall, floor, door]", factors="factors.npy"):
    for split in ("train", "val", "test"):
        (folder / "data" / split).mkdir(parents=True, exist_ok=True)
        (folder / "data" / split / "0.png").touch()
    (folder / "t.yaml").write_text(
        "name: t\ndata: {source: folder, root: data, size: [32, 32], image: '{split}/{id}.png'}\ntasks:\n"
        f"  seg: {{type: segmentation, target: '{{split}}/{{id}}.png', classes: {classes}, class_weights: {factors}}}\n"
    )
    return load_tasks(folder / "t.yaml").spec.tasks["seg"].class_weights


def test_one_for_each_class_in_their_order(tmp_path):
    np.save(tmp_path / "factors.npy", np.array([[0.5, 1, 4]], np.float32))
    assert load(tmp_path) == {"wall": 0.5, "floor": 1, "door": 4}
    assert load(tmp_path, classes=3) == {"0": 0.5, "1": 1, "2": 4}
    (tmp_path / "data").joinpath("below.npy").write_bytes((tmp_path / "factors.npy").read_bytes())
    assert load(tmp_path, factors="below.npy") == {"wall": 0.5, "floor": 1, "door": 4}
    assert load(tmp_path, factors="{door: 2}") == {"door": 2}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, 2.0], "has shape 2 and type float64; expected 3 numbers, one for each class"),
        (["a", "b", "c"], "expected 3 numbers, one for each class"),
        ([1.0, 0.0, 2.0], "holds 0 for the class 'floor'; expected numbers above 0"),
        ([1.0, 2.0, np.nan], "holds nan for the class 'door'; expected numbers above 0"),
    ],
)
def test_what_is_refused(tmp_path, values, message):
    np.save(tmp_path / "factors.npy", np.array(values))
    with pytest.raises(SpecError, match="tasks.seg.class_weights: .*factors.npy") as caught:
        load(tmp_path)
    assert message in str(caught.value)


def test_no_such_file_and_no_such_ending(tmp_path):
    with pytest.raises(SpecError, match=r"tasks.seg.class_weights: no such file of factors: .*absent.npy"):
        load(tmp_path, factors="absent.npy")
    with pytest.raises(SpecError, match=r"factors.csv is no .npy file"):
        load(tmp_path, factors="factors.csv")
