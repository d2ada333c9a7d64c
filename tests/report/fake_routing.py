"""What a router leaves in a made-up run folder: two stages, twelve of fifteen blocks' worth of choices, ten classes."""

import json
from pathlib import Path

import numpy as np
import yaml

from perceptkit.model.plan import Plan
from tests.report.fake_run import TASKS, _scene, make_run

BLOCKS = tuple(f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(5))
CLASSES = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ROUTER_MACS, BASE_MACS, BLOCK_MACS = 3_000_000, 10_000_000, 4_000_000
STAGES = {"retrain": 14, "route": 7, "finetune": 3}
RULES = ("all", "most_frequent", "first_k", "random_k", "dist_k", "random_drop")


def make_routed_run(
    path: Path,
    gamma: float = 8.0,
    static: bool = False,
    tuned: bool = True,
    latency: bool = True,
    pictures: int = 300,
    tasks: tuple[str, ...] = ("room",),
) -> Path:
    """Writes a run folder of method `hard` with stages `route` and `finetune`.

    Args:
        path: the folder to make.
        gamma: the larger, the more blocks are kept and the better the router.
        static: one policy for all pictures.
        tuned: whether the rules were fine-tuned too.
        latency: whether somebody measured it.
        pictures: of the test split.
        tasks: as in `make_run`.
    """
    make_run(path, "hard", tasks=tasks)
    rng = np.random.default_rng(0)
    keep_NR = _decisions(rng, gamma, 1 if static else pictures)
    keep_NR = np.broadcast_to(keep_NR, (pictures, len(BLOCKS)))
    routing = _routing(rng, keep_NR, gamma, static, tuned, tasks)
    (path / "routing.json").write_text(json.dumps(routing))
    (path / "routing").mkdir()
    for number in _named(routing["test"]):
        _scene(number).save(path / f"routing/{number}.png")
    plan = Plan.all_keep(tasks, BLOCKS)
    if static:
        plan = Plan.from_keep(tasks, BLOCKS, [keep_NR[0].astype(bool).tolist()] * len(tasks))
    else:
        plan = plan.with_routed(range(1, len(BLOCKS)))
    (path / "policy.json").write_text(plan.to_json())
    specs = yaml.safe_load((path / "resolved.yaml").read_text())
    specs["recipe"]["stages"] = [{"name": name, "epochs": epochs} for name, epochs in STAGES.items()]
    (path / "resolved.yaml").write_text(yaml.safe_dump(specs))
    _log(path / "metrics.jsonl", gamma)
    if latency:
        (path / "benchmark").mkdir()
        (path / "benchmark/benchmark.json").write_text(json.dumps({"rows": {}, "routing_latency": LATENCY}))
    return path


LATENCY = {
    "batch": {
        "32": {
            "full": {"p50": 118.0, "p95": 121.5, "p99": 130.2},
            "routed": {"p50": 80.6, "p95": 86.0, "p99": 91.3},
            "worst": {"p50": 125.1, "p95": 129.0, "p99": 134.0},
        },
        "1": {
            "full": {"p50": 6.2, "p95": 6.9, "p99": 8.1},
            "routed": {"p50": 4.34, "p95": 5.8, "p99": 7.2},
            "worst": {"p50": 6.9, "p95": 7.4, "p99": 9.0},
        },
    }
}


def _decisions(rng: np.random.Generator, gamma: float, count: int) -> np.ndarray:
    """Four ways to look at a picture, and some noise; the first block always runs."""
    kinds_4R = rng.random((4, len(BLOCKS))) < 0.35 + 0.05 * gamma
    keep_NR = kinds_4R[rng.choice(4, count, p=[0.5, 0.25, 0.15, 0.1])]
    keep_NR = keep_NR ^ (rng.random(keep_NR.shape) < 0.04)
    keep_NR[:, 0] = True
    return keep_NR


