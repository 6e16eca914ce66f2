"""Gate: a question, or an answer, that leans on a text its reader cannot see: "the passage", "the author says", "as above".

Guarantees: pure; one code, `leaning`. A word is never enough, the phrase around it decides: "the author of Mein Kampf",
"the passage of the Channel", "the text of the treaty" and "Article 9" pass.
Misses: phrases that name no text ("What did he do next?"). Calls "the article says" leaning even where an article of a
newspaper was named before.
Cost: 5 µs a question and 80 µs a text of 1,000 characters, on average: some 30 µs for each word that may begin a phrase.
"""

from __future__ import annotations

import re

from foundation.records import GateResult

CODE = "leaning"

# Substrings of which every pattern below needs one: nearly all text has none, and is settled by looking for them.
_NEEDS = (
    "passage",
    "snippet",
    "excerpt",
    "extract",
    "paragraph",
    "text",
    "article",
    "author",
    "writer",
    "narrator",
    "above",
    "below",
    "provided",
    "given",
    "supplied",
    "preceding",
    "source",
    "document",
    "ed here",
    "ed earlier",
    "ed previously",
    "just read",
    "information",
    "section",
    "context",
    "facts",
    "details",
)

_SHOWN = r"(?:passage|snippet|excerpt|paragraph|text)"  # what a prompt calls the text it shows
_TEXT = r"(?:passage|snippet|excerpt|extract|paragraph|text|article|document|source(?:\ (?:text|material))?|section|information)"
_WHICH = r"(?:(?:given|provided|supplied|above|following|preceding|previous|accompanying|short|source|entire|whole|original|first|second|last|two)\ )"
# What follows a thing of history that has the same name: the passage of the Channel, the text of the treaty, the article
# in Pravda. "in the passage of text" is none of these.
_OWN = r"""(?!s?\ (?:of\ (?!(?:text|the\ (?:text|passage|article))\b)|through|across|between|over|into|around|along|under|by|from\ (?!which)
    |to\b|on\b|in\ (?!question)|for|about|published|signed|written|carved|itself|\d)|s?,?\ (?:entitled|titled|called|known|[“"«]))"""
_TELLS = (
    r"(?:says?|states?|mentions?|describes?|explains?|notes?|suggests?|implies|imply|indicates?|discuss(?:es)?|tells?|refers?|lists?|"
    r"identif(?:y|ies)|attributes?|claims?|emphasi[sz]es?|reports?|points?\ out|argues?|reveals?|highlights?|provides?|specif(?:y|ies)|"
    r"compares?|contrasts?|presents?|illustrates?|portrays?|believes?|gives?|calls?|asserts?|stresses|makes?\ clear|details|covers?|"
    r"focus(?:es)?\ on|talks?\ about|deals?\ with|cites?|quotes?|concludes?|credits?|names?|shows?|says?\ nothing|uses?)"
)
_TOLD = r"(?:mentioned|described|stated|listed|named|discussed|referred\ to|shown|quoted|outlined|presented|noted|cited|highlighted|given|provided|explained|indicated|identified|specified|detailed|written|contained|found|reported)"
_NOT = r"(?:(?:also|only|never|further|explicitly|clearly|specifically|actually|then|itself|simply)\ |(?:does|do|did)(?:\ not|n['’]t)\ (?:explicitly\ |actually\ |specifically\ )?)*"

_BEFORE, _AFTER = 60, 160  # characters around such a word in which its phrase stands

