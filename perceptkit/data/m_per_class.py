"""Batches of m pictures of each class, for losses that compare the pictures of a batch.

Every batch has batch/m different classes. Chosen are those of whose pictures the smallest part had its turn, ties at
random, so that classes come as often as they have pictures; a class gives each of its pictures once before it gives any
again. Pictures without a label are one more class: they still train the other tasks. An epoch has as many batches as
without this, though not quite every picture; where a class has fewer than m pictures, some come twice in a batch.

Shapes: N pictures, C classes.
"""

from collections.abc import Sequence

import numpy as np

from perceptkit.errors import SpecError


def m_per_class_order(class_N: Sequence[int], m: int, batch: int, rng: np.random.Generator) -> np.ndarray:
    """Positions in `class_N`, as many as fill whole batches.

    Args:
        class_N: of the pictures, any whole numbers.
        m: pictures of a class in a batch.
        batch: pictures, a multiple of m.
        rng: decides everything.

    Raises SpecError where there are fewer classes than a batch takes.
    """
    _, class_of = np.unique(np.asarray(class_N), return_inverse=True)
    members = [np.flatnonzero(class_of == c) for c in range(int(class_of.max(initial=-1)) + 1)]
    refuse_few_classes(len(members), m, batch)
    sizes = np.array([len(of_class) for of_class in members])
    given = np.zeros(len(members), dtype=int)
    waiting: list[list[int]] = [[] for _ in members]
    order: list[int] = []
    for _ in range(len(class_of) // batch):
        chosen = np.lexsort((rng.random(len(members)), given / sizes))[: batch // m]
        for c in chosen:
            while len(waiting[c]) < m:
                waiting[c] += rng.permutation(members[c]).tolist()
            order += waiting[c][:m]
            waiting[c] = waiting[c][m:]
        given[chosen] += m
    return np.array(order, dtype=int)


def refuse_few_classes(count: int, m: int, batch: int, key: str = "m_per_class") -> None:
    """Raises SpecError where there are fewer classes than a batch takes."""
    if count < batch // m:
        raise SpecError(
            f"loader.{key}: a batch of {batch} takes {m} pictures of each of {batch // m} classes, and there are "
            f"{count}; raise {key.split('.')[-1]} or lower loader.batch"
        )
