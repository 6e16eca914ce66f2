"""Everything the report shows, gathered as plain data from the files of a workspace.

Guarantees: reads only; works at any stage of the line (what is not there yet is empty, never an error); figures come
from the contracts' files alone, so they are what any other reader of the workspace would count.
Cost: one pass over corpus, shards and rejects, about 15 µs a record; memory does not grow with the records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from foundation.corpus import ARTICLES, BLOCKS, Corpus
from foundation.errors import Failure
from foundation.reader import identities, tombstones
from foundation.records import Record, Reject, SplitPolicy
from generator.report.generation import Generation, collect_generation
from generator.report.student import Student, collect_student

if TYPE_CHECKING:
    from foundation.workspace import Workspace


@dataclass
class Source:
    """One collection of the corpus."""

    name: str
    articles: int = 0
    words: int = 0
    snippets: int = 0
    licenses: set[str] = field(default_factory=set)


@dataclass
class CorpusFigures:
    """Articles and snippets that stand; `retired` counts withdrawn articles, `unseen` names those held out whole.

    `policy_fixed`: the plan holds the policy; before the first unit is planned it is the settings'. `retired_in`: snippets
    withdrawn, by block. `texts`: the snippets that examples come from.
    """

    policy: SplitPolicy
    policy_fixed: bool
    blocks: int = 0
    retired: int = 0
    retired_in: Counter[str] = field(default_factory=Counter)
    sources: dict[str, Source] = field(default_factory=dict)
    unseen: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)

    def of(self, source: str) -> Source:
        return self.sources.setdefault(source, Source(source))

    @property
    def articles(self) -> int:
        return sum(source.articles for source in self.sources.values())

    @property
    def words(self) -> int:
        return sum(source.words for source in self.sources.values())

    @property
    def snippets(self) -> int:
        return sum(source.snippets for source in self.sources.values())


@dataclass
class Report:
    """What one page shows. `title` is the workspace's name; `records` and `rejects` are examples with their snippets' texts."""

    title: str
    corpus: CorpusFigures
    generation: Generation
    student: Student
    records: list[tuple[Record, str]]
    rejects: list[tuple[Reject, str]]


def collect(workspace: Workspace, advance: Callable[[int], None] = lambda _: None) -> Report:
    """Gather the report. Raises `Failure` if a file of the corpus is damaged."""
    generation = collect_generation(workspace.store, advance)
    records = [record for _, record in generation.records.chosen()]
    rejects = [reject for _, reject in generation.rejects.chosen()]
    wanted = {record.snippet_id for record in records} | {reject.snippet_id for reject in rejects}
    corpus = collect_corpus(workspace, wanted)
    for figures in generation.types.values():  # what was retired is asked no more, and in no other figure either
        figures.planned -= sum(corpus.retired_in[block] for block in figures.blocks)
    return Report(
        title=workspace.root.name,
        corpus=corpus,
        generation=generation,
        student=collect_student(workspace.train),
        records=[(record, corpus.texts.get(record.snippet_id, "")) for record in records],
        rejects=[(reject, corpus.texts.get(reject.snippet_id, "")) for reject in rejects],
    )


def collect_corpus(workspace: Workspace, wanted: set[str]) -> CorpusFigures:
    """Count articles and snippets, and keep the texts of the `wanted` snippets."""
    policy, fixed = _policy(workspace)
    result = CorpusFigures(policy, fixed)
    corpus = Corpus(workspace.store)
    retired = identities(tombstones(workspace.store))
    try:
        for article in corpus.articles():
            if ("article", article.id) in retired:
                result.retired += 1
                continue
            source = result.of(article.source)
            source.articles += 1
            source.words += len(article.text.split())
            source.licenses |= {article.license} - {""}
            if policy.split(article.id, "", "") == "unseen":
                result.unseen.append(article.title)
        for block in corpus.blocks():
            result.blocks += 1
            for snippet in corpus.snippets(block):
                if snippet.id in wanted:
                    result.texts[snippet.id] = snippet.text
                if ("article", snippet.article_id) in retired or ("snippet", snippet.id) in retired:
                    result.retired_in[block] += 1
                else:
                    result.of(snippet.source).snippets += 1
    except (ValueError, KeyError, TypeError) as error:
        raise Failure(
            f"the corpus is damaged: {str(error).splitlines()[0]}",
            where=f"{workspace.root}/{ARTICLES} or {BLOCKS}",
            mend="restore corpus/ from a copy",
        ) from error
    return result


def _policy(workspace: Workspace) -> tuple[SplitPolicy, bool]:
    """The split policy, and whether the plan has fixed it; before that the settings say it."""
    try:
        return SplitPolicy.model_validate_json(workspace.store.get("plan/split.json")), True
    except FileNotFoundError:
        return SplitPolicy(**workspace.settings.split.model_dump()), False
