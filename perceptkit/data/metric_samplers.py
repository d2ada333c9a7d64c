"""Orders of pictures by samplers of pytorch-metric-learning, that follow from seed and epoch alone.

Musgrave, Belongie, Lim. *PyTorch Metric Learning.* 2020. https://arxiv.org/abs/2008.09164

The library draws from one generator that all of its code shares; here it gets another for as long as it draws. The
whole epoch is drawn at once, in whole batches of all ranks, so that ranks and workers share it as they do any order.
Pictures without a label are one more class, as with `loader.m_per_class`.

Shapes: N pictures.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from perceptkit.data.m_per_class import refuse_few_classes
from perceptkit.errors import SpecError
from perceptkit.spec.metric_learning import MPerClassSampler, SamplerSpec


def sampler_order(
    sampler: SamplerSpec, class_N: Sequence[int], batch: int, seed: int, epoch: int
) -> np.ndarray:
    """Positions in `class_N`, as many as fill whole batches.

    Args:
        sampler: its name and arguments.
        class_N: of the pictures, any whole numbers.
        batch: pictures, of all ranks.
        seed, epoch: decide the order; a fixed set is the seed's alone.

    Raises SpecError where there are fewer classes than a batch takes.
    """
    from pytorch_metric_learning import samplers

    refuse_few_for(sampler, len(np.unique(class_N)), batch)
    length = len(class_N) // batch * batch
    if length == 0:
        return np.zeros(0, dtype=int)
    given: dict[str, Any] = {"labels": np.asarray(class_N)}
    if isinstance(sampler, MPerClassSampler):
        given |= {"batch_size": batch, "length_before_new_iter": length}
    kind: Any = getattr(samplers, sampler.name)
    with _drawing_from(np.random.default_rng([seed, 0x7219])):
        made = kind(**given, **sampler.model_dump(exclude={"name"}))
    order: list[int] = []
    with _drawing_from(np.random.default_rng([seed, epoch])):
        while len(order) < length:
            order += made
    return np.array(order[:length], dtype=int)


def refuse_few_for(sampler: SamplerSpec, count: int, batch: int) -> None:
    """Raises SpecError where there are fewer classes than a batch takes."""
    if isinstance(sampler, MPerClassSampler):
        refuse_few_classes(count, sampler.m, batch, "sampler.m")
    elif count < 2:
        raise SpecError(f"loader.sampler: triplets are of 2 classes, and there are {count}; drop the key")


@contextmanager
def _drawing_from(rng: np.random.Generator) -> Iterator[None]:
    """All that the library draws comes from `rng`."""
    from pytorch_metric_learning.utils import common_functions

    library: Any = common_functions
    before = library.NUMPY_RANDOM
    library.NUMPY_RANDOM = rng
    try:
        yield
    finally:
        library.NUMPY_RANDOM = before
