"""A model an application runs: pictures in, results in the picture's own size and the user's units out."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from perceptkit.compact import build
from perceptkit.compact.artifact import Manifest
from perceptkit.compact.export import export_network
from perceptkit.compact.optimize import check_optimize
from perceptkit.compact.verify import Forward
from perceptkit.errors import DataError, ExportError
from perceptkit.runtime.pictures import Picture, read_picture, to_input
from perceptkit.runtime.result import Result

Place: TypeAlias = Callable[[torch.nn.Module, Manifest], Forward]
"""Makes the forward of a network and what its manifest says."""


class Predictor:
    """Runs a compact model.

    Args:
        manifest: what the model is.
        forward: normalised image (B, 3, H, W) -> {task: output}, on the CPU or wherever it likes.
        network: the torch module behind `forward`, where there is one.
        place: makes the `forward` of this network rearranged; it stays where it is without.
    """

    def __init__(
        self,
        manifest: Manifest,
        forward: Forward,
        network: torch.nn.Module | None = None,
        place: Place | None = None,
    ) -> None:
        self.manifest, self.forward, self.network, self.place = manifest, forward, network, place
        self.tasks = dict(manifest.tasks)

    def predict(self, picture: Picture) -> Result:
        """One picture of any size: a path, a PIL picture or an RGB uint8 array (H, W, 3).

        Raises DataError where the picture cannot be read, or is none.
        """
        return next(self.stream([picture], batch=1))

    def predict_many(self, pictures: Sequence[Picture], batch: int = 8) -> list[Result]:
        """Several pictures, `batch` of them in one pass."""
        return list(self.stream(pictures, batch))

    def stream(
        self,
        pictures: Iterable[Picture],
        batch: int = 8,
        on_unreadable: Callable[[DataError], None] | None = None,
    ) -> Iterator[Result]:
        """Results in the order of the pictures, lazily, each with a name of its own to save it under.

        Takes any iterable, an endless one too, as the frames of a video: no more than `batch` pictures are read ahead
        of the result that was asked for; `batch=1` gives each result before the next picture is taken. Names of paths
        that occur again are numbered, so an endless stream of paths keeps their names in memory; frames have none.

        Args:
            pictures: paths, PIL pictures or RGB uint8 arrays (H, W, 3).
            batch: pictures in one pass.
            on_unreadable: is told of a picture that cannot be read, which is then left out.

        Raises:
            DataError: a picture cannot be read, and there is no `on_unreadable`; what was read before it came first.
        """
        # Reading ahead in a thread was measured and left out: of 480x640 frames, preparing takes 2 % of the CPU time.
        if batch < 1:
            raise ValueError(f"batch must be at least 1, not {batch}")
        remaining = enumerate(pictures)
        taken: Counter[str] = Counter()
        while group := list(islice(remaining, batch)):
            images: list[np.ndarray] = []
            names: list[str] = []
            for i, picture in group:
                name = _name(picture, i, taken)
                try:
                    images.append(read_picture(picture))
                except DataError as error:
                    if on_unreadable is None:
                        if images:  # what was read before it is not lost
                            yield from self._run(images, names)
                        raise
                    on_unreadable(error)
                else:
                    names.append(name)
            if images:
                yield from self._run(images, names)

    @torch.inference_mode()
    def _run(self, images: list[np.ndarray], names: list[str]) -> Iterator[Result]:
        m = self.manifest
        batch = torch.cat([to_input(image, m.size_HW, m.mean, m.std, m.fit) for image in images])
        outputs = {name: output.float().cpu() for name, output in self.forward(batch).items()}
        for i, (image, name) in enumerate(zip(images, names, strict=True)):
            size_HW = (image.shape[0], image.shape[1])
            predictions = {
                task: self.tasks[task].decode(outputs[task][i : i + 1], size_HW, m.size_HW)
                for task in self.tasks
            }
            yield Result(image, predictions, self.tasks, name)

    def optimized(self, optimize: str) -> "Predictor":
        """The same model, arranged for `latency` or `size`, on the same device, with the same executor.

        Raises ExportError where it was itself loaded from an exported file, or cannot be arranged so any more.
        """
        network, manifest = build.rearrange(self.exportable(), self.manifest, check_optimize(optimize))
        forward = network if self.place is None else self.place(network, manifest)
        return Predictor(manifest, forward, network, self.place)

    def export(
        self, path: str | Path, format: str = "onnx", precision: str = "32", device: str = "cpu"
    ) -> Path:
        """Writes the model in another format and proves that it computes the same.

        Args:
            path: file, or folder (`artifact`), to write.
            format: one of `perceptkit.compact.export.FORMATS`.
            precision: `32`, `bf16` or `fp16`: what the file computes in.
            device: what `aoti` compiles for.

        Raises:
            SpecError: an unknown or impossible choice.
            ExportError: this model was itself loaded from an exported file, or the proof failed.
        """
        return export_network(self.exportable(), self.manifest, Path(path), format, precision, device)

    def exportable(self) -> torch.nn.Module:
        """The network. Raises ExportError where there is none: in a model from an exported file."""
        if self.network is None:
            raise ExportError(
                "a model loaded from an exported file cannot be exported again; load its artifact"
            )
        return self.network


def _name(picture: Picture, index: int, taken: Counter[str]) -> str:
    """A file's stem, made different from all before it: a/1.png and b/1.png are 1 and 1_2.

    No dots: they separate the parts of file names in `Result.save`, so a_seg.png is not taken for the `seg` of a.png.
    """
    if not isinstance(picture, str | Path):
        return f"picture_{index}"
    stem = name = Path(picture).stem.replace(".", "_")
    while taken[name]:
        taken[stem] += 1
        name = f"{stem}_{taken[stem]}"
    taken[name] += 1
    return name
