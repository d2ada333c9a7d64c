"""Before a router learns what to skip, it is taught to tell kinds of pictures apart (`routing.directions`).

A fresh router gives all pictures the same answer, and what it learns first is which blocks none of them needs: by the
time it could tell pictures apart, it is sure of nearly all blocks. So with D directions it begins elsewhere.

    1   PCA of the network's features of about `SAMPLE` training pictures gives the D directions in which they differ
        most
    2   the router learns to say, of each direction, on which side of the median a picture lies: binary codes by PCA,
        as Gong and Lazebnik begin with (Iterative Quantization, CVPR 2011, section 2), here read from pixels
    3   block r begins with the logit  log(k / (1 - k)) + SPREAD (-1)^r t_d,  d = floor(r / 2) mod D,  of the keep
        probability k (`routing.router.keep`) and what the router says of direction d, t_d, with mean 0 and standard
        deviation 1 over pictures of val: half of the blocks would rather run for one side, their neighbours for the
        other

What the blocks prefer is then learned with all else; where telling pictures apart does not pay (`diversity`, the tasks'
losses), it may go again. It is not in BlockDrop. The router's trunk is taught at a rate of its own (LR), pretrained or
not.

Shapes: B pictures of a batch, N pictures, F features, D directions, R routed blocks.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceptkit.data.batch import Batch
from perceptkit.errors import PerceptkitError, SpecError
from perceptkit.model.router import Router
from perceptkit.train.losses import update
from perceptkit.train.ranks import batch_of_all_ranks, rows_of_all_ranks
from perceptkit.train.routing_host import current, one_network, routing_spec
from perceptkit.train.training import Interrupted, Training

SAMPLE = 4000
"""Pictures that the directions are found on, in whole batches of one pass over the train split."""
STEPS, PASSES = 400, 4
"""At most so many updates teach the router, and so many passes over the train split."""
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
    found = find_directions(_sample(training).cpu(), count)
    direction_FD, median_D = (value.to(training.fabric.device) for value in found)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.recipe.seed)
        told = nn.Linear(router.decide.in_features, count).to(training.fabric.device)
    _teach(training, router, told, direction_FD, median_D)
    answer_ND, side_ND = _on_val(training, router, told, direction_FD, median_D)
    prefer(router, told, answer_ND.mean(0), answer_ND.std(0, unbiased=False))
    right_D = ((answer_ND > 0) == side_ND).float().mean(0).tolist()
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


def _teach(
    training: Training, router: Router, told: nn.Linear, direction_FD: Tensor, median_D: Tensor
) -> None:
    """Trains the router's trunk and `told`."""
    parameters = [*router.trunk.parameters(), *told.parameters()]
    adam: Any = training.fabric.setup_optimizers(torch.optim.Adam(parameters, lr=LR))
    steps = min(STEPS, PASSES * _batches(training))
    router.train()
    for step, batch in zip(range(steps), _pictures(training), strict=False):
        side_BD = (_features(training, batch) @ direction_FD > median_D).float()
        for group in adam.param_groups:
            group["lr"] = LR * 0.5 * (1 + math.cos(math.pi * step / steps))
        with training.fabric.autocast():
            answer_BD = told(router.features(batch.image_BCHW)).float()
        loss = F.binary_cross_entropy_with_logits(answer_BD, side_BD)
        if not loss.isfinite():
            raise PerceptkitError(
                f"routing.directions: the router's loss is not finite in step {step}; another router may learn them"
            )
        adam.zero_grad()
        training.fabric.backward(loss)
        update(training, adam, parameters)


@torch.no_grad()
def _on_val(
    training: Training, router: Router, told: nn.Linear, direction_FD: Tensor, median_D: Tensor
) -> tuple[Tensor, Tensor]:
    """(N, D) what the router says of the pictures of val as it will be used, and on which side they are."""
    router.eval()
    answers, sides = [], []
    for batch in training.loader(training.val, range(len(training.val)), train=False):
        batch = batch.to(training.fabric.device)
        sides.append((_features(training, batch) @ direction_FD > median_D).cpu())
        with training.fabric.autocast():
            answers.append(told(router.features(batch.image_BCHW)).float().cpu())
    none = torch.empty(0, direction_FD.shape[1])  # a rank may have no picture
    tables = torch.cat([none, *answers]), torch.cat([none.bool(), *sides])
    answer_ND, side_ND = (rows_of_all_ranks(table_ND).to(training.fabric.device) for table_ND in tables)
    return answer_ND, side_ND


def _sample(training: Training) -> Tensor:
    """(N, F) the network's features."""
    found: list[Tensor] = []
    for _, batch in zip(range(_batches(training)), _pictures(training), strict=False):
        found.append(batch_of_all_ranks(_features(training, batch)))
        if sum(map(len, found)) >= SAMPLE:
            break
    return torch.cat(found)


@torch.no_grad()
def _features(training: Training, batch: Batch) -> Tensor:
    """(B, F) float32; asked of every batch, so whoever asked to stop is heard here."""
    if training.stop_requested:
        raise Interrupted(training.run)
    network = one_network(training).eval()
    with training.fabric.autocast():
        return network.trunk_means(batch.image_BCHW, training.plan).float()


def _batches(training: Training) -> int:
    """In a pass."""
    stage = training.recipe.stages[training.position.stage]
    return len(training.train) // (training.recipe.batch_of(stage) * training.fabric.world_size)


def _pictures(training: Training) -> Iterator[Batch]:
    """Training batches of all passes, as the stage will see them."""
    position = training.position
    batch = training.recipe.batch_of(training.recipe.stages[position.stage])
    everything = range(len(training.train))
    for number in range(PASSES):
        order = position.stage * 10_000 + ORDER + number
        for pictures in training.loader(training.train, everything, train=True, batch=batch, order=order):
            yield pictures.to(training.fabric.device)
