"""What a recipe may export, and what it may not."""

import pytest

from perceptkit.spec.export import NO_ROUTER, NO_SKIP, ExportSpec, export_faults
from perceptkit.spec.load import load_recipe
from perceptkit.spec.recipe import Recipe

RECIPE = {
    "backbone": {"name": "test_resnet", "weights": "none"},
    "sharing": {"method": "hard"},
    "stages": [{"name": "retrain", "epochs": 1}],
}


@pytest.mark.parametrize(
    ("written", "routed", "key"),
    [
        ({"int8": True, "format": "torch"}, False, "export.0.int8"),
        ({"int8": True, "precision": "bf16"}, False, "export.0.int8"),
        ({"format": "artifact", "precision": "fp16"}, False, "export.0.precision"),
        ({"dynamic_skip": "branch"}, False, "export.0.dynamic_skip"),
        ({"dynamic_skip": "branch", "format": "aoti"}, True, "export.0.dynamic_skip"),
        ({"dynamic_skip": "branch", "int8": True}, True, "export.0.dynamic_skip"),
        ({"dynamic_skip": "branch", "per_task": True}, True, "export.0.dynamic_skip"),
        ({}, True, "export.0"),
        ({"format": "artifact"}, True, None),
        ({"precision": 32}, False, None),
        ({"int8": True, "optimize": "size", "per_task": True}, False, None),
        ({"dynamic_skip": "codebook"}, True, None),
    ],
)
def test_what_cannot_be_made_is_refused_as_typed_and_as_validated(written, routed, key):
    expected = [] if key is None else [key]
    assert [found for found, _ in export_faults([written], routed)] == expected
    assert [found for found, _ in export_faults([ExportSpec(**written)], routed)] == expected


def test_the_same_file_twice():
    found = export_faults([{}, {"format": "torch"}, {"precision": 32, "format": "onnx"}], False)
    assert found == [("export.2", "is the same file as export.0")]


def test_who_may_decide_by_picture():
    with pytest.raises(ValueError, match=NO_ROUTER[:40]):
        Recipe.model_validate(RECIPE | {"export": [{"dynamic_skip": "branch"}]})
    adapted = RECIPE | {"adaptation": {"method": "spottune"}, "stages": [{"name": "adapt", "epochs": 1}]}
    with pytest.raises(ValueError, match=NO_SKIP[:40]):
        Recipe.model_validate(adapted | {"export": [{"format": "onnx"}]})
    taps = adapted | {"adaptation": {"method": "taps"}, "export": [{"format": "onnx"}]}
    assert Recipe.model_validate(taps).export == [ExportSpec()]
    assert load_recipe("adapt_and_route").spec.export == [ExportSpec(dynamic_skip="branch")]
    assert Recipe.model_validate(RECIPE).export == []
