"""What memory a variant takes: the growth of a fresh process that loads it and runs it.

A process per variant, since in one process for all every variant would be charged with the largest of those
before it. What Python and torch take before the model is loaded is left out; ONNX Runtime's library is not.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from perceptkit.compact.artifact import read_manifest
from perceptkit.runtime.variants import open_variant


def peak_memory(name: str, artifact: Path, file: Path | None, batch: int, device: str) -> int | None:
    """Bytes at the peak, over those before loading; of torch's allocator on CUDA. None where the process failed."""
    command = [
        sys.executable,
        "-m",
        "perceptkit.runtime.peak_memory",
        name,
        str(artifact),
        str(batch),
        device,
    ]
    command += [str(file)] if file is not None else []
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    try:
        peak: int = json.loads(done.stdout.splitlines()[-1])["peak"]
    except (IndexError, ValueError, KeyError):
        return None
    return peak


def process_peak() -> int:
    """Largest resident memory of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would tell the parent's peak: on Linux it survives fork and exec
        return 1024 * int(status.read_text().partition("VmHWM:")[2].split()[0])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@torch.inference_mode()
def main() -> None:
    """What the process of `peak_memory` runs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("artifact", type=Path)
    parser.add_argument("batch", type=int)
    parser.add_argument("device")
    parser.add_argument("file", type=Path, nargs="?")
    options = parser.parse_args()
    before = process_peak()
    manifest = read_manifest(options.artifact)
    variant = open_variant(options.name, options.artifact, options.file, options.device)
    image_BCHW = torch.randn(options.batch, 3, *manifest.size_HW)
    for _ in range(3):
        variant.forward(image_BCHW)
    on_cuda = options.device.startswith("cuda")
    sys.stdout.write(
        json.dumps({"peak": torch.cuda.max_memory_allocated() if on_cuda else process_peak() - before})
    )


if __name__ == "__main__":
    main()
