"""What a recipe exports when its run is done, so that one command goes from pictures to the file that is deployed."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, WithJsonSchema

from perceptkit.spec.strict import Strict, bits_as_text

ExportPrecision: TypeAlias = Annotated[
    Literal["32", "bf16", "fp16"],
    BeforeValidator(bits_as_text),
    WithJsonSchema({"enum": ["32", 32, "bf16", "fp16"]}),
]


class ExportSpec(Strict):
    """One export, as `perceptkit export RUN` would make it: a file in the run's exports/, or a folder."""

    format: Literal["onnx", "torch", "aoti", "artifact"] = "onnx"
    """What is written."""
    precision: ExportPrecision = "32"
    """What the file computes in."""
    int8: bool = False
    """8 bits, calibrated on pictures of train (`onnx`)."""
    per_task: bool = False
    """A file of its own for each task."""
    optimize: Literal["latency", "size"] | None = None
    """How the model is arranged; as the artifact is by default."""
    dynamic_skip: Literal["branch", "gather", "codebook"] | None = None
    """How a model that decides by picture does so (`onnx`): `branch` (one picture at a time), `gather` (batches) or
    `codebook` (a router and a few networks). A plain file where the run ends with nothing left to decide."""


def export_faults(exports: Sequence[object], routed: bool) -> list[tuple[str, str]]:
    """What is wrong with a list of exports, each as (key, message).

    Args:
        exports: validated or as typed; what is no export at all is passed over.
        routed: whether the model may decide by picture.
    """
    known = [ExportSpec.model_fields[key].default for key in _KEYS]
    found: list[tuple[str, str]] = []
    before: list[tuple[str, ...]] = []
    for i, export in enumerate(exports):
        if not isinstance(export, ExportSpec | Mapping) or (
            isinstance(export, Mapping) and {*export} - {*_KEYS}
        ):
            continue
        chosen = [_of(export, key, default) for key, default in zip(_KEYS, known, strict=True)]
        format, precision, int8, per_task, _, how = chosen
        single = str(precision) == "32" and not int8
        if int8 and (format != "onnx" or str(precision) != "32"):
            found.append((f"export.{i}.int8", "goes with format onnx, and is a precision of its own"))
        elif format == "artifact" and str(precision) != "32":
            found.append(
                (f"export.{i}.precision", "an artifact holds the weights as they are; drop this key")
            )
        elif how is not None and not routed:
            found.append((f"export.{i}.dynamic_skip", f"{NO_ROUTER}; drop this key"))
        elif how is not None and (format != "onnx" or not single or per_task):
            message = "goes with format onnx in float32, one file for all tasks"
            found.append((f"export.{i}.dynamic_skip", message))
        elif routed and how is None and (format != "artifact" or per_task):
            found.append((f"export.{i}", NO_SKIP))
        name = tuple(map(str, chosen))
        if name in before:
            found.append((f"export.{i}", f"is the same file as export.{before.index(name)}"))
        before.append(name)
    return found


_KEYS = ("format", "precision", "int8", "per_task", "optimize", "dynamic_skip")
NO_ROUTER = (
    "nothing decides by picture here: there is no section `routing`, and adaptation.method is not spottune"
)
NO_SKIP = (
    "this run may end with a model that decides by picture, which is exported as onnx in float32; say how it skips: "
    "dynamic_skip: branch, gather or codebook"
)


def _of(export: ExportSpec | Mapping[str, object], key: str, default: object) -> object:
    return export.get(key, default) if isinstance(export, Mapping) else getattr(export, key)
