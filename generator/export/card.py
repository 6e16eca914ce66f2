"""The dataset card: what was exported, where it comes from, and what it cannot do, for people and for the Hub.

Guarantees: every figure is counted from the rows as they were written, or read from the same shards; the front matter uses
the Hub's own names; text of the corpus cannot break out of its table. No date and no path: the same export gives the same card.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from generator.export.columns import COLUMNS, NOT_STATED, hub_features
from generator.export.formats import FOLDER, SUFFIX
from generator.export.tally import SPLITS

if TYPE_CHECKING:
    from foundation.prompt_type import PromptType
    from foundation.reader import ReadReport
    from foundation.records import SplitPolicy
    from generator.export.formats import Format, Written
    from generator.export.marks import Marks
    from generator.export.tally import Origins, Tally
    from generator.report.generation import Generation, TypeFigures

REASONS = 3  # reasons named for one prompt type
KINDS = {
    "string": "string",
    "int64": "integer",
    "float64": "number",
    "messages": "list of role and content",
    "indexes": "list of integers",
}
SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
    (10**9, "100M<n<1B"),
    (10**10, "1B<n<10B"),
    (10**11, "10B<n<100B"),
    (10**12, "100B<n<1T"),
)
# Licences as people write them, without case, spaces and marks, and what the Hub calls them.
HUB_LICENSES = {
    "".join(re.findall(r"[a-z0-9]", name)): name
    for name in (
        "apache-2.0 mit bsd-2-clause bsd-3-clause cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 "
        "cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 "
        "cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 odc-by odbl pddl gfdl "
        "gpl-2.0 gpl-3.0 lgpl-3.0 agpl-3.0 mpl-2.0 unlicense wtfpl isc"
    ).split()
} | {"cc0": "cc0-1.0"}


@dataclass
class Exported:
    """All that card and manifest say."""

    format: Format
    prompt_types: list[str] | None
    splits: list[str] | None
    manifest: str
    shards: int
    read: ReadReport
    tombstones: Counter[str]
    marks: Marks
    tally: Tally
    origins: Origins
    generation: Generation
    kinds: dict[str, PromptType]
    """The planned prompt types, by fingerprint."""
    policy: SplitPolicy
    files: list[Written]

    @property
    def types(self) -> list[TypeFigures]:
        """Of the exported prompt types: what came of all their items, whatever the split."""
        return [self.generation.types[id_] for id_ in self.tally.types if id_ in self.generation.types]


def made_by() -> str:
    """This program and its version."""
    try:
        return f"qpt-factory {version('qpt-factory')}"
    except PackageNotFoundError:
        return "qpt-factory"


def document(one: Exported) -> dict[str, Any]:
    """`manifest.json`, and what `--json` prints."""
    return {
        "made_by": made_by(),
        "format": one.format,
        "prompt_types": one.prompt_types,
        "splits": one.splits,
        "records": one.tally.rows,
        "by_split": {split: one.tally.of_split(split) for split in SPLITS},
        "by_family": {family: dict(counts) for family, counts in one.tally.by_family().items()},
        "by_prompt_type": {id_: sum(one.tally.cells[id_, split] for split in SPLITS) for id_ in one.tally.types},
        "versions": [
            {"prompt_type": id_, "fingerprint": fingerprint, "records": count}
            | ({"version": kind.version, **kind.sampling.model_dump()} if (kind := one.kinds.get(fingerprint)) else {})
            for (id_, fingerprint), count in sorted(one.tally.versions.items())
        ],
        "teachers": dict(sorted(one.tally.teachers.items())),
        "articles": len(one.tally.articles),
        "licenses": {name or NOT_STATED: count for name, count in sorted(one.tally.licenses.items())},
        "duplicates": {
            "handling": one.marks.mode,
            "exact": one.marks.exact_count,
            "near": one.marks.near_count,
            "dropped": one.marks.dropped_count,
            "kept_as_half_of_a_pair": one.marks.halves,
            "across_splits": one.marks.crossing,
        },
        "withdrawn": one.read.withdrawn,
        "tombstones": dict(sorted(one.tombstones.items())),
        "broken_lines": one.read.broken_lines,
        "reader_manifest": one.manifest,
        "shards": one.shards,
        "files": [
            {"name": file.name, "records": file.rows, "bytes": file.size, "sha256": file.sha256} for file in one.files
        ],
    }


def license_text(one: Exported) -> str:
    """`LICENSE.md`: what each source asks for, and where each article is named."""
    return _render("license.md.j2", one=one, sources=one.origins.by_source(one.tally.articles))


def card(one: Exported) -> str:
    """`README.md`: front matter, then text."""
    from generator import near

    files = Counter(file.name.removeprefix(FOLDER[one.format]).partition("-")[0] for file in one.files)
    rows = [(split, one.tally.of_split(split), files[split], _meaning(one.policy)[split]) for split in SPLITS]
    text = _render(
        "card.md.j2",
        one=one,
        columns=COLUMNS,
        names=KINDS,
        near=near,
        splits=[row for row in rows if row[1]],
        by_type={id_: sum(one.tally.cells[id_, split] for split in SPLITS) for id_ in one.tally.types},
        sources=one.origins.by_source(one.tally.articles),
        teachers=sorted(one.tally.teachers.items()),
        versions=sorted(one.tally.versions.items()),
        gates=sorted({check for kind in one.kinds.values() for check in kind.checks}),
        rules=any(teacher.startswith("rules:") for teacher in one.tally.teachers),
        partners=any(kind.partner for kind in one.kinds.values()),
        folder=FOLDER[one.format],
        suffix=SUFFIX[one.format],
        example=json.dumps(_shown(one.tally.example or {}), ensure_ascii=False, indent=1),
        made_by=made_by(),
    )
    return f"---\n{_front_matter(one)}---\n\n{text}"


def _meaning(policy: SplitPolicy) -> dict[str, str]:
    return {
        "train": "to train on",
        "phrasing": f"held out: {policy.phrasing:.3g} of the pairs of passage and prompt type; its articles are in `train`",
        "unseen": f"held out: {policy.unseen:.3g} of the articles, whole",
    }


def _front_matter(one: Exported) -> str:
    rows = one.tally.rows
    paths = [
        {"split": split, "path": f"{FOLDER[one.format]}{split}-*.{SUFFIX[one.format]}"}
        for split in SPLITS
        if one.tally.of_split(split)
    ]
    values: dict[str, Any] = {
        "pretty_name": "Grounded training records",
        "language": ["en"],
        **hub_license(name for _, name, _, _ in one.origins.by_source(one.tally.articles)),
        "annotations_creators": ["machine-generated"],
        "language_creators": ["machine-generated"],
        "multilinguality": ["monolingual"],
        "size_categories": [next((name for top, name in SIZES if rows < top), "n>1T")],
        "task_categories": ["question-answering", "text-generation"],
        "tags": ["synthetic", "conversational"],
        "configs": [{"config_name": "default", "data_files": paths}],
        "dataset_info": {"features": hub_features()},
    }
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)


def hub_license(names: Any) -> dict[str, str]:
    """The front matter's keys for some licences, as they were stated: one the Hub knows, or `other` with all their names."""
    found = sorted(set(names))
    if found in ([], [""]):
        return {"license": "unknown"}
    known = [HUB_LICENSES.get("".join(re.findall(r"[a-z0-9]", name.lower()))) for name in found]
    if len(found) == 1 and known[0]:
        return {"license": known[0]}
    slugs = [
        one or "-".join(re.findall(r"[a-z0-9.]+", name.lower() or NOT_STATED))
        for one, name in zip(known, found, strict=True)
    ]
    name = "-and-".join(dict.fromkeys(slug.strip(".-") or "unnamed" for slug in slugs))
    return {"license": "other", "license_name": name if len(name) <= 96 else "several", "license_link": "LICENSE.md"}


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what is empty, its long texts cut."""
    short = {
        key: [{**turn, "content": _cut(turn["content"])} for turn in value] if key == "messages" else value
        for key, value in row.items()
    }
    return {key: value for key, value in short.items() if value not in ("", [])}


def _cut(text: str) -> str:
    return text if len(text) <= 600 else text[:600] + " […]"


def _render(name: str, **values: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # Markdown: `cell` escapes what comes from the corpus
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cell": cell, "count": count, "share": share, "reasons": reasons}
    return environment.get_template(name).render(**values)


def cell(text: object) -> str:
    """Text of the corpus within a table's cell: no mark-up, no new line."""
    plain = " ".join(str(text).split())
    return re.sub(r"([\\`*_\[\]<>|&~$])", lambda found: f"&#{ord(found.group())};", plain) or NOT_STATED


def count(number: int) -> str:
    return f"{number:,}"


def share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def reasons(figures: TypeFigures) -> str:
    """The most frequent reasons of its rejects."""
    return ", ".join(f"{gate}/{code} {number:,}" for (gate, code, _), number in figures.reasons.most_common(REASONS))
