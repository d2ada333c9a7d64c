"""Delta-MTL, by hand."""

import math

import pytest

from perceptkit.report.delta_mtl import delta_mtl, delta_task

UP, DOWN = True, False


def test_delta_task_by_hand():
    # miou: (45 - 40) / 40 = +12.5 %; error: (0.5 - 0.4) / 0.4 = +25 % of what should fall
    metrics, single = {"miou": 45.0, "error": 0.5}, {"miou": 40.0, "error": 0.4}
    assert delta_task(metrics, single, {"miou": UP, "error": DOWN}) == pytest.approx((12.5 - 25) / 2)


def test_delta_mtl_by_hand():
    metrics = {"seg": {"miou": 44.0}, "depth": {"rmse": 0.4, "abs_rel": 0.12}}
    single = {"seg": {"miou": 40.0}, "depth": {"rmse": 0.5, "abs_rel": 0.10}}
    delta = delta_mtl(metrics, single, {"seg": {"miou": UP}, "depth": {"rmse": DOWN, "abs_rel": DOWN}})
    assert delta.by_task["seg"] == pytest.approx(10)
    assert delta.by_task["depth"] == pytest.approx((20 - 20) / 2)
    # each task weighs the same, however many metrics it has
    assert delta.mean == pytest.approx((10 + 0) / 2)


def test_single_task_nets_themselves_are_at_zero():
    metrics = {"seg": {"miou": 0.4}, "depth": {"rmse": 0.5}}
    delta = delta_mtl(metrics, metrics, {"seg": {"miou": UP}, "depth": {"rmse": DOWN}})
    assert delta.by_task == {"seg": 0, "depth": 0} and delta.mean == 0


@pytest.mark.parametrize(
    "metrics, single",
    [
        ({"kept": 1.1}, {"kept": 1.0, "other": 2.0}),
        ({"kept": 1.1, "other": 3.0}, {"kept": 1.0}),
        ({"kept": 1.1, "other": math.nan}, {"kept": 1.0, "other": 2.0}),
        ({"kept": 1.1, "other": 3.0}, {"kept": 1.0, "other": math.nan}),
        ({"kept": 1.1, "other": math.inf}, {"kept": 1.0, "other": 2.0}),
        ({"kept": 1.1, "other": 3.0}, {"kept": 1.0, "other": 0.0}),
    ],
    ids=["not measured", "no reference", "NaN", "NaN reference", "infinite", "zero reference"],
)
def test_a_metric_that_cannot_be_compared_does_not_count(metrics, single):
    assert delta_task(metrics, single, {"kept": UP, "other": UP}) == pytest.approx(10)


def test_a_metric_without_a_direction_does_not_count():
    assert delta_task(
        {"kept": 1.1, "other": 9.0}, {"kept": 1.0, "other": 1.0}, {"kept": UP}
    ) == pytest.approx(10)


@pytest.mark.parametrize("added", ["err", "mean_cos"])
def test_what_compat_adds_does_not_count(added):
    directions = {"miou": True, added: added == "mean_cos"}
    assert delta_task({"miou": 44.0, added: 0.9}, {"miou": 40.0, added: 0.5}, directions) == pytest.approx(10)


def test_only_what_is_counted_counts():
    metrics, single = {"miou": 44.0, "err": 0.6}, {"miou": 40.0, "err": 0.5}
    directions = {"miou": UP, "err": DOWN}
    assert delta_task(metrics, single, directions, ["err"]) == pytest.approx(
        -20
    )  # 0.1 / 0.5 of what should fall
    both = delta_mtl(
        {"seg": metrics, "b": metrics},
        {"seg": single, "b": single},
        {"seg": directions, "b": directions},
        {"seg": ["err"]},
    )
    assert both.by_task == pytest.approx({"seg": -20, "b": 10}) and both.mean == pytest.approx(-5)


def test_a_task_without_a_reference_leaves_no_mean():
    metrics = {"seg": {"miou": 44.0}, "depth": {"rmse": 0.4}}
    delta = delta_mtl(metrics, {"seg": {"miou": 40.0}}, {"seg": {"miou": UP}, "depth": {"rmse": DOWN}})
    assert delta.by_task["seg"] == pytest.approx(10)
    assert math.isnan(delta.by_task["depth"]) and math.isnan(delta.mean)


def test_no_tasks_at_all():
    delta = delta_mtl({}, {"seg": {"miou": 40.0}}, {})
    assert delta.by_task == {} and math.isnan(delta.mean)
