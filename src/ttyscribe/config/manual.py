# SPDX-License-Identifier: Apache-2.0
"""The settings' part of the conf(5) manual pages, in mdoc(7), for generate.py.

The rest of a page is written by hand; the settings stand between two comments.
"""

from __future__ import annotations

import json
import re
import textwrap

from ttyscribe.config.describe import allowed, properties

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ttyscribe.config.fast import Schema

BEGIN = '.\\" Generated from models.py by `python -m ttyscribe.config.generate`: the settings.'
END = '.\\" The settings end here.'
# mandoc(1) wants no source line longer than 80 bytes.
WIDTH = 78


def with_settings(page: str, schema: Schema) -> str:
    """The page with its settings brought up to date. Raises ValueError without the comments."""
    before, begin, rest = page.partition(BEGIN + "\n")
    _, end, after = rest.partition(END + "\n")
    if not begin or not end:
        raise ValueError(f"the page lacks the lines {BEGIN!r} and {END!r}")
    return before + begin + "\n".join(settings(schema)) + "\n" + end + after


def settings(schema: Schema) -> list[str]:
    """The lines that describe all settings below a schema, its own first."""
    single = {name: part for name, part in properties(schema).items() if not properties(part)}
    objects = {name: part for name, part in properties(schema).items() if properties(part)}
    lines = [".Ss The file itself", *items(single, "")]
    for name, part in objects.items():
        lines += [f".Ss The object \\(dq{name}\\(dq", *text(str(part["description"]))]
        lines += items(properties(part), f"{name}.")
    return lines


def items(parts: dict[str, Schema], prefix: str) -> list[str]:
    """A list of settings."""
    lines = [".Bl -tag -width Ds"]
    for name, part in parts.items():
        lines.append(f".It Cm {prefix}{name}")
        lines += text(str(part["description"]))
        lines += text(f"Allowed: {allowed(part)}.")
        lines += text(f"Default: {json.dumps(part['default'], ensure_ascii=False)}.")
    return [*lines, ".El"]


def text(words: str) -> list[str]:
    """Words as source lines: each sentence begins a line, as roff wants it."""
    lines: list[str] = []
    for sentence in re.split(r"(?<=\.) (?=\S)", words):
        lines += textwrap.wrap(
            escaped(sentence), WIDTH, break_long_words=False, break_on_hyphens=False
        )
    # A line that begins so would be a request.
    return [f"\\&{line}" if line[0] in ".'" else line for line in lines]


def escaped(words: str) -> str:
    """Words in which nothing means something to roff, and no minus becomes a hyphen.

    What is typed as it stands is not divided at a line's end.
    """
    words = re.sub(r'"[^"]*"', literal, words.replace("\\", "\\e"))
    words = re.sub(r"(?<![a-z\\])-|(?<!\\)-(?![a-z])", r"\\-", words)
    return re.sub(r'(?<!\S)(?=\S*["_/])', r"\\%", words)


def literal(found: re.Match[str]) -> str:
    return found.group().replace("-", "\\-")