_LEANING = re.compile(
    rf"""\b(?:
      # according to the passage; based on the text; from this article; in the paragraph above
      (?:according\ to|based\ (?:solely\ |only\ )?(?:up)?on|as\ per|judging\ (?:by|from)|going\ by)\ (?:the|this|that|your|these)\ {_WHICH}?{_TEXT}s?\b(?!\ \d){_OWN}
    | (?:according\ to|does|do|did|would|might)\ (?:the|this)\ (?:author|writer|narrator|speaker)\b(?!['’]s)(?!,?\ (?:of\b|(?-i:[A-Z])))
    | (?:in|from|within|throughout)\ (?:the|this|that|our|your)\ {_WHICH}?(?:{_SHOWN}|article)\b{_OWN}
    | (?:outside|beyond|by|of|with|using|read|reading)\ (?:the|this|that|our|your)\ {_WHICH}?(?:passage|snippet|excerpt|paragraph|article)\b{_OWN}
    | based\ (?:solely\ |only\ )?on\ the\ (?:context|facts|details)\b(?!\ (?:of|that|in|about|from)\b)
    # the passage says, the text does not mention, this article describes
    | (?:the|this|that|our)\ {_WHICH}?(?:{_SHOWN}|article|extract)s?\ {_NOT}{_TELLS}\b
    | (?:does|do|did|can|could|would|is|are|was|were)\ (?:the|this|that)\ {_WHICH}?(?:{_SHOWN}|article)\ (?:{_TELLS}|{_TOLD}|say|mainly|mostly|primarily|about|trying)\b
    # the author says, the author's main point
    | (?:the|this)\ (?:author|writer|narrator)\ {_NOT}{_TELLS}\b
    | (?:the|this)\ (?:author|writer|narrator)['’]s\ (?:main\ |central\ |overall\ )?(?:view|opinion|point|purpose|tone|argument|claim|attitude|intention|description|account|perspective)\b(?!\ [a-z]+ed\b)
    | (?:the|this)\ (?:author|writer)\ of\ (?:the|this)\ (?:passage|text|snippet|excerpt|paragraph|article)\b
    # the given text, the information provided, the above
    | (?:given|provided|supplied|preceding|accompanying|above)\ (?:{_SHOWN}|article|information|context|extract|facts|details|sentences?)\b(?!\ (?:to|by|for|from)\b)
    | (?:the|this|that)\ (?:following|previous|attached)\ (?:{_SHOWN})\b
    | (?:information|{_SHOWN}|article|context|details?|facts?|material|description|sentences?|account)\ (?:that\ (?:is|was)\ |which\ is\ )?(?:given|provided|supplied|shown|presented)(?:\ (?:here|above|below)|(?=\s*[,.?!;:]|$))
    | (?:information|{_SHOWN}|article|context|details?|facts?|description|account|sentences?)\ (?:above|below)\b(?!\ (?:the|a|an|\d|sea|all|it|them|his|her)\b)
    | (?:all|none|any|some|both|which|each|either|neither|one|most)\ of\ the\ above\b
    | the\ (?:above|below)(?=\s*[,.?!;:]|$|-mentioned|\ (?:passage|text|question|statement|is|are|was|facts))
    | (?:mentioned|described|stated|listed|discussed|quoted|outlined|noted|cited|given|shown|provided|explained)\ (?:here\b(?!\ (?:by|in|at)\b)|(?:just\ )?(?:above|below)\b(?!\ (?:the|a|an|\d|sea)\b))
    | as\ (?:was\ |is\ |has\ been\ |i\ |we\ )?(?:already\ )?(?:mentioned|described|stated|noted|discussed|explained|shown|seen|said)\ (?:earlier|previously|before\b(?!\ [a-z])|above|below|here|in\ the\ (?:{_SHOWN}|article|section))\b
    | see\ (?:above|below)\b
    # you have just read
    | you\ (?:have\ |['’]ve\ )?just\ read\b | (?:the|this)\ (?:text|passage|article|paragraph)\ you\b
    | (?:the|this|a)\ (?:short\ |brief\ )?passage\ of\ text\b
    )
    | \b(?:the|this|that|these|given|each|our|your)\ {_WHICH}*(?:snippets?)\b(?!\ of\b)
    | \bthis\ (?:passage|excerpt|paragraph)\b{_OWN}
    | \b(?:the|this)\ {_WHICH}*(?:passage|text|article|paragraph|excerpt)(?=\s*[?])
    | \b(?:source|reference)\ (?:text|passage)\ (?:says|states|does|mentions)\b
    | ^\W*(?:passage|text|snippet|excerpt|context)\ ?(?::|\d\b)
    """,
    re.VERBOSE | re.IGNORECASE,
)


def check_standalone(text: str, field: str = "") -> GateResult:
    """Reject `text` at its first phrase that points to a text its reader does not have."""
    low = text.lower()
    for word in _NEEDS:
        place = low.find(word)
        while place >= 0:
            if found := _LEANING.search(text, max(0, place - _BEFORE), place + _AFTER):
                return GateResult.reject("standalone", CODE, repr(found.group()[:60]), field)
            place = low.find(word, place + _AFTER - _BEFORE)
    return GateResult.accept()
