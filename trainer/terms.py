"""Domain terms: names, phrases and words that come often and that plain BPE cuts in several tokens.

Score of a term: the tokens it saves, `count x (tokens without it - 1)`, given the terms taken before it: once `Adolf Hitler`
is one token, `Hitler` counts only where it stands alone. So the column adds up, and a longer name is taken if it pays.
Candidates: words of letters (inner hyphens and digits too: `U-boat`, `T-34`), and names of up to four capitalised words
(`Sixth Army`, `Battle of Britain`). A capital that only begins a sentence makes no name.
Cost: 0.1 s a MB of text, besides the BPE trained on it; the distinct texts lie in memory (a sample of 32 MB).
"""

from __future__ import annotations

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import UsageError
from trainer.tokenizer import FORMS, TERMS, smallest_vocabulary, term_problem, train_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TERMS_FILE = "terms.txt"  # in train/
MIN_COUNT = 20
SHARE = 32  # a term for so many tokens of vocabulary: more make text on the same articles shorter, and on others longer
SAMPLE = 32 << 20  # bytes of text that terms are mined from
NAME_WORDS = 4
_HEAD = (
    "# Domain terms, one a line: `trainer tokenizer` makes each one token. Lines that begin with # are passed over.\n"
)
_UPPER = "[" + "".join(chr(code) for code in range(0x530) if chr(code).isupper()) + "]"  # Latin, Greek, Cyrillic
_CAPITAL = rf"(?:{_UPPER}(?:\.{_UPPER})+\.?|{_UPPER}\w*|\d+(?:st|nd|rd|th))(?:-\w+)*(?:['’]{_UPPER}\w*)?"
_LINK = r"(?: (?:of the|of|de|von|van))?"
_RUN = re.compile(rf"(?<![\w.-])(?:{_CAPITAL}(?:{_LINK} {_CAPITAL})*|[^\W\d_]\w*(?:-\w+)*)")
_BEGINS = re.compile(r"(?:^|[.!?:;]['\"”’)]* |[\n\"“(*-] ?)$")


@dataclass(frozen=True)
class Term:
    """`tokens`: what it costs without being a term, its space included. `saved`: tokens in the text it was mined from."""

    term: str
    count: int
    tokens: int
    saved: int


