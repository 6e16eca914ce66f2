"""The report in a real browser: it executes nothing, shows its pictures, and fits a phone."""

from __future__ import annotations

import html
import shutil
import subprocess
from pathlib import Path

import pytest

from generator.report.collect import collect
from generator.report.page import render
from tests.generator.report_workspace import HOSTILE, STAGES, Page, build

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
POLICY = '<meta http-equiv="Content-Security-Policy"'

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: the page is not opened in a browser")


def _dump(page: str, folder: Path) -> Page:
    """The page as a real browser sees it after its scripts, if any, have run."""
    assert CHROMIUM is not None
    (folder / "page.html").write_text(page)
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={folder / 'profile'}",
    ]  # fmt: skip
    address = (folder / "page.html").as_uri()
    done = subprocess.run([CHROMIUM, *flags, "--dump-dom", address], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return Page(done.stdout)


def test_a_browser_executes_nothing_of_a_record(tmp_path: Path) -> None:
    text = render(collect(build(tmp_path, *STAGES, hostile=HOSTILE).workspace))
    assert text.count(POLICY) == 1
    bare = "\n".join(line for line in text.splitlines() if POLICY not in line)  # escaping alone has to do
    control = _dump(f"<!DOCTYPE html><title>w: report</title><body>{HOSTILE}", tmp_path)
    assert control.title == "ran"  # this browser does run what is not escaped
    seen = _dump(bare, tmp_path)
    assert seen.title == "w: report"
    assert seen.count("script") == 0
    assert seen.count("img") == 1
    for section in ("corpus", "generation", "records", "rejects", "answers"):
        assert HOSTILE in seen.sections[section], section
    # And the policy alone has to do, too.
    assert _dump(text.replace("<body>", f"<body>{HOSTILE}"), tmp_path).title == "w: report"


@pytest.mark.slow
def test_a_browser_shows_the_plot_and_the_chart_and_fits_a_phone(tmp_path: Path) -> None:
    text = render(collect(build(tmp_path, *STAGES).workspace))
    measure = (
        "<script>onload = () => { const image = document.querySelector('img'); const body = document.documentElement;"
        " document.title = [image.naturalWidth, image.naturalHeight, document.querySelectorAll('.chart .dot').length,"
        " body.scrollWidth <= 400].join() }</script>"
    )
    inner = html.escape(
        "\n".join(line for line in text.splitlines() if POLICY not in line).replace("</body>", f"{measure}</body>")
    )
    # A frame is exactly as wide as it is told; a window of a headless browser need not be.
    frame = f'<iframe srcdoc="{inner}" width="400" height="800" style="border:0"></iframe>'
    wait = "<script>onload = () => { document.title = frames[0].document.title }</script>"
    assert _dump(f"<!DOCTYPE html><title>-</title><body>{frame}{wait}", tmp_path).title == "8,4,8,true"
