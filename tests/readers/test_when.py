# SPDX-License-Identifier: Apache-2.0
"""Times as journalctl takes them, compared with systemd-analyze."""

from __future__ import annotations

import re
import subprocess
import time

import pytest

from ttyscribe.errors import UsageError
from ttyscribe.readers.when import parse_time

AS_SYSTEMD = [
    "now", "today", "yesterday", "tomorrow", "today UTC", "2019-09-03", "2019-09-03 10:00:05",
    "2019-09-03 10:00", "2019-09-03 10:00:05.25", "2019-09-03 10:00 UTC", "19-09-03",
    "Tue 2019-09-03", "Tuesday 2019-09-03", "10:00", "10:00:05", "2019-9-3", "@123.5", "@1h",
    "-20min", "-1.5h", "-5", "+1h30m", "20min ago", "1d 2h ago", "1h left", "-1month", "-1w2d",
    "- 20min", "+5 m", "-1y", "10:00:60", "1969-01-01 ago", "2019-13-01", "2019-09-03 25:00",
    "Mon 2019-09-03", "yesterday 10:00", "", "@-5", "tuesday", "-", "20 parsecs ago",
]  # fmt: skip


@pytest.mark.parametrize("text", AS_SYSTEMD)
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_time_means_what_it_means_to_systemd(
    text: str, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        answer = subprocess.run(
            ["systemd-analyze", "timestamp", "--", text], capture_output=True, text=True
        )
        found = re.search(r"UNIX seconds: @([0-9.]+)", answer.stdout)
        if found is None:
            with pytest.raises(UsageError):
                parse_time(text)
        else:
            assert parse_time(text) == pytest.approx(float(found[1]), abs=3)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_bare_number_is_epoch_seconds_as_for_tlog() -> None:
    assert parse_time("1567504805") == 1567504805


def test_other_zones_can_be_named() -> None:
    assert parse_time("2019-09-03 10:00 Europe/Berlin") == 1567497600
    assert parse_time("2019-09-03T10:00:05Z") == 1567504805


@pytest.mark.parametrize("text", ["9" * 400, "@" + "9" * 400, "-\n", "@nan", "2019-09-03 1e3:00"])
def test_absurd_time_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_time(text)
