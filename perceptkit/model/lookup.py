"""Finds a module by its dotted name, fast enough to do it in every forward pass."""

from torch import nn


def submodule(root: nn.Module, name: str) -> nn.Module:
    """What `root.get_submodule(name)` gives, without its checks.

    Those cost 6 to 25 us a call: 1 % of an EfficientNet that calls 30 blocks. A list of references would be
    faster still, but goes stale when a module is replaced, as folding a norm does.
    """
    module = root
    for part in name.split("."):
        found = module._modules[part]
        assert found is not None
        module = found
    return module
