"""What SpotTune's router chose for each picture of the test split, for the report: the key `test` of adaptation.json.

    num_images   of the split
    rate         by block: the part of the pictures that run the tuned copy
    policies     [{"tuned", "pictures"}]           each different decision, the most frequent first
    clusters     [{"tuned", "rate", "policies", "pictures", "examples"}]
                                                   decisions that are alike, around the one with this `tuned`
    fewest, most                                   pictures with the fewest and the most tuned blocks
    examples     {number: {"id", "policy"}}        every picture that is named; the policy is a row above
    RUN/adaptation/NUMBER.png                      the same pictures

Nothing is drawn at random: of equals, pictures spread evenly over the split are shown.

Shapes: N pictures of the split, R blocks with two copies.
"""

from typing import Any

from torch import Tensor

from perceptkit.data.source import Source
from perceptkit.train.pictures import save_png
from perceptkit.train.routing_check import decisions
from perceptkit.train.routing_record import OF_ALL, by_frequency, clusters, extremes
from perceptkit.train.training import Training

FOLDER = "adaptation"


def record_choices(training: Training, test: Source) -> dict[str, Any]:
    """The table of the test split; saves the pictures it names. Every rank must call it, rank 0 writes.

    Before any choice is fixed: later blocks may have one copy only.
    """
    tuned_NR, _ = decisions(training, test)
    found = choices(tuned_NR, list(test.ids))
    if training.fabric.global_rank == 0:
        for number in found["examples"]:
            save_png(training.run / FOLDER / f"{number}.png", test.load(int(number)).image)
    return found


def choices(tuned_NR: Tensor, ids: list[str]) -> dict[str, Any]:
    """The table, from the decisions (bool) and the pictures' names."""
    tuned_N = tuned_NR.double().sum(1)
    tuned_UR, policy_N, count_U = by_frequency(tuned_NR)
    groups = [
        {"tuned": row["keep"], "rate": row["keep_rate"]}
        | {key: row[key] for key in ("policies", "pictures", "examples")}
        for row in clusters(tuned_NR, tuned_N, tuned_N)
    ]
    ends: dict[str, list[int]] = {"easiest": [], "hardest": []}
    if tuned_N.min() != tuned_N.max():
        ends = extremes(range(len(ids)), tuned_N.tolist(), OF_ALL)
    named = {number for row in groups for number in row["examples"]} | {*ends["easiest"], *ends["hardest"]}
    return {
        "num_images": len(ids),
        "rate": tuned_NR.double().mean(0).tolist(),
        "policies": [
            {"tuned": row, "pictures": count}
            for row, count in zip(tuned_UR.int().tolist(), count_U.tolist(), strict=True)
        ],
        "clusters": groups,
        "fewest": ends["easiest"],
        "most": ends["hardest"],
        "examples": {str(n): {"id": ids[n], "policy": int(policy_N[n])} for n in sorted(named)},
    }
