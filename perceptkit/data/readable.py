"""`data.on_bad: skip`: a split without the pictures that cannot be read.

All pictures are read once before anything is trained, so that which are left out depends on the files alone: not on
workers, ranks, order or augmentation. Without them a split is as if they had never been in it.
"""

from collections.abc import Mapping, Sequence

from perceptkit.data.decoded import DecodedSource
from perceptkit.data.sample import Sample
from perceptkit.errors import DataError
from perceptkit.spec.scan import scan


def unreadable(source: DecodedSource, title: str, progress: bool = False) -> dict[str, str]:
    """The pictures that cannot be read, or whose labels cannot: the reason by id, in the source's order.

    Each is decoded as for training, in threads, and not kept: what is refused here is what training would stop at.

    Args:
        source: one split.
        title: of the progress bar.
        progress: show one.
    """

    def refused(index: int) -> str | None:
        try:
            source.decode(index)
        except DataError as error:
            return str(error)
        return None

    reasons = scan(range(len(source)), refused, title, progress)
    return {image_id: why for image_id, why in zip(source.ids, reasons, strict=True) if why is not None}


class Readable:
    """A split without some of its pictures; the others keep their order.

    Args:
        source: the whole split.
        left_out: ids, each with the reason.
        name: of the split, for messages.

    Raises DataError where no picture is left.
    """

    def __init__(self, source: DecodedSource, left_out: Mapping[str, str], name: str) -> None:
        self.source = source
        self.kept = [i for i, image_id in enumerate(source.ids) if image_id not in left_out]
        self.ids: Sequence[str] = [source.ids[i] for i in self.kept]
        if not self.kept:
            reason = next(iter(left_out.values()))
            raise DataError(f"{name}: none of its {len(source)} pictures can be read; the first: {reason}")

    def __len__(self) -> int:
        return len(self.kept)

    def load(self, index: int, whole: bool = False) -> Sample:
        """One of the pictures that are left."""
        return self.source.load(self.kept[index], whole)

    def label(self, index: int, task: str) -> int:
        """The class or id of one of the pictures that are left, -1 without."""
        return self.source.label(self.kept[index], task)
