"""The short way to a module gives the same one as torch's."""

from perceptkit.model.lookup import submodule
from tests.model.conftest import make_net


def test_same_modules_as_torch_finds():
    backbone = make_net("resnet10t").backbone
    names = [name for name, _ in backbone.named_modules() if name]
    assert len(names) > 20
    for name in names:
        assert submodule(backbone, name) is backbone.get_submodule(name)
