"""`factory estimate`: intervals that hold what they say they hold, and a command that asks only what it said it would."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from foundation.ids import keyed_fraction
from foundation.records import ChatReply, Snippet, Usage
from foundation.workspace import Workspace
from generator.catalogue import select
from generator.commands.estimate import _between, _Run, _told
from generator.estimate import Guess, Whole, amount, estimate, share, student, together, total
from generator.gates import Gates
from generator.pilot import Job, Pilot, Seen, ask, draw
from generator.render import Source
from generator.teachers.base import TeacherRequest
from tests.generator.scripted import POLICY, ScriptedTeacher, said
from tests.support.commands import REPOSITORY, run, run_json
from tests.support.fault_server import fault_server, reply

RULES = {"FACTORY_TEACHER__BACKEND": "rules"}
TYPES = ("qpt/formal", "qpt/casual", "qpt/tell-me-about")
TOTALS = ("records", "calls", "prompt_tokens", "completion_tokens", "shard_bytes")
SEEDS = 400


@pytest.mark.parametrize(
    ("df", "quantile"), [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (11, 2.201), (30, 2.042), (1e9, 1.96)]
)
def test_students_quantiles_are_those_of_the_tables(df: float, quantile: float) -> None:
    assert student(df) == pytest.approx(quantile, rel=0.002)
    assert student(1.5 * df) <= student(df)


def test_shares_have_wilsons_interval() -> None:
    for some, of, low, high in (
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (45, 48, 0.8317, 0.9785),
        (4, 4, 0.5101, 1.0),
    ):
        found = share(some, of)
        assert (found.value, found.low, found.high) == pytest.approx((some / of, low, high), abs=0.0005)


def test_sums_and_products_keep_what_is_certain_certain() -> None:
    certain = amount([2.0, 2.0, 2.0]).scaled(10)
    assert (certain.low, certain.value, certain.high) == (20.0, 20.0, 20.0)
    both = total([certain, Guess(5.0, 1.0, 3.0)])
    assert (both.value, both.below, both.above) == (25.0, 1.0, 3.0)
    product = share(5, 10).times(Guess(2.0))
    assert (product.low, product.high) == pytest.approx((2 * 0.2366, 2 * 0.7634), abs=0.001)
    assert Guess(1.0).per(Guess(0.0)) is None and Guess(6.0, 0.1, 0.1).per(Guess(3.0, 0.1, 0.1)).value == 2.0  # type: ignore[union-attr]


def test_nothing_accepted_is_not_nothing_to_come() -> None:
    """Of twelve items none passed: of 1,000 up to a quarter may, and take room on the disk."""
    seen = [Seen(False, calls=1, prompt_tokens=10, reject_bytes=900) for _ in range(12)]
    found = estimate(Pilot({"a": seen}, 1.0), {"a": Whole(1000, 2)})["a"]
    assert found.records.value == found.shard_bytes.value == 0.0
    assert found.records.high == pytest.approx(2 * 1000 * share(0, 12).high)
    assert found.shard_bytes.high > 100_000
    assert found.tokens_per_record is None


def test_hours_are_the_teachers_time_over_what_it_had_at_once() -> None:
    """Ten calls of 3 s in 6 s of wall time: five at once, so 1,000 such items take 600 s; four processes alone a quarter."""
    seen = [Seen(True, 1, 1, seconds=3.0) for _ in range(10)]
    pilot = Pilot({"a": seen}, wall=6.0)
    assert pilot.in_flight == 5.0
    assert estimate(pilot, {"a": Whole(1000, 1)})["a"].hours.value * 3600 == pytest.approx(600)
    assert estimate(pilot, {"a": Whole(1000, 1)}, processes=4)["a"].hours.value * 3600 == pytest.approx(150)


@pytest.mark.parametrize(
    ("guess", "text"),
    [
        (Guess(37.5, 1.0, 1.0), "38 (36-39)"),
        (Guess(0.0, 0.0, 5020 / 1.96), "0 (0-5.02 k)"),
        (Guess(704.0), "704"),
        (Guess(12_345.0, 0.0, 1000.0), "12.3 k (12.3-14.3)"),
    ],
)
def test_records_are_whole_and_none_has_no_unit(guess: Guess, text: str) -> None:
    assert _told(guess, whole=True) == text
    assert _between({"value": 8.4e-05, "low": 6.7e-05, "high": 0.00011}) == "0.000084 (0.000067-0.00011)"


def _known(id_: str, *about: object) -> float:
    return keyed_fraction("truth", id_, *map(str, about))


def _script(requests: Sequence[TeacherRequest]) -> list[ChatReply]:
    """A teacher of known ways: by type it passes 35, 75 or 97 of 100, and writes 20 to 400 tokens, most of them few."""
    replies = []
    for one in requests:
        passes = _known(one.chat.id, "passes") < dict(zip(TYPES, (0.35, 0.75, 0.97), strict=True))[one.prompt_type.id]
        tokens = int(20 / (1 - 0.95 * _known(one.chat.id, "length")))
        question = "What happened to those who fought in the winter war?"
        answer = said(one, {"question": question}, "stop" if passes else "length")
        usage = Usage(prompt_tokens=300 + int(400 * _known(one.chat.id, "prompt")), completion_tokens=tokens)
        replies.append(answer.model_copy(update={"usage": usage}))
    return replies


@pytest.fixture(scope="module")
def population(wwii_snippets: list[Snippet], warm_gates: Gates) -> dict[str, list[Seen]]:
    """Every item there is, through the real pipeline, each as a unit of its own, in the corpus's order."""
    jobs = [Job(one, 0, (Source(snippet),)) for one in select(TYPES) for snippet in wwii_snippets]
    return asyncio.run(ask(ScriptedTeacher(_script), jobs, POLICY, warm_gates, at_once=1)).seen


