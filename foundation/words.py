"""The word lists that the rules grader compares by: plain data, English, nothing else in here.

Guarantees: lower case, without accents. Cost: none. Misses: synonyms; a list long enough for them would need a model.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that carry no fact: two sentences that differ only in these say the same, as far as this grader can see.
FUNCTION = _words(
    "a an the this that these those it its he she they them their his her him we us our you your i me my who whom whose "
    "which what when where why how and or but if then than so as at by for from in into of on onto to with within about "
    "over under up down out off after before during between against through across around near also too very just only "
    "is are was were be been being am do does did done has have had having will would shall should can could may might "
    "must there here all any some each both such other another more most many much few own same while because since "
    "until although though once again further however therefore thus hence still yet even ever never no not nor neither "
    "without yes true false correct incorrect answer called named known rather instead indeed s t mr mrs"
)

# Words that say what kind of thing a name is. Alone they name nothing: "Lake Ladoga" is found by "Ladoga".
GENERIC = _words(
    "army armies division corps brigade regiment battalion group fleet navy force forces squadron air command front line "
    "battle operation campaign offensive siege war world invasion landing raid treaty pact agreement conference plan act "
    "general marshal colonel major captain admiral lieutenant field commander chief sergeant private officer sir lord "
    "president minister prime chancellor premier king queen emperor prince duke doctor dr professor secretary foreign "
    "union empire republic kingdom government parliament party state states city town village port harbor harbour "
    "lake river sea ocean bay gulf strait straits channel island islands isthmus peninsula mount mountain cape valley "
    "road bridge hill point beach airfield station day class type mark ministry office committee council league"
)

PARTICLES = _words("von van de der den la le al el bin da di del du af zu ten ter")

NEGATORS = _words("not never no nor neither without cannot")
# After a negator these make no denial: "not only", "not until 1941", "no fewer than".
SOFT_NEGATION = _words("only just merely simply until before fewer less more longer later earlier doubt wonder")

MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
MONTH_OF = {name: name for name in MONTHS} | {name[:3]: name for name in MONTHS} | {"sept": "september"}

UNITS = {
    word: value
    for value, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
        ]
    )
}
TENS = {
    word: 10 * value
    for value, word in enumerate(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], 2)
}
SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
ORDINALS = {
    word: value
    for value, word in enumerate(
        [
            "first",
            "second",
            "third",
            "fourth",
            "fifth",
            "sixth",
            "seventh",
            "eighth",
            "ninth",
            "tenth",
            "eleventh",
            "twelfth",
            "thirteenth",
            "fourteenth",
            "fifteenth",
            "sixteenth",
            "seventeenth",
            "eighteenth",
            "nineteenth",
            "twentieth",
        ],
        1,
    )
}
ROMAN = {"II": 2, "III": 3, "IV": 4, "VI": 6, "VII": 7, "VIII": 8, "IX": 9, "XI": 11, "XII": 12, "XIX": 19, "XXX": 30}

# A country and its people are one fact to this grader: "Germany attacked" and "the Germans attacked".
_PEOPLES = """
german germany germans | soviet soviets ussr | russian russia russians | finnish finland finn finns |
british britain briton britons uk | french france | italian italy italians | japanese japan | polish poland poles |
american america americans usa | norwegian norway norwegians | dutch netherlands holland | belgian belgium belgians |
greek greece greeks | hungarian hungary hungarians | romanian romania romanians | bulgarian bulgaria bulgarians |
swedish sweden swedes | danish denmark danes | chinese china | canadian canada canadians |
australian australia australians | spanish spain spaniards | turkish turkey turks | yugoslav yugoslavia yugoslavs |
czech czechoslovakia czechs | egyptian egypt egyptians | libyan libya | tunisian tunisia | indian india indians |
philippine philippines filipino filipinos | estonian estonia | latvian latvia | lithuanian lithuania |
ukrainian ukraine ukrainians | austrian austria austrians | swiss switzerland
"""
PEOPLE_OF = {word: group.split()[0] for group in _PEOPLES.split("|") for word in group.split()}
