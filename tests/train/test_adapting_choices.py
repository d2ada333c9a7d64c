"""Which choices become static when the stage `adapt` ends."""

from types import SimpleNamespace

import pytest
import torch

from perceptkit.policies.policy_stats import IMAGES_TO_FOLD, policy_stats
from perceptkit.spec.adaptation import Spottune, SpottuneGlobal
from perceptkit.train.adapting import _static_choices


def choices(tuned_NR, may_route=True, spec=None):
    spec = spec or Spottune(method="spottune")
    training = SimpleNamespace(recipe=SimpleNamespace(adaptation=spec), routing=None)
    return _static_choices(training, policy_stats(tuned_NR, tuned_NR.float()), may_route)


def agreeing(count):
    """All of them tune the first block and not the second."""
    return torch.tensor([[True, False]]).repeat(count, 1)


@pytest.mark.parametrize("count", [1, 64, IMAGES_TO_FOLD - 1])
def test_too_few_pictures_fix_nothing_although_all_agree(count):
    assert choices(agreeing(count)) == ([0, 1], {})


def test_enough_pictures_fix_what_all_chose_alike():
    assert choices(agreeing(IMAGES_TO_FOLD)) == ([], {0: True, 1: False})
    one_differs = agreeing(IMAGES_TO_FOLD)
    one_differs[0, 1] = True
    assert choices(one_differs) == ([1], {0: True})


def test_a_tolerance_fixes_with_any_number_of_pictures():
    exact = Spottune(method="spottune", fold_tolerance=1e-6)
    assert choices(agreeing(64), spec=exact) == ([], {0: True, 1: False})
    one_differs = agreeing(64)
    one_differs[0, 1] = True
    assert choices(one_differs, spec=exact) == ([1], {0: True})
    assert choices(one_differs, spec=Spottune(method="spottune", fold_tolerance=0.02))[1] == {
        0: True,
        1: False,
    }


def test_where_no_router_may_stay_most_pictures_decide():
    tuned_NR = torch.tensor([[True, False, True], [True, True, False], [True, False, False]])
    assert choices(tuned_NR, may_route=False) == ([], {0: True, 1: False, 2: False})
    asked = SpottuneGlobal(method="spottune_global", k=2)
    assert choices(tuned_NR, spec=asked) == ([], {0: True, 1: False, 2: True})
