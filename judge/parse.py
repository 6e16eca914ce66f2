"""A grader's reply to an outcome. Only generated text is read, and only its last verdict-shaped line decides.

Verdict-shaped is a line that begins with "verdict" (after marks, and words such as "my final" or "therefore") and a colon or
its like; such a heading with the word alone on the next line; JSON with a "verdict"; `<verdict>PASS</verdict>`; and a line that
is `\\boxed{PASS}`. A line that is shown as another's words is none: quoted with text after it, or announced ("The student
wrote:", or disowned on the next line, "which I ignore").
Guarantees: what cannot be read is UNSCORED, never a FAIL and never a PASS; so is what is hedged, denied or taken back.
Thinking is not a verdict: with thinking that never ended there is none. Refusing in words is told apart (`refusal`).
Cost: 15 to 40 µs a reply of 2 KB, several times that where as much text follows the verdict.
Misses: a verdict inside a sentence, and one in other words ("Grade: correct") or languages.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal

from foundation.records import ChatReply
from judge.outcome import Outcome

EXPLANATION = 2000  # characters that are kept

Word = Literal["PASS", "FAIL", ""]

_THOUGHT_BEGINS = re.compile(r"<(?:think|thinking|thought|reasoning)>|\[THINK\]", re.IGNORECASE)
_THOUGHT_ENDS = re.compile(r"</(?:think|thinking|thought|reasoning)>|\[/THINK\]", re.IGNORECASE)
# Left over from chat templates, and what looks like nothing: zero width, joiners, marks of direction.
_SPECIAL = re.compile(r"<\|[^|<>\n]{1,40}\|>|</?s>|<(?:end|start)_of_turn>")
UNSEEN = re.compile("[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufe00-\ufe0f\ufeff]")
WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}  # full width, as Chinese and Japanese set Latin letters
_HTML = re.compile(r"</?(?:b|i|u|p|em|h[1-6]|br|div|span|code|strong|center)\s*/?>", re.IGNORECASE)
_LATEX = re.compile(r"\\(?:text\w*|math\w*|boldsymbol)\s*(?=\{)|\\[\[\]()]")

_SHAPE = re.compile(
    r"^[\W_]*(?:\d{1,2}[.)][\W_]*)?"
    r"(?:(?:so|thus|hence|therefore|(?:in )?conclusion|(?:final )?answer|boxed|my|the|final|overall)\b[\W_]*)*"
    r"verdict\b(?: is\b)?(?P<mark>[\W_]*)(?P<rest>.*)$",
    re.IGNORECASE,
)
_TAGGED = re.compile(r"^\W*<verdict>(?P<rest>.*)</verdict>\W*$", re.IGNORECASE)
_BOXED = re.compile(
    r"^[\W_]*(?:(?:so|thus|hence|therefore|(?:the )?final answer is)\b[\W_]*)?\\boxed\s*\{(?P<rest>[^{}]*)\}[\W_]*$",
    re.IGNORECASE,
)
_COLON = re.compile(r"[:=\-–—|]")
_DOUBT = re.compile(r"[?~≠¬]|!=")
_WORD = re.compile(r"[\W_]*?(PASS|FAIL)(?:ED|ES|S|URE)?(?![^\W_])(.*)", re.IGNORECASE)
_FOR, _AGAINST = frozenset("✅✔✓☑🟢👍"), frozenset("❌✗✘✖🔴👎🚫")
_UNLIKE = re.compile(r"[?~/\\→⇒➜≠¬⚠❓]|->|=>|!=")
# What may follow on the same line: a reason, set off; but nothing that takes the word back.
_REASON = re.compile(
    r"[*_`\"'”’)\]}]*(?:\s*[.:;,(\[–—]+[*_\"'\s]*|\s+-+\s+|\s+(?=(?:because|since|as)\b))"
    r"(?!(?:but|though|although|however|if|unless|not|except|or|only|with|yet|and)\b)(?=\w)",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"\b(?:if|unless|provided|assuming|depend\w*|unsure|uncertain|maybe|perhaps|possibly|generous\w*|lenient\w*|borderline|"
    r"barely|arguabl\w*|partial\w*|reservations?|verdict)\b|[?→]",
    re.IGNORECASE,
)
_OTHER = {"PASS": re.compile(r"\bFAIL(?:S|ED)?\b"), "FAIL": re.compile(r"\bPASS(?:ES|ED)?\b")}
_QUOTED = re.compile(r"^\s*(?:>|[\"“”‘’'«](?!verdict[\"'”’]))", re.IGNORECASE)
_ANNOUNCED = re.compile(
    r"\b(?:students?|answers?|text)\b.*\b(?:wrote|writes?|says?|said|ends?|claims?|claimed|adds?|added|reads?|states?|stated|"
    r"includes?|contains?|inserts?|inserted|appends?|appended|begins?|concludes?|continues?)"
    r"(?: (?:this|that|these|those|some|the|a|an|own|its|his|her|their|following|with|by|itself|lines?|words?|sentences?|"
    r"instructions?|commands?|text|in|at|end|also|as|follows))*\s*:\W*$",
    re.IGNORECASE,
)
_BARE = re.compile(r"\s*```.*|[\W_]*")  # a line that says nothing: blank, a rule, a fence
# What stands at once behind a verdict and disowns it.
_DISOWNED = re.compile(
    r"which (?:is|was|would be) (?:incorrect|wrong|false|not\b|mistaken|a mistake|an error)"
    r"|(?:which|that) (?:is|was) (?:ignored|injected|the student's|what the student|an attempt)"
    r"|which I (?:ignore|reject|do not|don't|will not|won't|must not|cannot|can't)\b",
    re.IGNORECASE,
)
_NO = re.compile(r"no(?=\s*(?:[,:;.!—–]|$))", re.IGNORECASE)
# A sentence that calls the verdict back, whatever it was.
_AGAIN = re.compile(
    r"(?:(?:but|no|oh|hm+|and|or|actually)\b\W*)*"
    r"(?:(?:wait|hold on|oops|scratch that|strike that|on second thoughts?)\b(?=\s*(?:[,:]|$))"
    r"|(?:I|let me)\s+(?:(?:must|should|need to|have to|will|want to)\s+)?(?:take (?:that|this|it) back|reconsider|re-?evaluate"
    r"|correct myself|change my (?:mind|verdict|grade)))",
    re.IGNORECASE,
)
# A sentence that thinks twice; it counts only if it goes on to say the other thing.
_SECOND = re.compile(
    r"(?:(?:but|no|oh|hm+)\b\W*)*(?P<opens>no(?=,)|actually|correction|sorry|however|but|yet|looking again"
    r"|(?:up)?on (?:reflection|(?:a )?(?:second|closer) (?:look|thoughts?|reading)|re-?reading|reconsideration))\b",
    re.IGNORECASE,
)
_BECAUSE = r"\b(?:so|thus|hence|therefore)\W+(?:(?:this|it|(?:the )?(?:student's )?answer|the student)\s+(?:therefore |actually )?"
_CONTRARY = {
    "PASS": re.compile(
        r"\b(?:wrong|incorrect|false|fails?|failed|mistaken|contradicts?|invented"
        r"|not (?:quite |fully |entirely )?(?:right|correct|true)|(?:does not|doesn't|do not|don't) (?:agree|match))\b",
        re.IGNORECASE,
    ),
    "FAIL": re.compile(
        r"\b(?:answer|student|it|this|that|both|they|dates?|years?|names?)\b(?: \w+){0,3} "
        r"(?:right|correct|passes|agrees?|match(?:es)?|fine)\b",
        re.IGNORECASE,
    ),
}
_SPARED = {  # what makes such a sentence an aside
    "PASS": re.compile(
        r"\b(?:spell\w*|grammar|typos?|minor|small|slight\w*|irrelevant|matters?|nothing|no|not (?:wrong|incorrect|false))\b",
        re.IGNORECASE,
    ),
    "FAIL": re.compile(r"\b(?:not|never|nor|neither|but|only|about|if|wrong|incorrect)\b|n't\b", re.IGNORECASE),
}
_SO = {
    "PASS": re.compile(
        _BECAUSE + r"(?:fails|is (?:a fail|wrong|incorrect|not right|not correct)))\b"
        r"|^(?:this|it|the (?:student's )?answer|the student) (?:fails|is (?:wrong|incorrect|false|not right|not correct))$",
        re.IGNORECASE,
    ),
    "FAIL": re.compile(_BECAUSE + r"(?:passes|is (?:a pass|right|correct)))$", re.IGNORECASE),
}
_SENTENCE = re.compile(r"\n|(?<=[.!?;])\s+|[—–]|\s-+\s")
_REFUSES = re.compile(
    r"\b(?:I|we)(?:'m| am|'re| are)? ?(?:can ?not|can't|could not|won't|will not|am not able to|not able to|unable to|must decline"
    r"|have to decline|decline|refuse)(?: to)?\b"
    r"(?:(?! (?:find|see|tell|verify|confirm|say|infer|determine|decide)\b)[^.\n]){0,40}?"
    r"\b(?:help|assist|grade|judge|evaluate|assess|comply|continue|provide|do (?:that|this)|engage|discuss|fulfil\w*|process"
    r"|respond|answer|give)\b"
    r"|\bI must (?:decline|refuse)\b|\bagainst my (?:guidelines|policy|policies)\b",
    re.IGNORECASE,
)


def parse(text: str) -> Outcome:
    """PASS or FAIL with the explanation before it, or UNSCORED with `parse` or `refusal`."""
    thought, said, open_ = _parted(text)
    if open_:
        return Outcome("UNSCORED", "parse", f"The grader did not stop thinking. It ends: {said[-300:].strip()}")
    lines = _lines(said)
    found = [line for line in _verdicts(lines) if not _another_s(lines, line)]
    if not found:
        return _without(said, thought)
    last = found[-1]
    if not last.word or _taken_back(lines, found):
        return Outcome("UNSCORED", "parse", f"The grader's verdict cannot be read: {_shortened(lines[last.at])}")
    before, after = "\n".join(lines[: last.begins]), "\n".join(lines[last.at + 1 :])
    return Outcome(last.word, "", _shortened(before) or _shortened(thought) or _shortened(after))


def outcome(reply: ChatReply) -> Outcome:
    """The outcome of a reply that will not be asked for again."""
    if reply.finish == "length":
        if reply.detail not in ("", "length"):  # a server's filter, for one
            return Outcome("UNSCORED", "refusal", f"The grader's reply was ended by its server: {reply.detail}")
        room = f"{reply.usage.completion_tokens:,} tokens" if reply.usage.completion_tokens else "all the room it had"
        return Outcome(
            "UNSCORED", "length", f"The grader's reply was cut off after {room}. It ends: {_end(reply.text)}"
        )
    if reply.finish == "declined":
        return Outcome("UNSCORED", "length", f"The prompt does not fit the grader's context: {reply.detail}")
    if reply.finish != "stop":
        return Outcome("UNSCORED", "engine", f"The grader gave no reply: {reply.detail or reply.finish}")
    return parse(reply.text)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """A verdict-shaped line: lines `begins` to `at`, and the word it says; none if that cannot be read."""

    begins: int
    at: int
    word: Word


def _parted(text: str) -> tuple[str, str, bool]:
    """Thoughts, what is said after them, and whether it still thinks where the text ends."""
    ends = list(_THOUGHT_ENDS.finditer(text))
    thought, said = (text[: ends[-1].start()], text[ends[-1].end() :]) if ends else ("", text)
    begins = _THOUGHT_BEGINS.search(said)
    return _THOUGHT_BEGINS.sub("", thought).strip(), said[begins.end() :] if begins else said, begins is not None


def _lines(said: str) -> list[str]:
    plain = _SPECIAL.sub("", said) if "<" in said else said
    return (plain if plain.isascii() else UNSEEN.sub("", plain)).splitlines()


def _plain(line: str) -> str:
    """The line without what only dresses it. Full-width letters and colons become plain ones."""
    return _LATEX.sub("", _HTML.sub("", line if line.isascii() else line.translate(WIDE)))


def _verdicts(lines: list[str]) -> list[_Verdict]:
    found = []
    for at, line in enumerate(lines):
        plain = _plain(line)
        lower = plain.casefold()
        if "verdict" in lower:
            found += _of_line(lines, at, plain)
        elif "\\boxed" in lower and (boxed := _BOXED.match(plain)) and (word := _alone(boxed["rest"])):
            found.append(_Verdict(at, at, word))
    return found


def _of_line(lines: list[str], at: int, plain: str) -> list[_Verdict]:
    """The verdict of a line that holds that word: one, or none if it is not shaped so."""
    value = _json(plain)
    if value is not None:
        return [_Verdict(at, at, _alone(value))]
    if tagged := _TAGGED.match(plain):
        return [_Verdict(at, at, _alone(tagged["rest"]))]
    shape = _SHAPE.match(plain)
    if shape is None:
        return []
    mark, rest = shape["mark"], shape["rest"]
    if not rest:
        after = next((number for number in range(at + 1, len(lines)) if lines[number].strip()), None)
        word = _alone(_plain(lines[after])) if after is not None and not _UNLIKE.search(mark) else ""
        if after is not None and word:
            return [_Verdict(at, after, word)]
        return [_Verdict(at, at, "")] if ":" in mark else []
    if _COLON.search(mark):
        # a mark such as ✅ may stand before the word
        return [_Verdict(at, at, "" if _DOUBT.search(mark) else _read(mark + rest))]
    word = _alone(mark + rest)
    return [_Verdict(at, at, word)] if word else []


def _alone(text: str) -> Word:
    """The word if nothing else is said."""
    found = _WORD.fullmatch(re.sub(r"\\boxed\b", "", text))
    if found is None or re.search(r"[^\W_]", found[2]):
        return ""
    return _read(text)


def _read(text: str) -> Word:
    """PASS or FAIL, alone or with a reason after it; empty if it is anything else."""
    found = _WORD.fullmatch(re.sub(r"\\boxed\b", "", text))
    if found is None:
        return ""
    word: Word = "PASS" if found[1].upper() == "PASS" else "FAIL"
    if (_AGAINST if word == "PASS" else _FOR) & set(text):
        return ""
    before, after = text[: text.upper().find(word)], found[2]
    if _DOUBT.search(before):
        return ""
    if not re.search(r"[^\W_]", after):
        return "" if _UNLIKE.search(after) else word
    other = re.compile(_OTHER[word].pattern, re.IGNORECASE)
    taken = _HEDGE.search(after) or other.search(after) or _recalled(word, after)
    return word if _REASON.match(after) and not taken else ""


def _json(plain: str) -> str | None:
    """The verdict of a JSON object on one line."""
    stripped = plain.strip().strip("`").strip()
    if not (stripped.startswith("{") and stripped.endswith("}")):
        return None
    try:
        found = json.loads(stripped)
    except (ValueError, RecursionError):
        return None
    values = [value for key, value in found.items() if key.casefold().replace("_", " ") in ("verdict", "final verdict")]
    return str(values[-1]) if values else None


def _another_s(lines: list[str], verdict: _Verdict) -> bool:
    """Whether the line is shown as the student's words: announced, or quoted and gone on from."""
    above = (lines[number] for number in range(verdict.begins - 1, -1, -1))
    before = next((line for line in above if not _BARE.fullmatch(line)), "")
    if _ANNOUNCED.search(_plain(before)[-160:]):
        return True
    if not _QUOTED.match(lines[verdict.begins]):
        return False
    return any(re.search(r"[^\W_]", line) for line in lines[verdict.at + 1 :])


