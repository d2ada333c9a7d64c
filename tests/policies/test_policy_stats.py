"""Statistics of small tables by hand, and each detector with a table that sets it off alone."""

import json
import re

import pytest
import torch
from torch import Tensor

from perceptkit.policies.policy_stats import (
    ADVICE,
    IMAGES_TO_FOLD,
    SAME_FOR_CHECKS,
    PolicyStats,
    collapse_findings,
    nearly_static,
    policy_stats,
    unfixed,
)
from perceptkit.spec.recipe import RoutingSpec

T = torch.tensor
KEEP = T([[1, 0, 1], [1, 0, 0], [1, 0, 1], [1, 0, 0], [1, 0, 1]]).bool()
PROB = KEEP * 0.5 + 0.25  # .75 keep, .25 skip


def stats_of(keep_NR: Tensor, sure: float = 0.75) -> PolicyStats:
    keep_NR = keep_NR.bool()
    return policy_stats(keep_NR, torch.where(keep_NR, sure, 1 - sure))


def codes(*args, **kwargs) -> list[str]:
    return [finding.code for finding in collapse_findings(*args, **kwargs)]


def test_statistics_by_hand():
    stats = policy_stats(KEEP, PROB)
    assert (stats.num_images, stats.num_blocks, stats.unique) == (5, 3, 2)
    assert stats.most_frequent == (True, False, True) and stats.most_frequent_share == 0.6
    assert stats.keep_rate == pytest.approx((1, 0, 0.6))
    assert stats.keep_std == pytest.approx((0, 0, KEEP[:, 2].double().std(correction=0).item()))
    assert stats.mean_prob == pytest.approx((0.75, 0.25, 0.55))
    assert stats.kept_fraction == pytest.approx(1.6 / 3)
    assert stats.foldable.kept == (0,) and stats.foldable.skipped == (1,)


def test_of_equally_frequent_policies_the_one_that_keeps_more():
    assert stats_of(T([[0, 0, 1], [1, 1, 0], [0, 1, 0]])).most_frequent == (True, True, False)


def test_rule_of_three():
    assert policy_stats(KEEP, PROB).rate_bound == 0.6
    assert stats_of(torch.ones(2, 1)).rate_bound == 1
    many = stats_of(torch.ones(IMAGES_TO_FOLD, 1))
    assert many.rate_bound == pytest.approx(1e-3) and many.may_fold
    assert not stats_of(torch.ones(IMAGES_TO_FOLD - 1, 1)).may_fold
    # what has this rate is missed by all images in 5 % of cases
    assert (1 - many.rate_bound) ** IMAGES_TO_FOLD == pytest.approx(0.05, abs=1e-3)


