# SPDX-License-Identifier: Apache-2.0
"""Which limits journald is configured with, its namespace, and how a budget keeps below them."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from ttyscribe.writers.journald import DEFAULT, PATH, SHARE, Budget, namespace, rate_limit

SECOND = 1_000_000_000


def folders(tmp_path: Path) -> tuple[str, ...]:
    return tuple(str(tmp_path / name) for name in ("etc", "run", "usr"))


def write(tmp_path: Path, name: str, *lines: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["[Journal]", *lines]) + "\n")


def test_without_a_configuration_journalds_own_defaults_count(tmp_path: Path) -> None:
    assert rate_limit("", folders(tmp_path)) == DEFAULT


@pytest.mark.parametrize(
    ("lines", "limit"),
    [
        (["RateLimitIntervalSec=5", "RateLimitBurst=20"], (5 * SECOND, 20)),
        (["RateLimitIntervalSec = 1min 30s"], (90 * SECOND, 10_000)),
        (["RateLimitInterval=500ms"], (SECOND // 2, 10_000)),
        (["RateLimitBurst=0"], None),
        (["RateLimitIntervalSec=0"], None),
        (["#RateLimitBurst=5", ";RateLimitBurst=6"], DEFAULT),
        (["RateLimitBurst=many", "RateLimitIntervalSec=soon"], DEFAULT),
        (["[Other]", "RateLimitBurst=5"], DEFAULT),
    ],
)
def test_limit_is_what_journald_reads(
    tmp_path: Path, lines: list[str], limit: tuple[int, int] | None
) -> None:
    write(tmp_path, "etc/journald.conf", *lines)
    assert rate_limit("", folders(tmp_path)) == limit


def test_drop_ins_win_by_name_and_the_admins_hides_the_distributions(tmp_path: Path) -> None:
    write(tmp_path, "etc/journald.conf", "RateLimitBurst=1")
    write(tmp_path, "run/journald.conf.d/20.conf", "RateLimitBurst=2")
    write(tmp_path, "usr/journald.conf.d/30.conf", "RateLimitBurst=3")
    write(tmp_path, "usr/journald.conf.d/10.conf", "RateLimitBurst=4")
    assert rate_limit("", folders(tmp_path)) == (DEFAULT[0], 3)
    write(tmp_path, "etc/journald.conf.d/30.conf", "")
    assert rate_limit("", folders(tmp_path)) == (DEFAULT[0], 2)


def test_a_namespace_has_limits_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, "etc/journald.conf", "RateLimitBurst=1")
    write(tmp_path, "etc/journald@ttyscribe.conf", "RateLimitBurst=2")
    write(tmp_path, "usr/journald@ttyscribe.conf.d/a.conf", "RateLimitIntervalSec=0")
    assert rate_limit("", folders(tmp_path)) == (DEFAULT[0], 1)
    assert rate_limit("ttyscribe", folders(tmp_path)) is None


def test_namespace_that_is_mounted_in_the_journals_place_is_named(tmp_path: Path) -> None:
    """As systemd does for a service with LogNamespace=."""
    for name in ("journal", "journal.one", "journal.two"):
        (tmp_path / name).mkdir()
    socket = str(tmp_path / "journal/socket")
    assert namespace(socket) == ""
    mount = ["mount", "--bind", str(tmp_path / "journal.two"), str(tmp_path / "journal")]
    subprocess.run(mount, check=True)
    try:
        assert namespace(socket) == "two"
    finally:
        subprocess.run(["umount", str(tmp_path / "journal")], check=True)
    assert namespace(str(tmp_path / "journal.one/socket")) == "one"


def test_this_machines_own_journal_is_no_namespace() -> None:
    assert namespace(PATH) == ""


def test_no_interval_has_more_than_the_share_of_all_processes(tmp_path: Path) -> None:
    interval, burst = 150_000_000, 100
    read, write = os.pipe()
    for _ in range(2):
        if os.fork() == 0:
            budget = Budget(str(tmp_path), (interval, burst))
            end = time.monotonic_ns() + 5 * interval
            while (now := time.monotonic_ns()) < end:
                taken = budget.take(7)
                if taken == 7:
                    budget.give_back(2)
                    taken = 5
                if taken:
                    os.write(write, b"%d %d\n" % (now, taken))
                time.sleep(0.001)
            os._exit(0)
    os.close(write)
    with open(read) as file:
        sent = sorted(tuple(map(int, line.split())) for line in file)
    for _ in range(2):
        os.wait()
    sums = [sum(count for at, count in sent if begin <= at < begin + interval) for begin, _ in sent]
    # What was given back is not lost: nearly all of the share is used.
    assert burst * SHARE * 0.9 <= max(sums) <= burst * SHARE


def test_a_folder_that_cannot_be_written_leaves_the_process_its_own_budget() -> None:
    budget = Budget("/nonexistent", (SECOND * 60, 10))
    assert [budget.take(5), budget.take(5), budget.take(5)] == [5, 3, 0]
    assert budget.exhausted
    budget.close()


def test_what_was_counted_before_a_reboot_blocks_nothing(tmp_path: Path) -> None:
    (tmp_path / "journal.sent").write_bytes(b"\xff" * 1000)
    assert Budget(str(tmp_path), (SECOND, 10)).take(20) == 8
