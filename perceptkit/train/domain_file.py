"""What a domain stores beside the base: RUN/domain, a few tensors and what says how to put them back.

    domain.json          the recipe's section `adaptation`, what was chosen, the base's digest
    delta.safetensors    what the strategy packs, and the router's weights where there is one

compact/domains.py reads it.
"""

import hashlib
from collections.abc import Mapping

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from perceptkit.model.plan import Plan
from perceptkit.model.strategy import Strategy
from perceptkit.model.supernet import Supernet
from perceptkit.train.run_folder import write_atomically, write_json
from perceptkit.train.training import Training

FOLDER, ABOUT, DELTA = "domain", "domain.json", "delta.safetensors"
FORMAT = 1


def digest(trunk: nn.Module) -> str:
    """Of the trunk's weights: a domain fits one base only."""
    found = hashlib.sha256()
    for name, value in sorted(trunk.state_dict().items()):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def needed(net: Supernet, plan: Plan, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the tensors that the plan's network reads: of blocks that no task keeps, only their projections."""
    gone = [step for step in net.steps if step.block is not None and not plan.kept_by_any()[step.block]]

    def is_read(name: str) -> bool:
        name = name.removeprefix("backbone.")
        return all(
            not name.startswith(f"{step.name}.")
            or (step.projection is not None and name.startswith(f"{step.projection}."))
            for step in gone
        )

    return {name: value for name, value in tensors.items() if is_read(name)}


def trunk_bits(tensors: Mapping[str, Tensor]) -> int:
    """Size of those that belong to the trunk."""
    return bits_of(tensors, "backbone.")


def bits_of(tensors: Mapping[str, Tensor], prefix: str = "") -> int:
    """Size of all, or of those whose names begin so."""
    return sum(
        8 * value.numel() * value.element_size() for name, value in tensors.items() if name.startswith(prefix)
    )


def write_domain(
    training: Training, strategy: Strategy, tuned: list[str], write: bool = True
) -> dict[str, int]:
    """Writes the domain of a run, before its network is folded, or only counts (not `write`).

    Args:
        training: the network, its plan and its router as they will be used.
        strategy: says what is stored.
        tuned: of SpotTune, the blocks of which only the tuned copy is left.

    Returns:
        Bits that are stored of the trunk, of neck and heads, and of a router.
    """
    supernet, recipe = training.supernet, training.recipe
    assert isinstance(supernet, Supernet) and recipe.adaptation is not None
    stored = needed(supernet, training.plan, strategy.pack(supernet))
    router = training.routing.router.state_dict() if training.routing is not None else {}
    stored |= {f"router.{name}": value for name, value in router.items()}
    stored = {name: value.detach().cpu().contiguous().clone() for name, value in stored.items()}
    bits = {"trunk": trunk_bits(stored), "router": bits_of(stored, "router."), "rest": 0}
    bits["rest"] = bits_of(stored) - bits["trunk"] - bits["router"]
    if training.fabric.global_rank != 0 or not write:
        return bits
    folder = training.run / FOLDER
    write_atomically(folder / DELTA, lambda temporary: save_file(stored, temporary))
    about = {
        "format": FORMAT,
        "base": training.base_digest,
        "adaptation": recipe.adaptation.model_dump(mode="json"),
        "tuned": tuned,
    }
    write_json(folder / ABOUT, about)
    return bits