def read_terms(path: Path) -> tuple[str, ...] | None:
    """The terms in `path`, each once, in its order; None if there is no such file. Raises `UsageError` that names a bad line."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return None
    terms = []
    for number, line in enumerate(lines, 1):
        try:
            term = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise _bad_line(path, number, "it is not UTF-8") from error
        if term and not term.startswith("#"):
            if problem := term_problem(term):
                raise _bad_line(path, number, f"{term!r}: {problem}")
            terms.append(term)
    return tuple(dict.fromkeys(terms))


def write_terms(path: Path, terms: Iterable[Term]) -> None:
    """Write them one a line, whole or not at all, most saved first."""
    from foundation.store import LocalStore

    LocalStore(path.parent).put(path.name, (_HEAD + "".join(f"{term.term}\n" for term in terms)).encode())


def mined_share(vocabulary: int) -> int:
    """How many terms are mined where plain BPE learnt that many tokens: they take a sixteenth of it, and never most of what is free."""
    return max(0, min(vocabulary // SHARE, (vocabulary - smallest_vocabulary()) // (2 * FORMS)))


def mine_for(texts: Iterable[str], vocabulary: int, most: int | None = None, min_count: int = MIN_COUNT) -> list[Term]:
    """At most `most` terms, by what a plain BPE of `vocabulary` tokens, trained on the same texts, makes of them.

    None: as many as go with the vocabulary that BPE could fill. Reads `SAMPLE` bytes of `texts` and holds them in memory. Raises `UsageError` without text.
    """
    sample = list(first_bytes(texts, SAMPLE))
    plain = train_tokenizer(sample, vocabulary)
    return mine(sample, plain, mined_share(plain.get_vocab_size()) if most is None else most, min_count)


def first_bytes(texts: Iterable[str], size: int) -> Iterator[str]:
    """The first texts, until they hold `size` bytes."""
    for text in texts:
        yield text
        size -= len(text.encode("utf-8", "surrogatepass"))
        if size <= 0:
            return


def mine(texts: Iterable[str], tokenizer: Tokenizer, most: int, min_count: int = MIN_COUNT) -> list[Term]:
    """At most `most` terms that would save the most tokens of `texts` as `tokenizer` cuts them, most first.

    `min_count`: a term stands at least that often. `TERMS` are terms already and are never found.
    """
    runs = _Runs(_counted(texts), tokenizer)
    waiting = [
        (-gain, term) for term in runs.where if (gain := runs.ceiling(term)) > 0 and runs.count(term) >= min_count
    ]
    heapq.heapify(waiting)
    found: list[Term] = []
    while waiting and len(found) < most:
        promised, term = heapq.heappop(waiting)
        saved = runs.gain(term)
        if saved < -promised and waiting and saved < -waiting[0][0]:  # others taken since then have eaten into it
            if saved > 0:
                heapq.heappush(waiting, (-saved, term))
            continue
        if saved > 0:
            runs.take(term)
            found.append(Term(" ".join(term), runs.count(term), runs.cost(term), saved))
    return sorted(found, key=lambda term: (-term.saved, term.term))


Words = tuple[str, ...]


class _Runs:
    """The distinct runs of words in a text with their counts, and what each costs as the terms taken so far cut it."""

    def __init__(self, counts: Counter[Words], tokenizer: Tokenizer) -> None:
        self.counts = counts
        words = sorted({word for run in counts for word in run})
        encoded = tokenizer.encode_batch_fast([f" {word}" for word in words], add_special_tokens=False)
        self.word_cost = {word: len(one) for word, one in zip(words, encoded, strict=True)}
        self.taken: set[Words] = set()
        self.where: dict[Words, list[Words]] = defaultdict(list)
        for run in sorted(counts):
            for part in {*_parts(run)}:
                if not any(word in TERMS for word in part):
                    self.where[part].append(run)
        self.now = {run: self.cost(run) for run in counts}

    def cost(self, words: Words) -> int:
        return sum(self.word_cost[word] for word in words)

    def count(self, term: Words) -> int:
        return sum(self.counts[run] * _times(term, run) for run in self.where[term])

    def ceiling(self, term: Words) -> int:
        return self.count(term) * (self.cost(term) - 1)

    def gain(self, term: Words) -> int:
        """Tokens that taking `term` now would save."""
        self.taken.add(term)
        saved = sum(self.counts[run] * (self.now[run] - self._cut(run)) for run in self.where[term])
        self.taken.discard(term)
        return saved

    def take(self, term: Words) -> None:
        self.taken.add(term)
        for run in self.where[term]:
            self.now[run] = self._cut(run)

    def _cut(self, run: Words) -> int:
        """Tokens of a run as the tokenizer would cut it: from the left, the longest term first."""
        tokens = at = 0
        while at < len(run):
            stop = next((stop for stop in range(len(run), at, -1) if run[at:stop] in self.taken), 0)
            tokens += 1 if stop else self.word_cost[run[at]]
            at = stop or at + 1
        return tokens


def _counted(texts: Iterable[str]) -> Counter[Words]:
    """Runs of words: names as far as they reach, other words one by one."""
    plain: Counter[str] = Counter()
    opening: Counter[str] = Counter()
    for text, times in Counter(texts).items():  # many records share a passage
        for found in _RUN.finditer(text):
            start = found.start()
            begins = _BEGINS.search(text, max(0, start - 4), start) if found[0][0].isupper() else None
            (opening if begins else plain)[found[0]] += times
    counts: Counter[Words] = Counter()
    for run, count in plain.items():
        counts[tuple(run.split(" "))] += count
    named = Counter[str]()
    for words, count in list(counts.items()):
        named[words[0]] += count
    for run, count in opening.items():
        words = tuple(run.split(" "))
        if plain[words[0].lower()] > named[words[0]]:  # an ordinary word, at the head of a sentence
            words = words[1:]
        while words and words[0][0].islower():  # the link behind it
            words = words[1:]
        if words:
            counts[words] += count
    return counts


def _parts(run: Words) -> Iterable[Words]:
    """The parts of a run that could be terms: a word, or a name from one capitalised word to another.

    A part with a link in it (`Keen of the British Tabulating Machine`) is whole on both sides, or it is no name.
    """
    heads = [at for at, word in enumerate(run) if not word[0].islower()]
    if not heads:
        yield from ((word,) for word in run if len(word) > 1)
    for which, start in enumerate(heads):
        for stop in heads[which : which + NAME_WORDS]:
            part = run[start : stop + 1]
            linked = any(word[0].islower() for word in part)
            if linked and (start - 1 in heads or stop + 1 in heads):
                continue
            if not term_problem(" ".join(part)):
                yield part


def _times(term: Words, run: Words) -> int:
    return sum(run[at : at + len(term)] == term for at in range(len(run) - len(term) + 1))


def _bad_line(path: Path, number: int, what: str) -> UsageError:
    return UsageError(what, where=f"{path}, line {number}", mend="mend or remove the line")
