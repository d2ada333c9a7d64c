"""Colours are distinct, stable and in order."""

import numpy as np

from perceptkit.tasks.palette import class_colours, turbo


def test_colours_of_many_classes_differ():
    assert len(np.unique(class_colours(64), axis=0)) == 64


def test_neighbouring_ids_are_far_apart():
    colours = class_colours(60).astype(float)
    assert np.linalg.norm(np.diff(colours, axis=0), axis=1).min() > 100


def test_a_colour_does_not_depend_on_the_number_of_classes():
    assert np.array_equal(class_colours(40)[:7], class_colours(7))
    assert class_colours(0).shape == (0, 3)


def test_turbo_goes_from_blue_over_green_to_red():
    low, middle, high = turbo(np.array([0.15, 0.5, 0.85]))
    assert (low.argmax(), middle.argmax(), high.argmax()) == (2, 1, 0)


def test_turbo_clips():
    assert np.array_equal(turbo(np.array([-3.0, 9.0])), turbo(np.array([0.0, 1.0])))