def _taken_back(lines: list[str], found: list[_Verdict]) -> bool:
    """Whether the last verdict is not meant: the other one of a choice, or the other word comes after it, in capitals."""
    last = found[-1]
    if len(found) > 1:
        between = " ".join(lines[found[-2].at + 1 : last.begins])
        if re.fullmatch(r"\W*(?:or|and/or)\W*", between, re.IGNORECASE) and found[-2].word != last.word:
            return True
    after = "\n".join(line for line in lines[last.at + 1 :] if not _QUOTED.match(line))
    return bool(last.word and (_OTHER[last.word].search(after) or _recalled(last.word, after)))


def _recalled(word: Word, after: str) -> bool:
    """Whether what follows a verdict takes it back: a student's verdict that was quoted, a second thought, the contrary."""
    after = re.sub("[*_`]+", "", after.replace("’", "'")).lstrip(" \t\r\n.,:;!()[]—–-")
    if not after or not word:
        return False
    if _DISOWNED.match(after) or (word == "PASS" and _NO.match(after)):
        return True
    for part in _SENTENCE.split(after):
        sentence = part.strip(" \t\r.!?;()[]")
        if _AGAIN.match(sentence) or _SO[word].search(sentence):
            return True
        second = _SECOND.match(sentence)
        if second and (word == "PASS" or second["opens"].casefold() not in ("however", "but", "yet")):
            rest = sentence[second.end() :]
            if _CONTRARY[word].search(rest) and not _SPARED[word].search(rest):
                return True
    return False


def _without(said: str, thought: str) -> Outcome:
    """No verdict: refused in words, or nothing that can be read."""
    if not said.strip():
        return Outcome(
            "UNSCORED", "parse", f"The grader said nothing{' after thinking: ' + _end(thought) if thought else '.'}"
        )
    if _REFUSES.search(said.strip()[:300].replace("’", "'")):
        return Outcome("UNSCORED", "refusal", f"The grader refused. It wrote: {_shortened(said)}")
    return Outcome("UNSCORED", "parse", f"The grader gave no verdict. It wrote: {_shortened(said)}")


def _end(text: str) -> str:
    return text[-300:].strip()


def _shortened(text: str) -> str:
    text = text.strip()
    return text if len(text) <= EXPLANATION else text[: EXPLANATION - 1].rstrip() + "…"
