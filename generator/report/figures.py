"""What `factory stats --json` prints: the survey as one document, prompt type by prompt type.

Guarantees: shares are of 1, lengths and tokens are whole numbers, what cannot be told is null or an empty object; the key of a
figure never depends on the data. Cost: the variety of the samples, about 15 ms a type.
"""

from __future__ import annotations

from typing import Any

from generator.near import THRESHOLD
from generator.report.generation import TypeFigures
from generator.report.survey import Duplicates, Survey
from generator.report.texts import Texts, spread
from generator.report.variety import variety, warning


def document(found: Survey) -> dict[str, Any]:
    """All figures."""
    types = [one for _, one in sorted(found.generation.types.items()) if one.items]
    rows = [{**_counted(one), **_texts(one.id, found)} for one in types]
    return {
        "prompt_types": rows,
        "total": _total(types, found),
        "groups": [
            {"records": one.count, "prompt_types": one.prompt_types, "first": one.first, "last": one.last}
            for one in found.groups
        ],
        "near_threshold": THRESHOLD,
        "warnings": [row["warning"] for row in rows if row["warning"]],
        "broken_lines": found.generation.read.broken_lines + found.generation.broken_rejects,
    }


def _counted(one: TypeFigures) -> dict[str, Any]:
    return {
        "prompt_type": one.id,
        "items": one.items,
        "accepted": one.accepted,
        "rejected": one.rejected,
        "accept_rate": one.accept_rate,
        "records": one.records,
        **_spent(one),
        "rejects": [
            {"gate": gate, "code": code, "phase": phase, "count": count}
            for (gate, code, phase), count in one.reasons.most_common()
        ],
        "teacher_put_right": dict(sorted(one.teacher_put.items())),
        "right_stands": dict(sorted(one.stands.items())),
    }


def _spent(one: TypeFigures) -> dict[str, Any]:
    """What the teacher was asked and wrote, rejects included; so much for each record that was kept."""
    tokens = one.prompt_tokens + one.completion_tokens
    return {
        "prompt_tokens": one.prompt_tokens,
        "completion_tokens": one.completion_tokens,
        "seconds": round(one.seconds, 3),
        "tokens_per_record": tokens / one.records if one.records and tokens else None,
    }


def _texts(id_: str, found: Survey) -> dict[str, Any]:
    texts = found.texts.get(id_, Texts())
    varied = variety(texts.questions.things())
    return {
        "lengths": {name: spread(counts) for name, counts in texts.lengths.items()},
        "variety": varied,
        "places": found.places.get(id_, {}),
        "duplicates": _repeated(found.duplicates.get(id_, Duplicates())),
        "warning": warning(id_, varied),
    }


def _repeated(one: Duplicates) -> dict[str, Any]:
    return {"exact": one.exact, "near": one.near, "across_types": one.across, "share": one.share}


def _total(types: list[TypeFigures], found: Survey) -> dict[str, Any]:
    total, repeated = TypeFigures("all"), Duplicates()
    for one in types:
        total.add(one)
    for every in found.duplicates.values():
        for name in ("records", "exact", "near", "across"):
            setattr(repeated, name, getattr(repeated, name) + getattr(every, name))
    return {
        "items": total.items,
        "accepted": total.accepted,
        "rejected": total.rejected,
        "accept_rate": total.accept_rate,
        "records": total.records,
        **_spent(total),
        "duplicates": _repeated(repeated),
    }
