"""Numbers in cells, and a table as Markdown."""

import math

import pytest

from perceptkit.report.grid import Cell, Column, Row, Table, best_of, markdown, number

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"


@pytest.mark.parametrize(
    "value, decimals, signed, text",
    [
        (0.5368, 3, False, "0.537"),
        (14.0, 0, False, "14"),
        (-3.25, 2, False, f"{MINUS}3.25"),
        (3.25, 1, True, "+3.2"),
        (-0.04, 1, True, "0.0"),
        (0.04, 1, True, "0.0"),
        (math.nan, 3, True, ""),
        (math.inf, 1, False, "inf"),
        (-math.inf, 1, False, f"{MINUS}inf"),
    ],
)
def test_number(value, decimals, signed, text):
    assert number(value, decimals, signed) == text


@pytest.mark.parametrize(
    "values, higher_is_better, best",
    [
        ([0.1, 0.3, 0.2], True, [False, True, False]),
        ([0.1, 0.3, 0.2], False, [True, False, False]),
        ([0.31, 0.34, 0.2], True, [True, True, False]),  # the same as printed
        ([0.1, 0.3, math.nan], True, [False, True, False]),
        ([0.1, math.inf, 0.2], True, [False, False, True]),
        ([0.31, 0.34], True, [False, False]),
        ([0.3, math.nan], True, [False, False]),
        ([], True, []),
    ],
)
def test_best_of(values, higher_is_better, best):
    assert best_of(values, 1, higher_is_better) == best


def test_a_cell_parts_at_the_decimal_point():
    cell = Cell("12.50 %")
    assert (cell.whole, cell.fraction) == ("12", ".50 %")
    assert (Cell("12").whole, Cell("12").fraction) == ("12", "")


def test_the_tail_is_that_of_the_longest_fraction_of_the_column():
    rows = (Row("a", (Cell("1.5"), Cell("7"))), Row("b", (Cell("1.125"), Cell("7"))))
    table = Table("", (Column("x"), Column("y")), rows)
    assert (table.tail(0), table.tail(1)) == (4, 0)


def test_markdown_aligns_decimal_points():
    table = Table(
        "task, metric",
        (Column("adashare", "run_1"), Column("constant predictor")),
        (
            Row("depth", (Cell("+2.0 %"), Cell()), "metres", "task"),
            Row("rmse", (Cell("0.470", "best"), Cell("11.2")), "m", "primary"),
            Row("delta1", (Cell("0.110", "poor"), Cell())),
            Row("delta-MTL", (Cell("+2.0 %"), Cell()), kind="total"),
        ),
        ("(!) No better.",),
    )
    assert markdown(table).splitlines() == [
        "| task, metric     | adashare (run_1) | constant predictor |",
        "| ---------------- | ---------------: | -----------------: |",
        "| **depth** metres |       +2.0 %     |                    |",
        "| rmse m           |      **0.470**   |               11.2 |",
        f"| delta1           |        0.110 (!) |                {DASH}   |",
        "| **delta-MTL**    |       +2.0 %     |                    |",
        "",
        "(!) No better.",
    ]


def test_markdown_of_a_table_without_columns_is_its_notes():
    assert markdown(Table("task", (), (), ("Nothing *yet*.",))) == "Nothing \\*yet\\*.\n"


@pytest.mark.parametrize(
    "typed, written",
    [
        ("pixel_acc", "pixel_acc"),
        ("_private_", "\\_private\\_"),
        ("a|b", "a\\|b"),
        ("<b>[x](y)`*\\", "\\<b\\>\\[x\\](y)\\`\\*\\\\"),
        ("two\nlines", "two lines"),
    ],
)
def test_markdown_escapes_what_a_user_typed(typed, written):
    text = markdown(Table("task", (Column("run"),), (Row(typed, (Cell("1"),)),)))
    assert text.splitlines()[2].startswith(f"| {written} |")
    assert len(text.splitlines()) == 3


def test_has_best():
    def table(mark):
        return Table("", (Column("x"),), (Row("a", (Cell("1", mark),)),))

    assert table("best").has_best and not table("").has_best and not table("poor").has_best
