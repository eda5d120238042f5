# SPDX-License-Identifier: Apache-2.0
"""Read and validate a configuration in a fraction of a millisecond, for the login path.

This accepts only what it finds perfectly valid and gives no errors: whatever it
refuses goes to check.py, which parses and validates again to say what is wrong.
What it accepts, check.py accepts with the same values; a property test holds both
against each other. Neither re nor json is imported: the scanner of the json module
is used directly.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Values = dict[str, object]
    Schema = dict[str, "object"]


_SCHEMAS: dict[str, Schema] = {}


class Refused(ValueError):
    """Not perfectly valid; check.py says why."""


def accept(text: str, schema: Schema) -> Values | None:
    """The settings that text holds, normalised, or None where it is not perfectly valid."""
    try:
        values = validate(parse(text), schema)
    except (ValueError, RecursionError, StopIteration):
        return None
    return values  # type: ignore[return-value]  # the schema's root is an object


def defaults(schema: Schema) -> Values:
    """The built-in values of every setting, nested; lists are fresh."""
    values: Values = {}
    properties: dict[str, Schema] = schema["properties"]  # type: ignore[assignment]
    for name, part in properties.items():
        if "properties" in part:
            values[name] = defaults(part)
        else:
            value = part["default"]
            values[name] = list(value) if isinstance(value, list) else value
    return values


def load_schema(program: str) -> Schema:
    """The generated JSON Schema of a program; not to be changed.

    It is read once: the recorder service forks a process for each login that has it.
    """
    if program not in _SCHEMAS:
        _SCHEMAS[program] = _read_schema(program)
    return _SCHEMAS[program]


def _read_schema(program: str) -> Schema:
    path = os.path.join(os.path.dirname(__file__), program + ".schema.json")
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(fd, os.fstat(fd).st_size)
    finally:
        os.close(fd)
    return parse(data.decode())  # type: ignore[return-value]  # we generated it


def parse(text: str) -> object:
    """The value of JSON with comments. Raises ValueError, StopIteration or RecursionError."""
    plain = uncomment(text).strip(" \t\r\n")
    try:
        value, end = scanner()(plain, 0)
    except SystemError:
        # The C scanner finds its own exception's class only where json.decoder is imported.
        raise Refused from None
    if end != len(plain):
        raise Refused
    return value


def scanner() -> Callable[[str, int], tuple[object, int]]:
    """The json module's: (text, offset) to (value, the offset after it)."""
    try:
        from _json import make_scanner
    except ImportError:  # an interpreter without the C module
        from json import JSONDecoder

        return JSONDecoder(object_pairs_hook=unique, parse_constant=refuse).raw_decode
    scan: Callable[[str, int], tuple[object, int]] = make_scanner(
        Strict  # type: ignore[arg-type]  # typeshed has it wrong
    )
    return scan


def unique(pairs: list[tuple[str, object]]) -> Values:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise Refused
    return values


def refuse(constant: str) -> object:
    raise Refused  # NaN and Infinity


class Strict:
    """What the json module's scanner reads its options from."""

    strict = True
    object_hook = None
    object_pairs_hook = staticmethod(unique)
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(refuse)


SPACE = " \t\r\n"


def uncomment(text: str) -> str:
    """Text with a space for every comment outside strings. Raises Refused on an open end.

    With the comments goes the comma before them, if only they part it from the end of
    an object or list: see jsonc.py. The next quote and slash are each searched for
    only once, so that hostile text takes no more than linear time.
    """
    end = len(text)
    parts: list[str] = []
    kept = at = 0
    quote = slash = -1
    while at < end:
        if quote < at and (quote := text.find('"', at)) < 0:
            quote = end
        if slash < at and (slash := text.find("/", at)) < 0:
            slash = end
        if quote < slash:
            at = after_string(text, quote)
            continue
        if slash == end:
            break
        at = after_comments(text, slash)
        part = text[kept:slash]
        if text[at : at + 1] in ("}", "]"):
            part = without_comma(part, parts)
        parts.append(part)
        kept = at
    parts.append(text[kept:])
    return " ".join(parts)


