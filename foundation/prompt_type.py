"""PromptType: what one file of `prompts/` says, as data.

Guarantees: `fingerprint` is a hash of everything that can change an output, and of nothing else. Left out, with the
reason: `summary` (only people read it), `weight` (how often, not what), `unit` (how it is cut, not what comes out).
Cost: none beyond validation; rendering is the generator's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

from pydantic import Field, field_validator

from foundation.ids import stable_id
from foundation.records import Contract, Role, Sampling

ASK = "ask"  # the last call of a chain, and the only one of most
_NOT_OUTPUT = {"summary", "weight", "unit"}
Need = Literal["person", "place", "event", "date", "number", "entity", "key_phrase"]


class FieldSpec(Contract):
    """One field the teacher writes: a string, a list of strings (with `keys`: of objects with those strings), or a choice of `values`.

    Lengths are in characters of each string.
    """

    type: Literal["string", "list", "choice"] = "string"
    description: str = ""
    min: int = Field(default=1, ge=0)
    max: int = Field(default=2000, ge=1)
    items_min: int = Field(default=1, ge=0)
    items_max: int = Field(default=20, ge=1)
    keys: tuple[str, ...] = ()
    values: tuple[str, ...] = ()

    @property
    def schema_(self) -> dict[str, Any]:
        """As JSON schema."""
        text: dict[str, Any] = {"type": "string", "minLength": self.min, "maxLength": self.max}
        if self.type == "choice":
            entry: dict[str, Any] = {"type": "string", "enum": list(self.values)}
        elif self.type == "list":
            one = _object(dict.fromkeys(self.keys, text)) if self.keys else text
            entry = {"type": "array", "items": one, "minItems": self.items_min, "maxItems": self.items_max}
        else:
            entry = text
        return {**entry, "description": self.description} if self.description else entry


class Options(Contract):
    """Fields that are options of one question; code puts them in order, never the teacher.

    `right` names the choice field that holds the number of the right option, from 1, in the teacher's own order; without
    it the fields' own order is the answer (events in time, pairs). `both`: one record for each of the two orderings,
    sharing a `pair_id`. `shuffled`: one record, its order drawn from the item's id.
    """

    fields: tuple[str, ...] = Field(min_length=2, max_length=6)
    right: str = ""
    order: Literal["both", "shuffled"]

    def right_index(self, fields: Mapping[str, Any]) -> int:
        """Which of `fields` is the right option, counted from 0."""
        return int(fields[self.right]) - 1 if self.right else 0


class Turn(Contract):
    """One message of the record, as a template. An assistant's turn is trained on, unless it is a mistake to be mended."""

    role: Role
    template: str
    trained: bool = True


class Phase(Contract):
    """One call to the teacher that comes before the last; its fields can be used by the calls that follow."""

    name: str = Field(pattern=r"^[a-z][a-z_]*$")
    fields: dict[str, FieldSpec] = Field(min_length=1)
    sampling: Sampling = Sampling()
    system: str
    user: str


Partner = Literal["same-article", "other-article"]


class PromptType(Contract):
    """`id` is family/name. `system` and `user` are templates for the teacher's last call; `turns` make the record.

    `phases` are the calls before it. `each` names a list field of the last of them: the last call is then made once for
    every entry. `partner` asks for a second snippet, chosen when planned.
    """

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
    phases: tuple[Phase, ...] = ()
    each: str = ""
    partner: Partner | None = None
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
    def chain(self) -> tuple[Phase, ...]:
        """Every call to the teacher, in order; the last is called `ask`."""
        ask = Phase(name=ASK, fields=self.fields, sampling=self.sampling, system=self.system, user=self.user)
        return (*self.phases, ask)

    @cached_property
    def fingerprint(self) -> str:
        """Empty values are left out, so that the contract may grow without making every type a new one."""
        return stable_id("prompt_type", json.dumps(_full(self.model_dump(mode="json", exclude=_NOT_OUTPUT))))

    @property
    def file(self) -> str:
        """Where enqueueing keeps its copy in the workspace."""
        return f"prompt_types/{self.fingerprint}.json"


def output_schema(fields: Mapping[str, FieldSpec]) -> dict[str, Any]:
    """JSON schema of a reply: every field required, nothing else allowed."""
    return _object({name: spec.schema_ for name, spec in fields.items()})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _full(value: Any) -> Any:
    """A JSON value without what is empty, at any depth."""
    if isinstance(value, dict):
        return {key: _full(entry) for key, entry in value.items() if entry not in ("", None, [], {})}
    return [_full(entry) for entry in value] if isinstance(value, list) else value
