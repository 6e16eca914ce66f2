"""A small workspace for the trainer's tests: true facts about the calendar, as corpus blocks and committed shards."""

from __future__ import annotations

import calendar
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from foundation.corpus import ARTICLES, Corpus, jsonl
from foundation.ids import seed_of, stable_id
from foundation.records import Article, Record, Sampling, Snippet, Split, Unit, Usage, item_id, messages_of
from foundation.workspace import FILE, Workspace

TYPES = ("qpt/describe", "qa/first-day", "contrastive/long-or-short")
SOURCE = "calendar"


def make_workspace(tmp_path: Path, n_articles: int = 6, train: Mapping[str, object] | None = None) -> Workspace:
    """A workspace whose articles are the years from 1939 on, a snippet a month, four records a snippet (48 an article).

    The last article is `unseen`; of the others one snippet x prompt type pair in seven is `phrasing`; the rest is `train`.
    `train` are keys of the settings' table `[train]`; defaults here: vocabulary 700, context 128.
    """
    tmp_path.mkdir(parents=True, exist_ok=True)
    values = {"vocabulary": 700, "context": 128, **(train or {})}
    lines = ["version = 1", "[train]", *(f"{key} = {value!r}" for key, value in values.items())]
    (tmp_path / FILE).write_text("\n".join(lines) + "\n", "utf-8")
    workspace = Workspace(tmp_path)
    articles, snippets = [], []
    for year in range(1939, 1939 + n_articles):
        article, parts = _year(year)
        articles.append(article)
        snippets += parts
    corpus = Corpus(workspace.store)
    workspace.store.put(f"{ARTICLES}/000001.jsonl", jsonl(articles))
    workspace.store.put(*corpus.block_file(1, snippets))
    shards: dict[str, list[Record]] = defaultdict(list)
    for number, snippet in enumerate(snippets):
        for which, prompt_type in enumerate(TYPES):
            held_out: Split = "phrasing" if (number * len(TYPES) + which) % 7 == 3 else "train"
            split: Split = "unseen" if snippet.title == articles[-1].title else held_out
            for record in _records(snippet, prompt_type, split):
                shards[f"shards/{prompt_type}/{record.unit}.jsonl"].append(record)
    for name, records in shards.items():
        workspace.store.put(name, jsonl(records))
    return workspace


def make_record(
    snippet: Snippet,
    pairs: list[tuple[str, str]],
    *,
    prompt_type: str = TYPES[1],
    split: Split = "train",
    supervised: tuple[int, ...] = (1,),
    ordering: str = "",
) -> Record:
    """One record about `snippet` with these (role, content) messages."""
    fingerprint = stable_id("test", prompt_type)
    item = item_id(snippet.id, fingerprint, 0)
    return Record(
        id=Record.make_id(item, "ask", ordering),
        item=item,
        unit=Unit.make_id(f"{snippet.article_id}", 0, 12, fingerprint, 0),
        prompt_type=prompt_type,
        fingerprint=fingerprint,
        family=prompt_type.partition("/")[0],
        split=split,
        messages=messages_of(pairs),  # type: ignore[arg-type]
        supervised=supervised,
        snippet_id=snippet.id,
        article_id=snippet.article_id,
        title=snippet.title,
        source=snippet.source,
        teacher="test",
        sampling=Sampling(),
        seed=seed_of(item),
        usage=Usage(),
        round=0,
        attempt="1",
        ordering=ordering,
        pair_id=stable_id("pair", item) if ordering else "",
    )


def _year(year: int) -> tuple[Article, list[Snippet]]:
    title = f"Calendar of {year}"
    article_id = Article.make_id(SOURCE, title)
    snippets = []
    for month in range(1, 13):
        first, days = calendar.monthrange(year, month)
        name, last = calendar.month_name[month], (first + days - 1) % 7
        sentences = (
            f"{name} {year} began on a {calendar.day_name[first]}.",
            f"It had {days} days and ended on a {calendar.day_name[last]}.",
            f"The year {year} was {'a leap' if calendar.isleap(year) else 'a common'} year.",
        )
        text = " ".join(sentences)
        snippets.append(
            Snippet(
                id=Snippet.make_id(text),
                article_id=article_id,
                title=title,
                source=SOURCE,
                index=month - 1,
                sentences=sentences,
                text=text,
            )
        )
    return Article(id=article_id, title=title, text="\n".join(s.text for s in snippets), source=SOURCE), snippets


def _records(snippet: Snippet, prompt_type: str, split: Split) -> list[Record]:
    when = " ".join(snippet.sentences[0].split()[:2])
    first = snippet.sentences[0].split()[-1]
    days = int(snippet.sentences[1].split()[2])
    if prompt_type == "qpt/describe":
        pairs = [("user", f"What does the calendar say of {when}?"), ("assistant", snippet.text)]
        return [make_record(snippet, pairs, prompt_type=prompt_type, split=split)]
    if prompt_type == "qa/first-day":
        pairs = [("user", f"On which day did {when} begin?"), ("assistant", f"{when} began on a {first}")]
        return [make_record(snippet, pairs, prompt_type=prompt_type, split=split)]
    made = []
    for ordering, options in (("ab", ("31 days", "fewer than 31 days")), ("ba", ("fewer than 31 days", "31 days"))):
        right = "31 days" if days == 31 else "fewer than 31 days"
        pairs = [("user", f"Did {when} have {options[0]} or {options[1]}?"), ("assistant", f"{when} had {right}.")]
        made.append(make_record(snippet, pairs, prompt_type=prompt_type, split=split, ordering=ordering))
    return made


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path / "workspace")


@pytest.fixture
def build() -> Callable[..., Workspace]:
    """`make_workspace`, for tests that want another size or other settings."""
    return make_workspace


@pytest.fixture
def record_of() -> Callable[..., Record]:
    """`make_record`, for tests that make records of their own."""
    return make_record
