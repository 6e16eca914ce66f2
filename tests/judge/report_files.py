"""For the tests of the judge's report: files of a judging made by hand, and a reader of the page."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foundation.records import Answer, Verdict
from judge.canaries import Judged, assess
from judge.files import Files
from judge.summary import summarise
from tests.generator.report_workspace import Page as BarePage
from tests.judge.cases import CASES, WINTER, make_answer, make_item

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SPLITS = ("train", "phrasing", "unseen")
SHARES = {"train": 3, "phrasing": 2, "unseen": 1}  # of four answers, how many pass
HOSTILE = (
    "</script></style></title><script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">"
    "<svg onload=\"document.title='ran'\"></svg>'\"&amp;<!--]]>\u2028"
)
FLOORS = {"reference": 0.9, "other-row": 0.9}


def made_answers(count: int = 72, hostile: str = "", checkpoint: str = "run/step-10") -> list[Answer]:
    """Answers to questions of three splits and twelve articles; `hostile` stands in every text of theirs."""
    answers = []
    for number in range(count):
        case, split = CASES[number % len(CASES)], SPLITS[number % 3]
        kind = ("wh/who", "truth/true", "wh/when", "choice/four")[number // 3 % 4]
        item = make_item(
            f"{number}: {case.question}{hostile}",
            f"{case.reference}{hostile}",
            id=f"i{number}{hostile}",
            split=split,
            family=kind.partition("/")[0] + hostile,
            prompt_type=kind + hostile,
            article_id=f"a{number % 12}{hostile}",
            title=f"Battle {number % 12}{hostile}",
            snippet=f"{number % 12}: {WINTER}{hostile}",
        )
        answer = make_answer(item, f"{case.answer}{hostile}", "length" if number % 9 == 0 else "end")
        answers.append(answer.model_copy(update={"checkpoint": checkpoint}))
    return answers


def made_verdicts(answers: Sequence[Answer], hostile: str = "", unscored: int = 0, better: int = 0) -> list[Verdict]:
    """Verdicts with a known share of PASS in each split. The first `unscored` are; `better` of four more pass."""
    verdicts = []
    for number, answer in enumerate(answers):
        passes = number // 3 % 4 < SHARES[answer.item.split] + better
        verdict = "UNSCORED" if number < unscored else "PASS" if passes else "FAIL"
        reason = {"UNSCORED": "parse", "PASS": "", "FAIL": ("missing", "contradicted")[number % 2]}[verdict]
        verdicts.append(_verdict(answer, verdict, reason, hostile, number))
    return verdicts


def _verdict(answer: Answer, verdict: str, reason: str, hostile: str, number: int) -> Verdict:
    votes = (verdict, verdict, "PASS") if number % 10 == 1 else ()
    return Verdict(
        item_id=answer.item.id,
        verdict=verdict,  # type: ignore[arg-type]
        reason=reason + hostile if reason else "",
        explanation=f"Because of {number}.{hostile}",
        grader=f"tester{hostile}",
        fingerprint=f"f{number}",
        votes=votes,  # type: ignore[arg-type]
    )


def made_canaries(answers: Sequence[Answer], wrong: int = 0, hostile: str = "") -> list[Judged]:
    """Twelve references and twelve other rows; the judge gets `wrong` of the latter wrong."""
    judged = []
    for number, answer in enumerate(answers[:12]):
        other = answers[-1 - number].item.reference
        said = "PASS" if number < wrong else "FAIL"
        for kind, expected, text, verdict in (
            ("reference", "PASS", answer.item.reference, "PASS"),
            ("other-row", "FAIL", other, said),
        ):
            canary = answer.model_copy(update={"text": text})
            row = _verdict(canary, verdict, "", hostile, number)
            judged.append(Judged(kind=kind, expected=expected, answer=canary, verdict=row))  # type: ignore[arg-type]
    return judged


def write_judging(
    out: Path,
    answers: Sequence[Answer],
    verdicts: Sequence[Verdict],
    *,
    judged: Sequence[Judged] | None = None,
    floors: Mapping[str, float] = FLOORS,
    hostile: str = "",
    changes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The files that `judge run` leaves, beside `out`; its summary comes back. `changes` replace parts of that."""
    source = out.with_name(f"{out.name}.answers")
    source.write_text("".join(answer.model_dump_json() + "\n" for answer in answers), encoding="utf-8")
    judged = made_canaries(answers, hostile=hostile) if judged is None else judged
    failed = [_verdict(answer, "FAIL", "missing", hostile, number) for number, answer in enumerate(answers)]
    summary = {
        **summarise(answers, verdicts, failed, assess(judged, floors)),
        "grader": {"name": f"tester{hostile}", "about": f"made by hand{hostile}"},
        "fingerprint": "f00",
        "answers": {"file": str(source), "sha256": hashlib.sha256(source.read_bytes()).hexdigest(), "rows": len(answers)},
        "graded": 12,
        "reused": 3,
        "seconds": 4.5,
        **(changes or {}),
    }  # fmt: skip
    files = Files(out)
    for path, rows in ((files.out, verdicts), (files.shuffled, failed), (files.canaries, judged)):
        path.write_text("".join(row.model_dump_json() + "\n" for row in rows), encoding="utf-8")
    files.summary.write_text(json.dumps(summary), encoding="utf-8")
    return summary


class Page(BarePage):
    """The page as parsed: also its cards (attributes and text), its answers, and the cells of each section's tables."""

    def __init__(self, text: str) -> None:
        self.cards: list[dict[str, str]] = []
        self.said: list[dict[str, str]] = []
        self.lines: dict[str, list[list[str]]] = {}
        self._texts: list[list[str]] = []
        self._cell = False
        super().__init__(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        values = {name: value or "" for name, value in attrs}
        classes = values.get("class", "").split()
        if tag == "article":
            self._texts.append([])
            self.cards += [values] if "q" in classes else []
        if "said" in classes:
            self.said.append({**values, "shown": str("hidden" not in self.cards[-1])})
        if tag == "tr":
            self.lines.setdefault(self._section, []).append([])
        if tag in ("td", "th"):
            self.lines[self._section][-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        super().handle_endtag(tag)
        if tag == "article":
            text = "".join(self._texts.pop())
            if self._section == "rows":
                self.cards[-1]["text"] = text
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data: str) -> None:
        super().handle_data(data)
        for text in self._texts:
            text.append(data)
        if self._cell:
            self.lines[self._section][-1][-1] += data

    def line(self, section: str, name: str) -> list[str]:
        """The cells of the line that begins with `name`."""
        return next(cells for cells in self.lines[section] if cells and cells[0].startswith(name))

    @property
    def visible(self) -> list[dict[str, str]]:
        return [card for card in self.cards if "hidden" not in card]


def browse(page: str, folder: Path, hash_: str = "") -> str:
    """The document as a real browser has it after its scripts, and their timers of the first seconds, have run."""
    assert CHROMIUM is not None
    (folder / "page.html").write_text(page, encoding="utf-8")
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=3000",
    ]  # fmt: skip
    address = (folder / "page.html").as_uri() + hash_
    done = subprocess.run([CHROMIUM, *flags, "--dump-dom", address], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