@pytest.mark.parametrize("count", [8, 16])
def test_of_a_hundred_intervals_some_95_hold_the_true_totals(population: dict[str, list[Seen]], count: int) -> None:
    # given the true totals of all items
    wholes = {id_: Whole(len(seen), 1) for id_, seen in population.items()}
    truth = {name: sum(getattr(one, name) for seen in population.values() for one in seen) for name in TOTALS}
    assert 0.3 < truth["records"] / truth["calls"] < 0.9
    # when a pilot is drawn with each of many seeds
    held, widths = dict.fromkeys(TOTALS, 0), dict.fromkeys(TOTALS, 0.0)
    for seed in range(SEEDS):
        drawn = {id_: [seen[index] for index in draw(len(seen), count, seed, id_)] for id_, seen in population.items()}
        found = together(list(estimate(Pilot(drawn, 1.0), wholes).values()))
        for name in TOTALS:
            guess = getattr(found, name)
            held[name] += guess.low <= truth[name] <= guess.high
            widths[name] += (guess.high - guess.low) / truth[name] / SEEDS
    # then the intervals hold them as often as they say, and are not wide for nothing
    assert all(hits >= 0.92 * SEEDS for hits in held.values()), held
    assert widths["calls"] < 0.001 + 2 * (1 - share(count * 3, count * 3).low), "every item was asked about"
    assert widths["prompt_tokens"] < {8: 0.4, 16: 0.25}[count], widths
    assert widths["records"] < {8: 0.7, 16: 0.5}[count], widths


