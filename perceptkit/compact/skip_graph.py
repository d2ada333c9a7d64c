"""A routed model as one ONNX graph that runs only what its router keeps.

    branch    for one picture: an `If` for each routed block
    gather    for batches: the rows that keep a block are gathered, run, and scattered back among those that skip it

Both are traced from the compact network's own `walk`, with the router in front; the table of decisions is an output
of the graph, named KEEP. `decided_outside` cuts the graph there: the same nodes, with the table as an input. So any
table can be tried, those too that the router would never give.

Shapes: B batch, H W pixels of the input, R routed blocks, n rows that keep a block.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch._dynamo
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

from perceptkit.compact.network import CompactNet, Node
from perceptkit.compact.onnx_file import KEEP
from perceptkit.compact.program import MAX_BATCH, quiet
from perceptkit.compact.routed import RoutedNet, run_node, run_otherwise
from perceptkit.compact.verify import probe_images
from perceptkit.model.attention import plain_attention
from perceptkit.model.cifar_resnet import convolved_shortcuts
from perceptkit.model.router import Router


class BranchNet(nn.Module):
    """image (1, 3, H, W) -> one output per task, and the decisions (1, R); routed blocks are branches.

    Args:
        routed: what decides, and what runs. Memory formats must be contiguous.
    """

    def __init__(self, routed: RoutedNet) -> None:
        super().__init__()
        self.router, self.network = routed.router, routed.network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        keep_BR = self.router.keep(image)
        outputs = self.network.walk(image, lambda node, x, shared, _: self.visit(node, x, shared, keep_BR))
        return (*(outputs[task] for task in self.network.net.tasks), keep_BR)

    def visit(self, node: Node, x: Tensor, shared: Any, keep_BR: Tensor) -> Tensor:
        """The node's output, by the decision of the first picture."""
        if node.route is None:
            return run_node(self.network, node, x, shared)

        # both branches must give the same strides, and none may give its own input back: torch.cond refuses that
        def kept(x: Tensor) -> Tensor:
            return run_node(self.network, node, _own_layout(x), shared).contiguous()

        def skipped(x: Tensor) -> Tensor:
            return run_otherwise(self.network, node, x, shared).clone(memory_format=torch.contiguous_format)

        # one Split for all decisions: indexing would cost two operators for each
        decided = keep_BR.split(1, dim=1)[node.route]
        found: Tensor = torch.cond(decided, kept, skipped, (x,))
        return found


class GatherNet(BranchNet):
    """image (B, 3, H, W) -> one output per task, and the decisions (B, R); blocks run on the rows that keep them."""

    def visit(self, node: Node, x: Tensor, shared: Any, keep_BR: Tensor) -> Tensor:
        """The node's output: that of its module in the rows that keep it, what skipping gives in the others."""
        if node.route is None:
            return run_node(self.network, node, x, shared)
        keep_B = keep_BR[:, node.route]

        # the gather must be inside the branch: outside, torch asks whether n could be 0, which nobody can tell it
        def some(x: Tensor, keep_B: Tensor) -> Tensor:
            rows = keep_B.nonzero()[:, 0]
            run = run_node(self.network, node, x[rows], shared)
            rest = run_otherwise(self.network, node, x, shared)
            return rest.clone(memory_format=torch.contiguous_format).index_put((rows,), run.contiguous())

        def none(x: Tensor, keep_B: Tensor) -> Tensor:
            return run_otherwise(self.network, node, x, shared).clone(memory_format=torch.contiguous_format)

        found: Tensor = torch.cond(keep_B.any(), some, none, (x, keep_B))
        return found


class Decisions(nn.Module):
    """image (B, 3, H, W) -> the router's decisions (B, R)."""

    def __init__(self, router: Router) -> None:
        super().__init__()
        self.router = router

    def forward(self, image: Tensor) -> tuple[Tensor]:
        return (self.router.keep(image),)


