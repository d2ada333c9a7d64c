"""A run folder as training leaves it, made up: six tasks, eight blocks, three stages."""

import json
import math
from pathlib import Path

import numpy as np
import yaml
from PIL import Image, ImageDraw

from perceptkit.model.plan import Plan

BLOCKS = tuple(f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1))
STAGES = {"warmup": 6, "search": 8, "retrain": 14}
STEPS_PER_EPOCH = 62

# task: type, primary, {metric: (value, constant, higher is better, unit)}
TASKS = {
    "seg": (
        "segmentation",
        "miou",
        {"miou": (0.524, 0.079, True, ""), "pixel_acc": (0.831, 0.412, True, "")},
    ),
    "depth": (
        "depth",
        "abs_rel",
        {
            "abs_rel": (0.112, 0.391, False, ""),
            "abs_err": (0.284, 0.951, False, "m"),
            "rmse": (0.47, 1.273, False, "m"),
            "delta1": (0.783, 0.294, True, ""),
            "delta2": (0.871, 0.602, True, ""),
            "delta3": (0.938, 0.760, True, ""),
        },
    ),
    "normals": (
        "normals",
        "mean_deg",
        {
            "mean_deg": (14.2, 48.8, False, "deg"),
            "median_deg": (7.9, 46.1, False, "deg"),
            "within_11_25": (0.644, 0.042, True, ""),
            "within_22_5": (0.802, 0.133, True, ""),
            "within_30": (0.879, 0.24, True, ""),
        },
    ),
    "keypoints": (
        "keypoints",
        "mean_px",
        {
            "mean_px": (3.41, 14.62, False, "px"),
            "pck": (0.71, 0.038, True, ""),
            "visibility_acc": (0.853, 0.64, True, ""),
        },
    ),
    "edges": (
        "edges",
        "ods_f",
        {
            "ods_f": (0.718, 0.214, True, ""),
            "ois_f": (0.731, 0.214, True, ""),
            "l1": (0.061, 0.903, False, ""),
        },
    ),
    "room": ("classification", "top1", {"top1": (0.813, 0.227, True, "")}),
}
KEEP = {
    "seg": "11111101",
    "depth": "11111001",
    "normals": "11110101",
    "keypoints": "11101101",
    "edges": "11110000",
    "room": "11011010",
}


def make_run(
    path: Path,
    method: str = "adashare",
    factor: float = 1.0,
    upto: str = "retrain",
    rename: dict[str, str] | None = None,
    tasks: tuple[str, ...] = tuple(TASKS),
    seed: int = 0,
) -> Path:
    """Writes a run folder.

    Args:
        path: the folder to make.
        method: `adashare`, `hard` or `single`.
        factor: how much better than the reference every metric is.
        upto: the last stage in the log; anything but `retrain` leaves an unfinished run.
        rename: other names for tasks.
        tasks: which of the six.
        seed: of the noise in the curves.
    """
    path.mkdir(parents=True)
    names = {task: (rename or {}).get(task, task) for task in tasks}
    rng = np.random.default_rng(seed)
    stages = STAGES if method == "adashare" else {"retrain": STAGES["retrain"]}
    stages = {name: stages[name] for name in list(stages)[: list(stages).index(upto) + 1]}
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _log(rng, names, stages)))
    _write_specs(path, method, names)
    if upto != "retrain":
        return path
    plan_rows = [[method != "adashare" or mark == "1" for mark in KEEP[task]] for task in tasks]
    (path / "policy.json").write_text(Plan.from_keep(list(names.values()), BLOCKS, plan_rows).to_json())
    (path / "results.json").write_text(json.dumps(_results(method, names, factor)))
    (path / "cost.json").write_text(json.dumps(_cost(method, list(names.values()))))
    _draw_predictions(path / "predictions", names)
    return path


