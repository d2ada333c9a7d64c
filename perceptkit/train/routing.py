"""BlockDrop's two train stages: `route` learns the router alone, `finetune` router and weights together.

    route       weights fixed, norms in eval mode; every picture runs by a sampled and by the most probable decision,
                and the difference of their rewards is what the router learns from
    finetune    the same with all blocks open, and the sampled pass trains the weights too; in its last part (`settle`)
                the router is fixed, and the weights are trained for its most probable decisions, as in AdaMML's last
                phase. With `distill` the network as it was before anything was skipped teaches it

What is sampled and what is most probable are judged in one pass: what comes before the first block that is open to the
router runs once per picture, equal decisions for a picture run once, and a block runs for those pictures only that keep
it. Where gates are differentiable (Gumbel), and with `parity`, every block runs for all pictures.

The mathematics are in policies/blockdrop.py.

Shapes: B pictures, R routed blocks, K tasks, V ways to run a batch.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from perceptkit.data.batch import Batch
from perceptkit.errors import SpecError
from perceptkit.model import cost
from perceptkit.model.fold import fold_batchnorm
from perceptkit.model.plan import Plan
from perceptkit.model.supernet import Supernet
from perceptkit.policies import blockdrop
from perceptkit.policies.adashare import temperature
from perceptkit.policies.sampling import logistic_noise
from perceptkit.spec.recipe import FinetuneStage, RouteStage, RoutingSpec, StageBase
from perceptkit.tasks.base import masked_mean
from perceptkit.train import checkpoint, optim
from perceptkit.train.directions import teach_directions
from perceptkit.train.losses import (
    labelled_tasks,
    losses_to_log,
    refuse_nan,
    task_losses,
    update,
    weighted_sum,
)
from perceptkit.train.ranks import batch_of_all_ranks, mean_losses
from perceptkit.train.routing_host import (
    HOST,
    current,
    host_quality,
    is_host,
    keeps_host_quality,
    one_network,
    qualities,
    quality,
    routing_spec,
    taught,
)
from perceptkit.train.training import Routing, Training

ROUTED = "checkpoints/routed.pt"
"""The router when it alone had been learned."""
GAMMA = 5.0
"""Of the authors' joint stage on ImageNet."""


def begin_routing(training: Training, stage: RouteStage | FinetuneStage) -> None:
    """From now on every block that some task keeps is the router's to decide on; `route` opens them by its
    curriculum, `finetune` has all of them open."""
    spec, plan = routing_spec(training), training.plan
    kept = [b for b, is_kept in enumerate(plan.kept_by_any()) if is_kept]
    if not kept:
        raise SpecError("all tasks skip all blocks: there is nothing left for a router to decide on")
    training.plan = plan.with_routed(kept)
    training.begin_routing(block_costs(training, spec, stage), spec.gamma or GAMMA)
    current(training).open_count = len(training.plan.routed())
    if training.fabric.global_rank == 0:  # what every rule it is compared with starts from
        checkpoint.save(training.run / HOST, {"supernet": training.supernet.state_dict()}, training.position)
    teach_directions(training)


def begin_finetune(training: Training, stage: FinetuneStage) -> None:
    """Keeps the router as it is, for the row of the table that is not fine-tuned; then all blocks are open, as in the
    authors' joint stage."""
    routing = current(training)
    if stage.gamma is not None:
        routing.gamma = stage.gamma
    if training.fabric.global_rank == 0 and training.recipe.has_stage("route"):
        checkpoint.save(training.run / ROUTED, {"routing": routing.state()}, training.position)
    training.open_everything()


def open_blocks_of(training: Training, stage: RouteStage, epoch: int) -> None:
    """Opens what the curriculum has reached in this epoch of `route`."""
    routing = current(training)
    num_routed = len(routing.cost_R)
    first = stage.curriculum == "last_first"
    routing.open_count = blockdrop.open_routed(epoch, stage.speed, num_routed) if first else num_routed


