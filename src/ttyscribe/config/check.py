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
    from collections.abc import Iterable

    from ttyscribe.config.fast import Schema, Values
    from ttyscribe.config.jsonc import Node


class Problem:
    """One thing that is wrong: line and column (from 1), the key's path, and what to do.

    line and column are 0 where the file as a whole is concerned,
    key is "" where no key is concerned, allowed where nothing is to be said,
    suggestion where no key is close to a misspelt one; else it is that one's path,
    and hint what to write.
    """

    def __init__(
        self,
        line: int,
        column: int,
        key: str,
        message: str,
        allowed: str = "",
        suggestion: str = "",
        hint: str = "",
    ) -> None:
        self.line = line
        self.column = column
        self.key = key
        self.message = message
        self.allowed = allowed
        self.suggestion = suggestion
        self.hint = hint

    def line_for(self, file: str) -> str:
        """The problem in one line: FILE:LINE:COLUMN: KEY: what; allowed: ..."""
        text = f"{file}:{self.line}:{self.column}: " if self.line else f"{file}: "
        if self.key:
            text += f"{self.key}: "
        text += self.message
        if self.hint:
            text += f"; did you mean {self.hint}?"
        if self.allowed:
            text += f"{'' if self.hint else ';'} allowed: {self.allowed}"
        return printable(text)


class Problems(list[Problem]):
    """Problems in order of place, and how many more there are than are kept."""

    more = 0


def examine(program: str, text: str) -> tuple[Values, Problems]:
    """The settings that text holds, normalised, and every problem in order of place.

    The settings are those that can be used only if there is no problem.
    """
    parsed = jsonc.parse(text)
    problems = Problems(
        Problem(*jsonc.place(text, at), key, what) for at, what, key in parsed.mistakes
    )
    problems.more = len(parsed.more)
    values: Values = {}
    if parsed.root is not None:
        try:
            model = MODELS[program].model_validate(parsed.root.plain())
            values = model.model_dump(exclude_unset=True)
        except ValidationError as error:
            told = {*parsed.more, *(at for at, _, _ in parsed.mistakes)}
            found = from_models(program, text, parsed.root, error, told)
            problems += found
            problems.more += found.more
    problems.sort(key=lambda p: (p.line, p.column))
    problems.more += len(problems[jsonc.MOST_MISTAKES :])
    del problems[jsonc.MOST_MISTAKES :]
    return values, problems


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


def from_models(
    program: str, text: str, root: Node, error: ValidationError, told: set[int]
) -> Problems:
    """One problem for each setting that the models refuse, in our words.

    told are the offsets of which something is said already.
    """
    schema = fast.load_schema(program)
    found = Problems()
    seen: set[tuple[int | str, ...]] = set()
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        keys, part, node, key_at = locate(schema, root, detail["loc"])
        is_unknown = detail["type"] == "extra_forbidden"
        # The alternatives of one value are refused one by one.
        if keys in seen or (key_at if is_unknown else node.start) in told:
            continue
        seen.add(keys)
        if len(found) >= jsonc.MOST_MISTAKES:
            found.more += 1
        elif is_unknown:
            found.append(unknown_key(schema, text, [str(key) for key in keys], key_at))
        else:
            line, column = jsonc.place(text, node.start)
            what = f"{shown_value(text, node)} {why(node, part)}"
            found.append(Problem(line, column, path_of(keys), what, describe.allowed(part)))
    return found


def locate(
    schema: Schema, root: Node, loc: tuple[int | str, ...]
) -> tuple[tuple[int | str, ...], Schema, Node, int]:
    """The keys, schema, node, and the key's offset that a place in pydantic's terms means.

    Behind a setting itself pydantic adds the alternatives it tried, which are left out.
    """
    depth = 0
    part, node, key_at = schema, root, root.start
    for step in loc:
        if isinstance(step, int):
            if step < len(node.items):
                node = node.items[step]
                depth += 1
                part = describe.item(part)
            break
        if node.kind != "object" or step not in node.members:
            break
        key_at, node = node.members[step]
        depth += 1
        part = describe.properties(part).get(step, part)
    return loc[:depth], part, node, key_at


def path_of(keys: Iterable[int | str]) -> str:
    """ "log.input", "session_recording.users[1]" """
    steps = [f"[{key}]" if isinstance(key, int) else f".{jsonc.shorten(key)}" for key in keys]
    return "".join(steps).removeprefix(".")


def unknown_key(schema: Schema, text: str, keys: list[str], at: int) -> Problem:
    *above, key = keys
    names = list(describe.properties(describe.at(schema, above) or schema))
    meant = meant_by(schema, above, key, names)
    line, column = jsonc.place(text, at)
    what = "there is no such key"
    if "." in key:
        what += "; sections are nested objects, not names with dots"
    known = describe.alternatives_text([f'"{name}"' for name in names])
    suggestion = "".join(meant[-1:]) if meant[:-1] == above else ".".join(meant)
    return Problem(line, column, path_of(keys), what, known, suggestion, hint(above, meant))


def meant_by(schema: Schema, above: list[str], key: str, names: list[str]) -> list[str]:
    """The keys of the setting that an unknown key among names is taken for; [] for none."""
    paths = [path for path, _ in describe.settings_of(schema)]
    if "." in key:
        close = difflib.get_close_matches(key.lower(), paths, n=1, cutoff=0.6)
        return close[0].split(".") if close else []
    # The right key in the wrong section comes before one that only looks alike.
    elsewhere = [path for path in paths if path.split(".")[-1] == key]
    if len(elsewhere) == 1:
        return elsewhere[0].split(".")
    close = difflib.get_close_matches(key.lower(), names, n=1, cutoff=0.6)
    return [*above, *close] if close else []


def hint(above: list[str], meant: list[str]) -> str:
    """What to write in place of a key below above, to set what is meant."""
    if not meant:
        return ""
    *sections, key = meant
    if sections == above:
        return f'"{key}"'
    written = f'"{key}": ...' if sections else f'"{key}"'
    for section in reversed(sections):
        written = f'"{section}": {{{written}}}'
    return f'{written} outside of "{".".join(above)}"' if above else written


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
