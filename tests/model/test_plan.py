"""Plans: the convention, the checks, the round trip."""

import pytest

from perceptkit.errors import PlanError
from perceptkit.model.plan import KEEP, SKIP, Plan


def test_convention():
    assert (SKIP, KEEP) == (0, 1)


def test_round_trip():
    plan = Plan.from_keep(["a", "b"], ["x", "y"], [[True, False], [False, False]])
    assert Plan.from_json(plan.to_json()) == plan
    assert plan.row("a") == (True, False)
    assert plan.kept_by_any() == (True, False)
    assert plan.only(["b"]).table == (("skip", "skip"),)


def test_a_routed_block_may_run():
    plan = Plan(("a",), ("x",), (("route",),))
    assert plan.row("a") == (True,) and plan.kept_by_any() == (True,)


@pytest.mark.parametrize(
    "table, message",
    [((), "0 rows for 1 tasks"), ((("keep",),), "1 choices for 2 blocks"), ((("keep", "drop"),), "'drop'")],
)
def test_tables_that_do_not_fit_are_refused(table, message):
    with pytest.raises(PlanError, match=message):
        Plan(("a",), ("x", "y"), table)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"tasks": ["a"]}', '{"tasks": ["a"], "blocks": [], "choices": {}}']
)
def test_not_a_plan(text):
    with pytest.raises(PlanError, match="not a plan"):
        Plan.from_json(text)
