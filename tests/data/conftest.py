"""One task of every type, and small samples."""

import numpy as np
import pytest

from perceptkit.data.sample import Sample
from perceptkit.spec.tasks_file import TASK_SPECS
from perceptkit.tasks.table import TASKS

POINTS = ["left", "right", "nose"]
DECLARED = {
    "seg": {"type": "segmentation", "classes": 9},
    "edges": {"type": "edges"},
    "depth": {"type": "depth"},
    "normals": {"type": "normals"},
    "points": {"type": "keypoints", "names": POINTS, "flip_pairs": [["left", "right"]]},
    "kinds": {"type": "keypoints", "kinds": ["door", "window"]},
    "room": {"type": "classification", "classes": 3},
}
LABELS = {
    "seg": [f"class {i}" for i in range(9)],
    "points": POINTS,
    "kinds": ["door", "window"],
    "room": ["hall", "bath", "attic"],
}


def make_tasks(**specs):
    """Tasks by name, from declarations as in YAML."""
    return {
        name: TASKS[spec["type"]](name, TASK_SPECS[spec["type"]].model_validate(spec), LABELS.get(name, []))
        for name, spec in (specs or DECLARED).items()
    }


@pytest.fixture
def tasks():
    return make_tasks()


class NumberedSource:
    """Sample i is a picture whose every pixel is i, with a point at (i, 0) and the class i % 3."""

    def __init__(self, count, size_HW=(8, 8)):
        self.count, self.size_HW = count, size_HW
        self.ids = [f"{i:03}" for i in range(count)]

    def __len__(self):
        return self.count

    def load(self, index, whole=False):
        image = np.full((*self.size_HW, 3), index, np.uint8)
        points = np.zeros((3, 3), np.float32)
        points[0] = index % self.size_HW[1], 0, 2
        return Sample(self.ids[index], image, {"points": points, "room": np.array(index % 3)})
