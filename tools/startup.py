"""How long the light commands take beside `python -c "import torch"`: medians of alternating runs, and ratios.

python tools/startup.py --repeat 7
"""

import argparse
import statistics
import subprocess
import sys
import time

RUN = "import sys; from perceptkit.cli import main; sys.exit(main(sys.argv[1:]))"
COMMANDS = {
    'python -c "import torch"': [sys.executable, "-c", "import torch"],
    "perceptkit --help": [sys.executable, "-c", RUN, "--help"],
    "perceptkit check scenes": [sys.executable, "-c", RUN, "check", "scenes"],
}


def main() -> int:
    """Exit code 0 when both commands are faster than the import."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=7)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(options.repeat + 1):  # the first round fills the file cache
        for name, command in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    reference, *others = medians.values()
    for name, median in medians.items():
        print(f"{name:26} {median:6.2f} s   ratio {median / reference:.2f}")
    return 0 if max(others) < reference else 1


if __name__ == "__main__":
    sys.exit(main())
