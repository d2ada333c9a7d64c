"""What must hold for `source: scenes`: the renderer supplies the labels, so nothing may contradict it."""

from collections.abc import Iterator

from perceptkit.errors import SpecError
from perceptkit.spec.classes import class_names, scene_classes
from perceptkit.spec.draft import Draft
from perceptkit.spec.problems import Problem
from perceptkit.spec.tasks_file import (
    ClassificationSpec,
    DepthSpec,
    EdgesSpec,
    KeypointsSpec,
    ResponseSpec,
    SegmentationSpec,
)


def check_scenes(draft: Draft) -> Iterator[Problem]:
    """Keys that the renderer leaves no choice about."""
    for task, spec in draft.tasks.items():
        path = ("tasks", task)
        if spec.target is not None:
            yield _drop(draft, (*path, "target"), "the renderer supplies this label")
        if isinstance(spec, ResponseSpec):
            message = "contradicts 'source: scenes': the renderer has no detector; drop the task"
            yield draft.source.problem((*path, "type"), message)
        if isinstance(spec, DepthSpec):
            if spec.unit not in (None, "m"):
                yield _drop(draft, (*path, "unit"), "the renderer's depth is in metres")
            if spec.scale not in (None, 1.0):
                yield _drop(draft, (*path, "scale"), "the renderer's depth is in metres")
        if isinstance(spec, SegmentationSpec) and spec.ignore_index not in (None, 255):
            yield _drop(draft, (*path, "ignore_index"), "the renderer labels every pixel")
        if isinstance(spec, EdgesSpec) and spec.derive is not None:
            yield _drop(draft, (*path, "derive"), "the renderer knows its edges exactly")
        if isinstance(spec, ClassificationSpec) and spec.multi_label:
            yield _drop(draft, (*path, "multi_label"), "a room is of one type")
        if isinstance(spec, KeypointsSpec) and (spec.names or spec.kinds or spec.flip_pairs):
            yield from _points(draft, task, spec)
        if isinstance(spec, SegmentationSpec | ClassificationSpec) and spec.classes is not None:
            yield from _class_names(draft, task, spec)


def _points(draft: Draft, task: str, spec: KeypointsSpec) -> Iterator[Problem]:
    from perceptkit.spec.scene_labels import SCENE_FLIP_PAIRS, SCENE_KEYPOINTS

    rendered_points = f"the renderer's points are {', '.join(SCENE_KEYPOINTS)}"
    if spec.kinds is not None:
        yield _drop(draft, ("tasks", task, "kinds"), rendered_points)
    if spec.names is not None and list(spec.names) != list(SCENE_KEYPOINTS):
        yield _drop(draft, ("tasks", task, "names"), rendered_points)
    rendered = {frozenset(pair) for pair in SCENE_FLIP_PAIRS}
    if spec.flip_pairs and {frozenset(pair) for pair in spec.flip_pairs} != rendered:
        yield _drop(draft, ("tasks", task, "flip_pairs"), "the renderer knows which points change places")


def _class_names(draft: Draft, task: str, spec: SegmentationSpec | ClassificationSpec) -> Iterator[Problem]:
    rendered = scene_classes(spec)
    if isinstance(spec.classes, int) and spec.classes == len(rendered):
        return
    if isinstance(spec.classes, str):
        spec = spec.model_copy(update={"classes": str(draft.class_file(task, spec.classes))})
    try:
        declared = class_names(spec, None)
    except SpecError:
        return  # reported with all other class names
    if declared != rendered:
        reason = f"the renderer's {len(rendered)} classes are {', '.join(rendered)}"
        yield _drop(draft, ("tasks", task, "classes"), reason)


def _drop(draft: Draft, path: tuple[str, ...], reason: str) -> Problem:
    return draft.source.problem(path, f"contradicts 'source: scenes': {reason}; drop the key", at="key")
