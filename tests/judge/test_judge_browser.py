"""The judge's page in a real browser: it executes nothing of any text, its filters filter, and it fits a phone."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import pytest

from judge.report.collect import collect
from judge.report.page import render
from tests.judge.report_files import (
    CHROMIUM,
    HOSTILE,
    Page,
    browse,
    made_answers,
    made_canaries,
    made_verdicts,
    write_judging,
)

POLICY = '<meta http-equiv="Content-Security-Policy"'
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: the page is not opened in a browser")


def _page(folder: Path, hostile: str = "", name: str = "v.jsonl", **how: Any) -> str:
    """A page of 72 answers; of two judgings if `how` has `better`."""
    made = []
    for number in range(2 if "better" in how else 1):
        answers = made_answers(hostile=hostile, checkpoint=f"run/step-{number}{hostile}")
        verdicts = made_verdicts(answers, hostile, how.get("unscored", 0), number)
        out = folder / f"{number}{name}"
        judged = made_canaries(answers, 1, hostile)
        write_judging(
            out,
            answers,
            verdicts,
            judged=judged,
            hostile=hostile,
            changes={"problems": [f"a problem{hostile}"]} if hostile else None,
        )
        made.append(out)
    return render(collect(made), f"Title{hostile}")


def _bare(page: str) -> str:
    """Without the policy: escaping alone has to do."""
    assert page.count(POLICY) == 1
    return "\n".join(line for line in page.split("\n") if POLICY not in line)


def _told(page: str, folder: Path, script: str, hash_: str = "") -> str:
    """What an added script leaves in the title; `wait` gives the page's own timers their time."""
    added = (
        "<script>onload = async () => { const wait = () => new Promise((done) => setTimeout(done, 300));"
        " const $ = (one) => document.querySelector(one); const all = (one) => [...document.querySelectorAll(one)];"
        f" try {{ {script} }} catch (error) {{ document.title = 'error ' + error; }} }}</script>"
    )
    return Page(browse(_bare(page).replace("</body>", f"{added}</body>"), folder, hash_)).title


def _with(page: Page, **wanted: str) -> list[dict[str, str]]:
    return [card for card in page.visible if all(card[f"data-{name}"] == value for name, value in wanted.items())]


def test_a_browser_executes_nothing_of_any_text(tmp_path: Path) -> None:
    text = _page(tmp_path, HOSTILE, "<img src=x onerror=alert(1)>.jsonl", better=1)
    control = Page(browse(f"<!DOCTYPE html><title>w</title><body>{HOSTILE}", tmp_path))
    assert control.title == "ran"  # this browser does run what is not escaped
    seen = Page(browse(_bare(text), tmp_path))
    shown = HOSTILE.replace("\u2028", "⟨U+2028⟩")
    assert seen.title == f"Title{shown}"
    assert (seen.count("script"), seen.count("img"), seen.count("style")) == (1, 0, 1)
    assert not any(name.startswith("on") for _, values in seen.tags for name in values)
    for section in ("compared", "score", "families", "articles", "types", "reasons", "canaries", "about"):
        assert shown in seen.sections[section], section
    for card, answer in zip(seen.cards, made_answers(hostile=shown), strict=True):
        assert card["data-article"] == answer.item.article_id
        for one in (answer.item.question, answer.item.reference, answer.text, answer.item.title, "Because of"):
            assert one in card["text"]
    assert len(seen.visible) == 72
    # And the policy alone has to do, too: what escaping let through does not run, and the page's own script does.
    alone = Page(browse(text.replace("<body>", f"<body>{HOSTILE.partition('<!--')[0]}"), tmp_path))
    assert alone.count("img") == 1
    assert alone.title == f"Title{shown}"
    assert next(values for tag, values in alone.tags if tag == "html").get("class") == "live"


@pytest.mark.slow
def test_the_address_narrows_the_answers(tmp_path: Path) -> None:
    text = _page(tmp_path, unscored=2)

    whole = Page(browse(text, tmp_path))
    assert len(whole.visible) == 72
    assert "All 72 answers" in whole.sections["rows"]
    both = Page(browse(text, tmp_path, "#verdict=PASS&split=unseen"))
    assert both.visible == _with(both, split="unseen")
    assert {one["data-verdict"] for one in both.said if one["shown"] == "True"} == {"PASS"}
    wanted = [
        one["data-verdict"] == "PASS" and card["data-split"] == "unseen"
        for one, card in zip(whole.said, whole.cards, strict=True)
    ]
    assert len(both.visible) == sum(wanted) == 6
    assert "6 of 72 answers" in both.sections["rows"]
    hashes = {
        "verdict=PASS": "34",
        "verdict=PASS&split=unseen&family=wh&type=wh/who": "6",
        "q=SIILASVUO%20tolvajarvi": str(sum(_has(card["text"], "siilasvuo", "tolvajärvi") for card in whole.cards)),
        "row=i5": "1",
        "verdict=UNSCORED&split=unseen": "0",
        "canaries": "0",  # a place on the page, not a filter: what was narrowed stays
        "": "72",
        "verdict=%ZZ&x": "72",  # there is no such value
    }
    script = f"""
      const said = [];
      for (const hash of {list(hashes)}) {{ location.hash = hash; await wait(); said.push(all('.q:not([hidden])').length);
        if ($('#tally').textContent.split(' ')[0].replace('All', '72') !== String(said.at(-1))) said.push('tally'); }}
      document.title = said.join();
    """
    assert _told(text, tmp_path, script).split(",") == list(hashes.values())


