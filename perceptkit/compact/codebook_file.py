"""A codebook on disk: a router and P networks without choice, one folder that is loaded as one model.

    codebook.json      the manifest, and of every network its file and the blocks that run in it
    router.onnx        image (B, 3, H, W) -> decisions (B, R) bool
    network_0.onnx     the cheapest network; it answers the pictures that are assigned to it
    network_1.onnx     ...
    parity.json        what they were compared with

Assigned is the cheapest network that keeps all that a picture wants, or the nearest: see compact/codebook.py.
The router runs once for a batch; its rows are grouped by policy, and each group runs in its own network. All
files are ONNX, and hold their own copy of the weights.

Shapes: B batch, R routed blocks, P policies.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perceptkit.compact.codebook import Codebook
from perceptkit.compact.onnx_file import KEEP, open_session, run_session, to_array
from perceptkit.errors import ExportError

INDEX, ROUTER = "codebook.json", "router.onnx"
KNOWN = 1024
"""Policies of single pictures whose network is remembered, at most."""
FORMAT = 1


def network_file(index: int) -> str:
    """The name of a policy's file."""
    return f"network_{index}.onnx"


def write_index(folder: Path, book: Codebook, manifest: dict[str, Any], share_P: list[float]) -> None:
    """Writes codebook.json.

    Args:
        folder: with the ONNX files.
        book: its policies are the networks', in order.
        manifest: of the model.
        share_P: which part of the calibration pictures each network serves.
    """
    networks = [
        {"file": network_file(i), "keep": keep, "share": share}
        for i, (keep, share) in enumerate(zip(book.policies_PR.tolist(), share_P, strict=True))
    ]
    told = {
        "format": FORMAT,
        "router": ROUTER,
        "input": "image",
        "decisions": KEEP,
        "outputs": list(manifest["tasks"]),
        "cost": book.cost_R.tolist(),
        "assign": "nearest" if book.nearest else "superset",
        "networks": networks,
        "manifest": manifest,
    }
    (folder / INDEX).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


class CodebookModel:
    """Runs the files of a folder: image (B, 3, H, W) -> {task: output}.

    Args:
        folder: with codebook.json.
        device, threads: as for `open_session`.

    Raises:
        SpecError: onnxruntime is missing, or lacks the device.
        ExportError: what is there is damaged.
    """

    def __init__(self, folder: Path, device: str | None = "cpu", threads: int | None = None) -> None:
        where = folder / INDEX
        try:
            told = json.loads(where.read_text(encoding="utf-8"))
            if told["format"] != FORMAT:
                raise ExportError(f"{where}: codebook format {told['format']!r}; this version reads {FORMAT}")
            policies_PR = torch.tensor([entry["keep"] for entry in told["networks"]], dtype=torch.bool)
            nearest = {"superset": False, "nearest": True}[told.get("assign", "superset")]
            self.book = Codebook(policies_PR, torch.tensor(told["cost"], dtype=torch.float64), nearest)
            if policies_PR.shape[1:] != self.book.cost_R.shape:
                raise ValueError("its policies and costs are of different numbers of blocks")
            self.manifest = json.dumps(told["manifest"])
            self.tasks = [str(task) for task in told["outputs"]]
            # names are not read from the file: a changed one could point anywhere
            files = [ROUTER, *(network_file(i) for i in range(len(policies_PR)))]
        except (OSError, ValueError, KeyError, TypeError, IndexError, RuntimeError) as error:
            raise ExportError(f"{where} is damaged: {error}") from error
        if missing := [name for name in files if not (folder / name).is_file()]:
            raise ExportError(f"{folder} is damaged: it has no {', '.join(missing)}")
        self.router, *self.networks = [open_session(folder / name, device, threads) for name in files]
        self._assigned: dict[bytes, int] = {}
        """Network by what a single picture wants."""

    def __call__(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """All tasks on a batch of normalised images."""
        if len(image_BCHW) == 1:
            return self._answer_one(image_BCHW)
        return self.answer(image_BCHW, self.decide(image_BCHW))

    def decide(self, image_BCHW: Tensor) -> Tensor:
        """What the router wants: (B, R) bool."""
        return run_session(self.router, [KEEP], {"image": image_BCHW})[KEEP]

    def _answer_one(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """As `answer`; in a small network assigning the picture anew would take longer than its router."""
        inputs = {"image": to_array(image_BCHW)}
        [keep_1R] = self.router.run([KEEP], inputs)
        wanted = keep_1R.tobytes()
        if wanted not in self._assigned:
            if len(self._assigned) >= KNOWN:
                self._assigned.clear()
            self._assigned[wanted] = int(self.book.assign(torch.from_numpy(keep_1R)))
        values = self.networks[self._assigned[wanted]].run(self.tasks, inputs)
        return {task: torch.from_numpy(value) for task, value in zip(self.tasks, values, strict=True)}

    def answer(self, image_BCHW: Tensor, keep_BR: Tensor) -> dict[str, Tensor]:
        """All tasks, with what is wanted given: every row runs in the network that it is assigned to."""
        index_B = self.book.assign(keep_BR)
        found: dict[str, Tensor] = {}
        for policy in index_B.unique().tolist():
            rows = (index_B == policy).nonzero()[:, 0]
            whole = len(rows) == len(index_B)
            image = image_BCHW if whole else image_BCHW.detach().cpu()[rows]
            part = run_session(self.networks[policy], self.tasks, {"image": image})
            if whole:
                return part
            for task, value in part.items():
                if task not in found:
                    found[task] = value.new_empty(len(index_B), *value.shape[1:])
                found[task][rows] = value
        return found
