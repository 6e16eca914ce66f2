"""Word lists of the rules teacher, and the one piece of English grammar it needs: from a past tense to its verb.

Guarantees: `base_form` answers only where the spelling decides; None means "use a phrase that needs no verb form".
Knows no names: no lists of people or places, only of words that tell one kind of name from another.
Cost: set look-ups and two regular expressions, about 1 µs a word.
"""

from __future__ import annotations

import re

MONTHS = "January February March April May June July August September October November December".split()

WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
CALENDAR = frozenset((*MONTHS, *WEEKDAYS))

TITLES = tuple(
    """Air Chief Marshal|Air Vice Marshal|Air Marshal|Air Commodore|Grand Admiral|Fleet Admiral|Vice Admiral|Rear Admiral|
    Field Marshal|Lieutenant General|Lieutenant Colonel|Lieutenant Commander|Major General|Brigadier General|Colonel General|
    Wing Commander|Squadron Leader|Group Captain|Flight Lieutenant|Prime Minister|Foreign Minister|Foreign Secretary|
    Vice President|Flight Sergeant|Gunnery Sergeant|Able Seaman|Mess Attendant|SS General|General|Admiral|Marshal|Colonel|Major|Captain|Lieutenant|Brigadier|Commodore|Commander|
    Sergeant|Corporal|Private|Ensign|Reichsmarschall|Generaloberst|President|Premier|Chancellor|Minister|Senator|Representative|
    Ambassador|Governor|Secretary|Emperor|Empress|King|Queen|Prince|Princess|Pope|Archbishop|Bishop|Cardinal|Sir|Lord|Lady|
    Dame|Dr|Doctor|Professor|Mr|Mrs|Miss|Ms|Saint|Father|Sister""".replace("\n", "")
    .replace("  ", "")
    .split("|")
)

# A run of capitalised words that holds one of these is not a person's name.
NOT_A_PERSON = frozenset(
    """Army Armies Navy Force Forces Fleet Corps Group Division Brigade Regiment Battalion Squadron Command Wing Union States
    Kingdom Republic Empire Reich Commonwealth Sea Ocean Island Islands River Lake Harbor Harbour Port Channel Cape Mount
    Mountains Street Hill House Commons Congress Parliament Senate Act War Battle Operation Front Line Day Night Red Royal North
    South East West Northern Southern Eastern Western Central New Great Soviet Party Ministry Office Committee Council
    Conference Plan Directive Axis Allies Allied Bridge Beach Road Star Cross Prize Peninsula Valley Desert Pass Bay Gulf Strait
    Straits Coast Airfield Airport Field Park Station School University College Museum Company Corporation Works Factory Project
    Treaty Pact Agreement Declaration Charter Medal Order Legion Guard Guards Police Service Intelligence Agency Bureau Board
    Department Court Church Cathedral Palace Castle Fort Camp Wall Tower Square City Town Village Province District Region
    Atlantic Pacific Mediterranean Baltic Arctic Africa Europe Asia America World League Nations Organization Organisation
    Association Society Institute Academy Foundation Movement Resistance Uprising Revolution Campaign Offensive Expedition
    Convoy Task Panzer Luftwaffe Wehrmacht Kriegsmarine Government Administration Network System Programme Program Code Railway
    Pearl San Los Saint St Monte El Port Los Tank Tanks Submarine Aircraft Carrier Battleship Cruiser Destroyer Infantry Marine
    Marines Artillery Airborne Armoured Armored Mechanised Landings Landing Invasion Siege Hour Hours Crisis Winter Summer
    Spring Autumn Commission Energy Purple Enigma Big Mark Type Class Foreign National Imperial Federal Home Chief Staff Headquarters Secret
    Books Press Records Publishers Publishing Magazine Journal Inc Ltd Band Club Team Airlines Studios Studio Pictures Productions
    Orchestra Festival Award Awards Series County Films Brothers Bank Trust Fund Stadium Language Languages Hotel Mountain Creek
    Falls Law Modern Early Late Ancient Old Classical Middle First Third International Religion Cup Games Open
    The Native Times Theory Development Theatre Theater Area Zone Sector Base Yard Arsenal Trial Trials Tribunal Line Gap Pocket Salient Ridge Point Head""".split()
)

NOT_A_PLACE = frozenset(
    """Army Armies Navy Force Forces Fleet Corps Group Division Brigade Regiment Battalion Squadron Command War Battle Operation
    Conference Plan Directive Axis Allies Party Ministry Office Committee Council Congress Parliament Senate Act Treaty Pact
    Agreement Charter Medal Order Cross Prize Luftwaffe Wehrmacht Kriegsmarine Government Administration Staff Chief Chiefs Commander Hurricane
    Spitfire Convoy Task Panzer Luftflotte Winter Summer Spring Autumn Christmas Easter Sunday Monday Tuesday Wednesday
    Thursday Friday Saturday English French German Russian Japanese Italian Polish Enigma God Jews Nazi Communist""".split()
)

