"""Raw text: the corpus' articles as documents that are trained on whole.

Guarantees: no article that is held out as `unseen`, and none that is withdrawn or holds a withdrawn snippet; a document is
whole sentences of one article, begins with its title, and fits a context with its closing `<|endoftext|>`. An article longer
than a context becomes documents of even length. A sentence that fits no context is left out and counted.
Cost: about 0.1 s a MB for the sentences, and the tokenizer twice over the text; in memory are 64 articles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from foundation.corpus import Corpus
from foundation.parse import parse
from foundation.reader import EDITED, identities, tombstones
from foundation.records import SplitPolicy
from trainer.chatml import Encoded, encode_raw

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from foundation.records import Article
    from foundation.workspace import Workspace

SPLIT = "plan/split.json"  # the split policy, from when the first unit was planned
TOGETHER = 64  # articles tokenised in one call
Unit = tuple[str, int]  # a sentence with what parts it from the one before, and its tokens


@dataclass
class RawReport:
    """What became of the articles, and the sentences that are too long for any context."""

    articles: int = 0
    unseen: int = 0
    withdrawn: int = 0
    long_sentences: int = 0


def raw_articles(workspace: Workspace, report: RawReport) -> Iterator[Article]:
    """The articles that may be trained on, in the order they were taken in."""
    policy, withdrawn = _policy(workspace), _withdrawn(workspace)
    for article in Corpus(workspace.store).articles():
        if article.id in withdrawn:
            report.withdrawn += 1
        elif policy.is_unseen(article.id):
            report.unseen += 1
        else:
            report.articles += 1
            yield article


def raw_documents(
    articles: Iterable[Article], tokenizer: Tokenizer, context: int, report: RawReport
) -> Iterator[tuple[str, Encoded]]:
    """Text, and ids with mask, of each document of the articles: at most `context` tokens."""
    rest, sentences = iter(articles), _splitter()
    while batch := list(islice(rest, TOGETHER)):
        texts = [text for article in batch for text in _texts(article, sentences)]
        sizes = iter([len(ids) - 1 for ids, _ in encode_raw(tokenizer, texts)])
        pieces: list[list[Unit]] = []
        for article in batch:
            title, *units = [(text, next(sizes)) for text in _texts(article, sentences)]
            room = context - 1 - title[1]
            fitting = [unit for unit in units if unit[1] <= room]
            report.long_sentences += len(units) - len(fitting)
            pieces += [[title, *piece] for piece in even_pieces(fitting, room)]
        yield from _encoded(pieces, tokenizer, context, report)


def even_pieces(units: Sequence[Unit], room: int) -> list[list[Unit]]:
    """Units one behind the other in as few pieces of at most `room` tokens as can be, of about even length.

    Every unit is at most `room`.
    """
    total = sum(size for _, size in units)
    for aim in range(-(-total // room), len(units) + 1) if units else ():
        pieces = _cut(units, room, -(-total // aim))
        if len(pieces) <= aim:
            return pieces
    return [[unit] for unit in units]


def _cut(units: Sequence[Unit], room: int, enough: int) -> list[list[Unit]]:
    pieces: list[list[Unit]] = []
    held = room  # as if the piece before were full
    for unit in units:
        if held >= enough or held + unit[1] > room:
            pieces.append([])
            held = 0
        pieces[-1].append(unit)
        held += unit[1]
    return pieces


def _encoded(
    pieces: list[list[Unit]], tokenizer: Tokenizer, context: int, report: RawReport
) -> Iterator[tuple[str, Encoded]]:
    """Each piece whole; one that came out longer than the sum of its sentences, and too long, in two.

    A sentence that was measured behind a space may take a token more behind the title's blank line: it is counted then.
    """
    texts = [f"{piece[0][0]}\n\n{''.join(text for text, _ in piece[1:]).lstrip()}" for piece in pieces]
    for piece, text, encoded in zip(pieces, texts, encode_raw(tokenizer, texts), strict=True):
        if len(encoded[0]) <= context:
            yield text, encoded
        elif len(piece) > 2:
            half = 1 + len(piece) // 2
            yield from _encoded([piece[:half], [piece[0], *piece[half:]]], tokenizer, context, report)
        else:
            report.long_sentences += 1


def _texts(article: Article, sentences: Callable[[str], Iterable[str]]) -> list[str]:
    """The title, then each sentence with what parts it from the one before: a space, or a blank line."""
    found = [article.title]
    for paragraph in article.text.split("\n"):
        parts = [part for sentence in sentences(paragraph) if (part := sentence.strip())]
        found += [f"\n\n{part}" if number == 0 else f" {part}" for number, part in enumerate(parts)]
    return found


def _policy(workspace: Workspace) -> SplitPolicy:
    try:
        return parse(SplitPolicy, workspace.store.get(SPLIT), SPLIT)
    except FileNotFoundError:
        return SplitPolicy(**workspace.settings.split.model_dump())


def _withdrawn(workspace: Workspace) -> set[str]:
    """Articles that a tombstone of today names, or that hold a snippet it names.

    What an edit withdrew is not in the text any more: an article is taken as it stands after its last edit.
    """
    named = identities(stone for stone in tombstones(workspace.store) if stone.reason != EDITED)
    articles = {value for kind, value in named if kind == "article"}
    snippets = {value for kind, value in named if kind == "snippet"}
    if snippets:  # only then is the whole corpus read for them
        articles |= {one.article_id for one in Corpus(workspace.store).all_snippets() if one.id in snippets}
    return articles


def _splitter() -> Callable[[str], Iterable[str]]:
    from nupunkt.models import load_default_model

    return load_default_model().tokenize  # type: ignore[no-any-return]
