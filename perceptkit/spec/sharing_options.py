"""Keys of the recipe's section `sharing` that belong to some of its methods, and what the methods cannot do."""

from collections.abc import Mapping

OWNERS = {
    "share_first": ("branch",),
    "branch_cost": ("fafs",),
    "level_epochs": ("fafs",),
    "tree": ("fafs",),
    "skips": ("random",),
    "skips_of": ("random",),
    "survival": ("stochastic_depth",),
    "orthogonality": ("sluice",),
    "unit_lr_scale": ("cross_stitch", "sluice", "nddr"),
}
"""By key, the methods that read it."""
REGULARISERS = ("sparsity", "sharing", "formulation")
"""Keys that say what AdaShare's search adds to the tasks' losses."""
SOFT = ("cross_stitch", "sluice", "nddr")
"""Methods with a trunk per task, each of which reads the others."""
WITHOUT_PLAN = ("branch", "fafs", *SOFT, "mtan")
"""Methods whose network is more than one trunk of which tasks keep or skip blocks: all of them keep every block."""

STRUCTURAL = ("share_first", "tree")
"""Keys that the network's structure follows from, which whoever loads its weights has to know."""


def structural(given: Mapping[str, object]) -> dict[str, object]:
    """Those of the keys of `sharing` that are STRUCTURAL."""
    return {key: given[key] for key in STRUCTURAL if key in given}


def sharing_faults(method: str, given: Mapping[str, object]) -> list[tuple[str, str]]:
    """What is wrong with the keys of `sharing`, each as (key, message); a key that is None is not given.

    Of a whole spec, in which everything has a value, those that are as by default are not given."""
    faults = [
        (key, f"belongs to sharing.method {', '.join(owners)}; {method} does not read it")
        for key, owners in OWNERS.items()
        if given.get(key) is not None and method not in owners
    ]
    if method != "adashare":
        message = f"is of AdaShare's regularisers; sharing.method {method} has none; drop this key"
        faults += [(key, message) for key in REGULARISERS if given.get(key) is not None]
    if method == "branch" and given.get("share_first") is None:
        faults.append(("method", "branch needs share_first: after how many blocks the tasks part"))
    if method == "fafs" and given.get("tree") is not None and given.get("branch_cost") is not None:
        faults.append(("branch_cost", "is read where the tree is found, and tree is given; drop one of them"))
    if method == "fafs" and given.get("tree") is not None and given.get("level_epochs") is not None:
        faults.append(
            ("level_epochs", "is read where the tree is found, and tree is given; drop one of them")
        )
    if method == "random":
        told = [key for key in ("skips", "skips_of") if given.get(key) is not None]
        if not told:
            faults.append(
                ("method", "random needs skips, a number of blocks, or skips_of, a run to count in")
            )
        elif len(told) == 2:
            faults.append(("skips_of", "skips is given too; drop one of them"))
    return faults


def lacks_one_net(method: str) -> str:
    """Why there is no one network whose plan could be changed after training; empty where there is one."""
    if method == "single" or method in SOFT:
        return "has a net per task"
    if method == "branch":
        return "has a net per task after the first blocks"
    if method == "fafs":
        return "has a tree of copies in which tasks part"
    return "has a net of attention per task" if method == "mtan" else ""
