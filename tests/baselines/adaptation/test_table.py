"""Every method of the recipe has a strategy of its own."""

from perceptkit.baselines.adaptation.table import STRATEGIES, build_strategy
from perceptkit.model.strategy import Strategy
from perceptkit.spec.adaptation import ADAPTATIONS
from tests.baselines.adaptation.conftest import adaptation


def test_every_method_is_in_the_table():
    assert set(STRATEGIES) | {"spottune", "spottune_global"} == set(ADAPTATIONS)
    assert len(set(STRATEGIES.values())) == len(STRATEGIES)


def test_the_spec_s_keys_arrive():
    strategy = build_strategy(adaptation("last_k", k=2))
    assert isinstance(strategy, Strategy) and (strategy.method, strategy.k) == ("last_k", 2)
