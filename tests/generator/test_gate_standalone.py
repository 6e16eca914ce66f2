"""What leans on a text that its reader cannot see, and what only sounds like it."""

from __future__ import annotations

import pytest

from generator.gates.standalone import check_standalone

LEANING = """\
According to the passage, who commanded the Sixth Army?
Who, according to the text, signed the surrender at Reims?
According to this article, how many ships were lost?
Based on the passage, why did the offensive stop?
Based on the information provided, when did Leningrad's siege end?
Based only on the context, which army came first?
What does the passage say about the winter of 1941?
What does the text mention about Yamamoto?
Does the article explain why Dunkirk was possible?
What is the passage mainly about?
The passage states that the bridge was destroyed on 7 March.
The text does not say how many men were lost.
The passage doesn't mention a date.
This is not mentioned in the passage.
Which generals are mentioned in the paragraph?
Which generals are mentioned in the given text?
How is Rommel described in the snippet?
What does the snippet tell us about Kursk?
What was the main cause of the defeat in this passage?
In this passage, who is said to have led the attack?
What event is described here?
As described here, the convoys were attacked at night.
As mentioned above, the attack began at dawn.
The battle mentioned above ended in February 1943.
Which of the above is correct?
None of the above.
From the information given, when did Italy surrender?
What does the author say about Churchill?
Why does the author mention Stalingrad?
What is the author's main point about the blockade?
The author argues that the landing came too late.
According to the author, what decided the battle?
Who is the narrator of this passage?
Which city is discussed in the article?
How does the given passage describe the siege of Malta?
Using the provided text, explain the retreat from Moscow.
Summarise the above passage in one sentence.
What happened in the passage?
Which dates appear in the text?
Explain the excerpt's claim as stated in the excerpt.
Read the passage and say who won.
The provided passage describes the fall of Singapore.
The facts provided above show that the plan failed.
Who led the raid, as stated in the text?
Tell me what this paragraph says of the Enigma machine.
What can be learned from the snippet about radar?
Text: who was Alan Turing?
Which ship is named in the passage above?
The article does not specify who gave the order.
What do we learn about Zhukov from the passage?
Can you answer from the text you were given?
You have just read about Midway; who lost four carriers?
""".splitlines()

HISTORY = """\
Who was the author of Mein Kampf?
The author Ernst Jünger served on the Western Front.
The author's family left Hiroshima in 1924.
According to the author Antony Beevor, the city was a trap for both armies.
The author wrote fourteen novels before the war.
How long did the passage of the Channel take?
The passage of the Channel took the first boats five hours.
The passage through the strait was mined in 1940.
Who guarded the passage between the two lakes?
What did the passage of the Neutrality Act change?
The Lend-Lease Act's passage through Congress took two months.
In the passage through the Surigao Strait four destroyers were lost.
Safe passage was given to the wounded.
What did the text of the treaty demand of Finland?
In the text of the Potsdam Declaration no emperor is named.
The text was broadcast to the Japanese people at noon.
What does Article 9 of the Japanese constitution renounce?
According to Article 5 an attack on one is an attack on all.
Under the Articles of Confederation, Congress could not tax.
The article in Pravda was signed by Stalin.
According to the article in The Times, the convoy had sailed at dawn.
The document was signed at Reims on 7 May 1945.
Who signed the document that ended the war in Europe?
Ciphered text was sent in groups of five letters.
Which textbooks were banned?
The bombers flew above the clouds and the fighters below them.
The above-water torpedo tubes were removed, and the guns above the deck stayed.
What information did the spies give to the Allies?
The information provided by the Polish mathematicians saved years of work.
Given the losses of 1941, why did Stalin refuse to retreat?
The guns provided by the United States arrived in Murmansk.
The story of the Dam Busters was told in a film.
He was given command of the Eighth Army.
Which source of oil did Germany depend on?
The section of the front between Orel and Belgorod bulged to the west.
Dozens of snippets of film from Iwo Jima were kept.
The writer George Orwell fought in Spain.
As was noted at the time, the ice was thick enough for lorries.
The order was given here in October 1942.
She was described here by Churchill as the bravest of them all.
Excerpts from the diary of Anne Frank were read aloud.
A paragraph of the secret protocol divided Poland.
Temperatures below the freezing point stopped the engines.
Nothing in the treaty says who owns the islands.
The facts of the Katyn massacre were denied for decades.
On the basis of Enigma messages the convoy was turned away.
""".splitlines()


@pytest.mark.parametrize("text", LEANING)
def test_what_leans_on_a_hidden_text_is_rejected(text: str) -> None:
    result = check_standalone(text, "question")

    assert (result.ok, result.gate, result.code, result.field) == (False, "standalone", "leaning", "question")


@pytest.mark.parametrize("text", HISTORY)
def test_history_with_the_same_words_passes(text: str) -> None:
    assert check_standalone(text).ok


@pytest.mark.parametrize("place", [0, 55, 300, 5000])
def test_a_phrase_is_found_wherever_it_stands_in_a_long_text(place: int) -> None:
    # given a long text that names articles and texts of its own, with one leaning phrase in it
    history = "The text of the treaty was read by the author of the first article of the constitution. " * 70
    text = f"{history[:place]} As the passage states, it failed. {history[place:]}"

    # when and then: the phrase is found, and without it the text passes
    assert check_standalone(text).reason == repr("the passage states")
    assert check_standalone(history).ok
