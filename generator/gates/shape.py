"""Gate: the shape of one text: no loop, refusal, leaked prompt, thinking, chat tag, control character, JSON or placeholder.

Guarantees: pure; codes `empty`, `looping`, `refusal`, `leaked-prompt`, `thinking`, `chat-tags`, `control-characters`,
`json-left`, `placeholder`. Refusals and thoughts count where a text begins, or in words that nobody else would write, so
that "he was sorry" and "the general could not help" pass. Lengths are the schema's business.
Cost: 8 µs a question of 80 characters and 60 µs a text of 1,000; a `Leak`, made once a prompt type, adds half of that.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from foundation.records import GateResult

LEAK_WORDS = 8
_HALF = LEAK_WORDS // 2

_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffd"
    "\ud800-\udfff\ue000-\uf8ff\ufdd0-\ufdef\U000e0000-\U0010ffff"
    + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(14))
    + "]"
)

# In these patterns white space means nothing: a space is written "\ ".
_SAY_NO = r"""(?:can\ ?not|can['’]t|won['’]t|will\ not|am\ (?:not\ able|unable)\ to|['’]m\ (?:not\ able|unable)\ to
    |(?:must|have\ to)\ decline\ to)"""
_DEED = r"""(?:answer|help|assist|provide|generate|create|write|produce|fulfil+|comply|complete|do\ (?:that|this|so)|continue|engage
    |discuss|respond|process|offer)"""
_REFUSAL = re.compile(
    rf"""["“'‘]?(?:answer:\s*)?(?:
      (?:i['’]?m|i\ am|we\ are|we['’]re|so)?\ ?(?:very\ |really\ |truly\ )?sorry,?\ (?:but\ )?(?:i|we)(?:\ {_SAY_NO}|{_SAY_NO}|\ (?:do\ not|don['’]t)\ have)
    | (?:i|we)\ apologi[sz]e,?\ but\ (?:i|we)(?:\ {_SAY_NO}|{_SAY_NO}|\ (?:do\ not|don['’]t))
    | (?:my\ apologies|apologies|unfortunately|regrettably),?\ (?:but\ )?(?:i|we)(?:\ |(?=['’])){_SAY_NO}\ {_DEED}
    | (?:i|we)(?:\ |(?=['’])){_SAY_NO}\ {_DEED}\ (?:you|with|to|that|this|your|the\ (?:question|request)|a\ question|questions|an?\ answer|in|json)\b
    | as\ an?\ (?:ai\b|artificial\ intelligence|(?:large\ )?language\ model|(?:ai\ )?(?:chatbot|chat\ bot))
    | i['’]?\ ?a?m\ (?:just\ |only\ )?an?\ (?:ai\b|(?:large\ )?language\ model)
    )""",
    re.VERBOSE | re.IGNORECASE,
)
_REFUSAL_WORDS = (  # nobody but a model says these of itself, wherever they stand
    "as an ai language model",
    "as a large language model",
    "as an ai assistant",
    "as an ai model",
    "my knowledge cutoff",
    "my training data",
    "i cannot fulfill this request",
    "i cannot assist with",
    "i can't assist with",
    "i can’t assist with",
)
_THOUGHT = re.compile(
    r"""["“'‘]?(?:
      let\ me\ (?:think|re-?read|start\ by|begin\ by|first|analy[sz]e|break\ (?:this|it)\ down|see,)
    | (?:okay|ok|alright|all\ right|right|sure|hmm+),?\ (?:so\ |now\ |then\ )*(?:the\ user|let['’]?s?\ (?:me|see|think)|let\ me|(?:i|we)\ (?:need|have|should|must)\ to\ (?:write|generate|create|produce|output|answer|respond|find|pick|choose|identify|come\ up|figure|make)\b|here['’]?s?\ (?:is\ )?(?:the|a|your|one)|here\ (?:is|are)\b)
    | (?:so,?\ )?the\ user\ (?:wants|is\ asking|asks|asked|has\ (?:asked|given|provided)|needs|gave|provided)
    | (?:first|now|so),?\ (?:i|we)\ (?:need|have)\ to\ (?:read|write|find|identify|understand|produce|output|generate|create|come\ up)
    | (?:i|we)\ need\ to\ (?:write|produce|output|generate|create|come\ up)\b
    | here(?:['’]s|\ is|\ are)\ (?:the|a|an|your|one|my|some)\ (?:\w+\ ){0,2}(?:questions?|answers?|json|response|output|requests?)\b
    | (?:thinking|thought|reasoning|analysis)(?:\ process)?:
    )""",
    re.VERBOSE | re.IGNORECASE,
)
_THOUGHT_WORDS = ("the user wants me to", "the user is asking", "the user asked me")
_MARKS = re.compile(  # only looked for where a text has one of < [ { ` \
    r"""(?P<thinking></?(?:think|thinking|thought|reasoning|reflection|scratchpad)>)
    |(?P<tags><\|[^<>|]{1,40}\|>|\[/?INST\]|<</?SYS>>|</?s>|</?(?:start|end)_of_turn>|</?(?:bos|eos|pad|unk)>|<\|(?:im|end)|\|im_(?:start|end)\|)
    |(?P<leak></?(?:second-)?passage>)
    |(?P<json>```|\{\s*\\?["'][\w -]{1,40}\\?["']\s*:|\\u[0-9a-fA-F]{4}|\\"|(?-i:\\n(?![a-z]))|\\n\\n|^\s*\[\s*["{].*["}]\s*\]\s*$)
    |(?P<placeholder>\{\{|\}\}|\{%|\{\w{0,30}\}|<(?:name|question|answer|date|place|year|person|entity|text|title|blank|insert[^<>]*|your[^<>]*)>
      |\[(?:(?:insert|your|add|enter|fill\ in|specify)\b[^\]]{0,60}|(?!(?:the|this|that|his|her|its|their|of)\ )(?:\w+\ )?(?:name|date|year|place|person|entity|question|answer|option|event|number|subject|topic|title)s?(?:\ here|\ \d)?|blank|redacted|placeholder|tbd|todo|x{1,5})\])""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_MARK_CODES = {
    "thinking": "thinking",
    "tags": "chat-tags",
    "leak": "leaked-prompt",
    "json": "json-left",
    "placeholder": "placeholder",
}
_NEED_MARK = re.compile(r"[<\[{`\\}|]")
_SPEAKER = re.compile(r"(?im)^[ \t]*(?:\*\*|#+ ?)?(?:assistant|user|(?-i:system|human)|chatgpt)\s?:")
_HEADING = re.compile(r"(?im)^#{2,4} ?(?:instruction|response|input|output|human|assistant|user|system)s?\b")
_NOTHING = re.compile(r"[\s.…_?!\-–—*]+|(?:n/?a|null|none|tbd|todo|string|undefined|placeholder)\.?", re.IGNORECASE)
_PLAIN = re.compile(r"\w+(?:['’-]\w+)*")
_QUOTED = re.compile(r"\"(?:[^\"\n]|\n(?!\n)){0,300}\"|“(?:[^”\n]|\n(?!\n)){0,300}”|\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
_STUTTER = re.compile(r"([^\W\d_]{1,6}?)\1{7,}")

_MANY = 30  # words; a shorter text cannot be told to collapse


class Leak:
    """The runs of words of one prompt; `found` tells whether a text has `LEAK_WORDS` of them in a row.

    Quoted examples and template variables in the prompt are left out: a good question may be one of the examples.
    """

    def __init__(self, prompt: str) -> None:
        self._halves: set[tuple[str, ...]] = set()
        self._whole: set[tuple[str, ...]] = set()
        for part in _QUOTED.sub("\0", prompt).split("\0"):
            words = _PLAIN.findall(part.lower())
            self._whole.update(zip(*(words[start:] for start in range(LEAK_WORDS)), strict=False))
            self._halves.update(zip(*(words[start:] for start in range(_HALF)), strict=False))

    def found(self, text: str) -> str:
        """The first run of the prompt that `text` repeats; empty if it repeats none."""
        words = _PLAIN.findall(text.lower())
        # Any 8 words in a row hold 4 that begin at a multiple of 5: it is enough to look there.
        for start in range(0, len(words) - _HALF + 1, LEAK_WORDS - _HALF + 1):
            if tuple(words[start : start + _HALF]) in self._halves:
                for first in range(max(0, start - _HALF), start + 1):
                    if (run := tuple(words[first : first + LEAK_WORDS])) in self._whole:
                        return " ".join(run)
        return ""


def check_shape(text: str, field: str = "", leak: Leak | None = None) -> GateResult:
    """Reject `text` if it is no proper text at all; with `leak`, also if it repeats that prompt."""
    code, reason = _fault(text, leak)
    return GateResult.reject("shape", code, reason, field) if code else GateResult.accept()


def _fault(text: str, leak: Leak | None) -> tuple[str, str]:
    """The code and what was found; two empty strings for a text in good shape."""
    if not text or text.isspace():
        return "empty", "no text"
    if (not text.isprintable() or "\ufffd" in text) and (found := _CONTROL.search(text)):
        return "control-characters", f"U+{ord(found.group()):04X} at character {found.start()}"
    if _NEED_MARK.search(text) and (found := _MARKS.search(text)):
        return _MARK_CODES[str(found.lastgroup)], f"{found.group()[:40]!r} at character {found.start()}"
    if _NOTHING.fullmatch(text):
        return "placeholder", repr(text[:40])
    start = text.lstrip()
    if found := _REFUSAL.match(start):
        return "refusal", repr(found.group()[:60])
    if found := _THOUGHT.match(start):
        return "thinking", repr(found.group()[:60])
    low = text.lower()
    for code, phrases in (("refusal", _REFUSAL_WORDS), ("thinking", _THOUGHT_WORDS)):
        if phrase := next((phrase for phrase in phrases if phrase in low), ""):
            return code, repr(phrase)
    if (":" in text and (found := _SPEAKER.search(text))) or ("##" in text and (found := _HEADING.search(text))):
        return "chat-tags", repr(found.group().strip())
    if leak is not None and (run := leak.found(text)):
        return "leaked-prompt", repr(run)
    loop = _loop(low)
    return ("looping", loop) if loop else ("", "")


def _loop(low: str) -> str:
    """What is repeated over and over; empty if nothing is."""
    for mark in ",.;:!?":
        low = low.replace(mark, " ")
    words = low.split()
    if max(map(len, words), default=0) > 40 and (found := _STUTTER.search(low)):
        return f"{found.group(1)!r} again and again in one word"
    doubles = max(0, len(words) - 2) - len(set(zip(words, words[1:], words[2:], strict=False)))
    if doubles < 2:
        return ""  # nearly always: a run that comes three times repeats triples of words
    triples = list(zip(words, words[1:], words[2:], strict=False))
    for period in _periods(triples):
        length, end = _longest(words, period)
        phrase = words[end - period : end]
        if length // period + 1 >= _enough(period) and any(any(map(str.isalpha, word)) for word in phrase):
            return f"{length // period + 1} times {' '.join(phrase)[:60]!r}"
    if doubles * 2 > len(triples) and len(words) >= _MANY:
        return f"only {len(triples) - doubles} of {len(triples)} runs of three words are different"
    return ""


def _enough(period: int) -> int:
    """How often a run of so many words must come in a row to be a loop."""
    return 5 if period == 1 else 4 if period <= 3 else 3


def _periods(triples: Sequence[tuple[str, ...]]) -> list[int]:
    """After how many words triples come again, so often that it may be a loop."""
    last: dict[tuple[str, ...], int] = {}
    gaps = Counter[int]()
    for place, triple in enumerate(triples):
        if triple in last:
            gaps[place - last[triple]] += 1
        last[triple] = place
    return sorted(period for period, count in gaps.items() if count >= (_enough(period) - 1) * period - 2)


def _longest(words: Sequence[str], period: int) -> tuple[int, int]:
    """The longest run of words that equal the one `period` before them: its length, and where it ends."""
    best, end, length = 0, 0, 0
    for place in range(period, len(words)):
        length = length + 1 if words[place] == words[place - period] else 0
        if length > best:
            best, end = length, place + 1
    return best, end
