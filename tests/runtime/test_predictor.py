"""Pictures of any size in; results in their own size and the user's units out."""

import numpy as np
import pytest
import torch
from PIL import Image

import perceptkit.runtime.predictor as module
from perceptkit.errors import DataError, ExportError
from perceptkit.runtime.load import load
from tests.runtime.conftest import SIZE, scripted

SIZES = [(64, 64), (100, 30), (30, 100), (1, 1), (1, 40), (128, 128)]


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def model(artifact):
    return load(artifact, device="cpu")


@pytest.mark.parametrize("size_HW", SIZES)
def test_results_have_the_size_of_the_picture(model, size_HW):
    result = model.predict(noise(*size_HW, 3))
    assert list(result) == ["seg", "edges", "depth", "normals", "points", "kinds", "room"]
    assert result.image.shape == (*size_HW, 3)
    assert result["seg"].mask.shape == result["depth"].metres.shape == size_HW
    assert result["edges"].probability.shape == size_HW
    assert result["normals"].vectors.shape == (*size_HW, 3)
    assert result["room"].label in ("hall", "bath", "attic")
    assert result["points"].points.keys() == {"left", "right", "nose"}
    for x, y, p in result["points"].points.values():
        assert -0.5 <= x <= size_HW[1] - 0.5 and -0.5 <= y <= size_HW[0] - 0.5 and 0 <= p <= 1


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16", "P"])
def test_every_mode_of_file(model, tmp_path, mode):
    if mode == "I;16":
        picture = Image.fromarray(noise(30, 50).astype(np.uint16) << 8)
    else:
        picture = Image.fromarray(noise(30, 50, 3)).convert(mode)
    picture.save(tmp_path / "p.png")
    result = model.predict(tmp_path / "p.png")
    assert result["depth"].metres.shape == (30, 50) and np.isfinite(result["depth"].metres).all()
    assert len(np.unique(result.image)) > 5 and result.name == "p"


def red_as_depth(image_BCHW):
    return {"depth": image_BCHW[:, :1]}


def test_pixels_stay_where_they_are():
    """The network's input is read as it is, so depth is the red channel: nothing is turned or shifted."""
    model = scripted(red_as_depth, "depth")
    image = noise(*SIZE, 3) | 1
    np.testing.assert_allclose(model.predict(image)["depth"].metres, image[..., 0], atol=1e-3)


@pytest.mark.parametrize("size_HW", [(128, 32), (32, 128), (192, 160)])
def test_a_spot_comes_back_to_its_place(size_HW):
    image = np.full((*size_HW, 3), 10, np.uint8)
    y, x = size_HW[0] // 4, size_HW[1] * 3 // 4
    image[y - 4 : y + 4, x - 4 : x + 4] = 210  # its middle is half a pixel before (x, y)
    bright = scripted(red_as_depth, "depth").predict(image)["depth"].metres - 10
    ys, xs = np.mgrid[: size_HW[0], : size_HW[1]]
    assert (bright * xs).sum() / bright.sum() == pytest.approx(x - 0.5, abs=0.05)
    assert (bright * ys).sum() / bright.sum() == pytest.approx(y - 0.5, abs=0.05)


def test_masks_and_points_by_hand():
    seg = torch.full((1, 9, 64, 64), -5.0)
    seg[:, 7, :, :32] = seg[:, 2, :, 32:] = 5.0
    points = torch.full((1, 6, 16, 16), -9.0)
    points[0, 0, 8, 4] = 9.0  # the centre of this cell is the pixel (17.5, 33.5) of the input
    points[0, 3, 8, 4] = 9.0
    model = scripted(lambda _: {"seg": seg, "points": points}, "seg", "points")
    result = model.predict(np.zeros((32, 128, 3), np.uint8))
    assert (result["seg"].mask[:, :64] == 7).all() and (result["seg"].mask[:, 64:] == 2).all()
    assert result["seg"].classes[7] == "class 7"
    x, y, visible = result["points"].points["left"]
    # (17.5 + .5) * 2 - .5 and (33.5 + .5) / 2 - .5
    assert (x, y) == (pytest.approx(35.5, abs=0.05), pytest.approx(16.5, abs=0.05)) and visible > 0.99


