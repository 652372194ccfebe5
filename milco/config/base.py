"""Base class and field types of all configuration sections."""

from collections.abc import Set
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from milco.languages import normal


def _no_switch(value: Any) -> Any:
    """To Python, true and false are 1 and 0."""
    if isinstance(value, bool):
        raise ValueError(f"expected a number (got {value})")
    return value


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e6 as text; it wants 1.0e+6."""
    try:
        return int(float(value)) if isinstance(value, str) and float(value).is_integer() else value
    except ValueError:
        return value


def norwegian(value: Any) -> Any:
    """YAML 1.1 reads no as false."""
    return "no" if value is False else value


Share = Annotated[float, Field(ge=0, le=1), BeforeValidator(_no_switch)]
Count = Annotated[int, Field(ge=1), BeforeValidator(_number), BeforeValidator(_no_switch)]
Whole = Annotated[int, Field(ge=0), BeforeValidator(_number), BeforeValidator(_no_switch)]
Rate = Annotated[float, Field(gt=0), BeforeValidator(_no_switch)]
Language = Annotated[str, Field(min_length=1), AfterValidator(normal), BeforeValidator(norwegian)]
Layout: dict[str, JsonValue] = {"layout": True}  # marks keys that affect how a result is computed, not the result


class Strict(BaseModel):
    """A section of the configuration: unknown keys are errors. No value is changed, except that language tags and
    `evaluate.compared_measure` get their normal form."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def result(self, but: Set[str] = frozenset()) -> dict[str, Any]:
        """Values of the keys that affect the result: all except layout keys and those in `but`."""
        layout = {name for name, info in type(self).model_fields.items() if info.json_schema_extra == Layout}
        return self.model_dump(exclude=layout | but)