def block_costs(training: Training, spec: RoutingSpec, stage: StageBase) -> Tensor:
    """What each routed block costs, as `routing.usage` says: 1, MACs, or nanoseconds on this machine; (R,)."""
    supernet, plan = one_network(training), training.plan
    if spec.usage == "blocks":
        return torch.ones(len(plan.routed()))
    if spec.usage == "latency":
        batch = spec.latency_batch or training.recipe.batch_of(stage)
        folded = _folded(supernet)
        measured = cost.measure(folded, folded.size_HW, cost.measured_nanoseconds, batch)
        measured = training.fabric.broadcast(measured)  # each rank's clock says something else
    else:
        measured = cost.measure(supernet, supernet.size_HW)
    # a block may seem to take no time beside its projection; a reward must not divide by nothing
    return torch.tensor([max(1.0, float(added)) for added in cost.routed_macs(supernet, plan, measured)[1]])


def _folded(supernet: Supernet) -> Supernet:
    """A copy without the norms that the compact model will not have, for its clock."""
    network = copy.deepcopy(supernet).eval()
    plan = Plan.all_keep(list(network.tasks), [block.name for block in network.blocks])
    picture = torch.zeros(1, 3, *network.size_HW, device=next(network.parameters()).device)
    fold_batchnorm(network, picture, [lambda image_BCHW: network(image_BCHW, plan)])
    return network


def open_plan(training: Training) -> Plan:
    """The plan with only those blocks routed that are open to the router; the others run."""
    routing = current(training)
    routed = training.plan.routed()
    return training.plan.with_routed(routed[len(routed) - routing.open_count :])


@torch.no_grad()
def rightness(
    training: Training,
    batch: Batch,
    tables: Sequence[Tensor],
    answers: Sequence[Mapping[str, Tensor]] = (),
) -> Tensor:
    """(V, B, K) 1 where a task's answer is right, 0 where not, NaN without a label.

    A task whose answers are better or worse is right where its quality is nearly the host's, which is the network as
    it was before anything was skipped, with all blocks.

    Args:
        training: the network and the tasks.
        batch: the pictures.
        tables: decisions (B, R) to run; the first rows of the result.
        answers: outputs that are there already; the rows after those.
    """
    routing, tasks = current(training), training.tasks
    host_BK, rows = None, list(tables)
    if not all(task.is_yes_or_no for task in tasks.values()):  # else nobody asks what the host gives
        if is_host(training) and not keeps_host_quality(training, "train"):
            rows.append(torch.ones_like(routing.open_R).expand(len(batch.ids), -1))
        else:
            with training.fabric.autocast():
                host_BK = host_quality(training, batch, "train")
    outputs: Mapping[str, Tensor] = {}
    if rows:
        keep_VBR = torch.stack(rows)[..., len(routing.cost_R) - routing.open_count :]
        picture_M = torch.arange(keep_VBR.shape[1], device=keep_VBR.device).repeat(len(keep_VBR))
        rows_M = torch.cat([picture_M[:, None], keep_VBR.flatten(0, 1).long()], 1)
        rows_N, of_M = torch.unique(rows_M, dim=0, return_inverse=True)
        picture_N = rows_N[:, 0]
        with training.fabric.autocast():
            outputs = training.supernet(
                batch.image_BCHW, open_plan(training), keep_BR=rows_N[:, 1:].bool(), picture_B=picture_N
            )
    right_KVB = []
    for k, (name, task) in enumerate(tasks.items()):
        measure = partial(quality, task)
        target_B = batch.targets[name]
        found = [measure(answer[name].detach().float(), target_B)[None] for answer in answers]
        if outputs:
            if task.joint:  # the batch that a picture is judged in is that of the same table
                of_tables = outputs[name].float()[of_M].unflatten(0, (-1, len(target_B)))
                of_tables_VB = torch.stack([measure(output, target_B) for output in of_tables])
            else:
                measured_N = measure(outputs[name].float(), target_B[picture_N])
                of_tables_VB = measured_N[of_M].view(-1, len(target_B))
            found = [of_tables_VB[: len(tables)], *found]
        measured_VB = torch.cat(found)
        if not task.is_yes_or_no:
            best_B = host_BK[:, k] if host_BK is not None else of_tables_VB[-1]
            measured_VB = blockdrop.right_by_quality(
                measured_VB, best_B, routing_spec(training).quality_tolerance
            )
        right_KVB.append(measured_VB)
    return torch.stack(right_KVB, -1)


