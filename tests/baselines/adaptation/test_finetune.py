"""Everything learns and is stored."""

from perceptkit.model.strategy import learned_names
from tests.baselines.adaptation.conftest import begun


def test_everything_learns_and_is_stored():
    strategy, net, _ = begun("finetune")
    assert set(learned_names(net)) == set(net.state_dict())
    trunk = net.backbone.state_dict().values()
    assert strategy.stored_bits(net) == sum(8 * v.numel() * v.element_size() for v in trunk)
