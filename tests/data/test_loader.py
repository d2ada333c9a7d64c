"""What a step sees follows from (seed, epoch, index): not from workers, ranks or where one started."""

import numpy as np
import pytest
import torch

from perceptkit.data.loader import auto_workers, make_loader, split_indices
from perceptkit.errors import DataError
from perceptkit.spec.recipe import AugmentSpec
from tests.data.conftest import NumberedSource, make_tasks

AUGMENT = AugmentSpec(
    hflip=0.5,
    rotate=30,
    zoom=(0.8, 1.25),
    photometric=[
        {"name": "RandomBrightnessContrast"},
        {"name": "GaussNoise", "args": {"p": 0.9, "std_range": [0.1, 0.2]}},
    ],
)


def batches(count=10, source=None, **changes):
    settings = {
        "batch": 4,
        "workers": 0,
        "augment": None,
        "mean": (0, 0, 0),
        "std": (1 / 255,) * 3,
        "seed": 0,
        "epoch": 0,
        "shuffle": True,
        "drop_last": False,
    }
    source = source or NumberedSource(count)
    return list(make_loader(source, range(len(source)), make_tasks(), **settings | changes))


def order(made):
    return [[int(i) for i in batch.ids] for batch in made]


def equal(a, b):
    return (
        a.ids == b.ids
        and torch.equal(a.image_BCHW, b.image_BCHW)
        and a.targets.keys() == b.targets.keys()
        and all(torch.equal(a.targets[name], b.targets[name]) for name in a.targets)
    )


def test_every_picture_once_with_its_own_target():
    made = batches()
    assert sorted(sum(order(made), [])) == list(range(10))
    for batch in made:
        numbers = torch.tensor([float(i) for i in batch.ids])
        assert torch.equal(batch.image_BCHW[:, 0, 0, 0].round(), numbers)
        assert torch.equal(batch.targets["room"], (numbers % 3).long())


def test_order_follows_from_seed_and_epoch():
    assert order(batches(20)) == order(batches(20))
    assert order(batches(20)) != order(batches(20, epoch=1))
    assert order(batches(20)) != order(batches(20, seed=1))


def test_the_global_generators_play_no_part():
    first = batches(augment=AUGMENT)
    np.random.seed(123)
    torch.manual_seed(123)
    state = torch.get_rng_state()
    again = batches(augment=AUGMENT)
    assert all(map(equal, first, again))
    batches(workers=1)
    assert torch.equal(torch.get_rng_state(), state)  # whatever follows draws the same, too


def test_without_shuffling_the_order_is_that_of_the_indices():
    assert order(batches(shuffle=False)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    made = make_loader(
        NumberedSource(10),
        [7, 3, 5],
        make_tasks(),
        batch=2,
        workers=0,
        augment=None,
        mean=(0,) * 3,
        std=(1,) * 3,
        seed=0,
        epoch=0,
        shuffle=False,
        drop_last=False,
    )
    assert order(made) == [[7, 3], [5]]


def test_drop_last():
    assert [len(batch.ids) for batch in batches(drop_last=True)] == [4, 4]
    assert [len(batch.ids) for batch in batches(drop_last=False)] == [4, 4, 2]
    assert [len(batch.ids) for batch in batches(8, drop_last=True)] == [4, 4]
    assert batches(3, drop_last=True) == []


def test_two_ranks_see_the_doubled_batches_of_one_process():
    one = batches(21, batch=8, drop_last=True, augment=AUGMENT)
    ranks = [batches(21, batch=4, drop_last=True, augment=AUGMENT, rank=r, world_size=2) for r in (0, 1)]
    assert len(one) == len(ranks[0]) == len(ranks[1]) == 2
    for whole, first, second in zip(one, *ranks, strict=True):
        assert len(first.ids) == len(second.ids) == 4
        for rank, part in enumerate((first, second)):
            assert part.ids == whole.ids[rank::2]
            assert torch.equal(part.image_BCHW, whole.image_BCHW[rank::2])
            for name in whole.targets:
                assert torch.equal(part.targets[name], whole.targets[name][rank::2])


def test_two_ranks_evaluate_every_picture_once():
    ranks = [batches(9, batch=2, shuffle=False, rank=r, world_size=2) for r in (0, 1)]
    assert sorted(sum(order(ranks[0]) + order(ranks[1]), [])) == list(range(9))


def test_start_batch_resumes():
    whole = batches(augment=AUGMENT)
    rest = batches(augment=AUGMENT, start_batch=1)
    assert len(rest) == len(whole) - 1 == 2
    assert all(map(equal, rest, whole[1:]))
    assert batches(start_batch=3) == []


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_change_nothing(workers):
    alone = batches(augment=AUGMENT)
    helped = batches(augment=AUGMENT, workers=workers)
    assert len(alone) == len(helped) == 3
    assert all(map(equal, alone, helped))
    later = batches(augment=AUGMENT, workers=workers, start_batch=2)
    assert all(map(equal, later, alone[2:])) and len(later) == 1


def test_augmentation_follows_from_seed_epoch_and_index():
    one, again = batches(augment=AUGMENT, shuffle=False), batches(augment=AUGMENT, shuffle=False, batch=1)
    assert torch.equal(torch.cat([b.image_BCHW for b in one]), torch.cat([b.image_BCHW for b in again]))
    other = batches(augment=AUGMENT, shuffle=False, epoch=1)
    assert not torch.equal(one[0].image_BCHW, other[0].image_BCHW)
    assert not torch.equal(one[0].targets["points"], other[0].targets["points"])
    other = batches(augment=AUGMENT, shuffle=False, seed=1)
    assert not torch.equal(one[0].targets["points"], other[0].targets["points"])


def test_augmentation_moves_picture_and_points():
    (batch,) = batches(4, batch=4, augment=AugmentSpec(hflip=1.0), shuffle=False)
    # width 8: x -> 7 - x, and left becomes right
    assert batch.targets["points"][:, 1, 0].tolist() == [7, 6, 5, 4]


class Broken(NumberedSource):
    def load(self, index, whole=False):
        if index == 2:
            raise DataError("images/2.png: not a readable picture")
        return super().load(index, whole)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_is_told_as_it_is(workers):
    with pytest.raises(DataError) as caught:
        batches(source=Broken(4), workers=workers)
    assert str(caught.value) == "images/2.png: not a readable picture"


def test_auto_workers_is_none_where_the_cpu_trains(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert auto_workers() == 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert auto_workers() == 3


def test_split_indices():
    first, second = split_indices(10, 0.3, seed=0)
    assert len(first) == 3 and sorted(first + second) == list(range(10))
    assert first == sorted(first) and second == sorted(second)
    assert split_indices(10, 0.3, seed=0) == (first, second)
    assert split_indices(10, 0.3, seed=1) != (first, second)