def task_weights(training: Training) -> Tensor:
    """(K,) of the recipe."""
    return torch.tensor([task.spec.weight for task in training.tasks.values()], dtype=torch.float32)


def kept_by_task(training: Training) -> Tensor:
    """(K, R) bool: which of the routed blocks each task's row of the plan keeps."""
    plan = training.plan
    return torch.tensor([[plan.row(name)[b] for b in plan.routed()] for name in training.tasks])


def usage_of(training: Training, keep_BR: Tensor) -> Tensor:
    """(B, K): of the routed blocks that each task keeps in the plan."""
    return blockdrop.usage_by_task(keep_BR, current(training).cost_R, kept_by_task(training))


def reward_of(training: Training, keep_BR: Tensor, right_BK: Tensor) -> Tensor:
    """(B,): mean over the tasks, each by the usage of its own blocks."""
    reward_BK = blockdrop.reward(usage_of(training, keep_BR), right_BK, current(training).gamma)
    return blockdrop.task_mean(reward_BK, task_weights(training))


def policy_loss(
    training: Training,
    logits_BR: Tensor,
    sampled_BR: Tensor,
    greedy_BR: Tensor,
    right_VBK: Tensor,
    joint: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    """REINFORCE with the self-critical baseline, and what to log.

    Args:
        logits_BR: with a gradient.
        sampled_BR, greedy_BR: decisions.
        right_VBK: of both, in this order.
        joint: the stage `finetune`.
    """
    routing, spec = current(training), routing_spec(training)
    sampled_B, greedy_B = (
        reward_of(training, keep, right)
        for keep, right in zip((sampled_BR, greedy_BR), right_VBK, strict=True)
    )
    advantage_B = blockdrop.advantage(sampled_B, greedy_B, sampled_BR, greedy_BR)
    beta = 0.0 if joint else spec.entropy
    loss_B = blockdrop.image_loss(
        logits_BR, sampled_BR, advantage_B, routing.open_R, spec.alpha, beta, spec.parity
    )
    labelled_B = blockdrop.has_label(right_VBK[0])
    num_labelled = labelled_B.sum().clamp(min=1)
    if joint and spec.parity:
        # a sum over the pictures of all ranks: gradients are averaged over the ranks afterwards
        loss = training.fabric.world_size * blockdrop.policy_loss(loss_B, labelled_B, joint, spec.parity)
    else:
        loss = masked_mean(loss_B, labelled_B)  # counts the pictures of all ranks
    alike, known = likeness(training, logits_BR)
    told = {
        **known,
        "reward": greedy_B[labelled_B].sum() / num_labelled,
        "usage": blockdrop.usage(greedy_BR, routing.cost_R).mean(),
        "right": right_VBK[1].nansum() / right_VBK[1].isfinite().sum().clamp(min=1),
        "advantage": advantage_B[labelled_B].abs().sum() / num_labelled,
    }
    return loss + alike, told


def likeness(training: Training, logits_BR: Tensor) -> tuple[Tensor | float, dict[str, Tensor]]:
    """What the router loses for deciding alike for all pictures of a batch, and what to log; nothing by default."""
    if not (weight := routing_spec(training).diversity):
        return 0.0, {}
    known = blockdrop.mutual_information(batch_of_all_ranks(logits_BR), current(training).open_R)
    return -weight * known, {"information": known}


def sample(training: Training, logits_BR: Tensor) -> Tensor:
    """A decision for every picture: what one process with the pictures of all ranks would draw."""
    fabric = training.fabric
    shape = (len(logits_BR) * fabric.world_size, logits_BR.shape[1])
    uniform_BR = torch.rand(shape, generator=training.generator)[fabric.global_rank :: fabric.world_size]
    return blockdrop.sample_keep(
        logits_BR, uniform_BR, current(training).open_R, routing_spec(training).alpha
    )


def route_step(
    training: Training, stage: RouteStage, batch: Batch, lr: float, progress: float
) -> dict[str, float]:
    """One update of the router; the weights of the network are fixed.

    Args:
        progress: of the stage, in [0, 1].
    """
    routing, optimizer = current(training), training.policy_optimizer
    assert optimizer is not None
    optim.set_learning_rate(optimizer, lr)
    training.supernet.eval()
    routing.router.train()
    with training.fabric.autocast():
        logits_BR = routing.router(batch.image_BCHW).float()
    if routing_spec(training).estimator == "gumbel":
        training.supernet.requires_grad_(False)
        loss, told = gumbel_loss(training, batch, logits_BR, temperature(progress, *stage.tau))
        optimizer.zero_grad()
        training.fabric.backward(loss)
        training.supernet.requires_grad_(True)
    else:
        sampled_BR, greedy_BR = (
            sample(training, logits_BR),
            blockdrop.greedy_keep(logits_BR, routing.open_R),
        )
        right_VBK = rightness(training, batch, [sampled_BR, greedy_BR])
        loss, told = policy_loss(training, logits_BR, sampled_BR, greedy_BR, right_VBK, joint=False)
        optimizer.zero_grad()
        training.fabric.backward(loss)
    refuse_nan({"router": loss}, training.position)
    update(training, optimizer, routing.router.parameters())
    return _noted(routing, mean_losses({"loss": loss, **told}))


def gumbel_loss(
    training: Training, batch: Batch, logits_BR: Tensor, tau: float, distill: float = 0.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """The tasks' losses under a straight-through sample, 1 / gamma of what they use of their blocks, and `likeness`.

    Args:
        distill: weight of the loss of `taught`.
    """
    routing, fabric = current(training), training.fabric
    shape = torch.Size((len(logits_BR) * fabric.world_size, logits_BR.shape[1]))
    noise_BR = logistic_noise(shape, training.generator)[fabric.global_rank :: fabric.world_size]
    keep_BR = blockdrop.straight_through_keep(logits_BR, noise_BR, tau, routing.open_R)
    closed = len(routing.cost_R) - routing.open_count
    with fabric.autocast():
        outputs = training.supernet(batch.image_BCHW, open_plan(training), keep_BR=keep_BR[:, closed:])
    losses = task_losses(outputs, batch, training.tasks)
    quality_BK = qualities(training, batch, outputs)
    penalty = blockdrop.cost_penalty(usage_of(training, keep_BR), quality_BK, task_weights(training))
    refuse_nan(losses, training.position)
    alike, known = likeness(training, logits_BR)
    total = weights_loss(training, batch, outputs, losses, distill) + penalty / routing.gamma + alike
    used = blockdrop.usage(keep_BR, routing.cost_R).mean()
    told = {"usage": used, **known, **losses_to_log(losses, labelled_tasks(batch, training.tasks))}
    return total, told


def weights_loss(
    training: Training,
    batch: Batch,
    outputs: Mapping[str, Tensor],
    losses: Mapping[str, Tensor],
    distill: float,
) -> Tensor:
    """What the weights of the network learn from: labels, and the host's answers by the weight `distill`."""
    total = weighted_sum(losses, training.tasks)
    return total + distill * taught(training, batch, outputs) if distill else total


def finetune_step(
    training: Training, stage: FinetuneStage, batch: Batch, lr: float, progress: float = 0.0
) -> dict[str, float]:
    """One update of router and network together; of the network alone once the router has settled.

    Args:
        progress: of the stage, in [0, 1).
    """
    if progress >= 1 - stage.settle:
        return settled_step(training, stage, batch, lr)
    routing, spec, supernet = current(training), routing_spec(training), training.supernet
    assert training.optimizer is not None and training.policy_optimizer is not None
    optimizers = (training.optimizer, training.policy_optimizer)
    for optimizer in optimizers:
        optim.set_learning_rate(optimizer, lr)
    routing.router.train()
    with training.fabric.autocast():
        logits_BR = routing.router(batch.image_BCHW).float()
    if spec.estimator == "gumbel":
        set_training(supernet, stage.batchnorm == "train")
        total, told = gumbel_loss(training, batch, logits_BR, 1.0, stage.distill)
    else:
        sampled_BR = sample(training, logits_BR)
        greedy_BR = blockdrop.greedy_keep(logits_BR, routing.open_R)
        closed = len(routing.cost_R) - routing.open_count

        def answer(keep_BR: Tensor) -> dict[str, Tensor]:
            with training.fabric.autocast():
                outputs: dict[str, Tensor] = supernet(
                    batch.image_BCHW, open_plan(training), keep_BR=keep_BR[:, closed:]
                )
            return outputs

        if spec.parity:
            # as in the released code: two passes in train mode, so that norms move twice, and every block sees every
            # picture; the sampled answers are those that the loss is of
            supernet.train()
            with torch.no_grad():
                greedy = answer(greedy_BR.float())
            outputs = answer(sampled_BR.float())
            supernet.eval()
            right_VBK = rightness(training, batch, [], [outputs, greedy])
        else:
            supernet.eval()
            right_VBK = rightness(training, batch, [sampled_BR, greedy_BR])
            set_training(supernet, stage.batchnorm == "train")
            outputs = answer(sampled_BR)
        losses = task_losses(outputs, batch, training.tasks)
        refuse_nan(losses, training.position)
        router_loss, told = policy_loss(training, logits_BR, sampled_BR, greedy_BR, right_VBK, joint=True)
        total = weights_loss(training, batch, outputs, losses, stage.distill)
        total = total + stage.rl_weight * router_loss
        told |= losses_to_log(losses, labelled_tasks(batch, training.tasks))
    for optimizer in optimizers:
        optimizer.zero_grad()
    training.fabric.backward(total)
    update(training, training.optimizer, training.weights())
    update(training, training.policy_optimizer, routing.router.parameters())
    return _noted(routing, mean_losses({"loss": total, **told}))


def settles_in(stage: StageBase, epoch: int) -> bool:
    """Whether this is the first epoch of `finetune` that begins with a settled router, or else the last one.

    The network of an earlier one was not trained for what will run, and is not the best, however little it computes.
    """
    if not isinstance(stage, FinetuneStage) or not stage.settle:
        return False
    first = math.ceil(round(stage.epochs * (1 - stage.settle), 6))  # 10 * (1 - 0.7) is a little more than 3
    return epoch == min(first, stage.epochs - 1)


def settled_step(training: Training, stage: FinetuneStage, batch: Batch, lr: float) -> dict[str, float]:
    """One update of the network for the router's most probable decisions; what is skipped is not computed."""
    routing, supernet = current(training), training.supernet
    assert training.optimizer is not None
    optim.set_learning_rate(training.optimizer, lr)
    routing.router.eval()
    set_training(supernet, stage.batchnorm == "train")
    with torch.no_grad(), training.fabric.autocast():
        keep_BR = routing.keep(batch.image_BCHW)
    closed = len(routing.cost_R) - routing.open_count
    with training.fabric.autocast():
        outputs = supernet(batch.image_BCHW, open_plan(training), keep_BR=keep_BR[:, closed:])
    losses = task_losses(outputs, batch, training.tasks)
    refuse_nan(losses, training.position)
    total = weights_loss(training, batch, outputs, losses, stage.distill)
    training.optimizer.zero_grad()
    training.fabric.backward(total)
    update(training, training.optimizer, training.weights())
    used = blockdrop.usage(keep_BR, routing.cost_R).mean()
    told = {"usage": used, **losses_to_log(losses, labelled_tasks(batch, training.tasks))}
    return mean_losses({"loss": total, **told})


def _noted(routing: Routing, losses: dict[str, float]) -> dict[str, float]:
    if "advantage" in losses:  # a Gumbel sample has none
        routing.note_advantage(losses["advantage"])
    return losses


def set_training(network: torch.nn.Module, norms: bool) -> None:
    """Train mode; the running statistics of norms move only if `norms`."""
    network.train()
    if not norms:
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
