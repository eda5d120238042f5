# SPDX-License-Identifier: Apache-2.0
"""The command line of bench/run: rounds, medians, and the table."""

from __future__ import annotations

import argparse
import compileall
import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path

import host
import subjects
from measures import FULL, MEASURES, QUICK, Bench, Measure, Row

DESCRIPTION = """\
Measure ttyscribe against tlog, script and asciinema on this machine, in one run, taking
turns; the table shows medians, and the ratio to tlog. "bare" is the same on a terminal
that nobody records.

Each program runs on a pseudo-terminal that is emptied as fast as it fills. Times are
from exec to exit. CPU is user + system of the recorder and of all that it started.
Memory is PSS, of all processes of a recording but the recorded command. Compare only
within one run.
"""
EPILOG = """\
examples:
  bench/run                       everything; some minutes
  bench/run --quick               a first impression
  bench/run --only bulk --only echo --rounds 9
  bench/run --json >figures.json

It needs root for the journal, and for what tlog-rec needs: /run/utmp and /run/tlog, which
are made where missing and removed again.
"""

# subject: a list for each row of the samples of all rounds
Samples = dict[str, list[list[float]]]


def main() -> int:
    names = [measure.name for measure in MEASURES]
    parser = argparse.ArgumentParser(
        prog="bench/run",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, no 1 GB session")
    parser.add_argument("--only", action="append", choices=names, help="may be repeated")
    parser.add_argument("--rounds", type=int, help=f"default: {FULL.rounds}")
    parser.add_argument("--json", action="store_true", help="all samples, on stdout")
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    sizes = QUICK if options.quick else FULL
    if options.rounds:
        sizes = sizes._replace(rounds=options.rounds)
    chosen = [m for m in MEASURES if not options.only or m.name in options.only]
    if not sizes.long_session and not options.only:
        chosen = [m for m in chosen if m.name not in ("long", "pipe")]
    # As installed: a login that compiles what was edited measures the compiler.
    compileall.compile_dir(subjects.ROOT / "src", quiet=2)
    with tempfile.TemporaryDirectory(prefix="ttyscribe-bench-") as scratch:
        bench = Bench(Path(scratch), sizes)
        results = {measure.name: take(bench, measure) for measure in chosen}
    if options.json:
        print(json.dumps({"machine": machine(), "measures": as_json(chosen, results)}, indent=1))
    else:
        print(table(chosen, results))
        print(f"\n{machine()}; medians of {sizes.rounds} rounds.")
    return 0 if all(results.values()) else 1


def take(bench: Bench, measure: Measure) -> Samples:
    """All rounds of a measure, its subjects taking turns; without those that fail."""
    with host.login_records(), host.journald() as journal, contextlib.ExitStack() as stack:
        if measure.service and not stack.enter_context(host.service(bench.environment)):
            note(f"{measure.name}: the recorder service can't be started here: it needs root, and")
            note("that none runs and /etc/ttyscribe/rec-session.conf is not there")
            return {}
        if measure.name == "journal" and not journal:
            note("journal: no journald runs, and none can be started")
            return {}
        samples: Samples = {}
        for subject in measure.subjects:
            if why := subjects.available(subject):
                note(f"{measure.name}: without {subject}: {why}")
            else:
                samples[subject] = [[] for _ in measure.rows]
        for number in range(1 if measure.once else bench.sizes.rounds):
            for subject in list(samples):
                progress(f"{measure.name}: round {number + 1}: {subject}")
                try:
                    figures = measure.sample(bench, subject)
                except (RuntimeError, TimeoutError, OSError) as error:
                    note(f"{measure.name}: without {subject}: {shortened(str(error))}")
                    del samples[subject]
                    continue
                for values, figure in zip(samples[subject], figures, strict=True):
                    values.append(figure)
    progress("")
    return samples


def ratio(samples: Samples, row: int) -> float | None:
    """ttyscribe's median divided by tlog's."""
    if "ttyscribe" not in samples or "tlog" not in samples:
        return None
    reference = statistics.median(samples["tlog"][row])
    return statistics.median(samples["ttyscribe"][row]) / reference if reference else None


def verdict(row: Row, value: float | None) -> str:
    """The goal, and whether it is reached."""
    if not row.goal or value is None:
        return row.goal
    sign, number = row.goal.split()
    reached = value >= float(number) if sign == ">=" else value <= float(number)
    return f"{row.goal} {'met' if reached else 'MISSED'}"


def table(chosen: list[Measure], results: dict[str, Samples]) -> str:
    """The medians as a Markdown table."""
    heads = ["what", "unit", *subjects.RECORDERS, "ttyscribe / tlog", "goal"]
    lines = [heads, ["---"] * len(heads)]
    for measure in chosen:
        samples = results[measure.name]
        for index, row in enumerate(measure.rows):
            cells = [row.title, row.unit]
            for subject in subjects.RECORDERS:
                if subject in samples:
                    cells.append(shown(statistics.median(samples[subject][index]), row.digits))
                else:
                    cells.append("")
            value = ratio(samples, index)
            if row.absolute and "ttyscribe" in samples:
                value = statistics.median(samples["ttyscribe"][index])
            # Of a growth near nothing a ratio says nothing.
            plain = value is None or row.absolute or "growth" in row.title
            lines.append([*cells, "" if plain else f"{value:.2f}", verdict(row, value)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    lines[1] = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def shown(figure: float, digits: int) -> str:
    text = f"{figure:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def as_json(chosen: list[Measure], results: dict[str, Samples]) -> list[dict[str, object]]:
    return [
        {
            "measure": measure.name,
            "title": row.title,
            "unit": row.unit,
            "goal": row.goal,
            "ratio": ratio(results[measure.name], index),
            "samples": {name: rows[index] for name, rows in results[measure.name].items()},
        }
        for measure in chosen
        for index, row in enumerate(measure.rows)
    ]


def machine() -> str:
    return f"{os.cpu_count()} CPUs, Linux {platform.release()}, Python {platform.python_version()}"


def shortened(line: str) -> str:
    return line if len(line) <= 200 else f"{line[:60]} ... {line[-130:]}"


def progress(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


def note(line: str) -> None:
    progress("")
    print(f"bench/run: {line}", file=sys.stderr, flush=True)
