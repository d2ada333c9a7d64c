"""Unit solids: entry point, normal and face by hand."""

import math

import numpy as np
import pytest

from perceptkit.data.scenes.solids import MEET, MISS, both_roots, first_root


def meet(kind, origin, ray):
    distance, normal, face = MEET[kind](np.array([origin], dtype=float), np.array([ray], dtype=float))
    return distance[0], normal[0] / max(np.linalg.norm(normal[0]), 1e-12), face[0]


DOWN = (0, 1, 0)
HALF = math.sqrt(0.5)
CASES = [
    # kind, from, along, distance, normal, face
    ("box", (0, 0, -3), (0, 0, 1), 2, (0, 0, -1), 4),
    ("box", (3, 0.5, 0.5), (-1, 0, 0), 2, (1, 0, 0), 1),
    ("box", (0, -3, 0), (0, 4, 0), 0.5, (0, -1, 0), 2),
    ("sphere", (0, 0, -3), (0, 0, 1), 2, (0, 0, -1), 0),
    ("sphere", (HALF, 0, -3), (0, 0, 1), 3 - HALF, (HALF, 0, -HALF), 0),
    ("cylinder", (0, 0.9, -3), (0, 0, 1), 2, (0, 0, -1), 0),
    ("cylinder", (0.5, -3, 0), DOWN, 2, (0, -1, 0), 1),
    ("cylinder", (0.5, 3, 0), (0, -1, 0), 2, (0, 1, 0), 2),
    # at y = 0 the cone's radius is 1/2; its side rises 2 while it narrows by 1
    ("cone", (0, 0, -3), (0, 0, 1), 2.5, (0, -1 / math.sqrt(5), -2 / math.sqrt(5)), 0),
    ("cone", (0.5, -3, 0), DOWN, 3, (2 / math.sqrt(5), -1 / math.sqrt(5), 0), 0),
    ("cone", (0.5, 3, 0), (0, -1, 0), 2, (0, 1, 0), 2),
]


@pytest.mark.parametrize(("kind", "origin", "ray", "distance", "normal", "face"), CASES)
def test_entry_by_hand(kind, origin, ray, distance, normal, face):
    got = meet(kind, origin, ray)
    assert got[0] == pytest.approx(distance)
    assert got[1] == pytest.approx(normal, abs=1e-12)
    assert got[2] == face


MISSES = [
    ("box", (0, 1.01, -3), (0, 0, 1)),
    ("box", (0, 0, 3), (0, 0, 1)),  # behind the start
    ("sphere", (0.8, 0.8, -3), (0, 0, 1)),
    ("cylinder", (0, -1.01, -3), (0, 0, 1)),
    ("cylinder", (0.8, -3, 0.8), DOWN),
    ("cone", (0, -1.5, -3), (0, 0, 1)),  # the equation's mirrored cone above the apex
    ("cone", (0.6, 0, -3), (0, 0, 1)),
    ("ellipsoid", (0, 0, 3), (0, 0, 1)),
]


@pytest.mark.parametrize(("kind", "origin", "ray"), MISSES)
def test_misses(kind, origin, ray):
    assert meet(kind, origin, ray)[0] == MISS


@pytest.mark.parametrize("kind", sorted(MEET))
def test_hits_lie_on_the_surface_and_normals_face_the_ray(kind):
    rng = np.random.default_rng(0)
    origin = rng.normal(size=(4000, 3))
    origin = 3 * origin / np.linalg.norm(origin, axis=1, keepdims=True)
    ray = rng.uniform(-1, 1, (4000, 3)) - origin
    distance, normal, face = MEET[kind](origin, ray)
    hit = np.isfinite(distance)
    assert hit.sum() > 500
    point = origin[hit] + distance[hit, None] * ray[hit]
    x, y, z = point.T
    level = {
        "box": np.abs(point).max(1),
        "cylinder": np.maximum(np.hypot(x, z), np.abs(y)),
        "cone": np.where(face[hit] == 2, y, 1 + np.hypot(x, z) - (1 + y) / 2),
    }.get(kind, np.linalg.norm(point, axis=1))
    assert np.abs(level - 1).max() < 1e-9
    assert ((normal[hit] * ray[hit]).sum(1) < 1e-9).all()


def test_roots():
    one = np.array([1.0])
    assert first_root(one, -2 * one, 3 * one) == pytest.approx([1])  # (t - 1)(t - 3)
    assert first_root(one, 2 * one, 3 * one) == MISS
    assert sorted(float(root[0]) for root in both_roots(-one, 2 * one, -3 * one)) == pytest.approx([1, 3])
