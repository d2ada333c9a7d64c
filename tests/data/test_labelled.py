"""`labelled`: which pictures keep their labels."""

import numpy as np
import pytest

from perceptkit.data.labelled import PartlyLabelled, draw_labelled
from tests.data.conftest import NumberedSource, make_tasks

TASKS = ["points", "room"]


def draw(labelled, count=200, seed=0, source=""):
    return draw_labelled(labelled, TASKS, count, seed, source)


def test_a_share_is_of_the_same_pictures_for_all_tasks():
    kept = draw(0.1)
    assert list(kept) == TASKS and kept["room"].sum() == 20
    assert np.array_equal(kept["points"], kept["room"])


def test_shares_by_task_are_draws_of_their_own():
    kept = draw({"points": 0.5, "room": 0.5, "absent": 0.1})
    assert list(kept) == TASKS and kept["points"].sum() == kept["room"].sum() == 100
    assert not np.array_equal(kept["points"], kept["room"])
    assert list(draw({"room": 0.5})) == ["room"]


def test_seed_and_source_decide_and_less_is_a_part_of_more():
    few, more = draw(0.1)["room"], draw(0.3)["room"]
    assert (more | few).sum() == more.sum() == 60
    assert np.array_equal(few, draw(0.1)["room"])
    assert not np.array_equal(few, draw(0.1, seed=1)["room"])
    assert not np.array_equal(few, draw(0.1, source="lab")["room"])


def test_one_picture_at_least():
    assert draw(0.001, count=10)["room"].sum() == 1


def test_what_is_left():
    tasks = make_tasks(
        points={"type": "keypoints", "names": ["left", "right", "nose"]}, room={"type": "classification"}
    )
    whole = NumberedSource(10)
    whole.label = lambda index, task: index % 3
    kept = np.arange(10) < 4
    source = PartlyLabelled(whole, tasks, (8, 8), {"room": kept})
    assert len(source) == 10 and source.ids == whole.ids
    assert [int(source.load(i).targets["room"]) for i in range(6)] == [0, 1, 2, 0, -1, -1]
    assert [source.label(i, "room") for i in (3, 5)] == [0, -1]
    assert source.label(5, "points") == 2
    for i in (0, 9):
        assert np.array_equal(source.load(i).targets["points"], whole.load(i).targets["points"])
    with pytest.raises(IndexError):
        source.load(10)
