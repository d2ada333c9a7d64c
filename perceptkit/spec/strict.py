"""The one base of every spec model: unknown keys are errors and nothing changes after validation."""

from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

Size: TypeAlias = tuple[Annotated[int, Field(ge=32)], Annotated[int, Field(ge=32)]]
Seed: TypeAlias = Annotated[int, Field(ge=0, lt=2**32)]


def _as_fraction(value: Any) -> Any:
    """`1%` is 0.01."""
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            return float(value.strip()[:-1]) / 100
        except ValueError:
            return value
    return value


Fraction: TypeAlias = Annotated[
    float,
    BeforeValidator(_as_fraction),
    Field(gt=0, lt=1),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}]}),
]


def bits_as_text(value: Any) -> Any:
    """A precision that was typed as a number, as text."""
    return str(value) if type(value) is int else value


class Strict(BaseModel):
    """A frozen pydantic model that refuses unknown keys."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


def fault(key: str, message: str) -> PydanticCustomError:
    """What a model's own validator raises: `key` is the place, below the model, that the message is about."""
    return PydanticCustomError("fault", "{message}", {"message": message, "key": key})
