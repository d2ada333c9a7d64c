"""The curve of a sweep as table, data and picture."""

import json
from dataclasses import replace

import pytest

from perceptkit.report.budget_curve import Curve, Point, as_json, as_table, curve_from, draw, write_plot
from perceptkit.report.grid import markdown
from perceptkit.report.run_folder import MetricInfo
from perceptkit.report.theme import LIGHT, style


def point(budget, cost, score, miou, rmse, is_within=True):
    name = f"macs_{budget:g}"
    return Point(
        name, budget, cost, is_within, int(2e6 * cost), int(3e8 * cost), score, {"seg": miou, "depth": rmse}
    )


CURVE = Curve(
    "macs",
    (point(0.4, 0.35, 0.41, 0.30, 0.9, False), point(0.6, 0.601, 0.5, 0.41, 0.72), point(1.0, 0.99, 0.52, 0.4, 0.7)),
    {"seg": ("miou", MetricInfo(True, "")), "depth": ("rmse_m", MetricInfo(False, "m"))},
)  # fmt: skip


def test_table():
    lines = markdown(as_table(CURVE)).splitlines()
    assert lines[0].split("|")[1:5] == [
        " budget: macs" + " " * (len(lines[0].split("|")[1]) - 13), *lines[0].split("|")[2:5]
    ]  # fmt: skip
    cells = {line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:5]] for line in lines[2:8]}
    assert [cell.strip() for cell in lines[0].split("|")[2:5]] == ["0.4", "0.6", "1"]
    assert cells["**cost of the plan** MACs, part of a hard-shared pass"] == ["0.350", "0.601", "0.990"]
    assert cells["seg miou \N{UPWARDS ARROW}"] == ["0.300", "**0.410**", "0.400"]
    assert cells["depth rmse_m m \N{DOWNWARDS ARROW}"] == ["0.900", "0.720", "**0.700**"]
    assert lines[-1] == "Blocks are too coarse to meet 0.4 within 2 %."


PARTLY = replace(CURVE, points=CURVE.points[1:], unreached=(0.2, 0.4), least=0.492)
"""A sweep of 0.2, 0.4, 0.6 and 1, of which two cannot be."""


def test_what_cannot_be_reached_is_listed():
    table = as_table(PARTLY)
    assert [column.title for column in table.columns] == ["0.2", "0.4", "0.6", "1"]
    assert [cell.text for cell in table.rows[0].cells] == ["", "", "0.601", "0.990"]
    assert table.notes == ("0.2, 0.4 cannot be reached (least 0.492).",)
    assert markdown(table).splitlines()[-1] == "0.2, 0.4 cannot be reached (least 0.492)."
    with style(LIGHT):
        axes = draw(PARTLY, LIGHT).axes
    assert all(ax.get_xlabel().endswith("\n0.2, 0.4 cannot be reached (least 0.492)") for ax in axes)


def test_a_sweep_of_before_is_read():
    old = json.loads(json.dumps(as_json(CURVE)))
    del old["unreached"], old["least"]
    assert curve_from(old) == CURVE
    assert curve_from(json.loads(json.dumps(as_json(PARTLY)))) == PARTLY


def test_data():
    found = json.loads(json.dumps(as_json(CURVE)))
    assert found["points"][1]["primary"] == {"seg": 0.41, "depth": 0.72}
    assert found["metrics"]["depth"] == {"primary": "rmse_m", "higher_is_better": False, "unit": "m"}


def test_picture(tmp_path):
    with style(LIGHT):
        axes = draw(CURVE, LIGHT).axes
    assert [ax.get_title(loc="left") for ax in axes] == [
        "mean quality \N{UPWARDS ARROW}",
        "seg miou \N{UPWARDS ARROW}",
        "depth rmse_m, m \N{DOWNWARDS ARROW}",
    ]
    assert axes[2].lines[0].get_ydata().tolist() == pytest.approx([0.9, 0.72, 0.7])
    assert [text.get_text() for text in axes[0].texts] == ["0.4", "0.6", "1"]
    write_plot(CURVE, tmp_path / "new/sweep.png")
    assert (tmp_path / "new/sweep.png").read_bytes().startswith(b"\x89PNG")