def _has(text: str, *words: str) -> bool:
    return all(word in text.lower() for word in words)


def test_the_controls_narrow_and_the_address_keeps_it(tmp_path: Path) -> None:
    text = _page(tmp_path, unscored=2)
    script = """
      const count = () => all('.q:not([hidden])').length;
      const set = (name, value) => { const one = $('#filter').elements[name]; one.value = value;
        one.dispatchEvent(new Event(one.type === 'search' ? 'input' : 'change', {bubbles: true})); };
      const said = [count()];
      set('verdict', 'FAIL'); said.push(count(), location.hash);
      set('split', 'unseen'); said.push(count(), location.hash);
      set('q', 'contradicted 5'); await wait(); said.push(location.hash);
      $('.tally .reset').click(); said.push(count(), location.hash);
      $('#articles tbody a').click(); await wait(); said.push(count(), location.hash, $('#filter').elements.article.value);
      dispatchEvent(new KeyboardEvent('keydown', {key: '/', bubbles: true}));
      document.body.dispatchEvent(new KeyboardEvent('keydown', {key: '/', bubbles: true}));
      said.push(document.activeElement.name);
      document.title = said.join(' | ');
    """
    assert _told(text, tmp_path, script).split(" | ") == [
        "72", "36", "#verdict=FAIL", "18", "#verdict=FAIL&split=unseen", "#q=contradicted%205&verdict=FAIL&split=unseen",
        "72", "#rows", "6", "#article=a10&split=phrasing", "a10", "q",
    ]  # fmt: skip


@pytest.mark.slow
def test_tables_are_sorted_and_snippets_lent(tmp_path: Path) -> None:
    text = _page(tmp_path)
    script = """
      const column = (at) => all('#types tbody tr').map((line) => line.cells[at].dataset.key);
      const heads = all('#types thead button');
      heads[1].click(); const down = column(2).map(Number);
      heads[1].click(); const up = column(2).map(Number);
      heads[0].click(); const names = column(0);
      const fine = [down.every((one, at) => !at || down[at - 1] >= one), up.every((one, at) => !at || up[at - 1] <= one),
        down[0] > down[3], names[0] + names[2]];
      const one = $('.q:nth-of-type(3) .passage'); one.open = true; await wait();
      fine.push(one.querySelector('.lent').textContent === $('#p' + one.closest('.q').dataset.passage + ' .text').textContent);
      fine.push(getComputedStyle($('#passages')).display);
      document.title = fine.join(' | ');
    """
    assert _told(text, tmp_path, script) == "true | true | true | choice/fourwh/when | true | none"


@pytest.mark.slow
def test_two_students_are_filtered_by_what_changed(tmp_path: Path) -> None:
    text = _page(tmp_path, better=1)
    seen = Page(browse(text, tmp_path, "#change=gained&run=2"))
    assert len(seen.visible) == 18
    assert "18 of 144 answers" in seen.sections["rows"]
    pairs = [one["data-verdict"] for one in seen.said if one["shown"] == "True"]
    assert pairs == ["FAIL", "PASS"] * 18


@pytest.mark.slow
@pytest.mark.parametrize("hostile", ["", "W" * 300], ids=["plain", "one long word"])
def test_it_fits_a_phone(tmp_path: Path, hostile: str) -> None:
    text = _page(tmp_path, hostile, better=1)
    measure = (  # answers out of sight have no layout unless they are told to
        "<style>.q { content-visibility: visible !important }</style>"
        "<script>onload = () => { const edge = document.documentElement.clientWidth; for (const one of"
        " document.querySelectorAll('details')) one.open = true;"
        " const wide = [...document.querySelectorAll('body *')].filter((one) => !one.closest('svg') &&"
        " one.getBoundingClientRect().right > edge + 0.5).map((one) => one.tagName + '.' + one.className);"
        " document.title = [document.documentElement.scrollWidth <= edge && edge <= 375, ...new Set(wide)].join() }</script>"
    )
    inner = html.escape(_bare(text).replace("</body>", f"{measure}</body>"))
    # A frame is exactly as wide as it is told; a window of a headless browser need not be.
    frame = f'<iframe srcdoc="{inner}" width="375" height="800" style="border:0"></iframe>'
    wait = "<script>onload = () => { document.title = frames[0].document.title }</script>"
    assert Page(browse(f"<!DOCTYPE html><title>-</title><body>{frame}{wait}", tmp_path)).title == "true"
