"""tools/check_geometry.py: cameras by hand, and the table that docs/results.md shows.

What it finds on scenes is tested in tests/data/test_geometry_rendered.py.
"""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))  # scripts, not a package

import check_geometry as checks

from perceptkit.data.scenes.layout import sample_layout
from perceptkit.data.scenes.render import axis_px, focal_px, keypoints, world_rays

ROOT = Path(__file__).parents[2]
SIZE_HW = (48, 64)


@pytest.fixture
def view():
    return sample_layout(np.random.default_rng(0)), SIZE_HW


def ray(view, x, y):
    layout, size_HW = view
    return world_rays(layout.camera, np.array([[x, y]]), size_HW)[0]


def test_rolling_by_90_degrees_brings_the_right_to_the_top(view):
    # 10 px right of the centre (31.5, 23.5) before, 10 px above it after
    assert ray(checks.roll(90)(view), 31.5, 13.5) == pytest.approx(ray(view, 41.5, 23.5))


def test_upside_down(view):
    assert ray(checks.turn_upside_down(view), 5, 0) == pytest.approx(ray(view, 5, 47))


def test_a_longer_lens(view):
    assert ray(checks.longer_lens(2)(view), 51.5, 23.5) == pytest.approx(ray(view, 41.5, 23.5))


def test_a_window_and_other_pixels(view):
    part = checks.window(10, 20, 24, 30)(view)
    assert part[1] == (24, 30)
    assert ray(part, 3, 4) == pytest.approx(ray(view, 23, 14))
    # twice as wide, half as high: (x + .5) * 2 - .5 and (y + .5) / 2 - .5
    other = checks.other_pixels(12, 60)(part)
    assert other[1] == (12, 60)
    assert ray(other, 6.5, 1.75) == pytest.approx(ray(part, 3, 4))
    camera, before = other[0].camera, part[0].camera
    assert focal_px(camera, (12, 60)) == pytest.approx(focal_px(before, (24, 30)) * [2, 0.5])
    assert axis_px(camera, (12, 60)) == pytest.approx((axis_px(before, (24, 30)) + 0.5) * [2, 0.5] - 0.5)


def test_one_step_in_a_world_pressed_together_is_two(view):
    straight = ray(checks.press_together(2)(view), 31.5, 23.5)
    assert straight == pytest.approx(2 * ray(view, 31.5, 23.5))


def test_a_mirrored_world_has_its_left_corner_where_the_right_one_was(view):
    mirrored, _ = checks.mirror_world(view)
    assert np.linalg.det(mirrored.camera.to_world_33) == pytest.approx(1)  # an ordinary camera
    before, after = keypoints(view[0], SIZE_HW), keypoints(mirrored, SIZE_HW)
    assert after[0, :2] == pytest.approx([63 - before[1, 0], before[1, 1]], abs=1e-4)


def test_distances_of_edges_by_hand():
    some, other = np.zeros((9, 9), bool), np.zeros((9, 9), bool)
    some[4, 4] = other[1, 8] = True
    everywhere = np.ones((9, 9), bool)
    assert checks._edge_distance(some, other, everywhere) == 5
    assert checks._edge_distance(some, some, everywhere) == 0
    assert math.isinf(checks._edge_distance(some, ~everywhere, everywhere))
    assert checks._edge_distance(some, other, ~everywhere) == 0


def test_the_table_is_that_of_the_docs(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["check_geometry.py", "--scenes", "1", "--size", "96", "128"])
    monkeypatch.setattr(checks, "check", lambda *_: checks.Errors(pixels=1, near=1, depth=0.051))
    checks.main()
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert "| h-flip | 0 (0.0%) | 5.1 % | 0 | 0 | 0 | 0 | 0 | 0 | 100.0% | 0.0% |" in rows
    page = (ROOT / "docs/results.md").read_text(encoding="utf-8").splitlines()
    start = page.index(head)
    shown = page[start + 2 : start + 2 + len(rows)]
    assert [line.split(" | ")[0] for line in shown] == [line.split(" | ")[0] for line in rows]
