# SPDX-License-Identifier: Apache-2.0
"""Find every problem in a configuration's text, each with its place and what is allowed."""

from __future__ import annotations

import difflib

from pydantic import ValidationError

from ttyscribe.config import describe, fast, jsonc
from ttyscribe.config.models import MODELS
from ttyscribe.errors import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ttyscribe.config.fast import Schema, Values
    from ttyscribe.config.jsonc import Node


class Problem:
    """One thing that is wrong: line and column (from 1), the key's path, and what to do.

    line and column are 0 where the file as a whole is concerned,
    key is "" where no key is concerned, allowed where nothing is to be said,
    suggestion where no key is close to a misspelt one.
    """

    def __init__(
        self,
        line: int,
        column: int,
        key: str,
        message: str,
        allowed: str = "",
        suggestion: str = "",
    ) -> None:
        self.line = line
        self.column = column
        self.key = key
        self.message = message
        self.allowed = allowed
        self.suggestion = suggestion

    def line_for(self, file: str) -> str:
        """The problem in one line: FILE:LINE:COLUMN: KEY: what; allowed: ..."""
        text = f"{file}:{self.line}:{self.column}: " if self.line else f"{file}: "
        if self.key:
            text += f"{self.key}: "
        text += self.message
        if self.suggestion:
            text += f'; did you mean "{self.suggestion}"?'
        elif self.allowed:
            text += f"; allowed: {self.allowed}"
        return printable(text)


def examine(program: str, text: str) -> tuple[Values, list[Problem]]:
    """The settings that text holds, normalised, and every problem in order of place.

    The settings are those that can be used only if there is no problem.
    """
    parsed = jsonc.parse(text)
    problems = [Problem(*jsonc.place(text, at), "", what) for at, what in parsed.mistakes]
    values: Values = {}
    if parsed.root is not None:
        try:
            model = MODELS[program].model_validate(parsed.root.plain())
            values = model.model_dump(exclude_unset=True)
        except ValidationError as error:
            places = {(p.line, p.column) for p in problems}
            for problem in from_models(program, text, parsed.root, error):
                if (problem.line, problem.column) not in places:
                    problems.append(problem)
    problems.sort(key=lambda p: (p.line, p.column))
    return values, problems[: jsonc.MOST_MISTAKES]


def notes(program: str, text: str) -> list[Problem]:
    """What is valid in text and has no effect."""
    root = jsonc.parse(text).root
    schema = fast.load_schema(program)
    found = []
    for key, part in describe.properties(schema).items():
        if root is not None and "x-no-effect" in part and key in root.members:
            _, node = root.members[key]
            for inner, (at, _) in node.members.items():
                place = jsonc.place(text, at)
                found.append(
                    Problem(*place, f"{key}.{inner}", "accepted for tlog's sake, has no effect")
                )
    return found


def from_models(program: str, text: str, root: Node, error: ValidationError) -> list[Problem]:
    """One problem for each setting that the models refuse, in our words."""
    schema = fast.load_schema(program)
    found: dict[str, Problem] = {}
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        if len(found) >= jsonc.MOST_MISTAKES:
            break
        path, part, node, key_at = locate(schema, root, detail["loc"])
        if path in found:  # the alternatives of one value are refused one by one
            continue
        if detail["type"] == "extra_forbidden":
            found[path] = unknown_key(schema, text, path, key_at)
            continue
        shown = shown_value(text, node)
        line, column = jsonc.place(text, node.start)
        found[path] = Problem(
            line, column, path, f"{shown} {why(node, part)}", describe.allowed(part)
        )
    return list(found.values())


def locate(schema: Schema, root: Node, loc: tuple[int | str, ...]) -> tuple[str, Schema, Node, int]:
    """The path, schema, node, and the key's offset that a place in pydantic's terms means.

    Behind a setting itself pydantic adds the alternatives it tried, which are left out.
    """
    path = ""
    part, node, key_at = schema, root, root.start
    for step in loc:
        if isinstance(step, int):
            if step < len(node.items):
                node = node.items[step]
                path += f"[{step}]"
                part = describe.item(part)
            break
        if node.kind != "object" or step not in node.members:
            break
        key_at, node = node.members[step]
        path += f".{step}" if path else step
        part = describe.properties(part).get(step, part)
    return path, part, node, key_at


def unknown_key(schema: Schema, text: str, path: str, at: int) -> Problem:
    *above, key = path.split(".")
    parent = describe.at(schema, above) or schema
    names = list(describe.properties(parent))
    # The right key in the wrong section comes before one that only looks alike.
    elsewhere = [p for p, _ in describe.settings_of(schema) if p.split(".")[-1] == key]
    if len(elsewhere) == 1:
        suggestion = elsewhere[0]
    else:
        close = difflib.get_close_matches(key.lower(), names, n=1, cutoff=0.6)
        suggestion = close[0] if close else ""
    line, column = jsonc.place(text, at)
    known = describe.alternatives_text([f'"{name}"' for name in names])
    shown = ".".join([*above, jsonc.shorten(key)])
    return Problem(line, column, shown, "there is no such key", known, suggestion)


def shown_value(text: str, node: Node) -> str:
    if node.kind == "object":
        return "{...}"
    if node.kind == "array":
        return "[...]"
    return jsonc.shorten(text[node.start : node.end])


def why(node: Node, part: Schema) -> str:
    """What is wrong with a value, as far as its kind tells."""
    kinds = {
        "object": "is an object",
        "array": "is a list",
        "string": "is text",
        "number": "is a number",
        "constant": "is " + ("null" if node.value is None else "true or false"),
    }
    wanted = describe.kinds(part)
    if node.kind == "number" and wanted & {"integer", "number"}:
        if "number" not in wanted and isinstance(node.value, float):
            return "has a fraction or exponent"
        return "is out of range"
    if node.kind == "string" and "string" in wanted:
        return "is not one of these" if "enum" in part else "can't be used here"
    if node.kind == "constant":
        return "can't be used here"
    return kinds[node.kind]
