"""Batches of several sources: their shares, and what follows from seed and epoch alone."""

from collections import Counter

import numpy as np
import pytest
import torch

from perceptkit.data.loader import make_loader
from perceptkit.data.mixed import Mixed, mixed_order
from tests.data.conftest import NumberedSource, make_tasks

SIZES = (12, 30, 6)
SOURCE_N = np.repeat(range(3), SIZES)


def drawn(weights=None, batch=8, seed=0, source_N=SOURCE_N):
    return mixed_order(source_N, weights, batch, np.random.default_rng(seed))


def given(order):
    return [int((SOURCE_N[order] == s).sum()) for s in range(3)]


def test_without_weights_every_picture_comes_once_and_batches_are_alike():
    order = drawn()
    assert sorted(order) == list(range(48))
    for batch in order.reshape(-1, 8):  # shares 2 : 5 : 1
        assert given(batch) == [2, 5, 1]


@pytest.mark.parametrize("weights", [[1, 1, 2], [0.1, 3, 1], [5, 1, 1]])
@pytest.mark.parametrize("batch", [4, 6, 16])
def test_weights_are_shares_of_every_stretch(weights, batch):
    order, total = drawn(weights, batch), sum(weights)
    assert len(order) == 48
    for end in range(batch, 49, batch):
        wanted = [w / total * end for w in weights]
        assert all(abs(g - w) < 1 + 1e-5 for g, w in zip(given(order[:end]), wanted, strict=True))


def test_a_source_gives_all_its_pictures_before_it_gives_one_again():
    counts = Counter(drawn([1, 1, 2]).tolist())
    for s in range(3):
        times = [counts[i] for i in np.flatnonzero(SOURCE_N == s)]
        assert max(times) - min(times) <= 1
    assert sum(counts[i] for i in np.flatnonzero(SOURCE_N == 2)) == 24  # of 6 pictures: each four times


def test_a_source_without_pictures_in_this_pass_gives_none():
    some = SOURCE_N[:12]
    assert sorted(drawn([1, 1, 2], source_N=some)) == list(range(12))
    assert given(drawn([1, 1, 2], source_N=np.array([0, 2] * 6)))  # 1 and 2 to 1, over both that are there
    counts = Counter(np.array([0, 2] * 6)[drawn([1, 1, 2], batch=6, source_N=[0, 2] * 6)].tolist())
    assert counts == {0: 4, 2: 8}


def test_the_seed_decides():
    assert np.array_equal(drawn(), drawn())
    assert not np.array_equal(drawn(), drawn(seed=1))


def mixed(weights=None):
    tasks = make_tasks(
        points={"type": "keypoints", "names": ["left", "right", "nose"]}, room={"type": "classification"}
    )
    parts = {"lab": NumberedSource(12), "field": NumberedSource(30), "home": NumberedSource(6)}
    for name, kept in (("lab", "points"), ("field", "room")):
        whole = parts[name].load
        parts[name].load = lambda i, _=False, whole=whole, kept=kept: only(whole(i), kept)
    tasks_of = {"lab": ["points"], "field": ["room"], "home": ["points", "room"]}
    return Mixed(parts, tasks_of, tasks, (8, 8), weights), tasks


def only(sample, task):
    sample.targets = {task: sample.targets[task]}
    return sample


def ids(weights=None, **changes):
    settings = {"batch": 8, "workers": 0, "augment": None, "mean": (0, 0, 0), "std": (1, 1, 1)}
    settings |= {"seed": 0, "epoch": 0, "shuffle": True, "drop_last": True}
    source, tasks = mixed()
    made = make_loader(
        source,
        range(len(source)),
        tasks,
        sources=source.source_N.tolist(),
        weights=weights,
        **settings | changes,
    )
    return [batch.ids for batch in made]


def test_ids_and_absent_labels():
    source, tasks = mixed()
    assert len(source) == 48 and len(set(source.ids)) == 48
    assert (source.ids[0], source.ids[12], source.ids[47]) == ("lab/000", "field/000", "home/005")
    sample = source.load(13)
    assert sample.id == "field/001" and sample.targets["room"] == 1 and list(sample.targets) == list(tasks)
    assert not tasks["points"].is_labelled(torch.from_numpy(sample.targets["points"])[None]).any()
    assert not tasks["room"].is_labelled(torch.from_numpy(source.load(0).targets["room"])[None]).any()
    assert all(target is not None for target in source.load(47).targets.values())
    assert source.label(0, "room") == -1  # the lab has no rooms


@pytest.mark.parametrize("weights", [None, [1, 1, 1]])
def test_the_loader_resumes_and_shares_among_ranks(weights):
    whole = ids(weights)
    assert whole == ids(weights) != ids(weights, epoch=1)
    assert ids(weights, start_batch=2) == whole[2:]
    ranks = [ids(weights, batch=4, rank=rank, world_size=2) for rank in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*ranks, strict=True)] == [sorted(batch) for batch in whole]


def test_workers_change_nothing():
    assert ids([1, 1, 1], workers=1) == ids([1, 1, 1])