def test_statistics_are_plain_json():
    table = policy_stats(KEEP, PROB).to_dict()
    assert json.loads(json.dumps(table)) == table
    assert table["foldable"] == {"kept": [0], "skipped": [1]} and table["most_frequent"] == [
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(("keep", "prob"), [(KEEP[:0], PROB[:0]), (KEEP, PROB[:2]), (KEEP[0], PROB[0])])
def test_tables_must_fit(keep, prob):
    with pytest.raises(ValueError, match="one shape"):
        policy_stats(keep, prob)


def test_a_healthy_router_has_no_findings():
    healthy = policy_stats(KEEP, PROB)
    assert codes(healthy, [3, 2], mean_abs_advantage=0.2, drops={"seg": 0.02, "depth": -0.3}) == []


def test_a_router_that_is_sure_of_nearly_all_blocks():
    prob = PROB.clone()
    prob[:, 0], prob[:, 1] = 0.99, 0.01
    assert codes(policy_stats(KEEP, prob)) == []  # two of three are not more than 80 %
    wide_keep, wide_prob = KEEP[:, [0, 0, 1, 1, 1, 2]], prob[:, [0, 0, 1, 1, 1, 2]]
    (finding,) = collapse_findings(policy_stats(wide_keep, wide_prob))
    assert finding.code == "saturated" and "5 of 6 blocks" in finding.message
    assert "2 keep, 3 skip" in finding.message


def test_one_policy_for_several_evaluations_is_also_static():
    same = stats_of(T([[1, 0], [1, 0]]))
    assert codes(same) == ["static"]
    assert codes(same, [1] * (SAME_FOR_CHECKS - 2)) == ["static"]
    assert codes(same, [7] + [1] * (SAME_FOR_CHECKS - 1)) == ["one_policy", "static"]
    assert codes(same, [1] * (SAME_FOR_CHECKS - 2) + [2]) == ["static"]


def test_a_router_that_skips_nothing_is_told_to_pay_more_for_it():
    """Not to begin with a higher keep probability, as one that is sure of skipping is."""
    all_kept = policy_stats(torch.ones_like(KEEP), torch.ones_like(PROB))
    for estimator in ADVICE:
        first, *others = collapse_findings(all_kept, [1] * SAME_FOR_CHECKS, estimator=estimator)
        assert first.code == "nothing_skipped" and "Lower routing.gamma" in first.message
        assert [finding.code for finding in others] == ["static"]
    first, *_ = collapse_findings(all_kept, max_drop=0.01)
    assert "Allow more (routing.max_drop)" in first.message and "gamma" not in first.message


def test_no_advantage_is_no_signal():
    healthy = policy_stats(KEEP, PROB)
    assert codes(healthy, mean_abs_advantage=9e-4) == ["no_advantage"]
    assert codes(healthy, mean_abs_advantage=1e-3) == []


def test_a_task_that_loses_too_much_is_named():
    healthy = policy_stats(KEEP, PROB)
    (finding,) = collapse_findings(healthy, drops={"seg": 0.07, "depth": 0.05})
    assert finding.code == "quality" and "loses seg 7.0%: more than the 5.0% that it may" in finding.message
    assert codes(healthy, drops={"seg": 0.07}, max_drop=0.1) == []
    (finding,) = collapse_findings(healthy, drops={"seg": 0.02}, max_drop=0.01)
    assert "routing.max_drop" in finding.message and "gamma" not in finding.message  # which it solves for
    assert codes(healthy) == []  # nothing to compare with


def test_advice_names_settings_that_the_estimator_reads():
    sure = policy_stats(KEEP, torch.ones_like(PROB))
    for estimator in ADVICE:
        found = collapse_findings(sure, drops={"seg": 0.5}, estimator=estimator)
        assert [finding.code for finding in found] == ["saturated", "quality"]
        said = " ".join(finding.message for finding in found)
        assert ("routing.entropy" in said) is (estimator == "reinforce")
        settings = set(re.findall(r"routing\.(\w+)", " ".join(ADVICE[estimator].values()))) - {"router"}
        for key in settings:
            value = 1 if key == "directions" else 0.6
            RoutingSpec.model_validate(
                {"estimator": estimator, key: value}
            )  # what it does not read is refused


def test_a_static_policy_says_that_the_router_is_gone():
    keep = torch.tensor([[True, False, True, True]]).repeat(400, 1)
    (finding,) = collapse_findings(stats_of(keep))
    assert "100.00% of 400 images keep the same 3 of 4 blocks" in finding.message
    assert "0.75%" in finding.message and "no router any more" in finding.message


def test_a_policy_with_exceptions_says_nothing_of_how_many_there_may_be_unseen():
    keep = torch.tensor([[True, False]]).repeat(400, 1)
    keep[0] = True
    (finding,) = collapse_findings(stats_of(keep))
    assert "99.75% of 400 images keep the same 1 of 2 blocks" in finding.message
    assert "not seen" not in finding.message


def test_blocks_that_too_few_images_agree_on_are_told_of():
    keep = torch.tensor([[True, False, True], [False, False, True]]).repeat(50, 1)
    finding = unfixed(stats_of(keep))
    assert finding.code == "unfixed" and "all 100 images choose alike in 2 of 3 blocks" in finding.message
    assert "up to 3.00% may choose otherwise" in finding.message and "from 3000 images" in finding.message
    (advised,) = re.findall(r"`fold_tolerance: (\S+)`", finding.message)
    tolerance = RoutingSpec.model_validate({"fold_tolerance": advised}).fold_tolerance
    assert stats_of(keep).fixed(tolerance) == {1: False, 2: True}


def test_a_policy_of_few_exceptions_is_static_and_may_cost_too_much_to_drop():
    keep = torch.ones(10_001, 2, dtype=torch.bool)
    keep[0, 0] = False
    stats = stats_of(keep)
    assert stats.is_static and stats.fixed() == {1: True}  # what `fixed` leaves
    assert stats_of(keep[:100]).is_static and not stats_of(keep[:99]).is_static  # one of a hundred at most
    found = nearly_static(stats, {"seg": 0.004, "depth": 0.0}, 0.001)
    assert found.code == "nearly_static" and "loses seg 0.40%, more than the 0.10%" in found.message
    assert "depth" not in found.message
