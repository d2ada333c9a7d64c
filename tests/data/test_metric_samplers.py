"""Samplers of pytorch-metric-learning: what their order holds, and that seed and epoch alone decide it."""

import random
from collections import Counter

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from pytorch_metric_learning import samplers
from pytorch_metric_learning.utils import common_functions

from perceptkit.data.loader import make_loader
from perceptkit.data.metric_samplers import sampler_order
from perceptkit.errors import SpecError
from perceptkit.spec.metric_learning import (
    REFUSED_SAMPLERS,
    FixedSetOfTriplets,
    MPerClassSampler,
    SamplerSpec,
)
from tests.data.conftest import NumberedSource, make_tasks

CLASSES = [0] * 20 + [7] * 10 + [-1] * 6 + [3] * 3 + [5]
TWO_EACH = MPerClassSampler(name="MPerClassSampler", m=2)
TRIPLETS = FixedSetOfTriplets(name="FixedSetOfTriplets", num_triplets=5)
BOTH = pytest.mark.parametrize("sampler", [TWO_EACH, TRIPLETS], ids=lambda sampler: sampler.name)


def drawn(sampler=TWO_EACH, classes=CLASSES, batch=6, seed=0, epoch=0):
    return sampler_order(sampler, classes, batch, seed, epoch).reshape(-1, batch)


def test_names_are_those_of_the_library():
    ours = set(TypeAdapter(SamplerSpec).json_schema()["discriminator"]["mapping"])
    assert ours | set(REFUSED_SAMPLERS) == {
        n for n, found in vars(samplers).items() if isinstance(found, type)
    }
    assert not ours & set(REFUSED_SAMPLERS)


@pytest.mark.parametrize(("m", "batch"), [(2, 6), (3, 6), (4, 8), (2, 10)])
def test_every_batch_has_m_of_each_of_its_classes(m, batch):
    batches = drawn(MPerClassSampler(name="MPerClassSampler", m=m), batch=batch)
    assert len(batches) == len(CLASSES) // batch
    for pictures in batches:
        counts = Counter(CLASSES[i] for i in pictures)
        assert set(counts.values()) == {m} and len(counts) == batch // m


def triplets(**changes):
    return [tuple(row) for row in drawn(TRIPLETS, **changes).reshape(-1, 3).tolist()]


def test_triplets_are_two_of_a_class_and_one_of_another():
    for anchor, positive, negative in triplets():
        assert CLASSES[anchor] == CLASSES[positive] != CLASSES[negative]


def test_triplets_are_the_same_in_every_epoch_and_repeated_where_they_are_few():
    first, second = triplets(), triplets(epoch=1)
    assert len(first) == 36 // 3 and first != second  # 40 pictures are 6 batches
    assert set(first) == set(second) == set(first[:5]) and len(set(first)) == 5
    assert set(first[5:10]) == set(first)
    assert set(triplets(seed=1)) != set(first)


def test_more_triplets_than_an_epoch_takes():
    many = FixedSetOfTriplets(name="FixedSetOfTriplets", num_triplets=50)
    seen = [set(map(tuple, drawn(many, epoch=epoch).reshape(-1, 3).tolist())) for epoch in range(40)]
    assert all(len(some) <= 12 for some in seen) and 12 < len(set().union(*seen)) <= 50


@BOTH
def test_seed_and_epoch_decide(sampler):
    assert np.array_equal(drawn(sampler), drawn(sampler))
    assert not np.array_equal(drawn(sampler), drawn(sampler, seed=1))
    assert not np.array_equal(drawn(sampler), drawn(sampler, epoch=1))


@BOTH
def test_nothing_else_is_drawn_from_or_changed(sampler):
    first = drawn(sampler)
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
        assert np.array_equal(drawn(sampler), first)
        assert random.getstate() == before[0]
        assert np.array_equal(np.random.get_state()[1], before[1]) and torch.equal(
            torch.get_rng_state(), before[2]
        )
    assert common_functions.NUMPY_RANDOM is np.random


def test_the_generator_of_the_library_is_back_after_an_error(monkeypatch):
    def fails(self):
        raise RuntimeError("no order")

    monkeypatch.setattr(samplers.MPerClassSampler, "__iter__", fails)
    with pytest.raises(RuntimeError, match="no order"):
        drawn()
    assert common_functions.NUMPY_RANDOM is np.random


def test_too_few_classes():
    with pytest.raises(
        SpecError, match="loader.sampler.m: a batch of 6 takes 2 .* 3 classes, and there are 2; raise m or"
    ):
        drawn(classes=[0] * 9 + [1] * 9)
    with pytest.raises(SpecError, match="loader.sampler: triplets are of 2 classes, and there are 1"):
        drawn(TRIPLETS, classes=[4] * 9)


def test_fewer_pictures_than_a_batch():
    assert drawn(TRIPLETS, classes=[0, 1], batch=6).shape == (0, 6)


def ids(sampler, **changes):
    settings = {"batch": 6, "workers": 0, "augment": None, "mean": (0, 0, 0), "std": (1, 1, 1)}
    settings |= {"seed": 0, "epoch": 0, "shuffle": True, "drop_last": True, "classes": CLASSES}
    source = NumberedSource(len(CLASSES))
    made = make_loader(source, range(len(source)), make_tasks(), sampler=sampler, **settings | changes)
    return [[int(i) for i in batch.ids] for batch in made]


@BOTH
def test_the_loader_resumes_and_shares_among_ranks_and_workers(sampler):
    whole = ids(sampler)
    assert whole == drawn(sampler).tolist() == ids(sampler, workers=2) != ids(sampler, epoch=1)
    assert ids(sampler, start_batch=2) == whole[2:]
    ranks = [ids(sampler, batch=3, rank=rank, world_size=2) for rank in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*ranks, strict=True)] == [sorted(batch) for batch in whole]


def test_only_where_it_shuffles():
    assert sum(ids(TWO_EACH, shuffle=False, drop_last=False), []) == list(range(len(CLASSES)))
