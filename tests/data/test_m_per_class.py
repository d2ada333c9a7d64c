"""m pictures of each class in a batch: what follows from seed and epoch, and what does not fit."""

from collections import Counter

import numpy as np
import pytest

from perceptkit.data.loader import make_loader
from perceptkit.data.m_per_class import m_per_class_order
from perceptkit.errors import SpecError
from tests.data.conftest import NumberedSource, make_tasks

CLASSES = [0] * 20 + [7] * 10 + [-1] * 6 + [3] * 3 + [5]


def drawn(classes=CLASSES, m=2, batch=6, seed=0):
    order = m_per_class_order(classes, m, batch, np.random.default_rng(seed))
    return order.reshape(-1, batch)


@pytest.mark.parametrize(("m", "batch"), [(2, 6), (3, 6), (4, 8), (2, 10)])
def test_every_batch_has_m_of_each_of_its_classes(m, batch):
    batches = drawn(m=m, batch=batch)
    assert len(batches) == len(CLASSES) // batch
    for pictures in batches:
        counts = Counter(CLASSES[i] for i in pictures)
        assert set(counts.values()) == {m} and len(counts) == batch // m


def test_a_class_gives_all_its_pictures_before_it_gives_one_again():
    given = Counter(drawn([0] * 8 + [1] * 8, m=4, batch=8).ravel().tolist())
    assert given == dict.fromkeys(range(16), 1)
    counts = Counter(drawn().ravel().tolist())
    for label in set(CLASSES):
        times = [counts[i] for i, other in enumerate(CLASSES) if other == label]
        assert max(times) - min(times) <= 1


def test_classes_come_as_often_as_they_have_pictures():
    classes = [0] * 60 + [1] * 30 + [2] * 30
    counts = Counter(np.array(classes)[drawn(classes, m=2, batch=4).ravel()].tolist())
    assert counts[0] == pytest.approx(60, abs=4) and counts[1] == pytest.approx(30, abs=4)


def test_the_seed_decides():
    assert np.array_equal(drawn(), drawn())
    assert not np.array_equal(drawn(), drawn(seed=1))


def test_too_few_classes():
    with pytest.raises(SpecError, match="2 pictures of each of 3 classes, and there are 2"):
        drawn([0] * 9 + [1] * 9)


def ids(**changes):
    settings = {"batch": 6, "workers": 0, "augment": None, "mean": (0, 0, 0), "std": (1, 1, 1)}
    settings |= {
        "seed": 0,
        "epoch": 0,
        "shuffle": True,
        "drop_last": True,
        "m_per_class": 2,
        "classes": CLASSES,
    }
    source = NumberedSource(len(CLASSES))
    made = make_loader(source, range(len(source)), make_tasks(), **settings | changes)
    return [[int(i) for i in batch.ids] for batch in made]


def test_the_loader_resumes_and_shares_among_ranks():
    whole = ids()
    assert whole == ids() != ids(epoch=1)
    assert ids(start_batch=2) == whole[2:]
    ranks = [ids(batch=3, rank=rank, world_size=2) for rank in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*ranks, strict=True)] == [sorted(batch) for batch in whole]


def test_only_where_it_shuffles_and_among_its_own_indices():
    assert sum(ids(shuffle=False, drop_last=False), []) == list(range(len(CLASSES)))
    source, some = NumberedSource(len(CLASSES)), [3, 5, 21, 25, 30, 32]
    made = make_loader(
        source, some, make_tasks(), batch=4, workers=0, augment=None, mean=(0, 0, 0), std=(1, 1, 1), seed=0, epoch=0,
        shuffle=True, drop_last=True, m_per_class=2, classes=[CLASSES[i] for i in some],
    )  # fmt: skip
    (batch,) = list(made)
    assert {int(i) for i in batch.ids} <= set(some)
