"""Small judgings made by hand: files of answers, verdicts and a summary, as a run of the judge leaves them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foundation.records import Answer, Verdict
from tests.judge.cases import make_answer, make_item


def answers_of(count: int, text: str = "It is {n}.", **changes: str) -> list[Answer]:
    """`count` answers to as many questions; the splits and families take turns."""
    return [
        make_answer(
            make_item(
                f"What is number {n}?",
                f"Number {n} is {n}.",
                **{
                    "id": f"i{n}",
                    "article_id": f"a{n % 7}",
                    "split": ("phrasing", "unseen")[n % 2],
                    "family": ("wh", "truth")[n // 2 % 2],
                    **changes,
                },
            ),
            text.format(n=n),
        )
        for n in range(count)
    ]


def write_answers(path: Path, answers: Sequence[Answer]) -> Path:
    path.write_text("".join(answer.model_dump_json() + "\n" for answer in answers), "utf-8")
    return path


def write_judging(path: Path, answers: Path, words: Sequence[str], grader: str = "rules", **summary: Any) -> Path:
    """Verdicts `words` (P, F, U) on the file of answers, and a summary with `summary` in it."""
    lines = answers.read_bytes().splitlines()
    names = {"P": "PASS", "F": "FAIL", "U": "UNSCORED"}
    verdicts = [
        Verdict(
            item_id=Answer.model_validate_json(line).item.id,
            verdict=names[word],
            reason={"P": "", "F": "missing", "U": "parse"}[word],
            explanation=f"{grader} thinks so",
            grader=grader,
            fingerprint=f"{grader}-{n}",
        )
        for n, (line, word) in enumerate(zip(lines, words, strict=True))
    ]
    path.write_text("".join(verdict.model_dump_json() + "\n" for verdict in verdicts), "utf-8")
    told = {"file": str(answers), "sha256": hashlib.sha256(answers.read_bytes()).hexdigest(), "rows": len(lines)}
    document = {"grader": {"name": grader, "about": "made by hand"}, "fingerprint": f"of-{grader}", "answers": told}
    path.with_name(f"{path.name}.summary.json").write_text(json.dumps(document | summary), "utf-8")
    return path
