"""PromptType: what one file of `prompts/` says, as data.

Guarantees: `fingerprint` is a hash of everything that can change an output, and of nothing else. Left out, with the
reason: `summary` (only people read it), `weight` (how often, not what), `unit` (how it is cut, not what comes out).
Cost: none beyond validation; rendering is the generator's.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

from pydantic import Field, field_validator

from foundation.ids import stable_id
from foundation.records import Contract, Role, Sampling

Need = Literal["person", "place", "event", "date", "number", "entity", "key_phrase"]


class FieldSpec(Contract):
    """One field the teacher writes: a string, or a list of strings. Lengths are in characters."""

    type: Literal["string", "list"] = "string"
    description: str = ""
    min: int = Field(default=1, ge=0)
    max: int = Field(default=2000, ge=1)
    items_min: int = Field(default=1, ge=0)
    items_max: int = Field(default=20, ge=1)


class Options(Contract):
    """Fields that are options of one question, the right one first; they are put in order by code, never by the teacher.

    `both`: one record for each of the two orderings, sharing a `pair_id`. `shuffled`: one record, its order drawn from the item's id.
    """

    fields: tuple[str, ...] = Field(min_length=2, max_length=6)
    order: Literal["both", "shuffled"]


class Turn(Contract):
    """One message of the record, as a template. Assistant turns are trained on."""

    role: Role
    template: str


class PromptType(Contract):
    """`id` is family/name. `system` and `user` are templates for the teacher; `turns` make the record."""

    v: Literal[1] = 1
    id: str = Field(pattern=r"^[a-z0-9-]+/[a-z0-9-]+$")
    version: int = Field(ge=1)
    summary: str
    fields: dict[str, FieldSpec] = Field(min_length=1)
    needs: tuple[Need, ...] = ()
    checks: tuple[str, ...] = ()
    unit: Literal[256, 64, 16] = 64
    sampling: Sampling = Sampling()
    weight: float = Field(default=1.0, ge=0)
    options: Options | None = None
    system: str
    user: str
    turns: tuple[Turn, ...] = Field(min_length=2)

    @field_validator("fields")
    @classmethod
    def _names(cls, fields: dict[str, FieldSpec]) -> dict[str, FieldSpec]:
        for name in fields:
            if not name.isidentifier() or name != name.lower():
                raise ValueError(f"field name {name!r} must be lower case letters, digits and underscores")
        return fields

    @property
    def family(self) -> str:
        return self.id.partition("/")[0]

    @property
    def name(self) -> str:
        return self.id.partition("/")[2]

    @cached_property
    def fingerprint(self) -> str:
        return stable_id("prompt_type", self.model_dump_json(exclude={"summary", "weight", "unit"}))

    @property
    def output_schema(self) -> dict[str, Any]:
        """JSON schema of the teacher's output: every field required, nothing else allowed."""
        properties: dict[str, Any] = {}
        for name, spec in self.fields.items():
            text = {"type": "string", "minLength": spec.min, "maxLength": spec.max}
            entry = (
                text
                if spec.type == "string"
                else {"type": "array", "items": text, "minItems": spec.items_min, "maxItems": spec.items_max}
            )
            properties[name] = {**entry, "description": spec.description} if spec.description else entry
        return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}

    @property
    def file(self) -> str:
        """Where enqueueing keeps its copy in the workspace."""
        return f"prompt_types/{self.fingerprint}.json"
