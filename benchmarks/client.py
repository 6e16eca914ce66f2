"""What the chat client costs a request, beside a bare aiohttp loop that sends the same bytes and parses the replies.

Both run with uvloop against the instant server of `_server.py`, in turns, in this process; the figure is CPU time of the client
alone, which a busy machine blurs less than wall time. `python -m benchmarks.client [--requests 20000] [--in-flight 64]`
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import orjson
import uvloop

from benchmarks._server import Server
from foundation.chat_client import ChatClient
from foundation.records import ChatRequest, Sampling, messages_of

SYSTEM = "Write one question that the passage answers. " * 25
PASSAGE = "The army went along the river towards the town, and its commander wrote home of the winter. " * 16
SCHEMA = {
    "type": "object",
    "properties": {"question": {"type": "string", "minLength": 20, "maxLength": 300}},
    "required": ["question"],
    "additionalProperties": False,
}


def requests(count: int) -> list[ChatRequest]:
    sampling = Sampling()
    texts = (f"Subject: it\n<passage>\n{n} {PASSAGE}\n</passage>" for n in range(count))
    return [
        ChatRequest(
            id=str(n),
            messages=messages_of([("system", SYSTEM), ("user", text)]),
            schema_=SCHEMA,
            sampling=sampling,
            seed=n,
        )
        for n, text in enumerate(texts)
    ]


async def ours(client: ChatClient, asked: list[ChatRequest]) -> None:
    replies = [reply async for reply in client.complete(asked)]
    assert len(replies) == len(asked) and all(reply.finish == "stop" for reply in replies)


async def bare(url: str, bodies: list[bytes], in_flight: int) -> None:
    waiting, replies = iter(bodies), []
    connector, headers = aiohttp.TCPConnector(limit=in_flight), {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def pull() -> None:
            for body in waiting:
                async with session.post(url, data=body) as response:
                    replies.append(orjson.loads(await response.read())["choices"][0]["message"]["content"])

        await asyncio.gather(*(pull() for _ in range(in_flight)))
    assert len(replies) == len(bodies)


def cost(run: Callable[[], Coroutine[Any, Any, None]], count: int) -> float:
    """Microseconds of this process's CPU a request."""
    began = time.process_time()
    uvloop.run(run())
    return (time.process_time() - began) / count * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args()
    asked = requests(given.requests)
    with Server() as server:
        client = ChatClient(server.url, "m", concurrency=given.in_flight)
        fixed = client.fixed(asked[0].sampling, asked[0].schema_)
        bodies = [
            orjson.dumps({"messages": [one.model_dump() for one in request.messages], "seed": request.seed, **fixed})
            for request in asked
        ]
        url = f"{server.url}/chat/completions"
        rows = [
            (
                cost(lambda: ours(client, asked), len(asked)),
                cost(lambda: bare(url, bodies, given.in_flight), len(asked)),
            )
            for _ in range(given.times)
        ]
    best = [min(column) for column in zip(*rows, strict=True)]
    print(json.dumps({"ours_us": round(best[0]), "aiohttp_us": round(best[1]), "ratio": round(best[0] / best[1], 2)}))


if __name__ == "__main__":
    main()
