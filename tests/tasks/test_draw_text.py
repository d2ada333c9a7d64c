"""Text in a bar."""

import numpy as np
import pytest

from perceptkit.tasks.draw_text import draw_bar


@pytest.mark.parametrize("size", [(64, 64), (480, 640), (8, 500), (33, 1)])
def test_any_size_keeps_its_size(size):
    drawn = draw_bar(np.full((*size, 3), 128, np.uint8), "a rather long class name 100%")
    assert drawn.shape == (*size, 3) and drawn.dtype == np.uint8


def test_only_the_bottom_changes():
    image = np.full((96, 128, 3), 128, np.uint8)
    drawn = draw_bar(image, "hall 90%")
    assert np.array_equal(drawn[:70], image[:70])
    assert drawn[85:].max() > 220 and drawn[85:].min() < 60


def test_long_text_is_cut_not_spilled():
    image = np.zeros((64, 64, 3), np.uint8)
    assert not np.array_equal(draw_bar(image, "w" * 50), image)
    assert np.array_equal(draw_bar(image, "w" * 50), draw_bar(image, "w" * 80))
