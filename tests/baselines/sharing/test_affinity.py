"""Task affinity by hand."""

import math

import pytest
import torch

from perceptkit.baselines.sharing.affinity import affinity_record, by_chance, hard_pictures, task_affinity

NAN = math.nan
# means 0.25, 0.5 and 0.4: hard are the last picture, the first two, and the last two
ERROR = torch.tensor([[0.1, 0.9, 0.2], [0.1, 0.9, 0.2], [0.1, 0.1, 0.6], [0.7, 0.1, 0.6]]).double()


def test_hard_pictures_by_hand():
    assert hard_pictures(ERROR).T.tolist() == [
        [False, False, False, True],
        [True, True, False, False],
        [False, False, True, True],
    ]


def test_affinity_by_hand():
    # 0 and 1 agree on picture 2 alone; 1 and 2 never; 0 and 2 on all but picture 2
    expected = [[1, 0.25, 0.75], [0.25, 1, 0], [0.75, 0, 1]]
    assert task_affinity(ERROR).tolist() == expected


def test_chance_by_hand():
    # parts that are hard: 1/4, 1/2, 1/2
    chance = by_chance(ERROR)
    assert chance[0, 1] == pytest.approx(1 / 4 * 1 / 2 + 3 / 4 * 1 / 2)
    assert chance[0, 0] == pytest.approx(1 / 16 + 9 / 16)
    assert torch.equal(chance, chance.T)


def test_unrelated_tasks_have_the_affinity_of_chance():
    error_NK = torch.rand(20_000, 2, generator=torch.Generator().manual_seed(0))
    assert task_affinity(error_NK)[0, 1] == pytest.approx(by_chance(error_NK)[0, 1].item(), abs=0.015)


def test_equal_errors_are_all_hard_and_agree():
    assert hard_pictures(torch.full((3, 2), 0.5)).all()
    assert task_affinity(torch.full((3, 2), 0.5)).tolist() == [[1, 1], [1, 1]]


def test_pictures_without_a_label_do_not_count():
    error_NK = torch.cat([ERROR, torch.tensor([[NAN, 0.5, NAN], [0.25, NAN, NAN]])])
    # the means stay; the fifth picture is hard for task 1 only, the sixth for task 0 only
    assert task_affinity(error_NK)[0, 1] == 0.25 and task_affinity(error_NK)[1, 2] == 0


def test_tasks_that_share_no_picture_have_no_affinity():
    found = task_affinity(torch.tensor([[0.1, NAN], [0.2, NAN], [NAN, 0.3]]))
    assert found[0, 1].isnan() and found[0, 0] == 1


def test_the_record_is_of_errors_not_of_quality():
    record = affinity_record(1 - ERROR.float(), ["a", "b", "c"], "val")
    assert record["affinity"] == task_affinity(ERROR).tolist()
    assert (record["split"], record["pictures"], record["tasks"]) == ("val", 4, ["a", "b", "c"])
