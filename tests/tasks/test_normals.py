"""Normals: loss, metrics and quality by hand; encodings and axes."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from perceptkit.errors import DataError
from perceptkit.spec.tasks_file import NormalsSpec
from perceptkit.tasks.normals import Normals, NormalsMetric, angle_deg, cosine_loss


def make(**keys) -> Normals:
    return Normals("normals", NormalsSpec(type="normals", **keys), [])


def tilted(*degrees: float) -> torch.Tensor:
    """(1, 3, 1, W): normals turned by these angles about the x axis, away from the camera's own axis."""
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([torch.zeros_like(angle), angle.sin(), -angle.cos()]).float()[None, :, None]


FACING = tilted(0.0)


def measure(*degrees: float) -> dict[str, float]:
    metric = NormalsMetric()
    metric.update(tilted(*degrees), FACING.expand(-1, -1, -1, len(degrees)))
    return {name: value.item() for name, value in metric.compute().items()}


def test_loss_by_hand():
    target = torch.cat([FACING, FACING, torch.zeros(1, 3, 1, 1)], dim=3)
    output = 3 * tilted(60.0, 180.0, 10.0)  # the length does not matter
    assert cosine_loss(output, target).item() == pytest.approx((0.5 + 2) / 2)


def test_loss_of_a_zero_output_has_a_finite_gradient():
    output = torch.zeros(1, 3, 1, 1, requires_grad=True)
    loss = cosine_loss(output, FACING)
    loss.backward()
    assert loss.item() == 1 and output.grad is not None and output.grad.isfinite().all()


@pytest.mark.parametrize("degrees", [0.0, 0.001, 1.0, 45.0, 90.0, 179.0, 179.999, 180.0])
def test_angles_are_exact_at_both_ends(degrees):
    assert angle_deg(5 * tilted(degrees), FACING).item() == pytest.approx(degrees, abs=2e-5, rel=1e-5)


def test_a_zero_vector_is_not_right():
    assert angle_deg(torch.zeros(1, 3, 1, 1), FACING).item() == pytest.approx(90)


def test_metrics_by_hand():
    found = measure(0.0, 10.0, 20.0, 25.0, 80.0)
    assert found["mean_deg"] == pytest.approx(27)
    assert found["median_deg"] == pytest.approx(20, abs=0.005)
    assert found["within_11_25"] == pytest.approx(2 / 5)
    assert found["within_22_5"] == pytest.approx(3 / 5)
    assert found["within_30"] == pytest.approx(4 / 5)


def test_median_of_an_even_number_is_between_the_middle_ones():
    assert measure(1.0, 2.0, 4.0, 9.0)["median_deg"] == pytest.approx(3, abs=0.005)


def test_median_equals_the_exact_one(rng):
    degrees = 180 * torch.rand(4001, generator=rng)
    assert measure(*degrees.tolist())["median_deg"] == pytest.approx(degrees.median().item(), abs=0.006)


def test_opposite_normals_fit_into_the_histogram():
    assert measure(180.0)["median_deg"] == pytest.approx(180)


def test_nan_shows_in_the_mean():
    metric = NormalsMetric()
    metric.update(torch.full((1, 3, 1, 1), torch.nan), FACING)
    assert metric.compute()["mean_deg"].isnan()


def test_quality_by_hand():
    output = torch.cat([tilted(45.0, 135.0), tilted(0.0, 0.0)])
    target = torch.cat([FACING.expand(-1, -1, -1, 2), torch.zeros(1, 3, 1, 2)])
    quality = make().quality(output, target)
    assert quality[0].item() == pytest.approx((0.5 + 0) / 2)
    assert quality[1].isnan()


def test_constant_is_the_mean_direction():
    targets = [tilted(0.0), torch.cat([tilted(90.0), torch.zeros(1, 3, 1, 1)], dim=3)]
    output = make().constant_output(targets, (4, 5))
    assert output.shape == (1, 3, 4, 5)
    assert torch.allclose(output[:, :, :1, :1], tilted(45.0), atol=1e-6)


def test_constant_without_labels_faces_the_camera():
    assert make().constant_output([torch.zeros(1, 3, 1, 1)], (1, 1)).flatten().tolist() == [0, 0, -1]


def save(path, *pixels):
    Image.fromarray(np.array([pixels], np.uint8)).save(path)


