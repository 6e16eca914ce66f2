"""Human labels: read from a file, drawn at random, and made in a terminal or a spreadsheet.

Guarantees: whoever labels never sees a verdict; a label belongs to one text of an answer, not to a question alone; each
is on the disk before the next question is shown, so a killed session goes on where it was. Rows are drawn at random from
all answers, so that rates among labels are rates among answers. Cost: about 5 µs a label read; one fsync a label made.
Misses: a label that names no text is taken to be about the answers at hand, and counted, for the user to be told.
"""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import json
import os
import re
import sys
import termios
import textwrap
import tty
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from foundation.console import plain, say
from foundation.errors import Failure, UsageError
from foundation.ids import stable_id
from foundation.records import Answer
from judge.agree import answer_id

RIGHT = frozenset({"pass", "passed", "p", "1", "1.0", "true", "right", "correct", "yes", "y"})
WRONG = frozenset({"fail", "failed", "f", "0", "0.0", "false", "wrong", "incorrect", "no", "n"})
COLUMNS = ("item_id", "answer_id", "passage", "question", "reference", "answer", "label", "annotator", "note")
WANTED = "one row a label, with item_id, label (PASS or FAIL) and answer_id or answer; annotator and note if you like"
KEYS = "p right   f wrong   s skip   b back   q quit >"
RULE = (
    "Right: it answers the question as the reference does, in whatever words, and the passage contradicts nothing in it.\n"
    "Wrong: anything else. Skip what you cannot decide."
)
MEANINGS = {"p": "pass", "f": "fail", "s": "skip", "b": "back", "q": "quit"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")  # what a spreadsheet would run
_MANGLED = re.compile(r"\d([.,]\d+)?E\+\d+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Label:
    """A person's word on one answer. `where`: file and line. Empty `answer_id` and `answer`: it names no text."""

    item_id: str
    label: Literal["PASS", "FAIL"]
    answer_id: str = ""
    answer: str = ""
    annotator: str = ""
    note: str = ""
    where: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.item_id, self.answer_id


def read_labels(path: Path) -> tuple[list[Label], int]:
    """The labels of a JSONL or CSV file, and how many of its rows have none yet. Raises `UsageError` by line."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise UsageError(
            "there is no such file of labels", where=str(path), mend="make one with `judge label --labels FILE`"
        ) from error
    text = _decoded(data, path)
    rows = _json_rows(text, path) if text.lstrip().startswith("{") else _csv_rows(text, path)
    labels, blank = [], 0
    for where, row in rows:
        word = _cell(row.get("label")).casefold()
        if not word:
            blank += 1
            continue
        labels.append(_label(row, word, where))
    if not labels:
        said = f"none of the {blank:,} rows is labelled yet" if blank else "the file holds no label"
        raise UsageError(said, where=str(path), mend=WANTED)
    return labels, blank


def _label(row: Mapping[str, Any], word: str, where: str) -> Label:
    if word not in RIGHT | WRONG:
        raise UsageError(
            f"this label is neither right nor wrong: {word[:40]!r}",
            where=where,
            mend="write PASS or FAIL; leave it empty if you cannot say",
        )
    item = _cell(row.get("item_id"))
    if not item or _MANGLED.fullmatch(item):
        what = f"was turned into a number by a spreadsheet: {item}" if item else "is missing"
        raise UsageError(f"the item_id of this label {what}", where=where, mend="copy it from the file of answers")
    return Label(
        item_id=item,
        label="PASS" if word in RIGHT else "FAIL",
        answer_id=_cell(row.get("answer_id")),
        answer=str(row.get("answer") or ""),
        annotator=_cell(row.get("annotator")),
        note=_cell(row.get("note")),
        where=where,
    )


def _cell(value: object) -> str:
    return "" if value is None else str(value).strip()


def _decoded(data: bytes, path: Path) -> str:
    """UTF-8 with or without its mark, or UTF-16 with one (a spreadsheet's "Unicode text")."""
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UsageError(
            "this line is not UTF-8", where=f"{path}:{line}", mend='save the file as "CSV UTF-8"'
        ) from error


def _json_rows(text: str, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: JSON may hold U+2028 as it is
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UsageError(f"this line is no JSON: {error}", where=where, mend=WANTED) from error
        if not isinstance(row, dict) or {"item_id", "label"} - row.keys():
            missing = "" if not isinstance(row, dict) else ", ".join(sorted({"item_id", "label"} - row.keys()))
            raise UsageError(
                f"this line lacks {missing}" if missing else "this line is no JSON object", where=where, mend=WANTED
            )
        yield where, row


def _csv_rows(text: str, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    head = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=head.count)  # Excel writes semicolons where the comma is the decimal point
    csv.field_size_limit(1 << 30)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] = []
    while True:
        where = f"{path}:{reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UsageError(f"this is no CSV: {error}", where=where, mend="save it as CSV again") from error
        if not any(cell.strip() for cell in cells):
            continue
        if not names:
            names = [cell.strip().casefold().replace(" ", "_") for cell in cells]
            missing = ", ".join(name for name in ("item_id", "label") if name not in names)
            if missing:
                raise UsageError(f"the first line names no column {missing}", where=where, mend=WANTED)
        elif len(cells) > len(names) and any(cell.strip() for cell in cells[len(names) :]):
            raise UsageError(
                f"this line has {len(cells)} cells, the first one {len(names)}",
                where=where,
                mend="put texts that hold the delimiter into quotes",
            )
        else:
            yield where, dict(zip(names, cells, strict=False))


def sample(answers: Sequence[Answer], count: int, seed: int) -> list[Answer]:
    """At most `count` of the answers in a random order, each text once. A larger `count` only adds to it.

    The order is by hash, so it does not depend on the order of the file, and says nothing of any verdict.
    """
    keyed = {(answer.item.id, answer_id(answer.text)): answer for answer in answers}
    return [keyed[key] for key in sorted(keyed, key=lambda key: stable_id("label", seed, *key))][:count]


class Book:
    """A file of labels that grows by one line at a time, held by this process alone: see `opened`."""

    def __init__(self, path: Path, descriptor: int, annotator: str) -> None:
        self.path, self.annotator, self._file = path, annotator, descriptor
        self._ends: list[tuple[tuple[str, str], int]] = []  # labels that can be taken back, and where their lines begin
        self.said: dict[tuple[str, str], str] = {}
        self._read()

    def _read(self) -> None:
        """This annotator's labels so far. A last line that a killed machine left torn is cut off."""
        data = self.path.read_bytes()
        text = data.removeprefix(b"\xef\xbb\xbf").lstrip()
        if text and not text.startswith(b"{"):
            raise UsageError(
                "this file exists, and is no JSONL of labels",
                where=str(self.path),
                mend="name another file with --labels",
            )
        whole = data.rfind(b"\n") + 1
        if data[whole:].strip():
            try:
                json.loads(data[whole:])
                os.write(self._file, b"\n")  # only its end is missing, as an editor may leave it
            except ValueError:
                os.ftruncate(self._file, whole)
        if self.path.read_bytes().strip():
            for label in read_labels(self.path)[0]:
                if label.annotator == self.annotator:
                    self.said[label.key] = label.label

    def add(self, answer: Answer, label: str) -> None:
        """Write one label, and have it on the disk."""
        key = (answer.item.id, answer_id(answer.text))
        row = {"item_id": key[0], "answer_id": key[1], "label": label}
        row |= {"annotator": self.annotator} if self.annotator else {}
        line, begin = json.dumps(row, ensure_ascii=True).encode() + b"\n", os.lseek(self._file, 0, os.SEEK_END)
        if os.write(self._file, line) < len(line):  # one call: a killed process has written it whole, or not at all
            os.ftruncate(self._file, begin)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        os.fsync(self._file)
        self._ends.append((key, begin))
        self.said[key] = label

    def take_back(self, answer: Answer) -> None:
        """Cut off the last label, if it is on this answer and was made in this session."""
        if self._ends and self._ends[-1][0] == (answer.item.id, answer_id(answer.text)):
            key, begin = self._ends.pop()
            os.ftruncate(self._file, begin)
            os.fsync(self._file)
            del self.said[key]


@contextmanager
def opened(path: Path, annotator: str) -> Iterator[Book]:
    """The labels in `path`, to be added to. Raises `Failure` if another session holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield Book(path, descriptor, annotator)
    except BlockingIOError as error:
        raise Failure(
            "another session labels into the same file", where=str(path), mend="end it, or name another file"
        ) from error
    finally:
        os.close(descriptor)


def sheet(answers: Sequence[Answer], annotator: str = "") -> bytes:
    """A CSV to be filled in with a spreadsheet; `judge calibrate` reads it back. No text in it can be run as a formula."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for answer in answers:
        item = answer.item
        shown = (item.snippet, item.question, item.reference, answer.text)
        own = (item.id, answer_id(answer.text), *map(_harmless, shown), "", _harmless(annotator), "")
        writer.writerow(own)
    return text.getvalue().encode("utf-8-sig", "replace")  # its mark tells Excel that it is UTF-8


def _harmless(text: str) -> str:
    text = text.replace("\0", "")
    return f"'{text}" if text.lstrip(" \n").startswith(_FORMULA) else text


class Session:
    """Questions one after another, and a key for each."""

    def __init__(self, chosen: Sequence[Answer], book: Book, keys: Keys, width: int) -> None:
        self.chosen, self.book, self.keys, self.width = chosen, book, keys, width
        self.seen: list[Answer] = []  # in this session, the last one at the end: what `b` goes back over
        self.skipped: set[tuple[str, str]] = set()

    @property
    def done(self) -> int:
        return sum(_key(answer) in self.book.said for answer in self.chosen)

    def run(self) -> None:
        """Until all are labelled or skipped, or the person quits."""
        say("\n".join(textwrap.fill(line, self.width) for line in RULE.split("\n")))
        while True:
            answer = next((one for one in self.chosen if not self._settled(one)), None)
            if answer is None:
                return
            say(shown(answer, self.done + 1, len(self.chosen), self.width))
            if not self._ask(answer):
                return

    def _settled(self, answer: Answer) -> bool:
        return _key(answer) in self.book.said or _key(answer) in self.skipped

    def _ask(self, answer: Answer) -> bool:
        """One key that means something; whether to go on."""
        while True:
            self.keys.forget()
            print(KEYS, end=" ", file=sys.stderr, flush=True)
            word = self.keys.next().casefold()
            meaning = MEANINGS.get(word[:1]) if word in (*MEANINGS, *MEANINGS.values()) else None
            say(meaning or "")
            if meaning == "quit" or not word:
                return False
            if meaning == "back":
                if not self.seen:
                    say("this is the first one of this session")
                    continue
                last = self.seen.pop()
                self.book.take_back(last)
                self.skipped.discard(_key(last))
                return True
            if meaning == "skip":
                self.skipped.add(_key(answer))
            elif meaning in ("pass", "fail"):
                self.book.add(answer, meaning.upper())
            else:
                continue
            self.seen.append(answer)
            return True


def _key(answer: Answer) -> tuple[str, str]:
    return answer.item.id, answer_id(answer.text)


def shown(answer: Answer, number: int, of: int, width: int) -> str:
    """One question as a person sees it: everything but a verdict."""
    item = answer.item
    fields = (("passage", item.snippet), ("question", item.question), ("reference", item.reference))
    head = f"{number:,} of {of:,} "
    parts = [f"\n{head}{'-' * max(3, width - len(head))}"]
    parts += [field(name, text, width) for name, text in (*fields, ("answer", answer.text))]
    return "\n\n".join(parts) + "\n"


def field(name: str, text: str, width: int, indent: int = 11) -> str:
    """`name:` and a text that models wrote, wrapped and set in: no line of it can pass for one of ours."""
    lines = [
        wrapped
        for line in plain(text).split("\n")
        for wrapped in textwrap.wrap(line, max(20, width - indent), break_on_hyphens=False) or [""]
    ]
    first, *rest = lines if text.strip() else ["(nothing)"]
    return "\n".join([f"{name + ':':<{indent}}{first}", *(" " * indent + line if line else "" for line in rest)])


class Keys:
    """Words on standard input, one a line: what a pipe brings."""

    def forget(self) -> None:
        """Drop what was typed before the question was there."""

    def next(self) -> str:
        """The next word; "" when there is no more."""
        data = sys.stdin.buffer.readline() if sys.stdin else b""
        return data.decode("utf-8", "replace").strip() or ("?" if data else "")


class Pressed(Keys):
    """Single keys on a terminal."""

    def forget(self) -> None:
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)  # a key held down is no word on what it had not seen

    def next(self) -> str:
        pressed = os.read(sys.stdin.fileno(), 64).decode("utf-8", "replace")
        if pressed in ("", "\x04"):  # Ctrl-D
            return ""
        # an arrow or F1 sends several characters, letters among them; a pasted text as well
        return pressed.strip() if len(pressed.strip()) == 1 else "?"


@contextmanager
def keyboard() -> Iterator[Keys]:
    """Keys from standard input: one press each on a terminal, one line each from a pipe."""
    if not (sys.stdin and sys.stdin.isatty()):
        yield Keys()
        return
    before = termios.tcgetattr(sys.stdin.fileno())
    try:
        tty.setcbreak(sys.stdin.fileno())
        yield Pressed()
    finally:
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)
