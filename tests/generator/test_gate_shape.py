"""Texts out of shape, by code, and the proper texts that look a little like them."""

from __future__ import annotations

import pytest

from foundation.records import Snippet
from generator.catalogue import load_catalogue
from generator.gates.shape import LEAK_WORDS, Leak, check_shape

PROMPT = """You write questions for a reference work. The whole passage must be a fitting answer: ask about all of it,
not about one detail of it. A good question is "Who commanded the German Sixth Army at Stalingrad in 1942?" and no other.
Subject: {{ title }} of the work that is to be asked about in the question"""

BAD = [
    ("empty", ""),
    ("empty", " \n\t "),
    # loops
    ("looping", "very very very very very cold"),
    ("looping", "It was cold, cold, cold, cold, cold."),
    ("looping", "The army fell back and the army fell back and the army fell back and nothing else happened."),
    ("looping", "He said yes. He said yes. He said yes. He said yes."),
    ("looping", "on and on and on and on and on and on"),
    ("looping", "hahahahahahahahahahahahahahahahahahahahahahahaha"),
    ("looping", "What happened at Kursk? " + "A great battle of tanks was fought there in July. " * 3),
    ("looping", "the tanks of the front and " * 20),
    (
        "looping",
        "The ship sank in the night and the men were lost. " * 2
        + "Then came dawn. "
        + "The ship sank in the night and the men were lost. " * 2,
    ),
    # refusals
    ("refusal", "I'm sorry, but I cannot answer that."),
    ("refusal", "I’m sorry, but I can’t help with that request."),
    ("refusal", "Sorry, I am unable to write a question about this."),
    ("refusal", "I am sorry, I don't have enough information."),
    ("refusal", "I apologize, but I cannot provide a question."),
    ("refusal", "Unfortunately, I cannot create a question of this kind."),
    ("refusal", "I cannot assist you with the war crimes described."),
    ("refusal", "I can't help with that."),
    ("refusal", "I won't answer that question."),
    ("refusal", "As an AI, I do not hold opinions on generals."),
    ("refusal", "As an AI language model I have no access to dates."),
    ("refusal", "As a large language model, I was not there."),
    ("refusal", "The battle began in 1942, but my knowledge cutoff does not let me say more."),
    # thoughts
    ("thinking", "<think>The user asks about Midway.</think> Who won at Midway?"),
    ("thinking", "Who won at Midway?</think>"),
    ("thinking", "Let me think about which fact to use."),
    ("thinking", "Okay, the user wants a formal question."),
    ("thinking", "Okay, so let's see what this is about."),
    ("thinking", "Hmm, I need to find a date first."),
    ("thinking", "The user wants a question on Stalingrad."),
    ("thinking", "First, I need to identify the main event."),
    ("thinking", "We need to produce a JSON object with a question."),
    ("thinking", "Here is a formal question about Kursk: who won?"),
    ("thinking", "Sure, here's the question you asked for."),
    # chat tags
    ("chat-tags", "<|im_start|>assistant"),
    ("chat-tags", "Who won?<|im_end|>"),
    ("chat-tags", "Who won?<|endoftext|>"),
    ("chat-tags", "[INST] Who won? [/INST]"),
    ("chat-tags", "<<SYS>> You are helpful"),
    ("chat-tags", "Who won?</s>"),
    ("chat-tags", "<start_of_turn>user"),
    ("chat-tags", "assistant: Who won at Midway?"),
    ("chat-tags", "Who won?\nAssistant: The United States did."),
    ("chat-tags", "User: who won?"),
    ("chat-tags", "### Response: the United States"),
    # characters
    ("control-characters", "Who\x00 won?"),
    ("control-characters", "Who\x1b[31m won?"),
    ("control-characters", "Who won?\r\n"),
    ("control-characters", "Who\x85 won?"),
    ("control-characters", "Who\u200b won?"),
    ("control-characters", "\ufeffWho won?"),
    ("control-characters", "Who \u202eno\u202c won?"),
    ("control-characters", "Who \u2066won\u2069?"),
    ("control-characters", "Who w\ufffdn?"),
    ("control-characters", "Who \ue000 won?"),
    ("control-characters", "Who \U000f0000 won?"),
    ("control-characters", "Who \ufdd0 won?"),
    ("control-characters", "Who \ufffe won?"),
    ("control-characters", "Who \U0003ffff won?"),
    ("control-characters", "Who \ud800 won?"),
    ("control-characters", "Who \U000e0041 won?"),
    # JSON
    ("json-left", '{"question": "Who won at Midway?"}'),
    ("json-left", 'Who won? {"answer": "the United States"}'),
    ("json-left", "```json\nWho won?\n```"),
    ("json-left", '["Who won?", "Who lost?"]'),
    ("json-left", '{\\"question\\": \\"Who won?\\"}'),
    ("json-left", "The caf\\u00e9 was closed."),
    ("json-left", "Snow fell.\\nTanks froze."),
    # placeholders
    ("placeholder", "..."),
    ("placeholder", "…"),
    ("placeholder", "N/A"),
    ("placeholder", "string"),
    ("placeholder", "Who is [Name]?"),
    ("placeholder", "Kind regards, [Your Name]"),
    ("placeholder", "[Insert question here]"),
    ("placeholder", "When did [event 1] begin?"),
    ("placeholder", "Tell me about {{ title }}."),
    ("placeholder", "Tell me about {title}."),
    ("placeholder", "<question>"),
    # the prompt
    ("leaked-prompt", "The whole passage must be a fitting answer: ask about Kursk."),
    ("leaked-prompt", "Please note that THE WHOLE PASSAGE must be a fitting answer, and so on."),
    ("leaked-prompt", "Who won? </passage>"),
]

