"""Branching by hand: all tasks share the first k blocks, then each has a copy of the rest.

    x = B_k(... B_1(stem(image)))            once, for all tasks
    y_t = N_t(B_{t,L}(... B_{t,k+1}(x)))     for every task t: blocks, what lies between them, neck N_t and head

The tree that branched multi-task networks learn to improve on (Lu et al., *Fully-adaptive Feature Sharing in Multi-Task
Networks with Applications in Person Attribute Classification*, CVPR 2017, https://arxiv.org/abs/1611.05377; Vandenhende
et al., *Branched Multi-Task Networks*, BMVC 2020, https://arxiv.org/abs/1904.02920). k is `sharing.share_first`.
With k = 0 only what comes before the first block is shared.

    params = params(shared) + T * params(rest)        MACs = MACs(shared) + T * MACs(rest)

Copies start alike (baselines/sharing/tree.py).
"""

from perceptkit.baselines.sharing.tree import TreeNet
from perceptkit.errors import SpecError
from perceptkit.model.supernet import Supernet
from perceptkit.model.task_tree import TaskTree


class BranchNet(TreeNet):
    """See the module's docstring.

    Args:
        net: with all tasks; it becomes a part of this network.
        share_first: k.

    Raises SpecError where no block is left for the tasks.
    """

    def __init__(self, net: Supernet, share_first: int) -> None:
        if share_first >= len(net.blocks):
            raise SpecError(
                f"sharing.share_first: {share_first} leaves none of the {len(net.blocks)} blocks to the tasks; "
                f"expected at most {len(net.blocks) - 1}, or sharing.method hard"
            )
        super().__init__(net, TaskTree.parting_after(share_first, list(net.tasks), len(net.blocks)))
