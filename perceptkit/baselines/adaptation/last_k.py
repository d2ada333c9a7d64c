"""Last k: the last k residual blocks are trained, with all that comes after the first of them.

"Fine-tuning last-k", a baseline of Guo et al. *SpotTune: Transfer Learning through Adaptive Fine-tuning.* CVPR 2019.
https://arxiv.org/abs/1811.08737; after Yosinski et al., NIPS 2014, https://arxiv.org/abs/1411.1792

Fixed: all trunk steps before the k-th block from the end, norms included. Counted are the blocks that some task
keeps; of a block that no task keeps only the shortcut runs, and only that learns. A domain stores the weights of what
learns; there is nothing to fold.
"""

from perceptkit.model.plan import Plan
from perceptkit.model.strategy import Strategy, freeze
from perceptkit.model.supernet import Supernet
from perceptkit.spec import adaptation as specs


class LastK(Strategy):
    """See the module's docstring. Where fewer than k blocks are kept, all of them are trained."""

    def __init__(self, spec: specs.LastK) -> None:
        super().__init__(spec)
        self.k = spec.k

    def begin(self, net: Supernet, plan: Plan) -> None:
        freeze(net.backbone)
        is_kept = plan.kept_by_any()
        kept = [i for i, step in enumerate(net.steps) if step.block is not None and is_kept[step.block]]
        first = kept[-self.k :][0] if kept else len(net.steps)
        for step in net.steps[first:]:
            is_dropped = step.block is not None and not is_kept[step.block]
            name = step.projection if is_dropped else step.name
            if name is not None:
                net.backbone.get_submodule(name).requires_grad_(True)
