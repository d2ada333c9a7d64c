"""Before a router learns what to skip, it is taught to tell kinds of pictures apart (`routing.directions`).

A fresh router gives all pictures the same answer, and what it learns first is which blocks none of them needs: by the
time it could tell pictures apart, it is sure of nearly all blocks. So with D directions it begins elsewhere.

    1   PCA of the network's features of at most `SAMPLE` training pictures gives the D directions in which they differ
        most
    2   the router learns to say, of each direction, on which side of the median a picture lies: binary codes by PCA,
        as Gong and Lazebnik begin with (Iterative Quantization, CVPR 2011, section 2), here read from pixels
    3   block r begins with the logit  log(k / (1 - k)) + SPREAD (-1)^r t_d,  d = floor(r / 2) mod D,  of the keep
        probability k (`routing.router.keep`) and what the router says of direction d, t_d, with mean 0 and standard
        deviation 1 over pictures of val: half of the blocks would rather run for one side, their neighbours for the
        other; of a direction that the router cannot tell at all (LEAST_SPREAD) for neither

What the blocks prefer is then learned with all else; where telling pictures apart does not pay (`diversity`, the tasks'
losses), it may go again. It is not in BlockDrop. The router's trunk is taught at a rate of its own (LR), pretrained or
not.

Shapes: B pictures of a batch, N pictures, F features, D directions, R routed blocks.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceptkit.data.source import Source
from perceptkit.errors import PerceptkitError, SpecError
from perceptkit.model.router import Router
from perceptkit.train.losses import update
from perceptkit.train.routing_host import current, one_network, routing_spec
from perceptkit.train.training import Interrupted, Training

SAMPLE, VAL = 20_000, 2_000
"""Training pictures, as they are without augmentation, that the directions are found on, and then augmented the router
is taught with; pictures of val that it is measured on. Of more, so many are drawn."""
PASSES = 8
"""Over the former, to teach the router."""
LR = 3e-3
"""Of Adam, at first; then by a half cosine."""
SPREAD = 2.0
"""Of the logits that blocks begin with: standard deviation over pictures."""
LEAST_SPREAD = 1e-2
"""Of what the router says of a direction, in logits; with less it tells nothing, and blocks prefer no side of it."""
ORDER = 9_000
"""Of the first pass among those of a stage: not those of its first 900 epochs."""


def refuse_directions(directions: int, num_routed: int) -> None:
    """Raises SpecError where there are not two routed blocks for each direction."""
    if 2 * directions > num_routed:
        raise SpecError(
            f"routing.directions is {directions}, but there are {num_routed} blocks to route: each direction takes "
            f"two; {num_routed // 2} at most"
        )


def teach_directions(training: Training) -> None:
    """Gives the fresh router its beginning; nothing where the recipe asks for none.

    Raises:
        SpecError: more directions than pairs of routed blocks, or than the features differ in.
        PerceptkitError: the router's loss or the network's features are no numbers.
        Interrupted: the user asked to stop; the stage begins anew.
    """
    count = routing_spec(training).directions
    if not count:
        return
    router = current(training).router
    refuse_directions(count, len(current(training).cost_R))
    indices = _drawn(training, len(training.train), SAMPLE)
    ids, feature_NF = _seen(training, training.train, indices)
    direction_FD, median_D = find_directions(feature_NF, count)
    side_ND = feature_NF @ direction_FD > median_D
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.recipe.seed)
        told = nn.Linear(router.decide.in_features, count).to(training.fabric.device)
    _teach(training, router, told, indices, dict(zip(ids, side_ND.float(), strict=True)))
    drawn = _drawn(training, len(training.val), VAL)
    _, feature_NF = _seen(training, training.val, drawn)
    side_ND = feature_NF @ direction_FD > median_D
    answer_ND = _answers(training, router, told, drawn)
    prefer(router, told, answer_ND.mean(0), answer_ND.std(0, unbiased=False))
    right_D = ((answer_ND.cpu() > 0) == side_ND).float().mean(0).tolist()
    right = ", ".join(f"{part:.0%}" for part in right_D)
    training.say(f"directions: the router tells the side of {right} of the pictures of val")


def find_directions(feature_NF: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` principal directions (F, D), of length 1 and with their largest entry positive, and the median of the
    pictures along each (D,).

    Raises:
        PerceptkitError: a feature is no number.
        SpecError: there are not so many directions.
    """
    if not feature_NF.isfinite().all():
        raise PerceptkitError(
            "routing.directions: the network's features of some pictures are no finite numbers"
        )
    centred_NF = feature_NF.double() - feature_NF.double().mean(0)
    variance_F, direction_FF = torch.linalg.eigh(centred_NF.T @ centred_NF)
    found = int((variance_F > 1e-10 * variance_F[-1].clamp(min=1e-12)).sum())
    if count > found:
        raise SpecError(
            f"routing.directions is {count}, but the network's features of {len(feature_NF)} pictures differ in "
            f"{found} direction(s) only"
        )
    direction_FD = direction_FF.flip(1)[:, :count]  # eigh's are by rising variance
    largest_1D = direction_FD.gather(0, direction_FD.abs().argmax(0, keepdim=True))
    direction_FD = (direction_FD * largest_1D.sign()).to(feature_NF.dtype)
    return direction_FD, (feature_NF @ direction_FD).median(0).values


