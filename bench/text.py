# SPDX-License-Identifier: Apache-2.0
"""The text that is recorded: always the same, and like what terminals show."""

from __future__ import annotations

import random
from pathlib import Path

WORDS = """
the recorder writes what passes on its terminal compiling linking error warning note
src/main.c lib/session/pump.py usr share doc kernel systemd[1]: Started Session of user
0x7ffd4c1e 127.0.0.1 2026-11-22T20:31:07 naïve Grüße żółw über Ελληνικά привет мир 日本語
端末 한국어 → ✓ … “quoted” {json: true} -rw-r--r-- root root drwxr-xr-x
""".split()  # noqa: SIM905 -- a text reads better than a list
COLOURS = (31, 32, 33, 34, 35, 36, 90, 94)


def line(rng: random.Random) -> str:
    """One line: log, listing, compiler, progress bar or box, 0 to some 200 columns wide."""
    kind = rng.random()
    words = " ".join(rng.choices(WORDS, k=rng.randrange(3, 24)))
    if kind < 0.45:
        return words
    if kind < 0.70:
        colour = rng.choice(COLOURS)
        return f"\x1b[1;{colour}m{rng.choice(WORDS)}\x1b[0m: {words}"
    if kind < 0.85:
        size = rng.randrange(1, 9_999_999)
        when = f"Nov 22 20:{rng.randrange(60):02}"
        return f"-rw-r--r-- 1 root root {size:>8} {when} \x1b[34m{words[:40]}\x1b[0m"
    if kind < 0.92:
        done = rng.randrange(60)
        return f"\r\x1b[K[{'█' * done}{'░' * (60 - done)}] {done * 100 // 60:3}%"
    if kind < 0.97:
        return f"│ {words[:60]:<60} │"
    return ""


def write(path: Path, size: int) -> None:
    """Write whole lines of text, at least size bytes of UTF-8, the same at every run."""
    rng = random.Random(20261122)
    lines = [line(rng).encode() + b"\n" for _ in range(20_000)]
    written = 0
    with path.open("wb") as file:
        while written < size:
            block = b"".join(rng.choices(lines, k=5_000))
            file.write(block)
            written += len(block)