def _write_specs(path: Path, method: str, names: dict[str, str]) -> None:
    stages = STAGES if method == "adashare" else {"retrain": STAGES["retrain"]}
    specs = {
        "tasks_file": {
            "version": 1,
            "name": "scenes",
            "tasks": {names[t]: {"type": TASKS[t][0]} for t in names},
        },
        "recipe": {
            "backbone": {"name": "resnet18", "weights": "none"},
            "sharing": {"method": method},
            "stages": [{"name": name, "epochs": epochs} for name, epochs in stages.items()],
            "seed": 0,
        },
    }
    (path / "resolved.yaml").write_text(yaml.safe_dump(specs, sort_keys=False))
    environment = {
        "command": ["perceptkit", "train", "scenes", "--recipe", "quickstart"],
        "python": "3.11.7",
        "platform": "Linux-6.1-x86_64",
        "versions": {"perceptkit": "0.1.0", "torch": "2.14.1", "timm": "1.0.31"},
        "seed": 0,
    }
    (path / "env.json").write_text(json.dumps(environment))


def _log(rng: np.random.Generator, names: dict[str, str], stages: dict[str, int]) -> list[dict]:
    rows: list[dict] = []
    step = 0
    start = {task: 1.2 + 0.4 * k for k, task in enumerate(names)}
    for number, (stage, epochs) in enumerate(stages.items()):
        for epoch in range(epochs):
            for part in range(6):
                done = epoch + part / 6 + number * 6
                step += STEPS_PER_EPOCH // 6
                losses = {
                    f"loss/{names[t]}": start[t]
                    * (0.25 + 0.75 * math.exp(-done / 6))
                    * rng.lognormal(0, 0.06)
                    for t in names
                }
                rows.append(
                    {"kind": "train", "stage": stage, "epoch": epoch, "step": step,
                     "loss": sum(losses.values()),
                     **losses, "lr": 2e-3, "images_per_s": 171 * rng.lognormal(0, 0.03), "data_wait": 0.031,
                     "peak_mib": 1184}
                )  # fmt: skip
            progress = 1 - math.exp(-(epoch + 1 + number * 6) / 6)
            place = {"stage": stage, "epoch": epoch, "step": step}
            if stage == "search":
                rows.append({"kind": "policy", **place, **_policy(names, epoch)})
            values = {
                f"{names[t]}/{m}": constant + (value - constant) * progress * rng.lognormal(0, 0.02)
                for t in names
                for m, (value, constant, _, _) in TASKS[t][2].items()
            }
            rows.append({"kind": "val", **place, **values, "score": 0.7 * progress})
    return rows


def _policy(names: dict[str, str], epoch: int) -> dict:
    opened = min(8, 2 * (epoch + 1))
    keep = {}
    for task in names:
        goal = np.array([0.93 if mark == "1" else 0.12 for mark in KEEP[task]])
        age = np.clip(epoch + 1 - (7 - np.arange(8)) / 2, 0, None)
        keep[names[task]] = (0.5 + (goal - 0.5) * (1 - np.exp(-age / 2))).tolist()
    return {
        "tau": 5.0 * 0.1 ** ((epoch + 1) / 8), "open_blocks": opened, "keep_prob": keep,
        "sparsity_loss": -3.0 - epoch, "sharing_loss": 2.0,
    }  # fmt: skip


def _results(method: str, names: dict[str, str], factor: float) -> dict:
    tasks, constants = {}, {}
    for task, name in names.items():
        kind, primary, metrics = TASKS[task]
        tasks[name] = {
            "type": kind,
            "primary": primary,
            "metrics": {
                m: value * (factor if higher else 1 / factor) for m, (value, _, higher, _) in metrics.items()
            },
            "info": {
                m: {"higher_is_better": higher, "unit": unit} for m, (_, _, higher, unit) in metrics.items()
            },
        }
        constants[name] = {m: constant for m, (_, constant, _, _) in metrics.items()}
    stage_seconds = {"warmup": 84.0, "search": 161.5, "retrain": 231.8}
    return {
        "split": "test", "method": method, "backbone": "resnet18", "seed": 0, "score": 0.7, "tasks": tasks,
        "constant": constants, "train_seconds": sum(stage_seconds.values()), "stage_seconds": stage_seconds,
    }  # fmt: skip


