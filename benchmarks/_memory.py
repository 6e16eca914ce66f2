"""How much memory a process and its children hold, as the kernel shares it out among them."""

from __future__ import annotations

from pathlib import Path

import psutil


def shared_memory(process: psutil.Popen | psutil.Process) -> int:
    """Sum of the proportional set sizes of a process and its children, in bytes; 0 once it has ended."""
    total = 0
    try:
        everyone = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0
    for one in everyone:
        try:
            text = Path(f"/proc/{one.pid}/smaps_rollup").read_text()
        except OSError:
            continue  # it ended meanwhile
        total += sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))
    return total
