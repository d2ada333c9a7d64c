"""Tiny-Taskonomy with AdaShare's lists (https://github.com/sunxm2357/AdaShare).

    ROOT/taskonomy.json     {"train": [[rgb, segmentsemantic, normal, depth_zbuffer, keypoints2d, edge_texture], ...],
                             "train1": ..., "train2": ..., "test": ..., "test_small": ...}, all of them PNG

The lists say BUILDING/DOMAIN/FILE.png; in the data set as it is hosted now that file is
DOMAIN/taskonomy/BUILDING/FILE.png. Where the first picture lies decides which of both is read.

    segmentsemantic   0 (unlabelled) counts as 1; less 1 this gives 17 classes
    normal            RGB, n = 2 * value / 255 - 1
    depth_zbuffer     uint16 d; log(1 + d) / log(2^16), invalid from 64500 on
    keypoints2d       uint16 d; d / 2^16, cut off at 0.005, from -1 to 1
    edge_texture      uint16 d; d / 2^16, cut off at 0.08, from -1 to 1
"""

from pathlib import Path, PurePosixPath

from perceptkit.spec.layouts import LISTED_PARTS, Entry, Layout, entries_of_list, read_lists
from perceptkit.spec.tasks_file import LayoutData

LISTS = "taskonomy.json"
FIELDS = ("rgb", "segmentsemantic", "normal", "depth_zbuffer", "keypoints2d", "edge_texture")
RESPONSES = {"keypoints2d": 0.005, "edge_texture": 0.08}
"""The largest value, of 2^16, that tells more."""
FARTHEST = 64500
DOMAINS = {"segmentation": "segmentsemantic", "normals": "normal", "depth": "depth_zbuffer"}


def hosted(path: str) -> str:
    """Where the data set as it is hosted now has a file of the lists.

    >>> hosted("allensville/rgb/point_0_view_0_domain_rgb.png")
    'rgb/taskonomy/allensville/point_0_view_0_domain_rgb.png'
    """
    parts = PurePosixPath(path).parts
    return path if len(parts) < 3 else str(PurePosixPath(parts[1], "taskonomy", parts[0], *parts[2:]))


def _entries(data: LayoutData, part: str) -> list[Entry]:
    entries = entries_of_list(data, LISTS, FIELDS, part)
    first = next((paths[0] for paths in read_lists(data, LISTS, FIELDS)[part]), None)
    if first is None or (data.root / first).is_file() or not (data.root / hosted(first)).is_file():
        return entries  # files that are absent either way are told as listed

    def moved(path: Path) -> Path:
        return data.root / hosted(path.relative_to(data.root).as_posix())

    return [
        Entry(entry.id, moved(entry.image), {field: moved(path) for field, path in entry.labels.items()})
        for entry in entries
    ]


TASKONOMY = Layout(
    name="Tiny-Taskonomy",
    is_here=lambda root: (root / LISTS).is_file(),
    expected=f"{LISTS}, which lists pictures",
    parts=LISTED_PARTS,
    entries=_entries,
    classes=(17,),
    types=("segmentation", "normals", "depth", "response"),
    label=lambda kind, target, classes: DOMAINS.get(kind) or str(target),
    lists=LISTS,
    depth="log16",
)
