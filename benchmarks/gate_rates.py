"""What each gate refuses of real text, and what a call of it costs: prints rejects by gate and code, with examples.

Reads a workspace (the sentences and passages of its corpus, and the records it has), or files: JSON lines with `text` or
with `question` and `answer`, else plain text, one a line. Every gate judges every text by itself, so one text may count
for several; the passages are judged by the language gates alone, as in the factory. All of it is taken for good English:
what is refused is a false reject, or a fault in the text that the examples show.

    .venv/bin/python benchmarks/gate_rates.py WORKSPACE
    .venv/bin/python benchmarks/gate_rates.py tests/data/calibration/english.jsonl
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from foundation.corpus import Corpus  # noqa: E402
from foundation.records import GateResult  # noqa: E402
from foundation.workspace import Workspace  # noqa: E402
from generator.gates.cjk import check_cjk  # noqa: E402
from generator.gates.english import EnglishGate  # noqa: E402
from generator.gates.language import LanguageGate, has_letters  # noqa: E402
from generator.gates.shape import check_shape  # noqa: E402
from generator.gates.standalone import check_standalone  # noqa: E402

Check = Callable[[str, str], GateResult]
LANGUAGE = ("cjk", "language", "english")
KINDS = ("sentence", "passage", "message", "line")


def of_workspace(root: Path) -> Iterator[tuple[str, str]]:
    """(kind, text): sentences once each, passages, and the messages of records."""
    store = Workspace(root).store
    seen = set[str]()
    for snippet in Corpus(store).all_snippets():
        yield "passage", snippet.text
        for sentence in snippet.sentences:
            if sentence not in seen:
                seen.add(sentence)
                yield "sentence", sentence
    for name in store.list("shards"):
        for line in store.get(name).splitlines():
            yield from (("message", message["content"]) for message in json.loads(line)["messages"])


def of_file(path: Path) -> Iterator[tuple[str, str]]:
    """(kind, text) of each line."""
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("{"):
            row = json.loads(line)
            yield from (("line", row[name]) for name in ("text", "question", "answer") if name in row)
        elif line.strip():
            yield "line", line


def gates() -> dict[str, Check]:
    language, english = LanguageGate(), EnglishGate()
    language.warm()
    english.warm()
    return {
        "shape": check_shape,
        "standalone": check_standalone,
        "cjk": check_cjk,
        "language": lambda text, field: language.check(text, field) if has_letters(text) else GateResult.accept(),
        "english": english.check,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="workspaces or files")
    parser.add_argument("--examples", type=int, default=5, help="shown for each code (default 5)")
    options = parser.parse_args()
    texts = defaultdict[str, list[str]](list)
    for path in options.paths:
        for kind, text in of_workspace(path) if path.is_dir() else of_file(path):
            texts[kind].append(text)
    checks = gates()
    for kind in (kind for kind in KINDS if texts[kind]):
        report(
            kind,
            texts[kind],
            {name: checks[name] for name in checks if kind != "passage" or name in LANGUAGE},
            options.examples,
        )


def report(kind: str, texts: list[str], checks: dict[str, Check], examples: int) -> None:
    """Print what each gate makes of these texts."""
    print(f"\n{len(texts):,} texts of kind {kind}, {sum(map(len, texts)) / len(texts):.0f} characters on average")
    together = set[int]()
    for gate, check in checks.items():
        begun = time.perf_counter()
        results = [check(text, kind) for text in texts]
        each = (time.perf_counter() - begun) / len(texts) * 1e6
        refused = [number for number, result in enumerate(results) if not result.ok]
        together |= set(refused) if gate in LANGUAGE else set()
        print(f"  {gate:12}{len(refused):8,}  {len(refused) / len(texts):8.3%}  {each:7.1f} µs each")
        for code, count in Counter(results[number].code for number in refused).most_common():
            print(f"    {code}: {count:,}")
            for number in [number for number in refused if results[number].code == code][:examples]:
                print(f"      {results[number].reason} | {texts[number][:120]}")
    print(
        f"  cjk, language and english together: {len(together):,} of {len(texts):,} = {len(together) / len(texts):.3%}"
    )


if __name__ == "__main__":
    main()