def test_many_types_of_four_items_each_are_held_too() -> None:
    """40 types, a few items each, as without --prompt-type: each alone says little, together they do."""
    chance = random.Random(3)
    population: dict[str, list[Seen]] = {}
    for number in range(40):
        rate = chance.random()
        population[f"t/{number}"] = [
            Seen(
                passes := chance.random() < rate,
                int(passes) * chance.randint(1, 6),
                1,
                500,
                int(chance.lognormvariate(4, 0.6)),
            )
            for _ in range(500)
        ]
    wholes: dict[str, Whole] = {id_: Whole(500) for id_ in population}
    for name in ("records", "completion_tokens"):
        truth = sum(getattr(one, name) for seen in population.values() for one in seen)
        held, width = 0, 0.0
        for seed in range(60):
            drawn = {id_: [seen[index] for index in draw(500, 4, seed, id_)] for id_, seen in population.items()}
            guess = getattr(together(list(estimate(Pilot(drawn, 1.0), wholes).values())), name)
            held += guess.low <= truth <= guess.high
            width += (guess.high - guess.low) / truth / 60
        assert held >= 55, (name, held)
        assert width < 0.5, (name, width)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_command_says_what_it_asks_adds_up_and_writes_nothing(wwii_workspace: Path) -> None:
    before = _files(wwii_workspace)
    arguments = ("--prompt-type", "wh/who", "--prompt-type", "contrastive/person", "--rounds", "3", "--items", "20")
    prices = ("--price", "2", "--kwh-price", "0.5", "--watts", "400")
    found = run_json("factory", "estimate", *arguments, *prices, cwd=wwii_workspace, env=RULES)
    done = run("factory", "estimate", *arguments, cwd=wwii_workspace, env=RULES)
    assert _files(wwii_workspace) == before
    # what is to do is the corpus, by type and round; what was asked is what was said
    whole, types = found["total"], found["prompt_types"]
    assert [one["prompt_type"] for one in types] == ["wh/who", "contrastive/person"]
    assert [one["pilot_items"] for one in types] == [20, 20] and found["pilot"]["items"] == 40
    assert all(one["items"] == 3 * found["over"]["snippets"] for one in types)
    assert "about 40 of them" in done.stderr and "whole corpus, 3 rounds" in done.stderr
    for name in ("calls", "records", "shard_bytes", "hours"):
        assert whole[name]["value"] == pytest.approx(sum(one[name]["value"] for one in types), rel=1e-3)
        assert whole[name]["low"] <= whole[name]["value"] <= whole[name]["high"]
    # why items were rejected is told, and that entries make a bound of all but the shares
    who, person = types
    assert sum(who["rejects"].values()) == round(20 * (1 - who["accept_rate"]["value"])) > 0
    assert whole["rejects"] == dict(Counter(who["rejects"]) + Counter(person["rejects"]))
    assert [one["upper_bound"] for one in (who, person, whole)] == [False, True, True]
    first, number = next(iter(who["rejects"].items()))
    assert f"wh/who rejected: {first} {number}" in done.stdout
    rows = {line.split()[0]: line for line in done.stdout.partition("\n\n")[0].splitlines()}
    assert ["at most" in rows[name] for name in ("wh/who", "contrastive/person", "all")] == [False, True, True]
    # money follows from hours, and rules have no tokens
    assert whole["machine_cost"]["high"] == pytest.approx(2 * whole["hours"]["high"], rel=1e-3)
    assert whole["energy_cost"]["value"] == pytest.approx(0.5 * 0.4 * whole["hours"]["value"], rel=1e-3)
    assert whole["prompt_tokens"]["value"] == 0 and "tokens: none" in done.stdout
    assert "money: not counted" in done.stdout
    # what the pilot cannot see is told
    assert found["may_be_fewer"] == ["contrastive/person"] and "may come of contrastive/person" in done.stdout
    assert found["hours_at_best"] is None, "rules compute in this process: there is nothing to fill"


def test_all_types_are_a_few_items_each_and_another_seed_draws_others(wwii_workspace: Path) -> None:
    first, second = (
        run_json("factory", "estimate", "--prompt-type", "wh", "--seed", seed, cwd=wwii_workspace, env=RULES)
        for seed in ("1", "2")
    )
    counts = [[(one["items"], one["pilot_items"]) for one in found["prompt_types"]] for found in (first, second)]
    assert counts[0] == counts[1] and {asked for _, asked in counts[0]} == {5}
    assert first["total"]["shard_bytes"] != second["total"]["shard_bytes"]


