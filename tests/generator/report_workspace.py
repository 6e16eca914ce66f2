"""For the tests of the report: a small workspace built from the contracts, and a reader of the page."""

from __future__ import annotations

import json
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path

from foundation.corpus import Corpus, jsonl
from foundation.records import (
    Answer,
    Article,
    EvalItem,
    Record,
    Reject,
    Sampling,
    Snippet,
    Split,
    Unit,
    Usage,
    Verdict,
    item_id,
    messages_of,
)
from foundation.workspace import Workspace

TEACHER = "rules:rules@1"
HOSTILE = "<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">&amp;"
TYPES = ("cloze/entity", "contrastive/date", "qpt/formal")
STAGES = ("corpus", "plan", "generate", "train")


def png() -> bytes:
    """A real picture of 8 x 4 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\x20\x60\xa0" * 8 for _ in range(4))
    header = struct.pack(">IIBBBBB", 8, 4, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Built:
    """The workspace, and makers of what stands in it. `hostile` goes into every text there is."""

    def __init__(self, folder: Path, hostile: str = "") -> None:
        self.workspace = Workspace.init(folder)
        self.store = self.workspace.store
        self.hostile = hostile
        self.snippets: list[Snippet] = []
        self.block = ""

    def corpus(self) -> Built:
        """Two articles of two sources, four snippets each, in one block."""
        for number, source in enumerate((f"notes{self.hostile}", "enwiki")):
            title = f"Battle {number}{self.hostile}"
            texts = [
                f"The army of day {part} of battle {number} crossed the river. {self.hostile}" for part in range(4)
            ]
            id_ = Article.make_id(source, title)
            article = Article(id=id_, title=title, text=" ".join(texts), source=source, license=f"CC0{self.hostile}")
            self.store.put(f"corpus/articles/{number:06d}.jsonl", jsonl([article]))
            for index, text in enumerate(texts):
                snippet_id = Snippet.make_id(text)
                values = {"title": title, "source": source, "index": index, "sentences": (text,), "text": text}
                self.snippets.append(Snippet(id=snippet_id, article_id=id_, **values))
        name, data = Corpus(self.store).block_file(1, self.snippets)
        self.store.put(name, data)
        self.block = Corpus(self.store).blocks()[0]
        return self

    def plan(self) -> Built:
        """Three prompt types over the block in units of four, one of them planned twice."""
        lines = [
            {
                "prompt_type": one,
                "fingerprint": f"f-{one}",
                "unit": 4,
                "round": 0,
                "priority": "normal",
                "blocks": [self.block],
            }
            for one in (*TYPES, TYPES[0])
        ]
        self.store.put("plan/000001-a.jsonl", b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        self.store.put("plan/split.json", b'{"v":1,"key":"k","unseen":0.5,"phrasing":0.1}')
        self.store.put("plan/queue", b"0a0b0c0d")
        return self

    def unit(self, prompt_type: str, start: int) -> Unit:
        fingerprint = f"f-{prompt_type}"
        id_ = Unit.make_id(self.block, start, start + 4, fingerprint, 0)
        return Unit(
            id=id_, block=self.block, start=start, stop=start + 4, prompt_type=prompt_type, fingerprint=fingerprint
        )

    def shared(self, unit: Unit, snippet: Snippet, attempt: str) -> dict[str, object]:
        return {
            "item": item_id(snippet.id, unit.fingerprint, 0),
            "unit": unit.id,
            "prompt_type": unit.prompt_type,
            "fingerprint": unit.fingerprint,
            "family": unit.prompt_type.partition("/")[0],
            "split": "train",
            "snippet_id": snippet.id,
            "article_id": snippet.article_id,
            "teacher": TEACHER,
            "usage": Usage(prompt_tokens=100, completion_tokens=10, seconds=0.5),
            "round": 0,
            "attempt": attempt,
        }

    def record(self, unit: Unit, snippet: Snippet, ordering: str = "") -> Record:
        shared = self.shared(unit, snippet, "good")
        question = f"Who crossed the river on day {snippet.index}? {self.hostile}"
        return Record(
            id=Record.make_id(str(shared["item"]), "ask", ordering),
            messages=messages_of([("user", question), ("assistant", f"The army. {self.hostile}")]),
            supervised=(1,),
            title=snippet.title,
            source=snippet.source,
            sampling=Sampling(),
            seed=1,
            ordering=ordering,
            pair_id=str(shared["item"]) if ordering else "",
            **shared,  # type: ignore[arg-type]
        )

    def reject(
        self, unit: Unit, snippet: Snippet, attempt: str = "good", reason: str = "U+4E2D at character 7"
    ) -> Reject:
        shared = self.shared(unit, snippet, attempt)
        text = f'{{"question": "Who?", "answer": "中"}} {self.hostile}'
        id_ = f"{shared['item']}-{attempt}"
        return Reject(
            id=id_,
            gate="cjk",
            code=f"han{self.hostile}",
            reason=f"{reason}{self.hostile}",
            field="answer",
            text=text,
            **shared,  # type: ignore[arg-type]
        )

    def commit(self, unit: Unit, records: list[Record], rejects: list[Reject], attempt: str = "good") -> None:
        if rejects:
            self.store.put(unit.rejects(attempt), jsonl(rejects))
        self.store.put(unit.shard, jsonl(records))

    def generate(self) -> Built:
        """cloze: 4 accepted, then 4 rejected (an empty shard); contrastive: 2 pairs and 2 rejects, with two stale attempts.

        qpt: no unit is committed, one attempt left rejects behind.
        """
        one, two = self.unit(TYPES[0], 0), self.unit(TYPES[0], 4)
        self.commit(one, [self.record(one, snippet) for snippet in self.snippets[:4]], [])
        self.commit(two, [], [self.reject(two, snippet) for snippet in self.snippets[4:]])
        pairs = self.unit(TYPES[1], 0)
        records = [
            self.record(pairs, snippet, order)
            for snippet in self.snippets[:2]
            for order in ("right_first", "wrong_first")
        ]
        self.commit(pairs, records, [self.reject(pairs, snippet) for snippet in self.snippets[2:4]])
        # Two attempts that were killed before their commit: one rejected what was accepted later, one a part of the rest.
        self.store.put(pairs.rejects("aa"), jsonl([self.reject(pairs, one, "aa") for one in self.snippets[:4]]))
        self.store.put(pairs.rejects("zz"), jsonl([self.reject(pairs, self.snippets[2], "zz")]))
        rest = self.unit(TYPES[2], 0)
        self.store.put(rest.rejects("aa"), jsonl([self.reject(rest, self.snippets[0], "aa")]))
        return self

    def train(self) -> Built:
        """Packs, one run with its plot, two rounds of three splits, and the answers of the second."""
        meta = {
            "context": 512,
            "packs": 10,
            "records": 60,
            "tokens": 5000,
            "supervised": 2000,
            "too_long": 1,
            "vocabulary": 1024,
        }
        put = self.store.put
        put("train/packs/train/meta.json", json.dumps({"v": 1, "split": "train", **meta}).encode())
        run = "train/runs/0001"
        put(
            f"{run}/run.json",
            json.dumps({"run": "0001", "preset": "demo", "parameters": 3_400_000, "steps": 20}).encode(),
        )
        rows = [{"step": 0, "epoch": 0.0, "tokens": 0, "supervised": 0, "phrasing": 7.0, "unseen": 7.1}]
        rows += [
            {
                "step": step,
                "epoch": 0.1,
                "tokens": step * 1000,
                "supervised": 400,
                "loss": 8.0 - step / 10,
                "tokens_per_second": 900.0,
            }
            for step in range(1, 21)
        ]
        rows[-1] |= {"phrasing": 5.25, "unseen": 5.5}
        put(f"{run}/metrics.jsonl", b"".join(json.dumps(row).encode() + b"\n" for row in rows) + b'{"step": 21, "los')
        put(f"{run}/loss.png", png())
        rounds = [
            {"round": number, "step": number * 10, "split": split, "pass_rate": rate, "low": rate - 0.05, "high": rate + 0.06,
             "baseline": 0.04, "baseline_low": 0.02, "baseline_high": 0.07, "unscored": 3, "stop_rate": 0.98,
             "corrected": rate + 0.01, "corrected_low": rate - 0.06, "corrected_high": rate + 0.08,
             "seconds": {"train": 60.0, "answer": 8.5, "judge": 1.5}, "gpu_seconds": {"train": 58.0, "answer": 5.0}}
            for number in (1, 2)
            for split, rate in (
                ("phrasing", 0.1 + 0.15 * number), ("train", 0.2 + 0.2 * number), ("unseen", 0.05 + 0.05 * number)
            )
        ]  # fmt: skip
        put(f"{run}/rounds.jsonl", b"".join(json.dumps(row).encode() + b"\n" for row in rounds))
        made = [self.answers(split) for split in ("phrasing", "unseen", "train")]
        put(f"{run}/rounds/2/answers.jsonl", b"".join(answers for answers, _ in made))
        put(f"{run}/rounds/2/verdicts.jsonl", b"".join(verdicts for _, verdicts in made))
        return self

    def answers(self, split: Split) -> tuple[bytes, bytes]:
        """Eight answers to questions of that split, and verdicts on all but the last of them."""
        answers: list[Answer] = []
        verdicts: list[Verdict] = []
        for number, snippet in enumerate(self.snippets):
            prompt_type = TYPES[number % 3]
            item = EvalItem(
                id=f"{split}-{number}", record_id=f"r{number}", split=split, prompt_type=prompt_type,
                family=prompt_type.partition("/")[0], article_id=snippet.article_id, title=snippet.title,
                snippet=snippet.text, question=f"Question {number}? {self.hostile}", reference=f"The army. {self.hostile}",
            )  # fmt: skip
            answers.append(
                Answer(item=item, text=f"It was the army. {self.hostile}", stopped="end", tokens=5, checkpoint="c")
            )
            word = ("PASS", "FAIL", "UNSCORED")[number % 3]
            explanation = f"The answer names the army. {self.hostile}"
            verdicts.append(
                Verdict(
                    item_id=item.id,
                    verdict=word,
                    reason="facts",
                    explanation=explanation,
                    grader="rules",
                    fingerprint="f",
                )  # type: ignore[arg-type]
            )
        return jsonl(answers), jsonl(verdicts[:-1])


def build(folder: Path, *stages: str, hostile: str = "") -> Built:
    """A workspace in `folder`/w that went through these stages."""
    built = Built(folder / "w", hostile)
    for stage in stages:
        getattr(built, stage)()
    return built


class Page(HTMLParser):
    """Tags with their attributes, text, and the text of each section."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {}
        self.title = ""
        self._stack: list[str] = []
        self._section = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self._section = str(dict(attrs)["id"])
        self._stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._stack and self._stack.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "title" in self._stack and "svg" not in self._stack:
            self.title += data
        self.sections[self._section] = self.sections.get(self._section, "") + data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)
