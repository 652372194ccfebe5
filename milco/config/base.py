"""What all sections of a configuration are made of."""

from collections.abc import Set
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from milco.languages import normal

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Language = Annotated[str, Field(min_length=1), AfterValidator(normal)]
Layout: dict[str, JsonValue] = {"layout": True}  # marks keys that decide how a result is computed, not what it is


class Strict(BaseModel):
    """A section of the configuration: unknown keys are errors, and no value is changed but a language's tag and
    `evaluate.compared_measure`, which get their one form."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def result(self, but: Set[str] = frozenset()) -> dict[str, Any]:
        """Values of the keys that decide a result: all but layout keys and those named."""
        layout = {name for name, info in type(self).model_fields.items() if info.json_schema_extra == Layout}
        return self.model_dump(exclude=layout | but)
