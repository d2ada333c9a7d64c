"""Nearest neighbours of known vectors; what is saved and read; what does not fit."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from torch.nn import functional as F

from perceptkit.errors import DataError, SpecError
from perceptkit.runtime.index import make_index, open_index
from tests.runtime.conftest import scripted

PLACE = {"type": "embedding", "dims": 2}


def by_brightness(image_BCHW):
    """A quarter of a circle, from black to white."""
    angle_B = image_BCHW.mean((1, 2, 3)) / 255 * torch.pi / 2
    return {"place": torch.stack([angle_B.cos(), angle_B.sin()], 1)}


def model(forward=by_brightness):
    return scripted(forward, place=PLACE)


def grey(value):
    return np.full((20, 30, 3), value, np.uint8)


@pytest.fixture
def gallery(tmp_path):
    folder = tmp_path / "gallery"
    folder.mkdir()
    for value in (0, 60, 120, 180, 240):
        Image.fromarray(grey(value)).save(folder / f"{value}.png")
    return folder


def test_search_by_hand(gallery):
    index = make_index(model(), gallery)
    assert len(index) == 5
    found = index.search(grey(100), k=3)
    assert [near.id for near in found] == ["120.png", "60.png", "180.png"]
    degrees = np.array([20, 40, 80]) / 255 * 90
    assert [near.similarity for near in found] == pytest.approx(np.cos(np.deg2rad(degrees)), abs=1e-6)
    assert index.search(gallery / "60.png", k=1)[0] == ("60.png", pytest.approx(1))
    assert len(index.search(grey(0), k=99)) == 5


def test_ids_are_what_was_given(gallery):
    paths = sorted(gallery.iterdir())
    assert make_index(model(), paths).ids == [str(path) for path in paths]
    assert make_index(model(), [grey(3), paths[0]]).ids == ["picture_0", str(paths[0])]
    assert len(make_index(model(), f"{gallery}/1*.png").ids) == 2


def test_ties_are_in_the_order_of_the_gallery():
    index = make_index(model(), [grey(9), grey(200), grey(9)], batch=2)
    assert [near.id for near in index.search(grey(9))] == ["picture_0", "picture_2", "picture_1"]


def test_saved_and_opened(gallery, tmp_path):
    index = make_index(model(), gallery)
    path = index.save(tmp_path / "new/gallery.safetensors")
    opened = open_index(model(), path)
    assert opened.ids == index.ids and np.array_equal(opened.vectors_ND, index.vectors_ND)
    assert opened.search(grey(100)) == index.search(grey(100))
    with pytest.raises(SpecError, match="saved as a .safetensors file"):
        index.save(tmp_path / "gallery.pkl")


def test_an_index_of_another_model_is_refused(gallery, tmp_path):
    path = make_index(model(), gallery).save(tmp_path / "g.safetensors")
    with pytest.raises(SpecError, match="made with another model"):
        open_index(model(lambda image: {"place": by_brightness(image)["place"].flip(1) * -1}), path)
    with pytest.raises(SpecError, match="of the task 'place', not of 'near'"):
        open_index(model(), path, "near")


@pytest.mark.parametrize("damage", ["format", "ids", "rows", "text"])
def test_what_is_no_index(gallery, tmp_path, damage):
    path = make_index(model(), gallery).save(tmp_path / "g.safetensors")
    tensors = load_file(path)
    told = {"format": "perceptkit-index-1", "task": "place", "ids": '["a", "b", "c", "d", "e"]'}
    if damage == "format":
        save_file(tensors, path)
    elif damage == "ids":
        save_file(tensors, path, metadata=told | {"ids": "["})
    elif damage == "rows":
        save_file(tensors, path, metadata=told | {"ids": '["a"]'})
    else:
        path.write_text("vectors")
    with pytest.raises(DataError, match=r"g\.safetensors"):
        open_index(model(), path)


def test_unreadable_pictures(gallery):
    (gallery / "100.png").write_text("no picture")
    with pytest.raises(DataError, match="100.png"):
        make_index(model(), gallery)
    told = []
    index = make_index(model(), gallery, on_unreadable=told.append, batch=2)
    assert len(told) == 1 and "100.png" not in index.ids
    assert index.search(gallery / "180.png", k=1)[0].id == "180.png"
    for nothing in ([], [gallery / "100.png"]):
        with pytest.raises(DataError, match="at least one picture"):
            make_index(model(), nothing, on_unreadable=told.append)


def test_which_embedding(gallery):
    with pytest.raises(SpecError, match="no task of type embedding; it has depth"):
        make_index(scripted(lambda image: {"depth": image[:, :1]}, "depth"), gallery)

    def both(image_BCHW):
        vector = by_brightness(image_BCHW)["place"]
        return {"place": vector, "near": F.normalize(vector.flip(1), dim=1)}

    several = scripted(both, place=PLACE, near=PLACE)
    with pytest.raises(SpecError, match="several embeddings; name one: place, near"):
        make_index(several, gallery)
    with pytest.raises(SpecError, match="'far' is none of its embeddings"):
        make_index(several, gallery, "far")
    assert make_index(several, gallery, "near").search(grey(0), k=1)[0].id == "0.png"


def test_k_is_at_least_1(gallery):
    with pytest.raises(ValueError, match="at least 1"):
        make_index(model(), gallery).search(grey(0), k=0)
