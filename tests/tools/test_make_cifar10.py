"""tools/make_cifar10.py: a tiny archive becomes what tasks/cifar10.yaml declares; what it refuses."""

import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))  # scripts, not a package

import make_cifar10
from PIL import Image

from perceptkit.cli import main as perceptkit

TASKS = Path(__file__).parents[2] / "tasks/cifar10.yaml"
OF_EACH = {"train": 10, "test": 3}


@pytest.fixture
def folder(tmp_path):
    """Ten training and three test pictures of each class."""
    root = tmp_path / "source"
    for part, count in OF_EACH.items():
        for place, label in enumerate(make_cifar10.CLASSES):
            (root / part / label).mkdir(parents=True)
            for number in range(count):
                picture = Image.new("RGB", (32, 32), (20 * number, 20 * place, 40 * len(part)))
                picture.save(root / part / label / f"{number:04d}.jpg")
    return root


@pytest.fixture
def archive(folder):
    return zipped(folder)


def zipped(folder: Path) -> Path:
    """The folder as a .zip, in an order that is not the alphabet's."""
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            archive.write(file, file.relative_to(folder))
    return path


def make(source: Path, out: Path, *options: str) -> int:
    return make_cifar10.main([str(source), str(out), *options])


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.*")}


def test_the_set_passes_check(archive, tmp_path, capsys):
    out = tmp_path / "new" / "cifar10"
    assert make(archive, out) == 0
    assert capsys.readouterr().out == f"{out}: 90 of train, 10 of val, 30 of test\n"
    assert perceptkit(["check", str(TASKS), "--set", f"data.root={out}"]) == 0
    checked = capsys.readouterr().out
    assert checked.endswith("ok\n") and "warning" not in checked
    assert list(out.parent.iterdir()) == [out]


def test_files_are_copied_bit_for_bit(folder, archive, tmp_path):
    out = tmp_path / "cifar10"
    assert make(archive, out) == 0
    pictures = {path.name: path.read_bytes() for path in out.rglob("*.jpg")}
    wanted = {
        f"{path.parts[-3]}-{path.stem}-{path.parts[-2]}.jpg": path.read_bytes()
        for path in folder.rglob("*.jpg")
    }
    assert pictures == wanted
    assert all(name.startswith("test-") for name in (path.name for path in (out / "images/test").iterdir()))


def test_a_folder_gives_what_its_archive_gives(folder, archive, tmp_path):
    assert make(folder, tmp_path / "a") == make(archive, tmp_path / "b") == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_every_split_has_each_class_and_sorted_ids_mix_them(archive, tmp_path):
    make(archive, tmp_path / "out", "--val", "0.3")
    labels = dict(line.split(",") for line in (tmp_path / "out/labels.csv").read_text().splitlines()[1:])
    assert len(labels) == 130
    for split, of_each in {"train": 7, "val": 3, "test": 3}.items():
        ids = sorted(path.stem for path in (tmp_path / "out/images" / split).iterdir())
        counts = Counter(labels[image_id] for image_id in ids)
        assert counts == dict.fromkeys(make_cifar10.CLASSES, of_each)
        assert len({labels[image_id] for image_id in ids[:10]}) > 3


def test_the_seed_decides_which_pictures_validate(archive, tmp_path):
    val = {}
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        make(archive, tmp_path / name, "--val", "0.3", "--seed", seed)
        val[name] = {path.name for path in (tmp_path / name / "images/val").iterdir()}
    assert val["a"] == val["b"] != val["c"]


def test_the_task_file_declares_its_classes():
    assert yaml.safe_load(TASKS.read_text())["tasks"]["label"]["classes"] == list(make_cifar10.CLASSES)


def test_a_folder_around_it_and_hidden_files_are_no_matter(folder, tmp_path):
    (folder / "train/cat/._0001.jpg").write_bytes(b"resource fork")
    (folder / "train/cat/readme.txt").touch()
    assert make(folder.parent, tmp_path / "out") == 0
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == 130


def test_another_ending_is_told(folder, tmp_path, capsys):
    for path in folder.rglob("*.jpg"):
        path.rename(path.with_suffix(".png"))
    assert make(folder, tmp_path / "out") == 0
    assert "--set 'data.image=images/{split}/{id}.png'" in capsys.readouterr().out


def remove_ships(folder: Path) -> None:
    for path in (folder / "test/ship").iterdir():
        path.unlink()


def add_boats(folder: Path) -> None:
    (folder / "train/ship").rename(folder / "train/boat")


def mix_endings(folder: Path) -> None:
    (folder / "train/cat/0001.jpg").rename(folder / "train/cat/0001.png")


def repeat(folder: Path) -> None:
    (folder / "again/train/cat").mkdir(parents=True)
    (folder / "again/train/cat/0001.jpg").touch()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (remove_ships, "holds no test/ship/*.jpg; expected train/CLASS/ and test/CLASS/ of all ten classes"),
        (add_boats, "train/boat/"),
        (mix_endings, "all pictures must have one ending"),
        (repeat, "would get the same name"),
    ],
)
def test_other_layouts_are_refused_in_one_line(folder, tmp_path, capsys, spoil, said):
    spoil(folder)
    for source in (folder, zipped(folder)):
        assert make(source, tmp_path / "out") == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("share", ["0", "1", "0.01", "nan"])
def test_a_share_that_leaves_a_split_empty(archive, tmp_path, capsys, share):
    assert make(archive, tmp_path / "out", "--val", share) == 2
    assert capsys.readouterr().err == f"--val {share} of 10 pictures of airplane: train and val need some\n"


def test_sources_that_cannot_be_read(archive, tmp_path, capsys):
    assert make(tmp_path / "absent.zip", tmp_path / "out") == 2
    assert capsys.readouterr().err.endswith("No such file or directory; expected a .zip or a folder\n")
    (tmp_path / "text.zip").write_text("no archive")
    assert make(tmp_path / "text.zip", tmp_path / "out") == 2
    assert capsys.readouterr().err.endswith("not a zip archive; expected a .zip or a folder\n")
    assert make(archive, tmp_path / "out", "--seed", "-1") == 2
    assert capsys.readouterr().err == "--seed -1: expected 0 or more\n"


def test_a_damaged_archive_leaves_nothing_behind(archive, tmp_path, capsys):
    whole = bytearray(archive.read_bytes())
    whole[60:200] = bytes(140)  # in the first file: the directory at the end is sound
    archive.write_bytes(whole)
    assert make(archive, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "cannot be read" in error and error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "source.zip"]


def test_a_folder_that_holds_something_is_refused(archive, tmp_path, capsys):
    assert make(archive, tmp_path) == 2
    assert "is not an empty folder" in capsys.readouterr().err