def _server(workspace: Path, url: str) -> dict[str, str]:
    return {
        "FACTORY_TEACHER__BACKEND": "openai",
        "FACTORY_TEACHER__BASE_URL": url,
        "FACTORY_TEACHER__MODEL": "m",
        "FACTORY_TEACHER__CONCURRENCY": "8",
    }


def test_a_server_is_asked_one_call_an_item_and_one_to_warm_up(wwii_workspace: Path) -> None:
    answer = '{"question": "What happened to those who fought in the winter war?"}'

    async def behave(*_: Any) -> Any:
        await asyncio.sleep(0.02)
        return reply(answer)

    with fault_server(behave) as server:
        arguments = ("--prompt-type", "qpt/formal", "--items", "30")
        found = run_json("factory", "estimate", *arguments, cwd=wwii_workspace, env=_server(wwii_workspace, server.url))
        assert len(server.calls) == 31
    whole, pilot, snippets = found["total"], found["pilot"], found["over"]["snippets"]
    assert found["teacher"].startswith("openai:m@")
    assert (pilot["calls"], pilot["prompt_tokens"], pilot["completion_tokens"]) == (30, 300, 150)
    assert whole["calls"]["value"] == snippets and whole["completion_tokens"]["value"] == 5 * snippets
    assert whole["accept_rate"]["low"] < pilot["accepted"] / 30 < whole["accept_rate"]["high"]
    # three workers of eight would be in flight: the hours that takes at best are told, and are fewer
    assert pilot["in_flight_of_a_run"] == 24 and pilot["in_flight"] <= 8
    assert 0 < found["hours_at_best"] < whole["hours"]["low"]


def test_no_more_items_are_named_than_there_are(wwii_workspace: Path) -> None:
    """Three workers of 64 want 384 items to be filled, and there are fewer."""
    with fault_server(lambda *_: 0.02) as server:
        env = _server(wwii_workspace, server.url) | {"FACTORY_TEACHER__CONCURRENCY": "64"}
        arguments = ("factory", "estimate", "--prompt-type", "qpt/formal", "--items", "8")
        done = run(*arguments, cwd=wwii_workspace, env=env)
    there = int(re.search(r"1 prompt type x ([\d,]+) items", done.stderr)[1].replace(",", ""))  # type: ignore[index]
    assert there < 384 and f"measure nearer to that: --items {there}\n" in done.stdout


def test_a_pilot_that_is_interrupted_ends_with_one_word(wwii_workspace: Path) -> None:
    before = _files(wwii_workspace)
    with fault_server(lambda *_: 30.0) as server:
        environment = {**os.environ, **_server(wwii_workspace, server.url), "PYTHONPATH": str(REPOSITORY)}
        command = [
            sys.executable,
            "-c",
            "from generator.cli import main; main()",
            "estimate",
            "--prompt-type",
            "qpt/formal",
        ]
        process = subprocess.Popen(
            command, cwd=wwii_workspace, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        until = time.monotonic() + 60
        while not server.calls and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, said_ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == "" and "Traceback" not in said_ and "internal error" not in said_
    assert _files(wwii_workspace) == before


def test_the_engines_batch_bounds_what_a_run_has_in_work(wwii_workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three workers of 64 send 192 calls; an engine of 40 sequences works on 40 of them."""
    monkeypatch.setenv("FACTORY_TEACHER__BACKEND", "vllm")
    monkeypatch.setenv("FACTORY_TEACHER__PROFILE", "16gb")
    found = _Run.of(Workspace(wwii_workspace), select(["wh/who"]), 1)
    assert (found.sent, found.in_flight, found.local) == (192, 40, False)


def test_wrong_use_is_told(wwii_workspace: Path, tmp_path: Path) -> None:
    run("factory", "init", "w", cwd=tmp_path)
    empty = run("factory", "estimate", cwd=tmp_path / "w", code=2, env=RULES)
    unknown = run("factory", "estimate", "--prompt-type", "wh/whom", cwd=wwii_workspace, code=2, env=RULES)
    assert "the corpus is empty" in empty.stderr and "wh/who" in unknown.stderr
