"""A teacher whose replies are kept on this machine's disk until their unit is committed.

Guarantees: what a teacher was asked and answered before a crash, a drain or a failure is not asked again: each reply is
handed to the operating system before it is judged, so only what was in flight when a process died is paid for twice. A kept
reply answers the very same request alone: of the same teacher, item (and with it round and sample), phase and messages.
Errors and refusals are not kept. What cannot be read is asked again, and a disk that takes no more costs the memory, never the unit.
Two processes that run one unit at once write a file each. Cost: some 5 µs a reply, and 0.1 ms a unit to clear up.
Does not know: power cuts. Nothing is fsynced, so the last seconds before one may be asked again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import orjson

from foundation.ids import stable_id
from foundation.records import ChatReply, ChatRequest, Usage
from generator.teachers.base import Teacher, TeacherRequest

REPLIES = "replies"  # the folder in a workspace's cache/; in it one for each unit that is at work
PAID = ("stop", "length")  # how a reply ends that cost something


class KeptTeacher:
    """`teacher` for one attempt at one unit; `folder` is that unit's own."""

    def __init__(self, teacher: Teacher, folder: Path, attempt: str) -> None:
        self.teacher, self.name = teacher, teacher.name
        self.folder, self.attempt = folder, attempt
        self._known: dict[str, ChatReply] | None = None
        self._file: int | None = None

    async def complete(self, requests: Sequence[TeacherRequest]) -> AsyncIterator[ChatReply]:
        """What is kept at once, then the rest as it comes."""
        if self._known is None:
            self._known = _load(self.folder)
        if not self._known:
            keys, left = {request.chat.id: self._key(request.chat) for request in requests}, requests
        else:
            keys, left = {}, []
            for request in requests:
                key = self._key(request.chat)
                found = self._known.get(key)
                if found is not None:
                    yield found.model_copy(update={"id": request.chat.id, "kept": True})
                else:
                    keys[request.chat.id] = key
                    left.append(request)
        if not left:
            return
        async for reply in self.teacher.complete(left):
            if reply.finish in PAID and reply.id in keys:
                self._keep(keys[reply.id], reply)
            yield reply

    async def close(self) -> None:
        """Let go of the file and of the teacher's connections; what is kept stays until `forget`."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        await self.teacher.close()

    def _key(self, request: ChatRequest) -> str:
        """Its id says which item and phase, and with the item which prompt type, round and sample; a later phase is asked
        about what the one before answered, so the messages count too."""
        return stable_id(self.name, request.id, request.seed, *(message.content for message in request.messages))

    def _keep(self, key: str, reply: ChatReply) -> None:
        usage = reply.usage
        row = (key, reply.text, reply.finish, usage.prompt_tokens, usage.completion_tokens, usage.seconds, reply.detail)
        try:
            if self._file is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                path = self.folder / f"{self.attempt}.jsonl"
                self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            line = orjson.dumps(row) + b"\n"
            if os.write(self._file, line) < len(line):  # the disk took a part: the next line must not be joined to it
                os.write(self._file, b"\n")
        except (OSError, TypeError):  # no room; or half a surrogate pair, which no file can hold
            return


def forget(folder: Path) -> None:
    """Clear up after a unit that is committed. What another attempt still writes there goes too: it is not needed."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder, ignore_errors=True)


def _load(folder: Path) -> dict[str, ChatReply]:
    """All that attempts before this one kept. A line that was cut, by a kill or a full disk, is passed over."""
    found: dict[str, ChatReply] = {}
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return found
    for name in names:
        with contextlib.suppress(OSError):
            for line in (folder / name).read_bytes().splitlines():
                with contextlib.suppress(ValueError, TypeError):  # pydantic's errors are ValueErrors
                    key, text, finish, asked, written, seconds, detail = orjson.loads(line)
                    usage = Usage(prompt_tokens=asked, completion_tokens=written, seconds=seconds)
                    found[key] = ChatReply(id=key, text=text, finish=finish, usage=usage, detail=detail)
    return found
