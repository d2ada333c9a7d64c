"""The trunk is as it was, its statistics included."""

from perceptkit.model.strategy import learned_names
from tests.baselines.adaptation.conftest import begun


def test_only_heads_learn_and_nothing_of_the_trunk_is_stored():
    strategy, net, _ = begun("feature_extractor")
    assert learned_names(net) == ["heads.task_new.predict.weight", "heads.task_new.predict.bias"]
    assert strategy.stored_bits(net) == 0