def _cost(method: str, names: list[str]) -> dict:
    rows = {
        "compact": {"params": 2_561_312, "macs": 402_118_400, "backbone_macs": 71_930_000},
        "hard_shared": {"params": 3_127_904, "macs": 371_220_480, "backbone_macs": 41_032_080},
        "single_task_nets": {"params": 17_914_112, "macs": 576_380_880, "backbone_macs": 246_192_480},
    }
    if method == "hard":
        rows["compact"] = rows["hard_shared"]
    if method == "single":
        rows["compact"] = rows["single_task_nets"]
    per_task = {name: 88_412_160 + 3_100_000 * k for k, name in enumerate(names)}
    return {"input": [3, 64, 64], "rows": rows, "per_task_macs": per_task}


def _draw_predictions(folder: Path, names: dict[str, str], count: int = 4) -> None:
    folder.mkdir()
    index = []
    for number in range(count):
        scene = _scene(number)
        scene.save(folder / f"{number}_image.png")
        tasks: dict[str, dict] = {}
        for k, (task, name) in enumerate(names.items()):
            drawn = {"label": f"{number}_{k}_label.png", "prediction": f"{number}_{k}_prediction.png"}
            tinted = Image.fromarray(np.roll(np.asarray(scene), k, axis=2) // (1 + k % 2))
            tinted.save(folder / drawn["label"])
            tinted.resize((16, 16)).resize((64, 64)).save(folder / drawn["prediction"])
            tasks[name] = drawn if (task, number) != ("keypoints", 2) else {**drawn, "label": None}
        index.append({"id": f"{number:04d}", "image": f"{number}_image.png", "tasks": tasks})
    (folder / "index.json").write_text(json.dumps(index))


def _scene(number: int) -> Image.Image:
    rng = np.random.default_rng(number)
    picture = Image.new("RGB", (64, 64), (150, 170, 190))
    draw = ImageDraw.Draw(picture)
    draw.polygon([(0, 40), (64, 44), (64, 64), (0, 64)], fill=(120, 92, 70))
    for _ in range(4):
        x, y, r = rng.integers(8, 56), rng.integers(24, 52), rng.integers(5, 12)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=tuple(int(c) for c in rng.integers(40, 230, 3)))
    return picture


def add_samples(path: Path, each: bool = True) -> None:
    """Gives a finished run three sampled plans, two of them alike; with `each` both were retrained."""
    file = path / "results.json"
    loaded = json.loads(file.read_text())
    numbers = {"kept_fraction": 0.75, "params": 2_561_312, "macs": 402_118_400, "val_loss": 1.5}
    rows = [
        {**numbers, "count": 2, "choices": {}, "val_score": 0.7, "metrics": None},
        {
            **numbers,
            "count": 1,
            "choices": {},
            "val_loss": 3.0,
            "val_score": 0.6 if each else None,
            "metrics": None,
        },
    ]
    mean = {**numbers, "val_loss": 2.0, "val_score": 2 / 3 if each else None}
    std = {
        "kept_fraction": 0.0,
        "params": 0,
        "macs": 0,
        "val_loss": 0.866,
        "val_score": 0.058 if each else None,
    }
    if each:
        mean["metrics"] = {task: found["metrics"] for task, found in loaded["tasks"].items()}
        std["metrics"] = {
            task: {name: value / 64 for name, value in found["metrics"].items()}
            for task, found in loaded["tasks"].items()
        }
    loaded["samples"] = {"drawn": 3, "chosen": 0, "rows": rows, "mean": mean, "std": std}
    file.write_text(json.dumps(loaded))