# Too wide to be a likely wrong answer for a smaller place.
WIDE = frozenset(
    (
        "Europe",
        "Asia",
        "Africa",
        "America",
        "North Africa",
        "Atlantic",
        "Pacific",
        "Mediterranean",
        "United States",
        "Soviet Union",
    )
)

# Heads that take "of" within one name.
OF_HEADS = frozenset(
    """Battle Medal Siege House Bay Gulf Isle Strait Straits Bank University Treaty League Ministry Office Department Board Fall Raid
    Invasion Conference Duke Prince Sea Army Council Order Legion Declaration Act Port Cape Church Secretary Minister""".split()
)

AUXILIARIES = frozenset("was were had could would should might must did can is are has have will may".split())

FUNCTION_WORDS = frozenset(
    """a an the and or but nor so yet of in on at by to from into onto over under with without within near after before during
    until since for against between among through across around along behind beyond above below off out up down as than that
    which who whom whose where when while although though because if then there here not also only both either neither each every
    all some many most more few several about alone together again later earlier soon still even just already once twice first
    next last his her its their he she it they we you i him them this these those such other another one two three four five six
    seven eight nine ten itself himself themselves herself""".split()
)

# Words that open a sentence with a capital and are no names.
OPENERS = frozenset(
    """the a an in on at by to from into over under with without within near after before during until since for against between
    among through across around along behind beyond above as both either neither each every all some many most more few several
    about nearly almost only no not one two three four five six seven eight nine ten twelve twenty hundreds thousands dozens
    although though because if when while where then there here however meanwhile later soon eventually finally together once
    another other others such despite instead even early late his her its their he she it they these this those that heavy
    large small new several thick strong fierce bitter poor bad good more less further much today towards toward throughout
    roughly perhaps what who unlike like""".split()
)

PRONOUN_START = re.compile(
    r"(?:He|She|It|They|This|These|That|Those|His|Her|Its|Their|Such|There|Here|Then|However|Meanwhile|Instead|Another|Others?|"
    r"Both|Neither|Either|Some|Many|Most|Few|All|One|Two|Three|Four|Five|Also|But|And|So|Yet|Later|Soon|Eventually|Finally)\b"
)
# What points at a neighbouring sentence.
POINTS_AWAY = re.compile(
    r"\b(?:this|these|those|such|there|then|here|the same|the (?:next|following|previous|former|latter|other|others)|"
    r"that (?:day|night|month|week|year|spring|summer|autumn|winter|time|point|evening|morning|afternoon)|"
    r"(?:of|in|at|on|to|from|with|over|after|before|for|by|during|signed|sent|wrote|made) that (?!(?:the|a|an|he|she|it|they|his|no) )"
    r"(?=[a-z])|that (?:letter|plan|order|battle|war|attack|ship|unit|city|town|island|force|army|report|message|code|place)\b|"
    r"(?:later|earlier|meanwhile|also|instead|however|therefore|afterwards|again|too|in turn|in return|as well))\b"
)

# Past tenses that no rule gives.
_STRONG = """
    ate:eat beat:beat became:become began:begin blew:blow burst:burst cast:cast clung:cling crept:creep drank:drink
    hung:hang hurt:hurt shed:shed shut:shut stuck:stick swung:swing thrust:thrust bore:bear bought:buy broke:break brought:bring built:build came:come
    caught:catch chose:choose cost:cost cut:cut dealt:deal drew:draw drove:drive dug:dig fed:feed fell:fall
    felt:feel fled:flee flew:fly forbade:forbid foresaw:foresee forgot:forget fought:fight found:find froze:freeze
    gave:give got:get grew:grow heard:hear held:hold hid:hide hit:hit kept:keep knew:know laid:lay lay:lie
    left:leave lent:lend let:let lit:light lost:lose made:make meant:mean met:meet mistook:mistake overcame:overcome
    overran:overrun oversaw:oversee overthrew:overthrow overtook:overtake paid:pay put:put quit:quit ran:run
    rang:ring rebuilt:rebuild rode:ride rose:rise said:say sang:sing sank:sink sat:sit saw:see sent:send set:set
    shook:shake shot:shoot shrank:shrink slept:sleep sold:sell sought:seek spent:spend split:split spoke:speak
    spread:spread stole:steal stood:stand struck:strike swept:sweep swore:swear taught:teach thought:think
    threw:throw told:tell took:take tore:tear understood:understand undertook:undertake upheld:uphold went:go
    leapt:leap wept:weep bit:bite bred:breed knelt:kneel slew:slay slid:slide strove:strive woke:wake
    retook:retake redid:redo undid:undo mowed:mow
    withdrew:withdraw withheld:withhold withstood:withstand won:win wore:wear wrote:write
"""

