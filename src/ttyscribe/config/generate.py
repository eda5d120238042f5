# SPDX-License-Identifier: Apache-2.0
"""Write what is generated from the models: `python -m ttyscribe.config.generate`.

The JSON Schemas and the typed views in this package, and the commented default
files in conf/ of the checkout; and the settings in the conf(5) pages in man/. A test
fails when they are out of date.
"""

from __future__ import annotations

import json
import os
import textwrap

from ttyscribe.config import manual
from ttyscribe.config.models import MODELS

Schema = dict[str, "object"]

HERE = os.path.dirname(os.path.abspath(__file__))
CHECKOUT = os.path.normpath(os.path.join(HERE, "..", "..", ".."))
CONF = os.path.join(CHECKOUT, "conf")
MAN = os.path.join(CHECKOUT, "man")
DIALECT = "https://json-schema.org/draft/2020-12/schema"
WIDTH = 88

# What a generated file says about itself.
GENERATED = "Generated from models.py by `python -m ttyscribe.config.generate`."

# What stands above the settings of each file.
PREAMBLES = {
    "rec": "The settings of `ttyscribe rec`, which records a command or a shell.",
    "rec-session": "The settings of `ttyscribe rec-session`, the login shell that records.",
    "play": "The settings of `ttyscribe play`, which replays a recording.",
}


def schema(program: str) -> Schema:
    """The JSON Schema of a program's configuration, without references between its parts."""
    raw = MODELS[program].model_json_schema()
    definitions = raw.pop("$defs", {})
    head: Schema = {
        "$schema": DIALECT,
        "title": f"{program}.conf",
        "description": PREAMBLES[program],
    }
    return head | plain(raw | {"description": PREAMBLES[program]}, definitions)


def plain(part: Schema, definitions: dict[str, Schema]) -> Schema:
    """A part of pydantic's schema with its references resolved and its titles left out."""
    result = dict(part)
    reference = result.pop("$ref", None)
    if isinstance(reference, str):
        result = definitions[reference.rpartition("/")[2]] | result
    result.pop("title", None)
    properties = result.get("properties")
    if isinstance(properties, dict):
        result.pop("default", None)
        result["properties"] = {name: plain(p, definitions) for name, p in properties.items()}
    return result


def default_file(program: str) -> str:
    """The commented configuration file that changes nothing: every setting with its default."""
    head = textwrap.fill(
        f"{PREAMBLES[program]} Every setting is shown with its built-in value; to change one,"
        f" remove the // before it. The files of {program}.conf.d/*.conf are"
        " read after this one, in order; what is read later wins. After a change run:",
        WIDTH,
        initial_indent="// ",
        subsequent_indent="// ",
    )
    body = "\n".join(section(schema(program), "    "))
    return f"{head}\n//     ttyscribe config check\n{{\n{body}\n}}\n"


def section(part: Schema, indent: str) -> list[str]:
    """The lines of an object's settings."""
    lines: list[str] = []
    properties: dict[str, Schema] = part["properties"]  # type: ignore[assignment]
    # Sections first: a comma before comments is fine, so any setting can be uncommented.
    ordered = sorted(properties.items(), key=lambda item: "properties" not in item[1])
    for number, (name, p) in enumerate(ordered):
        last = number == len(ordered) - 1
        lines += comment(help_text(p), indent)
        if "properties" in p:
            lines.append(f'{indent}"{name}": {{')
            lines += section(p, indent + "    ")
            lines.append(f"{indent}}}" + ("" if last else ","))
        else:
            value = json.dumps(p["default"], ensure_ascii=False)
            lines.append(f'{indent}// "{name}": {value}' + ("" if last else ","))
        if not last:
            lines.append("")
    return lines


def help_text(part: Schema) -> str:
    from ttyscribe.config.describe import allowed

    if "properties" in part:
        return str(part["description"])
    return f"{part['description']} Allowed: {allowed(part)}."


def comment(text: str, indent: str) -> list[str]:
    lead = f"{indent}// "
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=lead,
        subsequent_indent=lead,
        break_long_words=False,
        break_on_hyphens=False,
    )


def views() -> str:
    """The module of TypedDicts that give the plain values their types."""
    lines = [
        "# SPDX-License-Identifier: Apache-2.0",
        '"""The types of the effective values of each program, for type checkers only.',
        "",
        GENERATED,
        '"""',
        "",
        "from __future__ import annotations",
        "",
        "from typing import Literal, TypedDict",
    ]
    done: set[str] = set()
    for program in MODELS:
        name = "".join(word.capitalize() for word in program.split("-"))
        lines += view(name, schema(program), done)
    return "\n".join(lines) + "\n"


def view(name: str, part: Schema, done: set[str]) -> list[str]:
    before: list[str] = []
    fields: list[str] = []
    properties: dict[str, Schema] = part["properties"]  # type: ignore[assignment]
    for key, p in properties.items():
        if "properties" in p:
            inner = name + "".join(word.capitalize() for word in key.split("_"))
            before += view(inner, p, done)
            fields.append(f"    {key}: {inner}")
        else:
            fields.append(f"    {key}: {annotation(p)}")
    return [*before, "", "", f"class {name}(TypedDict):", *fields]


def annotation(part: Schema) -> str:
    """The Python type of a setting's effective value."""
    if "x-comma-separated" in part:
        return "list[str]"
    if "anyOf" in part:
        alternatives: list[Schema] = part["anyOf"]  # type: ignore[assignment]
        return " | ".join(annotation(alternative) for alternative in alternatives)
    if "enum" in part:
        choices: list[str] = part["enum"]  # type: ignore[assignment]
        text = "Literal[" + ", ".join(f'"{choice}"' for choice in choices) + "]"
        if len(text) > 70:
            return "str"
        return text
    kinds = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}
    if part["type"] == "array":
        return f"list[{annotation(part['items'])}]"  # type: ignore[arg-type]
    return kinds.get(str(part["type"]), "None")


def files() -> dict[str, str]:
    """Every generated file's path and text."""
    result = {os.path.join(HERE, "views.py"): views()}
    for program in MODELS:
        text = json.dumps(schema(program), indent=2, ensure_ascii=False) + "\n"
        result[os.path.join(HERE, f"{program}.schema.json")] = text
        result[os.path.join(CONF, f"{program}.conf")] = default_file(program)
        page = os.path.join(MAN, f"ttyscribe-{program}.conf.5")
        with open(page, encoding="utf-8") as source:
            result[page] = manual.with_settings(source.read(), schema(program))
    return result


def main() -> None:
    for path, text in files().items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as out:
            out.write(text)


if __name__ == "__main__":
    main()
