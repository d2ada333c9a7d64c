"""The pictures of `source: folder`."""

from pathlib import Path

from perceptkit.spec.excluded import kept
from perceptkit.spec.listed import thinned
from perceptkit.spec.tasks_file import FolderData, Split
from perceptkit.spec.templates import image_ids


def folder_ids(data: FolderData, split: Split) -> list[str]:
    """The ids of one split, sorted, thinned to `limit` and without those that are excluded."""
    found = image_ids(Path(data.root), data.image, data.splits.get(split, split))
    return kept(thinned(found, data.limit, split), str, data, split)
