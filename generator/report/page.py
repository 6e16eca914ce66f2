"""The report's page: collected data in, one self-contained HTML document out.

Guarantees: every text is escaped; the page loads nothing and runs no script (its content policy forbids both), so it
reads the same from a disk, a mail or a web server. Control characters are shown as pictures; a long text is cut and
says so. Cost: some 20 ms and 100 KB, and the loss plot.
"""

from __future__ import annotations

import base64
import math
import os
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from foundation.splits import SPLIT_NAMES
from generator.report.chart import chart
from generator.report.collect import Report
from generator.report.judgings import best_judged, costs, stages_of

LONGEST = 6000  # characters of one text that the page shows
REASONS = 6  # reasons the page names for one prompt type; the rest are summed up
_CONTROLS = {code: 0x2400 + code for code in range(32) if code not in (9, 10)} | {0x7F: 0x2421}


def render(report: Report, folder: Path | None = None) -> str:
    """The page as text, to lie in `folder` (its links are relative): by default where the workspace is.

    It may hold lone surrogates if a file did: encode it with `errors="backslashreplace"`.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for one in (count, many, percent, interval, short, millions, seconds, shown):
        environment.filters[one.__name__] = one
    scored = report.student.scored
    spent = costs(scored.rounds) if scored else []
    return environment.get_template("page.html.j2").render(
        report=report,
        corpus=report.corpus,
        generation=report.generation,
        student=report.student,
        total=report.generation.total,
        types=sorted(report.generation.types.values(), key=lambda one: one.id),
        reasons=reasons(report),
        plot=plot_uri(report.student.runs[0].plot) if report.student.runs else "",
        chart=chart(scored.rounds) if scored else None,
        scored=scored,
        names=SPLIT_NAMES,
        best=best_judged(scored.rounds) if scored else None,
        costs=spent,
        stages=stages_of(spent),
        judge_page=address(scored.judged, folder or report.student.root) if scored and scored.judged else "",
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=_version(),
    )


def _version() -> str:
    try:
        return version("qpt-factory")
    except PackageNotFoundError:
        return "from a checkout that is not installed"


def count(value: float | None) -> str:
    """A whole number with thousands set apart; a dash for none."""
    return "–" if value is None else f"{value:,.0f}"


def many(value: int, noun: str) -> str:
    """A count with its noun: `1 block`, `2,000 blocks`."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def interval(low: float | None, high: float | None) -> str:
    """An interval of shares: `20.0–31.0 %`."""
    return "–" if low is None or high is None else f"{100 * low:.1f}–{100 * high:.1f} %"


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage; a dash for none. Never rounded to 0 or 100 when it is not."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{100 * value:.{digits}f}"
    edge = 10**-digits
    if value > 0 and float(text) == 0:
        return f"<{edge:.{digits}f} %"
    if value < 1 and float(text) == 100:
        return f">{100 - edge:.{digits}f} %"
    return f"{text} %"


def short(value: float | None, digits: int = 3) -> str:
    """A measured number; a dash for none or for what is not a number."""
    return "–" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def millions(value: float | None) -> str:
    """A model's size: `3.4 M`."""
    return "–" if value is None else f"{value / 1e6:,.1f} M"


def seconds(value: float) -> str:
    """A time span: `48 s`, `12 min`, `3.4 h`."""
    if value < 120:
        return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def shown(text: str) -> str:
    """A text made fit to be shown: control characters as pictures, and cut when it is very long."""
    rest = len(text) - LONGEST
    text = text[:LONGEST].replace("\r\n", "\n").translate(_CONTROLS)
    return f"{text} … [{rest:,} more characters]" if rest > 0 else text


def address(page: Path, folder: Path) -> str:
    """A link from a page in `folder` to that one: relative, so that both can be moved together."""
    relative = Path(os.path.relpath(page, folder)).as_posix()
    return quote(relative.encode("utf-8", "surrogateescape"))


def plot_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}" if png else ""


def reasons(report: Report) -> list[dict[str, Any]]:
    """For each prompt type with rejects: its most frequent reasons, and how many more there are."""
    rows = []
    for one in sorted(report.generation.types.values(), key=lambda one: one.id):
        if one.reasons:
            most = one.reasons.most_common(REASONS)
            rest = one.reasons.total() - sum(times for _, times in most)
            rows.append(
                {
                    "id": one.id,
                    "total": one.reasons.total(),
                    "most": most,
                    "rest": rest,
                    "kinds": len(one.reasons) - len(most),
                }
            )
    return rows