class Answers(nn.Module):
    """image (B, 3, H, W) -> one output per task, of a network without choice."""

    def __init__(self, network: CompactNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        outputs = self.network(image)
        return tuple(outputs[task] for task in self.network.net.tasks)


def _own_layout(x: Tensor) -> Tensor:
    """The same map, through a pooling of single pixels.

    onnxruntime does not keep its layout for convolutions (NCHWc) across the border of a branch. Inside, pooling is the
    one operator that changes nothing and has that layout: with the shortcut in it too, the block's sum and relu become
    part of its last convolution. Of a ResNet-32 that is 3 % of the time.
    """
    return F.max_pool2d(x, 1) if x.ndim == 4 else x


def branch_graph(routed: RoutedNet, size_HW: tuple[int, int]) -> Any:
    """The ONNX model of `branch`: image (1, 3, H, W) -> the tasks and KEEP."""
    return _graph(BranchNet(routed), size_HW, [*routed.network.net.tasks, KEEP], any_batch=False)


def gather_graph(routed: RoutedNet, size_HW: tuple[int, int]) -> Any:
    """The ONNX model of `gather`: image (B, 3, H, W) -> the tasks and KEEP."""
    return _graph(GatherNet(routed), size_HW, [*routed.network.net.tasks, KEEP], any_batch=True)


def router_graph(router: Router, size_HW: tuple[int, int]) -> Any:
    """The ONNX model of the router alone: image (B, 3, H, W) -> KEEP."""
    return _graph(Decisions(router), size_HW, [KEEP], any_batch=True)


def static_graph(network: CompactNet, size_HW: tuple[int, int], any_batch: bool = True) -> Any:
    """The ONNX model of a network without choice: image (B, 3, H, W), or B = 1, -> the tasks."""
    return _graph(Answers(network), size_HW, list(network.net.tasks), any_batch)


# a caller's inference mode would make tensors that tracing a gather fails on
@torch.inference_mode(False)
@torch.no_grad()
def _graph(module: nn.Module, size_HW: tuple[int, int], outputs: list[str], any_batch: bool) -> Any:
    module = plain_attention(copy.deepcopy(module)).cpu()
    convolved_shortcuts(module)
    module = module.to(memory_format=torch.contiguous_format)
    image = probe_images(size_HW)[1 if any_batch else 0]
    shapes = ({0: Dim("batch", min=1, max=MAX_BATCH)},) if any_batch else None
    with quiet(), _each_branch_alone():
        program = torch.export.export(module.eval().requires_grad_(False), (image,), dynamic_shapes=shapes)
        made = torch.onnx.export(
            program, dynamo=True, input_names=["image"], output_names=outputs, verbose=False
        )
    assert made is not None
    model = made.model_proto
    own_weights(model.graph)
    del model.graph.value_info[:]  # onnxruntime infers its own, those inside branches too
    return model


@contextmanager
def _each_branch_alone() -> Iterator[None]:
    """torch.cond compiles each of its calls; what differs between two calls must not become a free size.

    Blocks of different sizes look like one function called with varying shapes: after eight of them dynamo gives up,
    and before that it makes symbols of them that export knows nothing of.
    """
    config = {
        "automatic_dynamic_shapes": False,
        "recompile_limit": 10_000,
        "accumulated_recompile_limit": 10_000,
    }
    torch._dynamo.reset()
    try:
        with torch._dynamo.config.patch(config):
            yield
    finally:
        torch._dynamo.reset()


def own_weights(graph: Any) -> None:
    """Moves weights that only branches use into them, in place.

    onnxruntime lays a convolution's weights out for the CPU (NCHWc) only where they are in the graph of the
    convolution itself. A block that several branches of the trie run is stored as often.
    """
    weights = {tensor.name: tensor for tensor in graph.initializer}
    outside = {name for node in graph.node for name in node.input}
    for node in graph.node:
        for branch in branches(node):
            for name in sorted(free_names(branch) & weights.keys()):
                branch.initializer.append(weights[name])
    unused = weights.keys() - outside - {output.name for output in graph.output}
    rest = [tensor for name, tensor in weights.items() if name not in unused]
    del graph.initializer[:]
    graph.initializer.extend(rest)


def decided_outside(model: Any, num_routed: int) -> Any:
    """The same model with the decisions KEEP (B, R) as an input, and no router."""
    import onnx

    cut = copy.deepcopy(model)
    graph = cut.graph
    outputs = [output for output in graph.output if output.name != KEEP]
    needed, nodes = {output.name for output in outputs}, []
    for node in reversed(graph.node):
        if KEEP not in node.output and needed.intersection(node.output):
            nodes.append(node)
            needed |= set(node.input) | {name for branch in branches(node) for name in free_names(branch)}
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    made = onnx.helper.make_graph(nodes[::-1], graph.name, [*graph.input], outputs, weights)
    made.input.append(onnx.helper.make_tensor_value_info(KEEP, onnx.TensorProto.BOOL, ["batch", num_routed]))
    graph.CopyFrom(made)
    return cut


def branches(node: Any) -> Iterator[Any]:
    """The graphs inside a node."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g


def free_names(graph: Any) -> set[str]:
    """What a branch takes from the graph around it."""
    own = {tensor.name for tensor in graph.initializer}
    used: set[str] = {output.name for output in graph.output}
    for node in graph.node:
        own |= set(node.output)
        used |= set(node.input)
        for branch in branches(node):
            used |= free_names(branch)
    return used - own - {""}