def after_comments(text: str, at: int) -> int:
    """The offset after the comment that begins at `at`, and the comments and space after it."""
    end = len(text)
    while True:
        if text.startswith("//", at):
            at = text.find("\n", at)
            if at < 0:
                return end
        elif text.startswith("/*", at):
            at = text.find("*/", at + 2) + 2
            if at < 2:
                raise Refused
        else:
            raise Refused
        while at < end and text[at] in SPACE:
            at += 1
        if at >= end or text[at] != "/":
            return at


def without_comma(part: str, before: list[str]) -> str:
    """What stands before comments at the end of an object or list, its last comma left out."""
    part = part.rstrip(SPACE)
    if part[-1:] != ",":
        return part
    part = part[:-1]
    ahead = part.rstrip(SPACE) or (before[-1].rstrip(SPACE) if before else "")
    if ahead[-1:] in ("", ",", ":", "{", "["):  # a comma that follows nothing
        raise Refused
    return part


def after_string(text: str, quote: int) -> int:
    """The offset after the string that begins at quote."""
    at = quote
    while (at := text.find('"', at + 1)) >= 0:
        before = at - 1
        while text[before] == "\\":
            before -= 1
        if (at - before) % 2:
            return at + 1
    raise Refused


def validate(value: object, schema: Schema) -> object:
    """The value as the schema's program uses it. Raises Refused.

    Knows exactly the keywords that generate.py writes.
    """
    alternatives: list[Schema] | None = schema.get("anyOf")  # type: ignore[assignment]
    if alternatives is not None:
        for alternative in alternatives:
            try:
                value = validate(value, alternative)
                break
            except Refused:
                continue
        else:
            raise Refused
        if "x-comma-separated" in schema and type(value) is str:
            value = split(value)
        return value
    kind = schema["type"]
    actual = type(value)
    if kind == "object":
        return validate_object(value, schema)
    if kind == "string":
        if actual is not str:
            raise Refused
        return validate_string(value, schema)  # type: ignore[arg-type]
    if kind == "boolean":
        if actual is not bool:
            raise Refused
    elif kind == "integer":
        if actual is not int:
            raise Refused
        validate_range(value, schema)  # type: ignore[arg-type]
    elif kind == "number":
        if actual is not int and actual is not float:
            raise Refused
        validate_range(value, schema)  # type: ignore[arg-type]
        return float(value)  # type: ignore[arg-type]
    elif kind == "null":
        if value is not None:
            raise Refused
    elif kind == "array":
        if actual is not list:
            raise Refused
        items: Schema = schema["items"]  # type: ignore[assignment]
        return [validate(item, items) for item in value]  # type: ignore[attr-defined]
    else:
        raise Refused
    return value


def validate_object(value: object, schema: Schema) -> Values:
    if type(value) is not dict:
        raise Refused
    properties: dict[str, Schema] = schema["properties"]  # type: ignore[assignment]
    values: Values = {}
    for name, part in value.items():
        if name not in properties:
            raise Refused
        values[name] = validate(part, properties[name])
    return values


def validate_string(value: str, schema: Schema) -> str:
    choices: list[str] | None = schema.get("enum")  # type: ignore[assignment]
    if choices is not None and value not in choices:
        raise Refused
    pattern: str | None = schema.get("pattern")  # type: ignore[assignment]
    if pattern is not None and not PATTERNS[pattern](value):
        raise Refused
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        raise Refused from None
    return value


def validate_range(value: float, schema: Schema) -> None:
    """Every number of ours has a maximum, which also keeps infinity out."""
    least: float | None = schema.get("minimum")  # type: ignore[assignment]
    above: float | None = schema.get("exclusiveMinimum")  # type: ignore[assignment]
    if (least is not None and value < least) or (above is not None and value <= above):
        raise Refused
    if value > schema["maximum"]:  # type: ignore[operator]
        raise Refused


def split(value: str) -> list[str]:
    """A comma-separated string as a list, as models.separated does it."""
    return [name for name in (part.strip(" \t\r\n") for part in value.split(",")) if name]


def no_nul(value: str) -> bool:
    return "\0" not in value


# The models' patterns without re, whose import costs as much as everything else here.
PATTERNS: dict[str, Callable[[str], bool]] = {
    r"^[^\u0000]*$": no_nul,
    r"^[^\u0000]+$": lambda value: value != "" and no_nul(value),
    r"^/[^\u0000]*$": lambda value: value[:1] == "/" and no_nul(value),
    r"^(/[^\u0000]*)?$": lambda value: value[:1] in ("", "/") and no_nul(value),
}
