"""Class folders are found as torchvision finds them."""

from pathlib import Path

import pytest

from perceptkit.errors import DataError
from perceptkit.spec.class_folders import class_folders, pictures_of_class
from tests.listed_files import save


def test_visible_folders_in_the_order_of_their_names(tmp_path):
    for name in ("10", "9", "Bird", "ant", ".cache"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes.txt").touch()
    assert class_folders(tmp_path) == ["10", "9", "Bird", "ant"]
    assert class_folders(tmp_path / "nothing") == []


def test_pictures_at_any_depth_with_any_spelling_of_their_ending(tmp_path):
    for name in ("b.JPG", "a.png", "deep/er/c.webp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("notes.txt", ".hidden.png", "labels.npy"):
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in pictures_of_class(tmp_path)]
    assert found == ["a.png", "b.JPG", "deep/er/c.webp"]


def test_links_are_followed_but_not_in_circles(tmp_path):
    save(tmp_path / "elsewhere/a.png")
    (tmp_path / "class").mkdir()
    (tmp_path / "class/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "class")
    assert [path.name for path in pictures_of_class(Path(tmp_path / "class"))] == ["a.png"]


def test_a_link_to_itself_is_no_folder(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "bird").mkdir()
    assert class_folders(tmp_path) == ["bird"] and pictures_of_class(tmp_path) == []


def test_a_folder_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="gone cannot be read: No such file or directory"):
        pictures_of_class(tmp_path / "gone")
