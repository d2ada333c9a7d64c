"""The page's sections on how tasks relate and on what blocks are worth, in sentences; the plots say the rest."""

import math
from dataclasses import dataclass

import numpy as np

from perceptkit.report.analysis_file import Lesions, open_keep_prob
from perceptkit.report.grid import number
from perceptkit.report.lesion_plots import lost
from perceptkit.report.run_folder import Run

DECIDED = 0.1
"""A choice is decided where a keep probability is this near to 0 or 1."""
WITHOUT_SKIPS = frozenset({"branch", "fafs", "cross_stitch", "sluice", "nddr", "mtan"})
"""Methods whose network has no blocks that a plan skips: `read_trained` refuses a lesion study of their runs."""
NEGLIGIBLE = 0.01
"""Part of the mean quality that a block may be worth and still be called spare."""


@dataclass(frozen=True)
class Section:
    """Everything the template shows."""

    decided: str
    affinity: str
    lesions: tuple[str, ...]
    command: str
    """What makes a lesion study, where there is none and it can be made; empty elsewhere."""


def analysis_section(run: Run) -> Section:
    """Sentences that are empty where there is nothing to say."""
    has_blocks = run.plan is not None and run.method not in WITHOUT_SKIPS
    can_be_studied = run.finished and not run.adapts and has_blocks
    return Section(
        decided=decided_words(run),
        affinity=affinity_words(run),
        lesions=lesion_words(run.lesions) if run.lesions else (),
        command=f"perceptkit report {run.path} --lesion" if can_be_studied and not run.lesions else "",
    )


def decided_words(run: Run) -> str:
    """How much of the policy is decided in the end."""
    rows = [row for row in run.of_kind("policy") if row.get("keep_prob")]
    if not rows:
        return ""
    _, keep_KL = open_keep_prob(rows[-1])
    decided = float(np.mean((keep_KL <= DECIDED) | (keep_KL >= 1 - DECIDED)))
    return (
        f"In the end {decided:.0%} of the choices are decided: kept with a probability of at most {DECIDED:g} or at "
        f"least {1 - DECIDED:g}."
    )


def affinity_words(run: Run) -> str:
    """What the second matrix is, and which tasks are nearest."""
    found = run.affinity
    if found is None or len(found.tasks) < 2:
        return ""
    above_KK = found.affinity_KK - found.by_chance_KK
    np.fill_diagonal(above_KK, np.nan)
    words = (
        f"Task affinity is that of Lu et al. (CVPR 2017), from the errors on {found.pictures:,} images of "
        f"{found.split}: the part of the images that are hard for both tasks or easy for both, hard being an "
        "error above the task's mean. Its colour says how far that is above what unrelated tasks would have."
    )
    if np.isnan(above_KK).all():
        return words
    i, j = np.unravel_index(np.nanargmax(above_KK), above_KK.shape)
    return (
        f"{words} Nearest are {found.tasks[i]} and {found.tasks[j]}, with {found.affinity_KK[i, j]:.2f} where chance "
        f"gives {found.by_chance_KK[i, j]:.2f}."
    )


def lesion_words(found: Lesions) -> tuple[str, ...]:
    """What was done, which block matters most, how many matter little, and what many of them are worth."""
    words = [
        "Blocks of the trained network are deleted (only their shortcut is left) or change places, and nothing is "
        f"trained after that (Veit et al., NIPS 2016). Quality is that of {found.pictures:,} images of {found.split}, "
        "in [0, 1]."
    ]
    losses = {block: lost(found.intact.score, outcome.score) for block, outcome in found.deleted.items()}
    known = {block: loss for block, loss in losses.items() if math.isfinite(loss)}
    if known:
        worst = max(known, key=lambda block: known[block])
        spare = [block for block, loss in known.items() if loss < NEGLIGIBLE]
        intact = number(found.intact.score, 3)
        if known[worst] >= NEGLIGIBLE:
            words.append(
                f"Without {worst} the most is lost: {known[worst]:.0%} of the mean quality, which is {intact} with all."
            )
        else:
            words.append(f"The mean quality is {intact} with all blocks, and no single one is needed for it.")
        names = f": {', '.join(spare)}" if spare else ""
        words.append(
            f"{len(spare)} of {len(known)} blocks can each be deleted for less than {NEGLIGIBLE:.0%} of it{names}."
        )
    if not found.reordered:
        words.append("No two neighbouring blocks have equal shapes, so none can change places.")
    return tuple(words)
