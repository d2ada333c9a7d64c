"""CUDA graphs: a network's kernels recorded once per shape and replayed without Python in between.

A graph reads and writes fixed memory, so an input is copied in, and results are copied out before the next replay
overwrites them. What records is passed in: the logic around it is the same, and tested, without a GPU.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from perceptkit.compact.verify import Forward

Recording = tuple[Callable[[], None], Mapping[str, Tensor]]
"""What replays, and the outputs it fills."""


class GraphedForward:
    """`forward` by graphs, one for each shape of image.

    Args:
        forward: image (B, 3, H, W) -> {task: output}, without any decision of Python's that depends on values.
        record: (forward, image of its own) -> a Recording that reads this image.
        limit: shapes that are recorded; further ones run without a graph, as each holds memory of its own.
    """

    def __init__(
        self,
        forward: Forward,
        record: Callable[[Forward, Tensor], Recording] | None = None,
        limit: int = 8,
    ) -> None:
        self.forward, self.limit = forward, limit
        self.record = record or record_on_cuda
        self.graphs: dict[tuple[int, ...], tuple[Tensor, Recording]] = {}

    def __call__(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        shape = tuple(image_BCHW.shape)
        if shape not in self.graphs:
            if len(self.graphs) >= self.limit:
                return dict(self.forward(image_BCHW))
            own = image_BCHW.clone()
            self.graphs[shape] = (own, self.record(self.forward, own))
        own, (replay, outputs) = self.graphs[shape]
        own.copy_(image_BCHW)
        replay()
        return {name: value.clone() for name, value in outputs.items()}


def record_on_cuda(forward: Forward, image_BCHW: Tensor) -> Recording:
    """Warms up on a stream of its own, as CUDA wants it, and records one pass."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            forward(image_BCHW)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = forward(image_BCHW)
    return graph.replay, outputs
