"""The columns of an export: one table of names, kinds and meanings that rows, schema and card are all made of.

Guarantees: every format has the same columns in the same order with the same types, whatever is in them: nothing is ever
null (a text that does not apply is empty), so that no reader has to guess a type from its first rows.
Left out of a record: `v` and `attempt` (how it was made, not what), `usage.seconds` (it says nothing of the record).
Cost: about 3 µs a row.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pyarrow as pa

    from foundation.records import Record

Kind = Literal["string", "int64", "float64", "messages", "indexes"]
_LOCAL = re.compile(r"(?<![^\s:@=])(?:~|\.{1,2})?/(?:[^\s@]*/)?([^\s@/]+)/*")
NOT_STATED = "not stated"


@dataclass(frozen=True)
class Column:
    name: str
    kind: Kind
    meaning: str


COLUMNS = (
    Column("id", "string", "the record's identity; the same on every machine, whatever the teacher wrote"),
    Column("messages", "messages", "the conversation: a list of `role` (system, user, assistant) and `content`"),
    Column("supervised", "indexes", "which messages are to be trained on, counted from 0; the others are context"),
    Column("prompt_type", "string", "what was asked for: `family/name`"),
    Column("family", "string", "the first part of `prompt_type`"),
    Column("split", "string", "`train`, `phrasing` or `unseen`, as in the file's name"),
    Column("title", "string", "title of the article"),
    Column("article_id", "string", "the article; `sources.jsonl` has its title, address and licence"),
    Column("snippet_id", "string", "the passage it was made of; a hash of its text"),
    Column("partner_article_id", "string", "article of the second passage, where the type has two; else empty"),
    Column("partner_id", "string", "the second passage; else empty"),
    Column("source", "string", "the collection the article belongs to"),
    Column("url", "string", "address of the article, if it has one"),
    Column(
        "license",
        "string",
        "licence of the article as ingested; empty: not stated; of two passages both, parted by `;`",
    ),
    Column("teacher", "string", "who wrote it: `backend:model@revision`"),
    Column("temperature", "float64", "how the teacher was asked to sample"),
    Column("top_p", "float64", "the same"),
    Column("max_tokens", "int64", "the same"),
    Column("seed", "int64", "the seed the teacher was given"),
    Column("prompt_tokens", "int64", "tokens the calls read; both halves of a pair come from the same calls"),
    Column("completion_tokens", "int64", "tokens the calls wrote"),
    Column(
        "fingerprint", "string", "the version of the prompt type, as a hash of everything that can change an output"
    ),
    Column("round", "int64", "which pass over the corpus, from 0"),
    Column("phase", "string", "which call of its chain made it; `ask.3` is the third entry of a list"),
    Column(
        "item", "string", "passage, prompt type, version and round: records of one item come from one chain of calls"
    ),
    Column("unit", "string", "the unit of work that committed it"),
    Column("pair_id", "string", "shared by the two orderings of one question; empty where there is one"),
    Column("ordering", "string", "where the right option stands: `right_first`, `wrong_first`, `right_3`; else empty"),
    Column("right_at", "int64", "where the teacher itself had put the right option, from 1; 0 without options"),
    Column("duplicate", "string", "`exact`, `near`, or empty"),
    Column("near_duplicate_of", "string", "the first record that says (nearly) the same; empty where `duplicate` is"),
)


@dataclass(frozen=True)
class Origin:
    """What the corpus says of an article now."""

    title: str
    source: str
    url: str
    license: str


def public(text: str) -> str:
    """A teacher's name without the folders of this machine: `vllm:/models/mine@main` is `vllm:mine@main`."""
    return _LOCAL.sub(r"\1", text)


def row_of(record: Record, origin: Origin, license_: str, duplicate: str, first: str) -> dict[str, Any]:
    """One row: the values of `COLUMNS`, in their order."""
    return {
        "id": record.id,
        "messages": [{"role": message.role, "content": message.content} for message in record.messages],
        "supervised": list(record.supervised),
        "prompt_type": record.prompt_type,
        "family": record.family,
        "split": record.split,
        "title": record.title,
        "article_id": record.article_id,
        "snippet_id": record.snippet_id,
        "partner_article_id": record.partner_article_id,
        "partner_id": record.partner_id,
        "source": record.source,
        "url": origin.url,
        "license": license_,
        "teacher": public(record.teacher),
        "temperature": record.sampling.temperature,
        "top_p": record.sampling.top_p,
        "max_tokens": record.sampling.max_tokens,
        "seed": record.seed,
        "prompt_tokens": record.usage.prompt_tokens,
        "completion_tokens": record.usage.completion_tokens,
        "fingerprint": record.fingerprint,
        "round": record.round,
        "phase": record.phase,
        "item": record.item,
        "unit": record.unit,
        "pair_id": record.pair_id,
        "ordering": record.ordering,
        "right_at": record.right_at,
        "duplicate": duplicate,
        "near_duplicate_of": first,
    }


def arrow_schema() -> pa.Schema:
    """The same columns for Arrow."""
    import pyarrow as pa

    kinds = {
        "string": pa.string(),
        "int64": pa.int64(),
        "float64": pa.float64(),
        "messages": pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])),
        "indexes": pa.list_(pa.int64()),
    }
    return pa.schema([(column.name, kinds[column.kind]) for column in COLUMNS])


def hub_features() -> list[dict[str, Any]]:
    """The same columns as the front matter of a card has them, so that a reader of JSON need not guess either."""
    text = {"dtype": "string"}
    kinds: dict[str, dict[str, Any]] = {
        "messages": {"list": [{"name": "role", **text}, {"name": "content", **text}]},
        "indexes": {"list": "int64"},
    }
    return [{"name": column.name, **kinds.get(column.kind, {"dtype": column.kind})} for column in COLUMNS]
