"""Take the picture of docs/judging.md: the top of a judge's report, as a browser shows it.

    python scripts/judge_pictures.py VERDICTS [--into docs/pictures] [--width 1100] [--height 1290] [--dark] [--at '#verdict=FAIL']

Guarantees: the page is the one `judge report` writes; nothing but the picture is left behind. Cost: about 3 s; needs a
Chromium (`chromium`, `chromium-browser` or `google-chrome` on PATH).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from judge.report.collect import collect  # noqa: E402
from judge.report.page import render  # noqa: E402

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NARROWEST = 500  # pixels: a headless window is no narrower, so a phone is shown in a frame


def picture(page: str, out: Path, *, width: int, height: int, dark: bool, at: str) -> None:
    """Write a PNG of `width` x `height` pixels of `page`, opened at the hash `at`. Raises `SystemExit` without a browser."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise SystemExit(f"no browser on PATH: install one of {', '.join(BROWSERS)}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "page.html").write_text(page, encoding="utf-8")
        (folder / "frame.html").write_text(
            "<!DOCTYPE html><style>body { margin: 0 } iframe { border: 0; display: block }</style>"
            f'<iframe src="page.html{at}" width="{width}" height="{height}"></iframe>'
        )
        flags = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={folder / 'profile'}", f"--window-size={max(width, NARROWEST)},{height}",
            f"--screenshot={out.absolute()}",
        ]  # fmt: skip
        if dark:
            flags.append("--blink-settings=preferredColorScheme=0")
        address = (folder / "frame.html").as_uri()
        done = subprocess.run([browser, *flags, address], capture_output=True, text=True, timeout=120)
        if done.returncode or not out.is_file():
            raise SystemExit(f"the browser took no picture:\n{done.stderr[-2000:]}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("verdicts", type=Path, nargs="+")
    options.add_argument("--into", type=Path, default=REPOSITORY / "docs" / "pictures")
    options.add_argument("--name", default="judge-report")
    options.add_argument("--width", type=int, default=1100)
    options.add_argument("--height", type=int, default=1290)
    options.add_argument("--dark", action="store_true")
    options.add_argument("--at", default="", help="a hash of the page: a section, or filters")
    chosen = options.parse_args()
    chosen.into.mkdir(parents=True, exist_ok=True)
    out = chosen.into / f"{chosen.name}.png"
    page = render(collect(chosen.verdicts))
    picture(page, out, width=chosen.width, height=chosen.height, dark=chosen.dark, at=chosen.at)
    print(out)


if __name__ == "__main__":
    main()
