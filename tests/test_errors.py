# SPDX-License-Identifier: Apache-2.0
"""Text of unknown origin in an error."""

from __future__ import annotations

import os

import pytest

from ttyscribe.errors import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"\xd0\xff\x80a", r"\xd0\xff\x80a"),
        (os.fsdecode(b"na\xefve"), r"na\xefve"),
        ("\x1b[0m\n\u2028", r"\x1b[0m\n\u2028"),
        ("\ud800", r"\ud800"),
        ("Привет, 'x'", "Привет, 'x'"),
    ],
)
def test_what_a_terminal_would_obey_or_not_show_is_escaped(text: str | bytes, shown: str) -> None:
    assert printable(text) == shown
