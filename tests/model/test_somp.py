"""Which filters are chosen, by hand; and what is left of what the others said."""

import pytest
import torch

from perceptkit.model.somp import somp


def test_the_choice_by_hand():
    """Rows (4, 0), (3, 3), (0, 2), of lengths 4, 3 sqrt 2 and 2. First scores, sums of |<W_j, W_i>| / ||W_i||:

        (16 + 12 + 0) / 4 = 7    (12 + 18 + 6) / 4.243 = 8.49    (0 + 6 + 4) / 2 = 5

    so (3, 3); the others follow as 12/18 and 6/18 of it. Left over: (2, -2) and (-1, 1), of the row (4, 0) and (0, 2).
    Then (|2 * 4| + |-1 * 4|) / 4 = 3 against (|-2 * 2| + |1 * 2|) / 2 = 3: of equals the first.
    """
    filters = torch.tensor([[4.0, 0.0], [3.0, 3.0], [0.0, 2.0]])
    rows, a = somp(filters, 1)
    assert rows == [1]
    assert a[:, 0].tolist() == pytest.approx([12 / 18, 1, 6 / 18])
    rows, a = somp(filters, 2)
    assert rows == [1, 0]
    torch.testing.assert_close(a @ filters[rows].double(), filters.double())  # two span the plane
    assert a[2].tolist() == pytest.approx([2 / 3, -1 / 2])  # 2/3 (3, 3) - 1/2 (4, 0) = (0, 2)


def test_multiples_are_chosen_once():
    base = torch.eye(4)[:3]
    filters = torch.cat([base, 0.5 * base, 0 * base[:1]])
    rows, a = somp(filters, 3)
    assert sorted(rows) == [0, 1, 2] and a[6].abs().max() == 0
    torch.testing.assert_close(a @ filters[rows].double(), filters.double())


def test_it_says_more_than_the_first_rows():
    torch.manual_seed(0)
    filters = torch.randn(64, 12) @ torch.randn(12, 40) + 0.05 * torch.randn(64, 40)

    def error(rows):
        left = (
            torch.linalg.lstsq(filters[rows].T.double(), filters.T.double()).solution.T
            @ filters[rows].double()
        )
        return ((filters.double() - left).norm() / filters.norm()).item()

    rows, a = somp(filters, 12)
    assert (filters.double() - a @ filters[rows].double()).norm() / filters.norm() == pytest.approx(
        error(rows)
    )
    assert error(rows) < 0.7 * error(list(range(12)))


def test_more_rows_than_there_are():
    with pytest.raises(ValueError, match="5 of 4 rows"):
        somp(torch.eye(4), 5)
