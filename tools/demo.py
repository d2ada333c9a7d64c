"""The main job in one go: train six tasks on the built-in scenes, export, predict, report.

    python tools/demo.py --out runs/demo

Says at the end how each task compares with the best constant predictor, what the compact model costs, how far the
exported models are from the trained one, how fast training was, and where the page is.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

from PIL import Image

import perceptkit as pk
from perceptkit.api import Run
from perceptkit.compact.parity_file import recorded
from perceptkit.data.scenes.render import render_scene
from perceptkit.errors import PerceptkitError

AGAINST_CONSTANT = {
    "segmentation": ("miou", "at least", 3.0),
    "depth": ("abs_rel", "at most", 0.5),
    "normals": ("mean_deg", "at most", 0.5),
    "keypoints": ("mean_px", "at most", 0.5),
    "edges": ("ods_f", "at least", 1.5),
    "classification": ("top1", "at least", 2.0),
}
"""By task type: a metric, and what it must be of the best constant predictor's."""


def main() -> int:
    """Exit code 0 when everything was made and every task clearly beats the constant predictor."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", dest="overrides")
    options = parser.parse_args()
    out: Path = options.out
    began = time.monotonic()
    try:
        run = pk.train("scenes", recipe=options.recipe, out=out, overrides=options.overrides)
        onnx = pk.export(out, out / "exports/model.onnx", format="onnx")
        picture = write_picture(out / "exports/picture.png")
        drawn = pk.load(out).predict(picture).save(out / "exports/predictions")
        page = pk.report(out)
        print(pk.summary([out]))
    except PerceptkitError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    good = print_comparison(run)
    print_cost(run)
    print_parity(out)
    print_speed(run)
    minutes = (time.monotonic() - began) / 60
    print(f"trained in {run.results['train_seconds'] / 60:.1f} minutes, everything in {minutes:.1f}")
    print(f"compact model: {out / 'artifact'}   ONNX: {onnx}")
    print(f"a picture and its predictions: {drawn[0]}")
    print(f"the page: {page.resolve()}")
    return 0 if good else 1


def write_picture(path: Path) -> Path:
    """A scene that no split holds, four times larger than the network's input."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(render_scene(seed=2026, index=0, size_HW=(256, 256)).image).save(path)
    return path


def print_comparison(run: Run) -> bool:
    """A line per task; whether all of them hold."""
    results, good = run.results, True
    print("against the best constant predictor, on the test split:")
    for name, task in results["tasks"].items():
        metric, word, bound = AGAINST_CONSTANT[task["type"]]
        ours, constant = task["metrics"][metric], results["constant"][name][metric]
        ratio = ours / constant
        holds = ratio >= bound if word == "at least" else ratio <= bound
        good &= holds
        verdict = "" if holds else "   MISSED"
        print(
            f"  {name:10} {metric:9} {ours:7.3f} / {constant:7.3f} = {ratio:6.2f}   {word} {bound}{verdict}"
        )
    return good


def print_cost(run: Run) -> None:
    """Parameters and MACs of the compact model beside what it replaces."""
    for name, row in run.cost["rows"].items():
        print(f"  {name:17} {row['params'] / 1e6:7.2f} M parameters {row['macs'] / 1e6:8.1f} M MACs")


def print_parity(out: Path) -> None:
    """Largest difference per head of the artifact from the supernet, and of ONNX from the artifact."""
    for what, path in (("artifact", out / "artifact"), ("ONNX", out / "exports/model.onnx")):
        heads = recorded(path)["heads"]
        print(
            f"largest difference, {what}: "
            + ", ".join(f"{h} {row['max_abs']:.1e}" for h, row in heads.items())
        )


def print_speed(run: Run) -> None:
    """Medians of the log by train stage, and the peak of the memory."""
    lines = (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["kind"] == "train"]
    for stage in dict.fromkeys(row["stage"] for row in rows):
        speed, wait = (
            statistics.median(row[key] for row in rows if row["stage"] == stage)
            for key in ("images_per_s", "data_wait")
        )
        print(f"  {stage:8} {speed:5.0f} images/s, {100 * wait:.1f} % of the time waiting for data")
    print(f"  peak memory {max(row['peak_mib'] for row in rows):.0f} MiB")


if __name__ == "__main__":
    sys.exit(main())