# Past tenses in -ed whose verb the rules below would spell wrongly, or not at all.
_SPELLED = """
    added:add agreed:agree anchored:anchor attributed:attribute authored:author belonged:belong benefited:benefit
    boycotted:boycott cancelled:cancel ceded:cede cited:cite colored:color commuted:commute compelled:compel competed:compete
    completed:complete computed:compute conceded:concede constituted:constitute contributed:contribute
    controlled:control created:create credited:credit deleted:delete depleted:deplete deposited:deposit
    developed:develop died:die diluted:dilute disagreed:disagree disputed:dispute distributed:distribute edited:edit
    encircled:encircle enveloped:envelop executed:execute exhibited:exhibit expelled:expel favored:favor
    favoured:favor focused:focus freed:free fuelled:fuel galloped:gallop guaranteed:guarantee hanged:hang
    honored:honor ignited:ignite inhabited:inhabit inherited:inherit instituted:institute interfered:interfere
    invited:invite labelled:label led:lead lied:lie limited:limit merited:merit modelled:model monitored:monitor
    owed:owe patrolled:patrol phoned:phone piloted:pilot posited:posit postponed:postpone preceded:precede
    profited:profit prohibited:prohibit propelled:propel prosecuted:prosecute rebelled:rebel receded:recede
    recreated:recreate refuted:refute repelled:repel signalled:signal sortied:sortie sponsored:sponsor
    substituted:substitute superseded:supersede telephoned:telephone tied:tie torpedoed:torpedo totaled:total
    travelled:travel united:unite used:use vetoed:veto visited:visit welcomed:welcome
"""
IRREGULAR = dict(pair.split(":") for pair in (_STRONG + _SPELLED).split())

# Participles that are not the past tense too.
PARTICIPLES = frozenset(
    """been begun blown born borne broken chosen come done drawn driven eaten fallen flown forbidden foreseen forgotten frozen
    given gone grown hidden known lain mistaken overrun overseen overtaken overthrown ridden risen run rung sung sunk seen shaken
    shown shrunk sown spoken stolen sworn swum taken thrown torn undertaken woken withdrawn withheld worn woven written become
    beaten bitten overcome proven rewritten""".split()
)
# What shows that a noun follows.
DETERMINED = re.compile(
    r"(?:an?|the|no|about|his|her|its|their|few|many|more|most|some|several|little|nearly|only|\d[\d,]*)\b"
)

_NO_E = re.compile(
    r"(?:[eo]at|[aeo][aeiou]t|uit|air|[aeo]ad|e[ae]d|o[ai]d|ai[dlmn]|ea[dklmnrpt]|oa[dnrt]|oo[dklmnpt]|ou[dnrt]|aul|ee[dklmnprt]|oi[ln]|"
    r"ow|aw|ew|ay|ey|oy|er|et|en|on|el|ck|sh|ch|ss|x|nd|nt|rt|st|ct|pt|ft|lt|rd|ld|rk|lk|sk|nk|rm|lm|rn|wn|gn|rl|ll|lp|mp|mn|"
    r"ff|tt|zz|th|gh|ph|rb|mb|rp|um?f)$"
)
_WITH_E = re.compile(
    r"(?:[aeiou][vz]|[rlv]v|[nru]?c|[^s]s|[iou]?u|[^eo]at|[rdl]g|ng|[aei]g|[iuao]r|[iau]d|od|am|um|im|ap|yp|ip|ib|ob|ub|[btpdgzfk]l|"
    r"il|ul|ok|ak|ik|op|ud|ot|un|ur|ir|y?z|in)$"
)
_DOUBLED = re.compile(r"([bgmnprt])\1$")
_KEEP_DOUBLED = frozenset("err purr butt".split())


def base_form(past: str) -> str | None:
    """The verb of a past tense ("issued" -> "issue"), or None where its spelling does not decide."""
    known = IRREGULAR.get(past)
    if known is not None:
        return known
    if not past.endswith("ed") or len(past) < 5:
        return None
    if past.endswith("ied"):
        return past[:-3] + "y"
    stem = past[:-2]
    if _DOUBLED.search(stem) and stem not in _KEEP_DOUBLED:
        return stem[:-1]
    if _NO_E.search(stem):
        return stem
    if _WITH_E.search(stem):
        return stem + "e"
    return None


def is_past(word: str) -> bool:
    """Whether a word can be a past tense; one with a capital ("United") is part of a name."""
    return word in IRREGULAR or (word.endswith("ed") and len(word) > 4 and word not in NOT_PAST and word[0].islower())


def is_participle(word: str) -> bool:
    """Whether a word can follow "was" or "had" as a participle."""
    return is_past(word) or word in PARTICIPLES


NOT_PAST = frozenset(
    "hundred sacred naked wicked indeed speed breed creed united armed combined wounded so-called".split()
)
