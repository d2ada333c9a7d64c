"""Templates: ids from files, and back."""

from pathlib import Path

import pytest

from perceptkit.spec.templates import faults, has_images, image_ids


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_ids_are_sorted_and_whole(tmp_path):
    touch(tmp_path, "a/2_rgb.png", "a/10_rgb.png", "a/2_depth.png", "a/x.txt", "b/3_rgb.png", "a/.1_rgb.png")
    assert image_ids(tmp_path, "{split}/{id}_rgb.png", "a") == ["10", "2"]


def test_an_id_that_names_a_folder_and_a_file(tmp_path):
    touch(tmp_path, "a/1/1.png", "a/2/3.png", "a/4/rgb.png")
    assert image_ids(tmp_path, "{split}/{id}/{id}.png", "a") == ["1"]
    assert image_ids(tmp_path, "{split}/{id}/rgb.png", "a") == ["4"]


def test_special_characters_and_absolute_templates(tmp_path):
    touch(tmp_path, "a[1]/x.png", "a1/y.png")
    assert image_ids(tmp_path, "{split}/{id}.png", "a[1]") == ["x"]
    assert image_ids(Path("elsewhere"), f"{tmp_path}/a1/{{id}}.png", "") == ["y"]
    assert image_ids(tmp_path / "a1", "../a1/{id}.png", "") == ["y"]


def test_nothing_there(tmp_path):
    assert image_ids(tmp_path, "{split}/{id}.png", "a") == [] and not has_images(tmp_path, "{id}.png", "")


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("{split}/{id}.png", 0), ("{ids}.png", 1), ("{split}/{0}", 1), ("{id", 1),
        ("id}", 1), ("{}", 1), ("", 0),
    ],
)  # fmt: skip
def test_faults(template, found):
    assert len(faults(template)) == found


def test_a_template_may_lead_out_of_the_root(tmp_path):
    """Labels that are kept elsewhere than the pictures; which files are read is the tasks file's to say."""
    (tmp_path / "root").mkdir()
    (tmp_path / "labels/train").mkdir(parents=True)
    (tmp_path / "labels/train/7.png").touch()
    assert image_ids(tmp_path / "root", "../labels/{split}/{id}.png", "train") == ["7"]
