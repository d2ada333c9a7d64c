"""Before a router learns what to skip, it is taught to tell kinds of pictures apart (`routing.directions`).

A fresh router gives all pictures the same answer, and what it learns first is which blocks none of them needs: by the
time it could tell pictures apart, it is sure of nearly all blocks. So with D directions it begins elsewhere.

    1   PCA of the network's features of `SAMPLE` training pictures gives the D directions in which they differ most
    2   the router learns to say, of each direction, on which side of the median a picture lies: binary codes by PCA, as
        Gong and Lazebnik begin with (Iterative Quantization, CVPR 2011, section 2), here read from pixels
    3   block r begins with the logit  log(k / (1 - k)) + SPREAD (-1)^r t_d,  d = floor(r / 2) mod D,  of the keep
        probability k (`routing.router.keep`) and what the router says of direction d, t_d, with mean 0 and standard
        deviation 1 over pictures: half of the blocks would rather run for one side, their neighbours for the other

What the blocks prefer is then learned with all else; where telling pictures apart does not pay (`diversity`, the tasks'
losses), it goes again. It is not in BlockDrop.

Shapes: B pictures of a batch, N pictures of the sample, F features, D directions, R routed blocks.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceptkit.data.batch import Batch
from perceptkit.errors import SpecError
from perceptkit.model.router import Router
from perceptkit.train.losses import refuse_nan, update
from perceptkit.train.ranks import batch_of_all_ranks
from perceptkit.train.routing_host import current, one_network, routing_spec
from perceptkit.train.training import Interrupted, Training

SAMPLE = 4000
"""Pictures that the directions are found on, or what the train split has."""
STEPS, PASSES = 400, 4
"""At most so many updates teach the router, and so many passes over the train split."""
LR = 3e-3
"""Of Adam, at first; then by a half cosine."""
SPREAD = 2.0
"""Of the logits that blocks begin with: standard deviation over pictures."""
LAST = 20
"""Updates whose answers say what mean and spread the router's answers have."""
ORDER = 9_000
"""Of the first pass among those of a stage, which has fewer epochs than a tenth of it."""


def teach_directions(training: Training) -> None:
    """Gives the fresh router its beginning; nothing where the recipe asks for none.

    Raises:
        SpecError: more directions than pairs of routed blocks, or than features or pictures to find them with.
        Interrupted: the user asked to stop; the stage begins anew.
    """
    count = routing_spec(training).directions
    if not count:
        return
    router = current(training).router
    num_routed = len(current(training).cost_R)
    if 2 * count > num_routed:
        raise SpecError(
            f"routing.directions is {count}, but there are {num_routed} routed blocks: each direction takes two; "
            f"{num_routed // 2} at most"
        )
    direction_FD, median_D = find_directions(_sample(training), count)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.recipe.seed)
        told = nn.Linear(router.decide.in_features, count).to(training.fabric.device)
    answer_ND, agreed = _teach(training, router, told, direction_FD, median_D)
    prefer(router, told, answer_ND.mean(0), answer_ND.std(0))
    training.say(
        f"the router tells the sides of {count} direction(s) of the features, {agreed:.0%} of them right"
    )


def find_directions(feature_NF: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` principal directions (F, D), of length 1 and with their largest entry positive, and the median of the
    pictures along each (D,). Raises SpecError where there are not so many."""
    centred_NF = feature_NF.double() - feature_NF.double().mean(0)
    _, size_S, direction_SF = torch.linalg.svd(centred_NF, full_matrices=False)
    found = int((size_S > 1e-6 * size_S[0].clamp(min=1e-12)).sum())
    if count > found:
        raise SpecError(
            f"routing.directions is {count}, but the network's features of {len(feature_NF)} pictures differ in "
            f"{found} direction(s) only"
        )
    direction_DF = direction_SF[:count]
    largest_D1 = direction_DF.gather(1, direction_DF.abs().argmax(1, keepdim=True))
    direction_FD = (direction_DF * largest_D1.sign()).T.to(feature_NF.dtype)
    return direction_FD, (feature_NF @ direction_FD).median(0).values


@torch.no_grad()
def prefer(router: Router, told: nn.Linear, mean_D: Tensor, std_D: Tensor) -> None:
    """Sets the weights of `router.decide` as the module's third step says; its biases are log(k / (1 - k)) before.

    Args:
        router: its trunk gives the features that `told` reads.
        told: (B, D) answers.
        mean_D, std_D: of these answers over pictures.
    """
    scale_D = SPREAD / std_D.clamp(min=1e-6)
    for r in range(router.decide.out_features):
        d, sign = (r // 2) % len(mean_D), -1.0 if r % 2 else 1.0
        router.decide.weight[r] = sign * scale_D[d] * told.weight[d]
        router.decide.bias[r] += sign * scale_D[d] * (told.bias[d] - mean_D[d])


def _teach(
    training: Training, router: Router, told: nn.Linear, direction_FD: Tensor, median_D: Tensor
) -> tuple[Tensor, float]:
    """Trains the router's trunk and `told`; their last answers (N, D), and the part of these that were right."""
    parameters = [*router.trunk.parameters(), *told.parameters()]
    adam: Any = training.fabric.setup_optimizers(torch.optim.Adam(parameters, lr=LR))
    steps = min(STEPS, PASSES * _batches(training))
    answers, sides = [], []
    router.train()
    for step, batch in zip(range(steps), _pictures(training), strict=False):
        side_BD = ((_features(training, batch) @ direction_FD) > median_D).float()
        for group in adam.param_groups:
            group["lr"] = LR * 0.5 * (1 + math.cos(math.pi * step / steps))
        with training.fabric.autocast():
            answer_BD = told(router.features(batch.image_BCHW)).float()
        loss = F.binary_cross_entropy_with_logits(answer_BD, side_BD)
        refuse_nan({"directions": loss}, training.position)
        adam.zero_grad()
        training.fabric.backward(loss)
        update(training, adam, parameters)
        if step >= steps - LAST:
            answers.append(batch_of_all_ranks(answer_BD.detach()))
            sides.append(batch_of_all_ranks(side_BD))
        if training.stop_requested:
            raise Interrupted(training.run)
    answer_ND, side_ND = torch.cat(answers), torch.cat(sides)
    return answer_ND, ((answer_ND > 0) == (side_ND > 0)).float().mean().item()


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
    """(B, F) float32."""
    network = one_network(training).eval()
    with training.fabric.autocast():
        return network.describe(batch.image_BCHW, training.plan).float()


def _batches(training: Training) -> int:
    """In a pass."""
    stage = training.recipe.stages[training.position.stage]
    return len(training.train) // (training.recipe.batch_of(stage) * training.fabric.world_size)


def _pictures(training: Training) -> Iterator[Batch]:
    """Training batches without end, as the stage will see them."""
    position = training.position
    batch = training.recipe.batch_of(training.recipe.stages[position.stage])
    for number in range(PASSES + 1):
        order = position.stage * 10_000 + ORDER + number
        everything = range(len(training.train))
        for pictures in training.loader(training.train, everything, train=True, batch=batch, order=order):
            yield pictures.to(training.fabric.device)