def _routing(
    rng: np.random.Generator,
    keep_NR: np.ndarray,
    gamma: float,
    static: bool,
    tuned: bool,
    tasks: tuple[str, ...],
) -> dict:
    N, R = keep_NR.shape
    policies, policy_N, count_U = np.unique(keep_NR, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(-count_U, kind="stable")
    policy_N = np.argsort(order)[policy_N.ravel()]
    policies, count_U = policies[order].astype(int), count_U[order]
    blocks_N = keep_NR.sum(1)
    macs_N = BASE_MACS + ROUTER_MACS + BLOCK_MACS * blocks_N
    quality_N = np.clip(1.2 - blocks_N / R + 0.1 * rng.standard_normal(N), 0, 1)
    class_N = rng.integers(0, len(CLASSES), N)
    rate = keep_NR.mean(0)
    by_macs = [int(n) for n in np.argsort(macs_N, kind="stable")]
    difficulty = []
    if not static:
        for index, name in enumerate(CLASSES):
            own = [n for n in by_macs if class_N[n] == index]
            difficulty.append(
                {"by": "quality", "task": "room", "class": name, "easiest": own[:2], "hardest": own[:-3:-1]}
            )
        if len(tasks) > 1:
            ends = {"easiest": by_macs[:6], "hardest": by_macs[:-7:-1]}
            difficulty.append({"by": "quality", "task": None, "class": None, **ends})
    centres = range(min(4, len(policies)))
    group_U = [min(centres, key=lambda c: (policies[u] != policies[c]).sum()) for u in range(len(policies))]
    clusters = []
    for c in centres:
        members = [n for n in range(N) if group_U[policy_N[n]] == c]
        clusters.append(
            {
                "keep": policies[c].tolist(), "keep_rate": keep_NR[members].mean(0).tolist(),
                "policies": group_U.count(c), "pictures": len(members), "usage": float(keep_NR[members].mean()),
                "macs": float(macs_N[members].mean()), "examples": members[:5],
            }
        )  # fmt: skip
    return {
        "blocks": list(BLOCKS), "usage": "macs", "cost": [float(BLOCK_MACS)] * R, "gamma": gamma,
        "seen": {
            "num_images": 60000, "num_blocks": R, "unique": len(policies), "most_frequent_share": count_U[0] / N,
            "keep_rate": np.clip(rate + (0 if static else 0.02), 0, 1).tolist(),
        },
        "findings": [{"code": "static", "message": "100.00% of 60000 images keep the same blocks."}] * static,
        "rows": _rows(keep_NR, gamma, tuned, tasks),
        "is_static": static,
        "test": {
            "policies": [
                {"keep": keep.tolist(), "pictures": int(count)} for keep, count in zip(policies, count_U, strict=True)
            ],
            "pictures": {
                "id": [f"test/{n:05d}" for n in range(N)], "policy": policy_N.tolist(),
                "usage": (blocks_N / R).tolist(), "macs": macs_N.tolist(),
                "quality": {task: quality_N.tolist() for task in tasks},
                "full_quality": {task: [None, *quality_N[1:].tolist()] for task in tasks},
            },
            "difficulty": difficulty,
            "clusters": clusters,
        },
    }  # fmt: skip


def _rows(keep_NR: np.ndarray, gamma: float, tuned: bool, tasks: tuple[str, ...]) -> list[dict]:
    usage = float(keep_NR.mean())
    rows = []
    for rule, is_tuned in [
        ("learned", True),
        *((r, False) for r in RULES),
        *((r, True) for r in RULES if tuned),
    ]:
        share = 1.0 if rule == "all" else usage
        own = ROUTER_MACS if rule == "learned" else 0
        varies = rule not in ("all", "most_frequent", "random_drop")
        blocks = share * len(BLOCKS)
        reached = {"learned": 0.9 + 0.002 * gamma, "all": 1.0, "most_frequent": 0.86}.get(rule, 0.7)
        reached -= 0 if is_tuned else 0.45 * (rule != "all")
        metrics = {}
        for task in tasks:
            metrics[task] = {
                metric: value * reached if higher else value / reached
                for metric, (value, _, higher, _) in TASKS[task][2].items()
            }
        rows.append(
            {
                "rule": rule, "tuned": is_tuned, "metrics": metrics, "usage": share, "blocks": blocks,
                "macs": BASE_MACS + own + BLOCK_MACS * blocks,
                "macs_std": float(keep_NR.sum(1).std()) * BLOCK_MACS * varies, "router_macs": own,
                "task_macs": {t: BASE_MACS / (2 + k) + BLOCK_MACS * blocks + own for k, t in enumerate(tasks)}
                if len(tasks) > 1
                else {},
            }
        )  # fmt: skip
    return rows


def _named(test: dict) -> set[int]:
    lists = [row["examples"] for row in test["clusters"]]
    lists += [row[end] for row in test["difficulty"] for end in ("easiest", "hardest")]
    return {number for numbers in lists for number in numbers}


def _log(file: Path, gamma: float) -> None:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    step = rows[-1]["step"]
    for stage in ("route", "finetune"):
        for epoch in range(STAGES[stage]):
            step += 60
            done = epoch + 1 if stage == "route" else 7 + epoch
            rows.append(
                {"kind": "routing", "stage": stage, "epoch": epoch, "step": step, "reward": 0.05 * done - 0.2,
                 "right": 0.9 - 0.01 * done, "usage": 1 - 0.05 * done, "gamma": gamma, "open_blocks": min(15, 2 * done),
                 "unique": 1 + 3 * done, "keep_rate": [0.5] * 15}
            )  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