def test_read_decodes_signed_pixels(tmp_path):
    save(tmp_path / "a.png", (255, 128, 128), (128, 128, 0), (128, 0, 128))
    target = make().read(tmp_path / "a.png", "a")
    assert target.shape == (3, 1, 3) and target.dtype == np.float32
    assert np.allclose(target[:, 0].T, [(1, 0, 0), (0, 0, -1), (0, -1, 0)], atol=0.01)
    assert np.allclose(np.linalg.norm(target, axis=0), 1)


def test_read_invalid_pixels(tmp_path):
    save(tmp_path / "a.png", (0, 0, 0), (255, 255, 255), (127, 127, 127), (128, 128, 128), (128, 127, 128))
    assert not make().read(tmp_path / "a.png", "a").any()


def test_read_floats(tmp_path):
    np.save(
        tmp_path / "a.npy", np.array([[[0, 0, -1], [0, 0, 0], [np.nan, 0, 1], [0.3, 0, 0], [0, 0.6, -0.8]]])
    )
    target = make().read(tmp_path / "a.npy", "a")
    assert np.allclose(target[:, 0].T, [(0, 0, -1), (0, 0, 0), (0, 0, 0), (0, 0, 0), (0, 0.6, -0.8)])


def test_read_16_bit_array(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[[32768, 32768, 0], [0, 0, 0], [65535] * 3]], np.uint16))
    target = make().read(tmp_path / "a.npy", "a")
    assert np.allclose(target[:, 0].T, [(0, 0, -1), (0, 0, 0), (0, 0, 0)], atol=1e-4)


def test_opengl_is_converted_and_back(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[[0.36, 0.48, 0.8]]]))
    task = make(frame="opengl")
    target = task.read(tmp_path / "a.npy", "a")
    assert np.allclose(target.flatten(), (0.36, -0.48, -0.8))  # towards the viewer is negative z inside
    back = task.as_prediction(torch.from_numpy(target), (1, 1))
    assert np.allclose(back.vectors, [[[0.36, 0.48, 0.8]]]) and back.frame == "opengl"


def test_bytes_saved_as_floats_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[[128.0, 128.0, 255.0]]]))
    with pytest.raises(DataError, match=r"a\.npy holds 128, 255; expected components of unit vectors"):
        make().read(tmp_path / "a.npy", "a")


@pytest.mark.parametrize("dtype", [np.int8, np.int64, bool])
def test_other_integers_are_refused(tmp_path, dtype):
    np.save(tmp_path / "a.npy", np.zeros((1, 1, 3), dtype))
    with pytest.raises(DataError, match="expected 8- or 16-bit colours or floats"):
        make().read(tmp_path / "a.npy", "a")


def test_grey_pictures_and_alpha_are_refused(tmp_path):
    for mode, shape in (("L", "2x2"), ("RGBA", "2x2x4")):
        Image.new(mode, (2, 2)).save(tmp_path / "a.png")
        with pytest.raises(DataError, match=f"has shape {shape}; expected 3 values per pixel"):
            make().read(tmp_path / "a.png", "a")


def test_decode_gives_unit_vectors_of_the_frame(rng):
    output = torch.randn(1, 3, 4, 4, generator=rng)
    camera = make().decode(output, (7, 9), (4, 4)).vectors
    opengl = make(frame="opengl").decode(output, (7, 9), (4, 4)).vectors
    assert camera.shape == (7, 9, 3) and camera.dtype == np.float32
    assert np.allclose(np.linalg.norm(camera, axis=-1), 1, atol=1e-5)
    assert np.array_equal(opengl, camera * (1, -1, -1))


@pytest.mark.parametrize("frame", ["camera", "opengl"])
def test_draw_has_opengl_colours_in_every_frame(frame):
    image = np.full((1, 3, 3), 200, np.uint8)
    task = make(frame=frame)
    target = torch.cat([FACING, tilted(-90.0), torch.zeros(1, 3, 1, 1)], dim=3)[0]
    facing, floor, invalid = task.draw(image, task.as_prediction(target, (1, 3)))[0]
    assert facing.tolist() == [128, 128, 255]
    assert floor.tolist() == [128, 255, 128]
    assert invalid.tolist() == [50, 50, 50]


def test_a_perfect_prediction_is_perfect():
    found = measure(0.0, 0.0)
    assert found["mean_deg"] == 0 and found["median_deg"] == 0
    assert math.isclose(found["within_11_25"], 1)
