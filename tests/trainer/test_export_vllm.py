"""A real vLLM server serves an export: the same prompt, and greedily the same text as ours. One engine for the file."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch

from foundation.chat_client import ChatClient
from foundation.engine import EngineConfig, engine, has_vllm
from foundation.records import ChatReply, ChatRequest, Sampling, messages_of
from foundation.workspace import Workspace
from tests.support.tiny_qwen import TINY_ARGUMENTS
from tests.trainer.saved_run import QWEN3, random_model, saved_run
from trainer.answer import Student, load_student
from trainer.export.run import Wanted, export
from trainer.generate import generate

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.xdist_group("vllm"),
    pytest.mark.skipif(not has_vllm(), reason="vLLM is not installed (make setup says why)"),
    pytest.mark.timeout(600),
]
# Heads of 32: the CPU engine refuses smaller ones.
CONFIG = QWEN3.model_copy(update={"width": 128, "ffn": 160, "context": 256})
QUESTIONS = (
    "Who won at Stalingrad?",
    "When? In February 1943?",
    "été 北京 🙂",
    "two\nlines",
    "Why did the Red Army win?",
)
TOKENS = 40


def ours(student: Student, question: str) -> tuple[str, int]:
    """The greedy answer, and the tokens of its prompt."""
    prompt = student.prompt(question)
    tokens = [token for _, token in generate(student.model, [prompt], limit=TOKENS, stop=student.stop)]
    return str(student.tokenizer.decode(tokens, skip_special_tokens=True)), len(prompt)


def whole(text: str) -> str:
    """Without what the last token leaves unfinished, which a server withholds."""
    return text.strip().rstrip("\N{REPLACEMENT CHARACTER}")


async def asked(client: ChatClient, temperature: float) -> dict[str, ChatReply]:
    requests = [
        ChatRequest(
            id=question,
            messages=messages_of([("user", question)]),
            sampling=Sampling(temperature=temperature, top_p=1.0, max_tokens=TOKENS),
            seed=1,
        )
        for question in QUESTIONS
    ]
    return {reply.id: reply async for reply in client.complete(requests)}


@pytest.mark.slow
def test_vllm_serves_it_and_says_what_ours_says(workspace: Workspace, tmp_path: Path) -> None:
    saved_run(workspace, CONFIG, model=random_model(CONFIG, seed=1))
    folder, made = export(workspace, Wanted(run="main"))
    assert made.layout == "qwen3"
    student = load_student(workspace, "main", torch.device("cpu"))
    config = EngineConfig(
        str(folder), "a test", context=CONFIG.context, arguments=(*TINY_ARGUMENTS, "--dtype", "float32")
    )
    with engine(config, tmp_path / "vllm.log") as server:
        replies = asyncio.run(asked(ChatClient(server.base_url, server.model, server.api_key), 0.0))
    assert replies.keys() == set(QUESTIONS)
    texts = set()
    for question, reply in replies.items():
        text, prompt = ours(student, question)
        assert reply.usage.prompt_tokens == prompt, "the chat template gives other tokens than training saw"
        assert whole(reply.text) == whole(text), question
        texts.add(text)
    assert len(texts) > 2
