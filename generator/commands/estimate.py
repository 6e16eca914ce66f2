"""`factory estimate`: what a run would come to, measured on a pilot of a few dozen items. Writes nothing.

Guarantees: it says how many items of which types it is about to ask about before it asks; standard output has the result alone, with
`--json` one document; Ctrl-C ends it, and the engine it started. Cost: that of the pilot, and of the engine's start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from foundation.prompt_type import PromptType
    from foundation.tables import TeacherSettings
    from foundation.workspace import Workspace
    from generator.estimate import Figures, Guess
    from generator.pilot import Job, Pilot, Population

FEW = 48  # items in all, unless a type would get fewer than LEAST
LEAST = 4
REASONS = 5  # of a type that are told
UNITS = (("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12))
TIMES = (("s", 1 / 3600), ("min", 1 / 60), ("h", 1.0), ("days", 24.0))


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command("estimate")(estimate)


def estimate(
    prompt_type: list[str] = typer.Option(
        [], "--prompt-type", metavar="T", help="An id or a family; may be repeated. Default: every one."
    ),
    rounds: int = typer.Option(1, "--rounds", min=1, metavar="N", help="Rounds over the corpus."),
    items: int = typer.Option(
        0,
        "--items",
        min=0,
        metavar="N",
        help=f"Items of each type to ask about. Default: {FEW} in all, {LEAST} at least.",
    ),
    price: float | None = typer.Option(
        None, "--price", min=0, help="What an hour of the machine costs. Default: work.hourly_price."
    ),
    kwh_price: float | None = typer.Option(
        None, "--kwh-price", min=0, help="What a kWh costs. Default: work.kwh_price."
    ),
    watts: float | None = typer.Option(
        None, "--watts", min=0, help="What the machine draws. Default: what the GPUs drew during the pilot."
    ),
    seed: int = typer.Option(0, "--seed", help="Another seed draws other items."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Ask about a few dozen items, and say what all of them would come to: records, tokens, hours, money, disk."""
    from foundation.console import emit_json
    from foundation.workspace import Workspace
    from generator import estimate as estimating
    from generator.catalogue import load_catalogue, select

    workspace = Workspace.find()
    own, work = workspace.prompts, workspace.settings.work
    types = select(prompt_type, own) if prompt_type else list(load_catalogue(own=own).values())
    run = _Run.of(workspace, types, rounds)
    pilot, name = _ask(workspace, run, items or max(LEAST, -(-FEW // len(types))), seed)
    wholes = {one.id: estimating.Whole(run.items, _records(one), bool(one.each)) for one in types}
    figures = estimating.estimate(pilot, wholes, run.in_flight if run.local else 1)
    whole = estimating.together(list(figures.values()))
    prices = _Prices(
        work.hourly_price if price is None else price,
        work.kwh_price if kwh_price is None else kwh_price,
        pilot.watts if watts is None else watts,
    )
    document = {
        "teacher": name,
        "over": {"snippets": run.population.size, "rounds": rounds, "prompt_types": len(types)},
        "confidence": 0.95,
        "pilot": _measured(pilot, whole.asked, seed) | {"in_flight_of_a_run": run.in_flight},
        "prompt_types": [{"prompt_type": id_, **one.document(), **prices.of(one)} for id_, one in figures.items()],
        "total": {**whole.document(), **prices.of(whole)},
        "may_be_fewer": [one.id for one in types if one.each],
        "hours_at_best": _at_best(whole.hours, pilot, run),
        "prices": {"hour": prices.hour, "kwh": prices.kwh, "watts": prices.watts},
    }
    if as_json:
        emit_json(document)
    else:
        _print(document, figures, whole, workspace)


@dataclass(frozen=True)
class _Run:
    """What is estimated. `sent` are the calls that `factory run` sends at once, at most, or its processes where it is `local`;
    `in_flight` those of them that the server works on, as far as that is known."""

    types: list[PromptType]
    population: Population
    rounds: int
    local: bool
    sent: int
    in_flight: int

    @property
    def items(self) -> int:
        """Of each type."""
        return self.population.size * self.rounds

    @classmethod
    def of(cls, workspace: Workspace, types: list[PromptType], rounds: int) -> _Run:
        from foundation.corpus import Corpus
        from generator.pilot import Population
        from generator.teachers.make import chosen_backend

        settings = workspace.settings
        backend = chosen_backend(settings.teacher)
        local = backend == "rules"
        workers = settings.work.workers_for(rules=local)
        sent = workers if local else workers * settings.teacher.concurrency
        in_flight = min(sent, _sequences(settings.teacher) or sent) if backend == "vllm" else sent
        return cls(types, Population(Corpus(workspace.store)), rounds, local, sent, in_flight)


def _ask(workspace: Workspace, run: _Run, count: int, seed: int) -> tuple[Pilot, str]:
    """Say what will be asked, and ask it. Returns what came of it, and the teacher's name."""
    import uvloop

    from foundation.console import progress
    from foundation.records import SplitPolicy
    from generator.gates import Gates
    from generator.pilot import ask, at_full, in_turns, jobs_of
    from generator.teachers.make import teacher_from_settings

    split = workspace.settings.split
    policy = SplitPolicy(key=split.key, unseen=split.unseen, phrasing=split.phrasing)
    jobs = jobs_of(run.types, run.population, policy, count=count, rounds=run.rounds, seed=seed)
    if not run.local:
        jobs = in_turns(jobs, seed)
    (warm_up,) = jobs_of(run.types[:1], run.population, policy, count=1, rounds=run.rounds, seed=seed + 1)
    _announce(workspace, run, jobs)
    gates = Gates()
    gates.warm()
    with (
        teacher_from_settings(workspace, purpose="factory estimate", settle=False) as ready,
        progress("items asked about", sum(len(job.sources) for job in jobs)) as bar,
    ):
        # No more than the server works on: what waits in its line would count as time that the call took.
        at_once = 1 if run.local else run.in_flight
        asking = ask(at_full(ready.teacher), jobs, policy, gates, at_once=at_once, warm_up=warm_up, done=bar.advance)
        return uvloop.run(asking), ready.teacher.name


@dataclass(frozen=True)
class _Prices:
    """What hours cost; 0 and None: not counted."""

    hour: float
    kwh: float
    watts: float | None

    def of(self, figures: Figures) -> dict[str, Any]:
        energy = figures.hours.scaled(self.watts / 1000) if self.watts else None
        return {
            "kwh": energy.document() if energy else None,
            "energy_cost": energy.scaled(self.kwh).document() if energy and self.kwh else None,
            "machine_cost": figures.hours.scaled(self.hour).document() if self.hour else None,
        }


def _sequences(settings: TeacherSettings) -> int:
    """The largest batch of the managed engine; 0 where nothing says it."""
    from foundation.profiles import choose, server_arguments, value_of

    told = value_of("max-num-seqs", server_arguments(choose(settings), settings))
    return int(told) if told.isdigit() else 0


def _records(prompt_type: PromptType) -> int:
    """The records of an accepted item; 0 where the text decides it."""
    if prompt_type.each:
        return 0
    return 2 if prompt_type.options and prompt_type.options.order == "both" else 1


def _announce(workspace: Workspace, run: _Run, jobs: list[Job]) -> None:
    """What is about to be asked, before it is."""
    from foundation.console import say
    from generator.teachers.make import unable

    types, rounds = run.types, run.rounds
    total = sum(len(job.sources) for job in jobs)
    calls = sum(len(job.sources) * len(job.prompt_type.chain) for job in jobs)
    named = ", ".join(one.id for one in types[:6]) + (f" and {len(types) - 6:,} more" if len(types) > 6 else "")
    over = "the whole corpus" if rounds == 1 else f"the whole corpus, {rounds:,} rounds"
    more = " or more" if any(one.each for one in types) else ""
    of_types = f"{_many(len(types), 'prompt type')} x {_many(run.items, 'item')}"
    say(f"estimate for {over}: {of_types} ({named})")
    say(
        f"about to ask the teacher about {total:,} of them, in {_many(calls, 'call')}{more}, and about one before them that is not counted; "
        "nothing is written; Ctrl-C ends it"
    )
    if cannot := unable(workspace, [one.id for one in types]):
        say(f"the teacher is `rules`, which cannot make and declines: {', '.join(cannot)}")


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _measured(pilot: Pilot, asked: int, seed: int) -> dict[str, Any]:
    """What the pilot itself was."""
    calls = sum(one.calls for one in pilot.all)
    tokens = sum(one.completion_tokens for one in pilot.all)
    wall = pilot.wall or 1.0
    return {
        "items": asked,
        "accepted": sum(one.accepted for one in pilot.all),
        "calls": calls,
        "prompt_tokens": sum(one.prompt_tokens for one in pilot.all),
        "completion_tokens": tokens,
        "seconds": round(pilot.wall, 3),
        "seed": seed,
        "in_flight": round(pilot.in_flight, 2),
        "calls_per_second": round(calls / wall, 2),
        "completion_tokens_per_second": round(tokens / wall, 1),
        "watts": round(pilot.watts, 1) if pilot.watts is not None else None,
    }


def _at_best(hours: Guess, pilot: Pilot, run: _Run) -> float | None:
    """Hours if the teacher is as quick with all that a run keeps in flight as it was with the pilot's; None if that is no more."""
    if run.local or not pilot.in_flight or run.in_flight < 1.2 * pilot.in_flight:
        return None
    return float(f"{hours.low * pilot.in_flight / run.in_flight:.5g}")


def _print(document: dict[str, Any], figures: dict[str, Figures], whole: Figures, workspace: Workspace) -> None:
    from foundation.console import table

    measured, over = document["pilot"], document["over"]
    rules = document["teacher"].startswith("rules")
    rows = [_row(id_, one) for id_, one in figures.items()]
    table(HEADINGS, [*rows, _row("all", whole)] if len(rows) > 1 else rows)
    print("\nbehind each figure: its 95 % interval, as the pilot's items have it")
    if document["may_be_fewer"]:
        print(
            "at most: what is asked entry by entry asks once a unit about an entry: neighbours in a unit share some, the pilot's "
            f"items fewer, so fewer records and calls may come of {', '.join(document['may_be_fewer'])}, below the interval too"
        )
    for id_, one in figures.items():
        if one.rejects:
            print(f"{id_} rejected: {_reasons(one.rejects)}")
    if not whole.prompt_tokens.value and not whole.completion_tokens.value:
        print(f"tokens: none; {'the teacher is `rules`, which has none' if rules else 'the server told of none'}")
    speed = f"{measured['items'] / measured['seconds']:,.0f} items a second in one process"
    if not rules:
        speed = (
            f"{measured['in_flight']:,.1f} calls in flight on average, {measured['calls_per_second']:,.1f} calls and "
            f"{measured['completion_tokens_per_second']:,.0f} tokens written a second"
        )
    print(
        f"\nthe pilot: {measured['items']:,} items, {measured['calls']:,} calls in {measured['seconds']:,.1f} s: {speed}; "
        f"teacher {document['teacher']}"
    )
    _print_hours(document, whole, over["prompt_types"])
    _print_money(document, whole)
    _print_disk(whole, workspace)


def _reasons(rejects: dict[str, int]) -> str:
    """The most frequent ones."""
    told = [f"{reason} {number:,}" for reason, number in list(rejects.items())[:REASONS]]
    rest = sum(list(rejects.values())[REASONS:])
    return ", ".join([*told, f"others {rest:,}"] if rest else told)


HEADINGS = ("prompt type", "items", "asked", "accepted", "records", "tokens in", "tokens out", "tokens/record", "time")


def _row(name: str, one: Figures) -> tuple[object, ...]:
    per = one.tokens_per_record
    rate = one.accept_rate
    return (
        name,
        one.items,
        one.asked,
        f"{rate.value:.0%} ({rate.low:.0%}-{min(1.0, rate.high):.0%})",
        *(
            _bounded(_told(amount, whole=True), one)
            for amount in (one.records, one.prompt_tokens, one.completion_tokens)
        ),
        _told(per) if per else "-",
        _bounded(_time(one.hours), one),
    )


def _bounded(told: str, one: Figures) -> str:
    """Nothing stays nothing."""
    return f"at most {told}" if one.upper_bound and told.partition(" ")[0] != "0" else told


def _print_hours(document: dict[str, Any], whole: Figures, types: int) -> None:
    from generator.estimate import Guess

    measured, best = document["pilot"], document["hours_at_best"]
    run = measured["in_flight_of_a_run"]
    rules = document["teacher"].startswith("rules")
    how = f"in the {run} processes of `factory run`" if rules else "if the teacher is kept as busy as in the pilot"
    print(f"time: {_bounded(_time(whole.hours), whole)}, {how}")
    if best is not None:
        there = whole.items // types  # of each type
        wanted = min(-(-2 * run // types), there)
        nearer = f"; to measure nearer to that: --items {wanted:,}" if wanted * types > whole.asked else ""
        print(
            f"  `factory run` keeps up to {run:,} calls in work at once: it takes no longer, and no less than "
            f"{_time(Guess(best))}{nearer}"
        )


def _print_money(document: dict[str, Any], whole: Figures) -> None:
    total, prices = document["total"], document["prices"]
    kwh, energy, machine = (
        _bounded(_between(total[name]), whole) if total[name] else "" for name in ("kwh", "energy_cost", "machine_cost")
    )
    if kwh:
        cost = f", at {prices['kwh']:g} a kWh: {energy}" if energy else ""
        print(f"energy: {kwh} kWh at {prices['watts']:,.0f} W{cost}")
    if machine:
        print(f"machine: at {prices['hour']:g} an hour: {machine}")
    if not energy and not machine:
        print(
            "money: not counted; --price P (or work.hourly_price) for the machine's hours, --kwh-price P (or work.kwh_price) and, "
            "where NVML tells no watts, --watts W for energy"
        )


def _print_disk(whole: Figures, workspace: Workspace) -> None:
    import shutil

    from generator.estimate import Guess

    free = shutil.disk_usage(workspace.root).free
    shards = _bounded(_told(whole.shard_bytes, "B"), whole)  # not so the rejects: what is asked about already is one
    bytes_ = shards, _told(whole.reject_bytes, "B"), _told(Guess(free), "B")
    print("disk: shards {}, rejects {}; free: {}".format(*bytes_))
    if whole.shard_bytes.high + whole.reject_bytes.high > free:
        print("  it may not fit: free some space first")


def _time(hours: Guess) -> str:
    """In days from two on."""
    return _told(hours, scales=TIMES if hours.value >= 48 else TIMES[:-1])


def _told(guess: Guess, suffix: str = "", scales: Sequence[tuple[str, float]] = UNITS, *, whole: bool = False) -> str:
    """A figure and its interval, all three in one unit; `whole` are things that there are no parts of."""
    wanted = max(guess.value or guess.high, scales[0][1])
    unit, scale = max((one for one in scales if one[1] <= wanted), key=lambda one: one[1])
    behind = f" {unit}{suffix}".rstrip()
    value, low, high = (
        f"{number:,.0f}" if whole and scale == 1 else _digits(number / scale)
        for number in (guess.value, guess.low, guess.high)
    )
    if guess.value == guess.high == guess.low:
        return f"{value}{behind}"
    if not guess.value:
        return f"0 (0-{high}{behind})"
    return f"{value}{behind} ({low}-{high})"


def _between(found: dict[str, float]) -> str:
    return "{} ({}-{})".format(*(_digits(found[name]) for name in ("value", "low", "high")))


def _digits(value: float) -> str:
    """Three digits that count."""
    if value >= 100 or not value:
        return f"{value:,.0f}"
    if value < 1:
        return f"{Decimal(f'{value:.2g}'):f}"  # never 8.4e-05
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