def test_units_and_axes_of_the_user():
    declared = {
        "far": {"type": "depth", "unit": "mm", "log": True},
        "n": {"type": "normals", "frame": "opengl"},
    }
    up_and_near = torch.tensor([0.0, -0.6, -0.8]).view(1, 3, 1, 1).expand(1, 3, *SIZE)
    outputs = {"far": torch.full((1, 1, *SIZE), float(np.log(1500))), "n": 3 * up_and_near}
    result = scripted(lambda _: outputs, **declared).predict(np.zeros((20, 10, 3), np.uint8))
    np.testing.assert_allclose(result["far"].values["values"], np.full((20, 10), 1500), rtol=1e-5)
    assert result["far"].unit == "mm" and "metres" not in result["far"].values
    np.testing.assert_allclose(result["n"].vectors[7, 3], (0, 0.6, 0.8), atol=1e-6)


def test_batches_change_nothing(model):
    pictures = [noise(40 + 7 * i, 90 - 9 * i, 3, seed=i) for i in range(5)]
    alone = [model.predict(picture) for picture in pictures]
    together = model.predict_many(pictures, batch=2)
    assert len(together) == 5
    for one, many, picture in zip(alone, together, pictures, strict=True):
        assert np.array_equal(many.image, picture)
        np.testing.assert_allclose(many["depth"].metres, one["depth"].metres, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(many["normals"].vectors, one["normals"].vectors, atol=1e-3)


def test_a_stream_is_lazy():
    opened = []

    def pictures():
        for i in range(100):
            opened.append(i)
            yield noise(8, 8, 3, seed=i)

    results = scripted(red_as_depth, "depth").stream(pictures(), batch=3)
    assert opened == []
    next(results), next(results), next(results)
    assert opened == [0, 1, 2]
    next(results)
    assert opened == [0, 1, 2, 3, 4, 5]


def test_names_never_repeat(tmp_path):
    paths = []
    for name in ("a/1.png", "b/1.png", "1_2.png", "c/1.jpg", "2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(noise(8, 8, 3)).save(tmp_path / name)
        paths.append(tmp_path / name)
    model = scripted(red_as_depth, "depth")
    names = [result.name for result in model.predict_many(paths, batch=2)]
    assert names[:2] == ["1", "1_2"] and names[-1] == "2" and len(set(names)) == 5
    arrays = model.predict_many([noise(8, 8, 3)] * 5, batch=2)
    assert [result.name for result in arrays] == [f"picture_{i}" for i in range(5)]


def test_missing_files_are_named(model, tmp_path):
    with pytest.raises(DataError, match=r"none\.png: no such file"):
        model.predict(tmp_path / "none.png")


def test_a_batch_of_none_is_refused(model):
    with pytest.raises(ValueError, match="at least 1"):
        model.predict_many([noise(8, 8, 3)], batch=0)


def test_no_gradient_is_kept():
    seen = []

    def forward(image):
        seen.append(torch.is_inference_mode_enabled())
        return {"depth": image[:, :1]}

    scripted(forward, "depth").predict(noise(8, 8, 3))
    assert seen == [True] and not torch.is_inference_mode_enabled()


def test_export_passes_network_and_manifest_on(model, tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(module, "export_network", lambda *args: called.append(args) or args[2])
    assert model.export(str(tmp_path / "m.onnx")) == tmp_path / "m.onnx"
    assert called == [(model.network, model.manifest, tmp_path / "m.onnx", "onnx", "32", "cpu")]


def test_an_exported_model_is_not_exported_again(tmp_path):
    with pytest.raises(ExportError, match="cannot be exported again; load its artifact"):
        scripted(red_as_depth, "depth").export(tmp_path / "m.onnx")


def test_what_was_read_before_a_damaged_picture_comes_first(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path in paths[:3]:
        Image.fromarray(noise(8, 8, 3)).save(path)
    paths[3].write_bytes(b"no picture")
    results = scripted(red_as_depth, "depth").stream(paths, batch=8)
    assert [next(results).name for _ in range(3)] == ["0", "1", "2"]
    with pytest.raises(DataError, match="3.png"):
        next(results)


def test_what_cannot_be_read_is_left_out_when_someone_is_told(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for path in paths:
        Image.fromarray(noise(8, 8, 3)).save(path)
    for i in (1, 3, 4):
        paths[i].write_bytes(b"no picture")
    told = []
    results = scripted(red_as_depth, "depth").stream(paths, batch=2, on_unreadable=told.append)
    assert [result.name for result in results] == ["0", "2"]
    assert [str(paths[i]) in str(error) for i, error in zip((1, 3, 4), told, strict=True)] == [True] * 3
