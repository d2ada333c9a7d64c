"""Edge maps from files and from the labels of other tasks."""

import math

import numpy as np
import pytest
from PIL import Image

from perceptkit.errors import DataError
from perceptkit.tasks.edge_labels import class_edges, depth_edges, normal_edges, read_edge_map


def test_png_by_hand(tmp_path):
    Image.fromarray(np.array([[0, 255], [51, 0]], dtype=np.uint8)).save(tmp_path / "e.png")
    edge = read_edge_map(tmp_path / "e.png")
    assert edge.dtype == np.float32
    assert edge == pytest.approx(np.array([[[0, 1], [0.2, 0]]]))


def test_masks_and_8_and_16_bit_pictures_agree(tmp_path):
    mask = np.array([[0, 1, 1], [1, 0, 0]], dtype=np.uint8)
    expected = mask[None].astype(np.float32)
    pictures = (mask.astype(bool), mask, mask * 255, mask.astype(np.uint16) * 65535)
    for values in pictures:
        Image.fromarray(values).save(tmp_path / "e.png")
        assert np.array_equal(read_edge_map(tmp_path / "e.png"), expected)


def test_npy_keeps_ignored_pixels(tmp_path):
    np.save(tmp_path / "e.npy", np.array([[0.5, -1.0], [np.nan, 1.0]]))
    assert np.array_equal(read_edge_map(tmp_path / "e.npy")[0], np.float32([[0.5, -1], [-1, 1]]))
    np.save(tmp_path / "b.npy", np.array([[[True, False]]]))
    assert np.array_equal(read_edge_map(tmp_path / "b.npy"), np.float32([[[1, 0]]]))
    np.save(tmp_path / "i.npy", np.array([[255, -1]], dtype=np.int16))
    assert np.array_equal(read_edge_map(tmp_path / "i.npy"), np.float32([[[1, -1]]]))
    np.save(tmp_path / "u.npy", np.array([[255, 0]], dtype=np.uint8))
    assert np.array_equal(read_edge_map(tmp_path / "u.npy"), np.float32([[[1, 0]]]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0.0, 7.5]]), "holds 7.5;"),
        (np.array([[0.0, -0.5]]), "holds -0.5"),
        (np.zeros((3, 4, 5)), "3x4x5"),
        (np.array([["a"]]), "numbers"),
    ],
)
def test_wrong_npy_is_named(tmp_path, values, message):
    np.save(tmp_path / "e.npy", values)
    with pytest.raises(DataError, match=message) as error:
        read_edge_map(tmp_path / "e.npy")
    assert "e.npy" in str(error.value)


def test_wrong_pictures_are_named(tmp_path):
    (tmp_path / "e.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"e\.png"):
        read_edge_map(tmp_path / "e.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (4, 4, 3), dtype=np.uint8)).save(
        tmp_path / "c.png"
    )
    with pytest.raises(DataError, match="one value per pixel"):
        read_edge_map(tmp_path / "c.png")
    with pytest.raises(DataError, match="absent"):
        read_edge_map(tmp_path / "absent.npy")
    (tmp_path / "broken.npy").write_bytes(b"x")
    with pytest.raises(DataError, match="broken"):
        read_edge_map(tmp_path / "broken.npy")


def test_class_edges_by_hand():
    edge, known = class_edges(np.array([[0, 0, 1], [0, 0, 1], [2, 2, -1]]))
    # left of the 1s, above the 2s; the ignored pixel makes none
    assert edge.astype(int).tolist() == [[0, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert known.sum() == 8


def test_depth_edges_lie_on_the_nearer_side():
    edge, known = depth_edges(np.array([[[1.0, 1.0, 2.0, 2.1, 0.0, 9.0]]], dtype=np.float32))
    # 1 -> 2 is a jump, 2 -> 2.1 is 5 %, 0 is invalid
    assert edge[0].astype(int).tolist() == [0, 1, 0, 0, 0, 0]
    assert known[0].tolist() == [True] * 4 + [False, True]
    edge, _ = depth_edges(np.array([[[2.0], [1.0]]], dtype=np.float32))
    assert edge.ravel().tolist() == [False, True]


def test_normal_edges_beyond_thirty_degrees():
    def normal(angle_deg: float) -> list[float]:
        return [math.sin(math.radians(angle_deg)), 0.0, -math.cos(math.radians(angle_deg))]

    row = np.array([normal(0), normal(29), normal(60), [0, 0, 0], normal(0)]).T[:, None, :]
    edge, known = normal_edges(row.astype(np.float32))
    assert edge[0].astype(int).tolist() == [0, 1, 0, 0, 0]
    assert known[0].astype(int).tolist() == [1, 1, 1, 0, 1]