GOOD = """\
Who commanded the German Sixth Army at Stalingrad in 1942?
The prisoner said that he was sorry, but I cannot find that anyone believed him.
He was sorry that he could not help the men on the bridge.
I'm sorry, you are right: the battle began in 1942, not in 1941.
Sorry, I meant the Battle of Kursk, not Stalingrad.
I cannot help feeling that Halsey was wrong to go north; was he?
Unfortunately, the relief force could not reach the city.
Can't you tell me who led the Eighth Army?
Nothing is known about how many civilians were lost.
The users of Enigma believed that it could not be broken.
The user of the machine set three rotors by hand.
Let me know who sank the Bismarck, please.
Okay, but who gave the order at Midway?
ok so what happened at pearl harbor lol
First, the paratroopers had to take the bridge at Son.
Right, the left flank: who held it?
We need to know why Singapore fell. Why did it?
Thinking that the war was lost, he wrote to his wife.
His assistant was Gordon Welchman; the users were the navy.
The system of trenches ran for twenty miles.
Human: what did Nietzsche mean by "Human, All Too Human"?
Never, never, never give up, he told the boys of Harrow.
No, no, no, no: it was Nimitz.
It grew colder and colder and colder, and the engines stopped.
The 1st, the 2nd, the 3rd, the 4th and the 5th Divisions crossed the river in the night.
The Battle of Kursk, the Battle of Moscow, the Battle of Berlin, the Battle of France and the Battle of Britain.
Akagi was sunk. Kaga was sunk. Soryu was sunk. Hiryu was sunk. Yorktown was sunk. Mikuma was sunk.
| Ship | Year | Lost |\n| --- | --- | --- |\n| Akagi | 1927 | 1942 |\n| Kaga | 1928 | 1942 |\n| Soryu | 1937 | 1942 |
- Midway, 1942\n- Kursk, 1943\n- Leyte, 1944
The plan was [sic] "perfect", and [the general] agreed [...] with it.
The years 1939, 1940, 1941, 1942, 1943, 1944 and 1945 saw war in Europe.
General ____ led the attack on the city.
Łódź, Göring, “quotes” – 20 °C, ½, £5; naïve café; Zhukov’s plan… and then?
Who won? 🙂 The U.S. did ❤️
Bread is {1/2} of the ration: 125 < 250 and 250 > 125.
1942
Yes.
""".splitlines()


@pytest.mark.parametrize(("code", "text"), BAD)
def test_a_text_out_of_shape_is_rejected_by_its_code(code: str, text: str) -> None:
    result = check_shape(text, "question", Leak(PROMPT))

    assert (result.ok, result.gate, result.code, result.field) == (False, "shape", code, "question")


@pytest.mark.parametrize("text", GOOD)
def test_a_proper_text_passes(text: str) -> None:
    assert check_shape(text.replace("\\n", "\n"), "question", Leak(PROMPT)).ok


@pytest.mark.parametrize("before", range(7))
def test_a_leak_of_eight_words_is_found_wherever_it_begins_and_seven_are_none(before: int) -> None:
    words = "the whole passage must be a fitting answer".split()
    lead = " ".join("well now then there it is so".split()[:before])
    leak = Leak(PROMPT)

    assert len(words) == LEAK_WORDS
    assert leak.found(f"{lead} {' '.join(words)} indeed it does") == " ".join(words)
    assert not leak.found(f"{lead} {' '.join(words[1:])} indeed it does")
    assert not leak.found(f"{lead} {' '.join(words[:-1])} indeed it does")


def test_quoted_examples_and_variables_of_a_prompt_are_no_leak() -> None:
    leak = Leak(PROMPT)

    assert not leak.found("Who commanded the German Sixth Army at Stalingrad in 1942?")
    assert not leak.found("title of the work that")


def test_the_prompts_of_the_catalogue_do_not_stand_in_the_projects_corpus(wwii_snippets: list[Snippet]) -> None:
    leaks = [Leak(f"{one.system}\n{one.user}") for one in load_catalogue().values()]

    assert [snippet.title for snippet in wwii_snippets for leak in leaks if leak.found(snippet.text)] == []


def test_no_passage_of_the_projects_corpus_is_out_of_shape(wwii_snippets: list[Snippet]) -> None:
    assert [check_shape(snippet.text).reason for snippet in wwii_snippets if not check_shape(snippet.text).ok] == []


def test_a_long_text_that_turns_into_a_loop_is_rejected(wwii_snippets: list[Snippet]) -> None:
    good = " ".join(snippet.text for snippet in wwii_snippets[:12:2])

    assert check_shape(good).ok
    assert check_shape(good + " and then the men" * 3).code == "looping"
    assert check_shape(good[:3000] + " so it was" * 5 + good[3000:]).code == "looping"
