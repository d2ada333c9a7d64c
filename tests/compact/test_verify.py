"""The comparison itself: what counts as the same, and what does not."""

import pytest
import torch

from perceptkit.compact.verify import (
    BOUND,
    SMALLEST_SCALE,
    parity,
    probe_images,
    refuse_mismatch,
    relative,
)
from perceptkit.errors import ExportError


def gives(**values):
    return lambda _: {name: torch.tensor(value) for name, value in values.items()}


ONE = [torch.zeros(1)]


def test_largest_difference_and_scale_by_hand():
    found = parity(gives(a=[1.0, -8.0], b=[0.5, 0.5]), gives(a=[1.5, -8.0], b=[0.5, 0.25]), ONE)
    assert found == {"a": {"max_abs": 0.5, "scale": 8.0}, "b": {"max_abs": 0.25, "scale": 0.5}}


def test_the_worst_picture_counts():
    calls = iter([0.0, 2.0, 1.0])
    found = parity(gives(a=[0.0]), lambda _: {"a": torch.tensor([next(calls)])}, ONE * 3)
    assert found["a"]["max_abs"] == 2.0


def test_not_a_number_is_never_the_same():
    nan = float("nan")
    for reference, candidate in ((nan, 1.0), (1.0, nan), (nan, nan)):
        found = parity(gives(a=[0.0, reference]), gives(a=[0.0, candidate]), ONE)
        with pytest.raises(ExportError):
            refuse_mismatch(found, "it")


def test_infinite_outputs_are_never_the_same():
    found = parity(gives(a=[float("inf")]), gives(a=[1.0]), ONE)
    with pytest.raises(ExportError):
        refuse_mismatch(found, "it")


def test_another_shape_or_no_output_is_never_the_same():
    for candidate in (gives(a=[1.0]), gives(b=[1.0, 1.0])):
        with pytest.raises(ExportError, match="a: inf"):
            refuse_mismatch(parity(gives(a=[1.0, 1.0]), candidate, ONE), "it")


@pytest.mark.parametrize(
    "max_abs, scale, same",
    [
        (0.9e-4, 1.0, True),
        (1.1e-4, 1.0, False),
        (1.1e-4, 2.0, True),  # relative to the output's own scale, be it large
        (2.1e-4, 2.0, False),
        (0.9e-6, 0.01, True),  # or small: one of a percent may be off by a millionth
        (1.1e-6, 0.01, False),
        (0.9e-4, 0.01, False),
        (0.9e-6, 1e-5, True),  # below that it is what rounding numbers of size 1 leaves
        (1.1e-6, 1e-5, False),
        (0.9e-6, 0.0, True),
    ],
)
def test_bound(max_abs, scale, same):
    row = {"head": {"max_abs": max_abs, "scale": scale}}
    if same:
        refuse_mismatch(row, "it")
    else:
        with pytest.raises(ExportError, match=r"it does not reproduce the trained network \(head: "):
            refuse_mismatch(row, "it")
    assert BOUND == 1e-4


def test_a_part_of_the_scale_by_hand():
    assert relative({"max_abs": 0.5, "scale": 8.0}) == 0.0625
    assert relative({"max_abs": 1e-6, "scale": 0.0}) == pytest.approx(1e-4)


def test_the_floor_is_what_reordering_a_sum_costs():
    """Terms of size 1 that cancel: two orders of the same small sum differ by less than the floor."""
    terms = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    terms = torch.cat([terms, -terms + 1e-5], 1) / 16
    expected, got = terms.double().sum(1), terms.flip(1).sum(1)
    difference = (expected - got).abs().max().item()
    assert expected.abs().max() < SMALLEST_SCALE and 0 < difference < BOUND * SMALLEST_SCALE


def test_a_bound_of_zero_means_the_same_bits():
    refuse_mismatch({"a": {"max_abs": 0.0, "scale": 5.0}}, "it", bound=0.0)
    with pytest.raises(ExportError):
        refuse_mismatch({"a": {"max_abs": 1e-12, "scale": 5.0}}, "it", bound=0.0)


def test_every_broken_head_is_named():
    rows = {
        name: {"max_abs": difference, "scale": 1.0} for name, difference in (("a", 1), ("b", 0), ("c", 2))
    }
    with pytest.raises(ExportError, match=r"\(a: 1\.00e\+00 .*; c: 2\.00e\+00 .*\)") as caught:
        refuse_mismatch(rows, "it")
    assert "b:" not in str(caught.value)


def test_probe_images_are_the_same_every_time():
    torch.manual_seed(5)
    first, again = probe_images((4, 6)), probe_images((4, 6))
    assert [image.shape for image in first] == [(1, 3, 4, 6), (2, 3, 4, 6)]
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[1][0], first[1][1])
