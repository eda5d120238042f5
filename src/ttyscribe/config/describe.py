# SPDX-License-Identifier: Apache-2.0
"""What a setting may be, in words: for errors, the configuration files and the manual."""

from __future__ import annotations

from ttyscribe.config.fast import load_schema

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ttyscribe.config.fast import Schema

    # (path, schema): ("log.input", {"type": "boolean", ...})
    Setting = tuple[str, Schema]

KINDS = {"string": "text without U+0000", "boolean": "true or false", "null": "null"}


def settings(program: str) -> list[Setting]:
    """Every setting of a program: its path ("log.input") and its part of the JSON Schema.

    The schema's "description" is its help, whose first sentence suits --help, and
    "default" its built-in value.
    """
    return settings_of(load_schema(program))


def settings_of(schema: Schema) -> list[Setting]:
    """Every setting below a schema."""
    return list(walk(schema, ""))


def properties(part: Schema) -> dict[str, Schema]:
    """The settings and sections directly in a section; {} for a setting."""
    return part.get("properties", {})  # type: ignore[return-value]


def item(part: Schema) -> Schema:
    """What each item of a list setting may be."""
    for alternative in [part, *part.get("anyOf", [])]:  # type: ignore[misc]
        if "items" in alternative:
            return alternative["items"]  # type: ignore[no-any-return]
    return part


def kinds(part: Schema) -> set[str]:
    """The JSON types a setting may have."""
    if "anyOf" in part:
        return {kind for p in part["anyOf"] for kind in kinds(p)}  # type: ignore[attr-defined]
    return {str(part["type"])}


def walk(part: Schema, prefix: str) -> Iterator[Setting]:
    for name, p in properties(part).items():
        if "properties" in p:
            yield from walk(p, f"{prefix}{name}.")
        else:
            yield prefix + name, p


def at(schema: Schema, keys: list[str]) -> Schema | None:
    """The part of a schema that keys lead to, or None where there is none."""
    for key in keys:
        if key not in properties(schema):
            return None
        schema = properties(schema)[key]
    return schema


def allowed(part: Schema) -> str:
    """What a setting may be: "a whole number, at least 32"."""
    if "x-comma-separated" in part:
        return "a list of names, or one text with commas between them"
    if "anyOf" in part:
        alternatives: list[Schema] = part["anyOf"]  # type: ignore[assignment]
        return " or ".join(allowed(alternative) for alternative in alternatives)
    if "enum" in part:
        choices: list[str] = part["enum"]  # type: ignore[assignment]
        return alternatives_text([f'"{choice}"' for choice in choices])
    kind = part["type"]
    if kind == "object":
        return "an object {...} with " + alternatives_text(
            [f'"{name}"' for name in properties(part)]
        )
    if kind == "array":
        return f"a list [...], each item {allowed(item(part))}"
    if kind in ("integer", "number"):
        return number(part)
    pattern = part.get("pattern")
    if pattern == r"^/[^\u0000]*$":
        return "a path that begins with /"
    if pattern == r"^(/[^\u0000]*)?$":
        return 'a path that begins with /, or ""'
    if pattern == r"^[^\u0000]+$":
        return "text that is not empty"
    return KINDS[str(kind)]


def number(part: Schema) -> str:
    text = "a whole number" if part["type"] == "integer" else "a number"
    if "minimum" in part:
        text += f" from {plain(part['minimum'])}"
    else:
        text += f" above {plain(part['exclusiveMinimum'])}"
    return f"{text} to {plain(part['maximum'])}"


def plain(value: object) -> str:
    """A bound without a needless fraction: 1000000 for 1e6."""
    return str(int(value)) if isinstance(value, float) and value == int(value) else str(value)


def alternatives_text(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]
