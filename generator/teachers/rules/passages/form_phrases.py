"""The phrases of questions whose form asks for more than names. Data, no code.

Places to fill, besides those of `phrases`: `{w}` when it was (" in June 1942"), or nothing. Of people: `{p}` and `{q}` their names,
`{l}` a last name, `{o}` another name. `{c}` a clause, turned, that follows "why". `{T}` the subject without its article, `{x}` names without
theirs, `{n}` a noun, `{y}` a year.
"""

from __future__ import annotations

HAPPENED = (
    "What happened with {k} {i}{w}?",
    "What happened {i}{w}, and where do {k} come into it?",
    "What happened {i}{w} that involved {k}?",
    "Could you say what happened {i}{w} with {k}?",
    "What happened {i}{w}, above all with {k}?",
    "Can you tell me what happened with {k} {i}{w}?",
    "What happened {i}{w}, as far as {k} are concerned?",
    "What exactly happened {i}{w}, and what had {k} to do with it?",
    "What happened {i}{w}, and what part did {k} have in that?",
    "Do you know what happened {i}{w}, for example with {k}?",
    "What happened around {k} {i}{w}?",
    "What happened {i}{w}, seen through {k}?",
)
WHO = (
    "Who was {p}, and what did {l} do {i}?",
    "Who was {p}, and what part did {l} play in {s}?",
    "Who was {p}, and what did {l} have to do with {o} {i}?",
    "Who was {p}, and what is known of {l} {i}?",
    "Who was {p}, and how does {l} come into {s}?",
    "Who was {p}, and why should an account of {t} name {l}?",
    "Who was {p}, and what links {l} with {o} {i}?",
    "Who was {p}, and what should one know about {l} and {o} {i}?",
    "Who was {p}, and what did {l} have to do with {t}?",
    "Who was {p}, and what was the place of {l} in {s}?",
)
WHO_TWO = (
    "Who were {p} and {q}, and what did they do {i}?",
    "Who were {p} and {q}, and what part did they play in {s}?",
    "Who were {p} and {q}, and what brought them into {s}?",
    "Who were {p} and {q}, and how do they come into {s}?",
    "Who were {p} and {q}, and what did they have to do with {o} {i}?",
    "Who were {p} and {q}, and why should an account of {t} name them both?",
    "Who were {p} and {q}, and what is known of them {i}?",
    "Who were {p} and {q}, and what did they have to do with {t}?",
    "Who were {p} and {q}, and what links them with {o} {i}?",
    "Who were {p} and {q}, and what was their place in {s}?",
)
WHO_TOPIC = (
    "Who was {t}, and how do {k} come into the story?",
    "Who was {t}, and what did {k} have to do with that life?",
    "Who was {t}, and where do {k} fit in?",
    "Who was {t}, and what is known of {k} in that connection?",
    "Who was {t}, and what links {k} with that name?",
    "Who was {t}, and how are {k} part of the story?",
    "Who was {t}, and what should one know about {k}?",
    "Who was {t}, and what can be said of {k}?",
)
WHEN_WHERE = (
    "When and where did {k} come into {s}?",
    "When and where did {k} play their part in {s}?",
    "Where and when were {k} involved in {s}?",
    "On what dates and in which places do we meet {k} in {s}?",
    "When, and at which places, did {k} have a part in {s}?",
    "Where and when did the events in {s} that involved {k} take place?",
    "When and where did the part of {s} that concerns {k} take place?",
    "At what times and in which places did {k} take part in {s}?",
    "When and where did the things happen that link {k} with {t}?",
    "Where did {k} come into {s}, and when was that?",
    "Where and when did {k} leave their mark on {s}?",
    "When did {k} come into {s}, and where was it?",
)
WHEN_WHERE_NEUTRAL = (
    "When and where did {k} come into {s}?",
    "Where and when did the events in {s} that involved {k} take place?",
    "When and where did the part of {s} that concerns {k} take place?",
    "When and where did the things happen that link {k} with {t}?",
    "On what dates and at which places do {k} come into {s}?",
    "Where did {k} come into {s}, and when was that?",
    "When did {k} come into {s}, and where was it?",
    "When and where did the events of {s} happen that {k} are part of?",
    "Which dates and places belong to the part of {s} with {k}?",
    "When did the things told of {k} in {s} happen, and where?",
    "When, and in which places, do we meet {k} in {s}?",
)
WHY = (
    "Why{c}?",
    "Why{c}, and what came of it?",
    "Why{c}, and how do {k} come into it?",
    "Why{c}, and what did {k} have to do with it?",
    "Why{c}, and where do {k} fit in?",
    "Why{c}, and what should one know about {k} in this connection?",
    "Why{c}, and what part did {k} have in it?",
    "Why{c}, and what else is known of {k}?",
    "Why{c}, and what is there to say about {k}?",
    "Why{c}, and what lies behind it?",
)
WHY_NAMES = (
    "Why did {k} matter {i}?",
    "Why were {k} important for {t}?",
    "Why did {k} have a place in {s}?",
    "Why were {k} of note {i}?",
    "Why did {k} count for something {i}?",
    "Why were {k} worth a mention in an account of {t}?",
    "Why were {k} significant {i}?",
    "Why were {k} part of {s}?",
    "Why did {k} come into {s} at all?",
    "Why were {k} connected with {t}?",
)
BARE = (
    "{k} in {s}",
    "The part of {k} in {s}",
    "{t}: {k}",
    "The place of {k} in {s}",
    "{k}: their part in {s}",
    "{k} {i}{w}",
    "{t}, in particular {k}",
    "An outline of {t} with {k}",
    "Notes on {k} {i}",
    "{t} and the part of {k}",
    "The facts about {k} {i}",
    "{t} with regard to {k}",
)
QUERY = (
    "how {k} fit into {T}",
    "what happened with {k} {T}",
    "history of {T} with {k}",
    "{k} role in {T}",
    "{k} in {T} explained",
    "{T} facts about {k}",
    "why {k} matter {T}",
    "connection of {k} with {T}",
    "what is known about {k} {T}",
    "{T} {y} what about {k}",
    "summary of {T} with {k}",
    "{k} part in {T}",
)
KEYWORDS = (
    "{T} {x} {n}",
    "{x} {T} {n}",
    "{T} {n} {x}",
    "{T} {y} {n} {x}",
    "{T} {x} {y}",
    "{T} {y} {x} {n}",
    "{y} {T} {x}",
    "{x} {T} {y}",
    "{x} {n} {T}",
    "{x} {T} {y} {n}",
)
KEYWORD_NOUNS = (
    "overview",
    "summary",
    "role",
    "background",
    "facts",
    "connection",
    "details",
    "significance",
    "main points",
    "context",
)
