"""What a grader says of one answer, and what a grader is.

Guarantees: this is the whole surface between a run and its graders. Cost: none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from foundation.records import Answer


@dataclass(frozen=True, slots=True)
class Outcome:
    """`reason` is one word for counting; `explanation` is for people."""

    verdict: Literal["PASS", "FAIL", "UNSCORED"]
    reason: str = ""
    explanation: str = ""


class Grader(Protocol):
    """`name` stands in every verdict; `about` tells people what it is; `identity` is of all that can change its word.

    `floors`: the kinds of canary that it says it can judge, each with the share it must judge rightly to be believed.
    """

    @property
    def name(self) -> str: ...
    @property
    def about(self) -> str: ...
    @property
    def identity(self) -> str: ...
    @property
    def floors(self) -> Mapping[str, float]: ...

    def ready(self) -> AbstractContextManager[None]:
        """Whatever must run while it grades. Entered only if there is something to grade."""
        ...

    def grade(self, requests: Sequence[tuple[Answer, int]]) -> AsyncIterator[tuple[int, Outcome]]:
        """One outcome for each request, with its index, in the order they are ready.

        A request is an answer and the number of the vote, from 0: a grader that draws lots draws others for each vote.
        """
        ...
