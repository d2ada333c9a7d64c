"""A result behaves like a dict, draws itself and saves itself."""

import json

import numpy as np
import pytest
from PIL import Image

from perceptkit.runtime.load import load
from tests.runtime.conftest import scripted

TASKS = ["seg", "edges", "depth", "normals", "points", "kinds", "room"]


@pytest.fixture(scope="module")
def result(artifact):
    image = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    return load(artifact, device="cpu").predict(image)


def test_a_result_is_a_mapping(result):
    assert len(result) == 7 and list(result.keys()) == TASKS
    assert result["depth"].task == "depth" and "none" not in result
    with pytest.raises(KeyError):
        result["none"]
    with pytest.raises(AttributeError, match="depth predictions have values, unit, metres; no 'mask'"):
        result["depth"].mask  # noqa: B018


def test_the_plot_holds_the_picture_and_a_panel_for_each_task(result):
    plot = result.plot()
    # eight panels of 50 columns, seven white gaps of 2
    assert plot.shape == (30, 8 * 50 + 7 * 2, 3) and plot.dtype == np.uint8
    assert np.array_equal(plot[:, :50], result.image)
    assert (plot[:, 50:52] == 255).all()
    for i, task in enumerate(TASKS):
        panel = plot[:, (i + 1) * 52 : (i + 1) * 52 + 50]
        assert np.array_equal(panel, result.tasks[task].draw(result.image, result[task])), task
        assert not np.array_equal(panel, result.image) or task in ("points", "kinds"), task


def test_saved_files(result, tmp_path):
    written = result.save(tmp_path / "out")
    assert written[0] == tmp_path / "out/picture_0.png"
    assert sorted(written) == sorted((tmp_path / "out").iterdir())
    assert {path.name for path in written if path.suffix == ".png"} == {
        "picture_0.png",
        *(f"picture_0.{task}.png" for task in TASKS),
    }
    assert np.array_equal(np.asarray(Image.open(written[0])), result.plot())
    for task in TASKS:
        assert Image.open(tmp_path / f"out/picture_0.{task}.png").size == (50, 30)
    arrays = {
        "seg.mask": result["seg"].mask,
        "edges.probability": result["edges"].probability,
        "depth.metres": result["depth"].metres,
        "normals.vectors": result["normals"].vectors,
    }
    for name, array in arrays.items():
        loaded = np.load(tmp_path / f"out/picture_0.{name}.npy", allow_pickle=False)
        assert np.array_equal(loaded, array) and loaded.dtype == array.dtype


def test_what_is_no_array_is_saved_as_json(result, tmp_path):
    result.save(tmp_path)
    told = json.loads((tmp_path / "picture_0.json").read_text())
    assert told["room"]["label"] == result["room"].label
    assert told["room"]["probabilities"] == result["room"].probabilities
    assert told["points"]["points"] == {k: list(v) for k, v in result["points"].points.items()}
    assert told["kinds"]["points"] == [list(point) for point in result["kinds"].points]
    assert told["depth"] == {"unit": "m"}
    assert told["seg"]["classes"] == [f"class {i}" for i in range(9)]


def test_results_of_different_pictures_do_not_overwrite_each_other(tmp_path):
    model = scripted(lambda image: {"depth": image[:, :1]}, "depth")
    pictures = [np.full((8, 8, 3), value, np.uint8) for value in (10, 20, 30)]
    for result in model.stream(pictures, batch=2):
        result.save(tmp_path)
    saved = [np.load(tmp_path / f"picture_{i}.depth.metres.npy")[0, 0] for i in range(3)]
    assert saved == pytest.approx([10, 20, 30])
