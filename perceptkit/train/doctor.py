"""What this machine has, and what about it will disappoint."""

import os
import platform
import shutil
from importlib import metadata
from importlib.util import find_spec

import torch

REQUIRED = (
    "torch",
    "torchvision",
    "timm",
    "albumentations",
    "lightning-fabric",
    "torchmetrics",
    "pytorch-metric-learning",
    "pydantic",
)
OPTIONAL = {
    "onnx": ("ONNX export", "export"),
    "onnxruntime": ("ONNX export and running it", "export"),
    "onnxscript": ("ONNX export", "export"),
    "datasets": ("source: huggingface", "hf"),
}
"""What each is for, and the extra that installs it."""


def diagnose() -> tuple[list[str], bool]:
    """Lines to print, and whether everything that is needed is there."""
    lines = [f"python {platform.python_version()} on {platform.platform()}"]
    healthy = True
    for name in REQUIRED:
        try:
            lines.append(f"ok    {name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            healthy = False
            lines.append(f"MISS  {name}: pip install {name}")
    for name, (use, extra) in OPTIONAL.items():
        if find_spec(name):
            lines.append(f"ok    {name} {metadata.version(name)}")
        else:
            lines.append(f"none  {name} ({use}): pip install 'perceptkit[{extra}]'")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            lines.append(f"ok    cuda:{index} {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    else:
        lines.append(f"none  no CUDA device: training runs on {os.cpu_count()} CPU cores")
        if torch.get_num_threads() > 1 and os.environ.get("GOMP_SPINCOUNT") != "0":
            lines.append("hint  GOMP_SPINCOUNT=0 avoids slow thread barriers on shared machines")
    free = shutil.disk_usage(".").free / 2**30
    lines.append(f"{'ok   ' if free > 2 else 'LOW  '} {free:.0f} GiB free on this disk")
    return lines, healthy