@torch.no_grad()
def prefer(router: Router, told: nn.Linear, mean_D: Tensor, std_D: Tensor) -> None:
    """Sets the weights of `router.decide` as the module's third step says; its biases are log(k / (1 - k)) before.

    Args:
        router: its trunk gives the features that `told` reads.
        told: (B, D) answers.
        mean_D, std_D: of these answers over pictures.
    """
    scale_D = torch.where(std_D > LEAST_SPREAD, SPREAD / std_D, 0.0)
    for r in range(router.decide.out_features):
        d, sign = (r // 2) % len(mean_D), -1.0 if r % 2 else 1.0
        router.decide.weight[r] = sign * scale_D[d] * told.weight[d]
        router.decide.bias[r] += sign * scale_D[d] * (told.bias[d] - mean_D[d])


def _drawn(training: Training, num: int, most: int) -> list[int]:
    """Places of at most `most` of `num` pictures, the same for the same seed."""
    if num <= most:
        return list(range(num))
    generator = torch.Generator().manual_seed(training.recipe.seed)
    return sorted(torch.randperm(num, generator=generator)[:most].tolist())


@torch.no_grad()
def _seen(training: Training, source: Source, indices: Sequence[int]) -> tuple[list[str], Tensor]:
    """Names of these pictures, and the network's features of them (N, F), float32 on the CPU; of all on every rank."""
    network, plan, fabric = one_network(training).eval(), training.plan, training.fabric
    ids, features = [], []
    for batch in training.loader(source, indices, train=False, shared=False):
        with fabric.autocast():
            mean_BF = network.trunk_means(batch.image_BCHW.to(fabric.device), plan)
        ids += batch.ids
        features.append(mean_BF.float().cpu())
        _heed(training)
    return ids, torch.cat(features)


def _teach(
    training: Training,
    router: Router,
    told: nn.Linear,
    indices: Sequence[int],
    sides: Mapping[str, Tensor],
) -> None:
    """Trains the router's trunk and `told` to say these sides (D,), by the name of a picture; those of joined splits
    may share one."""
    parameters = [*router.trunk.parameters(), *told.parameters()]
    adam: Any = training.fabric.setup_optimizers(torch.optim.Adam(parameters, lr=LR))
    stage, first = training.recipe.stages[training.position.stage], training.position.stage * 10_000 + ORDER
    batch_size = training.recipe.batch_of(stage)
    router.train()
    for number in range(PASSES):
        batches = training.loader(training.train, indices, train=True, batch=batch_size, order=first + number)
        steps = max(1, len(indices) // (batch_size * training.fabric.world_size))
        for step, batch in enumerate(batches):
            batch = batch.to(training.fabric.device)
            side_BD = torch.stack([sides[name] for name in batch.ids]).to(training.fabric.device)
            progress = min(1.0, (number + step / steps) / PASSES)
            for group in adam.param_groups:
                group["lr"] = LR * 0.5 * (1 + math.cos(math.pi * progress))
            with training.fabric.autocast():
                answer_BD = told(router.features(batch.image_BCHW)).float()
            loss = F.binary_cross_entropy_with_logits(answer_BD, side_BD)
            if not loss.isfinite():
                raise PerceptkitError(
                    f"routing.directions: the router's loss is not finite in pass {number}; try another router"
                )
            adam.zero_grad()
            training.fabric.backward(loss)
            update(training, adam, parameters)
            _heed(training)


@torch.no_grad()
def _answers(training: Training, router: Router, told: nn.Linear, indices: Sequence[int]) -> Tensor:
    """(N, D) what the router says of these pictures of val, as it will be used."""
    router.eval()
    answers = []
    for batch in training.loader(training.val, indices, train=False, shared=False):
        with training.fabric.autocast():
            answers.append(told(router.features(batch.image_BCHW.to(training.fabric.device))).float())
    return torch.cat(answers)


def _heed(training: Training) -> None:
    """Raises Interrupted where the user asked to stop."""
    if training.stop_requested:
        raise Interrupted(training.run)
